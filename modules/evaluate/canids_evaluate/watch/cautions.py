"""Warnings of the data behind an evaluation, by name: for the log, the report, the cards and the leaderboard."""

from collections.abc import Iterator, Mapping

import numpy as np

from canids_evaluate.judging.bounds import ENOUGH
from canids_evaluate.watch import drift
from canids_shared.contracts.graph_store import GraphStore
from canids_shared.errors import CanidsError


def cautions(
    training: Mapping[str, GraphStore], scenarios: Mapping[str, GraphStore], episodes: Mapping[str, int]
) -> list[str]:
    """A sentence for each warning.

    Args:
        training: the splits `fit`, `select`, `fuse` and `calibrate`, as far as they are at hand; `fit` and `calibrate` always.
        scenarios: what is judged.
        episodes: scenario → attack episodes in it.
    """
    return [
        *_without_recorded_attacks(training),
        *_without_recorded_windows(training),
        *_simulated_thresholds(training["calibrate"]),
        *_few_episodes(episodes),
        *_unlike_training(training["fit"], scenarios),
    ]


def _recorded(store: GraphStore) -> np.ndarray:
    """Windows of the dataset's own captures, bool [W]."""
    return np.asarray(~store.is_auxiliary)


def _without_recorded_attacks(training: Mapping[str, GraphStore]) -> Iterator[str]:
    attacked = {split: np.asarray(store["y"]) == 1 for split, store in training.items()}
    lacking = [s for s, y in attacked.items() if not (y & _recorded(training[s]) & ~training[s].is_injected).any()]
    for simulated in (True, False):
        named = [f"`{split}`" for split in lacking if attacked[split].any() == simulated]
        if named:
            reason = "what is learnt or chosen on it rests on simulated ones" if simulated else "nor any other"
            yield f"No recorded attacked window in {', '.join(named)}: {reason}."


def _without_recorded_windows(training: Mapping[str, GraphStore]) -> Iterator[str]:
    vehicles = {split: set(store.counts(_recorded(store))["vehicles"]) for split, store in training.items()}
    if lacking := sorted(set().union(*vehicles.values()) - vehicles["calibrate"]):
        yield f"No recorded window of {', '.join(lacking)} in `calibrate`: thresholds are set without that traffic."


def _simulated_thresholds(calibrate: GraphStore) -> Iterator[str]:
    free = np.asarray(calibrate["y"]) == 0
    if free.any() and not (free & _recorded(calibrate)).any():
        yield "Thresholds rest on simulated windows alone: `calibrate` has no recorded attack-free window."


def _few_episodes(episodes: Mapping[str, int]) -> Iterator[str]:
    if few := [f"`{name}` ({n})" for name, n in episodes.items() if 0 < n < ENOUGH]:
        yield f"Fewer than {ENOUGH} attack episodes in {', '.join(few)}: counts instead of intervals."


def _unlike_training(fit: GraphStore, scenarios: Mapping[str, GraphStore]) -> Iterator[str]:
    """Captures whose attack-free windows drift from those of `fit`; of a scenario they share a sentence."""
    try:
        reference = drift.TrainingReference(fit, fit.header["node_features"], fit.path)
    except CanidsError:  # nothing attack-free to learn from, which others refuse
        return
    for scenario, store in scenarios.items():
        if store.header["node_features"] != reference.names:  # others refuse it
            continue
        named = []
        for number, capture in enumerate(store.header["captures"]):
            normal = (np.asarray(store["y"]) == 0) & (np.asarray(store["capture"]) == number)
            if normal.any() and (found := drift.from_reference(reference, store, normal)).overall > drift.OVERALL:
                feature, by = next(iter(found.features.items()))
                named.append(f"{capture} ({found.overall:.1f}, {feature} {by:+.1f})")
        if named:
            yield (
                f"Attack-free traffic unlike training in `{scenario}`: {', '.join(named)} (drift in training standard deviations, "
                f"above {drift.OVERALL:g}, and the feature that moved most)."
            )
