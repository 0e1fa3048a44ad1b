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
from canids_preprocess.graphs import metadata_of
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


def ingested(path: Path, channel: Any, content: str = "attack-free") -> Path:
    output = path.with_name(f"{path.stem}-{channel}.parquet".replace("'", ""))
    entry = {
        "name": path.stem,
        "vehicle": "van",
        "format": "candump",
        "attack": None,
        "content": content,
        "attacked": [],
    }
    config = {"timestamp_tolerance": 0.0005, "on_bad_rows": "error"}
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
