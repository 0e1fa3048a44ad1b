"""Attacks put into an attack-free recording: what they do to the host, and how they are marked."""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from captures import built, call
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import simulate
from snakemake.iocontainers import Wildcards  # type: ignore[import-untyped]

from canids_preprocess import capture_inventory, ingest, inject, planning
from canids_preprocess.inject import Host, Injected
from canids_preprocess.simulation.observed import INJECTABLE
from canids_preprocess.simulation.shared_bus import Queue, busy_ns, number_of
from canids_preprocess.simulation.signals import as_bytes
from canids_shared.contracts import manifest, tables
from canids_shared.errors import CanidsError
from canids_shared.planning.stage import Stage

OPTIONS: dict[str, Any] = {"seed": 1, "episodes": 2, "episode_s": 0.7, "stealth": "blatant"}
WIDE = 0x18DAF110
"""An ID of 29 bits on the host's bus, every 20 ms, its payload a counter."""
BIT_RATE = 500_000
STEP_S = 3e-7
"""More than the distance of two timestamps near Unix time 1.6e9."""


def write_candump(path: Path, seconds: float = 5.0) -> Path:
    """A recording as `candump -l` writes it: a simulated drive with a 29-bit ID and a remote request among its frames."""
    drive = simulate("compact", duration=seconds, seed=5)
    payload = as_bytes(drive.frames.payload)
    rows = [
        (1.6e9 + t / 1e9, f"{i:03X}#{p[:n].tobytes().hex().upper()}")
        for t, i, n, p in zip(drive.logged, drive.frames.can_id, drive.frames.dlc, payload, strict=True)
    ]
    rows += [(1.6e9 + 0.02 * k + 1e-3, f"{WIDE:08X}#{k % 256:02X}00112233445566") for k in range(int(50 * seconds))]
    rows += [(1.6e9 + 2.5, "123#R")]
    path.write_text("".join(f"({t:.6f}) can0 {frame}\n" for t, frame in sorted(rows)))
    return path


def ingested(folder: Path, raw: Path) -> Path:
    """The frames of an attack-free recording."""
    entry = {
        "name": "drive",
        "vehicle": "mycar",
        "format": "candump",
        "attack": None,
        "content": "attack-free",
        "attacked": [],
    }
    outputs = {"output": folder / "drive.parquet", "rejects": folder / "rejects.parquet"}
    config = {"timestamp_tolerance": 0.0005, "on_bad_rows": "error"}
    ingest.main(call({}, config, outputs, {"capture": [raw], "metadata": []}, capture=entry))
    return outputs["output"]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("host")
    return ingested(folder, write_candump(folder / "drive.log"))


@pytest.fixture(scope="module")
def host(recording: Path) -> Host:
    return Host.of("drive", tables.read(recording, tables.FRAMES)[0], BIT_RATE)


def frames_of(table: pl.DataFrame) -> list[tuple[Any, ...]]:
    """ID, flags and bytes of each frame."""
    return table.select("can_id", "extended", "remote", "dlc", "payload", "channel").rows()


def busy_s(table: pl.DataFrame, bit_rate: int) -> np.ndarray:
    """How long each frame keeps the bus, seconds [n]."""
    columns = [table[key].to_numpy() for key in ("dlc", "extended", "remote")]
    return busy_ns(columns[0].astype(np.int64), *columns[1:], bit_rate) / 1e9


def within(table: pl.DataFrame, made: Injected, start: float, margin: float = 0.0) -> np.ndarray:
    since = table["timestamp"].to_numpy() - start
    return np.any([(since >= a - margin) & (since <= b + margin) for a, b in made.episodes], axis=0)


@settings(max_examples=12, deadline=None)
@given(
    attack=st.sampled_from(INJECTABLE),
    stealth=st.sampled_from(["blatant", "moderate", "stealthy", "mixed"]),
    seed=st.integers(0, 50),
    bit_rate=st.sampled_from([250_000, 500_000, 1_000_000]),
)
def test_nothing_of_the_host_is_lost_or_changed_beside_delay(
    recording: Path, attack: str, stealth: str, seed: int, bit_rate: int
) -> None:
    host = Host.of("drive", table_of(recording), bit_rate)
    made = inject.inject(host, attack, {**OPTIONS, "seed": seed, "stealth": stealth})
    start = host.table["timestamp"][0]
    # Frames of the attacker aside, those of the host are there, each ID in its order; only two attacks take some away.
    genuine = made.table if attack == "suppression" else made.table.filter(pl.col("label") == 0)
    assert len(host.table) - len(genuine) == made.taken
    assert (made.taken > 0) == (attack in ("suppression", "masquerade"))
    here, there = (t.sort("extended", "can_id", maintain_order=True) for t in (genuine, host.table))
    if made.taken:
        remaining = iter(frames_of(there))
        assert all(frame in remaining for frame in frames_of(here))
    else:
        assert frames_of(here) == frames_of(there)
        later = here["timestamp"].to_numpy() - there["timestamp"].to_numpy()
        assert -STEP_S < later.min() <= later.max() < made.longest_delay + STEP_S
    # Time never runs backwards, and while frames are injected each begins when the one before it is through.
    time = made.table["timestamp"].to_numpy()
    assert (np.diff(time) >= 0).all()
    overlap = busy_s(made.table, bit_rate)[1:] - np.diff(time)
    for a, b in made.episodes if made.added else []:
        own = np.flatnonzero((made.table["label"].to_numpy() > 0) & (time - start >= a) & (time - start <= b + STEP_S))
        assert len(own) > 5
        assert overlap[own[0] - 1 : own[-1]].max() <= STEP_S


@cache
def table_of(recording: Path) -> pl.DataFrame:
    return tables.read(recording, tables.FRAMES)[0]


def test_frames_far_from_an_episode_keep_their_timestamps_to_the_last_bit(host: Host) -> None:
    made = inject.inject(host, "dos", OPTIONS)
    start = host.table["timestamp"][0]
    far = ~within(host.table, made, start, margin=0.2)
    kept = set(zip(host.table["timestamp"].to_numpy()[far], frames_of(host.table.filter(far)), strict=True))
    assert 1000 < len(kept) < len(host.table)
    assert kept <= set(zip(made.table["timestamp"].to_list(), frames_of(made.table), strict=True))


def test_a_flood_comes_first_and_low_priorities_wait_longest(host: Host) -> None:
    made = inject.inject(host, "dos", OPTIONS)
    flood = made.table.filter(pl.col("label") == 1)
    assert set(flood["can_id"]) == {0}
    assert 1250 < len(flood) / sum(b - a for a, b in made.episodes) < 2500
    genuine = made.table.filter(pl.col("label") == 0)

    def mean_delay(chosen: pl.Expr) -> float:
        # Every ID keeps its order, so the frames of one and the other table pair up.
        columns = [
            t.filter(chosen).sort("can_id", maintain_order=True)["timestamp"].to_numpy() for t in (genuine, host.table)
        ]
        return float((columns[0] - columns[1]).mean())

    assert mean_delay(pl.col("can_id") > 0x400) > 2 * mean_delay(pl.col("can_id") < 0x200) > 0


def test_the_lowest_id_is_sent_first_and_a_frame_under_way_is_not_interrupted() -> None:
    number = number_of(
        np.array([0x200, 0x100, 0x100, 0x0FF << 18 | 5, 0x0FF]), np.array([False, False, False, True, False])
    )
    none = np.zeros(5, dtype=bool)
    queue = Queue.of(
        np.array([0, 1, 2, 3, 4]), number, none, np.array([False, True, False, False, False]), np.full(5, 10)
    )
    sent, received, free = queue.carry(0, 0, 4)
    # The 11-bit ID goes before the 29-bit one that begins like it, and of two frames of one ID the host's.
    assert (sent, received, free) == ([0, 4, 3, 2, 1], [10, 20, 30, 40, 50], 5)


def test_fuzzing_sends_random_ids(host: Host) -> None:
    random = inject.inject(host, "fuzzing", OPTIONS).table.filter(pl.col("label") == 1)
    assert random["can_id"].n_unique() > 0.5 * len(random)
    assert random["payload"].n_unique() > 0.95 * len(random)
    known = inject.inject(host, "fuzzing", {**OPTIONS, "stealth": "stealthy"}).table.filter(pl.col("label") == 1)
    assert set(known["can_id"]) <= set(host.table["can_id"])


def test_spoofing_sends_known_ids_with_other_payloads(host: Host) -> None:
    made = inject.inject(host, "spoofing", OPTIONS)
    forged = made.table.filter(pl.col("label") == 1)
    ids = set(forged["can_id"])
    assert 1 <= len(ids) <= OPTIONS["episodes"]
    lengths = dict(host.table.select("can_id", "dlc").unique().rows())
    assert all(lengths[i] == n for i, n in forged.select("can_id", "dlc").rows())
    genuine = set(host.table.filter(pl.col("can_id").is_in(list(ids)))["payload"])
    assert len([p for p in forged["payload"] if p not in genuine]) > 0.5 * len(forged)


def test_replay_repeats_earlier_frames(host: Host) -> None:
    made = inject.inject(host, "replay", OPTIONS)
    start, (begin, _) = host.table["timestamp"][0], made.episodes[0]
    again = made.table.filter((pl.col("label") == 1) & (pl.col("timestamp") - start < begin + 0.8))
    earlier = set(frames_of(host.table.filter(pl.col("timestamp") - start < begin)))
    assert len(again) > 20
    assert set(frames_of(again)) <= earlier


def test_suppression_silences_ids_and_labels_what_is_left(host: Host) -> None:
    made = inject.inject(host, "suppression", {**OPTIONS, "stealth": "moderate"})
    start = host.table["timestamp"][0]
    assert np.array_equal(made.table["label"].to_numpy() > 0, within(made.table, made, start))
    for a, b in made.episodes:
        since = pl.col("timestamp") - start
        here, there = (t.filter((since > a + 0.001) & (since < b - 0.001)) for t in (made.table, host.table))
        assert len(set(there["can_id"]) - set(here["can_id"])) == 1


def test_masquerade_replaces_frames_one_by_one_at_their_pace(host: Host) -> None:
    made = inject.inject(host, "masquerade", OPTIONS)
    assert made.added == made.taken > 20
    start = host.table["timestamp"][0]
    for a, b in made.episodes:
        forged = made.table.filter((pl.col("label") == 1) & ((pl.col("timestamp") - start).is_between(a, b)))
        assert forged["can_id"].n_unique() == 1
        genuine = host.table.filter(pl.col("can_id") == forged["can_id"][0])["timestamp"].diff().median()
        assert forged["timestamp"].diff().median() == pytest.approx(genuine, rel=0.1)


def test_bit_rate_is_estimated_from_frames_that_wait_for_each_other(recording: Path) -> None:
    estimated = Host.of("drive", table_of(recording), None)
    assert (estimated.bit_rate, estimated.bit_rate_is) == (500_000, "estimated")


def test_timestamps_in_batches_fit_no_bus_and_that_is_said(recording: Path, caplog: pytest.LogCaptureFixture) -> None:
    batches = table_of(recording).with_columns((pl.col("timestamp") * 100).floor() / 100)
    assumed = Host.of("drive", batches, None)
    assert (assumed.bit_rate, assumed.bit_rate_is) == (500_000, "assumed")
    assert re.search(
        "'drive': its timestamps fit no bus, 500000 bit/s are assumed; state injection.bit_rate", caplog.text
    )


def injected(folder: Path, recording: Path, attack: str | None = "dos", **options: Any) -> Path:
    """The frames that the rule makes."""
    entry = {
        **{"name": "drive-dos", "vehicle": "mycar", "format": "injected", "host": "drive", "attack": attack},
        **{"content": "labelled" if attack else "attack-free", "injection": {**OPTIONS, **options}},
    }
    outputs = {"output": folder / "drive-dos.parquet", "rejects": folder / "rejects.parquet"}
    inject.main(call({}, {}, outputs, {"host": [recording]}, capture=entry))
    return outputs["output"]


def test_same_options_give_the_same_bytes_and_another_seed_others(tmp_path: Path, recording: Path) -> None:
    digests = [hashlib.sha256(injected(tmp_path, recording, seed=seed).read_bytes()).hexdigest() for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_injection_is_marked_in_frames_inventory_and_graphs(tmp_path: Path, recording: Path) -> None:
    path = injected(tmp_path, recording, attack="suppression")
    metadata = tables.read_metadata(path, tables.FRAMES)
    assert (metadata["host"], metadata["format"], metadata["attacks"]) == ("drive", "injected", ["suppression"])
    assert metadata["injection"]["bit_rate"] == 500_000
    assert metadata["attacked"] == metadata["injection"]["attacked"]
    assert len(metadata["attacked"]) == OPTIONS["episodes"]
    assert metadata["sha256"] != tables.read_metadata(recording, tables.FRAMES)["sha256"]
    inventory = tmp_path / "captures.csv"
    capture_inventory.main(call({}, {}, inventory, {"frames": [recording, path]}))
    assert pl.read_csv(inventory)["host"].to_list() == [None, "drive"]
    store = built(tmp_path, path)
    assert store.header["sources"]["drive-dos"]["host"] == "drive"
    assert set(np.unique(store["y"])) == {0, 1}


def test_a_part_of_the_host_without_an_attack_is_the_host(tmp_path: Path, recording: Path) -> None:
    part, _ = tables.read(injected(tmp_path, recording, attack=None, part=[1.0, 3.0]), tables.FRAMES)
    whole = table_of(recording)
    since = pl.col("timestamp") - whole["timestamp"][0]
    assert part.equals(whole.filter((since >= 1.0) & (since < 3.0)))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"attack": "jamming"}, "no attack 'jamming' can be put into a recording; attacks: dos, "),
        (
            {"episodes": 9},
            "host 'drive': 9 attack episodes of 0.7 s do not fit into 5.0 s; change injection.episodes, episode_s or part",
        ),
        ({"part": [100, 200]}, "host 'drive': no frames in this part of it; change injection.part"),
    ],
)
def test_what_cannot_be_injected_is_named(
    tmp_path: Path, recording: Path, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CanidsError, match=re.escape(complaint)):
        injected(tmp_path, recording, **change)
    assert not (tmp_path / "drive-dos.parquet").exists()


def test_can_fd_is_no_host(recording: Path) -> None:
    wide = table_of(recording).with_columns(fd=pl.lit(value=True))
    with pytest.raises(CanidsError, match="host 'drive': has CAN FD frames"):
        Host.of("drive", wide, None)


def test_injected_captures_are_made_from_their_host_by_a_rule_of_their_own(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANIDS_PREPROCESS_PYTHON", "")
    entry = {"vehicle": "mycar", "content": "attack-free"}
    captures: dict[str, Any] = {
        "drive": {**entry, "path": "drive.log", "role": "host"},
        "drive-dos": {
            **{**entry, "format": "injected", "host": "drive", "role": "train", "content": "labelled", "attack": "dos"},
            "injection": {},
        },
    }

    def stage(**datasets: dict[str, Any]) -> Stage:
        for name, entries in datasets.items():
            path = Path("data", name, "manifest.yaml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump({"contract": "manifest/1", "captures": entries}))
        manifest.load.cache_clear()
        schema = Path(__file__).parents[3] / "modules/preprocess/config.schema.yaml"
        return Stage("preprocess", {"datasets": list(datasets)}, schema)

    planned = stage(a=captures)
    wildcards = Wildcards(fromdict={"dataset": "a", "capture": "drive-dos", "split": "fit", "instance": ""})
    assert planning.injected_captures(planned) == r"drive\-dos"
    assert planning.host(planned)(wildcards) == "<frames>/drive.parquet"
    assert planning.training_frames(planned)(wildcards) == ["<frames>/drive-dos.parquet"]  # the host is in no split
    # Simulated captures join, since the traffic around the attack is recorded.
    assert planning.auxiliary_frames(planned, "results/{dataset}/frames")(wildcards)
    recorded = {"drive-dos": {**entry, "path": "other.log", "role": "train"}}
    assert planning.injected_captures(stage(b=recorded)) == "(?!)"
    with pytest.raises(
        CanidsError, match="dataset 'a', capture 'drive-dos': injected, and dataset 'b' has a recording"
    ):
        planning.injected_captures(stage(a=captures, b=recorded))
