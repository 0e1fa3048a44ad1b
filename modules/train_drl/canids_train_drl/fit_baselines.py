"""Fit the fusion baselines of one variant (rule fusion_baselines).

python -m canids_train_drl.fit_baselines --spec JSON --model model.safetensors --config config.yaml
    --fuse fuse.parquet --select select.parquet --calibrate calibrate.parquet

With the rule's constant `attacks` false, where no training capture holds one, it is a threshold that the false-alarm budget sets.
"""

import logging
import time
from collections.abc import Callable

import numpy as np
import torch

from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point
from canids_shared.jobs.run_folder import run_identity, write_config
from canids_train_drl.environment.fusion_data import FusionData
from canids_train_drl.environment.fusion_setup import FusionSetup
from canids_train_drl.environment.holding import rule_of
from canids_train_drl.environment.rollout import Fusion
from canids_train_drl.fusion_baselines import classifiers, names_of, networks, thresholds
from canids_train_drl.fusion_baselines.stored import FusionBaselines

log = logging.getLogger(__name__)


def _stable_baselines(data: FusionData, setup: FusionSetup) -> networks.Player:
    try:
        from canids_train_drl.fusion_baselines import stable_baselines  # noqa: PLC0415 (slow to import, and optional)
    except ModuleNotFoundError as error:
        raise CanidsError(
            f"train_drl.fusion_baselines has 'sb3_dqn', and package '{error.name}' is not installed: install the extra train-drl, "
            "or take 'sb3_dqn' out of the list"
        ) from None
    return stable_baselines.learn(data, setup)


_FIT: dict[str, Callable[[FusionData, FusionSetup], Fusion]] = {
    "fixed_weight": thresholds.fixed_weight,
    "max": thresholds.combined("max"),
    "mean": thresholds.combined("mean"),
    "noisy_or": thresholds.combined("noisy_or"),
    "hysteresis": thresholds.with_hysteresis,
    "cusum": thresholds.with_cusum,
    "logistic": classifiers.logistic,
    "mlp": classifiers.perceptron,
    "bandit": networks.bandit,
    "sb3_dqn": _stable_baselines,
}
NAMES = tuple(_FIT)
"""All fusion baselines, as the config's `fusion_baselines` names them."""


def fit(data: FusionData, setup: FusionSetup, names: list[str]) -> dict[str, Fusion]:
    """Fit the named fusion baselines, one after the other; the same config and seed give the same."""
    fitted, seed = {}, setup.config["seed"]
    for name in names:
        begin = time.perf_counter()
        np.random.seed(seed)  # noqa: NPY002 (scikit-learn and Stable-Baselines3 draw from it)
        torch.manual_seed(seed)
        fitted[name] = _FIT[name](data, setup)
        log.info("%s: fitted in %.1f s", name, time.perf_counter() - begin)
    return fitted


def main(call: entry_point.Call) -> None:
    """Fit and write fusion baselines and config."""
    config = call.config
    torch.set_num_threads(config["torch_threads"])
    wanted = {**call.made_for("dataset"), "variant": call.constants["variant"]}
    attacks = call.constants.get("attacks", True)
    data = FusionData.read(call.inputs, config, torch.device("cpu"), attacks=attacks, **wanted)
    fitted = fit(data, FusionSetup.of(call, data), names_of(config, attacks))
    rules = {name: rule_of(fusion, data.observer, data.splits["calibrate"], config) for name, fusion in fitted.items()}
    stored = FusionBaselines(fitted, data.observer, config["false_alarm_budget"], rules)
    stored.save(call.output["model"], run_identity(call, "fusion_baselines"))
    write_config(call.output["config"], call)


if __name__ == "__main__":
    entry_point.run(main, inputs=["fuse", "select", "calibrate"], outputs=["model", "config"], alone="model")
