"""A finished run: the models that decide, those of the detectors, and the config of their graphs.

It is a run of the policy. Where there was no attack to train one on, it is that of the detector alone, which alarms above the threshold
in the run of the fusion baselines beside it.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canids_shared.contracts import model_file, training_run
from canids_shared.contracts.detectors import DETECTORS
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.whole import reading
from canids_shared.errors import CanidsError
from canids_shared.files import sha256_of
from canids_shared.planning.pipeline import POLICY_KIND, VARIANTS

BASELINES_KIND = "fusion_baselines"
"""Kind of the run that fits them."""
DETECTOR_RUNS = tuple(detector.name for detector in DETECTORS)
"""Kinds of the runs that train the detectors of `train_gnn`: each trains one."""
_THRESHOLD = "fixed_weight"
"""The fusion baseline that decides without a policy."""
_FOLDER = r"({kinds})_({variants})((?:@[A-Za-z0-9_.-]+)?)"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedRun:
    """A finished run of the policy, or of a detector without one.

    Attributes:
        variant: the run's variant.
        by: name of the run among results: dataset and instance.
        detectors: run kind → model file, in the order of `detector_runs`.
        policy: model file of the policy, or None.
        fusion_baselines: model file of its fusion baselines.
        fusion: what decides on the alarm: `dqn`, or the name of a fusion baseline.
        fit: the graphs that the detectors were trained on (one path); empty where they are absent, or have changed since.
        preprocess: config of the module preprocess by which the detectors' graphs are made.
    """

    variant: str
    by: str
    detectors: dict[str, str]
    policy: str | None
    fusion_baselines: str
    fusion: str
    fit: list[str]
    preprocess: dict[str, Any]

    @property
    def models(self) -> dict[str, str | list[str]]:
        """Run kind → model file, of all runs; no file of those that were left out for want of attacks."""
        absent: dict[str, str | list[str]] = {} if self.policy else {kind: [] for kind in DETECTOR_RUNS}
        return {**absent, **self.detectors, POLICY_KIND: self.policy or [], BASELINES_KIND: self.fusion_baselines}


def trained_run(folder: Path, detector_runs: Sequence[str] = DETECTOR_RUNS) -> TrainedRun:
    """The finished run in a folder: of a policy, or of a detector that has none beside it.

    Args:
        folder: such as `experimentruns/simulated/dqn_large`; the runs of detectors and fusion baselines lie beside it.
        detector_runs: kinds of the runs that trained the detectors.

    Raises `CanidsError` naming the folder or file that is wrong or absent.
    """
    pattern = _FOLDER.format(kinds="|".join((POLICY_KIND, *detector_runs)), variants="|".join(VARIANTS))
    if not (name := re.fullmatch(pattern, folder.name)):
        raise CanidsError(f"run {folder}: not the folder of a policy, such as experimentruns/simulated/dqn_large")
    kind, variant, instance = name.groups()
    policy = _model(folder, POLICY_KIND, variant, instance) if kind == POLICY_KIND else None
    baselines = _model(folder, BASELINES_KIND, variant, instance)
    origin, chosen = instance, tuple(detector_runs)
    if policy:
        # A policy may read the states of another instance; its detectors are then the runs of that one.
        origin = _instance_of_states(training_run.read(folder / "run.json"), instance)
    else:
        chosen = _alone(folder, kind, baselines)
    detectors = {run: _model(folder, run, variant, origin) for run in chosen}
    first = Path(next(iter(detectors.values())))
    fit = _fit(first.parent)
    return TrainedRun(
        variant=variant,
        by=f"{folder.parent.name}{instance}",
        detectors=detectors,
        policy=policy,
        fusion_baselines=baselines,
        fusion=_fusion(Path(baselines).with_name("config.yaml")) if policy else _THRESHOLD,
        fit=fit,
        preprocess=_preprocess(first, fit),
    )


def _alone(folder: Path, kind: str, baselines: str) -> tuple[str]:
    """The kind of a detector's run, if it decides without others; raises `CanidsError` if the fusion has other detectors."""
    observer = model_file.header_of(baselines).get("observer") or {}
    policy = folder.with_name(folder.name.replace(kind, POLICY_KIND, 1))
    if [d.get("name") for d in observer.get("detectors", [])] != [kind] or (policy / "model.safetensors").exists():
        raise CanidsError(
            f"run {folder}: its detector has no threshold of its own; score with the policy, RUN={policy}"
        )
    return (kind,)


def _model(folder: Path, kind: str, variant: str, instance: str) -> str:
    path = folder.with_name(f"{kind}_{variant}{instance}") / "model.safetensors"
    if not path.exists():
        raise CanidsError(f"run {folder}: no {path}; has the run finished?")
    model_file.header_of(path)  # refuses the model of another run
    return str(path)


def _instance_of_states(policy: training_run.TrainingRun, instance: str) -> str:
    """Instance of the detectors: a policy that differs only by its own options shares those of another instance."""
    pattern = re.compile(rf".*/{policy.variant}((?:@[^/]+)?)/fuse\.parquet")
    matches = [match[1] for path in policy.inputs.get("fuse", []) if (match := pattern.fullmatch(path))]
    return matches[0] if matches else instance


def _fusion(path: Path) -> str:
    """The fusion that decides, by the `config.yaml` of the fusion baselines."""
    return str(training_run.read_config(path)["spec"]["config"].get("fusion", POLICY_KIND))


def _fit(detector: Path) -> list[str]:
    """The graphs that a detector's run was trained on; with a warning, none where they are absent or differ."""
    run = training_run.read(detector / "run.json")
    graphs, digests = (paths.get("graphs", [])[:1] for paths in (run.inputs, run.input_digests))
    if not graphs:
        return []
    present = Path(graphs[0]).is_file()
    if present and [sha256_of(graphs[0])] == digests:
        return graphs
    problem = "have changed since the training" if present else "are absent"
    log.warning("warning: run %s: its training graphs %s %s: drift cannot be computed", detector, graphs[0], problem)
    return []


def _preprocess(model: Path, fit: list[str]) -> dict[str, Any]:
    """Config of preprocess for a detector's graphs: from the header of its model file, else from that of its training graphs.

    Raises `CanidsError` naming the model if neither says so, or for features by which alarms cannot be explained.
    """
    header = model_file.header_of(model)
    if "stride" not in header and fit:
        header = GraphStore(fit[0]).header
    with reading(model, "detector with node_features, window, stride and window_unit in its header"):
        if "can_id" in header["node_features"]:
            raise CanidsError(
                f"{model}: trained with features: published; only runs with features: relative can score captures"
            )
        return {"features": "relative", **{key: header[key] for key in ("window", "stride", "window_unit")}}
