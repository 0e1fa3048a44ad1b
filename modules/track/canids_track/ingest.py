"""Finished runs into MLflow, as the last step of a pipeline (rule track).

    python -m canids_track.ingest --spec JSON --output receipt.json
        --evaluations metrics.json … --baselines metrics.json --summary results.md --report report.html

Takes all finished runs of the dataset, so what an earlier step had to leave is taken along. The receipt says what is
pending; it is no proof of anything, MLflow is asked every time.
"""

from pathlib import Path

from canids_shared import cli
from canids_shared.files import write_json
from canids_track.planning import CONTRACT
from canids_track.records import Places
from canids_track.tracking import Options, track

INPUTS = ["evaluations", "baselines", "summary", "report"]


def _plain(file: Path) -> Path:
    """The folder of a file, without the instance in its name."""
    return file.parent.with_name(file.parent.name.partition("@")[0])


def main(call: cli.Call) -> None:
    """Track, and write the receipt."""
    places = Places(
        call.wildcards["dataset"],
        runs=call.inputs["evaluations"][0].parent.parent,
        baselines=_plain(call.inputs["baselines"][0]),
        summary=_plain(call.inputs["summary"][0]),
    )
    tracked, pending = track(places, Options(**call.config))
    receipt = {"contract": CONTRACT, "attempt": call.constants["attempt"], "tracked": tracked, "pending": pending}
    write_json(call.output["output"], receipt)


if __name__ == "__main__":
    cli.run(main, inputs=INPUTS)
