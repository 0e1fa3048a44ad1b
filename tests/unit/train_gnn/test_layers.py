"""Layers and models of train_gnn against their formulas, and what batching may not change."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gnn_data import EDGE_FEATURES, NODE_FEATURES, SMALL, batch_of, store, write

from canids_shared.contracts.torch_store import Graphs
from canids_train_gnn.models.columns import ERROR_TERMS
from canids_train_gnn.models.gat_vgae import GAT, VGAE
from canids_train_gnn.models.layers import FeatureDropout, Scaling, padded, pooled, rewired
from canids_train_gnn.training.outliers import exposed


def test_scaling_standardises_and_keeps_constants() -> None:
    scaling = Scaling(2)
    rows = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    scaling.learn(rows)
    torch.testing.assert_close(scaling(rows), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    assert scaling(torch.tensor([[1e9, 7.0]]))[0, 0] == scaling.clip


def test_feature_dropout_takes_whole_quantities_and_only_in_training() -> None:
    torch.manual_seed(0)
    dropout = FeatureDropout(NODE_FEATURES, 0.5)
    assert dropout.groups == 3
    x, graph = torch.ones(1000, len(NODE_FEATURES)), torch.arange(200).repeat_interleave(5)
    kept = dropout(x, graph, 200)
    for group in ((0, 1, 2), (3, 4, 5)):
        assert (kept[..., group[0]] == kept[..., group[1]]).all()
        assert (kept[..., group[0]] == kept[..., group[2]]).all()
    kept = kept.view(200, 5, -1)
    assert (kept == kept[:, :1]).all(), "all nodes of a graph alike"
    assert 0.3 < float(kept.mean()) < 0.7
    dropout.eval()
    assert dropout(x, graph, 200) is x


def test_pooling_keeps_to_each_graph() -> None:
    graphs = batch_of([2, 1], [], [])
    h = torch.tensor([[1.0], [3.0], [-99.0]])
    assert pooled([h, 2 * h], graphs).tolist() == [[2.0, 4.0, 3.0, 6.0], [-99.0, -198.0, -99.0, -198.0]]
    rows, mask = padded(h, graphs)
    assert rows[..., 0].tolist() == [[1.0, 3.0], [-99.0, 0.0]]
    assert mask.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("kind", [GAT, VGAE])
def test_outputs_of_a_window_are_the_same_in_any_batch(kind: type, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graphs = store(write(tmp_path / "g.safetensors", [0, 1, 0, 1], rng, sizes=[1, 9, 3, 5]))
    torch.manual_seed(0)
    model = kind(NODE_FEATURES, EDGE_FEATURES, SMALL).eval()

    def outputs(batch: Graphs) -> torch.Tensor:
        return model(batch)[0] if kind is GAT else model(batch).terms(batch)

    with torch.inference_mode():
        together = outputs(graphs.batch(torch.arange(4)))
        alone = torch.cat([outputs(graphs.batch(torch.tensor([i]))) for i in range(4)])
    assert together.shape == (4, 2 if kind is GAT else len(ERROR_TERMS))
    assert bool(torch.isfinite(together).all())
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [GAT, VGAE])
def test_the_order_of_nodes_does_not_matter(kind: type, tmp_path: Path) -> None:
    graphs = store(write(tmp_path / "g.safetensors", [0, 1], np.random.default_rng(1), sizes=[6, 6]))
    batch = graphs.batch(torch.arange(2))
    order = torch.tensor([3, 0, 5, 1, 4, 2, 9, 6, 11, 7, 10, 8])
    back = torch.argsort(order)
    mixed = replace(batch, x=batch.x[order], source=back[batch.source], target=back[batch.target])
    torch.manual_seed(0)
    model = kind(NODE_FEATURES, EDGE_FEATURES, SMALL).eval()
    with torch.inference_mode():
        if kind is GAT:
            torch.testing.assert_close(model(batch)[0], model(mixed)[0], rtol=1e-4, atol=1e-5)
        else:
            torch.testing.assert_close(model(batch).terms(batch), model(mixed).terms(mixed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("edges", ["none", "random"])
def test_a_gat_for_ablations_hears_of_no_recorded_edge(edges: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    graphs = store(write(tmp_path / "g.safetensors", [0, 1, 0, 1], rng, sizes=[1, 9, 3, 5])).batch(torch.arange(4))
    made = rewired(graphs, edges)
    if edges == "none":
        assert len(made.source) == len(made.target) == len(made.edge) == 0
    else:
        assert bool((graphs.graph[made.target] == graphs.graph[graphs.target]).all()), "within the same graph"
        moved = dict(zip(graphs.target.tolist(), made.target.tolist(), strict=True))
        assert len(set(moved.values())) == len(moved), "a permutation"
        assert any(a != b for a, b in moved.items())
    for backend in ("dense", "csr"):
        torch.manual_seed(0)
        model = GAT(NODE_FEATURES, EDGE_FEATURES, {**SMALL, "edges": edges}).eval()
        model.encoder.backend = backend
        with torch.inference_mode():
            together = model(graphs)[0]
            alone = torch.cat([model(graphs.select(torch.arange(4) == i))[0] for i in range(4)])
            # Other recorded edges make no difference where there are none.
            fewer = replace(graphs, source=graphs.source[:3], target=graphs.target[:3], edge=graphs.edge[:3])
            assert bool(torch.equal(model(fewer)[0], together)) == (edges == "none")
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_edges_that_no_vgae_learnt_are_no_part_of_its_score() -> None:
    model = VGAE(NODE_FEATURES, EDGE_FEATURES, SMALL)
    model.learn_ordinary(torch.randn(500, len(ERROR_TERMS)), edges=False)
    base = torch.zeros(1, len(ERROR_TERMS))
    for term, counts in enumerate((True, True, False, False)):
        far = base.clone()
        far[0, term] = 10.0
        assert (float(model.anomaly(far)) > float(model.anomaly(base)) + 0.1) == counts


def test_divergence_is_zero_for_the_prior() -> None:
    model = VGAE(NODE_FEATURES, EDGE_FEATURES, SMALL)
    for layer in (model.mean, model.log_var):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    graphs = batch_of([2], [], [])
    assert float(model(graphs).divergence.detach().abs().max()) == 0.0


def test_anomaly_grows_with_every_reconstruction_term() -> None:
    model = VGAE(NODE_FEATURES, EDGE_FEATURES, SMALL)
    usual = torch.randn(500, len(ERROR_TERMS))
    model.learn_ordinary(usual)
    base = torch.zeros(1, len(ERROR_TERMS))
    for term in range(4):
        far = base.clone()
        far[0, term] = 10.0
        assert float(model.anomaly(far)) > float(model.anomaly(base))


def test_exposure_disturbs_attack_free_windows_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    labels = [0, 1, -1] * 40
    graphs = store(write(tmp_path / "g.safetensors", labels, np.random.default_rng(2))).batch(torch.arange(120))
    scaling, groups = Scaling(len(NODE_FEATURES)), FeatureDropout(NODE_FEATURES, 0.2)
    out = exposed(graphs, scaling, groups, rate=0.5, strength=(4.0, 12.0))
    nodes = (out.x != graphs.x).any(1)
    changed = torch.zeros(120, dtype=torch.bool).index_put((graphs.graph[nodes],), torch.tensor(True))
    assert not bool(changed[graphs.y != 0].any())
    assert bool((out.y[graphs.y != 0] == graphs.y[graphs.y != 0]).all())
    assert bool((changed == ((graphs.y == 0) & (out.y == 1))).all()), (
        "every disturbed window is called attacked, no other"
    )
    assert 0.2 < float(changed[graphs.y == 0].float().mean()) < 0.8
