"""What distillation costs: training a student of each detector with its teacher's outputs against training it without.

    python bench/distillation.py [--folder DIR] [--output bench/results.json]

Module defaults on simulated traffic, one core. The teacher's own forward passes count.
"""

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from common import figures, one_core, publish, result
from train import defaults, prepared

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.torch_store import TorchStore
from canids_train_gnn import gat, vgae
from canids_train_gnn.models.attention import MessagePassing
from canids_train_gnn.models.gat_vgae import GAT, VGAE
from canids_train_gnn.training.job import TrainingJob
from canids_train_gnn.training.rule import few

EPOCHS = 5
"""As the VGAE has in the preset `demo`."""


def training_seconds(kind: str, path: Path) -> dict[str, float]:
    """CPU seconds of training a student of a detector, `with` and `without` its teacher; the teacher's own forward passes count.

    Both take turns, and the shorter of three times counts: whatever else the machine does, it does to both.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = {**defaults("train_gnn")[kind], "epochs": EPOCHS, "patience": EPOCHS}
    whole = TorchStore(GraphStore(path), device)
    fit, select = few(whole, 2048), few(whole, 256)
    train: Any = {"gat": gat, "vgae": vgae}[kind].train
    model: Any = {"gat": GAT, "vgae": VGAE}[kind]
    passing = MessagePassing.of(defaults("train_gnn"), device)
    teacher = model(fit.header["node_features"], fit.header["edge_features"], config["large"]).to(device)
    teacher.eval().requires_grad_(False).encoder.use(passing)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(3):
        for name, times in seconds.items():
            taught = teacher if name == "with" else None
            job = TrainingJob(fit, select, "small", config, 0, message_passing=passing, teacher=taught)
            begin = clock()
            train(job)
            times.append(clock() - begin)
    return {name: min(times) for name, times in seconds.items()}


def main() -> None:
    """Measure both detectors, each in a process of its own, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench/data"))
    parser.add_argument("--output", type=Path, default=Path("bench/results.json"))
    parser.add_argument("--measure", choices=["gat", "vgae"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        one_core()
        torch.set_num_threads(1)
        logging.disable()
        print(json.dumps(training_seconds(options.measure, options.folder / "attacked.safetensors")))
        return
    folder = prepared(options.folder)
    rows = []
    for kind in ("gat", "vgae"):
        times = figures(__file__, "--measure", kind, "--folder", str(folder))
        ratio, note = times["with"] / times["without"], f"{times['without']:.1f} s without, {EPOCHS} epochs"
        alone = "the student without distillation"
        rows.append(result(f"kd_overhead_{kind}", ratio, "ratio", alone, ratio, most=1.5, note=note))
    publish(rows, options.output)


if __name__ == "__main__":
    main()
