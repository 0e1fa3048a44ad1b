"""Stand-ins of this module's files (`stand_in: true`): an empty receipt; stand-ins never go into MLflow."""

from canids_shared.files import write_json
from canids_shared.jobs import stand_in_runner
from canids_shared.jobs.entry_point import Call
from canids_shared.jobs.stand_in_runner import StandIn
from canids_track.planning import CONTRACT


def receipt(call: Call) -> None:
    """Nothing tracked, nothing pending."""
    write_json(
        call.output["output"],
        {"contract": CONTRACT, "attempt": call.constants["attempt"], "tracked": [], "pending": {}},
    )


STAND_INS = {"ingest": StandIn(receipt)}

if __name__ == "__main__":
    stand_in_runner.run(STAND_INS)
