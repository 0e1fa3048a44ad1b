"""Results as rows, one per method, variant and scenario, and the labels and order of methods; for tables, figures and sentences."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from canids_shared.contracts.detectors import KEY, Detector, declared
from canids_shared.errors import CanidsError

FUSION = "fusion"
FUSION_BASELINES = {
    "fixed_weight": "Fixed weight",
    "max": "Maximum of scores",
    "mean": "Mean of scores",
    "noisy_or": "Noisy-or of scores",
    "hysteresis": "Fixed weight, hysteresis",
    "cusum": "Fixed weight, CUSUM",
    "logistic": "Logistic regression",
    "mlp": "Perceptron",
    "bandit": "Bandit (LinUCB)",
    "sb3_dqn": "DQN of Stable-Baselines3",
    "dqn": "DQN",
}
"""Method → label, in the order of tables; a further one comes after these, its label is its name."""
WINDOW_BASELINES = {
    "id_rate": "ID and rate",
    "extra_trees": "Extra Trees",
    "gradient_boosting": "Gradient boosting",
    "isolation_forest": "Isolation Forest",
    "node_pca": "PCA of nodes",
    "staleness": "Staleness",
    "always_attack": "Always attack",
}


@dataclass(frozen=True)
class Methods:
    """Labels and order of methods: the fusion, its detectors as declared, fusion baselines, window baselines."""

    detectors: tuple[Detector, ...] = ()

    @property
    def networks(self) -> dict[str, str]:
        """The fusion and its detectors: method → label."""
        return {FUSION: "Fusion", **{d.name: d.label for d in self.detectors}}

    def label(self, method: str) -> str:
        """The name of a method in tables and figures."""
        return {**FUSION_BASELINES, **WINDOW_BASELINES, **self.networks}.get(method, method.replace("_", " "))

    def rank(self, method: str) -> tuple[int, int, str]:
        """Sort key of a method."""
        for group, names in enumerate((self.networks, FUSION_BASELINES, WINDOW_BASELINES)):
            if method in names:
                return group, list(names).index(method), method
        return 1, len(FUSION_BASELINES), method


def methods_of(content: Mapping[str, Any]) -> Methods:
    """The methods of a `metrics.json` or `curves.json`; those of the window baselines declare no detectors."""
    return Methods(declared(content, "metrics.json") if content[KEY] else ())


@dataclass(frozen=True)
class Row:
    """One method of one variant (None: a window baseline) on one scenario, with its metrics as in `metrics.json`."""

    scenario: str
    variant: str | None
    method: str
    values: dict[str, Any]
    methods: Methods

    @property
    def label(self) -> str:
        """The method's name in tables and figures."""
        return self.methods.label(self.method)


def labels(rows: list[Row]) -> dict[str, str]:
    """Method → label of all methods in `rows`, in the order of tables."""
    return {row.method: row.label for row in sorted(rows, key=lambda row: row.methods.rank(row.method))}


def plain(scenario: str) -> str:
    """A scenario's name in headings and figures."""
    return scenario.removeprefix("test_").replace("_", " ")


def rows_of(contents: list[dict[str, Any]]) -> list[Row]:
    """Rows of all metrics files: scenario by scenario, within it in the order of the files, the fusion first.

    Raises `CanidsError` if the files do not have the same scenarios.
    """
    rows = []
    # Scenarios of any file, so that one that a file lacks is noticed.
    for scenario in sorted({s for c in contents for s in c["scenarios"]}):
        for content in contents:
            if scenario not in content["scenarios"]:
                name = content["variant"] or "window_baselines"
                raise CanidsError(
                    f"scenario '{scenario}' is missing from the metrics of {name}; delete them and run again"
                )
            methods, results = methods_of(content), content["scenarios"][scenario]
            for method in sorted(results, key=methods.rank):
                rows.append(Row(scenario, content["variant"], method, results[method], methods))
    return rows


def by_scenario(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each scenario."""
    scenarios: dict[str, list[Row]] = {}
    for row in rows:
        scenarios.setdefault(row.scenario, []).append(row)
    return scenarios


def hosts_of(captures: Iterable[str], sources: Mapping[str, Mapping[str, Any]]) -> str:
    """The captures among these that hold injected attacks, each with the recording they were put into; empty where none does."""
    named = {
        name: source for name in captures if (source := sources.get(name, {})).get("host") and source.get("attack")
    }
    return ", ".join(f"`{name}` into `{source['host']}`" for name, source in named.items())
