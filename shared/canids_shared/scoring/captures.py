"""What the pipeline score asks: which files a finished run has, and how captures become a dataset that is only scored."""

import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.manifest import CONTRACT, SCORED
from canids_shared.contracts.model_file import DETECTOR, load_arrays
from canids_shared.errors import CanidsError
from canids_shared.files import sha256_of, write_text
from canids_shared.planning.pipeline import VARIANTS

_KEYS = {
    "capture": "the capture, or a list of captures",
    "run": "a finished run of the policy, such as experimentruns/simulated/dqn_large",
    "name": "what results are filed under; by default the (first) capture's name",
    "format": "how the captures are written; by default recognised",
    "vehicle": "the vehicle's name, for tables",
    "content": "labelled, attack-free or unlabelled; by default unlabelled",
    "recalibrate": "seconds at the beginning that are free of attacks, to set the detectors' scales by",
    "on_bad_rows": "error or quarantine, as in the module preprocess",
    "timestamp_tolerance": "seconds that a timestamp may step back, as in the module preprocess",
    "episode_gap": "seconds without an alarmed window that do not end an alarm, as in the module evaluate",
    "explained_ids": "arbitration IDs named for each alarm, as in the module evaluate",
}
_NAME = re.compile("[A-Za-z0-9_-]+")
"""What a dataset may be called."""
_MODEL = "model.safetensors"
_RUN = re.compile(rf"dqn_({'|'.join(VARIANTS)})((?:@[A-Za-z0-9_.-]+)?)")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A finished run of the policy.

    Attributes:
        variant: the run's.
        by: names the run among the results: dataset, variant and instance.
        models: the model files of `vgae`, `gat`, `dqn` and `fusion_baselines`.
        fit: the training split of its detectors, or none where it is no longer there, or no longer the same.
        preprocess: config of the module preprocess, as the run's graphs were made.
        fusion: who decides, `dqn` or a baseline's name.
    """

    variant: str
    by: str
    models: dict[str, str]
    fit: list[str]
    preprocess: dict[str, Any]
    fusion: str


@dataclass(frozen=True)
class Scoring:
    """Captures to be scored, and by whom.

    Attributes:
        dataset: under which name the results lie.
        data_root: folder of the dataset's manifest.
        variant: the run's.
        by: names the run among the results: dataset, variant and instance.
        models: the model files of `vgae`, `gat`, `dqn` and `fusion_baselines`.
        fit: as in `Trained`.
        preprocess: config of the module preprocess, as the run's graphs were made.
        train_drl: likewise, and how the capture's own beginning is used.
        evaluate: how alarms are told.
        missing: what the config lacks, to be said when something is asked for: a Snakefile can be looked at without.
    """

    dataset: str
    data_root: str
    variant: str
    by: str
    models: dict[str, str]
    fit: list[str]
    preprocess: dict[str, Any]
    train_drl: dict[str, Any]
    evaluate: dict[str, Any]
    missing: str = ""

    def summary(self, wildcards: Any) -> str:
        """Input function: what is to be made. Raises `CanidsError` if the config does not say what to score."""
        if self.missing:
            raise CanidsError(self.missing)
        return f"results/scored/{self.dataset}/by-{self.by}/{self.variant}/{SCORED}/summary.md"

    def section(self, **options: Any) -> dict[str, Any]:
        """A module's config: the dataset, and its options."""
        return {"datasets": [self.dataset], "data_root": self.data_root, **options}


def scoring(config: dict[str, Any]) -> Scoring:
    """Check the pipeline's config and write the manifest of what is to be scored.

    Raises `CanidsError` naming key or file: an unknown key, a capture or a part of the run that is not there.
    """
    if unknown := sorted(config.keys() - _KEYS.keys()):
        raise CanidsError(f"config: unknown key '{unknown[0]}'; known keys: {', '.join(_KEYS)}")
    for key in ("capture", "run"):
        if not config.get(key):
            missing = f"config: {key} is missing: {_KEYS[key]} (make score CAPTURE=… RUN=…)"
            models = dict.fromkeys(("vgae", "gat", "dqn", "fusion_baselines"), "model.safetensors")
            return Scoring("simulated", ".", VARIANTS[0], "nobody", models, [], {}, {}, {}, missing)
    paths = config["capture"]
    captures = [Path(path) for path in (paths if isinstance(paths, list) else [paths])]
    if absent := [c for c in captures if not c.is_file()]:
        raise CanidsError(f"capture {absent[0]}: no such file")
    name = str(config.get("name") or plain(captures[0].stem))
    if not _NAME.fullmatch(name):
        raise CanidsError(f"config: name '{name}' names a folder in results/scored: letters, digits, _ and - alone")

    def given(*keys: str) -> dict[str, Any]:
        return {key: config[key] for key in keys if config.get(key) is not None}

    run = trained(Path(config["run"]))
    preprocess = run.preprocess | given("on_bad_rows", "timestamp_tolerance")
    train_drl = {"fusion": run.fusion, "recalibrate": config.get("recalibrate") or 0}
    evaluate = given("episode_gap", "explained_ids")
    data_root = Path("results") / "scored"
    _write_manifest(data_root / name / "manifest.yaml", captures, config)
    return Scoring(name, str(data_root), run.variant, run.by, run.models, run.fit, preprocess, train_drl, evaluate)


def trained(run: Path) -> Trained:
    """What a finished run of the policy has, and how it sees traffic.

    Raises `CanidsError` naming the folder or file that is wrong or not there.
    """
    if not (found := _RUN.fullmatch(run.name)):
        raise CanidsError(f"run {run}: not the folder of a policy, such as experimentruns/simulated/dqn_large")
    variant, instance = found[1], found[2]
    policy = _record(run)
    detectors = _detectors(run, variant, instance, policy)
    models = {kind: str(run.with_name(f"{kind}_{variant}{instance}") / _MODEL) for kind in ("dqn", "fusion_baselines")}
    models |= {kind: str(run.with_name(f"{kind}_{variant}{detectors}") / _MODEL) for kind in ("vgae", "gat")}
    for path in models.values():
        if not Path(path).exists():
            raise CanidsError(f"run {run}: no {path}; has the run finished?")
    fit = _fit(Path(models["gat"]).parent)
    preprocess = _preprocess(Path(models["gat"]), fit)
    decided = _record(Path(models["fusion_baselines"]).parent).get("spec", {}).get("config", {})
    return Trained(variant, f"{run.parent.name}{instance}", models, fit, preprocess, decided.get("fusion", "dqn"))


def _record(run: Path) -> dict[str, Any]:
    """What a run wrote of itself; nothing where it wrote nothing."""
    path = run / "config.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def _fit(run: Path) -> list[str]:
    """The training split that a detector has learnt from; none where something else, or nothing, lies in its place now."""
    record = _record(run)
    path, sha256 = (record.get(key, {}).get("graphs", [])[:1] for key in ("files", "inputs"))
    if not path:
        return []
    here = Path(path[0]).is_file()
    if here and [sha256_of(path[0])] == sha256:
        return list(path)
    wrong = "are not those that it has learnt from" if here else "are not here"
    log.warning("warning: run %s: its training graphs %s %s, so nothing can be said about drift", run, path[0], wrong)
    return []


def _detectors(run: Path, variant: str, instance: str, policy: dict[str, Any]) -> str:
    """The instance of the detectors: a policy that differs by its own options alone has those of an earlier one."""
    read = policy.get("files", {}).get("fuse", [])
    found = re.search(rf"/{variant}((?:@[^/]+)?)/fuse\.parquet$", read[0]) if read else None
    return found[1] if found else instance


def plain(text: str) -> str:
    """A text as the name of a dataset or a capture."""
    return re.sub("[^A-Za-z0-9_-]+", "-", text)


def _write_manifest(path: Path, captures: list[Path], config: dict[str, Any]) -> None:
    entries = {}
    for capture in captures:
        name = plain(capture.stem)
        entry = {
            "path": str(capture.absolute()),
            "format": config.get("format") or "auto",
            "vehicle": str(config.get("vehicle") or "unknown"),
            "role": SCORED,
            "content": config.get("content") or "unlabelled",
        }
        if name in entries:
            raise CanidsError(
                f"capture {capture}: another one is called {name} too; score them one by one, each with a name of its own (name=…)"
            )
        entries[name] = entry
    text = yaml.safe_dump({"contract": CONTRACT, "captures": entries}, sort_keys=False)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _preprocess(model: Path, fit: list[str]) -> dict[str, Any]:
    """How graphs have to be made for this detector.

    One trained before its file told the stride has it from its training split; without that, windows follow one another.

    Raises `CanidsError` for features by which alarms cannot be explained.
    """
    _, header = load_arrays(model, DETECTOR)
    if "can_id" in header["node_features"]:
        raise CanidsError(
            f"{model}: learnt from features: published; only runs with features: relative can score captures"
        )
    stride = header.get("stride") or (GraphStore(fit[0]).header["stride"] if fit else None)
    if stride is None:
        log.warning("warning: %s: does not tell its stride; windows are taken one after the other", model)
        stride = header["window"]
    return {"window": header["window"], "stride": stride, "window_unit": header["window_unit"], "features": "relative"}


def main() -> None:
    """Print the summary that `make score` has made: `python -m canids_shared.scoring.captures CAPTURE RUN [name=…]`.

    Options of Snakemake among the others are passed over; after a dry run there may be no summary.
    """
    capture, run, *rest = sys.argv[1:]
    options = dict(option.split("=", 1) for option in rest if "=" in option)
    job = scoring({**{k: v for k, v in options.items() if k in _KEYS}, "capture": capture, "run": run})
    if (summary := Path(job.summary(None))).exists():
        print(summary.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
