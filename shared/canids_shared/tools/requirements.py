"""Which packages the project needs and has, by the standard library alone: it must answer where nothing is installed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from itertools import zip_longest
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """A package as `pyproject.toml` asks for it.

    Attributes:
        name: as on the index, lower case, with hyphens.
        bounds: such as `>=2.0,<3`; may be empty.
        locked: the version that the project is tested with, or None.
        installed: the version that is here, or None.
    """

    name: str
    bounds: str
    locked: str | None
    installed: str | None

    @property
    def fits(self) -> bool:
        """Whether it is installed, in a version within the bounds."""
        return self.installed is not None and within(self.installed, self.bounds)


def _release(version: str) -> list[int]:
    return [int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part]  # type: ignore[index]


def within(version: str, bounds: str) -> bool:
    """Whether a version (its release numbers; suffixes such as `+cpu` count for nothing) is within the bounds."""
    for bound in filter(None, bounds.split(",")):
        sign, wanted = re.fullmatch(r"\s*(==|>=|<=|<|>)\s*(\S+)\s*", bound).groups()  # type: ignore[union-attr]
        pairs = list(zip_longest(_release(version), _release(wanted), fillvalue=0))
        have, want = [a for a, _ in pairs], [b for _, b in pairs]
        holds = {"==": have == want, ">=": have >= want, "<=": have <= want, "<": have < want, ">": have > want}
        if not holds[sign]:
            return False
    return True


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _split(requirement: str) -> tuple[str, list[str], str]:
    """Name, extras and bounds of `name[extra,extra]>=1`."""
    name, extras, bounds = re.fullmatch(r"([\w.-]+)(?:\[(.*?)\])?\s*(.*)", requirement).groups()  # type: ignore[union-attr]
    return re.sub(r"[-_.]+", "-", name).lower(), (extras or "").split(",") if extras else [], bounds


def by_extra(root: Path) -> dict[str, list[Package]]:
    """The packages of the distribution itself (``""``) and of each extra, those of extras within it included.

    Args:
        root: the folder of `pyproject.toml` and `constraints.txt`.
    """
    import tomllib  # noqa: PLC0415 (older Pythons lack it, and are to be told so)

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {"": project["dependencies"], **project["optional-dependencies"]}
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    locked = {_split(name)[0]: version for name, _, version in (line.partition("==") for line in lines if "==" in line)}

    def packages(extra: str) -> dict[str, Package]:
        found: dict[str, Package] = {}
        for requirement in declared[extra]:
            name, extras, bounds = _split(requirement)
            if name == project["name"]:
                for inner in extras:
                    found |= packages(inner)
            else:
                found[name] = Package(name, bounds, locked.get(name), _installed(name))
        return found

    return {extra: list(packages(extra).values()) for extra in declared}
