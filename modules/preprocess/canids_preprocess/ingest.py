"""Turn one raw capture into frames, in constant memory.

    python -m canids_preprocess.ingest --spec JSON --output X.parquet --rejects Y.parquet --capture RAW [--metadata JSON]

Rows read = frames + rejects, always. With `on_bad_rows: error` the first row that cannot be read stops the job with file,
line and reason; with `quarantine` such rows become rejects, with the reason.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_preprocess.formats import FORMATS, recognise
from canids_preprocess.formats.base import Batch, Format, printable
from canids_preprocess.formats.table.reader import in_file_unit
from canids_preprocess.timestamps import in_seconds
from canids_shared.contracts import tables
from canids_shared.contracts.manifest import ALL_CHANNELS
from canids_shared.errors import CanidsError
from canids_shared.files import sha256_of
from canids_shared.jobs import entry_point


class NoAttackedFrameError(CanidsError):
    """A capture is called labelled and names an attack, but no frame of it is attacked: what is attacked is unknown."""


_STRAYS = 100
"""Most frames behind the latest timestamp that may all be late, as where a capture ends amid a step back; if more are, it is wrong."""
log = logging.getLogger(__name__)


@dataclass
class RowCounts:
    """Counts of a capture's rows so far.

    Attributes:
        frames, rejects: rows of either kind.
        trimmed: frames with white space or quotes around a field where the format has none.
        stepped_back: frames whose timestamp steps back within the tolerance.
        first, last: the first and the latest timestamp, seconds.
        line: line of the latest timestamp.
        late, on_time: frames behind that line that are too far before it, and the others.
        attacked: frames with label 1.
        attacks: kinds of these frames, where the manifest's intervals name kinds.
        channels: frames of each bus, and `channels_attacked` those buses with an attacked one.
        end: the latest timestamp of any bus of the file.
        elsewhere: frames of buses that are left out.
    """

    frames: int = 0
    rejects: int = 0
    trimmed: int = 0
    stepped_back: int = 0
    first: float = 0.0
    last: float | None = None
    line: int = 0
    late: int = 0
    on_time: int = 0
    attacked: int = 0
    attacks: set[str] = field(default_factory=set)
    channels: Counter[str] = field(default_factory=Counter)
    channels_attacked: set[str] = field(default_factory=set)
    end: float = -np.inf
    elsewhere: Counter[str] = field(default_factory=Counter)


def _refuse_bad_rows(path: Path, rejects: pl.DataFrame) -> None:
    line, reason, _ = rejects.row(0)
    more = f" (and {len(rejects) - 1} more rows)" if len(rejects) > 1 else ""
    raise CanidsError(
        f"{path}, line {line}: {reason}{more}; correct or remove the line, or set on_bad_rows to quarantine"
    )


def _in_time(path: Path, batch: Batch, counts: RowCounts, tolerance: float, quarantine: bool) -> Batch:
    """The batch without the frames whose time lies further than the tolerance before that of an earlier one.

    Within the tolerance they stay, and are counted. Beyond it they are rejects with quarantine, else a `CanidsError`.
    """
    frames, rejects, _ = batch
    if not len(frames):
        return batch
    timestamp = frames["timestamp"].to_numpy()
    # The latest timestamp before each frame: a frame steps back from that, not from the frame before.
    start = timestamp[0] if counts.last is None else counts.last
    if timestamp[0] >= start and (timestamp[1:] >= timestamp[:-1]).all():
        if counts.last is None or timestamp[-1] > counts.last:
            # The first of the frames with the latest timestamp.
            latest = int(np.searchsorted(timestamp, timestamp[-1]))
            counts.line, counts.late, counts.on_time = frames["line"][latest], 0, len(timestamp) - 1 - latest
        else:
            counts.on_time += len(timestamp)
        return batch
    before = np.maximum.accumulate(np.concatenate([[start], timestamp[:-1]]))
    back = before - timestamp
    late = back > tolerance
    counts.stepped_back += int(np.count_nonzero((back > 0) & ~late))
    # One wrong timestamp far ahead would make all frames behind it late: they are counted from the latest one on.
    latest, behind = int(timestamp.argmax()), late
    if counts.last is None or timestamp[latest] > counts.last:
        counts.line, counts.late, counts.on_time = frames["line"][latest], 0, 0
        behind = late[latest + 1 :]
    counts.late += int(np.count_nonzero(behind))
    counts.on_time += int(np.count_nonzero(~behind))
    if not late.any():
        return batch
    row = int(np.argmax(late))
    if not quarantine:
        raise CanidsError(
            f"{path}, line {frames['line'][row]}: the timestamp steps back by {back[row]:.6f} s from the latest one "
            f"above, more than timestamp_tolerance ({tolerance} s); correct the one that is wrong, "
            "or sort the capture, or cut it there"
        )
    wrong = frames.select("line", reason=pl.lit("the timestamp steps back"), text=pl.format("{}", "timestamp"))
    return batch._replace(frames=frames.filter(~late), rejects=pl.concat([rejects, wrong.filter(late)]).sort("line"))


def _by_channel(frames: pl.DataFrame) -> dict[str, int]:
    """Frames of each bus; an empty name is that of frames without one."""
    # Most formats have no channel at all, and then no text has to be compared.
    if frames["channel"].null_count() == len(frames):
        return {"": len(frames)}
    return dict(frames["channel"].fill_null("").value_counts().iter_rows())


def of_buses(path: Path, batch: Batch, entry: dict[str, Any], counts: RowCounts) -> Batch:
    """The batch without the frames of other buses than those of the entry's `channel`; frames are counted by bus.

    Raises `CanidsError` if there are several, and no channel is named.
    """
    channel, frames = entry.get("channel"), batch.frames
    found = _by_channel(frames)
    left_out = set() if channel in (None, ALL_CHANNELS) else found.keys() - set(channel)
    counts.channels.update({name: count for name, count in found.items() if name not in left_out and count})
    counts.elsewhere.update({name: found[name] for name in left_out if found[name]})
    if channel is None and len(counts.channels) > 1:
        names = ", ".join(f"{name or 'none'}" for name in sorted(counts.channels))
        raise CanidsError(
            f"{path}: frames of several buses ({names}); name one of them as `channel` in the manifest, in an entry for each, or "
            "`channel: all` makes each a capture of its own (follow: --channel)"
        )
    if not left_out:
        return batch
    return batch._replace(frames=frames.filter(~frames["channel"].fill_null("").is_in(sorted(left_out))))


def _attack_name(entry: dict[str, Any]) -> str:
    """Name of the attack on a capture: the manifest's, or `attack`."""
    return entry["attack"] or "attack"


def _kind(interval: Sequence[Any], entry: dict[str, Any]) -> str:
    """Kind of attack of an interval `[from, to]` or `[from, to, kind]` of the manifest."""
    return str(interval[2]) if interval[2:] else _attack_name(entry)


def _labelled(path: Path, frames: pl.DataFrame, entry: dict[str, Any], first: float) -> pl.DataFrame:
    """The frames with labels as the manifest's entry has them, and the name of the attack."""
    label = frames["label"]
    if entry["content"] == "unlabelled":
        label = label.clear(len(frames))
    elif entry["content"] == "attack-free":
        label = label.fill_null(0)
    if entry["attacked"]:
        # The manifest's intervals count from the first frame of the capture, whose batch may have been another.
        since = frames["timestamp"].to_numpy() - first
        intervals = sorted(entry["attacked"], key=lambda interval: tuple(interval[:2]))
        starts, ends = np.array([interval[:2] for interval in intervals]).T
        # Of the intervals that have begun, the one that ends last decides.
        begun = np.searchsorted(starts, since, side="right") - 1
        inside = (begun >= 0) & (since <= np.maximum.accumulate(ends)[begun])
        label = label.fill_null(0).set(pl.Series(inside), 1)
    attack = pl.when(label == 1).then(pl.lit(_attack_name(entry))).otherwise(pl.lit(""))
    if any(interval[2:] for interval in entry["attacked"]):
        latest = np.maximum.accumulate(np.where(ends == np.maximum.accumulate(ends), np.arange(len(ends)), 0))
        kinds = pl.Series([_kind(interval, entry) for interval in intervals])[latest[np.maximum(begun, 0)]]
        attack = pl.when(pl.Series(inside)).then(kinds).otherwise(attack)
    frames = frames.with_columns(label=label, attack=attack)
    if entry["content"] == "attack-free" and frames["label"].max() == 1:
        line = frames["line"][int(frames["label"].arg_max() or 0)]
        raise CanidsError(f"{path}, line {line}: an attacked frame, but the manifest calls the capture attack-free")
    if entry["content"] == "labelled" and frames["label"].null_count():
        raise CanidsError(
            f"{path}: has no labels, but the manifest calls the capture labelled; give it 'attacked' intervals there, or "
            "call it attack-free or unlabelled"
        )
    return frames


def read(
    path: Path, form: Format, entry: dict[str, Any], *, tolerance: float, quarantine: bool, counts: RowCounts
) -> Iterator[Batch]:
    """Batches of a capture, labelled and counted; frames as `canids_shared.contracts.tables.FRAMES`, and their line.

    Args:
        path: the raw file.
        form: its format.
        entry: its entry in the manifest: `attack`, `content`, `attacked`, `timestamp_unit`, `channel`, of a table `table`, and for ROAD `metadata`.
        tolerance: seconds by which a timestamp may step back.
        quarantine: whether rejects are passed on rather than refused.
        counts: updated with each batch.

    Raises `CanidsError` naming file and line for a reject (without quarantine), a step back in time, a timestamp that makes
    most frames behind it look like one, timestamps in another unit than the entry's, or a label that contradicts the manifest.
    """
    rate = entry.get("assume_rate")
    unit = in_file_unit(entry["table"]) if entry.get("table") else entry.get("timestamp_unit")
    if rate and not form.untimed:
        raise CanidsError(f"{path}: its format has times; assume_rate in the manifest is for logs without")
    begun = False
    for whole in in_seconds(path, form, entry, "s" if rate else unit):
        if not begun and len(whole.frames):
            # Intervals count from the first frame of the file, whatever its bus.
            counts.first, begun = whole.frames["timestamp"][0], True
        batch = of_buses(path, whole, entry, counts)
        # The rejects of the format, and with quarantine also the frames that step back too far.
        frames, rejects, trimmed = _in_time(path, batch, counts, tolerance, quarantine)
        if len(frames) < len(batch.frames):
            counts.channels.subtract(_by_channel(batch.frames))
            counts.channels.update(_by_channel(frames))
        if len(whole.frames):
            counts.end = max(counts.end, float(whole.frames["timestamp"].to_numpy().max()))
        if len(rejects) and not quarantine:
            _refuse_bad_rows(path, rejects)
        if len(frames):
            latest = float(frames["timestamp"].to_numpy().max())
            counts.last = latest if counts.last is None else max(latest, counts.last)
        counts.frames += len(frames)
        counts.rejects += len(rejects)
        counts.trimmed += trimmed
        frames = _labelled(path, frames, entry, counts.first)
        counts.attacked += (attacked := int(frames["label"].sum()))
        if attacked and len(counts.channels) > 1:
            counts.channels_attacked |= _by_channel(frames.filter(label=1)).keys()
        if any(interval[2:] for interval in entry["attacked"]):
            counts.attacks |= set(frames["attack"].unique().to_list()) - {""}
        yield Batch(frames, rejects)
    _check_whole(path, entry, counts)


def _check_whole(path: Path, entry: dict[str, Any], counts: RowCounts) -> None:
    """Raise `CanidsError` if a capture as a whole is not what its entry says."""
    if counts.late > max(counts.on_time, _STRAYS):
        raise CanidsError(
            f"{path}, line {counts.line}: the timestamp is later than those of {counts.late} frames below it, which "
            "quarantine would put aside; correct or remove the line, or cut the capture there"
        )
    for start, end, *_ in entry["attacked"]:
        if start > counts.end - counts.first > -np.inf:
            raise CanidsError(
                f"{path}: the manifest's attacked interval [{start:g}, {end:g}] lies beyond the capture's end, "
                f"{counts.end - counts.first:.1f} s after its first frame; intervals are in seconds from that frame on"
            )
    channel = entry.get("channel")
    absent = [] if channel in (None, ALL_CHANNELS) else [name for name in channel if name not in counts.channels]
    if absent and (counts.elsewhere or counts.frames):
        names = ", ".join(name or "none" for name in sorted(counts.elsewhere.keys() | counts.channels.keys()))
        raise CanidsError(f"{path}: no frame of channel {', '.join(absent)}; its channels are {names}")
    if not counts.frames:
        raise CanidsError(f"{path}: no frames in it" + (f", {counts.rejects} rejects" if counts.rejects else ""))
    # The simulator labels whatever it does; without an episode its captures are attack-free.
    unlabelled = entry["content"] == "labelled" and not counts.attacked and not entry["attacked"]
    if unlabelled and entry["attack"] and entry.get("format") != "simulated":
        raise NoAttackedFrameError(
            f"{path}: no frame is labelled as attacked, but the manifest names the attack '{printable(entry['attack'], 40)}': where it "
            "is, is unknown. Give 'attacked: [[from, to], …]' in the manifest (python -m canids_preprocess.label CAPTURE LABELS "
            "writes them), or 'content: unlabelled'; if there is none, 'content: attack-free' without 'attack'"
        )


def _attacks(entry: dict[str, Any], counts: RowCounts) -> list[str]:
    """Names of the attacks on a capture, that of the manifest first where frames outside the intervals are attacked too."""
    kinds, name = [_kind(interval, entry) for interval in entry["attacked"]], _attack_name(entry)
    return list(dict.fromkeys([name, *kinds] if name in counts.attacks or (counts.attacked and not kinds) else kinds))


def _write(call: entry_point.Call, path: Path, entry: dict[str, Any]) -> RowCounts:
    """Write frames and rejects of a capture, and count them."""
    # The simulator writes what most public captures are written in.
    form = FORMATS["can-train-and-test" if entry["format"] == "simulated" else entry["format"]]
    counts = RowCounts()
    tolerance, quarantine = call.config["timestamp_tolerance"], call.config["on_bad_rows"] == "quarantine"
    batches = read(path, form, entry, tolerance=tolerance, quarantine=quarantine, counts=counts)
    with (
        tables.writing(call.output["output"], tables.FRAMES) as frames,
        tables.writing(call.output["rejects"], tables.REJECTS) as rejects,
    ):
        for batch in batches:
            frames.append(batch.frames)
            rejects.append(batch.rejects)
        metadata = {
            "capture": entry["name"],
            **{key: entry[key] for key in ("vehicle", "format", "content", "attack")},
            "attacks": _attacks(entry, counts),
            "sha256": sha256_of(path),
            "rows_read": counts.frames + counts.rejects,
            "frames": counts.frames,
            "rejects": counts.rejects,
            "stepped_back": counts.stepped_back,
            "trimmed": counts.trimmed,
            "assumed_rate": entry.get("assume_rate"),
            "channels": {k: n for k, n in sorted(counts.channels.items()) if n} if entry.get("channel") else None,
            "channels_attacked": sorted(counts.channels_attacked),
            "attacked": [[counts.first + a, counts.first + b, *kind] for a, b, *kind in entry["attacked"]],
        }
        frames.close(metadata)
        rejects.close({"capture": entry["name"]})
    return counts


def main(call: entry_point.Call) -> None:
    """Entry point; the rule's constant `capture` is the manifest's entry.

    A capture that is called labelled, names an attack and has no attacked frame is refused; one that is only to be scored
    (`scored`) becomes an unlabelled one.
    """
    entry: dict[str, Any] = {**call.constants["capture"]}
    (path,) = call.inputs["capture"]
    if call.inputs["metadata"]:
        entry["metadata"] = call.inputs["metadata"][0]
    if entry["format"] == "auto":
        entry["format"] = recognise(path)
        log.info("%s: %s", path.name, entry["format"])
    try:
        counts = _write(call, path, entry)
    except NoAttackedFrameError as error:
        if not entry.get("scored"):
            raise
        log.warning("%s. It is scored without labels", error)
        counts = _write(call, path, {**entry, "content": "unlabelled"})
    log.info("%s: %d frames, %d rejects", entry["name"], counts.frames, counts.rejects)
    if counts.elsewhere:
        other = ", ".join(f"{name or 'none'} ({count})" for name, count in sorted(counts.elsewhere.items()))
        log.info("%s: frames of other channels are left out: %s", entry["name"], other)
    if counts.trimmed:
        log.info("%s: white space or quotes around fields of %d frames trimmed", entry["name"], counts.trimmed)
    if entry.get("assume_rate"):
        log.warning("%s: no times; all intervals are assumed, %g frames/s", entry["name"], entry["assume_rate"])


if __name__ == "__main__":
    entry_point.run(main, inputs=["capture", "metadata"], outputs=["output", "rejects"])
