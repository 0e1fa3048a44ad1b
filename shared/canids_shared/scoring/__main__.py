"""Print the summary of a capture that a finished run has scored, as `make score` does."""

import argparse
import sys
from pathlib import Path

from canids_shared.errors import CanidsError
from canids_shared.scoring.captures import KEYS, scoring


def main() -> None:
    """Entry point. Options of Snakemake are ignored; after a dry run there may be no summary."""
    keys = "".join(f"\n  {key + '=…':22} {what}" for key, what in KEYS.items() if key not in ("capture", "run"))
    parser = argparse.ArgumentParser(
        prog="canids_shared.scoring",
        usage="%(prog)s [-h] CAPTURE RUN [KEY=VALUE …]",
        description=__doc__,
        epilog=f"keys, as in the config of pipelines/score:{keys}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("capture", metavar="CAPTURE", help=KEYS["capture"])
    parser.add_argument("run", metavar="RUN", help=KEYS["run"])
    arguments, rest = parser.parse_known_args()
    given = dict(option.split("=", 1) for option in rest if "=" in option)
    try:
        job = scoring({key: given[key] for key in KEYS if key in given} | vars(arguments))
    except CanidsError as error:
        sys.exit(f"error: {error}")
    if (summary := Path(job.summary())).exists():
        print(summary.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
