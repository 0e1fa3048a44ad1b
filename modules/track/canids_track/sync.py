"""Track all finished runs by hand: `python -m canids_track.sync [--uri URI] [FOLDER …]`.

A FOLDER holds the runs of a dataset; by default all of `experimentruns/` are taken. Tables and reports are read from
`results/` beside it. The exit status is 1 if runs are pending.
"""

import argparse
import logging
import sys
from pathlib import Path

from canids_shared.jobs.options import DAY_S, number
from canids_track.records import Places
from canids_track.tracking import Options, track


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--uri", default=Options.uri, help="tracking server or sqlite:///FILE; default: as in the rule")
    parser.add_argument("--experiment", default=Options.experiment, help="prefix of the experiments' names")
    parser.add_argument(
        "--patience", default=Options.patience, type=number(0, DAY_S, above=True), help="seconds a dataset may take"
    )
    parser.add_argument(
        "--timeout", default=Options.timeout, type=number(0, 3600, above=True), help="seconds that one answer may take"
    )
    options = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    folders = options.pop("folders") or sorted(
        {p.parent.parent for p in Path("experimentruns").glob("*/*/benchmark.tsv")}
    )
    if not folders:
        sys.exit(
            "error: no finished run in experimentruns/; run a pipeline first, or name the folder of a dataset's runs"
        )
    pending = [track(Places.of(folder), Options(**options))[1] for folder in folders]
    sys.exit(any(pending))


if __name__ == "__main__":
    main()
