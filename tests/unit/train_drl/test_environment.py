from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from canids_shared.contracts.config import check, load_schema
from canids_train_drl.environment import augmentation
from canids_train_drl.environment.augmentation import Augmentation
from canids_train_drl.environment.fusion_data import traffic_of
from canids_train_drl.environment.fusion_environment import Actions, AlarmState, Costs, FusionEnvironment, Traffic
from canids_train_drl.environment.gymnasium_env import FusionEnv, FusionVectorEnv
from canids_train_drl.environment.observation import Observer, with_alarm_state
from canids_train_drl.environment.states import States
from train_drl.test_states import loaded, synthetic

COSTS = Costs(missed_attack=1.0, false_alarm=2.0, flapping=0.25, late_detection=0.5)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> States:
    return loaded(tmp_path_factory.mktemp("states"), synthetic(0, 3, 60))


@pytest.fixture(scope="module")
def observer(split: States) -> Observer:
    return Observer.fit(split, {"history": {"fast": 3, "slow": 20, "recent": 8}, "raw_columns": True})


@pytest.fixture(scope="module")
def traffic(split: States, observer: Observer) -> Traffic:
    return traffic_of(split, observer, Augmentation.draw(split, 0.25, 0.5, np.random.default_rng(0)), CPU)


def reward_of(label: list[int], alarm: list[int]) -> list[float]:
    state, rewards = AlarmState.off(1, CPU), []
    for y, a in zip(label, alarm, strict=True):
        state, reward = state.advanced(torch.tensor([a == 1]), torch.tensor([y], dtype=torch.int8), COSTS)
        rewards.append(float(reward[0]))
    return rewards


def test_reward_of_a_sequence_worked_by_hand() -> None:
    # quiet, false alarm, off again; attack: missed undetected, alarmed, missed after detection; a new attack is undetected again
    label = [0, 0, 0, 1, 1, 1, 0, 1, 1]
    alarm = [0, 1, 0, 0, 1, 0, 0, 0, 1]
    assert reward_of(label, alarm) == [0, -2.25, -0.25, -1.5, -0.25, -1.25, 0, -1.5, -0.25]


def test_unknown_labels_cost_only_flapping() -> None:
    assert reward_of([-1, -1, -1], [1, 1, 0]) == [-0.25, 0, -0.25]


def test_gymnasium_accepts_the_single_environment(traffic: Traffic) -> None:
    for kind in ("alarm", "alpha"):
        check_env(FusionEnv(traffic, Actions(kind, 0.5, 2), COSTS, length=16), skip_render_check=True)


def test_vector_environment_keeps_gymnasiums_interface(traffic: Traffic) -> None:
    vector = FusionVectorEnv(traffic, Actions("alarm", 0.5, 2), COSTS, count=7, length=10)
    assert vector.metadata["autoreset_mode"] is gym.vector.AutoresetMode.SAME_STEP
    env = RecordEpisodeStatistics(vector)
    first, _ = env.reset(seed=3)
    env.action_space.seed(3)
    finished = 0
    for _ in range(25):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert reward.shape == terminated.shape == truncated.shape == (7,)
        over = terminated | truncated
        if over.any():
            finished += over.sum()
            assert (info["_final_obs"] == over).all()
            assert all(vector.single_observation_space.contains(info["final_obs"][i]) for i in np.flatnonzero(over))
            assert (observation[over, -2] == 0).all(), "a new episode begins with the alarm off"
    assert finished == 14
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, again)


def test_episodes_stay_within_one_capture_and_end_at_its_end(traffic: Traffic) -> None:
    env = FusionEnvironment(traffic, Actions("alarm", 0.5, 2), COSTS, count=200, length=60, generator=torch.Generator())
    begins = traffic.segments[:-1]
    assert np.isin(env.row.numpy(), begins).all(), "only whole captures fit"
    for step in range(60):
        _, terminated, truncated = env.step(torch.zeros(200, dtype=torch.int64))
        assert bool(terminated.all()) is (step == 59)
        assert not truncated.any()


def test_a_capture_of_one_window_is_an_episode(split: States, observer: Observer) -> None:
    one = split.select(np.arange(1))
    traffic = traffic_of(one, observer, Augmentation.none(one), CPU)
    env = FusionEnvironment(traffic, Actions("alarm", 0.5, 2), COSTS, count=3, length=8, generator=torch.Generator())
    assert env.step(torch.tensor([0, 1, 0]))[1].all()


def test_observation_is_causal(split: States, observer: Observer) -> None:
    before = observer.observe(split.values, split.segments)
    changed = split.values.copy()
    changed[90:] += 50
    after = observer.observe(changed, split.segments)
    np.testing.assert_array_equal(before[:90], after[:90])
    assert (before[90] != after[90]).any()


def test_history_does_not_cross_captures(split: States, observer: Observer) -> None:
    changed = split.values.copy()
    changed[:60] += 50
    np.testing.assert_array_equal(
        observer.observe(split.values, split.segments)[60:], observer.observe(changed, split.segments)[60:]
    )


def test_layout_names_every_component(observer: Observer, traffic: Traffic) -> None:
    assert len(observer.layout) == traffic.width
    two = with_alarm_state(traffic.features[0, :2], torch.tensor([True, False]), torch.tensor([0, 32]))
    assert two[:, -2:].tolist() == [[1, 0], [0, 1]]


def test_dropout_touches_only_attacked_windows_of_that_detector(split: States) -> None:
    drawn = Augmentation.draw(split, 0.25, 0.5, np.random.default_rng(1))
    assert drawn.probability.sum() == pytest.approx(1)
    np.testing.assert_array_equal(drawn.values(split, 0), split.values)
    quiet = split.labels == 0
    quiet_values = {column: set(split.values[quiet, i]) for i, column in enumerate(split.columns)}
    shares = set()
    for world, label in enumerate(drawn.labels(split)):
        values, seen, attacked = drawn.values(split, world), split.values[drawn.windows[world]], label == 1
        np.testing.assert_array_equal(values[~attacked], seen[~attacked])
        for i, column in enumerate(split.columns):
            differs = values[attacked, i] != seen[attacked, i]
            if not drawn.dropped[world] or not column.startswith(drawn.dropped[world]):
                assert not differs.any()
            else:
                shares.add(min(augmentation.SHARES, key=lambda s: abs(s - differs.mean())))
                assert set(values[attacked, i][differs]) <= quiet_values[column]
    assert shares == set(augmentation.SHARES)


def test_spliced_attacks_are_recorded_ones_in_stretches_without(tmp_path: Path) -> None:
    split = loaded(tmp_path, synthetic(0, 3, 400))
    drawn = Augmentation.draw(split, 0.25, 0.5, np.random.default_rng(1))
    labels = drawn.labels(split)
    spliced = [w for w in range(len(drawn)) if (drawn.windows[w] != np.arange(len(split))).any()]
    assert len(spliced) == augmentation.SPLICED + 2 * len(augmentation.SHARES)
    assert drawn.probability[spliced].sum() == pytest.approx(0.5)
    for world in spliced:
        there = drawn.windows[world]
        moved = there != np.arange(len(split))
        assert (split.labels[moved] == 0).all(), "what was recorded as attacked stays"
        assert (labels[world] == 1).sum() > (split.labels == 1).sum()
        begins = np.flatnonzero(moved & (labels[world] == 1) & (np.append(0, labels[world][:-1]) == 0))
        first = np.flatnonzero((split.labels == 1) & (np.append(0, split.labels[:-1]) == 0))
        assert set(there[begins]) <= set(first), "attacks begin with their first window"


@pytest.mark.parametrize(("dropout", "splicing", "count"), [(0, 0, 1), (0.25, 0, 9), (0, 0.5, 5)])
def test_worlds_that_are_not_wanted_are_not_there(split: States, dropout: float, splicing: float, count: int) -> None:
    drawn = Augmentation.draw(split, dropout, splicing, np.random.default_rng(0))
    assert len(drawn) == count
    assert (drawn.probability > 0).all()


def test_defaults_of_the_schema_are_valid() -> None:
    schema = Path(__file__).parents[3] / "modules/train_drl/config.schema.yaml"
    config = check({}, load_schema(schema, common=True), where="train_drl")
    assert Costs.of(config) == COSTS
