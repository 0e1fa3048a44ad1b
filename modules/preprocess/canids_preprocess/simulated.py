"""Simulate captures and read them into frames (rules simulate): a minute's drive takes less time than the start of a job.

    python -m canids_preprocess.simulated --spec '{"each": [{"capture": {"name": "dos", …}}, …]}'
        --output dos.csv … dos.parquet … rejects/dos.parquet …

An item of `each` is the manifest's entry, as `simulate` and `ingest` take it. First come all raw captures, then all frames, then
all rejects.
"""

from dataclasses import replace

from canids_preprocess import ingest, simulate
from canids_shared.jobs.entry_point import Call, run

OUTPUTS = ("capture", "frames", "rejects")
"""What is made of each capture."""


def calls(call: Call) -> tuple[Call, Call]:
    """The calls of `simulate` and of `ingest` for a capture."""
    raw, frames, rejects = (call.output[name] for name in OUTPUTS)
    # The simulator's timestamps never step back, and none of its rows is bad.
    reading = {"timestamp_tolerance": 0.0, "on_bad_rows": "error"}
    return (
        replace(call, output={"output": raw}),
        replace(
            call,
            config=reading,
            output={"output": frames, "rejects": rejects},
            inputs={"capture": [raw], "metadata": []},
        ),
    )


def main(call: Call) -> None:
    """Entry point, called for each capture."""
    simulation, reading = calls(call)
    simulate.main(simulation)
    ingest.main(reading)


if __name__ == "__main__":
    run(main, inputs=[], outputs=list(OUTPUTS), each=())
