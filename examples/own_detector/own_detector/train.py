"""Train both detectors of a variant on the split `fit`.

`python -m own_detector.train --spec JSON --model X.safetensors --config X.yaml --graphs FIT [--teacher MODEL]`
"""

import logging
import warnings

import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point, run_folder
from own_detector.model import Detector, load, standardised

log = logging.getLogger(__name__)


def train(
    store: GraphStore, *, components: int, hidden: int, iterations: int, seed: int, teacher: Detector | None = None
) -> Detector:
    """Fit both detectors; with a `teacher`, the perceptron learns the teacher's log odds (distillation), not the labels.

    Raises `CanidsError` naming the store if it lacks attacked or attack-free windows, or has fewer of the latter than
    components.
    """
    values, label = np.array(store["statistics"]), np.array(store["y"])
    free = values[label == 0]
    if len(free) < max(2, components) or not (label == 1).any():
        raise CanidsError(
            f"{store.path}: {len(free)} attack-free and {int((label == 1).sum())} attacked windows are too few; "
            "add training captures"
        )
    centre = free.mean(axis=0, dtype=np.float64)
    spread = np.maximum(free.std(axis=0, dtype=np.float64), 1e-3)
    pca = PCA(min(components, free.shape[1]), svd_solver="full").fit(standardised(free, centre, spread))
    known = label >= 0
    z = standardised(values[known], centre, spread)
    options = {"hidden_layer_sizes": (hidden,), "max_iter": iterations, "random_state": seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of passes is an option
        if teacher is None:
            perceptron = MLPClassifier(**options).fit(z, label[known])
        else:
            perceptron = MLPRegressor(**options).fit(z, np.clip(teacher.outputs(values[known])["gat_logit"], -10, 10))
    return Detector(
        statistics=list(store.header["statistics"]),
        centre=centre,
        spread=spread,
        components=pca.components_,
        weights=perceptron.coefs_[0],
        bias=perceptron.intercepts_[0],
        out_weights=perceptron.coefs_[1][:, 0],
        out_bias=perceptron.intercepts_[1],
    )


def main(call: entry_point.Call) -> None:
    """Entry point."""
    store = GraphStore(call.inputs["graphs"][0])
    scale = call.constants["scale"]
    teachers = [load(path, store) for path in call.inputs["teacher"]]
    detector = train(
        store,
        components=call.config["components"][scale],
        hidden=call.config["hidden"][scale],
        iterations=call.config["iterations"],
        seed=call.config["seed"],
        teacher=teachers[0] if teachers else None,
    )
    detector.save(call.output["model"], {"scale": scale, "windows": len(store)})
    run_folder.write_config(call.output["config"], call)
    log.info("%d windows", len(store))


if __name__ == "__main__":
    entry_point.run(main, inputs=["graphs", "teacher"], outputs=["model", "config"])
