"""The one way in which rules call code: `python -m canids_<stage>.<entry> --spec JSON --output … --<input> …`."""

import argparse
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from canids_shared import cache_entries
from canids_shared.contracts import stand_in_mark
from canids_shared.errors import BusyError, CanidsError
from canids_shared.files import write_fault
from canids_shared.jobs import devices, job_usage
from canids_shared.jobs.interruption import end_with_snakemake, sigterm_as_exit
from canids_shared.jobs.locks import locked_folder


@dataclass(frozen=True)
class Call:
    """The arguments of an entry point.

    Attributes:
        wildcards: the job's wildcards, such as `{"dataset": "simulated", "split": "fit", "instance": ""}`.
        config: the part of the stage's config that the rule uses.
        constants: further values from the rule (`variant`, `capture`, …), and `code`, the hash of the entry's sources.
        output: the paths to write, by name.
        inputs: the paths to read, by name, in the rule's order.
        spec: the JSON text itself, for the record of the run.
    """

    wildcards: dict[str, str]
    config: dict[str, Any]
    constants: dict[str, Any]
    output: dict[str, Path]
    inputs: dict[str, list[Path]]
    spec: str

    @classmethod
    def of(cls, spec: str, output: dict[str, Path], inputs: dict[str, list[Path]]) -> "Call":
        """The call with a rule's params (`canids_shared.planning.stage.Stage.spec`) and its paths."""
        constants = json.loads(spec)
        return cls(constants.pop("wildcards", {}), constants.pop("config", {}), constants, output, inputs, spec)

    @property
    def instance(self) -> str:
        """The run instance, `@name` or empty."""
        return self.wildcards.get("instance", "")

    def made_for(self, *names: str) -> dict[str, Any]:
        """The wildcards of these names that the rule has: what a file that is made for this job says (`dataset`, `split`, …)."""
        return {name: self.wildcards[name] for name in names if name in self.wildcards}

    @property
    def scale(self) -> str:
        """`large` or `small`, from the variant that a training rule names."""
        return str(self.constants["variant"]).partition("_")[0]


def calls_of(
    spec: str, names: Sequence[str], output: Sequence[Path], inputs: Mapping[str, list[Path]], each: Sequence[str]
) -> list[Call]:
    """The calls of a job that makes several files of a kind: one for each item of the spec's constant `each`.

    An item holds what is its call's own: wildcards (`{"wildcards": {"split": "fit"}}`) and constants. Without items there is one call.

    Args:
        spec: the rule's params.
        names: names of a call's outputs.
        output: the paths to write: those of all calls under the first name, then those under the next.
        inputs: the paths to read, by name; all calls read all of them, but for those named in `each`.
        each: names of inputs with one path for each call.

    Raises `CanidsError` naming the option that has more paths than that, or fewer.
    """
    common = json.loads(spec)
    items: list[dict[str, Any]] = common.pop("each", [{}])
    expected = {"output": len(names) * len(items), **dict.fromkeys(each, len(items))}
    for name, paths in {"output": output, **{name: inputs[name] for name in each}}.items():
        if len(paths) != expected[name]:
            raise CanidsError(f"--{name}: {len(paths)} paths, where {expected[name]} belong")
    calls = []
    for index, item in enumerate(items):
        wildcards = {**common.get("wildcards", {}), **item.get("wildcards", {})}
        own = json.dumps({**common, **item, "wildcards": wildcards}, sort_keys=True) if item else spec
        read = {name: [paths[index]] if name in each else paths for name, paths in inputs.items()}
        calls.append(Call.of(own, dict(zip(names, output[index :: len(items)], strict=True)), read))
    return calls


def run(
    main: Callable[[Call], None],
    inputs: list[str],
    outputs: list[str] | None = None,
    alone: str | None = None,
    each: Sequence[str] | None = None,
) -> None:
    """Parse the command line, call `main`, and turn a `CanidsError` or a failed write into one line and exit status 1.

    The line begins with `error: `, or with `busy: ` if another try may pass (`canids_shared.planning.failures`).

    A stand-in among the inputs is such an error, unless the job makes stand-ins (`canids_shared.contracts.stand_in_mark`). The
    process ends with the Snakemake that started it, and sees one GPU at most. The last line of standard error, hence of the
    rule's log, is a record of the time and memory that the job took (`canids_shared.jobs.job_usage`).

    Args:
        main: the function that does the work.
        inputs: names of the options for paths to read.
        outputs: names of the options for paths to write.
        alone: the output whose folder is locked meanwhile: that of a run.
        each: for an entry point that a job may call several times (`calls_of`), names of the inputs with one path for each call. All
            outputs then follow `--output`.
    """
    begin, starting = time.perf_counter(), job_usage.since_start()
    parser = argparse.ArgumentParser(description=sys.modules[main.__module__].__doc__)
    parser.add_argument("--spec", required=True, help="JSON with wildcards, config and constants (params of the rule)")
    names = outputs or ["output"]
    for name in names if each is None else ["output"]:
        parser.add_argument(f"--{name}", required=True, type=Path, nargs=None if each is None else "+")
    for name in inputs:
        parser.add_argument(f"--{name}", nargs="*", default=[], type=Path)
    parsed = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    read = {name: parsed[name] for name in inputs}
    output = {name: parsed[name] for name in names} if each is None else {"output": parsed["output"][0]}
    call = Call.of(parsed["spec"], output, read)
    gc.freeze()  # imported modules are never garbage; without this each collection traverses all of them
    end_with_snakemake()
    files = [path for paths in call.inputs.values() for path in paths]
    try:
        # Before a lock or a device is taken.
        for path in files:
            stand_in_mark.refuse(path)
        lock = locked_folder(call.output[alone].parent) if alone else nullcontext()
        gpu = nullcontext() if call.config.get("accelerator", "cpu") == "cpu" else devices.claim()
        with sigterm_as_exit(), lock, gpu:
            for one in [call] if each is None else calls_of(parsed["spec"], names, parsed["output"], read, each):
                main(one)
        job = {"entry": _entry(main), "wildcards": call.wildcards, "code": call.constants.get("code")}
        job |= {"start_seconds": starting and round(starting, 2), "threads": call.config.get("torch_threads", 1)}
        print(job_usage.line(files, time.perf_counter() - begin, **job), file=sys.stderr)
    except Exception as error:
        # Damage explains whatever came of it.
        fault = cache_entries.unlink_damaged(files) or (error if isinstance(error, CanidsError) else None)
        if not (fault := fault or write_fault(error, next(iter(call.output.values())))):
            raise
        _fail(f"{'busy' if isinstance(fault, BusyError) else 'error'}: {fault}")


def _fail(line: str) -> NoReturn:
    """End with status 1 and a line on standard error, hence in the log; if its disk is full, on the terminal too."""
    log = os.fstatvfs(2)
    if log.f_blocks and not log.f_bavail:
        print(line)
    sys.exit(line)


def _entry(main: Callable[[Call], None]) -> str:
    """Name of the module of `main`, also where `python -m` names it `__main__`."""
    spec = sys.modules[main.__module__].__spec__
    return spec.name if spec else main.__module__
