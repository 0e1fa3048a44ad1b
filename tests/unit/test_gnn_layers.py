"""Layers and models of train_gnn against their formulas, and what batching may not change."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gnn_data import EDGE_FEATURES, NODE_FEATURES, SMALL, store, write

from canids_shared.torchstore import DenseGraphs
from canids_train_gnn.layers import FeatureDropout, GraphAttention, Scaling, pooled
from canids_train_gnn.models import ERROR_TERMS, GAT, VGAE
from canids_train_gnn.outliers import exposed


def test_attention_is_the_published_formula() -> None:
    torch.manual_seed(0)
    layer = GraphAttention(3, 4, 2, 2)
    h, edge = torch.randn(1, 3, 3), torch.randn(1, 3, 3, 2)
    neighbours = torch.tensor([[[1, 1, 0], [0, 1, 1], [0, 0, 1]]], dtype=torch.bool)
    out = layer(h, neighbours, edge)
    w = (h[0] @ layer.project.weight.T).view(3, 2, 4)
    for i in range(3):
        for head in range(2):
            reach = [j for j in range(3) if neighbours[0, i, j]]
            raw = [
                layer.target[head] @ w[i, head]
                + layer.source[head] @ w[j, head]
                + layer.edge.weight[head] @ edge[0, i, j]
                for j in reach
            ]
            alpha = torch.nn.functional.leaky_relu(torch.stack(raw), 0.2).softmax(0)
            expected = sum(a * w[j, head] for a, j in zip(alpha, reach, strict=True))
            torch.testing.assert_close(out[0, i, 4 * head : 4 * head + 4], expected)


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
    x = torch.ones(200, 5, len(NODE_FEATURES))
    kept = dropout(x)
    for group in ((0, 1, 2), (3, 4, 5)):
        assert (kept[..., group[0]] == kept[..., group[1]]).all()
        assert (kept[..., group[0]] == kept[..., group[2]]).all()
    assert (kept == kept[:, :1]).all(), "all nodes of a graph alike"
    assert 0.3 < float(kept.mean()) < 0.7
    dropout.eval()
    assert dropout(x) is x


def test_pooling_ignores_padding() -> None:
    h = torch.tensor([[[1.0], [3.0], [99.0]]])
    mask = torch.tensor([[True, True, False]])
    assert pooled(h, mask).tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize("kind", [GAT, VGAE])
def test_a_window_is_judged_alike_in_any_batch(kind: type, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graphs = store(write(tmp_path / "g.safetensors", [0, 1, 0, 1], rng, sizes=[1, 9, 3, 5]))
    torch.manual_seed(0)
    model = kind(NODE_FEATURES, EDGE_FEATURES, SMALL).eval()

    def outputs(batch: DenseGraphs) -> torch.Tensor:
        return model(batch)[0] if kind is GAT else model(batch).terms(batch.mask)

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
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    mixed = DenseGraphs(
        batch.x[:, order],
        batch.mask[:, order],
        batch.adjacency[:, order][:, :, order],
        batch.edge[:, order][:, :, order],
        batch.y,
    )
    torch.manual_seed(0)
    model = kind(NODE_FEATURES, EDGE_FEATURES, SMALL).eval()
    with torch.inference_mode():
        if kind is GAT:
            torch.testing.assert_close(model(batch)[0], model(mixed)[0], rtol=1e-4, atol=1e-5)
        else:
            one, other = model(batch).terms(batch.mask), model(mixed).terms(mixed.mask)
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_divergence_is_zero_for_the_prior() -> None:
    model = VGAE(NODE_FEATURES, EDGE_FEATURES, SMALL)
    for layer in (model.mean, model.log_var):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    graphs = DenseGraphs(
        torch.randn(1, 2, 7),
        torch.ones(1, 2, dtype=torch.bool),
        torch.zeros(1, 2, 2, dtype=torch.bool),
        torch.zeros(1, 2, 2, 2),
        torch.zeros(1),
    )
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
    changed = (out.x != graphs.x).flatten(1).any(1)
    assert not bool(changed[graphs.y != 0].any())
    assert bool((out.y[graphs.y != 0] == graphs.y[graphs.y != 0]).all())
    assert bool((changed == ((graphs.y == 0) & (out.y == 1))).all()), (
        "every disturbed window is called attacked, no other"
    )
    assert 0.2 < float(changed[graphs.y == 0].float().mean()) < 0.8
    assert bool((out.x[~graphs.mask] == 0).all()), "padding stays empty"
