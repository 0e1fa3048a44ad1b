"""What the trainings of one point of a sweep come to on `select` (rule `sweep_point`).

    python -m canids_evaluate.sweep_point --spec '{"wildcards": …, "config": {}, "instance": "sweep-017", "values": {"gat.batch": 64},
        "runs": ["gat_small_nokd"], "seeds": ["0", "1"]}' --output select.json
        --models …/gat_small_nokd@sweep-017/model.safetensors …

Detectors: AUROC of the weights that were kept, which the training wrote into the model file, and their loss, the lowest of
all epochs. Policies: mean reward and F1 at the evaluation that was kept, the one of the highest reward.
"""

from itertools import product
from pathlib import Path

import polars as pl

from canids_evaluate.runs.trainings import again, read_history
from canids_shared.contracts.model_file import DETECTOR, load_arrays
from canids_shared.errors import CanidsError
from canids_shared.files import write_json
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call

CONTRACT = "select/1"


def reading(run: str, model: Path) -> dict[str, float | None]:
    """Metric → value on `select` of the finished training in whose folder a model lies.

    Raises `CanidsError` naming the file that is absent, damaged, or not of such a training.
    """
    history = model.with_name("history.parquet")
    rows = read_history(history)
    wanted = ("select_reward", "select_f1") if run.startswith("dqn_") else ("select_loss",)
    if not len(rows) or (absent := next((c for c in wanted if c not in rows.columns), None)):
        raise CanidsError(f"{history}: has no {absent or 'rows'}; {again(history)}")
    if run.startswith("dqn_"):
        kept = rows.row(int(rows["select_reward"].arg_max() or 0), named=True)
        return {"reward": kept["select_reward"], "f1": kept["select_f1"]}
    _, header = load_arrays(model, DETECTOR)
    return {"auroc": header["select"]["auroc"], "loss": float(rows.select(pl.min("select_loss")).item())}


def main(call: Call) -> None:
    """Entry point."""
    runs, seeds = call.constants["runs"], call.constants["seeds"]
    found: dict[str, dict[str, dict[str, float | None]]] = {run: {} for run in runs}
    for (run, seed), model in zip(product(runs, seeds), call.inputs["models"], strict=True):
        found[run][seed] = reading(run, model)
    head = {"contract": CONTRACT, "dataset": call.wildcards["dataset"]}
    write_json(
        call.output["output"],
        {**head, "instance": call.constants["instance"], "values": call.constants["values"], "runs": found},
    )


if __name__ == "__main__":
    entry_point.run(main, inputs=["models"])
