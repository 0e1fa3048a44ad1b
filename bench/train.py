"""Speed of training and of scoring, on this machine's device: the backends, and PyG's DataLoader with its GATConv.

    python bench/train.py [--seconds 6] [--folder DIR] [--output bench/results.json] [--dgl-python .venv-dgl/bin/python]

The model is the published GAT teacher (3 layers of 8 heads with 48 channels), with the same edge features, residuals, norms,
pooling and optimizer for all, in float32 on one core of a CPU, in bfloat16 on a GPU. Each way of training is measured at
several batch sizes, and its best one counts. Every measurement runs in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import figures, one_core, publish, result
from torch import Tensor, nn

from canids_shared.contracts.config import check, load_schema
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.torch_store import Graphs, TorchStore
from canids_shared.jobs.entry_point import Call
from canids_shared.planning.code_hash import code_hash
from canids_train_gnn.models.attention import MessagePassing
from canids_train_gnn.models.gat_vgae import GAT, VGAE

TEACHER = {"channels": 48, "heads": 8, "layers": 3, "dropout": 0.1, "feature_dropout": 0.0}
MODULES = Path(__file__).resolve().parents[1] / "modules"
WAYS = ("dense", "csr", "pyg", "dgl", "loader")
SIZES = {"cpu": (32, 64, 128, 256), "cuda": (256, 1024, 4096)}


def defaults(stage: str) -> dict[str, Any]:
    """A module's config where nothing is set."""
    return check({}, load_schema(MODULES / stage / "config.schema.yaml"), where=stage)


def prepare(folder: Path) -> None:
    """Write two simulated captures as CSV, and the graphs of both in one store, unless the files exist."""
    from canids_preprocess import graphs, ingest, simulate  # noqa: PLC0415 (numba; dgl's environment may lack it)

    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "attacked.safetensors"
    tables = []
    for attack in ("dos", "fuzzing"):
        raw, table = folder / f"{attack}.csv", folder / f"{attack}.parquet"
        tables.append(table)
        entry = {"name": attack, "vehicle": "compact", "attack": attack, "content": "labelled", "attacked": []}
        if not raw.exists():
            driving = {"duration": 90, "seed": 1, "episodes": 8, "episode_s": 3, "stealth": "blatant", "changes": 0}
            simulate.main(_call({"output": raw}, {}, {}, capture={**entry, "simulation": driving}))
        if not table.exists():
            reading = {"timestamp_tolerance": 0.0005, "on_bad_rows": "error"}
            capture = {**entry, "format": "can-train-and-test"}
            output = {"output": table, "rejects": folder / "rejects.parquet"}
            ingest.main(_call(output, reading, {"capture": [raw], "metadata": []}, capture=capture))
    if not store.exists():
        graphs.main(_call({"output": store}, defaults("preprocess"), {"frames": tables}))


def prepared(folder: Path) -> Path:
    """The folder of this code's captures and graphs, which are made once."""
    # It is named by the code of simulator and features, so that other code does not find these files.
    code = "".join(code_hash(f"canids_preprocess.{entry}", sys.executable)[:8] for entry in ("simulate", "graphs"))
    prepare(folder / f"train_{code}")
    return folder / f"train_{code}"


def _call(output: dict[str, Path], config: dict[str, Any], inputs: dict[str, list[Path]], **constants: Any) -> Call:
    return Call({"dataset": "d", "split": "test", "instance": ""}, config, constants, output, inputs, "")


class LoaderGAT(nn.Module):
    """The same network, made of PyTorch Geometric's layers."""

    def __init__(self, model: GAT, size: dict[str, Any], nodes: int, edges: int) -> None:
        from torch_geometric.nn import GATConv  # noqa: PLC0415

        super().__init__()
        width = size["channels"] * size["heads"]
        self.scaling, self.edge_scaling = model.encoder.node_scaling, model.encoder.edge_scaling
        self.enter, self.dropout = nn.Linear(nodes, width), nn.Dropout(size["dropout"])
        self.layers = nn.ModuleList(
            GATConv(width, size["channels"], size["heads"], edge_dim=edges, fill_value=0.0)
            for _ in range(size["layers"])
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(size["layers"]))
        self.embed = nn.Sequential(nn.Linear(2 * width * (size["layers"] + 1), width), nn.ELU())
        self.classify = nn.Linear(width, 2)

    def forward(self, batch: Any) -> Tensor:
        """Logits [B, 2] of a batch of PyTorch Geometric."""
        from torch_geometric.nn import global_max_pool, global_mean_pool  # noqa: PLC0415

        h = self.enter(self.dropout(self.scaling(batch.x)))  # [N, heads·channels]
        edge, kept = self.edge_scaling(batch.edge_attr), [h]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = h + nn.functional.elu(norm(layer(h, batch.edge_index, edge)))
            kept.append(h)
        h = torch.cat(kept, -1)
        pooled = torch.cat([global_mean_pool(h, batch.batch), global_max_pool(h, batch.batch)], -1)
        return self.classify(self.embed(pooled))


def _loader(store: GraphStore, size: int, device: torch.device) -> Iterator[tuple[Any, Tensor]]:
    from torch_geometric.data import Data  # noqa: PLC0415
    from torch_geometric.loader import DataLoader  # noqa: PLC0415

    items = []
    for w in range(len(store)):
        nodes, edges = (slice(*store[f"{unit}_ptr"][w : w + 2]) for unit in ("node", "edge"))
        items.append(
            Data(
                x=torch.from_numpy(np.array(store["x"][nodes])),
                edge_index=torch.from_numpy(store["edge_index"][:, edges].astype(np.int64)),
                edge_attr=torch.from_numpy(np.array(store["edge_attr"][edges])),
                y=torch.tensor([int(store["y"][w])]),
            )
        )
    loader = DataLoader(items, batch_size=size, shuffle=True, drop_last=True)
    while True:
        for batch in loader:
            moved = batch.to(device)
            yield moved, moved.y


def _gathered(store: TorchStore, size: int) -> Iterator[tuple[Graphs, Tensor]]:
    while True:
        order = torch.randperm(len(store))
        for chunk in torch.split(order, size):
            if len(chunk) == size:
                graphs = store.batch(chunk)
                yield graphs, graphs.y


def train_rate(way: str, path: Path, size: int, seconds: float) -> dict[str, Any]:
    """Graphs a second of whole training steps: batch, forward, backward, clipping, AdamW."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    graphs = GraphStore(path)
    store = TorchStore(graphs, device)
    model: nn.Module = GAT(graphs.header["node_features"], graphs.header["edge_features"], TEACHER).to(device)
    assert isinstance(model, GAT)
    model.encoder.node_scaling.learn(store.x)
    model.encoder.edge_scaling.learn(store.edge_attr)
    stream: Iterator[tuple[Any, Tensor]]
    if way == "loader":
        widths = graphs["x"].shape[1], graphs["edge_attr"].shape[1]
        model, stream = LoaderGAT(model, TEACHER, *widths).to(device), _loader(graphs, size, device)
    else:
        model.encoder.use(MessagePassing(way, compiled=way == "dense" and device.type == "cuda"))
        stream = _gathered(store, size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    model.train()
    begin, done, steps = time.perf_counter(), 0, 0
    warm = 3 if device.type == "cpu" else 20
    for batch, labels in stream:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            made = model(batch)
            loss = nn.functional.cross_entropy((made if way == "loader" else made[0]).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        steps, done = steps + 1, done + size
        if steps <= warm:
            if device.type == "cuda":
                torch.cuda.synchronize()
            begin, done = time.perf_counter(), 0
        elif time.perf_counter() - begin > seconds:
            break
    if device.type == "cuda":
        torch.cuda.synchronize()
    return {"graphs_per_s": done / (time.perf_counter() - begin), "device": device.type}


def floor_rate(path: Path) -> dict[str, Any]:
    """Bound of the rate by arithmetic: the measured rate of matrix products over a graph's operations in linear layers."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    store = GraphStore(path)
    nodes = len(store["x"]) / len(store)
    width = TEACHER["channels"] * TEACHER["heads"]
    per_node = store["x"].shape[1] * width + TEACHER["layers"] * width * width
    per_graph = 2 * (TEACHER["layers"] + 1) * width * width + 2 * width
    operations = 3 * 2 * (nodes * per_node + per_graph)  # a product and a sum each; forward, and twice that backward
    rows = 4096 if device.type == "cpu" else 65536
    a, b = torch.randn(rows, width, device=device, dtype=kind), torch.randn(width, width, device=device, dtype=kind)

    def once() -> float:
        begin = time.perf_counter()
        for _ in range(20):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    once()
    rate = 20 * 2 * rows * width * width / min(once() for _ in range(5))
    return {"graphs_per_s": rate / operations, "operations": operations, "rate": rate}


def student_rate(raw: Path, folder: Path) -> dict[str, Any]:
    """Frames a second from a capture's CSV to both students' outputs for every window, on one core."""
    from canids_preprocess import graphs, ingest  # noqa: PLC0415
    from canids_train_gnn.states import detector_outputs  # noqa: PLC0415

    entry = {"name": "drive", "attack": "fuzzing", "vehicle": "v", "content": "labelled", "attacked": []}
    reading = {"timestamp_tolerance": 0.0005, "on_bad_rows": "error"}
    output = {"output": folder / "student.parquet", "rejects": folder / "student_rejects.parquet"}
    seconds = []
    for _ in range(4):  # the first one compiles, or loads what was compiled
        torch.manual_seed(0)
        begin = time.perf_counter()
        capture = {**entry, "format": "can-train-and-test"}
        ingest.main(_call(output, reading, {"capture": [raw], "metadata": []}, capture=capture))
        path = folder / "student.safetensors"
        graphs.main(_call({"output": path}, defaults("preprocess"), {"frames": [output["output"]]}))
        store = GraphStore(path)
        names = store.header["node_features"], store.header["edge_features"]
        sizes = defaults("train_gnn")
        vgae, gat = VGAE(*names, sizes["vgae"]["small"]).eval(), GAT(*names, sizes["gat"]["small"]).eval()
        message_passing = MessagePassing.of(sizes, torch.device("cpu"), training=False)
        for model in (vgae, gat):
            model.encoder.use(message_passing)
        outputs = detector_outputs(vgae, gat, TorchStore(store, torch.device("cpu")))
        seconds.append(time.perf_counter() - begin)
    frames = sum(source["rows_read"] for source in store.header["sources"].values())
    return {"frames_per_s": frames / min(seconds[1:]), "windows": len(outputs["gat_logit"])}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--folder", type=Path, default=Path("bench/data"))
    parser.add_argument("--output", type=Path, default=Path("bench/results.json"))
    parser.add_argument("--dgl-python", type=Path, default=Path(".venv-dgl/bin/python"))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.measure:
        options.folder = prepared(options.folder)
    raw, store = options.folder / "fuzzing.csv", options.folder / "attacked.safetensors"
    if options.measure:
        one_core()
        torch.set_num_threads(1)
        measures: dict[str, Callable[[], dict[str, Any]]] = {
            "floor": lambda: floor_rate(store),
            "student": lambda: student_rate(raw, options.folder),
            **{way: lambda way=way: train_rate(way, store, options.batch, options.seconds) for way in WAYS},
        }
        print(json.dumps(measures[options.measure]()))
        return
    folder = ["--folder", str(options.folder), "--seconds", str(options.seconds)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    best: dict[str, tuple[float, int]] = {}
    for way in WAYS:
        python = str(options.dgl_python) if way == "dgl" else sys.executable
        if way == "dgl" and (device != "cpu" or not options.dgl_python.exists()):
            print(
                "dgl is left out: it has no environment here (make dgl-tests makes it), or no wheel for a GPU",
                file=sys.stderr,
            )
            continue
        try:
            rates = [
                (
                    figures(__file__, "--measure", way, "--batch", str(size), *folder, python=python)["graphs_per_s"],
                    size,
                )
                for size in SIZES[device]
            ]
        except subprocess.CalledProcessError as error:
            sys.exit(f"{way} failed: {error}")
        best[way] = max(rates)
        print(way, ", ".join(f"{rate:,.0f} at {size}" for rate, size in rates), file=sys.stderr)
    floor = figures(__file__, "--measure", "floor", *folder)
    unit = f"graphs/s ({device})"
    default = best[MessagePassing.of({"backend": "auto", "compile": "auto"}, torch.device(device)).backend][0]
    loader = best["loader"][0]
    rows = [
        result(
            f"gat_train_graphs_per_s_{way}", rate, f"{unit}, batch {size}", "PyG DataLoader and GATConv", rate / loader
        )
        for way, (rate, size) in best.items()
    ]
    rows += [
        result("gat_train_vs_pyg_loader", default / loader, "ratio", "PyG DataLoader and GATConv", default / loader, least=2),
        result("gat_train_floor_graphs_per_s", floor["graphs_per_s"], f"{unit}, {floor['operations'] / 1e9:.3f} GFLOP each",
               "the default path", floor["graphs_per_s"] / default),
        result("student_frames_per_s", figures(__file__, "--measure", "student", *folder)["frames_per_s"], "frames/s, one core", least=9000),
    ]  # fmt: skip
    publish(rows, options.output)


if __name__ == "__main__":
    main()
