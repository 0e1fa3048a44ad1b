"""Vehicles by their arbitration IDs: captures whose sets of IDs overlap mostly are of one vehicle. A guess, and called so."""

from collections import Counter
from collections.abc import Mapping, Sequence

import polars as pl

_FEWEST_FRAMES = 200
_RARE = 5e-4
"""Share of a capture's frames below which an ID is left out: fuzzing adds thousands of such. One frame a second is more."""
_ALIKE, _CONTAINED, _FEWEST_IDS = 0.7, 0.95, 8
"""Captures of one car at hand have 0.89 of their IDs in common or more; those of two cars of one make 0.47, and of the smaller
set 0.81. A parked car sends a part of its IDs only, and that part is contained whole."""

Ids = frozenset[int]


def ids_of(frames: pl.DataFrame) -> Ids:
    """The arbitration IDs that make up the traffic of some frames (`can_id`); empty if the frames are too few to tell."""
    if len(frames) < _FEWEST_FRAMES:
        return frozenset()
    counts = frames.group_by("can_id").len().filter(pl.col("len") >= max(3, _RARE * len(frames)))
    return frozenset(counts["can_id"].to_list())


def alike(one: Ids, other: Ids) -> bool:
    """Whether two sets of IDs look like one vehicle's."""
    common, fewer = len(one & other), min(len(one), len(other))
    contained = fewer >= _FEWEST_IDS and common >= _CONTAINED * fewer
    return bool(common) and (common >= _ALIKE * len(one | other) or contained)


def groups(captures: Mapping[str, Ids]) -> list[list[str]]:
    """Names of captures by vehicle, in their order; captures without IDs are in no group."""
    clusters: list[tuple[set[int], list[str]]] = []
    # The largest sets first: a parked car's few IDs then meet those of the car that drives.
    for name, ids in sorted(captures.items(), key=lambda item: -len(item[1])):
        if not ids:
            continue
        for known, members in clusters:
            if alike(ids, frozenset(known)) or any(alike(ids, captures[member]) for member in members):
                members.append(name)
                break
        else:
            clusters.append((set(ids), [name]))
    order = list(captures)
    return sorted(
        (sorted(members, key=order.index) for _, members in clusters), key=lambda members: order.index(members[0])
    )


def _folder_of(group: Sequence[str], others: set[str], folders: Mapping[str, Sequence[str]]) -> str:
    """Name of the innermost folder that holds most of a group and none of the others; empty if there is none."""
    held = Counter(folder for capture in group for folder in folders[capture])
    candidates = [f for f, n in held.items() if 2 * n > len(group) and not any(f in folders[c] for c in others)]
    return max(candidates, key=lambda f: (held[f], f.count("/")), default="").rpartition("/")[2]


def names(
    grouped: Sequence[Sequence[str]], folders: Mapping[str, Sequence[str]], known: Mapping[str, str], dataset: str
) -> dict[str, str]:
    """A vehicle's name for each capture of some groups that has none.

    A group takes the name of its members that have one, if they agree; where there are others, that of the folder which it
    alone fills; else the dataset's, with a number where there are several such groups.

    Args:
        grouped: names of captures, by vehicle.
        folders: capture → the folders that it is in, as paths in the dataset, where they may be called after a vehicle.
        known: capture → vehicle, where a name says it.
        dataset: name of the dataset.
    """
    called: list[str] = []
    for group in grouped:
        named = {known[c] for c in group if c in known}
        others = {c for other in grouped if other is not group for c in other}
        called.append(named.pop() if len(named) == 1 else _folder_of(group, others, folders) if others else "")
    unnamed = [number for number, name in enumerate(called) if not name]
    for number in unnamed:
        called[number] = dataset if len(unnamed) == 1 else f"{dataset}-{number + 1}"
    return {c: name for name, group in zip(called, grouped, strict=True) for c in group if c not in known}
