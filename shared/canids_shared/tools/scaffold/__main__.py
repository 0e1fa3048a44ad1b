"""Make a pipeline or a module that passes lint and tests as it is.

`python -m canids_shared.tools.scaffold pipeline NAME` makes the folder `pipelines/NAME` and touches nothing else.
`python -m canids_shared.tools.scaffold module NAME` makes the folder `modules/NAME` and `tests/modules/test_module_NAME.py`, and
lists the package `canids_NAME` in `pyproject.toml`. Run in the root of a checkout; `make new-pipeline NAME=…` and
`make new-module NAME=…` do, and tell git and pip of it.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

from canids_shared.errors import CanidsError
from canids_shared.files import write_text
from canids_shared.tools.scaffold.names import check_name
from canids_shared.tools.scaffold.project import with_package

TEMPLATES = Path(__file__).parent / "templates"
CONDA_NAMES = {"snakemake": "snakemake-minimal"}
"""Packages that conda calls otherwise than pip."""


def pipeline(root: Path, name: str) -> dict[Path, str]:
    """The files of a new pipeline, path → content: one folder that composes what kd_fusion composes."""
    folder = root / "pipelines" / name
    return {
        folder / "Snakefile": _rendered("pipeline/Snakefile", name),
        folder / "config.yaml": _rendered("pipeline/config.yaml", name),
        folder / f"test_{name}.yml": _rendered("pipeline/test.yml", name),
    }


def module(root: Path, name: str) -> dict[Path, str]:
    """The files of a new module, path → content; the last one is `pyproject.toml` with its package listed.

    Raises `CanidsError` if `pyproject.toml` cannot be edited safely.
    """
    folder = root / "modules" / name
    package = folder / f"canids_{name}"
    project = root / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    dependencies = _for_conda(tomllib.loads(text)["project"]["dependencies"])
    return {
        folder / "Snakefile": _rendered("module/Snakefile", name),
        folder / "config.schema.yaml": _rendered("module/config.schema.yaml", name),
        folder / "environment.yaml": _rendered("module/environment.yaml", name, dependencies),
        folder / "README.md": _rendered("module/README.md", name),
        package / "__init__.py": _rendered("module/__init__.py", name),
        package / "stand_ins.py": _rendered("module/stand_ins.py", name),
        package / "tally.py": _rendered("module/tally.py", name),
        root / "tests" / "modules" / f"test_module_{name}.py": _rendered("module/test.py", name),
        project: with_package(text, name),
    }


def _rendered(template: str, name: str, dependencies: str = "") -> str:
    text = (TEMPLATES / f"{template}.template").read_text(encoding="utf-8")
    values = {"name": name, "NAME": name.upper(), "extra": name.replace("_", "-"), "dependencies": dependencies}
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    # The linter's order of imports depends on the name.
    return re.sub(r"(?:^from canids_.*\n)+", lambda found: "".join(sorted(found[0].splitlines(True))), text, flags=re.M)


def _for_conda(requirements: list[str]) -> str:
    """Requirements such as `numpy>=2.0` as lines of a conda environment."""
    lines = []
    for text in requirements:
        name = text[: next((i for i, c in enumerate(text) if c in "<>=!~ "), len(text))]
        lines.append(f"  - {CONDA_NAMES.get(name, name)} {text[len(name) :].strip()}".rstrip())
    return "\n".join(lines)


def write(root: Path, kind: str, name: str) -> list[Path]:
    """Make a pipeline or a module; returns the files written.

    Nothing is written unless all of it can be: a `CanidsError` says which name is wrong or taken, which file is in the
    way, or that `root` is no checkout of canids.
    """
    check_name(root, kind, name)
    files = pipeline(root, name) if kind == "pipeline" else module(root, name)
    project = root / "pyproject.toml"
    if taken := [path for path in files if path != project and path.exists()]:
        raise CanidsError(f"{taken[0]}: is there already; nothing was written")
    for path, text in files.items():
        write_text(path, text)
    return list(files)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("pipeline", "module"))
    parser.add_argument("name", metavar="NAME", help="lower case letters, digits and underscores, such as late_fusion")
    arguments = parser.parse_args()
    try:
        for path in write(Path(), arguments.kind, arguments.name):
            print(path)
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
