"""Training in train_gnn: what it may learn from, that it repeats to the byte, resumes, and refuses what cannot be trained."""

import json
import os
import shutil
import signal
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from gnn_data import EDGE_FEATURES, NODE_FEATURES, SMALL, batch_of, store, write
from gnn_data import GAT as GAT_CONFIG
from gnn_data import VGAE as VGAE_CONFIG
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.utils import counters

from canids_shared import runs, tables
from canids_shared.cli import Call
from canids_shared.errors import CanidsError
from canids_shared.graphstore import GraphStore
from canids_shared.torchstore import TorchStore
from canids_train_gnn import curriculum, describe, distillation, gat, loop, modelfile, states, training, vgae
from canids_train_gnn.attention import Passing
from canids_train_gnn.layers import node_mean
from canids_train_gnn.models import GAT, VGAE

FABRIC = {"torch_threads": 1, "accelerator": "cpu", "precision": "32-true", "backend": "dense", "compile": "never"}
MIXED = [0, 1] * 32
STILL = {
    **GAT_CONFIG,
    "epochs": 2,
    "exposure": {"rate": 0.0, "lowest": 4.0, "highest": 12.0},
    **{scale: {**SMALL, "dropout": 0.0, "feature_dropout": 0.0} for scale in ("large", "small")},
}
"""Nothing drawn at random but the order of the windows."""


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    return write(tmp_path / "fit.safetensors", MIXED, rng), write(tmp_path / "select.safetensors", MIXED, rng)


def call(
    stores: tuple[Path, Path], folder: Path, kind: str, scale: str = "small", accelerator: str = "cpu", **config: Any
) -> Call:
    base = {"gat": GAT_CONFIG, "vgae": VGAE_CONFIG}[kind]
    spec = {
        "wildcards": {"dataset": "d", "instance": ""},
        "config": {**FABRIC, "accelerator": accelerator, "seed": 3, kind: {**base, **config}},
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


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda loss: loss * float("nan"), "loss is nan"),
        (lambda loss: loss * float("inf"), "loss is inf"),
        (lambda loss: loss + 1e6, r"loss is 1e\+06"),
        (lambda loss: loss + (loss - loss.detach()).abs().sqrt().sum(), "a gradient is no number"),
    ],
)
def test_a_training_that_fails_names_and_keeps_its_batch(
    damage: Any, said: str, every: int, stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, count = vgae.objective, [0]

    def failing(made: Any, graphs: Any, config: Any) -> torch.Tensor:
        count[0] += 1
        loss = objective(made, graphs, config)
        return damage(loss) if count[0] == 2 else loss

    monkeypatch.setattr(vgae, "objective", failing)
    run = call(stores, tmp_path / "run", "vgae")
    monkeypatch.setattr(loop, "CHECK_EVERY", {"cpu": every})
    with pytest.raises(CanidsError, match=f"{said} in epoch 1, batch 2 .c window [0-9]+, .*; batch and weights are in"):
        vgae.main(run)
    kept, header = runs.load_arrays(tmp_path / "run" / "failed_batch.safetensors", "failed-batch/1")
    assert header["windows"] == [f"c window {w}" for w in kept["windows"]]
    again = store(stores[0]).batch(torch.from_numpy(kept["windows"]))
    assert np.array_equal(kept["x"], again.x.numpy())
    if every == 1:
        assert all(np.isfinite(v).all() for k, v in kept.items() if k.startswith("model.")), "weights before the step"
    monkeypatch.setattr(vgae, "objective", objective)
    vgae.main(run)
    assert not (tmp_path / "run" / "failed_batch.safetensors").exists()


def test_a_loss_on_select_that_is_no_number_names_its_windows(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = vgae.objective

    def failing(made: Any, graphs: Any, config: Any) -> torch.Tensor:
        loss = objective(made, graphs, config)
        return loss if loss.requires_grad else loss * float("nan")

    monkeypatch.setattr(vgae, "objective", failing)
    with pytest.raises(
        CanidsError, match=r"loss on select is nan in epoch 1, batch 1 of select \(c window 0, c window 2"
    ):
        vgae.main(call(stores, tmp_path / "run", "vgae"))
    assert (tmp_path / "run" / "failed_batch.safetensors").exists()


def test_where_companions_alone_hold_a_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    select = write(tmp_path / "select.safetensors", MIXED, rng)
    halves = {"free": [0, 0, 0, 1], "attacked": [1, 1, 0, 1]}  # own, own, companion, companion
    paths = {
        k: write(tmp_path / f"{k}.safetensors", v * 16, rng, companions=[0, 0, 1, 1] * 16) for k, v in halves.items()
    }
    gat.main(call((paths["free"], select), tmp_path / "run", "gat"))
    assert "attacks are learnt from companions alone" in caplog.text
    with pytest.raises(CanidsError, match="no attack-free window but those of companions"):
        gat.main(call((paths["attacked"], select), tmp_path / "run", "gat"))


def test_history_has_rates_and_memory(stores: tuple[Path, Path], tmp_path: Path) -> None:
    gat.main(call(stores, tmp_path / "run", "gat"))
    history = pl.read_parquet(tmp_path / "run" / "history.parquet")
    assert (history["graphs_per_s"] > 0).all()
    assert (history["peak_rss_mb"] > 50).all()
    assert history["peak_gpu_mb"].null_count() == len(history)


def test_bfloat16_trains_and_differs_a_little(stores: tuple[Path, Path]) -> None:
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        fabric = loop.start({**FABRIC, "precision": precision})
        _, history = gat.train(fabric, store(stores[0]), store(stores[1]), "large", GAT_CONFIG, seed=0)
        losses[precision] = [row["fit_loss"] for row in history]
    assert losses["32-true"] != losses["bf16-mixed"]
    assert losses["32-true"] == pytest.approx(losses["bf16-mixed"], rel=0.1)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_code_trains_alike(stores: tuple[Path, Path]) -> None:
    config = {**STILL, "epochs": 1, "small": {**STILL["small"], "layers": 1}}
    losses = []
    counters.clear()
    for compiled in (False, True):
        fit, select = store(stores[0]), store(stores[1])
        passing = Passing("dense", compiled)
        _, history = gat.train(loop.start(FABRIC), fit, select, "small", config, seed=0, passing=passing)
        losses.append([row["fit_loss"] for row in history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert not counters["graph_break"], "the encoder is one graph"
    assert 1 <= counters["stats"]["unique_graphs"] <= 3, "whatever the sizes: for training and for select"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gathers_the_same_batches_and_resumes(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = torch.tensor([5, 0, 63])
    here = store(stores[0]).batch(windows)
    there = TorchStore(GraphStore(stores[0]), torch.device("cuda")).batch(windows)
    for field in fields(here):
        if isinstance(value := getattr(here, field.name), torch.Tensor):
            assert torch.equal(value, getattr(there, field.name).cpu())
    spec = call(stores, tmp_path / "run", "gat", accelerator="cuda")
    step, done = loop.Training._step, [0]

    def stopping(self: Any, *args: Any) -> None:
        step(self, *args)
        done[0] += 1
        if done[0] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop.Training, "_step", stopping)
    with pytest.raises(SystemExit):
        gat.main(spec)
    gat.main(spec)
    assert done[0] == 16
    history = pl.read_parquet(tmp_path / "run" / "history.parquet")
    assert (history["peak_gpu_mb"] > 0).all()


def test_sums_over_nodes_are_exact_in_mixed_precision() -> None:
    graphs = batch_of([300, 7], [], [])
    values = torch.rand(307, 4).bfloat16()
    torch.testing.assert_close(node_mean(values, graphs), node_mean(values.float(), graphs))


def test_a_checkpoint_of_another_device_is_ignored(stores: tuple[Path, Path], tmp_path: Path) -> None:
    spec = call(stores, tmp_path / "run", "gat")
    runs.Checkpoint(spec, tmp_path / "run", device="cuda").save({}, {})
    assert runs.Checkpoint(spec, tmp_path / "run", device="cpu").load() is None
    assert runs.Checkpoint(spec, tmp_path / "run", device="cuda").load() is not None


def test_the_pyg_backend_trains_to_nearly_the_same_weights(stores: tuple[Path, Path]) -> None:
    trained = [
        gat.train(loop.start(FABRIC), store(stores[0]), store(stores[1]), "small", STILL, 0, passing=Passing(backend))[
            0
        ]
        for backend in ("dense", "pyg")
    ]
    for one, other in zip(*(model.parameters() for model in trained), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_curriculum_begins_with_what_the_judge_finds_easy(stores: tuple[Path, Path]) -> None:
    graphs = store(stores[0])
    torch.manual_seed(0)
    judge = VGAE(NODE_FEATURES, EDGE_FEATURES, {**SMALL, "latent": 3}).eval()
    windows = torch.arange(len(graphs))
    hard = curriculum.difficulty(judge, graphs, windows, 16)
    with torch.inference_mode():
        anomaly = judge.score(graphs.batch(windows))
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
    ordered.inputs["judge"].append(tmp_path / "vgae" / "model.safetensors")
    gat.main(ordered)
    assert weights(tmp_path / "plain") != weights(tmp_path / "ordered")


@pytest.mark.parametrize("kind", ["gat", "vgae"])
def test_a_run_is_described(
    kind: str, stores: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    run = tmp_path / "run"
    {"gat": gat, "vgae": vgae}[kind].main(call(stores, run, kind))
    monkeypatch.setattr("sys.argv", ["describe", str(run)])
    describe.main()
    said = capsys.readouterr().out
    _, header = runs.load_arrays(run / "model.safetensors", modelfile.CONTRACT)
    assert f"{kind.upper()}, small, {header['parameters']:,} parameters (published: " in said
    assert "fit: 64 windows (32 attacked: dos 32), vehicles van 64" in said
    assert "no teacher" in said
    assert f"AUROC on select {header['select']['auroc']:.4f}" in said
    history = pl.read_parquet(run / "history.parquet")
    assert f"select {history['select_loss'].min():.5f}" in said


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("model.safetensors", "no such file"),
        ("config.yaml", "no such file; train again"),
        ("history.parquet", "no such file; train again"),
        ("latency.json", "no such file; train again"),
    ],
)
def test_a_run_that_is_not_whole_is_not_described(
    file: str, said: str, stores: tuple[Path, Path], tmp_path: Path
) -> None:
    gat.main(call(stores, tmp_path / "run", "gat"))
    (tmp_path / "run" / file).unlink()
    with pytest.raises(CanidsError, match=f"{file}: {said}"):
        describe.describe(tmp_path / "run")


@given(scores=st.lists(st.integers(0, 5), min_size=1, max_size=20), seed=st.integers(0, 9), unknown=st.booleans())
def test_auroc_counts_pairs(scores: list[int], seed: int, unknown: bool) -> None:
    labels = torch.from_numpy(np.random.default_rng(seed).integers(-1 if unknown else 0, 2, len(scores)))
    pairs = [
        (a > f) + 0.5 * (a == f)
        for a, y in zip(scores, labels, strict=True)
        for f, z in zip(scores, labels, strict=True)
        if y == 1 and z == 0
    ]
    expected = sum(pairs) / len(pairs) if pairs else None
    assert training.auroc(torch.tensor(scores), labels) == (None if expected is None else pytest.approx(expected))


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
