"""The `python_function` model of a promoted conditional generator, as MLflow loads and serves it.

As `pipeline.served_generator`, with a column `condition`: a class, or the list of a vector's
coordinates.

    curl localhost:5001/invocations -H 'Content-Type: application/json' \
        -d '{"dataframe_records": [{"n": 2, "seed": 0, "condition": 7}]}'
"""

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from numpy.typing import NDArray
from pandas import DataFrame

from gan.errors import ConditionError
from gan.extensions.conditional import SavedConditional
from pipeline.artifacts import load_artifact
from pipeline.served_rows import bad_request, counts_and_seeds


class ServedConditional(PythonModel):  # type: ignore[misc]
    """Rows of `n`, `seed` and `condition` in, images out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the artifact that MLflow has laid down."""
        saved = load_artifact(Path(context.artifacts["generator"]))
        assert isinstance(saved, SavedConditional)  # noqa: S101 (`register` chose this file by it)
        self._saved = saved

    def predict(
        self,
        context: PythonModelContext,
        model_input: DataFrame,
        params: dict[str, Any] | None = None,
    ) -> NDArray[np.float32]:
        """Images, [sum of n, channels, height, width] in [0, 1], of all rows in their order.

        Args:
            context: not used; the artifact was read by `load_context`.
            model_input: integer columns `n`, images of that row, and `seed`; `condition`.
            params: not used; MLflow hands it over.

        Raises:
            MlflowException: with status 400, if there is no image to draw, or too many, or what
                is asked for is no condition of this model.
        """
        rows = counts_and_seeds(model_input)
        images = []
        for (n, seed), given in zip(rows, model_input["condition"].tolist(), strict=True):
            try:
                row = self._saved.condition_rows(np.atleast_1d(given).tolist())
            except ConditionError as error:
                raise bad_request(str(error)) from error
            images.append(self._saved.sampler().sample_given(row.expand(n, -1), seed).numpy())
        return np.concatenate(images)


set_model(ServedConditional())
