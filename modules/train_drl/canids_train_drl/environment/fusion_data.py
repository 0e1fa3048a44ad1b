"""What the policy and the fusion baselines learn from: one scale, one view of the windows, the same worlds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from canids_train_drl.environment import states
from canids_train_drl.environment.augmentation import Augmentation
from canids_train_drl.environment.fusion_environment import Traffic
from canids_train_drl.environment.observation import Observer
from canids_train_drl.environment.states import States


@dataclass(frozen=True)
class FusionData:
    """Splits as a fusion sees them.

    Attributes:
        observer: fitted to attack-free `calibrate` windows.
        windows, augmentation: the `fuse` split and its worlds, for a teacher with other detectors.
        fuse, select: what to learn on and what to stop by, in all their worlds, on the device.
        calibrate: what false-alarm budgets are kept on, as it was recorded.
        splits: the three splits as they were read, also where `overfit_windows` takes a stretch.
    """

    observer: Observer
    windows: States
    augmentation: Augmentation
    fuse: Traffic
    select: Traffic
    calibrate: Traffic
    splits: dict[str, States]

    @classmethod
    def read(
        cls,
        inputs: dict[str, list[Path]],
        config: dict[str, Any],
        device: torch.device,
        *,
        attacks: bool = True,
        **wanted: str,
    ) -> "FusionData":
        """Read `fuse`, `select` and `calibrate` of a rule's inputs; equal config and inputs give equal worlds.

        The files must say what `wanted` does (`dataset`, `variant`), and their splits.

        Without `attacks` none is required, and there is one world: the one that was recorded.
        With `overfit_windows` a stretch of `fuse` is both what to learn on and what to stop by.

        Raises `CanidsError` naming the file where a required class has no window.
        """
        fuse = states.require(
            states.read(inputs["fuse"][0], split="fuse", **wanted), attacked=attacks, attack_free=True
        )
        select = states.require(
            states.read(inputs["select"][0], split="select", **wanted), attacked=attacks, attack_free=True
        )
        calibrate = states.require(
            states.read(inputs["calibrate"][0], split="calibrate", **wanted), attacked=False, attack_free=True
        )
        splits = {"fuse": fuse, "select": select, "calibrate": calibrate}
        if count := config["overfit_windows"]:
            fuse = select = states.stretch(fuse, count)
        # One generator for both splits, first `fuse` and then `select`: policy and fusion baselines get the same worlds.
        rng = np.random.default_rng(np.random.SeedSequence([config["seed"]]))
        observer = Observer.fit(calibrate, config)
        shares = (config["detector_dropout"], config["attack_splicing"])
        augmentation, of_select = (
            Augmentation.draw(split, *shares, rng) if attacks else Augmentation.none(split) for split in (fuse, select)
        )
        return cls(
            observer,
            fuse,
            augmentation,
            traffic_of(fuse, observer, augmentation, device),
            traffic_of(select, observer, of_select, device),
            as_recorded(calibrate, observer),
            splits,
        )


def traffic_of(split: States, observer: Observer, augmentation: Augmentation, device: torch.device) -> Traffic:
    """A split's windows in all its worlds, on the device.

    Raises `CanidsError` if its columns are not those that the observer was fitted to.
    """
    observer.check_columns(split)
    worlds = range(len(augmentation))
    features = np.stack([observer.observe(augmentation.values(split, world), split.segments) for world in worlds])
    return Traffic(
        torch.as_tensor(features, device=device),
        len(observer.detectors),
        torch.as_tensor(augmentation.labels(split), device=device),
        split.segments,
        torch.as_tensor(augmentation.probability.astype(np.float32), device=device),
    )


def as_recorded(split: States, observer: Observer) -> Traffic:
    """A split as it was recorded, in one world, on the CPU."""
    return traffic_of(split, observer, Augmentation.none(split), torch.device("cpu"))


def split_summary(split: States) -> dict[str, Any]:
    """Contents of a split: `windows`, how many are `attacked`, windows by vehicle and by attack, captures."""

    def counts(column: str) -> dict[str, int]:
        table = split.keys[column].value_counts(sort=False)
        return {name: count for name, count in sorted(table.iter_rows()) if name}

    attacked = int((split.labels == 1).sum())
    named = {"vehicles": counts("vehicle"), "attacks": counts("attack"), "captures": list(counts("capture"))}
    return {"windows": len(split), "attacked": attacked, **named}
