"""Same inputs, config and seed give the same bytes: composed on two cores, or every module alone on one.

Both runs are workflows of the YAML files (`kd_fusion`, `modules_alone`), in two copies of the repository.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from canids_shared.contracts import training_run
from canids_shared.files import sha256_of

pytestmark = [pytest.mark.slow, pytest.mark.workflow("modules_alone")]
SAME = {
    "captures": ("results/smoke/captures/*.csv", 5),
    "frames": ("results/smoke/frames/*.parquet", 5),
    "graphs": ("results/smoke/graphs/*.safetensors", 6),
    "models": ("experimentruns/smoke/*/model.safetensors", 9),
    "configs": ("experimentruns/smoke/*/config.yaml", 9),
    "records": ("experimentruns/smoke/*/run.json", 9),
    "states": ("results/smoke/states/*/*.parquet", 15),
    "decisions": ("results/smoke/decisions/*/*.parquet", 9),
    "metrics": ("experimentruns/smoke/*/metrics.json", 3),
    "window_baselines": ("results/smoke/window_baselines/*.json", 2),
    "tables": ("results/smoke/summary/results.*", 2),
}
"""Pattern, and how many files the composed run has at least."""


@pytest.mark.parametrize(("pattern", "count"), SAME.values(), ids=SAME)
def test_composed_and_alone_give_the_same_bytes(workflow_dir: Path, pattern: str, count: int) -> None:
    composed = workflow_dir.parent / "kd_fusion"
    if not composed.exists():
        pytest.skip("'kd_fusion' has not run.")
    files = [p.relative_to(composed) for p in sorted(composed.glob(pattern))]
    assert len(files) >= count
    differing = [str(f) for f in files if content(composed / f) != content(workflow_dir / f)]
    assert not differing


def content(path: Path) -> object:
    """Digest of a file; of a `run.json` its values but the latency, which is a measurement."""
    if path.name != "run.json":
        return sha256_of(path)
    return replace(training_run.read(path), latency={})
