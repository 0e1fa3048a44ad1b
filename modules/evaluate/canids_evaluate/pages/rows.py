"""One row a method, variant and scenario: what tables, figures and words are made from."""

from dataclasses import dataclass
from typing import Any

from canids_shared.errors import CanidsError

LABELS = {
    "fusion": "Fusion",
    "gat": "GAT",
    "vgae": "VGAE",
    "fixed_weight": "Fixed weight",
    "hysteresis": "Fixed weight, hysteresis",
    "cusum": "Fixed weight, CUSUM",
    "logistic": "Logistic regression",
    "mlp": "Perceptron",
    "bandit": "Bandit (LinUCB)",
    "sb3_dqn": "DQN of Stable-Baselines3",
    "dqn": "DQN",
    "id_rate": "ID and rate",
    "extra_trees": "Extra Trees",
    "isolation_forest": "Isolation Forest",
    "always_attack": "Always attack",
}


@dataclass(frozen=True)
class Row:
    """One method of one variant (None: a baseline) on one scenario, with its metrics as in `metrics.json`."""

    scenario: str
    variant: str | None
    method: str
    values: dict[str, Any]


def label(method: str) -> str:
    """How tables and figures name a method."""
    return LABELS.get(method, method.replace("_", " "))


def rank(method: str) -> int:
    """Place of a method in tables and figures; those without a label come after the last baseline."""
    return list(LABELS).index(method) if method in LABELS else list(LABELS).index("id_rate")


def plain(scenario: str) -> str:
    """A scenario's name as headings and figures show it."""
    return scenario.removeprefix("test_").replace("_", " ")


def rows_of(contents: list[dict[str, Any]]) -> list[Row]:
    """Rows of all metrics files: scenario by scenario, within it in the order of the files, the fusion first.

    Raises `CanidsError` if the files do not speak of the same scenarios.
    """
    scenarios = list(dict.fromkeys(s for c in contents for s in c["scenarios"]))
    rows = []
    for scenario in sorted(scenarios):
        for content in contents:
            if scenario not in content["scenarios"]:
                name = content["variant"] or "window_baselines"
                raise CanidsError(
                    f"scenario '{scenario}' is missing from the metrics of {name}; delete them and run again"
                )
            methods = content["scenarios"][scenario]
            for method in sorted(methods, key=lambda m: (rank(m), m)):
                rows.append(Row(scenario, content["variant"], method, methods[method]))
    return rows


def by_scenario(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each scenario."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.scenario, []).append(row)
    return found
