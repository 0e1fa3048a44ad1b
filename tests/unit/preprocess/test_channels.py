"""A log of several buses: each is a capture of its own, and no window holds frames of two."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from captures import built, call

from canids_preprocess import follow, ingest
from canids_preprocess.formats.growing import IdleTimeout
from canids_preprocess.windowing.members import metadata_of
from canids_shared.contracts import manifest, streams, tables
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError
from canids_shared.jobs.entry_point import Call

BUSES = ("can0", "can1")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Frames of two buses by turns, each bus with IDs and a pace of its own."""
    random = np.random.default_rng(0)
    rows = [
        (n / 100 + b / 1000, bus, 0x100 + 16 * b + int(random.integers(5)))
        for n in range(900)
        for b, bus in enumerate(BUSES)
    ]
    path = tmp_path / "drive.log"
    path.write_text(
        "".join(
            f"({t:.6f}) {bus} {i:03X}#{int(t * 50) % 256:02X}00\n" for t, bus, i in rows if bus != "can1" or t % 1 < 0.7
        )
    )
    return path


def ingested(
    path: Path, channel: Any, content: str = "attack-free", on_bad_rows: str = "error", **changes: Any
) -> Path:
    output = path.with_name(f"{path.stem}-{channel}.parquet".replace("'", ""))
    entry = {
        "name": path.stem,
        "vehicle": "van",
        "format": "candump",
        "attack": None,
        "content": content,
        "attacked": [],
        **changes,
    }
    config = {"timestamp_tolerance": 0.0005, "on_bad_rows": on_bad_rows}
    outputs = {"output": output, "rejects": output.with_suffix(".rejects")}
    inputs = {"capture": [path], "metadata": []}
    ingest.main(call({"dataset": "d"}, config, outputs, inputs, capture={**entry, "channel": channel}))
    return output


def of_bus(path: Path, bus: str) -> Path:
    alone = path.with_name(f"{bus}.log")
    alone.write_text("".join(f"{line}\n" for line in path.read_text().splitlines() if f" {bus} " in line))
    return alone


def windows(store: GraphStore, capture: str) -> list[Any]:
    mine = np.flatnonzero(store["capture"] == store.header["captures"].index(capture))
    return [
        (store["x"][store["node_ptr"][w] : store["node_ptr"][w + 1]].tobytes(), float(store["t_end"][w])) for w in mine
    ]


def test_log_of_several_buses_is_refused_with_the_remedy(log: Path) -> None:
    with pytest.raises(CanidsError, match=r"frames of several buses \(can0, can1\); name one of them as `channel`"):
        ingested(log, None)
    with pytest.raises(CanidsError, match="no frame of channel can7; its channels are can0, can1"):
        ingested(log, ("can7",))


@pytest.mark.parametrize("split", ["test", "fit"])
@pytest.mark.parametrize("channel", ["all", ("can0", "can1")])
def test_each_bus_is_a_capture_with_the_windows_of_its_own_log(log: Path, channel: Any, split: str) -> None:
    store = built(log.parent, ingested(log, channel), split=split)
    assert store.header["captures"] == ["drive.can0", "drive.can1"]
    for bus in BUSES:
        alone = built(log.parent, ingested(of_bus(log, bus), None), split=split)
        assert windows(store, f"drive.{bus}") == windows(alone, bus)
        assert store.header["counts"][f"drive.{bus}"] == alone.header["counts"][bus]


def test_one_bus_is_read_as_if_it_were_alone(log: Path) -> None:
    chosen, metadata = tables.read(ingested(log, ("can1",)), tables.FRAMES)
    alone, _ = tables.read(ingested(of_bus(log, "can1"), None), tables.FRAMES)
    assert chosen.equals(alone)
    assert metadata["channels"] == {"can1": len(alone)}
    assert metadata["frames"] == metadata["rows_read"] == len(alone)


def test_two_entries_of_one_file_are_no_copies(log: Path) -> None:
    paths = [ingested(log, (bus,)) for bus in BUSES]
    content = {metadata["sha256"] for metadata in metadata_of(Call({}, {}, {}, {}, {"frames": paths}, "{}")).values()}
    assert len(content) == 2


def test_intervals_count_from_the_first_frame_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "drive.log"
    path.write_text("(5.0) can0 100#00\n(6.0) can1 100#00\n(7.0) can1 100#00\n")
    entry = {"attack": "dos", "content": "labelled", "attacked": [(0.5, 1.5)], "channel": ("can1",)}
    (batch,) = ingest.read(
        path, ingest.FORMATS["candump"], entry, tolerance=0.0005, quarantine=False, counts=ingest.RowCounts()
    )
    assert batch.frames["label"].to_list() == [1, 0]


def test_manifest_takes_one_channel_or_a_list(workplace: Path) -> None:
    place = workplace / "data/fleet/manifest.yaml"
    place.parent.mkdir(parents=True)
    rows = [
        f"{n}: {{path: a.log, vehicle: v, role: {role}, content: attack-free{channel}}}"
        for n, role, channel in [
            ("a", "train", ", channel: 1"),
            ("b", "test", ", channel: [can0, 2]"),
            ("c", "test", ", channel: all"),
            ("d", "test", ""),
        ]
    ]
    place.write_text("contract: manifest/1\ncaptures:\n  " + "\n  ".join(rows) + "\n")
    assert [c.channel for c in manifest.load("fleet", "data").values()] == [("1",), ("can0", "2"), "all", None]


def test_one_bus_of_a_log_is_followed(log: Path) -> None:
    def windows_of(path: Path, *arguments: str) -> pl.DataFrame:
        stream = BytesIO()
        chosen = follow.parser().parse_args([str(path), "--name", "a", "--window", "20", "--stride", "20", *arguments])
        follow.follow(chosen, IdleTimeout(at_end=True), stream)
        stream.seek(0)
        _, _, batches = streams.received(stream)
        return pl.concat([pl.DataFrame(streams.keys(batch)) for batch in batches])

    assert windows_of(log, "--channel", "can1").equals(windows_of(of_bus(log, "can1")))
    with pytest.raises(CanidsError, match="no frame of channel can7; its channels are can0, can1"):
        windows_of(log, "--channel", "can7")
    rows = [line.replace("(", "").replace(")", "").replace("#", " ") for line in log.read_text().splitlines()]
    table = log.with_name("table.txt")
    table.write_text("\n".join(["written by some tool", "t bus id data", *rows]) + "\n")
    mapping = log.with_name("mapping.yaml")
    columns = {"time": {"column": "t"}, "id": {"column": "id"}, "payload": {"column": "data"}, "channel": "bus"}
    mapping.write_text(yaml.safe_dump({"delimiter": " ", "skip": 2, **columns}))
    same = windows_of(table, "--table", str(mapping), "--channel", "can1")
    assert same.equals(windows_of(log, "--channel", "can1"))


def test_a_bus_that_is_silent_for_a_while_can_be_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "drive.parquet"
    table, metadata = tables.read(ingested(late_bus(tmp_path), "all"), tables.FRAMES)
    with tables.writing(path, tables.FRAMES) as writer:  # batches in the first of which can1 is silent
        for part in (table.head(2000), table[2000:]):
            writer.append(part)
        writer.close({**metadata, "channels": {"can0": 2450, "can1": 450}})
    store = built(tmp_path, path, split="fit")
    assert store.header["captures"] == ["late.can0", "late.can1"]
    assert (store["capture"] == 1).any()


def late_bus(folder: Path) -> Path:
    path = folder / "late.log"
    rows = [(n / 100, "can0", 0x100 + n % 5) for n in range(2450)]
    rows += [(20 + n / 100 + 1e-3, "can1", 0x200 + n % 3) for n in range(450)]
    path.write_text("".join(f"({t:.6f}) {bus} {i:03X}#{int(t * 50) % 256:02X}00\n" for t, bus, i in sorted(rows)))
    return path


def test_a_bus_without_the_attack_is_attack_free(log: Path) -> None:
    table, metadata = tables.read(ingested(log, "all"), tables.FRAMES)
    attacked = table.with_columns(
        label=pl.when(pl.col("channel") == "can1").then(1).otherwise(0).cast(pl.UInt8),
        attack=pl.when(pl.col("channel") == "can1").then(pl.lit("dos")).otherwise(pl.lit("")),
    )
    path = log.with_name("attacked.parquet")
    named = {"content": "labelled", "attack": "dos", "attacks": ["dos"], "channels_attacked": ["can1"]}
    tables.write(path, tables.FRAMES, attacked, {**metadata, **named})
    made = metadata_of(Call({}, {}, {}, {}, {"frames": [path]}, "{}")).values()
    assert [(m["capture"], m["content"], m["attack"]) for m in made] == [
        ("drive.can0", "attack-free", None),
        ("drive.can1", "labelled", "dos"),
    ]
    assert {m["entry"] for m in made} == {"drive"}


def test_every_bus_that_is_named_must_be_there(log: Path) -> None:
    with pytest.raises(CanidsError, match="no frame of channel cna1; its channels are can0, can1"):
        ingested(log, ("can0", "cna1"))


def test_frames_put_aside_are_none_of_their_bus(log: Path) -> None:
    lines = log.read_text().splitlines()
    lines.insert(400, lines[10])  # far back in time
    log.write_text("".join(f"{line}\n" for line in lines))
    _, metadata = tables.read(ingested(log, "all", on_bad_rows="quarantine"), tables.FRAMES)
    assert metadata["rejects"] == 1
    assert sum(metadata["channels"].values()) == metadata["frames"]


def test_intervals_may_lie_behind_the_last_frame_of_a_bus(tmp_path: Path) -> None:
    path = late_bus(tmp_path)
    path.write_text(
        "".join(f"{line}\n" for line in path.read_text().splitlines() if " can1 " in line or "(0" in line[:2])
    )
    lines = path.read_text().splitlines()
    assert ingested(path, ("can0",), "labelled", attack="suppression", attacked=[[22.0, 23.0]]).exists()
    assert any(" can1 " in line for line in lines)
