"""Track a dataset's finished runs and log the outcome; a store that fails never fails the pipeline."""

import logging
import os
from dataclasses import dataclass

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from canids_shared.errors import CanidsError
from canids_track.planning import CREDENTIALS
from canids_track.records import Places, Record, finished, is_stand_in, read
from canids_track.store import Store, TookTooLongError

DEFAULT_URI = "sqlite:///experimentruns/mlflow.db"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Options of tracking; `config.schema.yaml` describes them."""

    uri: str | None = None
    experiment: str = "canids"
    patience: float = 300
    timeout: float = 10


def track(places: Places, options: Options) -> tuple[list[str], dict[str, str]]:
    """Write a dataset's finished runs into MLflow.

    Returns the keys of the runs that MLflow now holds, and those of the pending runs with the reason.
    """
    for name in ("alembic", "mlflow", "urllib3"):  # they log every table, type hint and attempt
        logging.getLogger(name).setLevel(logging.ERROR)
    pending: dict[str, str] = {}
    records: list[Record] = []
    stand_ins: list[str] = []
    for folder in finished(places.runs):
        if is_stand_in(folder, places):
            stand_ins.append(folder.name)
            continue
        # A damaged run is pending with its reason; the others are written.
        try:
            records.append(read(folder, places))
        except CanidsError as error:
            pending[f"{places.dataset}/{folder.name}"] = str(error)
    uri = options.uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    store = Store(uri, options.experiment, places.dataset, options.patience, options.timeout)
    why = ""
    try:
        store.ingest(records)
    except (CanidsError, MlflowException, SQLAlchemyError, OSError, TookTooLongError) as error:
        why = CREDENTIALS.sub("", " ".join(str(error).split())) or type(error).__name__
        # The place stands at the beginning, the cause at the end.
        why = why if len(why) < 300 else f"{why[:100]} … {why[-190:]}"
    # What the store does not hold is pending, for a reason of its own or for that of the store.
    pending |= {r.key: store.refused.get(r.key, why) for r in records if r.key not in store.held}
    shown = CREDENTIALS.sub("", uri)
    log.info("MLflow %s, %s: %d runs, %d of them new", shown, store.name, len(store.held), len(store.written))
    if stand_ins:
        log.info("%d stand-ins are left out: %s", len(stand_ins), ", ".join(stand_ins))
    if pending:
        log.warning("warning: %d runs of %s are not in MLflow yet; nothing is lost:", len(pending), places.dataset)
        for reason in sorted(set(pending.values())):
            log.warning("  %s: %s", ", ".join(sorted(k for k in pending if pending[k] == reason)), reason)
        log.warning("The next run of the pipeline includes them; or, once the cause is removed: %s", _by_hand(options))
    return sorted(store.held), pending


def _by_hand(options: Options) -> str:
    """The command that tracks into the same store and experiment; it reads $MLFLOW_TRACKING_URI too."""
    values = {"URI": options.uri and CREDENTIALS.sub("", options.uri), "EXPERIMENT": options.experiment}
    return " ".join(["make track", *(f"{name}={value}" for name, value in values.items() if value)])
