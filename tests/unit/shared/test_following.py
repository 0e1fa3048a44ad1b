"""The chain that follows a bus: its commands, and that its processes live and end together."""

import signal
import subprocess
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
from canids_shared.scoring import following
from canids_shared.scoring.following import Chain, StageError, commands, name_of, parser
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


def stage(body: str) -> str:
    """A program that `streams.run` runs: its `main` has this body."""
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    start = "import argparse, sys, time\nfrom canids_shared.contracts import streams\nfrom canids_shared.errors import CanidsError\n"
    return f"{start}def main(options):\n{indented}streams.run(main, argparse.ArgumentParser())"


READS = stage("print(len(list(streams.received(sys.stdin.buffer).batches)), 'batches')")
SENDS = "with streams.sending(sys.stdout.buffer, streams.schema_of_graphs({'window': 100})):\n    "


def wait_for_ready(capfd: pytest.CaptureFixture[str]) -> None:
    while "ready" not in capfd.readouterr().err:
        time.sleep(0.05)


def test_a_cause_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    fails = stage("raise CanidsError('socketcan:can9: cannot be opened')")
    with pytest.raises(StageError, match="part 0"):
        chain(fails, READS, READS).wait()
    assert capfd.readouterr() == ("", "error: socketcan:can9: cannot be opened\n")


def test_a_run_whose_stage_has_said_why_ends_with_status_1_and_no_further_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(following, "trained_run", lambda folder: RUN)
    for fails, said in (("sys.exit('error: no such log')", "error: no such log"), ("sys.exit(7)", "exit status 7")):
        parts = [
            ("preprocess", [sys.executable, "-c", f"import sys; {fails}"]),
            ("rest", [sys.executable, "-c", READS]),
        ]
        monkeypatch.setattr(following, "commands", lambda *_, parts=parts: parts)
        monkeypatch.setattr(sys, "argv", ["following", "a.log", "run", "--output", str(tmp_path)])
        with pytest.raises(SystemExit) as end:
            following.main()
        errors = [str(end.value)] * isinstance(end.value.code, str) + capfd.readouterr().err.splitlines()
        assert [said in line for line in errors if "error:" in line] == [True]
        assert end.value.code != 0


@pytest.mark.parametrize("end", ["raise CanidsError('bad row')", "import os; os.kill(os.getpid(), 9)"])
def test_a_stream_whose_writer_failed_is_no_whole_one(end: str, capfd: pytest.CaptureFixture[str]) -> None:
    made = chain(stage(SENDS + end), READS)
    with pytest.raises(CanidsError, match="part 0 has ended"):
        made.wait()
    assert made.processes[1].returncode == streams.GONE
    assert "batches" not in capfd.readouterr().out


def test_a_stage_that_is_asked_to_end_ends_the_chain_in_order(capfd: pytest.CaptureFixture[str]) -> None:
    waits = "import signal\nstopped = []\nsignal.signal(signal.SIGTERM, lambda *_: stopped.append(1))\n"
    waits += SENDS + "while not stopped: time.sleep(0.01)"
    reads = "source = streams.received(sys.stdin.buffer)\nprint('ready', file=sys.stderr, flush=True)\n"
    reads += "print(len(list(source.batches)), 'batches')"
    made = chain(stage(waits), stage("streams.GRACE_S = 0.1\n" + reads))
    wait_for_ready(capfd)
    made.processes[1].terminate()
    made.wait()
    assert [process.returncode for process in made.processes] == [streams.GONE, 0]
    assert capfd.readouterr().out == "0 batches\n"


def test_a_signal_to_all_processes_loses_no_window(capfd: pytest.CaptureFixture[str]) -> None:
    """As service managers send it."""
    waits = "import signal\nstopped = []\nsignal.signal(signal.SIGTERM, lambda *_: stopped.append(1))\n"
    waits += (
        "print('up', file=sys.stderr, flush=True)\n"
        + SENDS
        + "while not stopped: time.sleep(0.01)\n    time.sleep(0.5)"
    )
    reads = "source = streams.received(sys.stdin.buffer)\nprint('up', file=sys.stderr, flush=True)\n"
    reads += "print(len(list(source.batches)), 'batches')"
    made = chain(stage(waits), stage(reads))
    said = ""
    while said.count("up") < 2:
        said += capfd.readouterr().err
        time.sleep(0.05)
    for process in reversed(made.processes):
        process.terminate()
    made.wait()
    assert [process.returncode for process in made.processes] == [0, 0]
    assert capfd.readouterr() == ("0 batches\n", "")


def test_who_stops_while_the_stages_start_gets_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    made = chain(SAYS + "time.sleep(600)", stage("streams.received(sys.stdin.buffer)"))
    made.stop()
    made.wait()
    assert made.processes[0].returncode == -signal.SIGTERM
    assert "error" not in capfd.readouterr().err


def test_a_stage_that_does_not_end_is_killed_and_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(following, "_STOP_S", 0.2)
    deaf = "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', file=sys.stderr, flush=True)\n"
    made = chain("import time; time.sleep(600)", deaf + "time.sleep(600)")
    wait_for_ready(capfd)
    made.stop()
    with pytest.raises(CanidsError, match=r"part 1: did not end within 0 s, and was killed"):
        made.wait()


def test_closed_input_and_output_are_named() -> None:
    for redirection, said in (("<&-", "standard input: empty"), (">&-", "error: standard output is closed")):
        command = [sys.executable, "-c", READS]
        done = subprocess.run(
            ["bash", "-c", f'"$@" {redirection}', "-", *command], check=False, capture_output=True, text=True
        )
        assert said in done.stderr
        assert done.returncode == (streams.GONE if "input" in said else 1)


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
        with pytest.raises(streams.NeighbourError, match="breaks off"):
            next(batches)
    stream.seek(0)
    assert list(streams.received(stream).batches) == []


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
    no_text = stream.getvalue().replace(b"vehicle\0", b"\xe1ehicle\0", 1)
    assert no_text != stream.getvalue()
    with pytest.raises(streams.NeighbourError, match="not a stream of windows"):
        streams.received(BytesIO(no_text))


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
