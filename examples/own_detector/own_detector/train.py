"""Train the three detectors of a variant on the split `fit`.

`python -m own_detector.train --spec JSON --model X.safetensors --config X.yaml --run run.json --graphs FIT [--teacher MODEL]`
"""

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point, latency, run_folder
from own_detector.model import DETECTORS, Models, load, standardised

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Size:
    """Sizes of the detectors: principal components, hidden units, trees and their depth; passes over the windows; seed."""

    components: int
    hidden: int
    trees: int
    depth: int
    iterations: int
    seed: int


def train(store: GraphStore, size: Size, teacher: Models | None = None) -> Models:
    """Fit the three detectors.

    With a `teacher`, perceptron and trees learn the teacher's outputs (distillation; Hinton et al. 2015), not the labels.

    Raises `CanidsError` naming the store if it lacks attacked or attack-free windows, or has fewer of the latter than
    components.
    """
    values, label = np.array(store["statistics"]), np.array(store["y"])
    free = values[label == 0]
    if len(free) < max(2, size.components) or not (label == 1).any():
        raise CanidsError(
            f"{store.path}: {len(free)} attack-free and {int((label == 1).sum())} attacked windows are too few; "
            "add training captures"
        )
    # Scales and components describe attack-free windows alone; labels reach perceptron and trees only.
    centre = free.mean(axis=0, dtype=np.float64)
    spread = np.maximum(free.std(axis=0, dtype=np.float64), 1e-3)
    pca = PCA(min(size.components, free.shape[1]), svd_solver="full").fit(standardised(free, centre, spread))
    known = label >= 0
    z = standardised(values[known], centre, spread)
    taught = None if teacher is None else teacher.outputs(values[known])
    perceptron = _perceptron(z, label[known], size, taught)
    return Models(
        statistics=list(store.header["statistics"]),
        centre=centre,
        spread=spread,
        components=pca.components_,
        weights=perceptron.coefs_[0],
        bias=perceptron.intercepts_[0],
        out_weights=perceptron.coefs_[1][:, 0],
        out_bias=perceptron.intercepts_[1],
        **_forest(z, label[known], size, taught),
    )


def _perceptron(z: np.ndarray, label: np.ndarray, size: Size, taught: dict[str, np.ndarray] | None) -> Any:
    """A perceptron on windows `z` [W, S]: of the labels [W], or of a teacher's log odds."""
    options = {"hidden_layer_sizes": (size.hidden,), "max_iter": size.iterations, "random_state": size.seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of passes is an option
        if taught is None:
            return MLPClassifier(**options).fit(z, label)
        return MLPRegressor(**options).fit(z, np.clip(taught["perceptron_logit"], -10, 10))


def _forest(
    z: np.ndarray, label: np.ndarray, size: Size, taught: dict[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
    """Arrays of the trees (`Models`) on windows `z` [W, S]: of the labels [W], or of a teacher's probabilities."""
    options = {"n_estimators": size.trees, "max_depth": size.depth, "random_state": size.seed, "n_jobs": 1}
    if taught is None:
        forest: Any = ExtraTreesClassifier(**options).fit(z, label)
    else:
        forest = ExtraTreesRegressor(**options).fit(z, 1 / (1 + np.exp(-taught["trees_logit"].astype(np.float64))))
    # All trees lie in one set of arrays: the nodes of each are counted from its root on.
    trees = [estimator.tree_ for estimator in forest.estimators_]
    roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
    columns: dict[str, list[np.ndarray]] = {n: [] for n in ("left", "right", "feature", "threshold", "probability")}
    for root, tree in zip(roots, trees, strict=True):
        # scikit-learn marks a leaf by children of -1; here a leaf is its own child, so that windows in it stay there.
        here = np.arange(tree.node_count)
        leaf = tree.children_left < 0
        columns["left"].append(np.where(leaf, here, tree.children_left) + root)
        columns["right"].append(np.where(leaf, here, tree.children_right) + root)
        columns["feature"].append(np.where(leaf, 0, tree.feature))
        columns["threshold"].append(tree.threshold)
        # A classifier's node holds the shares of both classes, a regressor's the mean.
        columns["probability"].append(tree.value[:, 0, -1])
    kinds = dict.fromkeys(("left", "right", "feature"), np.int32)
    arrays = {name: np.concatenate(parts).astype(kinds.get(name, np.float64)) for name, parts in columns.items()}
    return {"roots": roots.astype(np.int32), **arrays}


def main(call: entry_point.Call) -> None:
    """Entry point."""
    store = GraphStore(call.inputs["graphs"][0])
    scale, config = call.scale, call.config
    teachers = [load(path, store) for path in call.inputs["teacher"]]
    sizes = {name: config[name][scale] for name in ("components", "hidden", "trees", "depth")}
    size = Size(**sizes, iterations=config["iterations"], seed=config["seed"])
    models = train(store, size, teachers[0] if teachers else None)
    identity = run_folder.run_identity(call, "detector")
    models.save(call.output["model"], {**identity, "scale": scale, "windows": len(store)})
    statistics = np.array(store["statistics"])
    seconds = latency.measure(lambda window: models.outputs(statistics[window : window + 1]), len(store))
    run_folder.write_run(
        call,
        [],
        kind="detector",
        label="PCA, perceptron and trees",
        detectors=[detector.name for detector in DETECTORS],
        parameters=sum(v.size for v in vars(models).values() if isinstance(v, np.ndarray)),
        best=0,
        select={},
        data={"fit": store.counts()},
        latency=latency.summary(seconds, "cpu"),
    )
    log.info("%d windows", len(store))


if __name__ == "__main__":
    entry_point.run(main, inputs=["graphs", "teacher"], outputs=["model", "config", "run"])
