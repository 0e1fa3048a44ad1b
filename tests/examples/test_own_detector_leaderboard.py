"""`examples/own_detector/leaderboard`: detectors of another repository in the table of methods over folds."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from workflows import REPOSITORY, Checkout

from canids_shared.contracts.evaluation import read_leaderboard

pytestmark = pytest.mark.slow
OWN = ("own_perceptron", "own_trees", "own_pca")
CONFIG = {
    "datasets": ["leaderboard"],
    "data_root": "tests/data",
    "preset": "smoke",
    # The teacher alone, whose states the example names as folders of scores.
    "folds": {
        "leave_out": "vehicles",
        "seeds": 1,
        "variants": ["large"],
        "overrides": {"train_gnn": {"gat": {"epochs": 1}, "vgae": {"epochs": 1}}},
    },
    "train_drl": {"fusion_baselines": ["fixed_weight"]},
}


def test_own_detectors_stand_in_the_table(new_checkout: Callable[[], Checkout]) -> None:
    checkout = new_checkout()
    (checkout.folder / "own.yaml").write_text(yaml.safe_dump(CONFIG))
    path = [str(REPOSITORY / "examples/own_detector"), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = ("-s", "examples/own_detector/leaderboard/Snakefile", "--configfile", "own.yaml")
    done = checkout.snakemake(*command, PYTHONPATH=os.pathsep.join(path))
    assert done.returncode == 0, done.stderr

    here = checkout.folder / "results/leaderboard/leaderboard"
    made = read_leaderboard(Path(here / "leaderboard.json"))
    judged = [e for e in made["standings"] if (e["setting"], e["regime"]) == ("vehicle", "zero-shot")]
    standings = {e["method"]: e for e in judged}
    for name in OWN:
        own = standings[name]
        assert (own["family"], own["variant"]) == ("Detectors of others", None)
        assert own["metrics"]["f1"]["folds"].keys() == standings["gat"]["metrics"]["f1"]["folds"].keys()
        assert own["n_windows"] == standings["gat"]["n_windows"]
        assert f"| {own['label']} |" in (here / "leaderboard.md").read_text()
    assert made["best"]["Detectors of others"][1] in OWN
    assert {"own_scores", "eval_large", "gat", "vgae", "dqn"} <= made["code"].keys()
