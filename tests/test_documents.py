"""Every command of the documents works: it is planned where it would train, runs where it is short, and is known to a test.

`CHECKS` says by what; a command that is not there fails.
"""

import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from workflows import MODULES, REPOSITORY, Checkout, write_tiny_dataset

from canids_preprocess.formats import FORMATS

PAGES = [
    path
    for pattern in (
        "README.md",
        "docs/**/*.md",
        "shared/profiles/README.md",
        "bench/*.md",
        "modules/*/*.md",
        "examples/*/README.md",
    )
    for path in sorted(REPOSITORY.glob(pattern))
]
_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
TEXTS = [path.read_text(encoding="utf-8") for path in PAGES]
BLOCKS = [(kind, dedent(body)) for text in TEXTS for kind, body in _BLOCK.findall(text)]
_PROGRAM = r"(?:make|snakemake|python[\d.]*|pip|export|conda|CANIDS_\w+=\S+|\.venv/bin/\S+) "


def _commands() -> list[str]:
    """Lines of blocks without a kind, and code within sentences that begins like a command; comments removed."""
    lines = [row for kind, body in BLOCKS if not kind for row in body.replace("\\\n", " ").splitlines()]
    prose = [span for text in TEXTS for span in re.findall(r"`([^`]+)`", _BLOCK.sub("", text))]
    found = [re.split(r"\s+# ", line)[0] for line in lines] + [s for s in prose if re.match(_PROGRAM, s)]
    return sorted({" ".join(command.split()) for command in found} - {""})


COMMANDS = _commands()
CAPTURES = (
    ("test.csv", "train_01_attack_free/attack-free-kia.csv"),
    ("test.csv", "train_01_attack_free/attack-free-sonata.csv"),
    ("dos.csv", "train_02_with_attacks/DoS-kia.csv"),
    ("dos.csv", "train_02_with_attacks/fuzzing-sonata.csv"),
    ("test.csv", "test_01_known_vehicle_known_attack/DoS-kia.csv"),
)
TARGETS = ("all_train_gnn", "all_train_drl", "all_kd_fusion")
PIPELINES = sorted(path.parent.name for path in REPOSITORY.glob("pipelines/*/Snakefile"))
EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


@pytest.fixture(scope="module")
def newcomer(new_checkout: Callable[[], Checkout], tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with captures beside it, and the files that the documents show with a name."""
    checkout = new_checkout()
    tiny = tmp_path_factory.mktemp("raw") / "tiny"
    write_tiny_dataset(tiny)
    for dataset in ("mycar", "hcrl_sa"):
        for source, target in CAPTURES:
            place = checkout.folder.parent / "captures" / dataset / target
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes((tiny / source).read_bytes())
    simulated = checkout.folder.parent / "captures/sim_to_real/manifest.yaml"
    simulated.parent.mkdir()
    simulated.write_bytes((REPOSITORY / "pipelines/kd_fusion/sim_to_real.manifest.yaml").read_bytes())
    for dataset in ("leaderboard", "smoke"):
        shutil.copytree(REPOSITORY / "tests/data" / dataset, checkout.folder.parent / "captures" / dataset)
    resources = checkout.folder / "results/resources/profile/config.yaml"  # as `make resources` writes it
    resources.parent.mkdir(parents=True)
    resources.write_text("set-resources: {gat_large: {mem_mb: 1000 * attempt}}\n")
    for _, body in BLOCKS:
        if named := re.match(r"# (\S+\.(?:yaml|smk))\n", body):
            (checkout.folder / named[1]).write_text(body)
    (checkout.folder / ".venv/bin").mkdir(parents=True)
    (checkout.folder / ".venv/bin/python").symlink_to(sys.executable)
    for done in (".venv/runtime", ".venv/development", ".venv-dgl/ready"):
        (checkout.folder / done).parent.mkdir(exist_ok=True)
        (checkout.folder / done).touch()
    return checkout


@pytest.fixture(scope="module")
def finished(new_checkout: Callable[[], Checkout], newcomer: Checkout) -> Checkout:
    """A checkout where every file of the main job is there, empty: planning asks for nothing more."""
    checkout = new_checkout()
    listed = newcomer.snakemake("-s", "pipelines/kd_fusion/Snakefile", "--summary", *TARGETS)
    assert listed.returncode == 0, listed.stderr
    for row in listed.stdout.splitlines()[1:]:
        path = checkout.folder / row.split("\t")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (checkout.folder / "mine.smk").write_text((newcomer.folder / "mine.smk").read_text())
    return checkout


Check = Callable[[str, pytest.FixtureRequest], None]


@functools.cache
def _planned(checkout: Checkout, arguments: tuple[str, ...]) -> str:
    path = os.pathsep.join([str(REPOSITORY / "examples/own_detector"), os.environ.get("PYTHONPATH", "")])
    done = checkout.snakemake("-n", *arguments, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def _plans(command: str, checkout: Checkout, *options: str) -> str:
    """Plan a command of Snakemake; returns the plan, which has jobs."""
    arguments = shlex.split(command.partition("snakemake ")[2])
    plan = _planned(checkout, (*(a for a in arguments if a != "-n"), *options))
    assert re.search("dry-run|^would ", plan, re.MULTILINE)
    assert "Nothing to be done" not in plan
    return plan


def plans(command: str, request: pytest.FixtureRequest) -> None:
    """Snakemake, in a fresh checkout."""
    _plans(command, request.getfixturevalue("newcomer"))


def plans_all_again(command: str, request: pytest.FixtureRequest) -> None:
    """Snakemake where the files that a module reads are there."""
    _plans(command, request.getfixturevalue("finished"), "--forceall")


def plans_the_notebook(command: str, request: pytest.FixtureRequest) -> None:
    assert "analysis notebook" in _plans(command, request.getfixturevalue("finished"))


def drafts(command: str, request: pytest.FixtureRequest) -> None:
    checkout = request.getfixturevalue("finished")
    done = checkout.snakemake(*shlex.split(command)[1:])
    assert done.returncode == 0, done.stderr
    assert "start coding here" in (checkout.folder / "notebooks/mine.py.ipynb").read_text()


@functools.cache
def _help(module: str) -> str:
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.lower()


def explains_itself(command: str, request: pytest.FixtureRequest) -> None:
    """Entry points with files that only a finished run has: the module is there and knows the options."""
    for part in command.removesuffix(" | …").split(" | "):
        (module,) = re.findall(r"python -m (\S+)", part)
        text = _help(module)
        assert "usage" in text
        assert all(re.search(rf"{option}\b", text) for option in re.findall(r" (--[a-z][a-z_-]*)", part)), text


def names_extras(command: str, request: pytest.FixtureRequest) -> None:
    extras = [e for found in re.findall(r"(?:\.|canids)\[(.*?)\]", command) for e in found.split(",")]
    assert extras
    assert set(extras) <= EXTRAS.keys()
    if "slurm" in extras and len(extras) > 1:
        assert set(extras) == {"slurm", *(name.replace("_", "-") for name in MODULES)}, "a cluster gets all stages"
    assert all((REPOSITORY / folder / "pyproject.toml").exists() for folder in re.findall(r" \./(\S+)", command))


def variable_is_read(command: str, request: pytest.FixtureRequest) -> None:
    (name,) = re.findall(r"export (\w+)=", command)
    files = [*REPOSITORY.glob("shared/**/*.py"), *REPOSITORY.glob("shared/profiles/*/config.yaml")]
    assert any(name in path.read_text(encoding="utf-8") for path in files)


def runs_in_an_empty_folder(command: str, request: pytest.FixtureRequest) -> None:
    """Short commands of the shell, with folders and groups of this machine."""
    folder = request.getfixturevalue("tmp_path")
    (folder / "results").mkdir()
    (folder / "results/gone").symlink_to("nothing")
    here = {
        "/scratch/PROJECT": str(folder),
        "GROUP": str(os.getgid()),
        "python3.11 -m venv": "python -m venv --without-pip",
    }
    for text, value in {**here, "../captures": str(folder), "pipelines/": f"{REPOSITORY}/pipelines/"}.items():
        command = command.replace(text, value)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(
        ["bash", "-euc", command.replace(".venv/bin/", "")], cwd=folder, env={**os.environ, "PATH": path}, check=True
    )


def elsewhere(file: str, text: str) -> Check:
    """A command that a test of this name runs to its end; the file says so by `text`."""

    def check(command: str, request: pytest.FixtureRequest) -> None:
        assert re.search(text, (REPOSITORY / file).read_text(encoding="utf-8")), f"{file} has no {text}"

    return check


def is_an_option_of_snakemake(command: str, request: pytest.FixtureRequest) -> None:
    assert f"{command.split()[1]} " in _help("snakemake")


def runs_here(command: str, request: pytest.FixtureRequest) -> None:
    command = re.sub(r"\S+/python", shlex.quote(sys.executable), command)
    done = subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Python" in done.stdout


def starts_mlflow(command: str, request: pytest.FixtureRequest) -> None:
    import mlflow.cli  # noqa: PLC0415 (seconds)

    arguments = shlex.split(command.partition("mlflow ui")[2])
    assert mlflow.cli.server.make_context("ui", arguments).params["workers"] == "1"


def builds_the_documentation(command: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue("tmp_path")
    arguments = [*shlex.split(command.partition("-m ")[2]), "--site-dir", str(folder)]
    subprocess.run([sys.executable, "-m", *arguments], cwd=REPOSITORY, check=True)
    assert (folder / "index.html").exists()


def runs_small(command: str, request: pytest.FixtureRequest) -> None:
    """The benchmark that has a small size in that; the others take minutes, and say what they are."""
    script = command.rsplit(maxsplit=1)[-1]
    size = ["--frames", "20000"] if script == "bench/preprocess.py" else []
    folder = request.getfixturevalue("tmp_path")
    places = ["--folder", str(folder), "--output", str(folder / "results.json")]
    subprocess.run([sys.executable, script, *([*size, *places] if size else ["--help"])], cwd=REPOSITORY, check=True)


def is_installed(command: str, request: pytest.FixtureRequest) -> None:
    """What CI or a developer runs on the repository itself: the program is there, and the files that it names."""
    arguments = shlex.split(command.partition(" -m ")[2].partition(";")[0])
    assert importlib.util.find_spec(arguments[0])
    assert all(
        (REPOSITORY / a.partition("::")[0]).exists()
        for a in arguments[1:]
        if re.match(r"(tests|modules|shared|bench)/", a)
    )


def is_of_the_shell(command: str, request: pytest.FixtureRequest) -> None:
    """Parts of recipes that check a variable, or print something."""


def recipe(command: str, request: pytest.FixtureRequest) -> None:
    """A target of make: every line of its recipe is itself a known command."""
    checkout = request.getfixturevalue("newcomer")
    target = shlex.split(command.replace(" …", " x").replace("=…", "=x"))[1:]
    needed = [f"{name}=../captures" for name in ("DATA", "DIR", "CAPTURE", "RUN", "SOURCE", "PROFILE")] + [
        "NAME=late_fusion"
    ]
    given = {a.partition("=")[0] for a in target}
    arguments = [*target, *(n for n in needed if n.partition("=")[0] not in given)]
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", *arguments],
        cwd=checkout.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.replace("\\\n", " ").splitlines()]
    assert lines
    # A make within make is run even so; what it says of itself is no command.
    for line in (line for line in lines if not re.match(r"make\[\d+\]: ", line)):
        check_of(line, RECIPES)(line, request)


SCORED = elsewhere("tests/pipelines/test_awkward_folder.py", '"score"')
FOLLOWED = elsewhere("tests/pipelines/test_awkward_folder.py", '"follow"')
CHECKS: dict[str, Check] = {
    r"make (demo TORCH_INDEX=…|[a-z_-]+( [A-Z]+=('[^']*'|\S+))*)": recipe,
    r"(.venv/bin/)?snakemake .*--edit-notebook .*": plans_the_notebook,
    r"(.venv/bin/)?snakemake .*--draft-notebook .*": drafts,
    r"(.venv/bin/)?snakemake -c\d -s modules/\w+/Snakefile": plans_all_again,
    r".venv/bin/snakemake --profile shared/profiles/\w+ .*": plans,
    r"snakemake -c2 -s examples/own_detector/(leaderboard/)?Snakefile": plans,
    r"snakemake -c2 -s examples/own_detector/score/Snakefile .*": elsewhere(
        "tests/examples/test_own_detector_pipeline.py", "own_detector/score/Snakefile"
    ),
    r"snakemake -c2 --config canids=https://raw\S+": elsewhere(
        "tests/environments/test_environments.py", "preprocess_by_url"
    ),
    r"snakemake --\w+": is_an_option_of_snakemake,
    r"(.venv/bin/)?pip install .*\[.*": names_extras,
    r"export \w+=\S+": variable_is_read,
    r"CANIDS_SOURCE=\$PWD conda env create -f …": elsewhere("tests/modules/test_environment.py", "CANIDS_SOURCE"),
    r"mkdir .*|find results .*|python3.11 -m venv .venv|.venv/bin/pre-commit install": runs_in_an_empty_folder,
    r"ls experimentruns/.*": elsewhere("tests/pipelines/test_kd_fusion.yml", "experimentruns/smoke/gat_large"),
    r"python -m canids_late_alarms.…": elsewhere("tests/modules/test_scaffold.py", "late_alarms"),
    r"(.venv/bin/)?python -m canids_.*": explains_itself,
    r"python bench/formats.py": runs_small,
}
"""Command → what checks it; the first that fits."""
RECIPES: dict[str, Check] = {
    r"\S+/python -m snakemake .*pipelines/score/.*": SCORED,
    r"\S+/python -m canids_shared.scoring .*": SCORED,
    r"\S+/python -m canids_shared.scoring.following .*": FOLLOWED,
    r"\S+/python -m snakemake .*--rulegraph .*": elsewhere("tests/test_documents.py", "rule_graph_of_a_pipeline"),
    r"\S+/python -m snakemake --profile .*": plans,
    r"PYTHONPATH=shared \S+/python -m canids_shared.tools.doctor": runs_here,
    r"PYTHONPATH=tests/unit:tests \S+/python -m fuzz.campaign.*": elsewhere(
        "tests/unit/fuzz/test_fuzz.py", "campaign.run"
    ),
    r"\S+/python -m canids_.*": explains_itself,
    r".* -m mlflow ui .*": starts_mlflow,
    r".* -m mkdocs .*": builds_the_documentation,
    r"\S+/python bench/\w+.py": runs_small,
    r"(\w+=\S+ )*\S+python -m (pytest|ruff|snakefmt|mypy) .*": is_installed,
    r".*-m (pytest|pip|venv|slurm|snakemake --lint).*|make(\[1\])?:? .*|\.venv/bin/python -m mypy": is_of_the_shell,
    r"(test|echo|cat|awk|if|rm|dpkg|printf|\{|DEBIAN_FRONTEND).*": is_of_the_shell,
}
"""Line of a recipe of make → what checks it."""


def check_of(command: str, table: dict[str, Check]) -> Check:
    """What checks a command; a failure where nothing does."""
    for pattern, check in table.items():
        if re.fullmatch(pattern, command):
            return check
    pytest.fail(f"no test runs or plans this command: {command}")


def test_the_documents_have_commands_and_an_unknown_one_fails() -> None:
    assert len(PAGES) >= 18
    assert len(COMMANDS) >= 60
    with pytest.raises(pytest.fail.Exception, match="no test runs or plans"):
        check_of(".venv/bin/snakemake --frobnicate", CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_documents(command: str, request: pytest.FixtureRequest) -> None:
    check_of(command, CHECKS)(command, request)


def test_make_alone_lists_all_targets() -> None:
    listed = subprocess.run(["make", "-s"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    targets = {line.split()[1] for line in listed.splitlines()}
    assert {"demo", "test", "doctor"} <= targets
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    parts = {"help", "types", "snakefiles", "slurm-packages"}
    assert targets == set(phony.split()) - parts, "the first line of the Makefile lists all others"


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


@pytest.mark.parametrize("text", [body for kind, body in BLOCKS if kind == "yaml"])
def test_yaml_is_what_it_says(text: str) -> None:
    assert isinstance(yaml.safe_load(text), dict)


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
    captures = f"data_root={newcomer.folder.parent / 'captures'}"
    done = newcomer.snakemake(*shlex.split(line.partition("snakemake ")[2]), "--config", captures)
    assert done.returncode == 0, done.stderr
    assert "flowchart TB" in done.stdout
    assert f"[all_{pipeline}]" in done.stdout


def test_the_graph_of_the_readme_has_every_stage() -> None:
    (graph,) = (body for kind, body in BLOCKS if kind == "mermaid")
    nodes = set(re.findall(r"^ *(\w+)", graph, re.MULTILINE)) | set(re.findall(r"--> (\w+)", graph))
    assert nodes == {"flowchart", "captures", *MODULES}


def test_the_table_of_formats_is_complete() -> None:
    page = (REPOSITORY / "modules/preprocess/README.md").read_text(encoding="utf-8")
    table = page.partition("| format | recognised by |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `([a-z0-9-]+)` \|", table, re.MULTILINE)) == sorted(FORMATS)
