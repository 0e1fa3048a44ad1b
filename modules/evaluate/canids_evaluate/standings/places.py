"""What a fold and a scenario judge: a vehicle never met, traffic of other makes, a kind of attack never met; and ablations of folds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from canids_evaluate.pages.comparison import MethodResults
from canids_evaluate.pages.rows import Methods
from canids_shared.contracts.manifest import ENROLLED, UNSEEN, base_of

VEHICLE, MAKES, ATTACK, KNOWN = "vehicle", "makes", "attack", "known"
SETTINGS = {
    VEHICLE: "Vehicles never met",
    MAKES: "Traffic of vehicles that nothing is trained on",
    ATTACK: "Kinds of attack never met",
    KNOWN: "Known vehicles",
}
"""What is judged → its heading, in the order of the page."""
ZERO_SHOT, ENROLLED_REGIME = "zero-shot", "enrolled"
REGIMES = (ZERO_SHOT, ENROLLED_REGIME)
_OF_FOLDS = {"vehicles": VEHICLE, "attacks": ATTACK}
"""Key of `leave_out` → what such a fold judges; any other leaves captures of known vehicles out."""
_CLASSIFIERS = ("extra_trees", "gradient_boosting")
_BASELINES, _LEARNT, _ONE_CLASS, _OWN = (
    *("Fusion baselines", "Classifiers of window statistics"),
    *("Rules and models of attack-free traffic", "Detectors of others"),
)


@dataclass(frozen=True)
class Place:
    """What results on a scenario of a fold judge."""

    setting: str
    regime: str


def place_of(scenario: str, left_out: Mapping[str, Any]) -> Place:
    """The place of a scenario of a fold that leaves these out (`preprocess.leave_out`)."""
    regime = ENROLLED_REGIME if scenario.endswith(ENROLLED) else ZERO_SHOT
    of_fold = next((_OF_FOLDS[key] for key in left_out if key in _OF_FOLDS), KNOWN)
    return Place(MAKES if base_of(scenario) == UNSEEN else of_fold, regime)


def ablation_of(fold: str, ablations: Iterable[str]) -> tuple[str, str]:
    """Split a fold's name: `@without-kia-no_edges` → `@without-kia`, `no_edges`; empty where nothing is taken away."""
    name = next((a for a in sorted(ablations, key=len, reverse=True) if fold.endswith(f"-{a}")), "")
    return (fold.removesuffix(f"-{name}"), name) if name else (fold, "")


def family_of(method: str, methods: Methods, variant: str | None, own: Iterable[str]) -> str:
    """The family of a method: fusion, each of its detectors, fusion baselines, two of window baselines, detectors of others."""
    if method in methods.networks:
        return methods.label(method)
    if method in own:
        return _OWN
    if variant is not None:
        return _BASELINES
    return _LEARNT if method in _CLASSIFIERS else _ONE_CLASS


def families(found: Iterable[str]) -> list[str]:
    """Families in the order of tables: the networks, as found, then the others."""
    last = (_BASELINES, _LEARNT, _ONE_CLASS, _OWN)
    distinct = list(dict.fromkeys(found))
    return [*(f for f in distinct if f not in last), *(f for f in last if f in distinct)]


ALWAYS = "always_attack"
"""The method that says nothing, and is never the best of its family."""


def split_ablations(
    results: Sequence[MethodResults], ablations: Iterable[str]
) -> tuple[list[MethodResults], dict[str, list[MethodResults]]]:
    """The results of whole folds; and for each ablation those of its folds less those of the whole ones, seed by seed.

    Both are judged on the same windows and resamples, so they are subtracted resample by resample. What either lacks is left out.
    """
    names = list(ablations)
    whole = {(*r.place, r.variant, r.method): r for r in results if not ablation_of(r.fold, names)[1]}
    changes: dict[str, list[MethodResults]] = {name: [] for name in names}
    for result in results:
        fold, name = ablation_of(result.fold, names)
        full = whole.get((result.dataset, fold, result.scenario, result.variant, result.method))
        if not name or full is None:
            continue
        if runs := {s: run.minus(full.runs[s]) for s, run in result.runs.items() if s in full.runs}:
            changes[name].append(replace(result, fold=fold, runs=runs, difference=True))
    return list(whole.values()), {name: found for name, found in changes.items() if found}
