"""Hash of the code and the libraries that shape the output of an entry point, for a rule's params."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_TOP_LEVEL = re.compile(r"^([A-Za-z_]\w*)(?:/[^,\n]*)?\.(?:py|[^/,\n]*so),", re.MULTILINE)
"""Package or module in a line of a distribution's RECORD (PyPA, "Recording installed projects")."""


@cache
def _distributions() -> dict[str, importlib.metadata.Distribution]:
    """Top-level package → the first distribution that has it.

    The result of `importlib.metadata.packages_distributions`, which parses every RECORD and METADATA; that takes a third of a
    second whenever a Snakefile is read, also in each job of a cluster.
    """
    by_package: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        names = (distribution.read_text("top_level.txt") or "").split()
        names = names or _TOP_LEVEL.findall(distribution.read_text("RECORD") or "")
        for name in names:
            by_package.setdefault(name, distribution)
    return by_package


@cache
def _release(package: str) -> tuple[str, str] | None:
    """Name and version of the distribution that has a top-level package; None if none has it.

    From the first lines of its METADATA: `importlib.metadata` parses the whole text as an e-mail, its description included.
    """
    if (distribution := _distributions().get(package)) is None or (name := _line_of(distribution, "Name")) is None:
        return None
    # Of several of this name, the first on the path is the one that is imported.
    version = _line_of(importlib.metadata.distribution(name), "Version")
    return (name, version) if version else None


def _line_of(distribution: importlib.metadata.Distribution, key: str) -> str | None:
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    found = re.search(rf"^{key}: *(.+?)\s*$", text, re.MULTILINE)
    return found[1] if found else None


@cache
def _origin(module: str) -> Path | None:
    """File of a module, found without running anything: `find_spec` would import the packages above it, and torch with them."""
    parent, _, name = module.rpartition(".")
    if not parent:
        spec = importlib.util.find_spec(module)
        return Path(spec.origin) if spec and spec.origin else None
    above = _origin(parent)
    if above is None or above.name != "__init__.py":
        return None
    # A folder is a package before a file of the same name is a module.
    here = (above.parent / name / "__init__.py", above.parent / f"{name}.py")
    return next((path for path in here if path.is_file()), None)


def _statements(module: ast.Module) -> Iterator[ast.AST]:
    """All statements, in functions, branches and handlers too; an expression imports nothing."""
    waiting: list[ast.AST] = [module]
    while waiting:
        node = waiting.pop()
        yield node
        for field in ("body", "orelse", "handlers", "finalbody", "cases"):
            waiting += getattr(node, field, ())


@cache
def _names(source: bytes, module: str, is_package: bool) -> frozenset[str]:
    """Every module that `source` may import, absolute."""
    package = module if is_package else module.rpartition(".")[0]
    names: set[str] = set()
    for node in _statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def closure(module: str) -> tuple[dict[str, Path], set[str]]:
    """Files that `module` reaches by imports, and the top-level names of other packages.

    The files are those of this project and of the module's own package, the module's included, by name; nothing is run.
    """
    own_package = module.partition(".")[0]
    files: dict[str, Path] = {}
    others: set[str] = set()
    waiting = [module]
    # Over the graph of imports, from file to file; at the border of this project a package counts by its version.
    while waiting:
        name = waiting.pop()
        package = name.partition(".")[0]
        if not (package == own_package or package.startswith("canids_")):
            others.add(package)
            continue
        origin = _origin(name)
        if name in files or origin is None:  # None: a name imported from a module is not a module
            continue
        files[name] = origin
        waiting += _names(origin.read_bytes(), name, origin.name == "__init__.py")
        if "." in name:  # Python runs the package of a module before the module
            waiting.append(name.rpartition(".")[0])
    return files, others - set(sys.stdlib_module_names)


@cache
def _versions(packages: tuple[str, ...], python: str) -> dict[str, str]:
    """Version of each package that `python` has; an absent one is left out, and stops the job, not the planning."""
    if python == sys.executable:
        return dict(release for release in map(_release, packages) if release)
    # In another environment its own Python answers, with the standard library alone.
    query = (
        "import importlib.metadata as m, json, sys; d = m.packages_distributions();"
        "print(json.dumps({d[p][0]: m.version(d[p][0]) for p in sys.argv[1:] if p in d}))"
    )
    answer = subprocess.run([python, "-c", query, *packages], check=True, capture_output=True, text=True)
    return dict(json.loads(answer.stdout))


@cache
def code_hash(module: str, python: str = sys.executable) -> str:
    """Hash of the sources that `module` reaches (`closure`), and of the versions of the libraries that they import.

    An edit of a file that the entry point does not reach, or another checkout, leaves it unchanged.
    """
    files, others = closure(module)
    if module not in files:
        package = "canids" if module.startswith("canids_") else "its package"
        raise ModuleNotFoundError(f"no module {module}: install {package} into the environment of Snakemake")
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name].read_bytes() + b"\0")
    digest.update(json.dumps(_versions(tuple(sorted(others)), python), sort_keys=True).encode())
    return digest.hexdigest()[:16]
