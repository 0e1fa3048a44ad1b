"""Write records into MLflow: each found again by its key and never doubled, also with several writers at the same time.

MLflow has no "create unless it exists" for runs, so doubles cannot be prevented, only removed, by rules on which all writers
agree. A run is written under its key and marked as finished last; then the experiment is settled: of the finished runs of a
key the latest made stays (of equals, the one with the lowest ID), the others are deleted. The writer that finishes last sees
the runs of all others, so one is left, wherever the writers are. With SQLite, writers also take turns by a file lock beside
the database: without it they fail with "database is locked", and two of them may create its tables at once.

Params cannot change in MLflow, so a repeated run replaces the former one: it is written whole first, then the former one is
deleted (MLflow keeps deleted runs until `mlflow gc`).
"""

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Param, Run, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from canids_shared.errors import CanidsError
from canids_shared.jobs import locks
from canids_shared.jobs.interruption import is_running
from canids_shared.jobs.options import DAY_S
from canids_track import database
from canids_track.models import Packer
from canids_track.records import Record

KEY, DIGEST, WRITER, PARENT_KEY = "canids.key", "canids.digest", "canids.writer", "canids.parent"
PARENT = "mlflow.parentRunId"
ARTIFACTS = "mlflow-artifacts"
"""Folder of the artefacts beside an SQLite store; a server has a place of its own."""
STALE_S = 3600
"""Seconds after which a run that another machine left unfinished counts as abandoned."""
_SQLITE = "sqlite:///"
_SET = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
"""Variables set by the user; they override the options here. MLflow's defaults retry for many minutes."""
_METRICS, _PARAMS = 1000, 100
"""Largest batches that MLflow takes."""


def _made(run: Run) -> int:
    """When a run was made, milliseconds since 1970; 0 if that is more than a day ahead: the clock was wrong then."""
    return int(run.info.end_time) if run.info.end_time < (time.time() + DAY_S) * 1000 else 0


class TookTooLongError(Exception):
    """Raised when no further run may be begun (`patience`)."""


class Store:
    """One experiment, `{prefix}/{dataset}`, of a tracking store.

    Attributes:
        name: name of the experiment.
        held: keys of the records that the store is known to hold.
        written: keys of those that this object has written.
        refused: keys of those that the store refuses, each with the reason.
    """

    def __init__(self, uri: str, prefix: str, dataset: str, patience: float, timeout: float) -> None:
        """Nothing is opened yet.

        Args:
            uri: of the store: `sqlite:///FILE`, or of a server, `http://…`.
            patience: seconds after which no further run is begun.
            timeout: seconds that one answer of a server may take.
        """
        self.name = f"{prefix}/{dataset}"
        self._uri, self._dataset = uri, dataset
        self._deadline = time.monotonic() + patience
        for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT"):
            os.environ[name] = _SET.get(name, str(max(1, round(timeout))))
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = _SET.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        self._database = Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None
        self._writer = f"{socket.gethostname()} {os.getpid()} {time.time():.0f}"
        self._parents: dict[str, str] = {}
        self._spans: dict[str, tuple[int, int]] = {}
        self._workplace = tempfile.TemporaryDirectory()
        self._packer = Packer(Path(self._workplace.name))
        self.held: set[str] = set()
        self.written: list[str] = []
        self.refused: dict[str, str] = {}

    @cached_property
    def _client(self) -> MlflowClient:
        return MlflowClient(self._uri)

    @cached_property
    def _experiment(self) -> str:
        """ID of the experiment, which is created if it is absent."""
        experiment = self._client.get_experiment_by_name(self.name)
        if experiment is None:
            beside = self._database and self._database.absolute().with_name(ARTIFACTS) / self._dataset
            try:
                return str(self._client.create_experiment(self.name, beside.as_uri() if beside else None))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = self._client.get_experiment_by_name(self.name)  # another writer was faster
        if experiment is None or experiment.lifecycle_stage != "active":
            raise MlflowException(f"experiment '{self.name}' is deleted; restore it (mlflow experiments restore)")
        return str(experiment.experiment_id)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lock of an SQLite file, so that one writer writes at a time; for a server do nothing."""
        if self._database is None:
            yield
            return
        path = Path(f"{self._database}.lock")
        while (lock := locks.try_lock(path)) is None:
            self._in_time()
            time.sleep(0.05)
        try:
            yield
        finally:
            locks.release(path, lock)

    def _in_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise TookTooLongError("it took too long (tracking.patience)")

    def ingest(self, records: list[Record]) -> None:
        """Write the records that are absent, then settle; `held` and `refused` are right also after an error.

        Raises `CanidsError` about an SQLite file that is none, or whose disk is full; `TookTooLongError`, and the errors of
        MLflow, the database or the network when nothing more can be written.
        """
        try:
            self._ingest(records)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise (self._database and database.explained(self._database, error)) or error from None

    def _ingest(self, records: list[Record]) -> None:
        with self._turn():
            if self._database is not None:
                database.check(self._database)
            runs = self._runs()
        # A parent spans all its children: those seen here, whether they are written now or were before.
        for r in records:
            began, made = self._spans.get(r.parent, (r.began, r.made))
            self._spans[r.parent] = min(began, r.began), max(made, r.made)
        keys = {run.data.tags[KEY] for run in runs}
        # Only records that MLflow lacks are written; parents may be missing although all children are there.
        missing = [r for r in records if not any(self._holds(run, r) for run in runs)]
        self.held = {r.key for r in records} - {r.key for r in missing}
        orphans = [r for r in records if r.parent not in keys]
        for record in missing:
            self._in_time()
            try:
                self._write(record)
            except CanidsError as error:
                self.refused[record.key] = str(error)
            except MlflowException as error:
                if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
                    raise
                self.refused[record.key] = " ".join(str(error).split())
            else:
                self.held.add(record.key)
                self.written.append(record.key)
        with self._turn():
            for record in orphans:
                self._parent(record)
            self._settle(self._runs() if missing or orphans else runs)

    def _runs(self, condition: str = "") -> list[Run]:
        """All runs of this project in the experiment, or those that meet a condition."""
        runs: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment], condition, ViewType.ACTIVE_ONLY, max_results=1000, page_token=token
            )
            runs += [run for run in page if KEY in run.data.tags]
            token = page.token
            if not token:
                return runs

    def _named(self, key: str) -> list[Run]:
        return self._runs(f"tags.`{KEY}` = '{key}'")

    @staticmethod
    def _holds(run: Run, record: Record) -> bool:
        """Whether a run is this record, or a later one of its key."""
        tags = run.data.tags
        same = tags[KEY] == record.key and run.info.status == "FINISHED"
        return same and (tags[DIGEST] == record.digest or _made(run) > record.made)

    def _write(self, record: Record) -> None:
        """Write a record whole, and mark the run as finished last."""
        with self._turn():
            if any(self._holds(run, record) for run in self._named(record.key)):
                return  # another writer was faster
            tags = {
                KEY: record.key,
                DIGEST: record.digest,
                WRITER: self._writer,
                PARENT: self._parent(record),
                PARENT_KEY: record.parent,
                "mlflow.source.name": record.run,
                **record.tags,
            }
            run = self._client.create_run(self._experiment, record.began, tags, record.run).info.run_id
            params = [Param(name, value) for name, value in record.params.items()]
            metrics = [Metric(name, value, record.made, step) for name, value, step in record.metrics]
            for first in range(0, len(params), _PARAMS):
                self._client.log_batch(run, params=params[first : first + _PARAMS])
            for first in range(0, len(metrics), _METRICS):
                self._client.log_batch(run, metrics=metrics[first : first + _METRICS])
            for path in record.files:
                self._client.log_artifact(run, str(path))
            if record.model:
                self._log_model(record.model, record, run)
            self._client.set_terminated(run, end_time=record.made)

    def _log_model(self, path: Path, record: Record, run: str) -> None:
        logged = self._client.create_logged_model(self._experiment, record.run, run, tags={KEY: record.key})
        self._client.log_model_artifacts(logged.model_id, str(self._packer.pack(path, run, logged)))
        self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        self._client.log_outputs(run, [LoggedModelOutput(logged.model_id, step=0)])

    def _parent(self, record: Record) -> str:
        """ID of the pipeline run that a record belongs to; the run is created if it is absent."""
        if record.parent in self._parents:
            return self._parents[record.parent]
        if ids := [run.info.run_id for run in self._named(record.parent) if run.info.status == "FINISHED"]:
            return self._parents.setdefault(record.parent, min(ids))
        name = record.parent.partition("/")[2]
        tags = {KEY: record.parent, WRITER: self._writer, "mlflow.source.name": name}
        tags |= {name: record.tags[name] for name in ("dataset", "instance")} | {"run": name}
        began, made = self._spans[record.parent]
        run = self._client.create_run(self._experiment, began, tags, name).info.run_id
        self._client.set_terminated(run, end_time=made)
        return self._parents.setdefault(record.parent, run)

    def _settle(self, runs: list[Run]) -> None:
        """Leave one run of every key, and every child with the parent that stays."""
        by_key: dict[str, list[Run]] = {}
        for run in runs:
            by_key.setdefault(run.data.tags[KEY], []).append(run)
        # Which run of a key stays depends on the runs alone, not on who asks: all writers come to the same.
        kept: dict[str, Run] = {}
        for key, same in by_key.items():
            done = [run for run in same if run.info.status == "FINISHED"]
            if done:
                is_parent = DIGEST not in done[0].data.tags
                kept[key] = min(done, key=lambda r: (0 if is_parent else -_made(r), r.info.run_id))
            for run in same:
                if (run in done and run is not kept[key]) or (run not in done and self._abandoned(run)):
                    self._delete(run)
        # A parent ends with its last child.
        for key, (_, made) in self._spans.items():
            if key in kept and kept[key].info.end_time < made:
                self._unless_gone(partial(self._client.set_terminated, kept[key].info.run_id, end_time=made))
        # Children of a parent that was deleted as a double go to the one that stays.
        for run in kept.values():
            tags = run.data.tags
            parent = kept.get(tags.get(PARENT_KEY, ""))
            if parent and tags[PARENT] != parent.info.run_id:
                child, right = run.info.run_id, parent.info.run_id
                self._unless_gone(partial(self._client.set_tag, child, PARENT, right))

    @staticmethod
    def _abandoned(run: Run) -> bool:
        """Whether the writer of an unfinished run no longer writes it."""
        host, process, began = run.data.tags[WRITER].split(" ")
        if host != socket.gethostname():
            return time.time() - float(began) > STALE_S
        return process == str(os.getpid()) or not is_running(int(process))

    def _delete(self, run: Run) -> None:
        """Delete a run and its models; if another writer has deleted them already, that is no error."""
        for model in run.outputs.model_outputs if run.outputs else []:
            self._unless_gone(partial(self._client.delete_logged_model, model.model_id))
        self._unless_gone(partial(self._client.delete_run, run.info.run_id))

    @staticmethod
    def _unless_gone(change: Callable[[], object]) -> None:
        try:
            change()
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE"):
                raise
