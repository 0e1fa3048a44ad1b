"""What every fusion learns from, the policy and its fusion_baselines alike: one scale, one view of the windows, the same worlds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from canids_train_drl import states, worlds
from canids_train_drl.environment import Traffic
from canids_train_drl.observation import Observer
from canids_train_drl.states import States
from canids_train_drl.worlds import Worlds


@dataclass(frozen=True)
class Prepared:
    """Splits as a fusion sees them.

    Attributes:
        observer: fitted on attack-free `calibrate` windows.
        windows, alike: the `fuse` split and its worlds, for a teacher with detectors of its own.
        fuse, select: what to learn on and what to stop by, in all their worlds, on the device.
        calibrate: what sets budgets, as it is.
    """

    observer: Observer
    windows: States
    alike: Worlds
    fuse: Traffic
    select: Traffic
    calibrate: Traffic

    @property
    def quiet(self) -> np.ndarray:
        """bool [M], which windows of `calibrate` are attack-free."""
        return np.asarray((self.calibrate.labels[0] == 0).cpu().numpy())


def traffic_of(split: States, observer: Observer, alike: Worlds, device: torch.device) -> Traffic:
    """A split's windows in all its worlds, on the device."""
    observer.check_columns(split)
    values = [alike.values(split, world) for world in range(len(alike))]
    features = np.stack([observer.features(v, split.segment_of) for v in values])
    scores = np.stack([observer.scores(v) for v in values])
    return Traffic(
        torch.as_tensor(features, device=device),
        torch.as_tensor(scores, device=device),
        torch.as_tensor(alike.labels(split), device=device),
        split.segments,
        torch.as_tensor(alike.probability.astype(np.float32), device=device),
    )


def as_recorded(split: States, observer: Observer) -> Traffic:
    """A split as it is, in one world, on the CPU.

    Raises `CanidsError` if its columns are not those that the observer was fitted on.
    """
    return traffic_of(split, observer, worlds.none(split), torch.device("cpu"))


def prepare(inputs: dict[str, list[Path]], config: dict[str, Any], device: torch.device) -> Prepared:
    """Read `fuse`, `select` and `calibrate` of a rule's inputs; equal config and inputs give equal worlds.

    With `overfit_windows` a stretch of `fuse` is both what to learn on and what to stop by.

    Raises `CanidsError` naming the file where a class that is needed has no window.
    """
    fuse = states.require(states.read(inputs["fuse"][0]), attacked=True, attack_free=True)
    select = states.require(states.read(inputs["select"][0]), attacked=True, attack_free=True)
    if count := config["overfit_windows"]:
        fuse = select = states.stretch(fuse, count)
    calibrate = states.require(states.read(inputs["calibrate"][0]), attacked=False, attack_free=True)
    rng = np.random.default_rng(np.random.SeedSequence([config["seed"]]))
    observer = Observer.fit(calibrate, config)
    alike, other = (worlds.draw(split, config["blind"], config["spliced"], rng) for split in (fuse, select))
    return Prepared(
        observer,
        fuse,
        alike,
        traffic_of(fuse, observer, alike, device),
        traffic_of(select, observer, other, device),
        as_recorded(calibrate, observer),
    )
