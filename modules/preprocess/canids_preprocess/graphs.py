"""Turn the frames of a split into the graph store.

`python -m canids_preprocess.graphs --spec JSON --output X.safetensors --frames A.parquet B.parquet … [--profiles P.safetensors …]`

With a list `each` of splits in the spec, as many outputs. Frames of auxiliary captures follow `--auxiliary`; the spec's `auxiliary`
is the name of their dataset, which comes before those of captures and vehicles in the store: `simulated_fleet.dos-van-2`.

Frames by which a vehicle was enrolled are in no window of a scenario. In one that ends in `_enrolled` captures begin with the profile of
their vehicle as their past, and those of vehicles without one are left out. The split `enrolment` has the windows of the enrolment, each half
with the profile of the other half.
"""

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from canids_preprocess.enrolment.learning import learnt
from canids_preprocess.enrolment.profiles import Profiles
from canids_preprocess.enrolment.stretches import halves, stretches, windows
from canids_preprocess.features.relative import BusState
from canids_preprocess.windowing.clock import Clock
from canids_preprocess.windowing.cutting import check_windows
from canids_preprocess.windowing.frames import Recording, clock_of
from canids_preprocess.windowing.members import members, metadata_of
from canids_preprocess.windowing.splits import Block, blocks, restarts
from canids_preprocess.windowing.windows import FEATURES, append, mark_intervals, survey
from canids_shared.alarm_rule import FEWEST_WINDOWS
from canids_shared.contracts.graph_store import writing
from canids_shared.contracts.manifest import ENROLLED, ENROLMENT, SCORED, SPLITS
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point

_SOURCE = ("sha256", "vehicle", "attack", "content", "rows_read")
_WINDOWS = ("window", "stride", "window_unit", "features")
log = logging.getLogger(__name__)


def _source(metadata: dict[str, Any]) -> dict[str, Any]:
    """What a store says of a capture; also the rate of which a log without times has its intervals, the host of injected attacks, and
    whether it begins with a profile.
    """
    further = {key: metadata[key] for key in ("assumed_rate", "host", "profiled") if metadata.get(key)}
    return {**{key: metadata[key] for key in _SOURCE}, **further}


def header_of(
    call: entry_point.Call, captures: list[dict[str, Any]], counts: list[dict[str, int]], profiles: dict[str, str]
) -> dict[str, Any]:
    """Header of the graph store, from the metadata of the split's captures, the counts of their windows and frames, and the digests of
    the profiles that are their past.
    """
    kind = FEATURES[call.config["features"]]
    names = [metadata["capture"] for metadata in captures]
    return {
        "dataset": call.wildcards["dataset"],
        "split": call.wildcards["split"],
        "instance": call.instance,
        "code": call.constants.get("code", ""),
        **{key: call.config[key] for key in _WINDOWS},
        "node_features": list(kind.NODE_FEATURES),
        "edge_features": list(kind.EDGE_FEATURES),
        "statistics": list(kind.STATISTICS),
        "attacks": ["", *dict.fromkeys(name for metadata in captures for name in metadata["attacks"])],
        "captures": names,
        "vehicles": sorted({metadata["vehicle"] for metadata in captures}),
        "auxiliary_captures": [metadata["capture"] for metadata in captures if metadata["auxiliary"]],
        "sources": {metadata["capture"]: _source(metadata) for metadata in captures},
        "counts": dict(zip(names, counts, strict=True)),
        **({"profiles": profiles} if profiles else {}),
    }


def _check_restarts(config: dict[str, Any]) -> None:
    """Raise `CanidsError` unless restarts follow each other, and can hold a window."""
    length, every = config["restarts"]["length"], config["restarts"]["every"]
    if length > every:
        raise CanidsError(f"restarts.length: {length} s are longer than restarts.every ({every} s)")
    if config["window_unit"] == "seconds" and 0 < length <= config["window"]:
        raise CanidsError(
            f"restarts.length: {length} s hold no whole window of {config['window']} s; 0 leaves them out"
        )


def _numbering(clock: Clock, config: dict[str, Any]) -> Callable[[int], int]:
    """Function: number of the window that begins at a frame, counted along the whole capture."""
    origin, stride = clock.time_of(0), config["stride"]
    if config["window_unit"] == "frames":
        return lambda frame: int(frame // stride)
    return lambda frame: int((clock.time_of(frame) - origin) // stride)


def _blocks(clock: Clock, capture: str, config: dict[str, Any], split: str) -> tuple[list[Block], list[Block]]:
    """A split's blocks of a training capture, and its restarts."""
    cut, window = config["blocks"], config["window"]
    span = clock.end - clock.time_of(0)
    by_count = config["window_unit"] == "frames"
    if cut["gap"] <= (window * span / clock.frames if by_count else window):
        raise CanidsError(f"blocks.gap: {cut['gap']} s of {capture} are no longer than a window")
    # Blocks are cut by frames: a window in seconds counts as many as it holds on average.
    frames_per_window = window if by_count else int(np.ceil(window * clock.frames / max(span, 1e-9)))
    # A restart is a stretch of a block of this split, so it leaks nothing of another split.
    chosen = blocks(clock, **cut, window=frames_per_window)[split]
    return chosen, [part for block in chosen for part in restarts(clock, block, **config["restarts"])]


class _Piece(NamedTuple):
    """A block of a capture, the number of its first window, the size of its windows, and what is known of its bus beforehand."""

    block: Block
    first: int
    size: Counter[str]
    past: Callable[[], BusState | None]


class _Part(NamedTuple):
    """Part of a split from one capture."""

    recording: Recording
    metadata: dict[str, Any]
    pieces: list[_Piece]
    counts: dict[str, int]


def _nothing() -> None:
    """The past of a bus of which nothing is known."""


def _part(
    recording: Recording, metadata: dict[str, Any], pieces: list[_Piece], restarted: list[_Piece] | None = None
) -> _Part:
    total = sum((piece.size for piece in pieces), Counter())
    counts = {key: total[key] for key in ("windows", "frames", "dropped")}
    if restarted is not None:
        counts["restarted"] = sum(piece.size["windows"] for piece in restarted)
    return _Part(recording, metadata, [*pieces, *(restarted or [])], counts)


def _of_training(recording: Recording, metadata: dict[str, Any], config: dict[str, Any], split: str) -> _Part:
    """Part of a split of training from a capture."""
    clock = clock_of(recording)
    number = _numbering(clock, config)
    once, again = _blocks(clock, metadata["capture"], config, split)
    # Window numbers count along the whole capture, so that windows of neighbouring blocks are not taken for adjacent.
    pieces = [_Piece(block, number(block.start), survey(recording, block, config), _nothing) for block in once]
    # Numbered beyond the capture's end, so that they look adjacent to nothing.
    beyond = number(metadata["frames"]) + 2
    return _part(
        recording,
        metadata,
        pieces,
        [_Piece(block, beyond + number(block.start), survey(recording, block, config), _nothing) for block in again],
    )


def _of_scenario(
    recording: Recording, metadata: dict[str, Any], config: dict[str, Any], profiles: Profiles, enrolled: bool
) -> _Part:
    """Part of a scenario from a capture: all frames behind those that its vehicle was enrolled by, the same in both regimes."""
    begin = profiles.enrolled_frames(metadata)
    first = _numbering(clock_of(recording), config)(begin) if begin else 0
    block = Block(begin, begin, metadata["frames"])
    past = partial(profiles.state, recording, metadata) if enrolled else _nothing
    metadata = metadata | {"profiled": past() is not None}
    return _part(recording, metadata, [_Piece(block, first, survey(recording, block, config), past)])


def _of_enrolment(captures: dict[Recording, dict[str, Any]], config: dict[str, Any]) -> list[_Part]:
    """The split `enrolment`: each half of a bus's stretches with the profile of the other half, so that no window meets itself.

    A vehicle with too few windows has none, as it has no profile (rule `profile`, which says so).
    """
    by_vehicle: dict[str, dict[Recording, dict[str, Any]]] = {}
    for recording, metadata in captures.items():
        by_vehicle.setdefault(metadata["vehicle"], {})[recording] = metadata
    pieces: dict[Recording, list[_Piece]] = {}
    for vehicle, of_vehicle in by_vehicle.items():
        by_bus = stretches(of_vehicle, config["enrolment"])
        if (count := windows(by_bus, config)) < FEWEST_WINDOWS:
            log.warning("%s is not enrolled: %d windows of attack-free traffic, not %d", vehicle, count, FEWEST_WINDOWS)
            continue
        for bus, of_bus in by_bus.items():
            two = halves(of_bus)
            for half, other in (two, two[::-1]):
                arrays = learnt(bus, other).state.arrays() if other else None
                past = partial(BusState.of, arrays) if arrays else _nothing
                for recording, _, block, _ in half:
                    # The second half looks adjacent to nothing either.
                    first = _numbering(clock_of(recording), config)(block.start) + (1 if block.start else 0)
                    piece = _Piece(block, first, survey(recording, block, config), past)
                    pieces.setdefault(recording, []).append(piece)
    return [_part(recording, captures[recording], pieces[recording]) for recording in captures if recording in pieces]


def _parts(call: entry_point.Call, captures: dict[Recording, dict[str, Any]], profiles: Profiles) -> list[_Part]:
    """The parts of a call's split; those of a scenario without captures that have nothing left to judge, or no profile where all need one."""
    split, config = call.wildcards["split"], call.config
    chosen = {recording: captures[recording] for recording in members(call, captures)}
    if split in SPLITS:
        return [_of_training(recording, metadata, config, split) for recording, metadata in chosen.items()]
    if split == ENROLMENT:
        return _of_enrolment({r: m for r, m in chosen.items() if m["content"] == "attack-free"}, config)
    enrolled = split.endswith(ENROLLED)
    for recording, metadata in list(chosen.items()):
        if split == SCORED and profiles.by_vehicle and profiles.state(recording, metadata) is None:
            log.warning("%s: the profile has no such bus; nothing is known of it beforehand", metadata["capture"])
        if enrolled and profiles.state(recording, metadata) is None:
            log.warning("%s is left out: its vehicle, %s, is not enrolled", metadata["capture"], metadata["vehicle"])
            del chosen[recording]
        elif (frames := profiles.enrolled_frames(metadata)) >= metadata["frames"]:
            log.info("%s is left out: its vehicle was enrolled by all of it", metadata["capture"])
            del chosen[recording]
        elif frames:
            log.info(
                "%s: its vehicle was enrolled by the first %d frames, which are left out", metadata["capture"], frames
            )
    begins = enrolled or split == SCORED
    return [_of_scenario(recording, metadata, config, profiles, begins) for recording, metadata in chosen.items()]


def _why_no_window(call: entry_point.Call, parts: list[_Part]) -> str:
    """The message of a split that has no window."""
    split, config = call.wildcards["split"], call.config
    named = f"split '{split}' of dataset '{call.wildcards['dataset']}'"
    if split == ENROLMENT or split.endswith(ENROLLED):
        return (
            f"{named}: no vehicle is enrolled, for none has {FEWEST_WINDOWS} windows of attack-free traffic to be enrolled by; "
            "set enrolment to 0, or take longer attack-free captures"
        )
    if call.inputs.get("profiles") and not parts:
        return (
            f"{named}: {call.inputs['profiles'][0]} was learnt from all of the traffic that is to be judged; "
            "take other captures, or no profile"
        )
    return f"{named} has no whole window of {config['window']} {config['window_unit']}"


def main(call: entry_point.Call) -> None:
    """Entry point. Raises `CanidsError` if options contradict each other, a capture is damaged, or the split has no window."""
    split, config = call.wildcards["split"], call.config
    check_windows(config)
    if split in SPLITS:
        _check_restarts(config)
    captures = metadata_of(call)
    # Two passes over the frames: the first counts, since the header with all sizes stands at the beginning of the store.
    profiles = Profiles(call.inputs.get("profiles", []), for_all=split == SCORED)
    parts = _parts(call, captures, profiles)
    amount = sum((piece.size for part in parts for piece in part.pieces), Counter())
    if not amount["windows"]:
        raise CanidsError(_why_no_window(call, parts))
    digests = profiles.digests if split.endswith((ENROLLED, SCORED)) else {}
    header = header_of(call, [part.metadata for part in parts], [part.counts for part in parts], digests)
    attacks, vehicles = header["attacks"], header["vehicles"]
    size = {key: amount[key] for key in ("windows", "nodes", "edges")}
    with writing(call.output["output"], header, **size) as writer:
        for index, (recording, metadata, pieces, counts) in enumerate(parts):
            # Under suppression no frame is labelled: windows that overlap the attack's intervals are marked afterwards.
            named = metadata["attack"] or "attack"
            intervals = [(a, b, attacks.index(kind[0] if kind else named)) for a, b, *kind in metadata["attacked"]]
            mark = partial(mark_intervals, intervals=intervals)
            ids = {"capture": index, "vehicle": vehicles.index(metadata["vehicle"])}
            put = partial(append, writer, recording, ids=ids, config=config, attacks=attacks, mark=mark)
            for block, first, _, past in pieces:
                put(block, first=first, past=past())
            log.info("%s: %s", metadata["capture"], counts)


if __name__ == "__main__":
    entry_point.run(main, inputs=["frames", "auxiliary", "profiles"], each=())
