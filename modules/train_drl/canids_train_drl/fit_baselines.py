"""Learn the fusion_baselines of one variant (rule fusion_baselines).

python -m canids_train_drl.fit_baselines --spec JSON --model model.safetensors --config config.yaml
    --fuse fuse.parquet --select select.parquet --calibrate calibrate.parquet
"""

import logging
import time
from collections.abc import Callable

import numpy as np
import torch

from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point
from canids_shared.jobs.run_folder import write_config
from canids_train_drl.fusion_baselines import classifiers, networks, stored, thresholds
from canids_train_drl.prepared import Prepared, prepare
from canids_train_drl.terms import Terms

log = logging.getLogger(__name__)


def _stable_baselines(prepared: Prepared, terms: Terms) -> networks.Player:
    try:
        from canids_train_drl.fusion_baselines import stable_baselines  # noqa: PLC0415 (it takes seconds, and not everyone has it)
    except ModuleNotFoundError as error:
        raise CanidsError(
            f"train_drl.fusion_baselines has 'sb3_dqn', and package '{error.name}' is not installed: install the extra train-drl, "
            "or take 'sb3_dqn' out of the list"
        ) from None
    return stable_baselines.learn(prepared, terms)


def _hysteresis(prepared: Prepared, terms: Terms) -> thresholds.Hysteresis:
    return thresholds.with_hysteresis(prepared, terms.weight, terms.threshold, terms.config["false_alarm_budget"])


def _cusum(prepared: Prepared, terms: Terms) -> thresholds.Cusum:
    return thresholds.with_cusum(prepared, terms.weight, terms.threshold, terms.config["false_alarm_budget"])


_LEARNT: dict[str, Callable[[Prepared, Terms], stored.FusionBaseline]] = {
    "fixed_weight": lambda _, terms: thresholds.FixedWeight(terms.weight, terms.threshold),
    "hysteresis": _hysteresis,
    "cusum": _cusum,
    "logistic": classifiers.logistic,
    "mlp": classifiers.perceptron,
    "bandit": networks.bandit,
    "sb3_dqn": _stable_baselines,
}
NAMES = tuple(_LEARNT)
"""All fusion_baselines, as the config's `fusion_baselines` names them."""


def learn(prepared: Prepared, terms: Terms, names: list[str]) -> dict[str, stored.FusionBaseline]:
    """Learn the named fusion_baselines, one after the other; the same config and seed give the same."""
    learnt, seed = {}, terms.config["seed"]
    for name in names:
        begin = time.perf_counter()
        np.random.seed(seed)  # noqa: NPY002 (scikit-learn and Stable-Baselines3 draw from it)
        torch.manual_seed(seed)
        learnt[name] = _LEARNT[name](prepared, terms)
        log.info("%s: learnt in %.1f s", name, time.perf_counter() - begin)
    return learnt


def main(call: entry_point.Call) -> None:
    """Learn and write fusion_baselines and config."""
    config = call.config
    torch.set_num_threads(config["torch_threads"])
    prepared = prepare(call.inputs, config, torch.device("cpu"))
    wanted = dict.fromkeys([*config["fusion_baselines"], *([config["fusion"]] if config["fusion"] != "dqn" else [])])
    fusion_baselines = learn(prepared, Terms.of(call, prepared), list(wanted))
    stored.save(call.output["model"], fusion_baselines, prepared.observer, config["false_alarm_budget"])
    write_config(call.output["config"], call)


if __name__ == "__main__":
    entry_point.run(main, inputs=["fuse", "select", "calibrate"], outputs=["model", "config"], alone="model")
