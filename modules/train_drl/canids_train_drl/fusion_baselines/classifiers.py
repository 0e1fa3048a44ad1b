"""Fusion baselines that scikit-learn fits: logistic regression and a perceptron."""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from canids_train_drl.fusion_baselines.networks import Classifier, layers_of
from canids_train_drl.fusion_baselines.thresholds import Ground, thresholded
from canids_train_drl.prepared import Prepared
from canids_train_drl.terms import Terms


def _classifier(prepared: Prepared, terms: Terms, model: Any) -> Classifier:
    """Fit on every labelled window of `fuse` in every world, weighted by the world's probability and the costs of an error."""
    fuse, config = prepared.fuse, terms.config
    labels, features = fuse.labels.cpu().numpy(), fuse.features.cpu().numpy()
    cost = np.where(labels == 1, config["reward"]["missed_attack"], config["reward"]["false_alarm"])
    weight = fuse.probability.cpu().numpy()[:, None] * cost
    used = (labels >= 0) & (weight > 0)
    x, y, w = features[used].astype(np.float64), labels[used] == 1, weight[used]
    model.fit(x, y, sample_weight=w / w.mean())
    pairs = (
        list(zip((c.T for c in model.coefs_), model.intercepts_, strict=True))
        if isinstance(model, MLPClassifier)
        else [(model.coef_, model.intercept_)]
    )
    layers = layers_of(pairs)
    raw = Classifier(layers, 0.0)
    ground = Ground.of(prepared, config["false_alarm_budget"])
    return Classifier(layers, thresholded(raw.logits(fuse), raw.logits(prepared.calibrate)[0], ground))


def logistic(prepared: Prepared, terms: Terms) -> Classifier:
    """Logistic regression."""
    return _classifier(prepared, terms, LogisticRegression(max_iter=1000))


def perceptron(prepared: Prepared, terms: Terms) -> Classifier:
    """A multilayer perceptron with the policy's widths, given as many gradient steps as the policy may take."""
    config, rows = terms.config, int((prepared.fuse.labels >= 0).sum())
    epochs = -(-config["steps"] * config["batch_size"] // rows)
    model = MLPClassifier(
        tuple(terms.hidden),
        batch_size=config["batch_size"],
        max_iter=epochs,
        n_iter_no_change=epochs,
        random_state=config["seed"],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the budget ends it, as is meant
        return _classifier(prepared, terms, model)
