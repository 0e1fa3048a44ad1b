"""Dry runs of a module's whole rule graph: every job runs and writes tiny files, and none trains (`stand_in: true`).

With `stand_in: true` the variable `CANIDS_<STAGE>_STAND_INS` becomes `-m canids_<stage>.stand_ins` (`canids_shared.planning.stage.Stage`),
so that the same shell, `"$CANIDS_<STAGE>_PYTHON" $CANIDS_<STAGE>_STAND_INS -m canids_<stage>.<entry> --spec … --output …`, calls the
stand-in of that entry point in the table in `canids_<stage>/stand_ins.py`. Files honour their contracts and are marked (`canids_shared.contracts.stand_in_mark`);
nothing imports torch.
"""

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from canids_shared.contracts import stand_in_mark
from canids_shared.errors import CanidsError
from canids_shared.files import write_fault
from canids_shared.jobs.entry_point import Call, calls_of

_DOCUMENTS = {
    ".md": "# Stand-in\n\nMade with `stand_in: true`: there are no results.\n",
    ".html": "<!doctype html>\n<title>Stand-in</title>\n<p>Made with <code>stand_in: true</code>: there are no results.</p>\n",
    ".svg": '<svg xmlns="http://www.w3.org/2000/svg" width="160" height="24"><text y="16">stand-in</text></svg>\n',
}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StandIn:
    """The stand-in of an entry point.

    Attributes:
        make: writes the outputs of a call; pages and figures that it does not write are blank ones.
        outputs: names of the entry point's output options.
        each: as the entry point's (`canids_shared.jobs.entry_point.run`).
    """

    make: Callable[[Call], None] = lambda call: None
    outputs: tuple[str, ...] = ("output",)
    each: tuple[str, ...] | None = None


def run(stand_ins: dict[str, StandIn]) -> None:
    """Run the stand-in of the entry point on the command line, `-m canids_<stage>.<entry> …`; `stand_ins` is the table of its stage."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    _, module, *arguments = sys.argv[1:]
    package, _, entry = module.partition(".")
    try:
        if entry not in stand_ins:
            raise CanidsError(f"{module}: has no stand-in; add one to the table in {package}/stand_ins.py")
        with stand_in_mark.allow_stand_ins():
            for call in _calls(arguments, stand_ins[entry]):
                _make(stand_ins[entry], call)
    except CanidsError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {write_fault(error, '.') or error}")


def _calls(arguments: list[str], stand_in: StandIn) -> list[Call]:
    """The calls of a command line: `--spec JSON`, one path for each output, or all behind `--output`; all other paths are inputs."""
    options: dict[str, list[str]] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("--"):
            name = argument.removeprefix("--")
            options[name] = []
            continue
        options.setdefault(name, []).append(argument)
        if name in stand_in.outputs and stand_in.each is None:  # an output takes one path; paths without a name follow
            name = ""
    spec = options.pop("spec", ["{}"])[0]
    paths = {name: [Path(p) for p in texts] for name, texts in options.items()}
    if stand_in.each is not None:
        output = paths.pop("output")
        return calls_of(spec, stand_in.outputs, output, paths, stand_in.each)
    outputs = {name: paths.pop(name)[0] for name in stand_in.outputs}
    return [Call.of(spec, outputs, paths)]


def _make(stand_in: StandIn, call: Call) -> None:
    """Make all outputs beside their places, mark them, then move them: no output ever lies there without its mark."""
    beside = {name: path.with_name(f".{os.getpid()}.{path.name}") for name, path in call.output.items()}
    try:
        for path in beside.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        stand_in.make(replace(call, output=beside))
        for name, path in beside.items():
            if not path.exists():
                if path.suffix not in _DOCUMENTS:
                    raise CanidsError(f"{call.output[name]}: its stand-in was not made (output '{name}')")
                path.write_text(_DOCUMENTS[path.suffix], encoding="utf-8")
            stand_in_mark.mark(path)
        for name, path in beside.items():
            os.replace(path, call.output[name])
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)
    log.info("stand-ins: %s", ", ".join(map(str, call.output.values())))
