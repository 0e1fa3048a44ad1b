"""What the pipeline score asks: which files a finished run has, and how captures become a dataset that is only scored."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from canids_shared.errors import CanidsError
from canids_shared.files import write_text
from canids_shared.manifest import CONTRACT, SCORED
from canids_shared.runs import load_arrays
from canids_shared.workflow import VARIANTS

_KEYS = {
    "capture": "the capture, or a list of captures",
    "run": "a finished run of the policy, such as experimentruns/simulated/dqn_large",
    "name": "what results are filed under; by default the (first) capture's name",
    "format": "how the captures are written; by default recognised",
    "vehicle": "the vehicle's name, for tables",
    "content": "labelled, attack-free or unlabelled; by default unlabelled",
    "recalibrate": "seconds at the beginning that are free of attacks, to set thresholds by",
}
_RUN = re.compile(rf"dqn_({'|'.join(VARIANTS)})((?:@[A-Za-z0-9_.-]+)?)")


@dataclass(frozen=True)
class Scoring:
    """Captures to be scored, and by whom.

    Attributes:
        dataset: under which name the results lie.
        data_root: folder of the dataset's manifest.
        runs, variant, instance: the run, as in `{runs}/dqn_{variant}{instance}`.
        fit: the training split of its detectors, or none where it is no longer there.
        preprocess: config of the module preprocess, as the run's graphs were made.
        recalibrate: seconds.
        missing: what the config lacks, to be said when something is asked for: a Snakefile can be looked at without.
    """

    dataset: str
    data_root: str
    runs: str
    variant: str
    instance: str
    fit: list[str]
    preprocess: dict[str, Any]
    recalibrate: float
    missing: str = ""

    def summary(self, wildcards: Any) -> str:
        """Input function: what is to be made. Raises `CanidsError` if the config does not say what to score."""
        if self.missing:
            raise CanidsError(self.missing)
        return f"results/scored/{self.dataset}/{self.variant}/{SCORED}/summary.md"

    def model(self, kind: str) -> str:
        """The model file of `vgae`, `gat`, `dqn` or `rivals`."""
        return f"{self.runs}/{kind}_{self.variant}{self.instance}/model.safetensors"

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
            return Scoring("simulated", ".", "experimentruns/simulated", VARIANTS[0], "", [], {}, 0.0, missing)
    given = config["capture"]
    captures = [Path(c) for c in (given if isinstance(given, list) else [given])]
    if absent := [c for c in captures if not c.is_file()]:
        raise CanidsError(f"capture {absent[0]}: no such file")
    name = str(config.get("name") or _plain(captures[0]))
    run = Path(config["run"])
    if not (found := _RUN.fullmatch(run.name)):
        raise CanidsError(f"run {run}: not the folder of a policy, such as experimentruns/simulated/dqn_large")
    data_root = Path("results") / "scored"
    _write_manifest(data_root / name / "manifest.yaml", captures, config)
    scored = Scoring(
        name, str(data_root), str(run.parent), found[1], found[2], [], {}, float(config.get("recalibrate") or 0)
    )
    for kind in ("vgae", "gat", "dqn", "rivals"):
        if not Path(scored.model(kind)).exists():
            raise CanidsError(f"run {run}: no {scored.model(kind)}; has the run finished?")
    fit = _fit_of(Path(scored.model("gat")).with_name("config.yaml"))
    return Scoring(**{**vars(scored), "fit": fit, "preprocess": _preprocess(Path(scored.model("gat")))})


def _plain(capture: Path) -> str:
    return re.sub("[^A-Za-z0-9_.-]+", "-", capture.name.partition(".")[0])


def _write_manifest(path: Path, captures: list[Path], config: dict[str, Any]) -> None:
    entries = {}
    for capture in captures:
        entry = {
            "path": str(capture.absolute()),
            "format": config.get("format") or "auto",
            "vehicle": str(config.get("vehicle") or "unknown"),
            "role": SCORED,
            "content": config.get("content") or "unlabelled",
        }
        if _plain(capture) in entries:
            raise CanidsError(f"capture {capture}: another one is called {_plain(capture)} too; score them one by one")
        entries[_plain(capture)] = entry
    text = yaml.safe_dump({"contract": CONTRACT, "captures": entries}, sort_keys=False)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _fit_of(config: Path) -> list[str]:
    """The training graphs that a run's record names, if they are still there."""
    if not config.exists():
        return []
    record = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    graphs = record.get("files", {}).get("graphs", [])
    return [path for path in graphs[:1] if Path(path).exists()]


def _preprocess(model: Path) -> dict[str, Any]:
    """How graphs have to be made for this detector; windows follow one another without overlap."""
    _, header = load_arrays(model, "detector/2")
    kind = "published" if "can_id" in header["node_features"] else "relative"
    return {
        "window": header["window"],
        "stride": header["window"],
        "window_unit": header["window_unit"],
        "features": kind,
    }
