"""Learn the profile of a vehicle from the first seconds of its attack-free captures (contract profile/1).

`python -m canids_preprocess.profile --spec JSON --output X.safetensors --frames A.parquet B.parquet …`

Those seconds, `enrolment`, are the vehicle's enrolment: no scenario judges them. `canids_preprocess.enrol` makes the profile of a raw capture.
"""

from canids_preprocess.enrolment import profiles
from canids_preprocess.enrolment.learning import learnt
from canids_preprocess.enrolment.stretches import stretches
from canids_preprocess.windowing.members import members, metadata_of
from canids_shared.errors import CanidsError
from canids_shared.jobs import entry_point


def main(call: entry_point.Call) -> None:
    """Entry point. Raises `CanidsError` if a capture is damaged, or no attack-free traffic of two frames or more is there."""
    captures = metadata_of(call)
    free = {r: captures[r] for r in members(call, captures) if captures[r]["content"] == "attack-free"}
    learners = [learnt(bus, of_bus) for bus, of_bus in stretches(free, call.config["enrolment"]).items()]
    if not learners:
        vehicle = call.wildcards["vehicle"]
        raise CanidsError(f"vehicle '{vehicle}': its attack-free captures last no time; it cannot be enrolled")
    header = {**call.made_for("dataset", "instance", "vehicle"), "code": call.constants.get("code", "")}
    profiles.save(call.output["output"], learners, header)


if __name__ == "__main__":
    entry_point.run(main, inputs=["frames"])
