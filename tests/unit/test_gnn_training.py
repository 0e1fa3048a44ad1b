"""Training in train_gnn: what it may learn from, that it repeats to the byte, resumes, and refuses what cannot be trained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from gnn_data import EDGE_FEATURES, NODE_FEATURES, SMALL, store, write
from gnn_data import GAT as GAT_CONFIG
from gnn_data import VGAE as VGAE_CONFIG

from canids_shared import tables
from canids_shared.cli import Call
from canids_shared.errors import CanidsError
from canids_shared.graphstore import GraphStore
from canids_train_gnn import distillation, gat, loop, modelfile, states, vgae
from canids_train_gnn.models import GAT, VGAE

FABRIC = {"torch_threads": 1, "accelerator": "cpu", "precision": "32-true", "backend": "dense", "compile": "never"}
MIXED = [0, 1] * 32


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    return write(tmp_path / "fit.safetensors", MIXED, rng), write(tmp_path / "select.safetensors", MIXED, rng)


def call(stores: tuple[Path, Path], folder: Path, kind: str, scale: str = "small", **config: Any) -> Call:
    base = {"gat": GAT_CONFIG, "vgae": VGAE_CONFIG}[kind]
    spec = {
        "wildcards": {"dataset": "d", "instance": ""},
        "config": {**FABRIC, "seed": 3, kind: {**base, **config}},
        "scale": scale,
        "code": "x",
    }
    return Call(
        wildcards={"dataset": "d", "instance": ""},
        config=spec["config"],
        constants={"scale": scale, "code": "x"},
        output={
            n: folder / f
            for n, f in (
                ("model", "model.safetensors"),
                ("config", "config.yaml"),
                ("history", "history.parquet"),
                ("latency", "latency.json"),
            )
        },
        inputs={"graphs": list(stores), "teacher": [], "judge": []},
        spec=json.dumps(spec),
    )


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


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
    seeded, epochs = loop.seeded, []

    def stopping(seed: int, epoch: int) -> None:
        if epoch == after:
            raise KeyboardInterrupt
        epochs.append(epoch)
        seeded(seed, epoch)

    monkeypatch.setattr(loop, "seeded", stopping)
    with pytest.raises(KeyboardInterrupt):
        main(killed)
    assert (tmp_path / "killed" / ".checkpoint").exists()
    monkeypatch.setattr(loop, "seeded", lambda seed, epoch: (epochs.append(epoch), seeded(seed, epoch))[1])
    main(killed)
    assert epochs == list(range(4)), "no epoch twice"
    assert weights(tmp_path / "whole") == weights(tmp_path / "killed")


def test_a_checkpoint_of_another_config_is_ignored(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded, stop_at = loop.seeded, [2]
    seen: list[int] = []

    def counting(seed: int, epoch: int) -> None:
        if epoch == stop_at[0]:
            raise KeyboardInterrupt
        seen.append(epoch)
        seeded(seed, epoch)

    monkeypatch.setattr(loop, "seeded", counting)
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
        model, _ = vgae.train(loop.start(FABRIC), graphs, store(select), "small", VGAE_CONFIG, seed=0)
        trained.append(model.state_dict())
    for name, value in trained[0].items():
        assert torch.equal(value, trained[1][name]), name


def test_gat_tells_attacked_windows_apart(stores: tuple[Path, Path]) -> None:
    config = {**GAT_CONFIG, "epochs": 30, "patience": 30}
    model, history = gat.train(loop.start(FABRIC), store(stores[0]), store(stores[1]), "large", config, seed=0)
    assert min(row["select_loss"] for row in history) < 0.3 < history[0]["select_loss"]
    graphs = store(stores[1]).batch(torch.arange(64))
    with torch.inference_mode():
        found = model(graphs)[0].argmax(1)
    assert float((found == graphs.y).float().mean()) > 0.9


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
    fabric, fit, select = loop.start(FABRIC), store(stores[0]), store(stores[1])
    trained = []
    for seed in (1, 2, None):
        teacher: Any = None
        if seed is not None:
            torch.manual_seed(seed)
            teacher = (GAT if kind == "gat" else VGAE)(NODE_FEATURES, EDGE_FEATURES, SMALL).eval().requires_grad_(False)
        if kind == "gat":
            model: Any = gat.train(fabric, fit, select, "small", {**GAT_CONFIG, "epochs": 1}, 0, teacher)[0]
        else:
            model = vgae.train(fabric, fit, select, "small", {**VGAE_CONFIG, "epochs": 1}, 0, teacher)[0]
        trained.append(model.encoder.enter.weight.detach().clone())
    assert not torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


@pytest.mark.parametrize(("labels", "missing"), [([0] * 64, "attacked"), ([1] * 64, "attack-free")])
def test_gat_refuses_one_class(labels: list[int], missing: str, stores: tuple[Path, Path], tmp_path: Path) -> None:
    one = write(tmp_path / "one.safetensors", labels, np.random.default_rng(0))
    with pytest.raises(CanidsError, match=f"split 'fit' has no {missing} window"):
        gat.main(call((one, stores[1]), tmp_path / "run", "gat"))


def test_vgae_refuses_captures_without_attack_free_windows(stores: tuple[Path, Path], tmp_path: Path) -> None:
    one = write(tmp_path / "one.safetensors", [1] * 64, np.random.default_rng(0))
    with pytest.raises(CanidsError, match="split 'select' has no attack-free window"):
        vgae.main(call((stores[0], one), tmp_path / "run", "vgae"))


def test_fewer_windows_than_a_batch_are_refused(stores: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CanidsError, match="64 windows to train on, fewer than one batch of 100"):
        gat.main(call(stores, tmp_path / "run", "gat", batch=100))


def test_a_loss_that_is_no_number_names_the_batch(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vgae, "objective", lambda made, graphs, config: made.node_error.sum() * float("nan"))
    with pytest.raises(CanidsError, match="loss is nan in epoch 1, batch 1"):
        vgae.main(call(stores, tmp_path / "run", "vgae"))


def test_states_hold_the_contract(stores: tuple[Path, Path], tmp_path: Path) -> None:
    gat.main(call(stores, tmp_path / "gat", "gat"))
    vgae.main(call(stores, tmp_path / "vgae", "vgae"))
    models = {k: [tmp_path / k / "model.safetensors"] for k in ("gat", "vgae")}
    wildcards = {"dataset": "d", "split": "fuse", "variant": "small_nokd", "instance": ""}
    states.main(Call(wildcards, FABRIC, {}, {"output": tmp_path / "s.parquet"}, {"graphs": [stores[1]], **models}, ""))
    frame, head = tables.read(tmp_path / "s.parquet", tables.STATES)
    assert head["variant"] == "small_nokd"
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
    assert isinstance(modelfile.load(path, GAT, header), GAT)
    with pytest.raises(CanidsError, match="trained with other node_features"):
        modelfile.load(path, GAT, {**header, "node_features": ["another"]})
    with pytest.raises(CanidsError, match="holds a GAT, not a VGAE"):
        modelfile.load(path, VGAE)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CanidsError, match="not a whole model file"):
        modelfile.load(path, GAT)
