"""Easy windows first."""

from pathlib import Path

import torch
from gnn_data import EDGE_FEATURES, NODE_FEATURES, SMALL, call, store, weights

from canids_train_gnn import gat, vgae
from canids_train_gnn.models.gat_vgae import VGAE
from canids_train_gnn.training import curriculum


def test_a_curriculum_begins_with_what_the_vgae_finds_easy(stores: tuple[Path, Path]) -> None:
    graphs = store(stores[0])
    torch.manual_seed(0)
    ranker = VGAE(NODE_FEATURES, EDGE_FEATURES, {**SMALL, "latent": 3}).eval()
    windows = torch.arange(len(graphs))
    hard = curriculum.difficulty(ranker, graphs, windows, 16)
    with torch.inference_mode():
        anomaly = ranker.score(graphs.batch(windows))
    for label, sign in ((0, 1), (1, -1)):
        members = graphs.y == label
        assert torch.equal(torch.argsort(hard[members]), torch.argsort(sign * anomaly[members], stable=True))
        assert float(hard[members].min()) == 0.0, "one window a class is always easy enough"
        assert float(hard[members].max()) < 1.0
    order = curriculum.paced(windows, hard, {"start": 0.25, "whole": 0.5}, epochs=8)
    amounts = [len(order(epoch)) for epoch in range(8)]
    assert amounts == sorted(amounts)
    assert amounts[0] == 16
    assert amounts[4:] == [64] * 4
    assert float((graphs.y[order(0)] == 1).float().mean()) == 0.5, "as many of each class"


def test_a_curriculum_changes_what_is_learnt(stores: tuple[Path, Path], tmp_path: Path) -> None:
    vgae.main(call(stores, tmp_path / "vgae", "vgae"))
    gat.main(call(stores, tmp_path / "plain", "gat"))
    ordered = call(stores, tmp_path / "ordered", "gat", curriculum={"by": "vgae", "start": 0.3, "whole": 0.5})
    ordered.inputs["curriculum_vgae"].append(tmp_path / "vgae" / "model.safetensors")
    gat.main(ordered)
    assert weights(tmp_path / "plain") != weights(tmp_path / "ordered")
