"""Every command of the README works: planned in a fresh checkout where it would train, checked where it installs."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from workflows import REPOSITORY, Checkout, write_tiny_dataset

from canids_shared import documents, rulegraph
from canids_shared.errors import CanidsError

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.S)
SHELL = [line for kind, text in BLOCKS if not kind for line in text.replace("\\\n", " ").splitlines()]
COMMANDS = [line.split("  #")[0].strip() for line in SHELL if line.startswith((".venv/bin/snakemake", "make "))]
INLINE = re.findall(r"`(make [a-z_-]+)", README)


def test_the_readme_has_commands() -> None:
    assert len([c for c in COMMANDS if "snakemake" in c]) >= 8


@pytest.mark.parametrize("command", sorted({*INLINE, *(c for c in COMMANDS if c.startswith("make "))}))
def test_make_target_exists(command: str) -> None:
    done = subprocess.run(
        ["make", "-n", *shlex.split(command)[1:]], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 or "DATA" in done.stderr or "DIR" in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if "snakemake" in c])
def test_snakemake_command_plans(command: str, new_checkout: object, tmp_path: Path) -> None:
    assert callable(new_checkout)
    checkout: Checkout = new_checkout()
    for dataset in ("mycar", "hcrl_sa"):
        for folder in ("train_01", "test_01"):
            (checkout.folder.parent / "captures" / dataset / folder).mkdir(parents=True, exist_ok=True)
    write_tiny_dataset(tmp_path / "tiny")
    for dataset in ("mycar", "hcrl_sa"):
        for source, target in (("dos.csv", "train_01/DoS-kia.csv"), ("test.csv", "test_01/DoS-kia.csv")):
            place = checkout.folder.parent / "captures" / dataset / target
            place.write_bytes((tmp_path / "tiny" / source).read_bytes())
    yaml = next(text for kind, text in BLOCKS if kind == "yaml")
    (checkout.folder / "seeds.yaml").write_text(yaml)
    words = shlex.split(command)[1:]
    if re.search("modules/(train|evaluate)", command):
        # What the module reads is not there in a fresh checkout: the plan must say so, naming a file of its port.
        done = checkout.snakemake(*words, "-n")
        assert done.returncode != 0
        assert re.search(r"Missing input files", done.stdout), done.stdout
        return
    done = checkout.snakemake(*words, "-n")
    assert done.returncode == 0, done.stderr
    assert "dry-run" in done.stdout + done.stderr


def test_the_rule_graph_of_the_readme_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert rulegraph.drawn("pipelines/kd_fusion/Snakefile") in README, "run make rulegraph"


def test_a_document_without_marks_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "d.md"
    document.write_text("a\n<!-- results -->\nold\n<!-- /results -->\nb\n")
    documents.insert(document, "results", "new")
    assert document.read_text() == "a\n<!-- results -->\nnew\n<!-- /results -->\nb\n"
    with pytest.raises(CanidsError, match="no marks"):
        documents.insert(document, "graph", "new")
