"""The chain that follows a bus: its commands, and that its processes live and end together."""

import signal
import sys
import threading
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from canids_shared.contracts import streams
from canids_shared.contracts.tables import KEYS
from canids_shared.errors import CanidsError
from canids_shared.scoring.following import Chain, commands, name_of, parser
from canids_shared.scoring.trained_run import TrainedRun

RUN = TrainedRun(
    variant="large",
    by="van",
    detectors={kind: f"{kind}.safetensors" for kind in ("gat", "vgae")},
    policy="dqn.safetensors",
    fusion_baselines="fusion_baselines.safetensors",
    fusion="cusum",
    fit=["fit.safetensors"],
    preprocess={"window": 50, "stride": 25, "window_unit": "frames", "features": "relative"},
)
REPORTING = ["--episode-gap", "0.5", "--explained-ids", "9"]
PASS = "import sys\nfor line in sys.stdin.buffer: sys.stdout.buffer.write(line)"
SAYS = "import sys, time\nprint('a window', flush=True)\n"


def chain(*programs: str) -> Chain:
    return Chain([(f"part {n}", [sys.executable, "-c", program]) for n, program in enumerate(programs)])


def test_every_part_gets_what_the_run_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANIDS_TRAIN_DRL_PYTHON", "/opt/drl/bin/python")
    options = parser().parse_args(
        ["drive.log", "r", "--windows", "--idle", "3", "--on-bad-rows", "quarantine", *REPORTING]
    )
    made = dict(commands("drive.log", RUN, tmp_path, options))
    assert list(made) == ["preprocess", "train_gnn", "train_drl", "evaluate"]
    assert made["preprocess"][:4] == [sys.executable, "-m", "canids_preprocess.follow", "drive.log"]
    text = " ".join(made["preprocess"])
    assert "--window 50 --stride 25 --window-unit frames" in text
    assert "--on-bad-rows quarantine --idle 3.0" in text
    assert "--exit-at-end" not in text
    assert made["train_gnn"][3:] == ["--gat", "gat.safetensors", "--vgae", "vgae.safetensors"]
    assert made["train_drl"][0] == "/opt/drl/bin/python"
    assert made["train_drl"][3:] == [
        "--model",
        "dqn.safetensors",
        "--fusion_baselines",
        "fusion_baselines.safetensors",
        "--fusion",
        "cusum",
    ]
    reporting = " ".join(made["evaluate"])
    assert f"--csv {tmp_path / 'alarms.csv'} --windows" in reporting
    assert reporting.endswith("--episode-gap 0.5 --explained-ids 9 --fit fit.safetensors")


def test_each_detector_is_an_option_of_its_stage(tmp_path: Path) -> None:
    run = replace(RUN, detectors={"pca": "pca.safetensors"})
    made = dict(commands("drive.log", run, tmp_path, parser().parse_args(["drive.log", "r"])))
    assert made["train_gnn"][3:] == ["--pca", "pca.safetensors"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("../a/drive 1.log", "drive-1"),
        ("socketcan:can0", "socketcan-can0"),
        ("trace.2024-05-01.log", "trace-2024-05-01"),
    ],
)
def test_results_are_filed_under_the_source(source: str, name: str) -> None:
    assert name_of(source) == name


def test_a_chain_ends_with_its_source(capfd: pytest.CaptureFixture[str]) -> None:
    chain(SAYS, PASS, PASS).wait()
    assert capfd.readouterr().out == "a window\n"


@pytest.mark.parametrize("dying", ["sys.exit(7)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_part_that_dies_ends_the_others_and_is_named(dying: str) -> None:
    waits = SAYS + "time.sleep(600)"
    made = chain(waits, f"import sys\nsys.stdin.readline()\n{dying}", PASS)
    with pytest.raises(
        CanidsError, match=r"part 1 has ended \((exit status 7|killed by signal 9)\), and with it the chain"
    ):
        made.wait()
    assert all(process.poll() is not None for process in made.processes)


def test_who_lost_a_neighbour_is_not_to_blame() -> None:
    gone = f"import sys\nsys.stdin.read()\nsys.exit({streams.GONE})"
    with pytest.raises(CanidsError, match="part 0 has ended"):
        chain("import sys; sys.exit(1)", gone, gone).wait()
    with pytest.raises(CanidsError, match="part 1 has ended"):
        chain("pass", gone).wait()


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(CanidsError, match="other: cannot be started"):
        Chain([("one", [sys.executable, "-c", PASS]), ("other", ["/nowhere/python"])])


def test_ctrl_c_ends_the_source_and_the_others_say_what_they_got(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ready = tmp_path / "ready"
    answers = (
        "import pathlib, signal, time\nstopped = []\nsignal.signal(signal.SIGTERM, lambda *_: stopped.append(1))\n"
        f"pathlib.Path({str(ready)!r}).touch()\nwhile not stopped: time.sleep(0.01)\nprint('last', flush=True)"
    )
    made = chain(answers, PASS)
    before = signal.signal(signal.SIGINT, made.stop)

    def interrupt() -> None:
        while not ready.exists():
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    made.wait()
    thread.join()
    signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().out.endswith("last\n")


def window() -> tuple[pa.Schema, pa.RecordBatch]:
    schema = streams.schema_of_graphs({"node_features": ["a", "b"], "edge_features": ["c"]})
    lists = {
        "x": streams.lists(np.arange(6, dtype=np.float32).reshape(3, 2), np.array([1, 2])),
        "node_id": streams.lists(np.array([1, 2, 3], np.uint32), np.array([1, 2])),
        "node_count": streams.lists(np.ones(3, np.int32), np.array([1, 2])),
        "edge_source": streams.lists(np.zeros(1, np.int16), np.array([0, 1])),
        "edge_target": streams.lists(np.ones(1, np.int16), np.array([0, 1])),
        "edge_attr": streams.lists(np.ones((1, 1), np.float32), np.array([0, 1])),
    }
    keys = [pa.array(["c", "c"]), pa.array(["v", "v"]), [0, 1], [0.0, 1.0], [1.0, 2.0], [None, None], ["", ""]]
    columns = [pa.array(k, schema.field(n).type) for n, k in zip(KEYS, keys, strict=True)]
    return schema, pa.RecordBatch.from_arrays([*columns, *lists.values()], schema=schema)


def test_what_is_sent_is_received_with_what_was_added() -> None:
    schema, batch = window()
    wide = streams.widened(schema, {"alarm": pa.bool_()})
    stream = BytesIO()
    with streams.sending(stream, wide) as send:
        send(streams.extended(batch, wide, {"alarm": np.array([False, True])}))
    stream.seek(0)
    header, _, batches = streams.received(stream, "alarm")
    (got,) = batches
    assert header["node_features"] == ["a", "b"]
    assert streams.flat(got, "x").tolist() == [0, 1, 2, 3, 4, 5]
    assert streams.counts(got, "edge_source").tolist() == [0, 1]
    assert streams.flat(got, "alarm").tolist() == [False, True]
    assert streams.keys(got)["window"].to_list() == [0, 1]


def test_what_the_stream_says_of_itself_is_there_before_a_window_is() -> None:
    """So that a stage can load its models, or refuse, before there is traffic."""
    stream = BytesIO()
    with streams.sending(stream, streams.schema_of_graphs({"window": 100})):
        header, _, batches = streams.received(BytesIO(stream.getvalue()))
        assert header["window"] == 100
    assert list(batches) == []


def test_what_is_no_stream_of_windows_is_refused() -> None:
    with pytest.raises(streams.NeighbourError, match="not a stream of windows"):
        streams.received(BytesIO(b"nonsense"))
    schema, batch = window()
    stream = BytesIO()
    with streams.sending(stream, schema) as send:
        send(batch)
    with pytest.raises(CanidsError, match="no column 'gat_'"):
        streams.received(BytesIO(stream.getvalue()), "gat_")
    with pytest.raises(streams.NeighbourError, match="breaks off"):
        list(streams.received(BytesIO(stream.getvalue()[:-200])).batches)


def test_a_stream_whose_lists_point_beyond_their_values_is_refused() -> None:
    """Arrow itself trusts them: the process would end without a word."""
    schema, batch = window()
    stream = BytesIO()
    with streams.sending(stream, schema) as send:
        send(batch)
    ends = batch.column("x").offsets.to_numpy()
    beyond = np.where(ends > 0, 10**6, ends).astype(np.int32)
    damaged = stream.getvalue().replace(ends.tobytes(), beyond.tobytes())
    assert damaged != stream.getvalue()
    with pytest.raises(streams.NeighbourError, match=r"breaks off: In column .* out of bounds"):
        list(streams.received(BytesIO(damaged)).batches)
