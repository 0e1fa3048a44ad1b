"""Make a pipeline or a module that passes lint and tests as it is.

`python -m canids_shared.tools.scaffold pipeline NAME` makes the folder `pipelines/NAME` and touches nothing else.
`python -m canids_shared.tools.scaffold module NAME` makes the folder `modules/NAME` and `tests/modules/test_module_NAME.py`, and
lists the module in `pyproject.toml`. Run in the root of a checkout; `make new-pipeline NAME=…` and `make new-module NAME=…` also
add the files to git and install the package.
"""

import argparse
import keyword
import re
import sys
import tomllib
from pathlib import Path

from canids_shared.errors import CanidsError
from canids_shared.files import write_text
from canids_shared.planning.pipeline import PORTS, STAGES

TEMPLATES = Path(__file__).parent / "templates"
FOLDERS = {"pipeline": "pipelines/@name@", "module": "modules/@name@"}
ELSEWHERE = {
    ("pipeline", "test.yml"): "pipelines/@name@/test_@name@.yml",
    ("module", "test.py"): "tests/modules/test_module_@name@.py",
    **{
        ("module", f"{name}.py"): f"modules/@name@/canids_@name@/{name}.py"
        for name in ("__init__", "stand_ins", "tally")
    },
}
"""Templates whose file does not lie in the folder under the template's own name."""
LONGEST = 30
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_RULE = re.compile(
    r"^\s*(?:rule|checkpoint)\s+(\w+)|^use rule \w+ from \w+ as (\w+)|^use rule \w+ as (\w+)", re.MULTILINE
)
_RESERVED = {
    *("all", "shared", "profiles", "datasets", "data_root", "instances", "modules"),
    *("config", "captures", "frames", "runs"),
}
"""Names of rules, ports and keys of a pipeline's config."""


def check_name(root: Path, name: str) -> None:
    """Raise `CanidsError` if `root` is no checkout of canids, or a pipeline or module cannot have this name.

    Names of pipelines and modules are unique over both, and differ from those of all rules: a pipeline composes rules of all
    modules, and its target is named after it.
    """
    absent = [p for p in ("pyproject.toml", "modules", "pipelines", "tests") if not (root / p).exists()]
    if absent:
        raise CanidsError(f"{root / absent[0]}: not there; run this in the root of a checkout of canids")
    if not _NAME.fullmatch(name) or len(name) > LONGEST:
        raise CanidsError(
            f"name '{name}': must be lower case letters and digits, parts joined by one underscore, beginning with a "
            f"letter, at most {LONGEST} characters, such as late_fusion"
        )
    if keyword.iskeyword(name) or name in _RESERVED | PORTS.keys() | set(STAGES):
        raise CanidsError(f"name '{name}': is reserved by Python or by canids; choose another")
    for folder in ("pipelines", "modules"):
        if (root / folder / name).exists():
            raise CanidsError(f"name '{name}': {root / folder / name} exists already; choose another")
    for snakefile in sorted(root.glob("*/*/Snakefile")):
        rules = {n for names in _RULE.findall(snakefile.read_text(encoding="utf-8")) for n in names}
        if taken := {name, f"all_{name}"} & rules:
            raise CanidsError(f"name '{name}': {snakefile} has a rule '{taken.pop()}'; choose another")


def files(root: Path, kind: str, name: str) -> dict[Path, str]:
    """The files of a new pipeline or module, path → content: the templates with the name put in."""
    values = {"@name@": name, "@NAME@": name.upper(), "@extra@": name.replace("_", "-")}

    def filled(text: str) -> str:
        for key, value in values.items():
            text = text.replace(key, value)
        return text

    made = {}
    for template in sorted((TEMPLATES / kind).glob("*.template")):
        usual = f"{FOLDERS[kind]}/{template.stem}"
        path = root / filled(ELSEWHERE.get((kind, template.stem), usual))
        made[path] = filled(template.read_text(encoding="utf-8"))
    return made


def with_module(text: str, name: str) -> str:
    """`text` of `pyproject.toml` with the module `name`, edited as text so that comments and layout stay.

    Raises `CanidsError` naming the entries to add by hand if one of them cannot be added.
    """
    folder, extra = f"modules/{name}", name.replace("_", "-")
    package = f"canids_{name}"
    arrays = {"dev-mode-dirs": folder, "only-include": f"{folder}/{package}", "sources": folder}
    added = {**arrays, "known-first-party": package, "mypy_path": folder}
    for key, item in added.items():
        text = re.sub(rf"^({key} = \[[^\]\n#]*)\]", rf'\1, "{item}"]', text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^dev = \[", f"{extra} = []\n\\g<0>", text, count=1, flags=re.MULTILINE)
    # An edit that matched nothing, or broke the file, shows when the text is parsed.
    try:
        project = tomllib.loads(text)
        tool = project["tool"]
        build = tool["hatch"]["build"]
        lists = {**build, **build["targets"]["wheel"], **tool["mypy"], **tool["ruff"]["lint"]["isort"]}
        complete = all(item in lists[key] for key, item in added.items())
        complete = complete and project["project"]["optional-dependencies"][extra] == []
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        complete = False
    if not complete:
        entries = "; ".join(f'"{item}" to {key}' for key, item in added.items())
        raise CanidsError(f"pyproject.toml: add by hand: {entries}; an extra '{extra} = []'. Nothing was written")
    return text


def write(root: Path, kind: str, name: str) -> list[Path]:
    """Make a pipeline or a module; returns the files written.

    Raises `CanidsError`, before anything is written, naming a name that is wrong or taken, a file that exists already, or an
    entry of `pyproject.toml` that has to be added by hand.
    """
    check_name(root, name)
    made = files(root, kind, name)
    if taken := [path for path in made if path.exists()]:
        raise CanidsError(f"{taken[0]}: exists already; nothing was written")
    if kind == "module":
        project = root / "pyproject.toml"
        made[project] = with_module(project.read_text(encoding="utf-8"), name)
    for path, text in made.items():
        write_text(path, text)
    return list(made)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=tuple(FOLDERS))
    parser.add_argument("name", metavar="NAME", help="lower case letters, digits and underscores, such as late_fusion")
    arguments = parser.parse_args()
    try:
        for path in write(Path(), arguments.kind, arguments.name):
            print(path)
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
