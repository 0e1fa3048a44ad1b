"""Evaluate methods that need no network, from the graph stores alone (rule `window_baselines`).

    python -m canids_evaluate.window_baselines --spec '{"wildcards": {"dataset": "simulated", "instance": ""}, "config": …,
        "scenarios": ["test_known_attack"], "captures": []}' --metrics metrics.json --curves curves.json
        --fit fit.safetensors --calibrate calibrate.safetensors --scenarios test_known_attack.safetensors
        [--enrolment enrolment.safetensors]

Known vehicles alone: `id_rate` holds the IDs and rates of attack-free traffic. Learnt from labelled window statistics: `extra_trees` (Geurts et
al. 2006), `gradient_boosting` (Friedman 2001). Learnt from attack-free windows:
`isolation_forest` (Liu et al. 2008) and `node_pca`, principal components of node features (Jackson and Mudholkar 1979). Learnt from nothing:
`staleness`; `always_attack` alarms on every window. Where vehicles are enrolled (scenarios `…_enrolled`), thresholds are set on their enrolment,
and `isolation_forest` and `node_pca` are fitted to it instead of to the training captures (`judging/own_traffic.py`).
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, IsolationForest

from canids_evaluate.judging import id_rate, node_pca, staleness
from canids_evaluate.judging.evaluation import calibrated, sources_of
from canids_evaluate.judging.own_traffic import METHODS, OwnTraffic
from canids_evaluate.judging.scores import Scores
from canids_evaluate.runs.reading_log import record
from canids_evaluate.watch.cautions import cautions
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.contracts.manifest import ENROLLED, ENROLMENT, JUDGED
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point
from canids_shared.jobs.entry_point import Call

log = logging.getLogger(__name__)
Scorer = Callable[[GraphStore], np.ndarray]
_CHOSEN_ON = ("select", "fuse")
"""Splits that are looked at for their warnings alone."""
_CLASSIFIERS = ("extra_trees", "gradient_boosting")


def learn(fit: GraphStore, trees: int, seed: int, attacks: bool = True) -> dict[str, Scorer]:
    """Fit the baselines; each returned function gives the score of every window of a store, f64 [W] in [0, 1].

    `id_rate` has no score (NaN) for auxiliary captures: their IDs are those of other vehicles. Without `attacks` to learn from,
    classifiers are left out.

    Raises `CanidsError` if `fit` lacks attack-free windows, or attacked ones although there are attacks.
    """
    label, statistics = np.asarray(fit["y"]), np.asarray(fit["statistics"])
    rule = id_rate.learn(fit)
    # Classifiers learn from all labelled windows, the forest from attack-free ones; -1 is an unknown label.
    if attacks and not (label == 1).any():
        raise CanidsError(
            f"{fit.path}: no attacked window, and classifiers learn from both classes; "
            "give the dataset a labelled training capture with an attack, or `fit` a larger share"
        )

    def classifier(model: Any) -> Scorer:
        if attacks:
            model.fit(statistics[label >= 0], label[label >= 0])
        return lambda store: np.asarray(model.predict_proba(np.asarray(store["statistics"]))[:, 1], np.float64)

    balanced: dict[str, Any] = {"class_weight": "balanced", "random_state": seed}
    forest = IsolationForest(n_estimators=trees, random_state=seed, n_jobs=1)
    forest.fit(statistics[label == 0])
    pca = node_pca.learn(fit, seed)
    scorers: dict[str, Scorer] = {
        "id_rate": lambda store: np.where(store.is_auxiliary, np.nan, rule.score(store)),
        "extra_trees": classifier(ExtraTreesClassifier(trees, n_jobs=1, **balanced)),
        "gradient_boosting": classifier(
            HistGradientBoostingClassifier(max_iter=trees, early_stopping=False, **balanced)
        ),
        "isolation_forest": lambda store: np.asarray(-forest.score_samples(store["statistics"]), dtype=np.float64),
        "node_pca": lambda store: pca(store, None),
        "staleness": staleness.scores,
        "always_attack": lambda store: np.ones(len(store)),
    }
    return {name: scorer for name, scorer in scorers.items() if attacks or name not in _CLASSIFIERS}


def scores_of(store: GraphStore, scorers: dict[str, Scorer]) -> Scores:
    """Scores of all baselines on a split."""
    scores = {name: scorer(store) if len(store) else np.zeros(0) for name, scorer in scorers.items()}
    return Scores(store.path, store.keys(), scores, alarm={"always_attack": np.ones(len(store), dtype=bool)})


def refuse_leakage(fit: GraphStore, tested: GraphStore) -> None:
    """Raise `CanidsError` if a capture of `tested` has the content of a capture of `fit`."""
    trained = _hashes(fit)
    for content, capture in _hashes(tested).items():
        if content in trained:
            raise CanidsError(
                f"{tested.path}: capture '{capture}' has the same content as the training capture "
                f"'{trained[content]}'; take one of them out of the manifest"
            )


def _hashes(store: GraphStore) -> dict[str, str]:
    sources = store.header.get("sources", {})
    for capture in store.header["captures"]:
        if "sha256" not in sources.get(capture, {}):
            raise CanidsError(
                f"{store.path}: header lacks the content hash of capture '{capture}'; delete it and run again"
            )
    return {sources[capture]["sha256"]: capture for capture in store.header["captures"]}


def main(call: Call) -> None:
    """Entry point."""
    scenarios: list[str] = call.constants["scenarios"]
    dataset = call.wildcards["dataset"]
    fit = GraphStore(call.inputs["fit"][0], dataset=dataset, split="fit")
    record("window_baselines", call.wildcards, call.constants["code"], scenarios)
    stores = {
        s: _open(path, fit, dataset=dataset, split=s)
        for s, path in zip(scenarios, call.inputs["scenarios"], strict=True)
    }
    options = call.config["trees"], call.config["seed"]
    scorers = learn(fit, *options, call.constants.get("attacks", True))
    calibrate = GraphStore(call.inputs["calibrate"][0], dataset=dataset, split="calibrate")
    evaluation = calibrated(call.config, scores_of(calibrate, scorers))
    enrolment = [_open(path, fit, dataset=dataset, split=ENROLMENT) for path in call.inputs.get("enrolment", [])]
    enrolled = scorers
    for store in enrolment:
        own = OwnTraffic.learn(store, *options)
        enrolled = {**scorers, **{method: partial(own.scores, method=method) for method in METHODS}}
        evaluation.enrol(replace(scores_of(store, enrolled), refitted=frozenset(METHODS)))
    for scenario, store in stores.items():
        judging = enrolled if scenario.endswith(ENROLLED) else scorers
        evaluation.add(scenario, scores_of(store, judging).judged(scenario, call.constants["captures"]))
    others = {
        split: GraphStore(path, dataset=dataset, split=split)
        for split in _CHOSEN_ON
        for path in call.inputs.get(split, [])
    }
    episodes = {s: next(iter(methods.values()))["n_episodes"] for s, methods in evaluation.scenarios.items()}
    warnings = cautions({"fit": fit, **others, "calibrate": calibrate}, stores, episodes)
    for warning in warnings:
        log.warning("%s", warning)
    evaluation.write(call, None, sources=sources_of([fit, calibrate, *enrolment, *stores.values()]), warnings=warnings)


def _open(path: Path, fit: GraphStore, **wanted: str) -> GraphStore:
    store = GraphStore(path, **wanted)
    if wanted["split"] != JUDGED:
        refuse_leakage(fit, store)
    if store.header["statistics"] != fit.header["statistics"]:
        raise CanidsError(f"{path}: other window statistics than {fit.path}; delete both and run again")
    return store


if __name__ == "__main__":
    entry_point.run(
        main,
        inputs=["fit", "calibrate", "scenarios", "enrolment", *_CHOSEN_ON],
        outputs=["metrics", "curves"],
        alone="metrics",
    )
