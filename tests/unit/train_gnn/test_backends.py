"""The backends of message passing: each gives the published attention, and all the same outputs and gradients.

Where dgl is not installed its cases are skipped; `make dgl-tests` runs this file in dgl's own environment, where a skip
is a failure.
"""

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from captures import built, call
from gnn_data import EDGE_FEATURES, NODE_FEATURES, SMALL, batch_of, store
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from canids_preprocess import ingest, simulate
from canids_shared.contracts.torch_store import Graphs
from canids_shared.errors import CanidsError
from canids_train_gnn.models.attention import BACKENDS, Edges, GraphAttention, MessagePassing
from canids_train_gnn.models.gat_vgae import GAT, VGAE

DGL = importlib.util.find_spec("dgl") is not None
if not DGL and os.environ.get("CANIDS_NEEDS_DGL"):
    raise ModuleNotFoundError("dgl, in the environment that is to have it")
ALL = [pytest.param(n, marks=pytest.mark.skipif(n == "dgl" and not DGL, reason="dgl not installed")) for n in BACKENDS]
OTHERS = [p for p in ALL if p.values != ("dense",)]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@st.composite
def batches(draw: st.DrawFn) -> Graphs:
    """One to four graphs: of one node, of isolated ones, with edges of a node to itself, wider than one step of padding."""
    sizes = draw(st.lists(st.one_of(st.just(1), st.integers(2, 6), st.integers(9, 20)), min_size=1, max_size=4))
    edges: list[tuple[int, int]] = []
    first = 0
    for n in sizes:
        pairs = st.tuples(st.integers(first, first + n - 1), st.integers(first, first + n - 1))
        edges += draw(st.lists(pairs, unique=True, max_size=3 * n))
        first += n
    return batch_of(sizes, [s for s, _ in edges], [t for _, t in edges], draw(st.integers(0, 99)))


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Graphs of simulated captures: a flood, whose frames follow each other, and random IDs, with many nodes."""
    folder = tmp_path_factory.mktemp("attacked")
    made = []
    for attack in ("dos", "fuzzing"):
        entry = {"name": attack, "vehicle": "compact", "attack": attack, "content": "labelled", "attacked": []}
        driving = {"duration": 8, "seed": 1, "episodes": 2, "episode_s": 1, "stealth": "blatant", "changes": 0}
        raw, frames = folder / f"{attack}.csv", {"output": folder / f"{attack}.parquet", "rejects": folder / "rejects"}
        simulate.main(call({}, {}, raw, {}, capture={**entry, "simulation": driving}))
        reading = {"timestamp_tolerance": 0.0005, "on_bad_rows": "error"}
        of = {**entry, "format": "can-train-and-test"}
        ingest.main(call({}, reading, frames, {"capture": [raw], "metadata": []}, capture=of))
        made.append(built(folder, frames["output"], split=attack, window=100, stride=100).path)
    return made


def attended(layer: GraphAttention, graphs: Graphs, h: Tensor, backend: str) -> Tensor:
    edges = Edges.of(graphs, graphs.edge)
    out: Tensor = layer(h, edges, BACKENDS[backend](graphs, edges))
    return out


@pytest.mark.parametrize("backend", ALL)
@settings(max_examples=30)
@given(graphs=batches())
def test_attention_is_the_published_formula(backend: str, graphs: Graphs) -> None:
    torch.manual_seed(0)
    layer = GraphAttention(len(NODE_FEATURES), 3, 2, len(EDGE_FEATURES)).double()
    h, edge = graphs.x.double(), graphs.edge.double()
    doubled = replace(graphs, x=h, edge=edge)
    out = attended(layer, doubled, h, backend)
    w = (h @ layer.project.weight.T).view(-1, 2, 3)
    features = {(int(s), int(t)): f for s, t, f in zip(graphs.source, graphs.target, edge, strict=True)}
    for i in range(len(h)):
        reach = sorted({s for s, t in features if t == i} | {i})
        for head in range(2):
            raw = torch.stack(
                [
                    layer.target[head] @ w[i, head]
                    + layer.source[head] @ w[j, head]
                    + layer.edge.weight[head] @ features.get((j, i), torch.zeros(edge.shape[1], dtype=torch.float64))
                    for j in reach
                ]
            )
            alpha = torch.nn.functional.leaky_relu(raw, 0.2).softmax(0)
            expected = sum(a * w[j, head] for a, j in zip(alpha, reach, strict=True))
            # Softmax and, with dgl, sums are in float32.
            torch.testing.assert_close(out[i, 3 * head : 3 * head + 3], expected, rtol=1e-4, atol=1e-5)


def outputs_and_gradients(kind: type, graphs: Graphs, backend: str) -> list[Tensor]:
    torch.manual_seed(1)
    model = kind(NODE_FEATURES, EDGE_FEATURES, SMALL).eval()
    model.encoder.use(MessagePassing(backend))
    made = model(graphs)
    outputs = list(made) if kind is GAT else [made.mean, made.log_var, made.decoded, made.terms(graphs)]
    sum((o.square().mean() for o in outputs), torch.zeros(())).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    return [*outputs, *gradients]


@pytest.mark.parametrize("kind", [GAT, VGAE])
@pytest.mark.parametrize("backend", OTHERS)
@settings(max_examples=30)
@given(graphs=batches())
def test_backends_agree_on_random_graphs(kind: type, backend: str, graphs: Graphs) -> None:
    dense = outputs_and_gradients(kind, graphs, "dense")
    other = outputs_and_gradients(kind, graphs, backend)
    for one, two in zip(dense, other, strict=True):
        torch.testing.assert_close(one, two, **TOLERANCE)


@pytest.mark.parametrize("kind", [GAT, VGAE])
@pytest.mark.parametrize("backend", OTHERS)
def test_backends_agree_on_simulated_traffic(kind: type, backend: str, attacked: list[Path]) -> None:
    flood, random = (store(path) for path in attacked)
    assert bool((flood.batch(torch.arange(len(flood))).source == flood.batch(torch.arange(len(flood))).target).any())
    assert random.batch(torch.arange(len(random))).widest > 40
    for graphs in (flood, random):
        batch = graphs.batch(torch.arange(0, len(graphs), 5))
        made = []
        for name in ("dense", backend):
            torch.manual_seed(1)
            model = kind(graphs.header["node_features"], graphs.header["edge_features"], SMALL).eval()
            model.encoder.node_scaling.learn(graphs.x)
            model.encoder.edge_scaling.learn(graphs.edge_attr)
            model.encoder.use(MessagePassing(name))
            scores = model.score(batch) if kind is GAT else model(batch).terms(batch)
            scores.mean().backward()
            made.append([scores, *(p.grad for p in model.parameters() if p.grad is not None)])
        for one, two in zip(*made, strict=True):
            torch.testing.assert_close(one, two, **TOLERANCE)


@pytest.mark.parametrize("backend", ALL)
def test_attention_agrees_with_pytorch_geometric(backend: str) -> None:
    from torch_geometric.nn import GATConv  # noqa: PLC0415 (takes seconds)

    torch.manual_seed(0)
    graphs = batch_of([4, 7], [0, 1, 2, 5, 6, 9, 10], [1, 2, 0, 6, 5, 10, 4])
    layer = GraphAttention(len(NODE_FEATURES), 3, 2, len(EDGE_FEATURES))
    theirs = GATConv(len(NODE_FEATURES), 3, 2, edge_dim=len(EDGE_FEATURES), fill_value=0.0)
    with torch.no_grad():
        theirs.lin.weight.copy_(layer.project.weight)
        theirs.att_src.copy_(layer.source[None])
        theirs.att_dst.copy_(layer.target[None])
        # Theirs is a product: features to channels, and channels to a score; the first channel alone carries ours.
        theirs.lin_edge.weight.zero_()
        theirs.lin_edge.weight[::3] = layer.edge.weight
        theirs.att_edge.zero_()
        theirs.att_edge[..., 0] = 1.0
        expected = theirs(graphs.x, torch.stack([graphs.source, graphs.target]), graphs.edge)
        torch.testing.assert_close(attended(layer, graphs, graphs.x, backend), expected, **TOLERANCE)


@pytest.mark.skipif(not DGL, reason="dgl not installed")
@pytest.mark.parametrize("backend", ALL)
def test_attention_agrees_with_dgl(backend: str) -> None:
    import dgl  # noqa: PLC0415 (in an environment of its own)
    from dgl.nn.pytorch import GATConv  # noqa: PLC0415

    torch.manual_seed(0)
    graphs = batch_of([4, 7], [0, 1, 2, 5, 6, 9, 10], [1, 2, 0, 6, 5, 10, 4])
    layer = GraphAttention(len(NODE_FEATURES), 3, 2, len(EDGE_FEATURES))
    theirs = GATConv(len(NODE_FEATURES), 3, 2)  # knows no edge features
    with torch.no_grad():
        layer.edge.weight.zero_()
        theirs.fc.weight.copy_(layer.project.weight)
        theirs.attn_l.copy_(layer.source[None])
        theirs.attn_r.copy_(layer.target[None])
        graph = dgl.add_self_loop(dgl.graph((graphs.source, graphs.target), num_nodes=len(graphs.x)))
        expected = theirs(graph, graphs.x).flatten(1)
        torch.testing.assert_close(attended(layer, graphs, graphs.x, backend), expected, **TOLERANCE)


def test_a_backend_whose_package_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = {"backend": "dgl", "compile": "never"}
    with pytest.raises(CanidsError, match=r"train_gnn.backend: 'dgl' needs dgl, .* pip install 'canids\[dgl\]'"):
        MessagePassing.of(config, torch.device("cpu"))
    assert MessagePassing.of({**config, "backend": "dense"}, torch.device("cpu")) == MessagePassing("dense")


@pytest.mark.parametrize(
    ("device", "backend", "compile_", "training", "expected"),
    [
        ("cpu", "auto", "auto", True, MessagePassing("csr", compiled=False)),
        ("cpu", "auto", "auto", False, MessagePassing("csr", compiled=False)),
        ("cuda", "auto", "auto", True, MessagePassing("dense", compiled=True)),
        ("cuda", "pyg", "auto", True, MessagePassing("pyg", compiled=False)),
        ("cpu", "dense", "always", True, MessagePassing("dense", compiled=True)),
        ("cuda", "auto", "always", False, MessagePassing("dense", compiled=False)),
    ],
)
def test_auto_follows_the_device(
    device: str, backend: str, compile_: str, training: bool, expected: MessagePassing
) -> None:
    assert MessagePassing.of({"backend": backend, "compile": compile_}, torch.device(device), training) == expected
