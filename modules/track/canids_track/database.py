"""An SQLite store, looked at before MLflow opens it: what MLflow cannot open it tries again, for two minutes in silence."""

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow

from canids_shared.errors import CanidsError
from canids_shared.files import write_fault

_OTHER = "or name another file (tracking.uri)"
_REMEDIES = {
    "not a database": f"move it away, and all runs are tracked again, {_OTHER}",
    "malformed": f"it is damaged: move it away, and all runs are tracked again, {_OTHER}",
    "readonly database": f"allow it to be written (chmod), {_OTHER}",
    "unable to open": f"allow it to be read and written (chmod), {_OTHER}",
}
"""What SQLite says of a file → what to do."""


def explained(path: Path, error: Exception) -> CanidsError | None:
    """What SQLite says of its file, also within an error of MLflow, as one line with the remedy; None if it is something else."""
    if "disk is full" in str(error):
        return write_fault(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), path)
    said = next((text for text in _REMEDIES if text in str(error)), None)
    return CanidsError(f"{path}: SQLite says '{said}'; {_REMEDIES[said]}") if said else write_fault(error, path)


def check(path: Path) -> None:
    """Raise `CanidsError` unless the file is absent, or a database that can be written and that this MLflow can read."""
    if path.is_dir():
        raise CanidsError(f"{path}: a folder where the file of the MLflow store is to be; move it away, {_OTHER}")
    if not path.exists() or not path.stat().st_size:
        return
    try:
        with closing(sqlite3.connect(path)) as database:
            database.execute("BEGIN IMMEDIATE")
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            query = "SELECT version_num FROM alembic_version"
            versions = [str(version) for (version,) in database.execute(query)] if "alembic_version" in tables else []
            database.rollback()
    except sqlite3.Error as error:
        if fault := explained(path, error):
            raise fault from None
        return  # locked by a reader, for instance: MLflow waits for it
    known = Path(mlflow.__file__).parent / "store/db_migrations/versions"
    if unknown := [version for version in versions if not list(known.glob(f"{version}_*.py"))]:
        raise CanidsError(
            f"{path}: written by a newer MLflow (schema {unknown[0]}) than the installed {mlflow.__version__}; install "
            f"that one, {_OTHER}"
        )
