"""Stretches of attack-free captures by which a vehicle is enrolled, bus by bus."""

from typing import Any, NamedTuple

from canids_preprocess.windowing.frames import Recording, clock_of
from canids_preprocess.windowing.splits import Block
from canids_preprocess.windowing.windows import survey


class Stretch(NamedTuple):
    """Some frames of a capture: `block` of `recording`, whose metadata are those of its frames; `seconds` long."""

    recording: Recording
    metadata: dict[str, Any]
    block: Block
    seconds: float


def bus_name(recording: Recording, metadata: dict[str, Any]) -> str:
    """Name of a recording's bus; empty where the log has none."""
    channels = list(metadata.get("channels") or {})
    if recording.channel is not None:
        return recording.channel
    return channels[0] if len(channels) == 1 else ""


def _shares(limits: list[float], seconds: float) -> list[float]:
    """Seconds of each of several captures, as equal as their limits allow: what a short one lacks, the others give."""
    shares = [0.0] * len(limits)
    for done, number in enumerate(sorted(range(len(limits)), key=limits.__getitem__)):
        shares[number] = min(limits[number], seconds / (len(limits) - done))
        seconds -= shares[number]
    return shares


def stretches(captures: dict[Recording, dict[str, Any]], seconds: float, most: float = 0.5) -> dict[str, list[Stretch]]:
    """The stretches of each bus of a vehicle: the beginnings of all of its captures, `seconds` together, of each as long as of the others.

    One capture is one state of the vehicle (parked, in town), and a profile knows no state that it was not learnt from. By default no more
    than half of a capture is taken, so that some attack-free traffic of each state remains to be judged; what a short one lacks, the
    others give.

    Args:
        captures: metadata of the vehicle's attack-free recordings, in the order in which they are used.
        seconds: traffic wanted.
        most: share of a capture that may be used.
    """
    by_bus: dict[str, list[tuple[Recording, dict[str, Any]]]] = {}
    for recording, metadata in captures.items():
        by_bus.setdefault(bus_name(recording, metadata), []).append((recording, metadata))
    chosen: dict[str, list[Stretch]] = {}
    for bus, members in sorted(by_bus.items()):
        clocks = [clock_of(recording) for recording, _ in members]
        limits = [most * (clock.end - clock.time_of(0)) for clock in clocks]
        for (recording, metadata), clock, share in zip(members, clocks, _shares(limits, seconds), strict=True):
            begin = clock.time_of(0)
            stop = clock.frame_at(begin + share) if share < clock.end - begin else clock.frames
            if share > 0:
                chosen.setdefault(bus, []).append(Stretch(recording, metadata, Block(0, 0, stop), share))
    return chosen


def halves(of_bus: list[Stretch]) -> tuple[list[Stretch], list[Stretch]]:
    """The first and the second halves of a bus's stretches, by frames: each half has traffic of every capture."""
    first: list[Stretch] = []
    second: list[Stretch] = []
    for stretch in of_bus:
        cut, stop = stretch.block.stop // 2, stretch.block.stop
        if cut:
            first.append(stretch._replace(block=Block(0, 0, cut), seconds=stretch.seconds * cut / stop))
        second.append(stretch._replace(block=Block(cut, cut, stop), seconds=stretch.seconds * (stop - cut) / stop))
    return first, second


def windows(by_bus: dict[str, list[Stretch]], config: dict[str, Any]) -> int:
    """How many windows the split `enrolment` has of a vehicle's stretches, which are cut in halves; `config` as in `survey`."""
    parts = [stretch for of_bus in by_bus.values() for half in halves(of_bus) for stretch in half]
    return sum(survey(stretch.recording, stretch.block, config)["windows"] for stretch in parts)
