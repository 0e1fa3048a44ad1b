"""Three detectors as arrays, and how the statistics of a window become three scores.

All see the S statistics of a window (`statistics` of the contract graphs/3), standardised by mean and spread of the
attack-free training windows and clipped to ±10.

- `pca`, unsupervised: principal components of attack-free windows; the score is what they leave unexplained.
- `perceptron`, supervised: one hidden layer; the score is the log odds that the window is attacked.
- `trees`, supervised: extremely randomised trees (Geurts et al. 2006); the score is the log odds of their mean probability.

Models are stored as arrays (safetensors), never pickled.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from canids_shared.contracts import model_file
from canids_shared.contracts.detectors import Detector
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError

CONTRACT = "own_detector/2"
DETECTORS = (
    Detector("perceptron", "Perceptron", "perceptron_logit", supervised=True, even_odds=0.0),
    Detector("trees", "Extra Trees (own)", "trees_logit", supervised=True, even_odds=0.0),
    Detector("pca", "PCA", "pca_error", supervised=False),
)
"""The declaration that the states files carry; fusion, evaluation and scoring read the detectors from there."""
CLIP = 10.0
_SMOOTHING = 1e-3
"""Added to both probabilities of the trees, so that a unanimous forest has finite log odds."""


@dataclass(frozen=True)
class Models:
    """The three detectors of a variant; S statistics, K components, H hidden units, T trees with N nodes in all.

    Attributes:
        statistics: names of the S statistics that they were trained on.
        centre, spread: [S] float64.
        components: [K, S] float64, orthonormal rows.
        weights, bias: of the hidden layer, [S, H] and [H] float64.
        out_weights, out_bias: of the output, [H] and [1] float64.
        roots: [T] int32, first node of each tree.
        left, right: [N] int32, children of each node; a leaf is its own child.
        feature: [N] int32, the statistic that a node compares.
        threshold: [N] float64, left where the statistic is at most this.
        probability: [N] float64, share of attacked training windows in the node.
    """

    statistics: list[str]
    centre: np.ndarray
    spread: np.ndarray
    components: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    out_weights: np.ndarray
    out_bias: np.ndarray
    roots: np.ndarray
    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    probability: np.ndarray

    def outputs(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """States columns of windows with the statistics `values` [W, S]; each [W] float32.

        The three scores are larger where a window is more anomalous; `pca_latent_norm` is the length of what the components
        explain, which the fusion reads as it is.
        """
        z = standardised(values, self.centre, self.spread)
        # The components span what attack-free windows have in common: the rest of a window is its error.
        latent = z @ self.components.T
        attacked = self._forest(z)
        # Log odds and logarithms of errors are spread more evenly than probabilities and errors are.
        columns = {
            "perceptron_logit": np.maximum(z @ self.weights + self.bias, 0) @ self.out_weights + self.out_bias,
            "trees_logit": np.log((attacked + _SMOOTHING) / (1 - attacked + _SMOOTHING)),
            "pca_error": np.log1p(((z - latent @ self.components) ** 2).mean(axis=1)),
            "pca_latent_norm": np.linalg.norm(latent, axis=1),
        }
        return {name: column.astype(np.float32) for name, column in columns.items()}

    def _forest(self, z: np.ndarray) -> np.ndarray:
        """Mean probability [W] of the leaves that windows `z` [W, S] reach in the trees."""
        total = np.zeros(len(z))
        for root in self.roots:
            node = np.full(len(z), root)
            # All windows go down one level at a time; a window in a leaf stays there.
            while (self.left[node] != node).any():
                below = z[np.arange(len(z)), self.feature[node]] <= self.threshold[node]
                node = np.where(below, self.left[node], self.right[node])
            total += self.probability[node]
        return total / len(self.roots)

    def save(self, path: Path, header: dict[str, Any]) -> None:
        """Write the model file whole; `header` is JSON that is stored beside the arrays."""
        arrays = {k: v for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        model_file.save_arrays(path, arrays, {**header, "contract": CONTRACT, "statistics": self.statistics})


def standardised(values: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """`values` [W, S] in spreads from the centre, clipped; float64."""
    return np.asarray(np.clip((values.astype(np.float64) - centre) / spread, -CLIP, CLIP))


def load(path: Path, store: GraphStore) -> Models:
    """Read the models that are to be applied to `store`.

    Raises `CanidsError` naming the file if it is damaged, or was trained on other statistics than the store has.
    """
    arrays, header = model_file.load_arrays(path, CONTRACT)
    if header["statistics"] != store.header["statistics"]:
        raise CanidsError(f"{path}: trained on other statistics than {store.path} has; train again")
    return Models(statistics=header["statistics"], **arrays)
