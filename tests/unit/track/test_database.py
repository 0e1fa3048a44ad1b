"""An SQLite store that MLflow cannot use: one line, at once, and the runs stay pending."""

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from track_data import ingest, write_runs

from canids_track import database


def folder(path: Path) -> None:
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("a file of somebody, and no database at all\n" * 3)


def versioned(path: Path, version: str = "ffff00001111") -> None:
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE alembic_version (version_num TEXT)")
        made.execute("INSERT INTO alembic_version VALUES (?)", (version,))


def cut(path: Path) -> None:
    versioned(path)
    os.truncate(path, 4096)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (folder, "a folder where the file of the MLflow store is to be; move it away"),
        (text, "SQLite says 'not a database'; move it away"),
        (cut, "SQLite says 'malformed'; it is damaged: move it away"),
        (versioned, "written by a newer MLflow (schema ffff00001111) than the installed"),
    ],
)
def test_a_store_that_is_none_is_said_at_once(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    write_runs(tmp_path, "")
    path = tmp_path / "mlflow.db"
    make(path)
    before = time.monotonic()
    pending = ingest(tmp_path, f"sqlite:///{path}")
    assert time.monotonic() - before < 5, "MLflow would try for two minutes"
    assert set(pending) == {"demo/pca_large", "demo/eval_small_kd"}
    (said,) = set(pending.values())
    assert said.startswith(f"{path}: {reason}")
    assert said.endswith("or name another file (tracking.uri)")


def test_a_store_of_this_mlflow_or_of_none_yet_is_fine(tmp_path: Path) -> None:
    database.check(tmp_path / "absent.db")
    assert not (tmp_path / "absent.db").exists()
    (tmp_path / "empty.db").touch()
    database.check(tmp_path / "empty.db")
    folder = Path(database.mlflow.__file__).parent / "store/db_migrations/versions"
    versioned(tmp_path / "known.db", next(folder.glob("*_*.py")).name.partition("_")[0])
    database.check(tmp_path / "known.db")


def test_a_store_that_is_being_written_is_left_to_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mlflow.db"
    versioned(path)
    connect = sqlite3.connect
    monkeypatch.setattr(database.sqlite3, "connect", lambda path: connect(path, timeout=0))
    with closing(connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        database.check(path)


def test_a_full_disk_and_a_file_that_may_not_be_written_are_one_line(tmp_path: Path) -> None:
    """As MLflow passes on what SQLite says."""
    path = tmp_path / "mlflow.db"
    full = MlflowException("(sqlite3.OperationalError) database or disk is full [SQL: CREATE TABLE …]")
    assert str(database.explained(path, full)).startswith(f"{path}: No space left on device; delete files on ")
    closed = MlflowException("(sqlite3.OperationalError) attempt to write a readonly database [SQL: …]")
    assert str(database.explained(path, closed)).startswith(f"{path}: SQLite says 'readonly database'; allow it")
    assert database.explained(path, MlflowException("something else")) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_store_on_a_file_system_that_is_read_only(tmp_path: Path) -> None:
    write_runs(tmp_path, "")
    where = tmp_path / "mounted"
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", where], check=False).returncode:
        pytest.skip("mounting is forbidden here")
    try:
        pending = ingest(tmp_path, f"sqlite:///{where}/mlflow.db")
    finally:
        subprocess.run(["umount", where], check=True)
    (said,) = set(pending.values())
    assert said.startswith(f"{where}/mlflow.db.lock: Read-only file system; {where} is mounted read-only")
