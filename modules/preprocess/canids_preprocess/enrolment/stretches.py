"""Stretches of attack-free captures by which a vehicle is enrolled, bus by bus."""

from typing import Any, NamedTuple

from canids_preprocess.windowing.frames import Recording, clock_of
from canids_preprocess.windowing.splits import Block


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


def stretches(captures: dict[Recording, dict[str, Any]], seconds: float, most: float = 0.5) -> dict[str, list[Stretch]]:
    """The stretches of each bus of a vehicle: its captures from their beginning, one after the other, until `seconds` are collected.

    By default no more than half of what there is of a bus, so that some attack-free traffic remains to be judged: of a single capture
    shorter than twice `seconds`, the first half.

    Args:
        captures: metadata of the vehicle's attack-free recordings, in the order in which they are used.
        seconds: traffic wanted.
        most: share of a bus's traffic that may be used.
    """
    by_bus: dict[str, list[tuple[Recording, dict[str, Any]]]] = {}
    for recording, metadata in captures.items():
        by_bus.setdefault(bus_name(recording, metadata), []).append((recording, metadata))
    chosen: dict[str, list[Stretch]] = {}
    for bus, members in sorted(by_bus.items()):
        clocks = [clock_of(recording) for recording, _ in members]
        spans = [clock.end - clock.time_of(0) for clock in clocks]
        wanted, chosen[bus] = min(seconds, most * sum(spans)), []
        for (recording, metadata), clock, span in zip(members, clocks, spans, strict=True):
            if wanted <= 0:
                break
            stop = clock.frame_at(clock.time_of(0) + wanted) if span > wanted else clock.frames
            chosen[bus].append(Stretch(recording, metadata, Block(0, 0, stop), min(span, wanted)))
            wanted -= span
    return {bus: of_bus for bus, of_bus in chosen.items() if of_bus}


def halves(of_bus: list[Stretch]) -> tuple[list[Stretch], list[Stretch]]:
    """The first and the second half of a bus's stretches, by frames; the stretch in the middle is cut."""
    before = sum(stretch.block.stop for stretch in of_bus) // 2
    first: list[Stretch] = []
    second: list[Stretch] = []
    for stretch in of_bus:
        stop = stretch.block.stop
        cut = min(before, stop)
        before -= cut
        if cut:
            first.append(stretch._replace(block=Block(0, 0, cut), seconds=stretch.seconds * cut / stop))
        if cut < stop:
            second.append(stretch._replace(block=Block(cut, cut, stop), seconds=stretch.seconds * (stop - cut) / stop))
    return first, second
