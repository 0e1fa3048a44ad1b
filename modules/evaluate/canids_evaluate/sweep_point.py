"""Results of the trainings of one point of a sweep on `select` (rule `sweep_point`).

    python -m canids_evaluate.sweep_point --spec '{"wildcards": …, "config": {}, "instance": "sweep-017", "values": {"discount": 0.5},
        "trainings": ["dqn_small_nokd"], "seeds": ["0", "1"]}' --output select.json
        --runs …/dqn_small_nokd@sweep-017/run.json …

Detectors have the AUROC of the weights that were kept, and their loss, the lowest of all epochs. Policies have mean reward and F1 at
the evaluation that was kept, that of the highest reward.
"""

from itertools import product
from pathlib import Path

from canids_evaluate.sweeps.point_results import CONTRACT
from canids_shared.contracts import training_run
from canids_shared.contracts.whole import write_json
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call
from canids_shared.sweeps.metrics import metrics_of


def results(training: str, path: Path) -> dict[str, float | None]:
    """Metric → value on `select`, from the `run.json` of a training; null where undefined.

    Raises `CanidsError` naming the file that is absent, damaged, of another folder, or lacks a metric.
    """
    run = training_run.read(path)
    metrics = metrics_of(training)
    if absent := next((m for m in metrics if m not in run.select), None):
        raise CanidsError(f"{path}: select has no {absent}; delete the folder {path.parent} and train again")
    return {metric: run.select[metric] for metric in metrics}


def main(call: Call) -> None:
    """Entry point."""
    trainings, seeds = call.constants["trainings"], call.constants["seeds"]
    by_training: dict[str, dict[str, dict[str, float | None]]] = {training: {} for training in trainings}
    for (training, seed), path in zip(product(trainings, seeds), call.inputs["runs"], strict=True):
        by_training[training][seed] = results(training, path)
    content = {
        "dataset": call.wildcards["dataset"],
        "instance": call.constants["instance"],
        "values": call.constants["values"],
        "runs": by_training,
    }
    write_json(call.output["output"], CONTRACT, content)


if __name__ == "__main__":
    entry_point.run(main, inputs=["runs"])
