"""The folder of a training run: config, history, record, and the checkpoints from which it resumes."""

import hashlib
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

from canids_shared.contracts import training_run
from canids_shared.contracts.model_file import Arrays, load_arrays, save_arrays
from canids_shared.contracts.training_run import TrainingRun
from canids_shared.errors import CanidsError
from canids_shared.files import canonical_json, sha256_of
from canids_shared.jobs.entry_point import Call

_CHECKPOINT = "checkpoint/1"
log = logging.getLogger(__name__)


def identity(call: Call) -> dict[str, Any]:
    """Everything that decides the outcome of a training: spec (config, code, wildcards), digests of the inputs, Python."""
    inputs = {name: [sha256_of(p) for p in paths] for name, paths in call.inputs.items()}
    return {"spec": json.loads(call.spec), "inputs": inputs, "python": ".".join(map(str, sys.version_info[:2]))}


def run_identity(call: Call, kind: str) -> dict[str, str]:
    """Which run a model file is of, for its header: dataset, run, variant, instance and code; `kind` is that of the run."""
    variant = call.constants["variant"]
    run = f"{kind}_{variant}{call.instance}"
    made = {"dataset": call.wildcards["dataset"], "run": run, "variant": variant, "instance": call.instance}
    return {**made, "code": call.constants["code"]}


def write_config(path: str | Path, call: Call) -> dict[str, Any]:
    """Write `config.yaml`: everything that is needed to repeat the run; returns its content."""
    files = {name: [str(p) for p in paths] for name, paths in call.inputs.items()}
    content = {**identity(call), "files": files}
    training_run.write_config(path, content)
    return content


def write_run(
    call: Call, history: list[dict[str, Any]], unrecorded: tuple[str, ...] = (), **fields: Any
) -> TrainingRun:
    """Write config, history and `run.json` of a training whose model file is written.

    Args:
        history: a row for each epoch (or evaluation); empty, and no output, for what is not learnt in steps.
        unrecorded: columns of the history that `run.json` leaves out: times and memory.
        fields: those of `TrainingRun` that do not follow from the call.
    """
    content = write_config(call.output["config"], call)
    if "history" in call.output:
        training_run.write_history(call.output["history"], history)
    record = TrainingRun(
        variant=call.constants["variant"],
        scale=call.scale,
        dataset=call.wildcards["dataset"],
        instance=call.instance,
        seed=call.config["seed"],
        code=call.constants["code"],
        config=call.config,
        inputs=content["files"],
        input_digests=content["inputs"],
        history=training_run.history_columns(history, unrecorded),
        sizes={file: call.output[file].stat().st_size for file in ("model", "config")},
        digests={"model": sha256_of(call.output["model"])},
        **fields,
    )
    training_run.write(call.output["run"], record)
    return record


class Checkpoint:
    """The state of a training in `{run}/.checkpoint/{hash of config, data, code}/`.

    A matching one is resumed, others are ignored, all are removed on success. It is replaced whole, so a run that was killed
    resumes from the last saved state.

    Attributes:
        failed_batch: the file for a batch that stopped the training; removed on success too.
    """

    def __init__(self, call: Call, run_folder: Path, **how: Any) -> None:
        """A checkpoint of this call; `how` is what decides the bytes and is known at run time only, such as the device."""
        # Another config, other data, code or device: another folder, so a checkpoint that does not match is never read.
        key = hashlib.sha256(canonical_json({**identity(call), "how": how}).encode()).hexdigest()[:16]
        self._all = run_folder / ".checkpoint"
        self.failed_batch = run_folder / "failed_batch.safetensors"
        self._path = self._all / key / "state.safetensors"

    def load(self) -> tuple[Arrays, dict[str, Any]] | None:
        """Arrays and progress of a matching checkpoint; None without one, or if it is damaged, which a warning says."""
        if not self._path.exists():
            return None
        try:
            arrays, header = load_arrays(self._path, _CHECKPOINT)
            return arrays, header["progress"]
        except (CanidsError, KeyError) as error:
            log.warning("warning: %s: a damaged checkpoint (%s): the training begins at its start", self._path, error)
            self._path.unlink()
            return None

    def save(self, arrays: Arrays, progress: dict[str, Any]) -> None:
        """Replace the checkpoint; `progress` must be JSON."""
        save_arrays(self._path, arrays, {"contract": _CHECKPOINT, "progress": progress})

    def remove(self) -> None:
        """Delete all checkpoints of the run: it has succeeded."""
        shutil.rmtree(self._all, ignore_errors=True)
        self.failed_batch.unlink(missing_ok=True)
