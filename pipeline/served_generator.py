"""The `python_function` model of a promoted generator, as MLflow loads and serves it.

MLflow copies this file into the model and runs it there ("models from code"), so nothing is
pickled.  The artifact's folder lies beside it and is verified before its weights are read.  The
environment must have the package `adversarial-nets`.

    mlflow models serve -m models:/mnist-generator@champion --env-manager local -p 5001

    curl localhost:5001/invocations -H 'Content-Type: application/json' \
        -d '{"dataframe_records": [{"n": 2, "seed": 0}]}'
    {"predictions": [[[[0.013, ...], ...]], [[[0.008, ...], ...]]]}

`predictions[image][channel][row][column]` is in [0, 1].  A request may have several rows; their
images follow one another in the order of the rows.  The same row always gives the same images,
those of `gan sample` with the same seed on a CPU.
"""

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from numpy.typing import NDArray
from pandas import DataFrame

from pipeline.artifacts import load_artifact
from pipeline.served_rows import counts_and_seeds


class ServedGenerator(PythonModel):  # type: ignore[misc]
    """Rows of `n` and `seed` in, images out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the artifact that MLflow has laid down."""
        self._sampler = load_artifact(Path(context.artifacts["generator"])).sampler()

    def predict(
        self,
        context: PythonModelContext,
        model_input: DataFrame,
        params: dict[str, Any] | None = None,
    ) -> NDArray[np.float32]:
        """Images, [sum of n, channels, height, width] in [0, 1], of all rows in their order.

        Args:
            context: not used; the artifact was read by `load_context`.
            model_input: integer columns `n`, images of that row, and `seed`.
            params: not used; MLflow hands it over.

        Raises:
            MlflowException: with status 400, if there is no image to draw, or too many.
        """
        rows = counts_and_seeds(model_input)
        return np.concatenate([self._sampler.sample(n, seed).numpy() for n, seed in rows])


set_model(ServedGenerator())
