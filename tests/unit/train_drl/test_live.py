"""Whatever fuses decides alike on a whole file and on a stream, and for any number of detectors."""

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from canids_shared.alarm_rule import segments_of
from canids_shared.contracts import streams, tables
from canids_shared.contracts.detectors import DETECTORS, KEY, Detector, as_json
from canids_shared.contracts.tables import DECISIONS, KEYS
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point
from canids_train_drl import decide, dqn, fit_baselines, follow
from canids_train_drl.agent.policy import Policy
from canids_train_drl.environment.fusion_data import as_recorded
from canids_train_drl.environment.fusion_environment import fusion_weights
from canids_train_drl.environment.observation import ObserverState
from canids_train_drl.environment.states import States, read
from canids_train_drl.fusion_baselines.stored import FusionBaselines
from canids_train_drl.serving import Served
from train_drl.test_dqn import call_of
from train_drl.test_states import synthetic, written

FUSIONS = ["dqn", *fit_baselines.NAMES]
FOREST = Detector("forest", "Forest", "forest_odds", supervised=True, even_odds=0.0)
CHAIN = Detector("chain", "Markov chain", "chain_surprise", supervised=False)
RATE = Detector("rate", "Rate", "rate_change", supervised=False)
FAST = {"steps": 60, "environments": 32, "batch_size": 32, "evaluate_every": 20, "networks": {"small": [16]}}
NAMED = {"gat_logit": "forest_odds", "gat_embedding_0": "forest_depth", "vgae_error": "chain_surprise"}


def of_detectors(frame: pl.DataFrame, detectors: Sequence[Detector]) -> pl.DataFrame:
    """States of other detectors: those of the GAT and the VGAE by other names, and a third one."""
    if tuple(detectors) == DETECTORS:
        return frame
    third = frame["vgae_kl"] + 2.0 * (frame["label"] == 1).cast(pl.Float32)
    renamed = frame.rename(NAMED).with_columns(rate_change=third).drop("vgae_kl")
    unwanted = {d.prefix for d in (FOREST, CHAIN, RATE)} - {d.prefix for d in detectors}
    return renamed.select(c for c in renamed.columns if not c.startswith(tuple(unwanted) or ("\0",)))


class Trained(SimpleNamespace):
    """A policy and all fusion baselines over some detectors."""

    detectors: tuple[Detector, ...]
    folder: Path
    model: Path
    baselines: Path

    def split(self, seed: int, name: str = "test", gap: bool = True) -> Path:
        frame = of_detectors(synthetic(seed, 2, 120, ("a", "b")), self.detectors)
        # A missing window: observer and fusion begin again behind it.
        frame = pl.concat([frame[:70], frame[71:]]) if gap else frame
        return written(self.folder / f"{name}.parquet", frame, self.detectors)


def train(folder: Path, detectors: tuple[Detector, ...], action_set: str = "alarm") -> Trained:
    files = {}
    for number, name in enumerate(("fuse", "select", "calibrate")):
        frame = of_detectors(synthetic(number, 3, 120, ("a", "b")), detectors)
        files[name] = written(folder / f"{name}.parquet", frame, detectors)
    policy = call_of(folder / "dqn_small_nokd", "small_nokd", files, **FAST, action_set=action_set)
    dqn.main(policy)
    every = list(fit_baselines.NAMES)
    fitted = call_of(folder / "beside", "small_nokd", files, **FAST, action_set=action_set, fusion_baselines=every)
    fit_baselines.main(fitted)
    model, baselines = policy.output["model"], fitted.output["model"]
    return Trained(detectors=detectors, folder=folder, model=model, baselines=baselines)


@pytest.fixture(scope="module", params=[2, 3])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    detectors = DETECTORS if request.param == 2 else (FOREST, CHAIN, RATE)
    return train(tmp_path_factory.mktemp("trained"), detectors)


def decided(trained: Trained, path: Path, fusion: str) -> tuple[pl.DataFrame, dict[str, object]]:
    """Decisions as the rule makes them."""
    output, wildcards = trained.folder / "decisions.parquet", {"split": "test"}
    config = {"torch_threads": 1, "fusion": fusion, "recalibrate": 0}
    inputs = {"states": [path], "model": [trained.model], "fusion_baselines": [trained.baselines]}
    decide.main(entry_point.Call(wildcards, config, {}, {"output": output}, inputs, "{}"))
    return tables.read(output, DECISIONS)


def followed(trained: Trained, split: States, fusion: str, borders: list[int]) -> dict[str, np.ndarray]:
    """Decisions on a stream that comes in pieces with these borders."""
    policy = Policy.load(trained.model)
    baselines, number = FusionBaselines.load(trained.baselines), split.keys["window"].to_numpy()
    chosen, rule = (policy, policy.rule) if fusion == "dqn" else (baselines.fusions[fusion], baselines.rules[fusion])
    follower, vehicle = follow.Follower(policy.observer, chosen, rule), split.keys["vehicle"][0]
    parts = [follower.decide(number[a:b], split.values[a:b], vehicle) for a, b in pairwise(borders)]
    return {name: np.concatenate([part[name] for part in parts]) for name in follower.columns}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_stream_is_decided_on_like_a_file(trained: Trained, fusion: str) -> None:
    path = trained.split(9)
    split = read(path)
    batch, _ = decided(trained, path, fusion)
    count = len(split)
    rng = np.random.default_rng(0)
    random = [0, *sorted(rng.choice(np.arange(1, count), 12, replace=False).tolist()), count]
    for borders in (list(range(count + 1)), random):
        live = followed(trained, split, fusion, borders)
        assert live["alarm"].tolist() == batch["alarm"].to_list()
        assert live["action"].tolist() == batch["action"].to_list()
        for name in (*(d.decided for d in trained.detectors), "fusion_score"):
            np.testing.assert_allclose(live[name], batch[name].to_numpy(), rtol=0, atol=1e-6)


def test_state_after_several_segments_is_that_of_each(trained: Trained) -> None:
    """`step` takes segments side by side, in the middle too: the state has an entry for each."""
    policy, fusions = Policy.load(trained.model), FusionBaselines.load(trained.baselines).fusions
    split = read(trained.split(4, gap=False))
    whole = as_recorded(split, policy.observer)
    cut = 50
    begins, ends = split.segments[:-1], split.segments[1:]
    pieces = [(begins, begins + cut), (begins + cut, ends)]
    for name, fusion in {**fusions, "dqn": policy}.items():
        expected, state = fusion.step(whole, None)[0], None
        for first, last in pieces:
            rows = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
            segments = np.append(0, np.cumsum(last - first))
            features, labels = whole.features[:, rows], whole.labels[:, rows]
            part = replace(whole, features=features, labels=labels, segments=segments)
            output, state = fusion.step(part, state)
            np.testing.assert_array_equal(output.alarm, expected.alarm[rows], err_msg=name)
            np.testing.assert_allclose(output.score, expected.score[rows], rtol=0, atol=1e-6)


def test_observations_go_on_with_the_same_numbers(trained: Trained) -> None:
    observer, values = Policy.load(trained.model).observer, read(trained.split(10)).values[:100]
    state: ObserverState | None = None
    parts = []
    for begin, end in pairwise([0, 1, 3, 40, 100]):
        features, state = observer.step(values[begin:end], state)
        parts.append(features)
    np.testing.assert_array_equal(np.concatenate(parts), observer.observe(values, np.array([0, 100])))
    assert state is not None
    assert len(state.scores) == observer.recent, "what is remembered does not grow"


def test_decisions_name_the_detectors_that_were_declared(trained: Trained) -> None:
    path = trained.split(5)
    decisions, header = decided(trained, path, "dqn")
    assert header[KEY] == as_json(trained.detectors)
    supervised = next(d for d in trained.detectors if d.supervised)
    odds = header["even_odds"]
    assert isinstance(odds, dict)
    assert set(odds) == {supervised.name}
    raw = pl.read_parquet(path)[supervised.score].to_numpy()
    np.testing.assert_array_equal(decisions[supervised.decided].to_numpy() > odds[supervised.name], raw > 0)
    layout = Policy.load(trained.model).observer.layout
    assert len(layout) == 5 * len(trained.detectors) + 2


def test_a_served_policy_decides_the_same(trained: Trained) -> None:
    path = trained.split(6, gap=False)
    frame = pl.read_parquet(path)[:120]
    decisions, _ = decided(trained, path, "dqn")
    served = Served(trained.model)({name: frame[name].to_numpy() for name in frame.columns if name not in KEYS})
    np.testing.assert_allclose(served["fusion_score"], decisions["fusion_score"].to_numpy()[:120], rtol=0, atol=1e-6)
    assert served["alarm"].tolist() == decisions["alarm"].to_list()[:120]
    with pytest.raises(CanidsError, match=f"column '{trained.detectors[0].score}' is missing"):
        Served(trained.model)({})


def stream_of(path: Path, header: dict[str, object]) -> bytes:
    """The windows of a states file as `canids_train_gnn.follow` sends them, two at a time; graphs are empty."""
    frame = pl.read_parquet(path)
    graphs = streams.schema_of_graphs({"node_features": [], "edge_features": []})
    outputs = dict.fromkeys((c for c in frame.columns if c not in KEYS), pa.float32())
    schema = streams.widened(graphs, outputs, **header)
    empty: dict[str, object] = {name: [] for name in streams.GRAPHS}
    rows = [{**empty, **row} for row in frame.to_dicts()]
    sink = io.BytesIO()
    with streams.sending(sink, schema) as send:  # type: ignore[arg-type]
        for begin in range(0, len(rows), 2):
            send(pa.RecordBatch.from_pylist(rows[begin : begin + 2], schema=schema))
    return sink.getvalue()


def test_follow_reads_a_stream_and_extends_it(trained: Trained) -> None:
    path = trained.split(7)
    command = [sys.executable, "-m", "canids_train_drl.follow", "--model", str(trained.model)]
    command += ["--fusion_baselines", str(trained.baselines), "--fusion", "cusum"]
    done = subprocess.run(
        command, input=stream_of(path, {KEY: as_json(trained.detectors)}), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    table = pa.ipc.open_stream(io.BytesIO(done.stdout)).read_all()
    batch, _ = decided(trained, path, "cusum")
    assert table["alarm"].to_pylist() == batch["alarm"].to_list()
    for detector in trained.detectors:
        np.testing.assert_allclose(table[detector.decided].to_numpy(), batch[detector.decided].to_numpy(), atol=1e-6)
    assert json.loads(table.schema.metadata[b"canids"])[KEY] == as_json(trained.detectors)
    undeclared = subprocess.run(command, input=stream_of(path, {}), capture_output=True, check=False)
    assert undeclared.returncode == 1
    assert b"standard input: declares no detectors" in undeclared.stderr


def test_scales_are_set_by_the_first_seconds_of_one_clock(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the clock jumps before they are over, they begin again; where the stream ends before, nothing is decided."""
    states = pl.read_parquet(trained.split(9, gap=False)).with_columns(
        label=pl.lit(None, dtype=pl.UInt8), attack=pl.lit("")
    )
    span = float(states["t_end"][60] - states["t_start"][0])
    earlier = states[:20].with_columns(
        capture=pl.lit("before"), t_start=pl.col("t_start") + 1e6, t_end=pl.col("t_end") + 1e6
    )
    decided_by = {}
    for name, part in {"alone": states, "behind": pl.concat([earlier, states]), "short": states[:30]}.items():
        path = trained.folder / f"{name}.parquet"
        part.write_parquet(path)
        stream, output = stream_of(path, {KEY: as_json(trained.detectors)}), io.BytesIO()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stream)))
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=output))
        arguments = [
            "--model",
            str(trained.model),
            "--fusion_baselines",
            str(trained.baselines),
            "--recalibrate",
            str(span),
        ]
        follow.main(follow.parser().parse_args(arguments))
        decided_by[name] = pa.ipc.open_stream(io.BytesIO(output.getvalue())).read_all()
    columns = ["fusion_score", "alarm", *(detector.decided for detector in trained.detectors)]
    assert decided_by["behind"].num_rows == len(states) + 20
    assert decided_by["behind"].select(columns)[20:].equals(decided_by["alone"].select(columns))
    assert decided_by["short"].num_rows == 0


def test_states_of_other_detectors_are_refused(trained: Trained) -> None:
    others = (trained.detectors[0],)
    frame = pl.read_parquet(trained.split(8))
    kept = [c for c in frame.columns if c in KEYS or c.startswith(others[0].prefix)]
    path = written(trained.folder / "other.parquet", frame.select(kept), others)
    with pytest.raises(CanidsError, match=r"other\.parquet: other detector outputs"):
        decided(trained, path, "dqn")


@pytest.mark.parametrize(("count", "size"), [(1, 1), (2, 21), (3, 21), (4, 20), (5, 15)])
def test_mixtures_of_any_number_of_detectors(count: int, size: int) -> None:
    weights = np.array(fusion_weights(count))
    assert weights.shape == (size, count)
    assert len({*map(tuple, weights)}) == size
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    if count == 2:
        assert weights[:, 0].tolist() == [round(0.05 * i, 2) for i in range(21)], "the published set"


@pytest.mark.parametrize(
    ("detectors", "action_set"), [((FOREST,), "alarm"), ((FOREST,), "alpha"), ((CHAIN, FOREST, RATE), "alpha")]
)
def test_one_detector_and_mixtures_of_three(detectors: tuple[Detector, ...], action_set: str, tmp_path: Path) -> None:
    trained = train(tmp_path, detectors, action_set)
    batch, _ = decided(trained, trained.split(3), "dqn")
    assert {d.decided for d in detectors} <= set(batch.columns)
    if action_set == "alpha":
        weights = np.array(fusion_weights(len(detectors)))[batch["action"].to_numpy()]
        mixed = (weights * batch.select(d.decided for d in detectors).to_numpy()).sum(axis=1)
        mixed = Policy.load(trained.model).rule.evidence.over(mixed, segments_of(batch))
        np.testing.assert_allclose(batch["fusion_score"].to_numpy(), mixed, atol=1e-6)
