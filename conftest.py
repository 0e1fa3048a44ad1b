"""Workflows of pytest-workflow, in `tests/` and `pipelines/`, find the commands of this environment on PATH, whether or not anything is activated."""

import os
import sys
from pathlib import Path

os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
