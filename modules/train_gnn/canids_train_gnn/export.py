"""A trained detector as ONNX, for one window at a time, checked against torch (contract `onnx/1`).

    python -m canids_train_gnn.export experimentruns/simulated/gat_small_kd [--output model.onnx] [--graphs select.safetensors]

Writes the model and beside it `export.json`. The README of this module describes inputs, outputs and metadata. Needs what the extra
`onnx` installs.
"""

import argparse
import importlib.util
import json
import logging
import sys
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from canids_shared.contracts import model_file, training_run
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.torch_store import Graphs, TorchStore
from canids_shared.errors import CanidsError
from canids_shared.files import write_json, written_whole
from canids_shared.jobs import latency
from canids_train_gnn.models.attention import MessagePassing
from canids_train_gnn.models.batching import repeatable
from canids_train_gnn.models.columns import ERROR_TERMS
from canids_train_gnn.models.detector_file import load_any
from canids_train_gnn.models.gat_vgae import GAT, VGAE
from canids_train_gnn.models.one_window import INPUTS, OUTPUTS, OneWindow

CONTRACT = "onnx/1"
TOLERANCE = 1e-5
"""Largest difference from torch, relative to what exceeds one."""
_COMPARED = 500
_OUTPUT_NAMES = {"logits": ["attack-free", "attacked"], "terms": list(ERROR_TERMS)}
log = logging.getLogger(__name__)


class Exported:
    """An ONNX file in memory, its bytes in `content`, which onnxruntime runs with one thread."""

    def __init__(self, content: bytes) -> None:
        import onnxruntime  # noqa: PLC0415 (in an extra of its own)

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.content = content
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, window: tuple[Tensor, ...]) -> list[np.ndarray]:
        """Outputs on the inputs of a window."""
        arrays = dict(zip(INPUTS, (tensor.numpy() for tensor in window), strict=True))
        outputs: list[np.ndarray] = self._session.run(None, arrays)
        return outputs


def convert(model: GAT | VGAE, metadata: dict[str, str]) -> Exported:
    """A detector as ONNX with nodes and edges of any number, the file's metadata included.

    Raises `CanidsError` if the extra `onnx` is not installed.
    """
    for package in ("onnx", "onnxruntime", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise CanidsError(f"{package} is not installed here: pip install 'canids[onnx]'")
    nodes, edges = model.encoder.node_scaling.mean.shape[0], model.encoder.edge_scaling.mean.shape[0]
    # Sizes that nothing could mistake for constants of the model.
    example = (torch.zeros(7, nodes), torch.zeros(2, 11, dtype=torch.int64), torch.zeros(11, edges))
    dynamic = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own deprecations
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            OneWindow(model).eval(),
            example,
            dynamo=True,
            verbose=False,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS[type(model).__name__]),
            dynamic_shapes={"x": {0: dynamic}, "edge_index": {1: dynamic}, "edge_attr": {0: dynamic}},
        )
    assert program is not None
    proto = program.model_proto
    # The source line of each node would be most of the file, and would name another path in every checkout.
    graph = proto.graph
    graph.ClearField("value_info")
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for name in sorted(metadata):
        entry = proto.metadata_props.add()
        entry.key, entry.value = name, metadata[name]
    return Exported(proto.SerializeToString(deterministic=True))


def window_of(graphs: Graphs) -> tuple[Tensor, Tensor, Tensor]:
    """The inputs of a batch of one window."""
    return graphs.x, torch.stack([graphs.source, graphs.target]), graphs.edge


def odd_windows(x: Tensor, edge: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Windows that captures hardly have, with real features [n, F] and [e, D]: a single node, isolated nodes, self-loops."""
    n = min(5, len(x))
    # Nodes of a window, and its edges as sources and targets.
    cases: list[tuple[int, list[list[int]]]] = [
        (1, [[], []]),
        (1, [[0], [0]]),
        (n, [[], []]),
        (n, [[0, n - 1], [n - 1, n - 1]]),
        (n, [[0] * 3, [0, 0, n - 1]]),
    ]
    return [(x[:nodes], torch.tensor(pairs, dtype=torch.int64), edge[: len(pairs[0])]) for nodes, pairs in cases]


def difference(model: GAT | VGAE, exported: Exported, windows: list[tuple[Tensor, Tensor, Tensor]]) -> float:
    """The largest difference of any output from torch, relative to what exceeds one."""
    in_torch, worst = OneWindow(model).eval(), 0.0
    with torch.inference_mode():
        for window in windows:
            for expected, got in zip(in_torch(*window), exported(window), strict=True):
                wanted = expected.numpy()
                apart = np.abs(got - wanted) / np.maximum(1.0, np.abs(wanted))
                worst = max(worst, float(apart.max()) if np.isfinite(got).all() else np.inf)
    return worst


def _metadata(run: Path, header: dict[str, Any], stride: float) -> dict[str, str]:
    """The `metadata_props` of the file; lists and numbers as JSON."""
    kind = header["kind"]
    names = {name: _OUTPUT_NAMES[name] for name in OUTPUTS[kind] if name in _OUTPUT_NAMES}
    texts = {"contract": CONTRACT, "kind": kind, "run": run.name, "window_unit": header["window_unit"]}
    values = {
        **{k: header[k] for k in ("node_features", "edge_features", "window")},
        "stride": stride,
        "outputs": names,
    }
    return {**texts, **{k: json.dumps(v) for k, v in values.items()}}


def _select_of(run: Path) -> Path:
    """The graph store on which a training chose its epoch."""
    path = Path(training_run.read(run / "run.json").inputs["graphs"][1])
    if not path.exists():
        raise CanidsError(f"{run}: its graphs of select are not here to compare on; name a store with --graphs")
    return path


def export(run: Path, output: Path, report: Path, graphs: Path | None) -> None:
    """Write a run's detector as ONNX, and what is known of it.

    Args:
        run: folder of a training; its model file is read.
        output: the ONNX file.
        report: `export.json`: size, largest difference from torch, latency.
        graphs: windows to compare on; None takes `select` of the training, from its `run.json`.

    Raises `CanidsError` naming the file if the run or the graphs are absent, or if onnxruntime's outputs differ from torch's.
    """
    path = run / "model.safetensors"
    _, header = model_file.load_arrays(path, model_file.DETECTOR)
    graphs = graphs or _select_of(run)
    store = TorchStore(GraphStore(graphs), torch.device("cpu"))
    model = load_any(path, store.header)
    exported = convert(model, _metadata(run, header, store.header["stride"]))
    count = min(_COMPARED, len(store))
    chosen = torch.linspace(0, len(store) - 1, count).round().long()
    windows = [window_of(store.batch(w[None])) for w in chosen]
    odd = odd_windows(store.x[:64].clone(), store.edge_attr[:64].clone())
    worst = difference(model, exported, [*windows, *odd])
    if worst > TOLERANCE:
        raise CanidsError(
            f"{path}: onnxruntime differs from torch by {worst:.1e} on {graphs}, more than {TOLERANCE:.0e}"
        )
    model.encoder.use(MessagePassing.of({"backend": "auto"}, store.device, training=False))
    with torch.inference_mode():
        by_torch = latency.measure(lambda w: model.score(store.batch(chosen[w : w + 1])).item(), count)
    by_onnx = latency.measure(lambda w: exported(windows[w]), count)
    with written_whole(output) as temporary:
        temporary.write_bytes(exported.content)
    write_json(
        report,
        {
            "contract": model_file.EXPORT,
            "bytes": len(exported.content),
            "largest_difference": worst,
            "windows": len(windows) + len(odd),
            "onnxruntime_ms": 1e3 * median(by_onnx),
            "torch_ms": 1e3 * median(by_torch),
            "device": "cpu",
            "threads": 1,
        },
    )
    log.info("%s: %d bytes, differs by %.1e at most", output, len(exported.content), worst)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="such as experimentruns/simulated/gat_small_kd")
    parser.add_argument("-o", "--output", type=Path, help="by default model.onnx in the run's folder")
    parser.add_argument("--graphs", type=Path, help="windows to compare on; by default the run's own split select")
    options = parser.parse_args()
    # Exporter and optimiser log a line for each node of the graph.
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    output = options.output or options.run / "model.onnx"
    repeatable(1, torch.device("cpu"))
    try:
        export(options.run, output, output.with_name("export.json"), options.graphs)
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
