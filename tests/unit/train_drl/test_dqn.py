import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from canids_shared.contracts import training_run
from canids_shared.contracts.config import check, load_schema
from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json
from canids_shared.jobs import entry_point
from canids_shared.planning.pipeline import merged
from canids_train_drl import dqn
from canids_train_drl.agent import double_dqn
from canids_train_drl.agent.double_dqn import DuelingNetwork, Teacher
from canids_train_drl.agent.policy import Policy
from canids_train_drl.decide import decide
from canids_train_drl.environment.augmentation import Augmentation
from canids_train_drl.environment.fusion_data import traffic_of
from canids_train_drl.environment.fusion_environment import Actions, Costs, FusionEnvironment, fusion_weights
from canids_train_drl.environment.observation import Observer
from canids_train_drl.environment.rollout import Evaluation, f1
from canids_train_drl.environment.states import read
from train_drl.test_states import loaded, synthetic, written

SCHEMA = Path(__file__).parents[3] / "modules/train_drl/config.schema.yaml"
QUICK = {"steps": 600, "environments": 128, "batch_size": 128, "networks": {"small": [32], "large": [48]}}
CPU = torch.device("cpu")


def call_of(folder: Path, variant: str, inputs: dict[str, Path], **config: Any) -> entry_point.Call:
    checked = check(merged(QUICK, config), load_schema(SCHEMA), where="train_drl")
    folder.mkdir(exist_ok=True)
    return entry_point.Call(
        wildcards={"dataset": "simulated", "instance": ""},
        config=checked,
        constants={"variant": variant, "code": "0"},
        output={name: folder / f"{name}.json" if name == "run" else folder / name for name in dqn.OUTPUTS},
        inputs={name: [inputs[name]] if name in inputs else [] for name in dqn.INPUTS},
        spec=canonical_json({"config": checked, "variant": variant}),
    )


def states_of(folder: Path, windows: int) -> dict[str, Path]:
    """What policies and fusion baselines learn from: states of three splits, four captures of so many windows each."""
    splits = {"fuse": 1, "select": 2, "calibrate": 3}
    return {s: written(folder / f"{s}.parquet", synthetic(n, 4, windows, ("a", "b"))) for s, n in splits.items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return states_of(tmp_path_factory.mktemp("inputs"), 200)


@pytest.fixture(scope="module")
def trained(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    call = call_of(tmp_path_factory.mktemp("run"), "large", files)
    dqn.main(call)
    return call.output


def test_policy_fuses_where_each_detector_misses_an_attack(trained: dict[str, Path], tmp_path: Path) -> None:
    test = loaded(tmp_path, synthetic(9, 6, 200, ("a", "b")))
    decisions = decide(Policy.load(trained["model"]), {}, test)
    attacked = test.labels == 1
    alone = {
        name: max(float(f1((score > level)[None], attacked)) for level in np.quantile(score, np.linspace(0, 1, 101)))
        for name in ("gat_score", "vgae_score")
        for score in [decisions[name].to_numpy()]
    }
    fused = float(f1(decisions["alarm"].to_numpy()[None], attacked))
    assert fused > 0.9
    assert fused > max(alone.values()) + 0.05
    assert ((decisions["fusion_score"] > 0.5) == decisions["alarm"]).all()


def test_run_folder_holds_config_and_history(trained: dict[str, Path]) -> None:
    history = pl.read_parquet(trained["history"])
    assert {"step", "epsilon", "loss", "distillation_loss", "reward", "select_reward", "select_f1"} == set(
        history.columns
    )
    assert history["select_reward"][-1] > history["select_reward"][0]
    record = yaml.safe_load(trained["config"].read_text())
    assert record["spec"]["config"]["steps"] == 600
    assert len(record["inputs"]["fuse"][0]) == 64


def test_record_has_the_evaluation_that_was_kept(trained: dict[str, Path], files: dict[str, Path]) -> None:
    content = json.loads(trained["run"].read_text())
    history = pl.read_parquet(trained["history"])
    best = int(history["select_reward"].arg_max() or 0)
    assert content["contract"] == training_run.CONTRACT
    assert (content["kind"], content["label"], content["detectors"], content["scale"]) == ("dqn", "DQN", [], "large")
    assert content["best"] == best
    assert content["select"] == {"reward": history["select_reward"][best], "f1": history["select_f1"][best]}
    assert content["history"]["loss"] == history["loss"].to_list()
    fuse = read(files["fuse"])
    assert content["data"]["fuse"]["captures"] == sorted(fuse.keys["capture"].unique())
    attacked = int((fuse.labels == 1).sum())
    assert content["data"]["fuse"]["windows"] == len(fuse)
    assert sum(content["data"]["fuse"]["attacks"].values()) == content["data"]["fuse"]["attacked"] == attacked
    assert content["latency"]["device"] == "cpu"
    assert content["sizes"] == {name: trained[name].stat().st_size for name in ("model", "config")}
    weights = Policy.load(trained["model"]).network.state_dict().values()
    assert content["parameters"] == sum(weight.numel() for weight in weights)


def test_same_seed_same_bytes_other_seed_other_bytes(files: dict[str, Path], tmp_path: Path) -> None:
    models = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        call = call_of(tmp_path / name, "small_nokd", files, steps=30, evaluate_every=10, seed=seed)
        dqn.main(call)
        models.append(call.output["model"].read_bytes())
    assert models[0] == models[1]
    assert models[0] != models[2]


def test_training_stops_where_rewards_only_creep_up_and_keeps_the_best(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rises of the mean reward on select: of 0.1, then of 0.01 each, less than what counts.
    rewards = iter([-1.0, -0.9, -0.89, -0.88, -0.87, -0.86])
    monkeypatch.setattr(double_dqn, "evaluate", lambda *_: Evaluation(next(rewards), 0.5))
    call = call_of(tmp_path / "run", "small_nokd", files, evaluate_every=10, patience=2, improvement=0.025)
    dqn.main(call)
    history = pl.read_parquet(call.output["history"])
    assert history["select_reward"].to_list() == [-1.0, -0.9, -0.89, -0.88]
    assert json.loads(call.output["run"].read_text())["select"]["reward"] == -0.88


def test_teacher_changes_the_students_gradient(files: dict[str, Path]) -> None:
    fuse, calibrate = read(files["fuse"]), read(files["calibrate"])
    observer = Observer.fit(calibrate, {"history": {"fast": 3, "slow": 20, "recent": 8}, "raw_columns": False})
    traffic = traffic_of(fuse, observer, Augmentation.draw(fuse, 0.25, 0.5, np.random.default_rng(0)), CPU)
    costs, generator = Costs(1, 2, 0.25, 0.5), torch.Generator()
    env = FusionEnvironment(traffic, Actions("alarm", 0.5, 2), costs, count=64, length=16, generator=generator)
    torch.manual_seed(0)
    online, teacher_network = DuelingNetwork(traffic.width, [16], 2), DuelingNetwork(traffic.width, [24], 2)
    batch, _ = double_dqn.explore(env, online, 0.5)

    def gradient(teacher: Teacher | None) -> torch.Tensor:
        online.zero_grad()
        q = online(double_dqn.observation(batch, traffic))
        targets = double_dqn.td_targets(online, online, batch, traffic, costs, 0.9)
        alarms = env.actions.outcomes(traffic.scores[batch["world"], batch["row"]])
        difference = double_dqn.td_loss(q, targets, alarms)
        double_dqn.total_loss(difference, double_dqn.distillation_loss(q, batch, teacher), teacher).backward()
        return torch.cat([p.grad.flatten() for p in online.parameters() if p.grad is not None]).clone()

    without, first = gradient(None), gradient(Teacher(teacher_network, traffic, 1.0))
    heavier = gradient(Teacher(teacher_network, traffic, 2.0))
    with torch.no_grad():
        teacher_network.advantage.weight[0] += 1  # the same for all actions would cancel
    second = gradient(Teacher(teacher_network, traffic, 1.0))
    assert not torch.allclose(without, first)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(heavier - without, 2 * (first - without))
    q = torch.ones(len(batch["row"]), 2)
    assert double_dqn.distillation_loss(q, batch, None) == 0


def test_student_learns_from_the_teachers_own_view(
    files: dict[str, Path], trained: dict[str, Path], tmp_path: Path
) -> None:
    # The student's detectors have other columns than the teacher's.
    narrow = {s: written(tmp_path / f"{s}.parquet", pl.read_parquet(p).drop("vgae_kl")) for s, p in files.items()}
    inputs = {**narrow, "teacher": trained["model"], "teacher_fuse": files["fuse"]}
    call = call_of(tmp_path / "kd", "small_kd", inputs, steps=40, evaluate_every=20)
    dqn.main(call)
    assert (pl.read_parquet(call.output["history"])["distillation_loss"] > 0).all()
    other = written(tmp_path / "other.parquet", pl.read_parquet(files["fuse"])[:-1])
    with pytest.raises(CanidsError, match=r"other\.parquet: not the same windows"):
        dqn.main(call_of(tmp_path / "kd", "small_kd", {**inputs, "teacher_fuse": other}, steps=1))
    with pytest.raises(CanidsError, match="action set 'alarm', the student's is 'alpha'"):
        dqn.main(call_of(tmp_path / "kd", "small_kd", inputs, steps=1, action_set="alpha"))


def test_action_set_of_weights(files: dict[str, Path], tmp_path: Path) -> None:
    call = call_of(tmp_path / "alpha", "small_nokd", files, steps=40, evaluate_every=20, action_set="alpha")
    dqn.main(call)
    policy = Policy.load(call.output["model"])
    decisions = decide(policy, {}, read(files["select"]))
    weight = np.array(fusion_weights(2))[:, 0][decisions["action"].to_numpy()]
    mixed = weight * decisions["gat_score"].to_numpy() + (1 - weight) * decisions["vgae_score"].to_numpy()
    np.testing.assert_allclose(decisions["fusion_score"].to_numpy(), mixed, atol=1e-6)
    assert ((decisions["fusion_score"] > np.float32(policy.actions.threshold)) == decisions["alarm"]).all()


@pytest.mark.parametrize(("attacks", "labels", "missing"), [((), None, "attacked"), (("a",), 1, "attack-free")])
def test_missing_class_in_fuse(
    files: dict[str, Path], tmp_path: Path, attacks: tuple[str, ...], labels: int | None, missing: str
) -> None:
    frame = synthetic(1, 1, 50, attacks)
    if labels is not None:
        frame = frame.with_columns(label=pl.lit(labels, dtype=pl.UInt8))
    fuse = written(tmp_path / "lonely.parquet", frame)
    with pytest.raises(CanidsError, match=rf"lonely\.parquet: no {missing} windows"):
        dqn.main(call_of(tmp_path / "run", "large", {**files, "fuse": fuse}))


def test_gpu_asked_for_where_there_is_none(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CanidsError, match=r"train_drl\.accelerator: no GPU"):
        dqn.main(call_of(tmp_path, "large", files, accelerator="cuda"))


def test_targets_are_what_playing_each_action_gives(files: dict[str, Path]) -> None:
    fuse, calibrate = read(files["fuse"]), read(files["calibrate"])
    observer = Observer.fit(calibrate, {"history": {"fast": 3, "slow": 20, "recent": 8}, "raw_columns": False})
    traffic = traffic_of(fuse, observer, Augmentation.draw(fuse, 0.25, 0.5, np.random.default_rng(0)), CPU)
    costs, torch_seed = Costs(1, 2, 0.25, 0.5), 3
    torch.manual_seed(torch_seed)
    online, target = DuelingNetwork(traffic.width, [16], 2), DuelingNetwork(traffic.width, [16], 2)
    made = []
    for action in (0, 1):
        generator = torch.Generator()
        generator.manual_seed(0)
        env = FusionEnvironment(traffic, Actions("alarm", 0.5, 2), costs, count=64, length=16, generator=generator)
        for step in range(5):
            env.step((torch.arange(64) + step) % 2)
        state = env.state
        batch = {
            "world": env.world.clone(),
            "row": env.row.clone(),
            "alarm": state.alarm,
            "age": state.age,
            "detected": state.detected,
        }
        reward, terminated, _ = env.step(torch.full((64,), action))
        with torch.no_grad():
            best = online(env.observe()).argmax(1, keepdim=True)
            goal = reward + 0.9 * target(env.observe()).gather(1, best)[:, 0] * ~terminated
        made.append((goal, {**batch, "next_row": env.row.clone(), "terminated": terminated}))
    goals = double_dqn.td_targets(online, target, made[0][1], traffic, costs, 0.9)
    torch.testing.assert_close(goals, torch.stack([goal for goal, _ in made], dim=1))


@pytest.mark.parametrize("kind", ["alarm", "alpha"])
def test_outcomes_are_the_alarms_of_every_action(kind: str) -> None:
    actions, scores = Actions(kind, 0.4, 2), torch.rand(20, 2)
    every = torch.stack([actions.alarm(torch.full((20,), a), scores) for a in range(actions.count)], dim=1)
    assert (actions.outcomes(scores) == every).all()


@pytest.mark.parametrize("value", [0.0, 1e30])
def test_a_policy_is_trained_with_a_constant_detector(files: dict[str, Path], tmp_path: Path, value: float) -> None:
    silent = {
        s: written(
            tmp_path / f"{s}.parquet", pl.read_parquet(p).with_columns(gat_logit=pl.lit(value, dtype=pl.Float32))
        )
        for s, p in files.items()
    }
    call = call_of(tmp_path / "run", "small_nokd", silent, steps=200, evaluate_every=50)
    dqn.main(call)
    split = read(silent["select"])
    decisions = decide(Policy.load(call.output["model"]), {}, split)
    attacked = split.labels == 1
    alone = float(f1((decisions["vgae_score"].to_numpy() > 0.5)[None], attacked))
    assert float(f1(decisions["alarm"].to_numpy()[None], attacked)) > alone - 0.1


@pytest.mark.parametrize("split", ["fuse", "select"])
def test_a_split_without_attacks_is_refused(files: dict[str, Path], tmp_path: Path, split: str) -> None:
    # A policy that were chosen without attacks would be the most silent one.
    quiet = written(tmp_path / f"{split}.parquet", synthetic(2, 2, 100, attacks=()))
    with pytest.raises(CanidsError, match=rf"{split}\.parquet: no attacked windows, without which no policy"):
        dqn.main(call_of(tmp_path / "run", "small_nokd", {**files, split: quiet}))
