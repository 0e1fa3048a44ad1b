"""Isolation Forest and PCA fitted to each enrolled vehicle's own attack-free traffic.

Cross-fitted, so that no window is judged by a model that has seen it: one model learns the first half of each capture of a vehicle's
enrolment, one the second halves. Windows of the enrolment, on which thresholds are set, have the score of the half that they are not in; others have
the mean of both (cross-conformal prediction, Vovk 2015).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import IsolationForest

from canids_evaluate.judging import node_pca
from canids_shared.alarm_rule import enrolled_vehicles
from canids_shared.contracts.graph_store import GraphStore

Scorer = Callable[[GraphStore, np.ndarray], np.ndarray]
"""A store and the windows to judge, bool [W], to their scores in [0, 1]."""
METHODS = ("isolation_forest", "node_pca")
"""The window baselines whose place these take where vehicles are enrolled."""


def _forest(store: GraphStore, learnt: np.ndarray, trees: int, seed: int) -> Scorer:
    forest = IsolationForest(n_estimators=trees, random_state=seed, n_jobs=1).fit(store["statistics"][learnt])
    return lambda judged, rows: np.asarray(-forest.score_samples(judged["statistics"][rows]), dtype=np.float64)


@dataclass(frozen=True)
class OwnTraffic:
    """The models of all enrolled vehicles.

    Attributes:
        store: the enrolment.
        halves: which windows of it are of a capture's second half, bool [W].
        models: vehicle → method → the models of the first and of the second halves.
    """

    store: GraphStore
    halves: np.ndarray
    models: dict[str, dict[str, tuple[Scorer, Scorer]]]

    @classmethod
    def learn(cls, store: GraphStore, trees: int, seed: int) -> "OwnTraffic":
        """Fit to both halves of every vehicle with windows enough (`alarm_rule.enrolled_vehicles`)."""
        vehicle, capture, free = np.asarray(store["vehicle"]), np.asarray(store["capture"]), np.asarray(store["y"]) == 0
        second = np.zeros(len(store), dtype=bool)
        models: dict[str, dict[str, tuple[Scorer, Scorer]]] = {}
        for name in enrolled_vehicles(store.keys())[0]:
            number = store.header["vehicles"].index(name)
            own = (vehicle == number) & free
            for turn, of in enumerate(np.unique(capture[own])):
                rows = np.flatnonzero(own & (capture == of))
                second[rows[(len(rows) + turn % 2) // 2 :]] = True  # the window in the middle goes to each half in turn
            first, last = (own & (second == half) for half in (False, True))
            forests = _forest(store, first, trees, seed), _forest(store, last, trees, seed)
            pcas = node_pca.learn(store, seed, first), node_pca.learn(store, seed, last)
            models[name] = dict(zip(METHODS, (forests, pcas), strict=True))
        return cls(store, second, models)

    def scores(self, store: GraphStore, method: str) -> np.ndarray:
        """Scores of each window of a store, f64 [W]; 0 for vehicles that are not enrolled."""
        score, vehicles = np.zeros(len(store)), np.asarray(store.header["vehicles"], dtype=object)[store["vehicle"]]
        for name, by_method in self.models.items():
            rows, (first, second) = vehicles == name, by_method[method]
            if not rows.any():  # enrolled for another scenario
                continue
            if store is not self.store:
                score[rows] = (first(store, rows) + second(store, rows)) / 2
                continue
            for model, half in ((first, self.halves), (second, ~self.halves)):
                score[rows & half] = model(store, rows & half)
        return score
