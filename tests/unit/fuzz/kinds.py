"""Every kind of file: how a job or a plan reads it, how it is mutated, and whether another content can be right."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from snakemake.common.configfile import load_configfile  # type: ignore[import-untyped]
from snakemake_interface_common.exceptions import WorkflowError  # type: ignore[import-untyped]

from canids_evaluate import evaluate
from canids_evaluate.pages import comparison
from canids_evaluate.pages.rows import rows_of
from canids_evaluate.runs import reading_log, trainings
from canids_preprocess import graphs, ingest
from canids_preprocess.enrolment import profiles
from canids_preprocess.formats import FORMATS, recognise
from canids_shared.contracts import manifest, streams, tables
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.torch_store import TorchStore
from canids_shared.errors import CanidsError
from canids_shared.jobs.run_folder import Checkpoint
from canids_shared.planning import folds
from canids_shared.planning.pipeline import STAGES, section
from canids_shared.planning.stage import Stage
from canids_shared.scoring.trained_run import trained_run
from canids_shared.sweeps import declaration, next_round, points
from canids_track import records
from canids_train_drl import decide
from canids_train_gnn import describe
from canids_train_gnn.models import detector_file
from fuzz.containers import PARQUET, SAFETENSORS
from fuzz.mutations import BYTES, JSON, LINES, YAML, Mutation
from fuzz.seeds import CAPTURES, ROOT, RUNS, VARIANT, decide_call, entry_of, graphs_call


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the kind.
        path: the whole file (`seeds.make`), relative to the working directory; mutated files take its place.
        read: reads it as far as a job does; what it returns must be equal for two files that say the same.
        mutations: those that are drawn for it.
        other: whether a file that is accepted may give another result: a text that says something else, such as another
            number in a config, or another payload in a capture. A file whose content has a digest may not.
        names: what a message about it has, by default its path: a config is a value without a file when it is checked.
        share: how many times as many mutated files as of another kind; slow readers get fewer.
    """

    name: str
    path: Path
    read: Callable[[Path], Any]
    mutations: list[Mutation]
    other: bool = False
    names: tuple[str, ...] = ()
    share: float = 1.0


class OfSnakemakeError(CanidsError):
    """Snakemake itself read the config, and refused it in its own words before canids saw it."""


def fingerprint(value: Any) -> str:
    """SHA-256 of a result: arrays, tables, mappings, data classes and what they hold."""
    digest = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, torch.Tensor):
            item = item.numpy()
        if isinstance(item, np.ndarray) and item.dtype != object:
            digest.update(f"{item.dtype}{item.shape}".encode() + np.ascontiguousarray(item).tobytes())
        elif isinstance(item, pl.DataFrame):
            add({name: [item[name].dtype, item[name].to_list()] for name in item.columns})
        elif isinstance(item, torch.nn.Module):
            add(dict(item.state_dict()))
        elif isinstance(item, dict):
            for key, inner in item.items():
                digest.update(f"{key!r}:".encode())
                add(inner)
        elif isinstance(item, list | tuple | np.ndarray):
            digest.update(f"[{len(item)}".encode())
            for inner in item:
                add(inner)
        elif is_dataclass(item) and not isinstance(item, type):
            add({f.name: getattr(item, f.name) for f in fields(item)})
        else:
            digest.update(f"{type(item).__name__} {item!r}".encode())

    add(value)
    return digest.hexdigest()


# Contracts between stages


def _graphs(path: Path) -> Any:
    store = GraphStore(path)
    batch = TorchStore(store, torch.device("cpu")).batch(torch.arange(len(store)))
    return store.header, dict(store.arrays), store.keys(), store.counts(), batch


def _profile(path: Path) -> Any:
    known = profiles.load(path)
    state = profiles.past_of(known, "", True)
    return known.header["vehicle"], known.header["buses"], known.buses, state and state.arrays()


def _frames(path: Path) -> Any:
    output = Path("made/graphs.safetensors")
    graphs.main(graphs_call(path, output))
    made = GraphStore(output)
    return made.header, dict(made.arrays)


def _states(path: Path) -> Any:
    output = Path("made/decisions.parquet")
    decide.main(
        decide_call(
            path, *(RUNS / f"{kind}_{VARIANT}/model.safetensors" for kind in ("dqn", "fusion_baselines")), output
        )
    )
    return tables.read(output, tables.DECISIONS)


def _decisions(path: Path) -> Any:
    evaluate.refuse_mixture(path, [], 0.01)
    return evaluate.scores_of(path)


@cache
def _store() -> TorchStore:
    return TorchStore(GraphStore(Path("fit.safetensors")), torch.device("cpu"))


def _detector(kind: Any, path: Path) -> Any:
    store = _store()
    model = detector_file.load(path, kind, store.header)
    with torch.inference_mode():
        return model, model.score(store.batch(torch.arange(8)))


def _policy(path: Path) -> Any:
    output = Path("made/decisions.parquet")
    other = {"dqn": "fusion_baselines", "fusion_baselines": "dqn"}[path.parent.name.removesuffix(f"_{VARIANT}")]
    models = {path.parent.name: path, f"{other}_{VARIANT}": RUNS / f"{other}_{VARIANT}/model.safetensors"}
    ordered = [models[f"{kind}_{VARIANT}"] for kind in ("dqn", "fusion_baselines")]
    decide.main(decide_call(Path("test_known.parquet"), *ordered, output))
    # The decisions name the models by digest, so what is compared are the rows alone.
    return tables.read(output, tables.DECISIONS)[0]


def _checkpoint(path: Path) -> Any:
    checkpoint = Checkpoint.__new__(Checkpoint)
    checkpoint._path = path
    if (loaded := checkpoint.load()) is None:
        raise CanidsError(f"{path}: said to be damaged, and the training begins at its start")
    return loaded


# Files of runs


def _run_folder(path: Path) -> Any:
    """Tracking reads all files of a run, `describe` those of a detector's training, scoring those of the policy's."""
    record = records.read(path.parent, records.Places.of(RUNS))
    parts: list[Any] = [record.params, record.tags, record.metrics, record.key, record.model]
    kind = path.parent.name.removesuffix(f"_{VARIANT}")
    if kind == "gat":
        parts.append(describe.describe(path.parent))
    if kind in ("dqn", "fusion_baselines", "gat"):
        parts.append(trained_run(RUNS / f"dqn_{VARIANT}"))
    if path.name == "benchmark.tsv":
        parts.append(trainings.read_cost(path))
    return parts


def _evaluation(path: Path) -> Any:
    results = comparison.read_results([path.parent])
    content = json.loads(path.with_name("metrics.json").read_text(encoding="utf-8"))
    return results, rows_of([content]), _run_folder(path)


def _reading_log(path: Path) -> Any:
    del path  # it has one place
    content = {"variant": "large", "code": "0123456789abcdef", "dataset": "d", "instance": ""}
    return reading_log.reading_behind(content)


def _stream(path: Path) -> Any:
    with open(path, "rb") as source:
        stream = streams.received(source, "gat_", "vgae_")
        rows = [
            [streams.keys(batch), *(streams.flat(batch, name) for name in streams.GRAPHS)] for batch in stream.batches
        ]
    return stream.header, rows


# What users write


def _manifest(path: Path) -> Any:
    manifest.load.cache_clear()
    captures = manifest.load(path.parent.name, "data")
    return captures, manifest.scenarios(captures), manifest.missing(captures, path.parent.name)


def _plan(config: dict[str, Any]) -> Any:
    """What every module's Snakefile does with a pipeline's config."""
    schemas = {stage: ROOT / f"modules/{stage}/config.schema.yaml" for stage in STAGES}
    stages = {stage: Stage(stage, section(config, stage), schema) for stage, schema in schemas.items()}
    tracking = Stage("track", section(config, "tracking"), ROOT / "modules/track/config.schema.yaml")
    return {name: stage.config for name, stage in {**stages, "track": tracking}.items()}


def _config(complete: Callable[[dict[str, Any]], Any], path: Path) -> Any:
    manifest.load.cache_clear()
    try:
        config = load_configfile(path)
    except (WorkflowError, UnicodeDecodeError, RecursionError) as error:
        raise OfSnakemakeError(f"{path}: {type(error).__name__}") from None
    except Exception as error:
        if type(error).__module__.startswith("yaml"):
            raise OfSnakemakeError(f"{path}: {type(error).__name__}") from None
        raise
    return _plan(complete(config))


def _table_of_points(path: Path) -> Any:
    from canids_shared.contracts.config import load_schema  # noqa: PLC0415

    return points.read_points(path, load_schema(ROOT / "modules/train_gnn/config.schema.yaml", common=True), "sweep")


def _capture(form: str, path: Path) -> Any:
    """A capture ingested whole: by the format that it is recognised as, else by its own; with quarantine where that refuses it."""
    path = path.with_name(CAPTURES["road"]) if form == "road" else path
    names = (str(path), "capture_metadata.json")
    try:
        recognise(path)
    except CanidsError as error:
        checked(error, names)
    try:
        return _ingested(path, form, quarantine=False)
    except CanidsError as error:
        checked(error, names)
        return _ingested(path, form, quarantine=True)


def _ingested(path: Path, form: str, quarantine: bool) -> Any:
    """Frames, rejects and counts as `ingest.main` writes them, every batch checked by the contract."""
    counts, frames, rejects = ingest.RowCounts(), [], []
    read = ingest.read(path, FORMATS[form], entry_of(path, form), tolerance=0.001, quarantine=quarantine, counts=counts)
    for batch in read:
        frames.append(batch.frames.select(list(tables.FRAMES.columns)))
        rejects.append(batch.rejects)
        assert frames[-1].schema == pl.Schema(tables.FRAMES.columns)
        assert not frames[-1].drop(list(tables.FRAMES.nullable)).null_count().sum_horizontal().item()
        assert frames[-1]["timestamp"].is_finite().all()
        assert (frames[-1]["payload"].bin.size() == frames[-1]["dlc"]).filter(~frames[-1]["remote"]).all()
    assert counts.frames + counts.rejects == sum(map(len, frames)) + sum(map(len, rejects))
    return pl.concat(frames), pl.concat(rejects), counts


def checked(error: CanidsError, names: tuple[str, ...]) -> None:
    """Raise `AssertionError` unless a refusal is one line of bearable length that names the file."""
    text = str(error)
    assert text.isprintable(), f"a message of several lines, or with control characters: {text!r}"
    assert any(name in text for name in names), f"a message without the file's name ({' or '.join(names)}): {text!r}"
    assert len(text) <= 4000, f"a message of {len(text)} characters: {text[:300]!r} …"


def kinds() -> list[Kind]:
    """All of them, in an order in which files of one folder follow each other."""
    run = {name: RUNS / f"{name}_{VARIANT}" for name in ("gat", "vgae", "dqn", "fusion_baselines")}
    named = partial(Kind, other=True, names=("config", "folds", "sweep", "dataset", *STAGES, "track", "instances"))
    checkpoint = next(Path("experimentruns/d/checkpointed/.checkpoint").glob("*/state.safetensors"))
    # Where two models do not fit each other, either may be named.
    fusing = partial(Kind, names=tuple(str(run[name] / "model.safetensors") for name in ("dqn", "fusion_baselines")))
    return [
        Kind("graphs", Path("graphs.safetensors"), _graphs, SAFETENSORS, share=4),
        Kind("profile", Path("profile.safetensors"), _profile, SAFETENSORS),
        # Check sums of their pages show damage; whoever writes other frames into the file has made another capture.
        Kind("frames", Path("frames.parquet"), _frames, PARQUET, other=True, names=("frames.parquet", "split 'test_known'")),
        Kind("states", Path("test_known.parquet"), _states, PARQUET, share=0.5),
        Kind("decisions", Path("decisions.parquet"), _decisions, PARQUET, share=2),
        Kind("model of a GAT", run["gat"] / "model.safetensors", partial(_detector, detector_file.GAT), SAFETENSORS, share=3),
        Kind("model of a VGAE", run["vgae"] / "model.safetensors", partial(_detector, detector_file.VGAE), SAFETENSORS, share=3),
        fusing("model of a policy", run["dqn"] / "model.safetensors", _policy, SAFETENSORS, share=0.7),
        fusing("model of fusion baselines", run["fusion_baselines"] / "model.safetensors", _policy, SAFETENSORS, share=0.7),
        Kind("checkpoint", checkpoint, _checkpoint, SAFETENSORS, share=3),
        Kind("run.json of a GAT", run["gat"] / "run.json", _run_folder, JSON, share=0.6),
        Kind("run.json of a policy", run["dqn"] / "run.json", _run_folder, JSON, share=0.6),
        Kind("history.parquet", run["gat"] / "history.parquet", _run_folder, PARQUET),
        Kind("config.yaml of a run", run["fusion_baselines"] / "config.yaml", _run_folder, YAML, share=0.5),
        Kind("benchmark.tsv", run["gat"] / "benchmark.tsv", _run_folder, LINES, other=True),
        Kind("metrics.json", RUNS / "eval_large/metrics.json", _evaluation, JSON, share=0.7),
        Kind("curves.json", RUNS / "eval_large/curves.json", _evaluation, JSON, share=0.3),
        Kind("log of readings", Path("experimentruns/test_readings.jsonl"), _reading_log, [*JSON, *LINES], other=True),
        Kind("stream of windows", Path("stream.arrow"), _stream, BYTES, other=True, names=("standard input",), share=4),
        Kind("manifest", Path("data/fuzz/manifest.yaml"), _manifest, YAML, other=True, share=2),
        named("config", Path("config.yaml"), partial(_config, lambda config: config), YAML, share=0.6),
        named("config with folds", Path("folds.yaml"), partial(_config, folds.joined), YAML, share=0.5),
        named(
            "config with a sweep",
            Path("sweep.yaml"),
            partial(_config, lambda config: declaration.declared(config, ROOT / "modules").joined(config)),
            YAML,
            share=0.5,
        ),
        Kind("table of points", Path("points.tsv"), _table_of_points, LINES, other=True),
        Kind("table of results", Path("results.csv"), lambda p: next_round.read_means(p, "gat_small_nokd"), LINES, other=True),
        *(
            Kind(f"capture {name}", Path("captures", file), partial(_capture, name.partition(" ")[0]), [*BYTES] if name in ("blf", "mf4") else LINES, other=True, share=0.25)
            for name, file in CAPTURES.items()
        ),
        Kind("metadata of ROAD", Path("captures/capture_metadata.json"), partial(_capture, "road"), JSON, other=True, names=("capture_metadata.json", "captures/")),
    ]  # fmt: skip
