"""A teacher's outputs are computed once, and again only for windows that are disturbed."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from gnn_data import EDGE_FEATURES, NODE_FEATURES, SMALL, job, store
from gnn_data import GAT as GAT_CONFIG
from gnn_data import VGAE as VGAE_CONFIG

from canids_shared.contracts.torch_store import Graphs
from canids_train_gnn import gat, vgae
from canids_train_gnn.models.gat_vgae import GAT, VGAE
from canids_train_gnn.training import distillation


def teacher_of(kind: Any) -> Any:
    torch.manual_seed(3)
    return kind(NODE_FEATURES, EDGE_FEATURES, SMALL).eval().requires_grad_(False)


def test_some_graphs_of_a_batch_are_a_batch(stores: tuple[Path, Path]) -> None:
    whole, windows = store(stores[0]), torch.tensor([5, 0, 63, 2])
    which = torch.tensor([True, False, True, True])
    some, expected = whole.batch(windows).select(which), whole.batch(windows[which])
    for field in fields(some):
        if isinstance(value := getattr(some, field.name), torch.Tensor):
            assert torch.equal(value, getattr(expected, field.name)), field.name
    assert some.widest >= expected.widest


@pytest.mark.parametrize("kind", [GAT, VGAE])
def test_the_teacher_sees_each_window_once_and_disturbed_ones_again(
    kind: Any, stores: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, config = teacher_of(kind), {**(GAT_CONFIG if kind is GAT else VGAE_CONFIG), "epochs": 3, "patience": 3}
    seen: list[int] = []
    forward = teacher.encoder.forward

    def counting(graphs: Graphs) -> Any:
        seen.append(len(graphs.y))
        return forward(graphs)

    monkeypatch.setattr(teacher.encoder, "forward", counting)
    train: Any = gat.train if kind is GAT else vgae.train
    fit = store(stores[0])
    learnt = len(fit) if kind is GAT else int((fit.y == 0).sum())
    train(job(stores, config, teacher=teacher))
    again = sum(seen) - learnt
    if kind is VGAE:
        assert again == 0
    else:
        assert 0 < again < 3 * int((fit.y == 0).sum()), "of attack-free windows a share is disturbed, in every epoch"
    # Where its outputs would take too much memory it is applied in every epoch, to the same effect.
    kept = train(job(stores, config, teacher=teacher))[1]
    seen.clear()
    monkeypatch.setattr(distillation, "MOST_BYTES", 0)
    applied = train(job(stores, config, teacher=teacher))[1]
    assert sum(seen) >= 3 * learnt
    for one, other in zip(kept, applied, strict=True):
        assert one["fit_loss"] == pytest.approx(other["fit_loss"], rel=1e-4)
        assert one["select_loss"] == pytest.approx(other["select_loss"], rel=1e-3)
