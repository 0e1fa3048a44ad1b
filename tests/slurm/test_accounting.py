"""With accounting (slurmdbd): the profile of a named cluster, in its records."""

from pathlib import Path

import pytest

from slurm.cluster import Cluster
from slurm.submitting import profile, start


@pytest.mark.parametrize("cluster", ["accounting"], indirect=True)
def test_needs_reach_the_nodes_partition_and_account_of_pitzer(cluster: Cluster, tmp_path: Path) -> None:
    """Its partitions have the names of this Slurm's; a core's share of memory, a V100 for what wants a GPU."""
    pitzer = profile(tmp_path / "profile", "pitzer")
    run = start(tmp_path / "work", "tests/slurm/workflows/needs.smk", profile=pitzer, SBATCH_ACCOUNT="research")
    run.finish()
    columns = ("Comment", "State", "Account", "Partition", "NodeList", "ReqMem", "AllocTRES")
    records = cluster.call("sacct", "-X", "--noheader", "--parsable2", f"--format={','.join(columns)}")
    rows = {row[0]: dict(zip(columns, row, strict=True)) for line in records.splitlines() if (row := line.split("|"))}
    gpu, table = rows["rule_gpu"], rows["rule_table"]
    assert (gpu["State"], gpu["Account"], gpu["Partition"]) == ("COMPLETED", "research", "gpu")
    assert (gpu["NodeList"], gpu["ReqMem"]) == ("n1", "7500M")
    assert "gres/gpu=1" in gpu["AllocTRES"]
    assert (table["State"], table["Account"], table["Partition"]) == ("COMPLETED", "research", "cpu")
    assert (table["NodeList"] in ("n2", "n3"), table["ReqMem"]) == (True, "3700M")
    assert "gpu" not in table["AllocTRES"]
    assert list(run.folder.glob("efficiency_report*")), "the profile asks for Slurm's account of what was used"


def test_a_project_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an account, nothing is submitted under a wrong one."""
    monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
    pitzer = profile(tmp_path / "profile", "pitzer", retries=0)
    run = start(tmp_path / "work", "tests/slurm/workflows/needs.smk", "--dry-run", "--verbose", profile=pitzer)
    run.finish()
    assert "slurm_account=$SBATCH_ACCOUNT" in run.output()
