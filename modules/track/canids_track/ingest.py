"""Finished runs into MLflow, as the last step of a pipeline (rule track).

    python -m canids_track.ingest --spec JSON --output receipt.json
        --evaluations metrics.json … --window_baselines metrics.json --summary results.md --report report.html

Takes all finished runs of the dataset, also those that are pending from an earlier step; their folder is that of the receipt.
A sweep has neither baselines nor a summary. The receipt lists pending runs. Which runs MLflow holds is asked every time.
"""

from pathlib import Path

from canids_shared.files import write_json
from canids_shared.jobs import entry_point
from canids_track.planning import CONTRACT
from canids_track.records import Places
from canids_track.tracking import Options, track

INPUTS = ["evaluations", "window_baselines", "summary", "report"]


def _plain(files: list[Path], default: Path) -> Path:
    """The folder of the first file, without the instance in its name."""
    return files[0].parent.with_name(files[0].parent.name.partition("@")[0]) if files else default


def main(call: entry_point.Call) -> None:
    """Track, and write the receipt."""
    usual = Places.of(call.output["output"].parent.parent)
    places = Places(
        call.wildcards["dataset"],
        usual.runs,
        _plain(call.inputs["window_baselines"], usual.window_baselines),
        _plain(call.inputs["summary"], usual.summary),
    )
    tracked, pending = track(places, Options(**call.config))
    receipt = {"contract": CONTRACT, "attempt": call.constants["attempt"], "tracked": tracked, "pending": pending}
    write_json(call.output["output"], receipt)


if __name__ == "__main__":
    entry_point.run(main, inputs=INPUTS)
