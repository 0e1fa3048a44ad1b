"""Fixtures of the unit tests, and how Hypothesis behaves here: the same examples every time, no database, no deadline."""

from pathlib import Path

import pytest
from hypothesis import settings

from canids_shared.contracts import manifest

settings.register_profile("canids", derandomize=True, database=None, deadline=None)
settings.load_profile("canids")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory; manifests, which are found relative to it, are read again."""
    monkeypatch.chdir(tmp_path)
    manifest.load.cache_clear()
    return tmp_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all the examples of a property."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    """Random graphs for training: the stores of fit and select, half of the windows attacked."""
    import numpy as np  # noqa: PLC0415 (with gnn_data, which imports torch, only where a test asks for them)
    from gnn_data import MIXED, write  # noqa: PLC0415

    rng = np.random.default_rng(0)
    return write(tmp_path / "fit.safetensors", MIXED, rng), write(tmp_path / "select.safetensors", MIXED, rng)
