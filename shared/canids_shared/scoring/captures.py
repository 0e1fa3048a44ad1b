"""Captures that become a dataset which is only scored: what the pipeline score plans by."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from canids_shared.contracts.manifest import ALL_CHANNELS, CONTRACT, SCORED, table_in
from canids_shared.errors import CanidsError
from canids_shared.files import write_text
from canids_shared.planning.pipeline import POLICY_KIND, VARIANTS
from canids_shared.scoring.trained_run import DETECTOR_RUNS, TrainedRun, trained_run

KEYS = {
    "capture": "the capture, or a list of captures",
    "run": "a finished run of the policy, such as experimentruns/simulated/dqn_large, or of a detector that has none",
    "name": "name of the results' folder; by default the (first) capture's name",
    "format": "the captures' format; by default recognised",
    "timestamp_unit": "unit of the captures' timestamps: s, ms, us or ns; by default seconds",
    "assume_rate": "frames a second of captures without times",
    "table": "what the columns of tables mean: a file with the mapping, or a manifest with it",
    "channel": "the bus of a log of several, or a list of them; by default each is scored",
    "vehicle": "the vehicle's name, for tables",
    "content": "labelled, attack-free or unlabelled; by default unlabelled",
    "profile": "profile of the vehicle that the captures begin with: python -m canids_preprocess.enrol",
    "recalibrate": "seconds without attacks at the beginning, by which the detectors' scales are set",
    "on_bad_rows": "error or quarantine, as in the module preprocess",
    "timestamp_tolerance": "seconds that a timestamp may step back, as in the module preprocess",
    "episode_gap": "seconds without an alarmed window that do not end an alarm, as in the module evaluate",
    "explained_ids": "arbitration IDs named for each alarm, as in the module evaluate",
}
"""Keys of the pipeline's config."""
DATA_ROOT = Path("results/scored")
_NAME = re.compile("[A-Za-z0-9_-]+")
"""Names of datasets."""


@dataclass(frozen=True)
class Scoring:
    """Captures to be scored, and the run that scores them.

    Attributes:
        dataset: name of the results' folder.
        run: the finished run.
        preprocess: config of the module preprocess: as the run's graphs were made.
        train_drl: config of the module train_drl.
        evaluate: config of the module evaluate.
        missing: what the config lacks; raised when a file is asked for, so that a Snakefile can be linted without config.
    """

    dataset: str
    run: TrainedRun
    preprocess: dict[str, Any]
    train_drl: dict[str, Any]
    evaluate: dict[str, Any]
    missing: str = ""

    def summary(self, _wildcards: Any = None) -> str:
        """Input function: the summary of the captures. Raises `CanidsError` if the config lacks capture or run."""
        if self.missing:
            raise CanidsError(self.missing)
        return f"{DATA_ROOT}/{self.dataset}/by-{self.run.by}/{self.run.variant}/{SCORED}/summary.md"

    def section(self, **options: Any) -> dict[str, Any]:
        """A module's config: the dataset, and its options."""
        return {"datasets": [self.dataset], "data_root": str(DATA_ROOT), **options}


def scoring(config: dict[str, Any], detector_runs: Sequence[str] = DETECTOR_RUNS) -> Scoring:
    """Check the pipeline's config and write the manifest of the captures.

    Args:
        config: of the pipeline; its keys are `KEYS`.
        detector_runs: kinds of the runs that trained the detectors; a pipeline with other detectors names its own.

    Raises `CanidsError` naming the key or file that is wrong: an unknown key, an absent capture, a part of the run.
    """
    if unknown := sorted(config.keys() - KEYS.keys()):
        raise CanidsError(f"config: unknown key '{unknown[0]}'; known keys: {', '.join(KEYS)}")
    for key in ("capture", "run"):
        if not config.get(key):
            missing = f"config: {key} is missing: {KEYS[key]} (make score CAPTURE=… RUN=…)"
            models = dict.fromkeys(detector_runs, "model.safetensors")
            absent = TrainedRun(
                VARIANTS[0], "none", models, "model.safetensors", "model.safetensors", POLICY_KIND, [], {}
            )
            return Scoring("simulated", absent, {}, {}, {}, missing)
    paths = config["capture"]
    captures = [Path(path) for path in (paths if isinstance(paths, list) else [paths])]
    if gone := [c for c in captures if not c.is_file()]:
        raise CanidsError(f"capture {gone[0]}: no such file")
    if config.get("profile") and not Path(config["profile"]).is_file():
        raise CanidsError(f"profile {config['profile']}: no such file; make enrol writes one")
    name = str(config.get("name") or plain(captures[0].stem))
    if not _NAME.fullmatch(name):
        raise CanidsError(f"config: name '{name}' is no folder of {DATA_ROOT}: letters, digits, _ and - are allowed")

    def given(*keys: str) -> dict[str, Any]:
        return {key: config[key] for key in keys if config.get(key) is not None}

    run = trained_run(Path(config["run"]), detector_runs)
    _write_manifest(DATA_ROOT / name / "manifest.yaml", captures, config)
    return Scoring(
        dataset=name,
        run=run,
        preprocess=run.preprocess | given("on_bad_rows", "timestamp_tolerance", "profile"),
        train_drl={"fusion": run.fusion, "recalibrate": config.get("recalibrate") or 0},
        evaluate=given("episode_gap", "explained_ids"),
    )


def plain(text: str) -> str:
    """A text as the name of a dataset or a capture."""
    return re.sub("[^A-Za-z0-9_-]+", "-", text)


def _write_manifest(path: Path, captures: list[Path], config: dict[str, Any]) -> None:
    """Write the manifest of the captures, if it differs from the one that is there."""
    table = config.get("table")
    table = table_in(Path(table)) if isinstance(table, str) else table
    common = {
        "format": config.get("format") or ("table" if table else "auto"),
        "vehicle": str(config.get("vehicle") or "unknown"),
        "role": SCORED,
        "content": config.get("content") or "unlabelled",
        **{key: config[key] for key in ("timestamp_unit", "assume_rate") if config.get(key)},
        **({"table": table} if table else {}),
        "channel": ALL_CHANNELS if config.get("channel") is None else config["channel"],
    }
    entries: dict[str, dict[str, Any]] = {}
    for capture in captures:
        name = plain(capture.stem)
        if name in entries:
            raise CanidsError(
                f"capture {capture}: another one is called {name} too; score them one by one, each with a name of its own (name=…)"
            )
        entries[name] = {"path": str(capture.absolute()), **common}
    text = yaml.safe_dump({"contract": CONTRACT, "captures": entries}, sort_keys=False)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
