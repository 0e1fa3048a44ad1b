"""What the two detectors are: arrays, and how a window's statistics become two scores.

Both see the S statistics of a window (`statistics` of the contract graphs/1), standardised by the mean and spread of the
attack-free training windows and clipped to ±10.

- Unsupervised: principal components of attack-free windows; what they leave unexplained is the error.
- Supervised: a perceptron with one hidden layer; its output is the log odds that the window is attacked.

Models are kept as arrays (safetensors), never pickled.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from canids_shared.contracts import model_file
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError

CONTRACT = "own_detector/1"
CLIP = 10.0


@dataclass(frozen=True)
class Detector:
    """Both detectors of a variant; S statistics, K components, H hidden units, all float64.

    Attributes:
        statistics: names of the S statistics that it was trained on.
        centre, spread: [S].
        components: [K, S], orthonormal rows.
        weights, bias: of the hidden layer, [S, H] and [H].
        out_weights, out_bias: of the output, [H] and [1].
    """

    statistics: list[str]
    centre: np.ndarray
    spread: np.ndarray
    components: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    out_weights: np.ndarray
    out_bias: np.ndarray

    def outputs(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """What it says of windows with the statistics `values` [W, S]; each [W] float32, larger = more anomalous.

        `vgae_error` is log(1 + mean squared residual), `vgae_latent_norm` the length of what the components explain,
        `gat_logit` the log odds. The names are those of the roles in the contract states/1 (README.md).
        """
        z = standardised(values, self.centre, self.spread)
        latent = z @ self.components.T
        error = np.log1p(((z - latent @ self.components) ** 2).mean(axis=1))
        logit = np.maximum(z @ self.weights + self.bias, 0) @ self.out_weights + self.out_bias
        found = {"vgae_error": error, "vgae_latent_norm": np.linalg.norm(latent, axis=1), "gat_logit": logit}
        return {name: column.astype(np.float32) for name, column in found.items()}

    def save(self, path: Path, header: dict[str, Any]) -> None:
        """Write the model file whole; `header` says what else is to be known of it."""
        arrays = {k: v for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        model_file.save_arrays(path, arrays, {**header, "contract": CONTRACT, "statistics": self.statistics})


def standardised(values: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """`values` [W, S] in spreads from the centre, clipped; float64."""
    return np.asarray(np.clip((values.astype(np.float64) - centre) / spread, -CLIP, CLIP))


def load(path: Path, store: GraphStore) -> Detector:
    """Read a detector that is to be applied to `store`.

    Raises `CanidsError` naming the file if it is damaged, or was trained on other statistics than the store has.
    """
    arrays, header = model_file.load_arrays(path, CONTRACT)
    if header["statistics"] != store.header["statistics"]:
        raise CanidsError(f"{path}: trained on other statistics than {store.path} has; train again")
    return Detector(statistics=header["statistics"], **arrays)
