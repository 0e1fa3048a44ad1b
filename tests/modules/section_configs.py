"""Cut a pipeline's config into one config per module: `python tests/modules/section_configs.py tests/smoke.yaml`.

Each is the config of that module alone: its section, the datasets, their folder, and the preset.
"""

import sys
from pathlib import Path

import yaml

STAGES = ("preprocess", "train_gnn", "train_drl", "evaluate")

config = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
common = {key: config[key] for key in ("datasets", "data_root", "preset")}
for stage in STAGES:
    Path(f"{stage}.yaml").write_text(yaml.safe_dump({**config.get(stage, {}), **common}), encoding="utf-8")
