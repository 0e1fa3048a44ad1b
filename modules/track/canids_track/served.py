"""The model that MLflow loads ("models from code"): applies the model file by the code of the stage that trained it.

MLflow copies this file into every logged model, beside the sources of that stage, and runs it where the model is loaded.
"""

import importlib
from pathlib import Path

from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class Served(PythonModel):  # type: ignore[misc]
    """A trained detector or policy; what goes in and comes out stands in the model's signature."""

    # MLflow would derive another signature from type hints of `predict`, and warns where there are none.
    _skip_type_hint_validation = True

    def load_context(self, context: PythonModelContext) -> None:
        """Read the model file by the stage's own code."""
        stage = importlib.import_module(context.model_config["entry"])
        self._served = stage.Served(Path(context.artifacts["model"]))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Scores of windows."""
        return self._served(model_input)


set_model(Served())
