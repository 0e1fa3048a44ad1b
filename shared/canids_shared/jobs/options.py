"""Numbers on a command line: finite, and within the bounds that the same option has in a config's schema."""

import argparse
import math
from collections.abc import Callable

DAY_S = 86_400.0
"""The longest time that an option takes, in seconds."""


def number(low: float, high: float, *, above: bool = False) -> Callable[[str], float]:
    """An argparse `type` for numbers from `low` to `high`; with `above`, greater than `low`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # NaN compares false with everything, so it fails here too.
        if not low <= value <= high or (above and value == low):
            bound = f"above {low:g}" if above else f"from {low:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {bound} to {high:g}")
        return value

    return read


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """An argparse `type` for whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 18 or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read
