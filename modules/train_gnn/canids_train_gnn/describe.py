"""Data, options and results of trainings: `python -m canids_train_gnn.describe RUN [RUN …]`, with their run folders."""

import argparse
import sys
from pathlib import Path
from typing import Any

from canids_shared.contracts import model_file, training_run
from canids_shared.contracts.whole import reading
from canids_shared.errors import CanidsError

PUBLISHED = {"GAT": (311_138, 49_202), "VGAE": (185_850, 9_186)}
"""Parameters of the published teacher and student (KD-GAT), to compare with."""


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _data(split: str, data: dict[str, Any]) -> str:
    attacked = f"{data['attacked']:,} attacked" + (f": {_counted(data['attacks'])}" if data["attacks"] else "")
    auxiliary = f", {data['auxiliary']:,} of auxiliary captures" if data["auxiliary"] else ""
    return f"{split}: {data['windows']:,} windows ({attacked}{auxiliary}), vehicles {_counted(data['vehicles'])}"


def _options(values: dict[str, Any], prefix: str = "") -> list[str]:
    out = []
    for key, value in values.items():
        out += _options(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}={value}"]
    return out


def describe(folder: Path) -> str:
    """A training in words, one fact a line.

    Raises `CanidsError` naming the file that is missing, damaged, or not of a detector's training.
    """
    _, header = model_file.load_arrays(folder / "model.safetensors", model_file.DETECTOR)
    run = training_run.read(folder / "run.json")
    with reading(folder / "run.json", "record of a detector's training", again="train again"):
        return "\n".join([str(folder), *(f"  {line}" for line in _lines(header, run))])


def _lines(header: dict[str, Any], run: training_run.TrainingRun) -> list[str]:
    """The facts, from the header of the model file and the record of its training."""
    section = run.config[run.kind]
    common = {k: v for k, v in run.config.items() if not isinstance(v, dict)}
    options = {k: v for k, v in section.items() if k not in ("large", "small")}
    published = PUBLISHED[header["kind"]][run.scale == "small"]
    auroc, best = run.select["auroc"], run.best
    fit_loss, select_loss = (run.history[f"{split}_loss"] for split in ("fit", "select"))
    return [
        f"{run.label}, {run.scale}, {run.parameters:,} parameters (published: {published:,})",
        f"dataset {run.dataset}, windows of {header['window']:g} {header['window_unit']}, "
        f"{len(header['node_features'])} features of nodes, {len(header['edge_features'])} of edges",
        *(_data(split, data) for split, data in run.data.items()),
        f"captures {', '.join(run.data['fit']['captures'])}",
        f"teacher {run.inputs['teacher'][0]}" if run.inputs["teacher"] else "no teacher",
        f"size {' '.join(_options(section[run.scale]))}",
        f"options {' '.join(_options({**common, **options}))}",
        f"{len(select_loss)} epochs; loss in epoch {best + 1}, the best: "
        f"fit {fit_loss[best]:.5f}, select {select_loss[best]:.5f}",
        "AUROC on select " + ("undefined: one class only" if auroc is None else f"{auroc:.4f}"),
        f"{run.latency['median_ms']:.2f} ms a window on {run.latency['device']}, {run.sizes['model']:,} bytes",
        f"code {run.code}",
    ]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="such as experimentruns/simulated/gat_large")
    try:
        for folder in parser.parse_args().runs:
            print(describe(folder))
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
