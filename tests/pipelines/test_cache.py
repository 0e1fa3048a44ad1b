"""The cache between workflows: another checkout takes what is equal, and nothing else."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from workflows import CACHED, TINY, Checkout, one_line

from canids_shared.contracts.graph_store import GraphStore
from canids_shared.files import sha256_of
from canids_shared.planning import code_hash

pytestmark = pytest.mark.slow
SPLITS = ("fit", "select", "fuse", "calibrate", "test_dos")
FRAMES = {f"results/tiny/frames/{folder}{c}.parquet" for c in ("dos", "test") for folder in ("", "rejects/")}
GRAPHS = {f"results/tiny/graphs/{s}.safetensors" for s in SPLITS}
TRAINING = GRAPHS - {"results/tiny/graphs/test_dos.safetensors"}
"""Made by one job."""
SIMULATED = {
    f"results/tiny/{path}" for path in ("captures/free.csv", "frames/free.parquet", "frames/rejects/free.parquet")
}


class Caching:
    """Checkouts with the dataset `tiny` and one cache for all of them."""

    def __init__(self, new_checkout: Callable[[], Checkout], data: Path, cache: Path) -> None:
        self._new, self._data, self.cache = new_checkout, data, cache

    def checkout(self) -> Checkout:
        made = self._new()
        shutil.copytree(self._data, made.folder / "data")
        return made

    def run(self, checkout: Checkout, *targets: str, **variables: str) -> tuple[set[str], set[str]]:
        """Run preprocess with the cache; returns the files that were made, and those that were taken from the cache."""
        return self.cached(self.start(checkout, *targets, **variables))

    def start(self, checkout: Checkout, *targets: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run preprocess with the cache."""
        options = ("-c2", "--configfile", TINY, "--cache", *CACHED)
        return checkout.module("preprocess", *targets, *options, SNAKEMAKE_OUTPUT_CACHE=str(self.cache), **variables)

    def entries(self) -> dict[Path, int]:
        """The files in the cache with their times of change; each has its digest beside it."""
        digests = set(self.cache.glob("*.sha256"))
        entries = {path: path.stat().st_mtime_ns for path in self.cache.iterdir() if path not in digests}
        assert {path.with_suffix(path.suffix + ".sha256") for path in entries} == digests
        return entries

    @staticmethod
    def cached(done: subprocess.CompletedProcess[str]) -> tuple[set[str], set[str]]:
        """The files that a finished run made, and those that it took from the cache."""
        assert done.returncode == 0, done.stderr
        made = set(re.findall(r"Moving output file (\S+) to cache", done.stderr))
        linked = set(re.findall(r"Symlinking output file (\S+) from cache", done.stderr))
        return made, linked - made


@pytest.fixture(scope="module")
def caching(
    new_checkout: Callable[[], Checkout], tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Caching:
    return Caching(new_checkout, tiny_dataset, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def first(caching: Caching) -> Checkout:
    """The checkout that filled the cache."""
    checkout = caching.checkout()
    made, taken = caching.run(checkout)
    assert made == SIMULATED | FRAMES | GRAPHS
    assert not taken
    return checkout


def test_captures_and_splits_never_share_an_entry(first: Checkout, caching: Caching) -> None:
    files = SIMULATED | FRAMES | GRAPHS
    assert len({(first.folder / f).resolve() for f in files}) == len(files) == len(caching.entries())
    assert len({sha256_of(first.folder / f) for f in files}) == len(files)


def test_second_checkout_makes_nothing(first: Checkout, caching: Caching) -> None:
    before = caching.entries()
    second = caching.checkout()
    made, taken = caching.run(second)
    assert not made
    assert taken == SIMULATED | FRAMES | GRAPHS
    assert caching.entries() == before
    for file in taken:
        assert sha256_of(second.folder / file) == sha256_of(first.folder / file)


def flip_a_byte_silently(entry: Path) -> None:
    """As a disk does: the time of change stays."""
    status = entry.stat()
    content = bytearray(entry.read_bytes())
    content[-9] ^= 1
    entry.chmod(0o600)
    entry.write_bytes(content)
    entry.chmod(0o400)
    os.utime(entry, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_faulty_entries_behind_results_are_made_again(first: Checkout, caching: Caching) -> None:
    files = [f"results/tiny/graphs/{split}.safetensors" for split in ("fit", "select", "fuse")]
    entries = [(first.folder / file).resolve() for file in files]
    good = list(map(sha256_of, entries))
    os.truncate(entries[0], entries[0].stat().st_size // 2)
    entries[1].unlink()
    entries[2].chmod(0o666)
    done = caching.start(first)
    assert caching.cached(done) == (TRAINING, set())
    reasons = "is damaged (not the bytes that were made)", "is gone", "may be written by others (mode 666)"
    one_line(done.stderr, "results linked to", *(f"{e} {r}" for e, r in zip(entries, reasons, strict=True)))
    assert list(map(sha256_of, entries)) == good
    assert {entry.stat().st_mode & 0o777 for entry in entries} == {0o400}
    assert caching.run(first) == (set(), set()), "nothing is left to be done"


def test_a_faulty_entry_is_never_linked_and_a_deleted_link_is_remedy_enough(first: Checkout, caching: Caching) -> None:
    """What a message says of a file, "delete it and run again", holds for an entry of the cache too."""
    file = "results/tiny/graphs/fit.safetensors"
    good, entry = sha256_of(first.folder / file), (first.folder / file).resolve()
    flip_a_byte_silently(entry)
    assert caching.run(first) == (set(), set()), "unseen: nothing that has not changed is read"
    (first.folder / file).unlink()
    done = caching.start(first)
    assert caching.cached(done) == (TRAINING, set())
    one_line(done.stderr, f"cache between workflows: {entry} is damaged", "made again, and replaced")
    assert sha256_of(entry) == good


@pytest.mark.usefixtures("first")
def test_second_pipeline_makes_nothing(caching: Caching) -> None:
    other = caching.checkout()
    preprocess = yaml.safe_load((other.folder / TINY).read_text())
    dataset = {"datasets": preprocess.pop("datasets"), "data_root": "data"}
    config = other.folder / "pipeline.yaml"
    config.write_text(yaml.safe_dump({**dataset, "preprocess": preprocess}))
    options = ("-s", "pipelines/kd_fusion/Snakefile", "--configfile", str(config), "--cache", *CACHED)
    done = other.snakemake(*sorted(GRAPHS), *options, SNAKEMAKE_OUTPUT_CACHE=str(caching.cache))
    made, taken = caching.cached(done)
    assert not made
    assert taken == SIMULATED | FRAMES | GRAPHS


@pytest.mark.usefixtures("first")
def test_two_runs_at_once_end_whole(caching: Caching) -> None:
    checkouts = [caching.checkout() for _ in range(2)]
    for checkout in checkouts:
        config = checkout.folder / TINY
        config.write_text(config.read_text().replace("stride: 50", "stride: 40"))
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(caching.run, checkouts))
    for made, taken in ended:
        assert made | taken == SIMULATED | FRAMES | GRAPHS
    for file in GRAPHS:
        stores = [GraphStore(checkout.folder / file) for checkout in checkouts]
        assert stores[0].header["stride"] == 40
        assert sha256_of(stores[0].path) == sha256_of(stores[1].path)


def test_changed_option_misses(first: Checkout, caching: Caching) -> None:
    other = caching.checkout()
    config = other.folder / TINY
    config.write_text(config.read_text().replace("stride: 50", "stride: 25"))
    made, taken = caching.run(other)
    assert made == GRAPHS
    assert taken == SIMULATED | FRAMES
    for file in GRAPHS:
        assert sha256_of(other.folder / file) != sha256_of(first.folder / file)


def test_changed_byte_of_a_raw_capture_misses(first: Checkout, caching: Caching) -> None:
    other = caching.checkout()
    raw = other.folder / "data/tiny/test.csv"
    content = bytearray(raw.read_bytes())
    end = content.index(b"\n", content.index(b"\n") + 1)
    content[end - 3] = ord("0") if content[end - 3] != ord("0") else ord("1")  # last nibble of the first payload
    raw.write_bytes(content)
    made, taken = caching.run(other)
    frames = {"results/tiny/frames/test.parquet", "results/tiny/frames/rejects/test.parquet"}
    assert made == {*frames, "results/tiny/graphs/test_dos.safetensors"}
    assert taken == (SIMULATED | FRAMES | GRAPHS) - made
    assert sha256_of(other.folder / "results/tiny/frames/test.parquet") != sha256_of(
        first.folder / "results/tiny/frames/test.parquet"
    )


@pytest.mark.usefixtures("first")
def test_changed_code_misses(caching: Caching) -> None:
    """A checkout that runs its own code, in which what builds windows was edited: `ingest` and `simulated` never import it."""
    other = caching.checkout()
    code = other.folder / "modules/preprocess/canids_preprocess/features/topology.py"
    code.write_text(code.read_text() + "\n# an edit\n")
    made, taken = caching.run(other, PYTHONPATH=f"{other.folder}/modules/preprocess:{other.folder}/shared")
    assert made == GRAPHS
    assert taken == SIMULATED | FRAMES


@pytest.mark.usefixtures("first")
def test_another_version_of_a_library_misses(caching: Caching, tmp_path: Path) -> None:
    """Numba says that it is another version: everything whose code imports it is made again."""
    folder = tmp_path / "numba-0.0.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: numba\nVersion: 0.0.1\n")
    made, taken = caching.run(caching.checkout(), PYTHONPATH=str(tmp_path))
    files = {"simulated": SIMULATED, "ingest": FRAMES, "graphs": GRAPHS}
    affected = {rule for rule in files if "numba" in code_hash.closure(f"canids_preprocess.{rule}")[1]}
    assert "graphs" in affected
    assert made == {file for rule in affected for file in files[rule]}
    assert taken == (SIMULATED | FRAMES | GRAPHS) - made


def test_auxiliary_captures_are_simulated_for_what_was_recorded_and_only_for_that(caching: Caching) -> None:
    checkout = caching.checkout()
    config = checkout.folder / TINY
    config.write_text(config.read_text().replace("auxiliary_captures: none\n", ""))
    planned = checkout.module("preprocess", "-n", "--configfile", TINY)
    assert planned.returncode == 0, planned.stderr
    assert re.search(r"^simulate\s+1$", planned.stdout, re.M), "the dataset's own"
    assert re.search(r"^simulate_simulated_fleet_train\s+1$", planned.stdout, re.M)
    assert re.search(r"^ingest\s+2$", planned.stdout, re.M)
    simulated = checkout.module("preprocess", "-n")
    assert "simulated_fleet" not in simulated.stdout + simulated.stderr
