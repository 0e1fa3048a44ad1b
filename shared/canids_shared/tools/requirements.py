"""Packages that the project needs, and those installed. Runs by the standard library alone where nothing is installed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """A package as `pyproject.toml` asks for it.

    Attributes:
        name: as on the index, lower case, with hyphens.
        bounds: such as `>=2.0,<3`; may be empty.
        locked: the version that the project is tested with, or None.
        installed: the version that is installed, or None.
    """

    name: str
    bounds: str
    locked: str | None
    installed: str | None

    @property
    def fits(self) -> bool:
        """Whether it is installed, in a version within the bounds."""
        return self.installed is not None and within(self.installed, self.bounds)


def within(version: str, bounds: str) -> bool:
    """Whether a version is within bounds; a suffix such as `+cpu` does not count."""
    try:
        from packaging.specifiers import SpecifierSet  # noqa: PLC0415 (absent where nothing is installed)
    except ImportError:
        return False  # Snakemake needs it: an environment without it has to be installed again
    return SpecifierSet(bounds).contains(version, prereleases=True)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _split(requirement: str) -> tuple[str, list[str], str]:
    """Name, extras and bounds of `name[extra,extra]>=1`."""
    name, extras, bounds = re.fullmatch(r"([\w.-]+)(?:\[(.*?)\])?\s*(.*)", requirement).groups()  # type: ignore[union-attr]
    return re.sub(r"[-_.]+", "-", name).lower(), extras.split(",") if extras else [], bounds


def by_extra(root: Path) -> dict[str, list[Package]]:
    """The packages of the distribution itself (``""``) and of each extra, with those of the extras that it includes.

    Args:
        root: the folder of `pyproject.toml` and `constraints.txt`.
    """
    import tomllib  # noqa: PLC0415 (absent in Pythons that are too old, which the doctor reports)

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {"": project["dependencies"], **project["optional-dependencies"]}
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    locked = {_split(name)[0]: version for name, _, version in (line.partition("==") for line in lines if "==" in line)}

    def packages(extra: str) -> dict[str, Package]:
        by_name: dict[str, Package] = {}
        for requirement in declared[extra]:
            name, extras, bounds = _split(requirement)
            if name == project["name"]:
                for included in extras:
                    by_name |= packages(included)
            else:
                by_name[name] = Package(name, bounds, locked.get(name), _installed(name))
        return by_name

    return {extra: list(packages(extra).values()) for extra in declared}
