"""Helpers of the tests of modules and pipelines: fresh checkouts, Snakemake in them, and a dataset of a few seconds."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from canids_preprocess.simulate import record, write

REPOSITORY = Path(__file__).parents[1]
STAGES = ("preprocess", "train_gnn", "train_drl", "evaluate")
MODULES = (*STAGES, "track")
VARIANTS = ("large", "small_kd", "small_nokd")
TRAININGS = tuple(f"{kind}_{variant}" for kind in ("vgae", "gat", "dqn") for variant in VARIANTS)
EVALUATIONS = tuple(f"eval_{variant}" for variant in VARIANTS)
CACHED = ("simulate", "ingest", "graphs")
TINY = "data/tiny/preprocess.yaml"
"""Config of preprocess for the dataset `tiny`, within a checkout."""
_TINY_MANIFEST = """\
contract: manifest/1
captures:
  free: {format: simulated, vehicle: compact, role: train, content: attack-free, simulation: {duration: 12}}
  dos:  {path: dos.csv,  format: can-train-and-test, vehicle: compact, role: train,    content: labelled, attack: dos}
  test: {path: test.csv, format: can-train-and-test, vehicle: compact, role: test_dos, content: labelled, attack: dos}
"""


def write_tiny_dataset(folder: Path) -> None:
    """The smallest dataset with raw captures of its own: one that `simulate` makes, two in CSV, and a config for them."""
    folder.mkdir(parents=True)
    write(record("compact", attack="dos", duration=12, seed=1, episodes=4, episode_s=0.3), folder / "dos.csv")
    write(record("compact", attack="dos", duration=4, seed=2, episodes=1, episode_s=0.5), folder / "test.csv")
    (folder / "manifest.yaml").write_text(_TINY_MANIFEST)
    (folder / "preprocess.yaml").write_text(
        "datasets: [tiny]\nwindow: 50\nstride: 50\nblocks: {gap: 0.3}\nauxiliary_captures: none\n"
    )


def copy_tracked(folder: Path) -> None:
    """Copy the repository's tracked files, as they are now."""
    listed = subprocess.run(["git", "-C", str(REPOSITORY), "ls-files"], check=True, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)


@dataclass(frozen=True)
class Checkout:
    """A copy of the repository in which workflows run; the code comes from the installed packages."""

    folder: Path

    def snakemake(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake in it, by default on one core, with further environment variables."""
        command = [sys.executable, "-m", "snakemake", "-c1", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env={**os.environ, **variables}, capture_output=True, text=True, check=False
        )

    def module(self, stage: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a module alone."""
        return self.snakemake("-s", f"modules/{stage}/Snakefile", *arguments, **variables)


class _Recording(SimpleHTTPRequestHandler):
    """Serves files as `python -m http.server` does, and keeps a list of the paths that are requested."""

    def __init__(self, *request: Any, asked: list[str], folder: Path) -> None:
        self._asked = asked
        super().__init__(*request, directory=str(folder))

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        self._asked.append(self.path)


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder to this machine, on a free port; yields its URL, and the list of requested paths."""
    asked: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Recording, asked=asked, folder=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def one_line(text: str, *parts: str) -> str:
    """The only line of `text` that holds the first of `parts`; it must hold the others too."""
    lines = {line.strip() for line in text.splitlines() if parts[0] in line}
    assert len(lines) == 1, f"'{parts[0]}' is to be on one line of:\n{text}"
    line = lines.pop()
    for part in parts[1:]:
        assert part in line
    return line


def check_card(text: str, name: str, scenarios: dict[str, dict[str, Any]]) -> None:
    """Check a model card: its front matter has the values of these scenarios, its tables the same, rounded."""
    assert text.startswith("---\n")
    front_matter = yaml.safe_load(text.split("---\n")[1])
    (index,) = front_matter["model-index"]
    assert index["name"] == name
    ids = {"f1": "f1", "precision": "precision", "recall": "recall", "roc_auc": "auroc", "matthews_correlation": "mcc"}
    assert [result["dataset"]["split"] for result in index["results"]] == sorted(scenarios)
    for result in index["results"]:
        values = scenarios[result["dataset"]["split"]]
        shown = {ids[metric["type"]]: metric["value"] for metric in result["metrics"]}
        assert shown == {m: values[m] for m in ids.values() if values[m] is not None}
        for attack, group in values["per_attack"].items():
            line = next(t for t in text.splitlines() if t.startswith(f"| {result['dataset']['split']} | {attack} | "))
            recall = "–" if group["recall"] is None else f"{group['recall']:.3f}"
            assert line.split(" | ")[4] == recall
            if group["recall"] is not None and group["recall"] < 0.9:
                assert (
                    f"{attack} in `{result['dataset']['split']}` (recall {recall})"
                    in text.split("## Caveats and limits")[1]
                )
    sections = ["Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data"]
    assert [t[3:] for t in text.splitlines() if t.startswith("## ")] == [
        *sections,
        "Quantitative analyses",
        "Caveats and limits",
    ]
