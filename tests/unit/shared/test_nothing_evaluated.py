"""No text of a user's is evaluated: no `eval`, no query in text, no pickle, no YAML loader but the safe one, no shell of one's own."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PLACES = ("modules", "shared", "examples", "bench", "pipelines")
SOURCES = sorted(path for place in PLACES for path in (ROOT / place).rglob("*.py"))
NOTEBOOKS = sorted(path for place in PLACES for path in (ROOT / place).rglob("*.ipynb"))
SNAKEFILES = sorted(
    path for place in PLACES for name in ("Snakefile*", "*.smk", "*.py.template") for path in (ROOT / place).rglob(name)
)
MODULES = {"pickle", "cPickle", "_pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
FUNCTIONS = {"eval", "exec", "compile", "execfile"}
METHODS = {
    "read_pickle",
    "to_pickle",
    "deserialize",
    "sql",
    "sql_expr",
    "getoutput",
    "getstatusoutput",
    "create_subprocess_shell",
}
ON_TEXT = {"query", "eval"}
"""Methods that evaluate their argument; `model.eval()` has none."""
OF_YAML = re.compile("C?(Full|Unsafe|Base)?Loader|(full|unsafe)_load(_all)?")
OF_OS = {"system", "popen"}
SHELL = re.compile(
    r"\b(eval|exec|compile|os\.(?:system|popen)|pickle\.|joblib|torch\.load|\w+\.query)\b ?\(|shell ?= ?True"
)


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def evaluated(source: str) -> Iterator[str]:
    """What in a Python source evaluates text, unpickles, or leaves a command to a shell."""
    for node in ast.walk(ast.parse(source)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
        for name in names:
            if name.partition(".")[0] in MODULES or re.fullmatch(rf"yaml\.({OF_YAML.pattern})", name):
                yield f"import {name}"
            if name in ("os.system", "os.popen"):
                yield name
        if isinstance(node, ast.Attribute | ast.Constant):
            # Also `getattr(yaml, "CLoader")`.
            name = node.attr if isinstance(node, ast.Attribute) else str(node.value)
            of_yaml = isinstance(node, ast.Constant) or (isinstance(node.value, ast.Name) and node.value.id == "yaml")
            if of_yaml and OF_YAML.fullmatch(name):
                yield name
        if isinstance(node, ast.Call):
            yield from _call(node)


def _call(node: ast.Call) -> Iterator[str]:
    given = {k.arg: k.value for k in node.keywords}
    if isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        yield node.func.id
    if isinstance(node.func, ast.Attribute):
        owner, name = ast.unparse(node.func.value), node.func.attr
        # Polars' `list.eval` takes an expression, which is no text.
        on_text = name in ON_TEXT and (node.args or given) and not owner.endswith(".list")
        if name in METHODS or on_text or (owner == "os" and name in OF_OS):
            yield f"{owner}.{name}"
        if owner == "torch" and name == "load" and not _is(given.get("weights_only"), True):
            yield "torch.load without weights_only=True"
        if owner == "yaml" and name in ("load", "load_all") and len(node.args) + len(given) < 2:
            yield f"yaml.{name} without a loader"
    for key in ("shell", "allow_pickle"):
        if key in given and not _is(given[key], False):
            yield key


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)", "exec(text)", "compile(text, 'f', 'eval')", "frame.query(text)", "pd.eval(text)", "frame.eval(expr=text)",
        "import pickle", "import pickle as p", "from joblib import load", "pd.read_pickle(path)", "pl.LazyFrame.deserialize(path)",
        "torch.load(path)", "torch.load(path, weights_only=False)", "np.load(path, allow_pickle=True)", "yaml.load(text)",
        "yaml.load(text, yaml.Loader)", "yaml.unsafe_load(text)", "getattr(yaml, 'CLoader')", "from yaml import FullLoader",
        "subprocess.run(text, shell=True)", "subprocess.run(text, shell=flag)", "os.system(text)", "from os import popen", "subprocess.getoutput(text)",
    ],
)  # fmt: skip
def test_the_search_finds(source: str) -> None:
    assert list(evaluated(f"def f():\n    {source}\n"))


def test_the_search_finds_nothing_else() -> None:
    source = (
        "model.eval()\nast.literal_eval(t)\nre.compile(t)\nself.compile(dynamic=True)\nyaml.safe_load(t)\nyaml.load(t, yaml.SafeLoader)\n"
        "getattr(yaml, 'CSafeLoader', yaml.SafeLoader)\ntorch.load(p, weights_only=True)\nnp.load(p)\nsubprocess.run(c, shell=False)\n"
    )
    assert not list(evaluated(source))
    assert len(SOURCES) > 100
    assert len(SNAKEFILES) > 10
    assert NOTEBOOKS


@pytest.mark.parametrize("place", PLACES)
def test_nothing_evaluates_text(place: str) -> None:
    found = {
        str(path.relative_to(ROOT)): what
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] == place and (what := list(evaluated(path.read_text(encoding="utf-8"))))
    }
    assert not found


def test_nor_do_notebooks_snakefiles_and_templates() -> None:
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        assert not list(evaluated(re.sub("^%.*$", "", code, flags=re.MULTILINE))), path
    assert SHELL.search("    x = eval(text)")
    assert not [str(path) for path in SNAKEFILES if SHELL.search(path.read_text(encoding="utf-8"))]
