"""Enrol a vehicle by attack-free captures of it: write its profile (contract profile/1), and tell how much it covers.

    python -m canids_preprocess.enrol quiet_drive.log --output profiles/mycar.safetensors
    python -m canids_preprocess.enrol quiet_drive.log --output profiles/mycar.safetensors --seconds 60

A minute is enough for most arbitration IDs, an hour also for what is rare. With `--seconds`, of several captures
each gives an equal share, as far as it lasts. `make score` and `make follow` start from the profile (`profile=FILE`, `--profile FILE`).

A profile that is there already is kept beside the new one, as `mycar.1.safetensors`, `mycar.2.safetensors` and so on; `--back` brings the
latest of these back. Traffic that itself looks attacked is refused unless `--accept` says that it is not.
"""

import argparse
import logging
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canids_preprocess import ingest
from canids_preprocess.enrolment import profiles
from canids_preprocess.enrolment.learning import learnt
from canids_preprocess.enrolment.stretches import stretches
from canids_preprocess.formats import FORMATS
from canids_preprocess.formats.base import PER_SECOND
from canids_preprocess.windowing.members import metadata_of
from canids_shared.contracts.manifest import ALL_CHANNELS, table_in
from canids_shared.errors import CanidsError
from canids_shared.files import write_fault, written_whole
from canids_shared.jobs.entry_point import Call
from canids_shared.jobs.options import DAY_S, number

log = logging.getLogger(__name__)


def _frames_of(options: argparse.Namespace, folder: Path) -> list[Path]:
    """Frames of the captures, as the rule ingest makes them, in files of a folder."""
    paths = []
    for position, capture in enumerate(options.captures):
        if not capture.is_file():
            raise CanidsError(f"{capture}: no such file")
        entry: dict[str, Any] = {
            "name": capture.stem,
            "vehicle": options.vehicle,
            "format": "table" if options.table else options.format,
            "attack": None,
            "content": "attack-free",
            "attacked": [],
            "timestamp_unit": options.timestamp_unit,
            "table": table_in(options.table) if options.table else None,
            "channel": [options.channel] if options.channel else ALL_CHANNELS,
        }
        config = {"timestamp_tolerance": options.timestamp_tolerance, "on_bad_rows": options.on_bad_rows}
        output = {name: folder / f"{name}-{position}.parquet" for name in ("output", "rejects")}
        ingest.main(Call({}, config, {"capture": entry}, output, {"capture": [capture], "metadata": []}, ""))
        paths.append(output["output"])
    return paths


def enrol(options: argparse.Namespace) -> dict[str, Any]:
    """Write the profile; returns its header.

    Raises `CanidsError` if a capture cannot be read, has no traffic of two frames or more, or looks attacked.
    """
    with tempfile.TemporaryDirectory(prefix="canids-enrol-") as folder:
        frames = _frames_of(options, Path(folder))
        captures = metadata_of(Call({}, {}, {}, {}, {"frames": frames}, ""))
        chosen = stretches(captures, options.seconds, most=1.0)
        learners = [learnt(bus, of_bus) for bus, of_bus in chosen.items()]
    if not learners:
        raise CanidsError(f"{options.captures[0]}: lasts no time; nothing can be learnt from it")
    suspicious = [warning for learner in learners for warning in learner.warnings()]
    if suspicious and not options.accept:
        raise CanidsError(
            f"{options.captures[0]}: looks attacked: {'; '.join(suspicious)}. Nothing was written; take other traffic, "
            "or --accept if that is how this vehicle is"
        )
    with written_whole(options.output) as temporary:
        header = profiles.save(temporary, learners, {"vehicle": options.vehicle})
        # Only once the new one is whole: until then the profile so far stays where scoring looks for it.
        if options.output.exists():
            before = versions(options.output)
            kept = _version(options.output, before[-1] + 1 if before else 1)
            os.replace(options.output, kept)
            log.info("the profile so far is kept as %s", kept)
    return header


def _version(path: Path, number: int) -> Path:
    return path.with_suffix(f".{number}{path.suffix}")


def versions(path: Path) -> list[int]:
    """Numbers of the earlier versions of a profile, the latest last."""
    pattern = re.compile(re.escape(path.stem) + r"\.(\d+)" + re.escape(path.suffix))
    return sorted(int(match[1]) for file in path.parent.glob("*") if (match := pattern.fullmatch(file.name)))


def back(path: Path) -> None:
    """Bring the latest earlier version of a profile back. Raises `CanidsError` if there is none, or it is damaged."""
    if not (numbers := versions(path)):
        raise CanidsError(f"{path}: no earlier version lies beside it ({_version(path, 1).name})")
    earlier = _version(path, numbers[-1])
    profiles.load(earlier)
    os.replace(earlier, path)
    log.info("%s: version %d is back", path, numbers[-1])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command_line = argparse.ArgumentParser(
        prog="canids_preprocess.enrol", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command_line.add_argument("captures", nargs="*", type=Path, metavar="CAPTURE", help="attack-free captures")
    command_line.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="the profile, FILE.safetensors"
    )
    command_line.add_argument("--back", action="store_true", help="bring the latest earlier version back")
    command_line.add_argument(
        "--seconds",
        type=number(0, DAY_S, above=True),
        default=DAY_S,
        metavar="S",
        help="traffic to learn from; by default all",
    )
    command_line.add_argument("--accept", action="store_true", help="write it though the traffic looks attacked")
    command_line.add_argument(
        "--vehicle", default="unknown", help="the vehicle's name; that of the captures to be scored"
    )
    command_line.add_argument("--format", default="auto", choices=["auto", *FORMATS], help="by default recognised")
    command_line.add_argument("--timestamp-unit", choices=list(PER_SECOND), help="by default seconds")
    command_line.add_argument("--table", type=Path, metavar="FILE", help="what the columns of a table mean")
    command_line.add_argument("--channel", metavar="NAME", help="the bus of a log of several; by default all")
    command_line.add_argument(
        "--on-bad-rows", choices=["error", "quarantine"], default="error", help="as in config.schema.yaml"
    )
    command_line.add_argument(
        "--timestamp-tolerance", type=number(0, 60), default=0.0005, help="as in config.schema.yaml (s)"
    )
    return command_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; a fault is one line and exit status 1."""
    command_line = parser()
    options = command_line.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("numexpr").setLevel(logging.WARNING)  # says how many threads it has
    if options.back == bool(options.captures):
        command_line.error("name captures, or --back" if not options.back else "--back takes no captures")
    try:
        if options.back:
            back(options.output)
        else:
            enrol(options)
    except CanidsError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {write_fault(error, options.output) or error}")


if __name__ == "__main__":
    main()
