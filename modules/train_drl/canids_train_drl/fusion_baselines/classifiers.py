"""Fusion baselines that scikit-learn fits: logistic regression and a perceptron.

scikit-learn takes a second and a half to import, and is imported where one of them is fitted.
"""

import warnings
from typing import Any

import numpy as np

from canids_train_drl.environment.fusion_data import FusionData
from canids_train_drl.environment.fusion_setup import FusionSetup
from canids_train_drl.environment.threshold_search import ThresholdSearch
from canids_train_drl.fusion_baselines.networks import Classifier, layers_of


def _classifier(data: FusionData, setup: FusionSetup, model: Any) -> Classifier:
    """Fit to every labelled window of `fuse` in every world, weighted by the world's probability and the cost of an error."""
    fuse, config = data.fuse, setup.config
    labels, features = fuse.labels.cpu().numpy(), fuse.features.cpu().numpy()
    cost = np.where(labels == 1, config["reward"]["missed_attack"], config["reward"]["false_alarm"])
    weight = fuse.probability.cpu().numpy()[:, None] * cost
    # Windows of unknown label teach nothing, nor do worlds that are never played.
    used = (labels >= 0) & (weight > 0)
    x, y, w = features[used].astype(np.float64), labels[used] == 1, weight[used]
    model.fit(x, y, sample_weight=w / w.mean())
    layered = hasattr(model, "coefs_")
    weights = [matrix.T for matrix in model.coefs_] if layered else [model.coef_]
    biases = model.intercepts_ if layered else [model.intercept_]
    # The threshold is not that of even odds: it is chosen on `fuse` within the false-alarm budget, as those of the others are.
    without_threshold = Classifier(layers_of(zip(weights, biases, strict=True)), 0.0)
    logits, calibrate = (without_threshold.logits(traffic) for traffic in (fuse, data.calibrate))
    search = ThresholdSearch(data, config["false_alarm_budget"])
    return Classifier(without_threshold.layers, search.threshold(logits, calibrate[0]))


def logistic(data: FusionData, setup: FusionSetup) -> Classifier:
    """Logistic regression."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 (as above)

    return _classifier(data, setup, LogisticRegression(max_iter=1000))


def perceptron(data: FusionData, setup: FusionSetup) -> Classifier:
    """A multilayer perceptron with the policy's widths, with as many gradient steps as the policy may take."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 (as above)
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415

    config, rows = setup.config, int((data.fuse.labels >= 0).sum())
    epochs = -(-config["steps"] * config["batch_size"] // rows)
    model = MLPClassifier(
        tuple(setup.hidden),
        batch_size=config["batch_size"],
        max_iter=epochs,
        n_iter_no_change=epochs,
        random_state=config["seed"],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the budget of steps is what ends it
        return _classifier(data, setup, model)
