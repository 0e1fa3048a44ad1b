"""The rivals' file (contract `rivals/1`): what each of them learnt, and the observer through which they see the traffic."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from canids_shared.contracts.model_file import RIVALS, Arrays, load_arrays, save_arrays
from canids_train_drl.environment import Actions, Traffic
from canids_train_drl.observation import Observer
from canids_train_drl.rivals.networks import Classifier, Player
from canids_train_drl.rivals.thresholds import Cusum, FixedWeight, Hysteresis

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (FixedWeight, Hysteresis, Cusum, Classifier, Player)}


class Rival(Protocol):
    """A fusion that has been learnt."""

    def decide(self, traffic: Traffic) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [N] in [0, 1] and alarms bool [N] on traffic as recorded."""
        ...

    def resumed(self, traffic: Traffic, past: Any) -> tuple[np.ndarray, np.ndarray, Any]:
        """The same on the next windows of one segment, and what they leave behind.

        `past` is what the windows before left behind; None at the beginning.
        """
        ...


def save(path: Path, rivals: dict[str, Any], observer: Observer, budget: float) -> None:
    """Write the rivals by name, and the false-alarm budget that they keep to; the same rivals give the same bytes."""
    arrays: Arrays = {}
    heads = {}
    for name, rival in rivals.items():
        head: dict[str, Any] = {"kind": type(rival).__name__}
        for field in fields(rival):
            value = getattr(rival, field.name)
            if field.name == "layers":
                for n, (weight, bias) in enumerate(value):
                    arrays |= {f"{name}.{n}.weight": weight, f"{name}.{n}.bias": bias}
                head["layers"] = len(value)
            else:
                head[field.name] = asdict(value) if isinstance(value, Actions) else value
        heads[name] = head
    header = {"contract": RIVALS, "rivals": heads, "observer": observer.to_json(), "false_alarm_budget": budget}
    save_arrays(path, arrays, header)


def budget_of(path: Path) -> float | None:
    """The false-alarm budget that the rivals keep to, by their file."""
    found: float | None = load_arrays(path, RIVALS)[1].get("false_alarm_budget")
    return found


def load(path: Path) -> tuple[dict[str, Rival], Observer]:
    """Read rivals and observer; raises `CanidsError` naming the file if it is absent, cut off, or of another contract."""
    arrays, header = load_arrays(path, RIVALS)
    rivals: dict[str, Rival] = {}
    for name, head in header["rivals"].items():
        options: dict[str, Any] = {k: Actions(**v) if k == "actions" else v for k, v in head.items() if k != "kind"}
        if "layers" in options:
            count = options["layers"]
            options["layers"] = tuple((arrays[f"{name}.{n}.weight"], arrays[f"{name}.{n}.bias"]) for n in range(count))
        rivals[name] = _KINDS[head["kind"]](**options)
    return rivals, Observer.from_json(header["observer"])
