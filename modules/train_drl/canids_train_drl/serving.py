"""A policy for callers who know nothing of this project's files: what the detectors say in, scores and alarms out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from canids_shared.errors import CanidsError
from canids_train_drl.playing import FREE, Lanes, play
from canids_train_drl.policy import Policy
from canids_train_drl.prepared import as_recorded
from canids_train_drl.states import States


class Served:
    """A trained policy."""

    def __init__(self, model: Path) -> None:
        """Read a policy file; raises `CanidsError` naming it if it is absent, cut off, or of another contract."""
        self._policy = Policy.load(model)
        self._path = model

    def __call__(self, table: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """`fusion_score` float32 [N] in [0, 1] and `alarm` bool [N] for the N windows of one capture, in their order.

        The first one begins with a quiet alarm; each depends on itself and those before it.

        Args:
            table: the columns that train_gnn's `states` have (`vgae_…`, `gat_…`), N values each.

        Raises `CanidsError` naming a column that is missing, or that holds what is no number.
        """
        columns = self._policy.observer.columns
        if absent := [name for name in columns if name not in table]:
            raise CanidsError(f"column '{absent[0]}' is missing; the policy needs {', '.join(columns)}")
        values = np.stack([np.asarray(table[name], dtype=np.float32) for name in columns], axis=1)
        if len(wrong := np.argwhere(~np.isfinite(values))):
            raise CanidsError(f"column '{columns[wrong[0][1]]}', row {wrong[0][0]}: NaN or infinity")
        count = len(values)
        keys = pl.DataFrame({"window": np.arange(count)})
        segments = np.unique([0, count])
        windows = States(self._path, keys, columns, values, np.full(count, -1, dtype=np.int8), segments)
        traffic = as_recorded(windows, self._policy.observer)
        played = play(self._policy.network, traffic, Lanes.whole(segments), self._policy.actions, FREE)
        return {"fusion_score": played.score[0].numpy(), "alarm": played.alarm[0].numpy()}
