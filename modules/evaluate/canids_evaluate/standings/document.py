"""The leaderboard as one document (contract leaderboard/1), from which tables, figures, page and README are made."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from canids_evaluate.judging.evaluation import incompatible_settings
from canids_evaluate.pages.comparison import Content, MethodResults, fold_and_seed, paired_differences
from canids_evaluate.pages.rows import WINDOW_BASELINES
from canids_evaluate.runs.reading_log import rule_of
from canids_evaluate.standings.places import (
    ALWAYS,
    REGIMES,
    SETTINGS,
    ablation_of,
    family_of,
    split_ablations,
)
from canids_evaluate.standings.standing import Standing, standings, total
from canids_shared.contracts.training_run import TrainingRun
from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json

PROTOCOL = 1
"""Version of what is judged, and how: it rises with every change that makes tables incomparable."""
_OF_CAPTURES = ("vehicle", "attack", "sha256")


@dataclass
class Notes:
    """What the files of the runs say beside their results.

    Attributes:
        config: of the evaluations, without the seed of a run.
        code: rule → hashes of the code that trained or evaluated.
        captures: capture → vehicle, attack, SHA-256 of its raw file.
        windows: fold and scenario → hash over the windows judged there.
        warnings: fold → what its data warn of.
        own_points: methods (with variant) that alarm at a point of their own, not at the budget's threshold.
    """

    config: dict[str, Any] = field(default_factory=dict)
    code: dict[str, set[str]] = field(default_factory=dict)
    captures: dict[str, dict[str, Any]] = field(default_factory=dict)
    windows: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    own_points: set[tuple[str | None, str]] = field(default_factory=set)

    def attend(self, runs: Iterable[Content]) -> Iterator[Content]:
        """Pass the runs on, noting what they say; raises `CanidsError` naming a file that was evaluated with other settings."""
        for path, content, drawn in runs:
            if other := incompatible_settings(content["config"], self.config):
                raise CanidsError(f"{path}: evaluated with another {other[0]} than the runs before it; run all again")
            self.config |= content["config"]
            # Without a variant it is of the window baselines, or of a detector of others.
            of_ours = content["variant"] or WINDOW_BASELINES.keys() & content["thresholds"]
            rule = rule_of(content) if of_ours else "own_scores"
            self.code.setdefault(rule, set()).add(content["code"])
            fold, _ = fold_and_seed(content["instance"])
            for name, source in drawn.get("sources", {}).items():
                self.captures[name] = {k: source.get(k) for k in _OF_CAPTURES}
            if drawn.get("warnings"):
                known = self.warnings.setdefault(fold, [])
                known += [w for w in drawn["warnings"] if w not in known]
            for scenario, curves in drawn["scenarios"].items():
                digest = hashlib.sha256(canonical_json(curves["windows"]).encode()).hexdigest()[:16]
                self.windows[f"{fold} {scenario}"] = digest
            for method, thresholds in content["thresholds"].items():
                if thresholds["budget"] is None:
                    self.own_points.add((content["variant"], method))
            yield path, content, drawn

    def trained(self, runs: Iterable[TrainingRun]) -> None:
        """Note the code of trainings by their kinds."""
        for run in runs:
            self.code.setdefault(run.kind, set()).add(run.code)


def document(
    dataset: str,
    results: Sequence[MethodResults],
    notes: Notes,
    *,
    left_out: Mapping[str, Mapping[str, Any]],
    ablations: Mapping[str, str],
    own: Sequence[str],
    enrolment: float,
) -> dict[str, Any]:
    """The content of `leaderboard.json`.

    Args:
        dataset: its name.
        results: all methods on all folds.
        notes: of the same runs.
        left_out: fold → what it leaves out.
        ablations: name → label.
        own: methods that are detectors of others.
        enrolment: seconds.

    Raises `CanidsError` if there is no fold among the results, or an ablation was judged on other windows than its fold.
    """
    _refuse_other_windows(notes.windows, ablations)
    whole, changes = split_ablations(results, ablations)
    if not whole:
        raise CanidsError(f"dataset '{dataset}': no fold was evaluated, so there is nothing to rank")
    made = standings(whole, left_out)
    vehicles = {name: str(c["vehicle"]) for name, c in notes.captures.items()}
    entries = _sorted([_entry(s, vehicles, notes, own) for s in made])
    differences = [_difference(s) for s in standings(paired_differences(whole), left_out)]
    of_ablations = [
        {"ablation": name, **_difference(s)}
        for name, found in changes.items()
        for s in standings([r for r in found if r.method in r.methods.networks], left_out)
    ]
    folds = sorted({r.fold for r in whole})
    return {
        "dataset": dataset,
        "protocol": {
            "version": PROTOCOL,
            "config": notes.config,
            "enrolment": enrolment,
            "left_out": {fold: dict(left_out.get(fold, {})) for fold in folds},
        },
        "data": {
            "captures": notes.captures,
            "windows": {k: w for k, w in notes.windows.items() if not ablation_of(k.split(" ")[0], ablations)[1]},
        },
        "code": {rule: sorted(hashes) for rule, hashes in notes.code.items()},
        "seeds": sorted({seed for s in made for seed in s.seeds}),
        "standings": entries,
        "best": best_of_families(entries),
        "differences": _in_order(differences),
        "ablations": {
            "labels": dict(ablations),
            "missing": [name for name in ablations if name not in changes],
            "changes": _in_order(of_ablations),
        },
        "warnings": {**notes.warnings, **_mixed_code(notes)},
    }


def _refuse_other_windows(windows: Mapping[str, str], ablations: Iterable[str]) -> None:
    for place, digest in windows.items():
        fold, scenario = place.split(" ")
        whole, name = ablation_of(fold, ablations)
        if name and windows.get(f"{whole} {scenario}", digest) != digest:
            raise CanidsError(
                f"{fold}, {scenario}: judged on other windows than {whole}, so nothing can be subtracted; an ablation must not change windows"
            )


def _mixed_code(notes: Notes) -> dict[str, list[str]]:
    mixed = [rule for rule, hashes in sorted(notes.code.items()) if len(hashes) > 1]
    return {"": [f"Runs of {', '.join(mixed)} are of several versions of the code; run all again."]} if mixed else {}


def _identity(s: Standing) -> dict[str, Any]:
    return {
        "setting": s.place.setting,
        "regime": s.place.regime,
        "variant": s.variant,
        "method": s.method,
        "label": s.methods.label(s.method),
    }


def _entry(s: Standing, vehicles: Mapping[str, str], notes: Notes, own: Sequence[str]) -> dict[str, Any]:
    traffic = s.traffic(vehicles)
    return {
        **_identity(s),
        "family": family_of(s.method, s.methods, s.variant, own),
        "own_point": (s.variant, s.method) in notes.own_points,
        **s.as_json(),
        "traffic": {
            **total(traffic.values()).as_json(),
            "vehicles": {vehicle: t.as_json() for vehicle, t in traffic.items()},
        },
        "attacks": s.attacks(),
    }


def _difference(s: Standing) -> dict[str, Any]:
    """Means of differences with their intervals; only metrics that both sides have replicates of."""
    first = next(iter(next(iter(s.folds.values())).runs.values()))
    metrics = {
        m: {"mean": s.average(m), "interval": s.interval(m), "folds": s.by_fold(m)} for m in sorted(first.replicates)
    }
    return {**_identity(s), "metrics": metrics, "episodes": s.episodes}


def _in_order(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    settings = list(SETTINGS)
    return sorted(entries, key=lambda e: (settings.index(e["setting"]), REGIMES.index(e["regime"])))


def _sorted(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By place, then F1, the best first; where no F1 is defined by false-positive rate, the lowest first."""

    def rank(e: Mapping[str, Any]) -> tuple[float, float, str, str]:
        f1 = e["metrics"]["f1"]["mean"]
        fpr = e["traffic"]["fpr"]
        return (2.0 if f1 is None else -f1, 2.0 if fpr is None else fpr, e["method"], str(e["variant"]))

    return _in_order(sorted(entries, key=rank))


def best_of_families(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """Family → variant and method with the best mean F1, on vehicles never met and zero-shot if anything is judged so.

    A choice made on the very folds that it is shown on.
    """
    place = next(
        (p for e in entries if (p := (e["setting"], e["regime"])) and e["metrics"]["f1"]["mean"] is not None), None
    )
    chosen: dict[str, list[str | None]] = {}
    for e in entries:  # the best first
        defined = e["metrics"]["f1"]["mean"] is not None
        if (e["setting"], e["regime"]) == place and defined and e["method"] != ALWAYS:
            chosen.setdefault(e["family"], [e["variant"], e["method"]])
    return chosen
