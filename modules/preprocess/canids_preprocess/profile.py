"""Learn the profile of a vehicle from the first seconds of its attack-free captures (contract profile/1).

`python -m canids_preprocess.profile --spec JSON --output X.safetensors --frames A.parquet B.parquet …`

Those seconds, `enrolment`, are the vehicle's enrolment: no scenario judges them. Of a vehicle with too few
windows of them the profile has no bus, and nothing of it is enrolment. `canids_preprocess.enrol` makes the profile of a raw capture.
"""

import logging

from canids_preprocess.enrolment import profiles
from canids_preprocess.enrolment.learning import learnt
from canids_preprocess.enrolment.stretches import stretches, windows
from canids_preprocess.windowing.members import members, metadata_of
from canids_shared.alarm_rule import FEWEST_WINDOWS
from canids_shared.jobs import entry_point

log = logging.getLogger(__name__)


def main(call: entry_point.Call) -> None:
    """Entry point. Raises `CanidsError` if a capture is damaged."""
    captures, vehicle = metadata_of(call), call.wildcards["vehicle"]
    free = {r: captures[r] for r in members(call, captures) if captures[r]["content"] == "attack-free"}
    by_bus = stretches(free, call.config["enrolment"])
    if (count := windows(by_bus, call.config)) < FEWEST_WINDOWS:
        log.warning(
            "%s: %d windows of attack-free traffic are too few to enrol it by (%d); it is judged zero-shot only",
            vehicle,
            count,
            FEWEST_WINDOWS,
        )
        by_bus = {}
    learners = [learnt(bus, of_bus) for bus, of_bus in by_bus.items()]
    header = {**call.made_for("dataset", "instance", "vehicle"), "code": call.constants.get("code", "")}
    profiles.save(call.output["output"], learners, header)


if __name__ == "__main__":
    entry_point.run(main, inputs=["frames"])
