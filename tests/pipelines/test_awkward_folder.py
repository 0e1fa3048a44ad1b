"""A checkout in a folder with a blank, a quote and a letter beyond ASCII: the main job, scoring, doctor and lint run there."""

import os
import subprocess
import sys
import sysconfig

import pytest
from workflows import Checkout, copy_tracked

pytestmark = pytest.mark.slow
SOURCES = ("shared", *(f"modules/{name}" for name in ("preprocess", "train_gnn", "train_drl", "evaluate", "track")))
CAPTURE, QUIET = "dri've ö.log", "qui'et ö.log"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with a virtual environment of its own, which has canids from there and other packages from this one."""
    folder = tmp_path_factory.mktemp("awkward") / "a b'c ö"
    copy_tracked(folder)
    # Of the built-in vehicles a few seconds, so that the demo is short.
    (folder / "data/simulated").mkdir(parents=True)
    (folder / "data/simulated/manifest.yaml").write_bytes((folder / "tests/data/smoke/manifest.yaml").read_bytes())
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    (packages,) = (folder / ".venv/lib").glob("python*/site-packages")
    # As `pip install -e` does; the path of this environment comes last.
    lines = [*(str(folder / source) for source in SOURCES), sysconfig.get_path("purelib")]
    (packages / "canids.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for done in ("runtime", "development"):
        (folder / ".venv" / done).touch()
    return Checkout(folder)


def run(checkout: Checkout, *command: str) -> str:
    """Run a command in the checkout; returns what it prints on standard output."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("CANIDS_", "MAKE", "MFLAGS"))}
    done = subprocess.run(
        command,
        cwd=checkout.folder,
        env={**variables, "SNAKEMAKE_OUTPUT_CACHE": str(checkout.folder / "ca che"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def make(checkout: Checkout, *arguments: str) -> str:
    """Run a target of make in the checkout."""
    return run(checkout, "make", "-s", *arguments)


def test_a_training_runs_to_its_end(checkout: Checkout) -> None:
    model = "experimentruns/simulated/vgae_small_nokd/model.safetensors"
    options = ("-c2", "-s", "pipelines/kd_fusion/Snakefile", "--cache", "simulate", "ingest", "graphs")
    run(checkout, ".venv/bin/python", "-m", "snakemake", *options, "--config", "preset=smoke", "--", model)
    assert (checkout.folder / model).exists()
    assert list((checkout.folder / "ca che").iterdir())


def test_the_main_job_and_scoring_run_to_their_end(checkout: Checkout) -> None:
    text = make(checkout, "demo", "OPTIONS=--config preset=smoke -c2")
    assert "Report: results/simulated/summary/report.html" in text
    assert (checkout.folder / "experimentruns/simulated/track/receipt.json").exists()
    assert list((checkout.folder / "ca che").iterdir())
    for name, step in ((CAPTURE, 3), (QUIET, 1)):
        frames = [f"({k / 100:.6f}) can0 1{k % 9}0#00{step * k % 256:02X}\n" for k in range(600)]
        (checkout.folder / name).write_text("".join(frames))
    policy, profile = "RUN=experimentruns/simulated/dqn_small_kd", "car.safetensors"
    make(checkout, "enrol", f"CAPTURE={QUIET}", f"PROFILE={profile}")
    assert "alarm" in make(checkout, "score", f"CAPTURE={CAPTURE}", policy, f"OPTIONS=profile={profile}").lower()
    make(checkout, "follow", f"SOURCE={CAPTURE}", policy, f"OPTIONS=--exit-at-end --profile {profile}")
    assert list(checkout.folder.glob("results/scored/*/by-simulated/small_kd/follow/*/alarms.csv"))


def test_other_chores_run(checkout: Checkout) -> None:
    assert "make demo" in make(checkout)
    assert "Python" in make(checkout, "doctor", "-i")
    assert "[all_kd_fusion]" in make(checkout, "rulegraph")
    assert make(checkout, "types", "-n").strip() == ".venv/bin/python -m mypy"
    assert "pipelines/late_fusion/Snakefile" in make(checkout, "new-pipeline", "NAME=late_fusion")
