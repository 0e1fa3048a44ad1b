"""A policy for callers that know no file of this project: detector outputs in, scores and alarms out."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_shared.errors import CanidsError
from canids_train_drl.agent.policy import Policy
from canids_train_drl.environment.fusion_data import as_recorded
from canids_train_drl.environment.holding import held
from canids_train_drl.environment.states import States
from canids_train_drl.environment.unlike import over


class Served:
    """A trained policy."""

    def __init__(self, model: Path) -> None:
        """Read a policy file; raises `CanidsError` naming it if it is absent, cut off, or of another contract."""
        self._policy = Policy.load(model)
        self._path = model

    def __call__(self, table: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """`fusion_score` float32 [N] in [0, 1] and `alarm` bool [N] for the N windows of one capture, in their order.

        The alarm is off before the first one; each depends on itself and those before it. The vehicle counts as one never met.

        Args:
            table: the columns of the detectors in states files, N values each.

        Raises `CanidsError` naming a column that is missing, or has a value that is not finite.
        """
        observer = self._policy.observer
        if absent := [name for name in observer.columns if name not in table]:
            raise CanidsError(f"column '{absent[0]}' is missing; the policy needs {', '.join(observer.columns)}")
        values = np.stack([np.asarray(table[name], dtype=np.float32) for name in observer.columns], axis=1)
        if len(wrong := np.argwhere(~np.isfinite(values))):
            raise CanidsError(f"column '{observer.columns[wrong[0][1]]}', row {wrong[0][0]}: NaN or infinity")
        count = len(values)
        keys, labels = pl.DataFrame({"window": np.arange(count)}), np.full(count, -1, dtype=np.int8)
        segments = np.unique([0, count])
        windows = States(self._path, observer.detectors, keys, observer.columns, values, labels, segments)
        _, voting = over(observer, values, segments)
        output, _ = self._policy.step(as_recorded(replace(windows, values=voting), observer), None)
        output = held(output, self._policy.rule, pl.Series([""] * count, dtype=pl.String), segments)
        return {"fusion_score": output.score, "alarm": output.alarm}
