"""What the analysis notebook needs, declared the same for pip and conda."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]


def test_the_notebook_needs_its_module_and_its_own_extra() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["notebook"]
    assert "canids[evaluate]" in extra
    module, notebook = (
        [
            d
            for d in yaml.safe_load((ROOT / "modules/evaluate" / name).read_text())["dependencies"]
            if isinstance(d, str)
        ]
        for name in ("environment.yaml", "notebooks/environment.yaml")
    )
    notebook_only = {requirement.replace(">=", " >=") for requirement in extra if not requirement.startswith("canids")}
    assert set(notebook) == set(module) | notebook_only
