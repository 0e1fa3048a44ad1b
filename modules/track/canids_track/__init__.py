"""Stage 5: finished runs as MLflow shows them. Files are the truth, MLflow a view of it."""

import os

# Before MLflow is imported, which by default reports its use to a host outside.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
