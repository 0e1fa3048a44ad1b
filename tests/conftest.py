"""Fixtures of the tests that run Snakemake."""

from collections.abc import Callable
from pathlib import Path

import pytest
from workflows import Checkout, copy_tracked, write_tiny_dataset


@pytest.fixture(scope="module")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to copy to `data/` of a checkout; it holds the dataset `tiny` (`workflows.write_tiny_dataset`)."""
    folder = tmp_path_factory.mktemp("data")
    write_tiny_dataset(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def new_checkout(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Checkout]:
    """Makes a fresh copy of the repository's tracked files at each call."""

    def make() -> Checkout:
        folder = tmp_path_factory.mktemp("checkout")
        copy_tracked(folder)
        return Checkout(folder)

    return make
