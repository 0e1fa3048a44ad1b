"""Runs in MLflow: found again, replaced, never doubled or lost, whoever writes beside and whatever the server does."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from track_data import (
    UNEVEN,
    check_nothing_is_lost_or_doubled,
    content,
    ingest,
    ingest_at_once,
    places,
    write_evaluation,
    write_runs,
    write_training,
)

from canids_shared.contracts.stand_in_mark import mark
from canids_track import store
from canids_track.tracking import Options, track

pytestmark = pytest.mark.slow
EIGHT = [f"@seed-{n}" for n in range(1, 9)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A real `mlflow server` that can be stopped and started again at its port."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--workers", "1", "--port", str(self._port), "--backend-store-uri", "sqlite:///server.db"]
        command = [sys.executable, "-m", "mlflow", "server", *options, "--artifacts-destination", "artifacts"]
        with open(self._folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + 300
        while time.monotonic() < until:
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError((self._folder / "server.log").read_text())

    def stop(self) -> None:
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=60)
            self._process = None


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store with its tables, to copy: to make them takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "server.db")
    made = Server(folder)
    made.start()
    yield made
    made.stop()


def test_a_second_ingest_changes_nothing(tmp_path: Path, uri: str) -> None:
    write_runs(tmp_path, "", "@seed-1")
    assert not ingest(tmp_path, uri)
    check_nothing_is_lost_or_doubled(uri, ["@seed-1"])
    before = content(uri), sorted(p for p in (tmp_path / "mlflow-artifacts").rglob("*"))
    assert not ingest(tmp_path, uri)
    assert (content(uri), sorted(p for p in (tmp_path / "mlflow-artifacts").rglob("*"))) == before


def test_a_run_made_again_replaces_the_former_one(tmp_path: Path, uri: str) -> None:
    where = write_runs(tmp_path, "")
    assert not ingest(tmp_path, uri)
    first = content(uri)
    shutil.rmtree(where.runs / "pca_large")
    write_training(where.runs / "pca_large", seed=2, made=9_000)
    assert not ingest(tmp_path, uri)
    ((run,), (other,), (parent,)) = (content(uri)[n] for n in ("pca_large", "eval_small_kd", "pipeline"))
    assert (run["params"]["seed"], run["times"][1]) == ("2", 9_000_000)
    assert run["id"] != first["pca_large"][0]["id"]
    assert [other] == first["eval_small_kd"]
    assert parent["id"] == first["pipeline"][0]["id"]
    assert parent["times"] == (1_000_000 - 12_500, 9_000_000)
    # A copy of the former files elsewhere does not take its place again.
    write_training(places(tmp_path / "elsewhere").runs / "pca_large", seed=1)
    assert not ingest(tmp_path / "elsewhere", uri)
    assert content(uri)["pca_large"] == [run]


def test_a_run_made_while_the_clock_was_ahead_keeps_no_later_one_out(tmp_path: Path, uri: str) -> None:
    where = write_runs(tmp_path, "")
    shutil.rmtree(where.runs / "pca_large")
    write_training(where.runs / "pca_large", seed=1, made=int(time.time()) + 1_000_000)
    assert not ingest(tmp_path, uri)
    shutil.rmtree(where.runs / "pca_large")
    write_training(where.runs / "pca_large", seed=2, made=9_000)
    assert not ingest(tmp_path, uri)
    (run,) = content(uri)["pca_large"]
    assert (run["params"]["seed"], run["times"][1]) == ("2", 9_000_000)


def test_what_a_killed_writer_left_is_removed(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_runs(tmp_path, "")
    monkeypatch.setattr(store.Store, "_settle", lambda self, runs: None)
    with monkeypatch.context() as killed:
        killed.setattr(MlflowClient, "log_artifact", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        pending = ingest(tmp_path, uri)
    assert pending == dict.fromkeys(("demo/pca_large", "demo/eval_small_kd"), "disk full")
    assert content(uri)["eval_small_kd"][0]["status"] == "RUNNING"
    monkeypatch.undo()
    assert not ingest(tmp_path, uri)
    check_nothing_is_lost_or_doubled(uri, [])


def test_doubles_are_settled_and_children_follow_their_parent(tmp_path: Path, uri: str) -> None:
    """As after two writers that did not see each other."""
    write_runs(tmp_path, "")
    assert not ingest(tmp_path, uri)
    client = MlflowClient(uri)
    ids = {name: runs[0]["id"] for name, runs in content(uri).items()}
    experiment = client.get_run(ids["pipeline"]).info.experiment_id
    for name in ("pipeline", "eval_small_kd"):
        run = client.get_run(ids[name])
        double = client.create_run(experiment, run.info.start_time, dict(run.data.tags), name)
        client.set_terminated(double.info.run_id, end_time=run.info.end_time)
    client.set_tag(ids["pca_large"], "mlflow.parentRunId", "gone")
    assert len(content(uri)["eval_small_kd"]) == 2
    assert not ingest(tmp_path, uri)
    assert {name: len(same) for name, same in content(uri).items()} == dict.fromkeys(ids, 1)
    assert content(uri)["pca_large"][0]["parent"] == "pipeline"


def test_eight_pipelines_at_once_into_a_new_sqlite_store(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    assert not any(ingest_at_once(tmp_path, EIGHT, uri))
    check_nothing_is_lost_or_doubled(uri, EIGHT)


def test_eight_pipelines_at_once_into_a_server(tmp_path: Path, server: Server) -> None:
    assert not any(ingest_at_once(tmp_path, EIGHT, server.uri))
    check_nothing_is_lost_or_doubled(server.uri, EIGHT)


def test_a_server_that_is_away_and_comes_back(tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    write_runs(tmp_path, "", dataset="away")
    server.stop()
    with caplog.at_level("INFO"):
        pending = ingest(tmp_path, server.uri, "away", timeout=2)
    assert set(pending) == {"away/pca_large", "away/eval_small_kd"}
    assert "warning: 2 runs of away are not in MLflow yet" in caplog.text
    assert f"make track URI={server.uri} EXPERIMENT=canids" in caplog.text
    write_evaluation(places(tmp_path, "away").runs / "eval_large")
    server.start()
    assert not ingest(tmp_path, server.uri, "away")
    assert set(content(server.uri, "canids/away")) == {
        "pipeline",
        "pca_large",
        "eval_small_kd",
        "eval_large",
    }


def test_what_is_said_names_the_experiment_and_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    where = write_runs(tmp_path, "")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with_password = f"http://alice:secret@{address}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", with_password)
        with caplog.at_level("INFO"):
            pending = [
                track(where, Options(uri, "alice", timeout=1))[1] for uri in (None, f"http://{address}", with_password)
            ]
    said = caplog.text + str(pending)
    assert "secret" not in said
    assert address in said
    assert "make track EXPERIMENT=alice\n" in said
    assert said.count(f"make track URI=http://{address} EXPERIMENT=alice\n") == 2


def test_stand_ins_are_left_out(tmp_path: Path, uri: str, caplog: pytest.LogCaptureFixture) -> None:
    where = write_runs(tmp_path, "", "@dry")
    for run, file in (("pca_large@dry", "model.safetensors"), ("eval_small_kd@dry", "metrics.json")):
        mark(where.runs / run / file)
    with caplog.at_level("INFO"):
        assert not ingest(tmp_path, uri)
    assert "2 stand-ins are left out: eval_small_kd@dry, pca_large@dry" in caplog.text
    check_nothing_is_lost_or_doubled(uri, [])


def test_a_server_that_never_answers(tmp_path: Path) -> None:
    write_runs(tmp_path, "")
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(64)
        pending = ingest(tmp_path, f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout=1)
    assert set(pending) == {"demo/pca_large", "demo/eval_small_kd"}
    assert "timed out" in pending["demo/pca_large"].lower()


def test_a_store_that_others_keep_locked(tmp_path: Path, uri: str) -> None:
    write_runs(tmp_path, "")
    done, locked = threading.Event(), threading.Event()

    def hold() -> None:
        with store.Store(uri, "canids", "demo", 60, 1)._turn():
            locked.set()
            done.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    locked.wait(60)
    pending = ingest(tmp_path, uri, patience=0.2)
    done.set()
    other.join()
    assert set(pending.values()) == {"it took too long (tracking.patience)"}
    assert not ingest(tmp_path, uri)
    assert content(uri)["eval_small_kd"][0]["metrics"]["test_dos/fusion/f1"] == [(0, UNEVEN)]
