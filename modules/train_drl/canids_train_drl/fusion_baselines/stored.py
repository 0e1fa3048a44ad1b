"""The fusion_baselines' file (contract `fusion_baselines/1`): what each of them learnt, and the observer through which they see the traffic."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from canids_shared.contracts.model_file import FUSION_BASELINES, Arrays, load_arrays, save_arrays
from canids_train_drl.environment import Actions, Traffic
from canids_train_drl.fusion_baselines.networks import Classifier, Player
from canids_train_drl.fusion_baselines.thresholds import Cusum, FixedWeight, Hysteresis
from canids_train_drl.observation import Observer

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (FixedWeight, Hysteresis, Cusum, Classifier, Player)}


class FusionBaseline(Protocol):
    """A fusion that has been learnt."""

    def decide(self, traffic: Traffic) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [N] in [0, 1] and alarms bool [N] on traffic as recorded."""
        ...

    def resumed(self, traffic: Traffic, past: Any) -> tuple[np.ndarray, np.ndarray, Any]:
        """The same on the next windows of one segment, and what they leave behind.

        `past` is what the windows before left behind; None at the beginning.
        """
        ...


def save(path: Path, fusion_baselines: dict[str, Any], observer: Observer, budget: float) -> None:
    """Write the fusion_baselines by name, and the false-alarm budget that they keep to; the same fusion_baselines give the same bytes."""
    arrays: Arrays = {}
    heads = {}
    for name, baseline in fusion_baselines.items():
        head: dict[str, Any] = {"kind": type(baseline).__name__}
        for field in fields(baseline):
            value = getattr(baseline, field.name)
            if field.name == "layers":
                for n, (weight, bias) in enumerate(value):
                    arrays |= {f"{name}.{n}.weight": weight, f"{name}.{n}.bias": bias}
                head["layers"] = len(value)
            else:
                head[field.name] = asdict(value) if isinstance(value, Actions) else value
        heads[name] = head
    header = {
        "contract": FUSION_BASELINES,
        "fusion_baselines": heads,
        "observer": observer.to_json(),
        "false_alarm_budget": budget,
    }
    save_arrays(path, arrays, header)


def budget_of(path: Path) -> float | None:
    """The false-alarm budget that the fusion_baselines keep to, by their file."""
    found: float | None = load_arrays(path, FUSION_BASELINES)[1].get("false_alarm_budget")
    return found


def load(path: Path) -> tuple[dict[str, FusionBaseline], Observer]:
    """Read fusion_baselines and observer; raises `CanidsError` naming the file if it is absent, cut off, or of another contract."""
    arrays, header = load_arrays(path, FUSION_BASELINES)
    fusion_baselines: dict[str, FusionBaseline] = {}
    for name, head in header["fusion_baselines"].items():
        options: dict[str, Any] = {k: Actions(**v) if k == "actions" else v for k, v in head.items() if k != "kind"}
        if "layers" in options:
            count = options["layers"]
            options["layers"] = tuple((arrays[f"{name}.{n}.weight"], arrays[f"{name}.{n}.bias"]) for n in range(count))
        fusion_baselines[name] = _KINDS[head["kind"]](**options)
    return fusion_baselines, Observer.from_json(header["observer"])
