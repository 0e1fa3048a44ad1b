"""Put an attack into an attack-free recording: frames of the host and of the attacker share its bus.

    python -m canids_preprocess.inject --output X.parquet --rejects Y.parquet --host HOST.parquet --spec '{"wildcards": {},
        "config": {}, "capture": {"name": "drive-dos", "host": "drive", "vehicle": "mycar", "attack": "dos", "content": "labelled",
        "format": "injected", "injection": {"seed": 1, "episodes": 4, "episode_s": 4, "stealth": "mixed"}}}'

Injected frames keep the bus busy for as long as they take at its bit rate; frames of the host that want to be sent meanwhile wait,
those of higher priority first, and get through later: their timestamps say so. The delays end where the bus is idle again. All else of
the host stays as it was recorded; only `suppression` and `masquerade` take frames away. A host's frame counts as ready at the
beginning of its recorded transmission.

Labels: injected frames are 1, also those of a masquerade; under `suppression` every frame within an episode is. The same host,
options and name of the attack give the same bytes.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from canids_preprocess.simulation.attacks import MEMORY_S, Episode, act, planned_episodes
from canids_preprocess.simulation.observed import INJECTABLE, observe, scene
from canids_preprocess.simulation.shared_bus import USUAL_RATE, Queue, bit_rate_of, busy_ns, id_of, number_of
from canids_preprocess.simulation.signals import as_bytes
from canids_preprocess.simulation.traffic import SECOND, Frames, joined
from canids_preprocess.simulation.vehicle import Vehicle, seed_of
from canids_shared.contracts import tables
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Host:
    """A recording into which an attack is put.

    Attributes:
        name: of its capture.
        table: its frames [n], by the contract `frames`.
        received: times of receipt from the first frame on, int64 nanoseconds, not decreasing.
        frames: the same as the attacks see them; `release` is the beginning of each transmission.
        busy: how long each keeps the bus, int64 nanoseconds.
        bit_rate: of the bus, bit/s.
        bit_rate_is: where that comes from: `stated`, `estimated` or `assumed`.
    """

    name: str
    table: pl.DataFrame
    received: NDArray[np.int64]
    frames: Frames
    busy: NDArray[np.int64]
    bit_rate: int
    bit_rate_is: str

    @classmethod
    def of(cls, name: str, table: pl.DataFrame, bit_rate: int | None) -> "Host":
        """The host with these frames, on a bus of the stated bit rate, or of the estimated one.

        Raises `CanidsError` naming it if it has no frame, or CAN FD frames, whose second bit rate nobody states.
        """
        if not len(table):
            raise CanidsError(f"host '{name}': no frames in this part of it; change injection.part")
        if table["fd"].any():
            raise CanidsError(f"host '{name}': has CAN FD frames, and attacks are put into classical CAN alone")
        time = table["timestamp"].to_numpy()
        received = np.maximum.accumulate(np.rint((time - time[0]) * SECOND).astype(np.int64))
        dlc = table["dlc"].to_numpy().astype(np.int64)
        extended, remote = (table[key].to_numpy() for key in ("extended", "remote"))
        origin = "stated"
        if bit_rate is None:
            origin, bit_rate = "estimated", bit_rate_of(received, busy_ns(dlc, extended, remote, SECOND))
            if bit_rate is None:
                origin, bit_rate = "assumed", USUAL_RATE
                log.warning(
                    "host '%s': its timestamps fit no bus, %d bit/s are assumed; state injection.bit_rate",
                    name,
                    bit_rate,
                )
        busy = busy_ns(dlc, extended, remote, bit_rate)
        padded = b"".join(bytes(payload).ljust(8, b"\0") for payload in table["payload"])
        words = np.frombuffer(padded, dtype=">u8").astype(np.uint64)
        number = number_of(table["can_id"].to_numpy().astype(np.int64), extended)
        frames = Frames(received - busy, number, dlc, words, np.zeros(len(table), dtype=np.bool_))
        return cls(name, table, received, frames, busy, bit_rate, origin)

    @property
    def seconds(self) -> float:
        """From its first frame to its last."""
        return float(self.received[-1] / SECOND)


@dataclass(frozen=True)
class Injected:
    """A host with an attack in it.

    Attributes:
        table: its frames, by the contract `frames`.
        episodes: start and end of each episode, seconds from the host's first frame on.
        added, taken, delayed: frames injected, taken away, and sent later than recorded.
        longest_delay: of a frame of the host, seconds.
    """

    table: pl.DataFrame
    episodes: list[tuple[float, float]]
    added: int = 0
    taken: int = 0
    delayed: int = 0
    longest_delay: float = 0.0


def _episodes(host: Host, options: dict[str, Any], rng: np.random.Generator) -> list[Episode]:
    number, length = options["episodes"], options["episode_s"]
    try:
        return planned_episodes(host.seconds, number, length, options["stealth"], rng)
    except CanidsError:
        raise CanidsError(
            f"host '{host.name}': {number} attack episodes of {length:g} s do not fit into {host.seconds:.1f} s; "
            "change injection.episodes, episode_s or part"
        ) from None


def _attacked(
    host: Host, vehicle: Vehicle, attack: str, episodes: list[Episode], entropy: list[int]
) -> tuple[Frames, Any]:
    """The attacker's frames in the order of their release, and a mask [n] of the host's frames that it takes away."""
    rng = np.random.default_rng(np.random.SeedSequence([*entropy, 1]))
    turns = sorted({m.can_id for m in vehicle.messages} | {m.task.ecu for m in vehicle.messages})
    rank = dict(zip(turns, rng.random(len(turns)).tolist(), strict=True))
    taken = np.zeros(len(host.frames), dtype=np.bool_)
    added = [host.frames[taken]]
    for episode in episodes:
        known = host.frames.released_in(episode.start - MEMORY_S, episode.end)
        draws = np.random.default_rng(np.random.SeedSequence([*entropy, 2, episode.number]))
        effect = act(attack, scene(vehicle, host.frames[known], rank, episode, draws))
        if effect.added is not None:
            added.append(effect.added)
        if effect.silenced is not None:
            taken[np.flatnonzero(known)[effect.silenced]] = True
    return joined(added), taken


def inject(host: Host, attack: str | None, options: dict[str, Any]) -> Injected:
    """Put an attack into a host; without one the host stays as it is.

    Args:
        host: the recording.
        attack: one of `INJECTABLE`, or None.
        options: `seed`, `episodes`, `episode_s`, `stealth`.

    Raises `CanidsError` if there is no such attack, it does not fit into the host, or the host has nothing to attack.
    """
    if attack is None:
        return Injected(host.table, [])
    if attack not in INJECTABLE:
        raise CanidsError(f"no attack '{attack}' can be put into a recording; attacks: {', '.join(INJECTABLE)}")
    entropy = [options["seed"], seed_of(attack)]
    episodes = _episodes(host, options, np.random.default_rng(np.random.SeedSequence(entropy)))
    vehicle = observe(f"host '{host.name}'", host.frames, host.bit_rate)
    added, taken = _attacked(host, vehicle, attack, episodes, entropy)
    kept = np.flatnonzero(~taken)
    received, delay = _carried(host, kept, added, episodes)
    rows = pl.concat([host.table[kept], _rows(added, host.table, attack)])
    # What the bus did not delay keeps its timestamp to the last bit.
    moved = np.append(delay > 0, np.ones(len(added), dtype=np.bool_))
    recorded = rows["timestamp"].to_numpy()
    start = host.table["timestamp"][0]
    inside = np.zeros(len(rows), dtype=np.bool_)
    intervals = []
    for e, own in zip(episodes, _by_episode(added.release, episodes), strict=True):
        # The attack lasts until its last frame is through.
        end = max(e.end, float(received[len(kept) :][own].max(initial=0) / SECOND))
        inside |= (received >= e.start * SECOND) & (received < e.end * SECOND)
        intervals.append((e.start, end))
    label = inside if attack == "suppression" else rows["label"].to_numpy() > 0
    table = rows.with_columns(
        timestamp=pl.Series(np.where(moved, start + received / SECOND, recorded)),
        label=pl.Series(label.astype(np.uint8)),
        attack=pl.Series(np.where(label, attack, "").tolist(), dtype=pl.String),
    )[np.argsort(received, kind="stable")]
    longest = float(delay.max(initial=0) / SECOND)
    return Injected(table, intervals, len(added), int(taken.sum()), int((delay > 0).sum()), longest)


def _carried(
    host: Host, kept: NDArray[np.int64], added: Frames, episodes: list[Episode]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When each frame is received (those kept of the host, then those added), and the delay of each kept one; nanoseconds."""
    genuine = host.frames[kept]
    every = Frames(*(np.concatenate([getattr(genuine, f), getattr(added, f)]) for f in vars(genuine)))
    remote = np.append(host.table["remote"].to_numpy()[kept], np.zeros(len(added), dtype=np.bool_))
    extended = id_of(every.can_id)[1]
    busy = busy_ns(every.dlc, extended, remote, host.bit_rate)
    received = np.append(host.received[kept], np.zeros(len(added), dtype=np.int64))
    order = np.lexsort((every.injected, every.release))
    queue = Queue.of(every.release[order], every.can_id[order], remote[order], every.injected[order], busy[order])
    attacker, released = np.flatnonzero(every.injected[order]), every.release[order]
    free = 0
    for own in _by_episode(released[attacker], episodes):
        # From the episode's first injected frame to its last, and on until the bus is idle.
        waiting = attacker[own][attacker[own] >= free]
        if len(waiting):
            now = int(received[order[: waiting[0]]].max(initial=0))
            sent, at, free = queue.carry(int(waiting[0]), now, int(waiting[-1]))
            received[order[sent]] = at
    return received, received[: len(kept)] - host.received[kept]


def _by_episode(release: NDArray[np.int64], episodes: list[Episode]) -> list[NDArray[np.bool_]]:
    """Masks [n] of the injected frames of each episode; the last ones of it may come a little behind its end."""
    number = np.searchsorted([round(e.start * SECOND) for e in episodes], release, side="right") - 1
    return [number == k for k in range(len(episodes))]


def _rows(frames: Frames, like: pl.DataFrame, attack: str) -> pl.DataFrame:
    """Rows of injected frames, on the channel of the table `like`."""
    can_id, extended = id_of(frames.can_id)
    payload = as_bytes(frames.payload)
    columns = {
        "timestamp": np.zeros(len(frames)),
        "can_id": can_id,
        "extended": extended,
        "remote": np.zeros(len(frames), dtype=np.bool_),
        "fd": np.zeros(len(frames), dtype=np.bool_),
        "dlc": frames.dlc,
        "payload": [row[:dlc].tobytes() for row, dlc in zip(payload, frames.dlc, strict=True)],
        "channel": [like["channel"][0]] * len(frames),
        "label": np.ones(len(frames), dtype=np.uint8),
        "attack": [attack] * len(frames),
    }
    return pl.DataFrame(columns, schema=like.schema, strict=False)


def main(call: entry_point.Call) -> None:
    """Entry point; the rule's constant `capture` is the manifest's entry, `host` the frames of its host."""
    entry = call.constants["capture"]
    path: Path = call.inputs["host"][0]
    table, metadata = tables.read(path, tables.FRAMES)
    options = entry["injection"]
    if part := options.get("part"):
        since = pl.col("timestamp") - table["timestamp"][0]
        table = table.filter((since >= part[0]) & (since < part[1]))
    # A part without an attack meets no other frame, so its bit rate makes no difference.
    host = Host.of(entry["host"], table, options.get("bit_rate") or (None if entry["attack"] else USUAL_RATE))
    made = inject(host, entry["attack"], options)
    start = host.table["timestamp"][0]
    episodes = [[start + begin, start + end] for begin, end in made.episodes]
    with (
        tables.writing(call.output["output"], tables.FRAMES) as frames,
        tables.writing(call.output["rejects"], tables.REJECTS) as rejects,
    ):
        frames.append(made.table)
        # There is no raw file: its place takes what makes the same frames.
        origin = json.dumps([metadata["sha256"], metadata.get("channels"), entry["attack"], options], sort_keys=True)
        frames.close(
            {
                "capture": entry["name"],
                **{key: entry[key] for key in ("vehicle", "format", "content", "attack", "host")},
                "attacks": [entry["attack"]] if entry["attack"] else [],
                "sha256": hashlib.sha256(origin.encode()).hexdigest(),
                "rows_read": len(made.table),
                "frames": len(made.table),
                "rejects": 0,
                "stepped_back": 0,
                "assumed_rate": metadata.get("assumed_rate"),
                "attacked": episodes if entry["attack"] == "suppression" else [],
                "injection": {
                    **options,
                    "bit_rate": host.bit_rate,
                    "bit_rate_is": host.bit_rate_is,
                    "attacked": episodes,
                },
            }
        )
        rejects.close({"capture": entry["name"]})
    log.info(
        "%s: attacks injected into recording %s (%d bit/s, %s): %d frames added, %d taken away, %d delayed, by at most %.1f ms",
        *(
            entry["name"],
            host.name,
            host.bit_rate,
            host.bit_rate_is,
            made.added,
            made.taken,
            made.delayed,
            1e3 * made.longest_delay,
        ),
    )


if __name__ == "__main__":
    entry_point.run(main, inputs=["host"], outputs=["output", "rejects"])
