"""Metrics on `select` by which a sweep compares its points."""

from canids_shared.contracts.detectors import DETECTORS
from canids_shared.planning.pipeline import POLICY_KIND, VARIANTS

METRICS = {**{d.name: ("auroc", "loss") for d in DETECTORS}, POLICY_KIND: ("reward", "f1")}
"""Kind of training → its metrics on `select`; the first is the default."""
LOWER_IS_BETTER = ("loss",)
_RECONSTRUCTION = [d.name for d in DETECTORS if not d.supervised]
_SHIFTING = {
    "loss": ("preprocess", *(f"{n}.{o}" for n in _RECONSTRUCTION for o in ("edge_weight", "divergence_weight"))),
    "reward": ("reward", "detector_dropout", "attack_splicing", "episode_length"),
    "f1": ("episode_length",),
}
"""Options, or whole stages, that change the meaning of a metric, so that it cannot compare points."""


def kind_of(run: str) -> str:
    """The kind of a training (`gat`), without its variant (`gat_small_kd`)."""
    return next((run.removesuffix(f"_{variant}") for variant in VARIANTS if run.endswith(f"_{variant}")), run)


def metrics_of(run: str) -> tuple[str, ...]:
    """The metrics of a training on `select`, the default first."""
    return METRICS[kind_of(run)]


def changes_meaning(option: str, metric: str) -> bool:
    """Whether an option, or a whole stage, changes the meaning of a metric."""
    return any(option == o or option.startswith(f"{o}.") for o in _SHIFTING.get(metric, ()))
