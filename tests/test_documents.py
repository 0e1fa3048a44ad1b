"""Every command of README and documentation works: planned in a fresh checkout where it would train, checked where it installs."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from workflows import MODULES, REPOSITORY, Checkout, write_tiny_dataset

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PROFILES = (REPOSITORY / "shared/profiles/README.md").read_text(encoding="utf-8")
TEXTS = [README, PROFILES, *(page.read_text(encoding="utf-8") for page in sorted(REPOSITORY.glob("docs/**/*.md")))]
BLOCKS = [
    (kind, dedent(body))
    for text in TEXTS
    for kind, body in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, flags=re.DOTALL | re.MULTILINE)
]
SHELL = [line.strip() for kind, body in BLOCKS if not kind for line in body.replace("\\\n", " ").splitlines()]
COMMANDS = sorted({line.split("  #")[0].strip() for line in SHELL if line.startswith((".venv/bin/", "make "))})
PLANNED = [c for c in COMMANDS if "bin/snakemake" in c]
TARGETS = {m for text in TEXTS for m in re.findall(r"`(make [a-z_-]+)", text)} | {
    c for c in COMMANDS if c.startswith("make ")
}
ENTRIES = sorted({m for c in COMMANDS for m in re.findall(r"bin/python -m (canids_\S+)", c)})
EXTRAS = [found.split(",") for found in re.findall(r"pip install .*'(?:\.|canids)\[(.*?)\]", "\n".join(COMMANDS))]
CAPTURES = (
    ("dos.csv", "train_01/DoS-kia.csv"),
    ("dos.csv", "train_01/DoS-sonata.csv"),
    ("test.csv", "test_01/DoS-kia.csv"),
)
PIPELINES = sorted(path.parent.name for path in REPOSITORY.glob("pipelines/*/Snakefile"))
NEEDS = re.compile(r"\b(DATA|DIR|NAME|CAPTURE|SOURCE|RUN)=")


def test_the_documents_have_commands() -> None:
    assert len(PLANNED) >= 10
    assert len(TARGETS) >= 10


@pytest.mark.parametrize("command", sorted(TARGETS))
def test_make_target_exists(command: str) -> None:
    done = subprocess.run(
        ["make", "-n", *shlex.split(command)[1:]], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 or NEEDS.search(done.stderr), done.stderr


def test_make_alone_lists_targets_that_there_are() -> None:
    listed = subprocess.run(["make", "-s"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    targets = {line.split()[1] for line in listed.splitlines()}
    assert {"demo", "test", "doctor"} <= targets
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert targets <= set(re.findall(r"[\w-]+", " ".join(re.findall(r"^([\w -]+):", makefile, re.MULTILINE))))


def test_make_clean_keeps_runs_and_manifests(tmp_path: Path) -> None:
    kept = {
        "experimentruns/test_readings.jsonl",
        "experimentruns/d/gat_large/model.safetensors",
        "results/d/manifest.yaml",
    }
    for name in (*kept, "results/d/graphs/fit.log", "results/e/summary/manifest.yaml", ".venv/bin/python"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "results/d/graphs/fit.safetensors").symlink_to("gone")
    for _ in range(2):
        subprocess.run(["make", "-s", "-f", REPOSITORY / "Makefile", "clean"], cwd=tmp_path, check=True)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if not p.is_dir()} == kept
    assert not (tmp_path / "results/e").exists()


@pytest.mark.parametrize("module", ENTRIES)
def test_entry_point_explains_itself(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_installs_name_extras_that_there_are_and_the_cluster_gets_all_stages() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {e for extras in EXTRAS for e in extras} <= project["optional-dependencies"].keys()
    assert any({"slurm", *(name.replace("_", "-") for name in MODULES)} == set(extras) for extras in EXTRAS)


@pytest.mark.parametrize("text", [body for kind, body in BLOCKS if kind == "yaml"])
def test_yaml_is_what_it_says(text: str) -> None:
    assert isinstance(yaml.safe_load(text), dict)


@pytest.fixture(scope="module")
def newcomer(new_checkout: Callable[[], Checkout], tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with captures beside it, and the config files that the documents show with a name."""
    checkout = new_checkout()
    tiny = tmp_path_factory.mktemp("raw") / "tiny"
    write_tiny_dataset(tiny)
    for dataset in ("mycar", "hcrl_sa"):
        for source, target in CAPTURES:
            place = checkout.folder.parent / "captures" / dataset / target
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes((tiny / source).read_bytes())
    resources = checkout.folder / "results/resources/profile/config.yaml"  # as `make resources` writes it
    resources.parent.mkdir(parents=True)
    resources.write_text("set-resources: {gat_large: {mem_mb: 1000 * attempt}}\n")
    for kind, body in BLOCKS:
        if kind == "yaml" and (named := re.match(r"# (\S+\.yaml)\n", body)):
            (checkout.folder / named[1]).write_text(body)
    return checkout


@pytest.mark.slow
@pytest.mark.parametrize("command", PLANNED)
def test_snakemake_command_plans(command: str, newcomer: Checkout) -> None:
    done = newcomer.snakemake(*shlex.split(command)[1:], "-n")
    if re.search("modules/(train|evaluate)", command):
        # The module's inputs are absent in a fresh checkout: the plan must name a file of its port.
        assert done.returncode != 0
        assert re.search(r"Missing input files", done.stdout + done.stderr), done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert "dry-run" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", [name for name in PIPELINES if name != "score"])
def test_the_rule_graph_of_a_pipeline_is_printed(pipeline: str, newcomer: Checkout) -> None:
    command = ["make", "-s", "-n", "rulegraph", f"PIPELINE={pipeline}"]
    (line,) = (
        row
        for row in subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        if "--rulegraph" in row
    )
    done = newcomer.snakemake(*shlex.split(line)[1:])
    assert done.returncode == 0, done.stderr
    assert "flowchart TB" in done.stdout
    assert f"[all_{pipeline}]" in done.stdout


def test_the_graph_of_the_readme_has_every_stage() -> None:
    (graph,) = (body for kind, body in BLOCKS if kind == "mermaid")
    nodes = set(re.findall(r"^ *(\w+)", graph, re.MULTILINE)) | set(re.findall(r"--> (\w+)", graph))
    assert nodes == {"flowchart", "captures", *MODULES}
