"""Training in train_gnn: what it may learn from, that it repeats to the byte, resumes, and what it writes."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from gnn_data import COMMON, EDGE_FEATURES, MIXED, NODE_FEATURES, SMALL, call, job, store, weights, write
from gnn_data import GAT as GAT_CONFIG
from gnn_data import VGAE as VGAE_CONFIG

from canids_shared.contracts import tables
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError
from canids_shared.jobs.entry_point import Call
from canids_train_gnn import gat, states, vgae
from canids_train_gnn.models import detector_file
from canids_train_gnn.models.gat_vgae import GAT, VGAE
from canids_train_gnn.training import distillation, loop, rule


@pytest.mark.parametrize(("kind", "main"), [("gat", gat.main), ("vgae", vgae.main)])
def test_same_seed_gives_the_same_bytes(kind: str, main: Any, stores: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        main(call(stores, tmp_path / name, kind))
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    history = pl.read_parquet(tmp_path / "a" / "history.parquet")
    assert history["epoch"].to_list() == list(range(1, len(history) + 1))
    assert not (tmp_path / "a" / ".checkpoint").exists()


@pytest.mark.parametrize(("kind", "main"), [("gat", gat.main), ("vgae", vgae.main)])
@pytest.mark.parametrize("after", [1, 3])
def test_a_killed_training_resumes_to_the_same_bytes(
    kind: str, main: Any, after: int, stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(call(stores, tmp_path / "whole", kind))
    killed = call(stores, tmp_path / "killed", kind)
    seeded, epochs = loop.seed_epoch, []

    def stopping(seed: int, epoch: int) -> None:
        if epoch == after:
            raise KeyboardInterrupt
        epochs.append(epoch)
        seeded(seed, epoch)

    monkeypatch.setattr(loop, "seed_epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        main(killed)
    assert (tmp_path / "killed" / ".checkpoint").exists()
    monkeypatch.setattr(loop, "seed_epoch", lambda seed, epoch: (epochs.append(epoch), seeded(seed, epoch))[1])
    main(killed)
    assert epochs == list(range(4)), "no epoch twice"
    assert weights(tmp_path / "whole") == weights(tmp_path / "killed")


def test_a_checkpoint_of_another_config_is_ignored(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded, stop_at = loop.seed_epoch, [2]
    seen: list[int] = []

    def counting(seed: int, epoch: int) -> None:
        if epoch == stop_at[0]:
            raise KeyboardInterrupt
        seen.append(epoch)
        seeded(seed, epoch)

    monkeypatch.setattr(loop, "seed_epoch", counting)
    with pytest.raises(KeyboardInterrupt):
        gat.main(call(stores, tmp_path / "run", "gat"))
    stop_at[0] = -1
    seen.clear()
    gat.main(call(stores, tmp_path / "run", "gat", learning_rate=0.02))
    assert seen[0] == 0


def test_vgae_never_learns_from_an_attacked_window(tmp_path: Path) -> None:
    select = write(tmp_path / "select.safetensors", MIXED, np.random.default_rng(1))
    trained = []
    for far in (0.0, 1000.0):
        path = write(tmp_path / f"fit{far}.safetensors", MIXED, np.random.default_rng(0))
        graphs = store(path)
        attacked = torch.repeat_interleave(graphs.y == 1, graphs.node_ptr.diff())
        graphs.x[attacked] += far
        model, _ = vgae.train(job([graphs, select], VGAE_CONFIG))
        trained.append(model.state_dict())
    for name, value in trained[0].items():
        assert torch.equal(value, trained[1][name]), name


def test_gat_separates_attacked_windows(stores: tuple[Path, Path]) -> None:
    config = {**GAT_CONFIG, "epochs": 30, "patience": 30}
    model, history = gat.train(job(stores, config, "large"))
    assert min(row["select_loss"] for row in history) < 0.3 < history[0]["select_loss"]
    graphs = store(stores[1]).batch(torch.arange(64))
    with torch.inference_mode():
        predicted = model(graphs)[0].argmax(1)
    assert float((predicted == graphs.y).float().mean()) > 0.9


def test_the_teacher_changes_the_gradients_of_the_student() -> None:
    torch.manual_seed(0)
    student = torch.nn.Linear(3, 2)
    x = torch.randn(8, 3)
    gradients = []
    for teacher_seed in (1, 2):
        torch.manual_seed(teacher_seed)
        teacher = torch.nn.Linear(3, 2)
        student.zero_grad()
        distillation.soft_logits(student(x), teacher(x), 4.0).backward()
        assert teacher.weight.grad is None
        assert student.weight.grad is not None
        gradients.append(student.weight.grad.clone())
    assert not torch.allclose(gradients[0], gradients[1])
    assert float(distillation.soft_logits(torch.ones(4, 2), torch.ones(4, 2), 4.0)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("kind", ["gat", "vgae"])
def test_the_teacher_changes_the_student_that_is_trained(kind: str, stores: tuple[Path, Path]) -> None:
    train, config = (gat.train, GAT_CONFIG) if kind == "gat" else (vgae.train, VGAE_CONFIG)
    trained = []
    for seed in (1, 2, None):
        teacher: Any = None
        if seed is not None:
            torch.manual_seed(seed)
            teacher = (GAT if kind == "gat" else VGAE)(NODE_FEATURES, EDGE_FEATURES, SMALL).eval().requires_grad_(False)
        model: Any = train(job(stores, {**config, "epochs": 1}, teacher=teacher))[0]
        trained.append(model.encoder.enter.weight.detach().clone())
    assert not torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


def test_states_hold_the_contract(stores: tuple[Path, Path], tmp_path: Path) -> None:
    gat.main(call(stores, tmp_path / "gat", "gat"))
    vgae.main(call(stores, tmp_path / "vgae", "vgae"))
    models = {k: [tmp_path / k / "model.safetensors"] for k in ("gat", "vgae")}
    wildcards = {"dataset": "d", "split": "fuse", "variant": "small_nokd", "instance": ""}
    states.main(Call(wildcards, COMMON, {}, {"output": tmp_path / "s.parquet"}, {"graphs": [stores[1]], **models}, ""))
    frame, header = tables.read(tmp_path / "s.parquet", tables.STATES)
    assert header["variant"] == "small_nokd"
    assert frame["label"].to_list() == MIXED
    assert {"vgae_error", "gat_logit"} <= set(frame.columns)
    difference = frame["gat_logit_attacked"] - frame["gat_logit_free"]
    np.testing.assert_allclose(frame["gat_logit"], difference, rtol=1e-5, atol=1e-6)
    by_label = frame.group_by("label").agg(pl.col("vgae_error").mean()).sort("label")["vgae_error"]
    assert by_label[1] > by_label[0]


def test_a_model_is_refused_on_other_features(stores: tuple[Path, Path], tmp_path: Path) -> None:
    gat.main(call(stores, tmp_path / "gat", "gat"))
    path = tmp_path / "gat" / "model.safetensors"
    header = GraphStore(stores[0]).header
    assert isinstance(detector_file.load(path, GAT, header), GAT)
    with pytest.raises(CanidsError, match="trained with other node_features"):
        detector_file.load(path, GAT, {**header, "node_features": ["another"]})
    with pytest.raises(CanidsError, match="holds a GAT, not a VGAE"):
        detector_file.load(path, VGAE)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CanidsError, match="not a whole model file"):
        detector_file.load(path, GAT)


def test_a_few_windows_are_of_both_classes_and_the_others_lose_their_label(stores: tuple[Path, Path]) -> None:
    whole = store(stores[0])
    reduced = rule.few(whole, 6)
    kept = torch.nonzero(reduced.y >= 0).squeeze(1)
    assert reduced.y[kept].tolist() == whole.y[kept].tolist()
    assert sorted(reduced.y[kept].tolist()) == [0, 0, 0, 1, 1, 1]
    assert (kept[0], kept[-1]) == (0, len(whole) - 1), "from the first to the last"
    assert (whole.y >= 0).all()
    assert torch.equal(rule.few(whole, 1000).y, whole.y)
