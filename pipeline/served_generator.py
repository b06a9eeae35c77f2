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

Models of extensions take other columns, which their products state (`pipeline.products`): a
conditional generator a column `condition` besides, a class, or the list of a vector's coordinates.

    {"dataframe_records": [{"n": 2, "seed": 0, "condition": 7}]}
"""

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext
from numpy.typing import NDArray
from pandas import DataFrame

from gan.errors import ConditionError
from pipeline.artifacts import load_artifact
from pipeline.products import product_of

MAX_IMAGES = 1_000
"""Images (or what else is asked for) in one answer; as many of MNIST are 16 MB of JSON, and take a
second."""


class ServedGenerator(PythonModel):  # type: ignore[misc]
    """Rows of what the model's product asks for in; images, or what else it answers, out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the artifact that MLflow has laid down."""
        saved = load_artifact(Path(context.artifacts["generator"]))
        self._served = product_of(saved.config).served(saved)

    def predict(
        self,
        context: PythonModelContext,
        model_input: DataFrame,
        params: dict[str, Any] | None = None,
    ) -> NDArray[np.float32]:
        """The answers to all rows in their order, [sum of the rows' counts, *answer_shape].

        Args:
            context: not used; the artifact was read by `load_context`.
            model_input: the columns of `pipeline.product.Served`.
            params: not used; MLflow hands it over.

        Raises:
            MlflowException: with status 400, if there is nothing to answer, or too much, a seed is
                below 0, or the model cannot answer a row.
        """
        rows = [_given(row) for row in model_input.to_dict("records")]
        try:
            counts = [self._served.count(row) for row in rows]
            if not counts or min(counts) < 1 or sum(counts) > MAX_IMAGES:
                raise _bad_request(
                    f"each n must be >= 1 and all of them together <= {MAX_IMAGES:,}, got {counts}"
                )
            seeds = [row.get("seed", 0) for row in rows]
            if min(seeds) < 0:
                raise _bad_request(f"each seed must be >= 0, got {seeds}")
            return np.concatenate([self._served.answer(row) for row in rows])
        except ConditionError as error:
            raise _bad_request(str(error)) from error


def _given(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    """A row without the optional columns that it leaves empty: pandas has NaN or None there."""
    return {
        str(name): value
        for name, value in row.items()
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    }


def _bad_request(problem: str) -> MlflowException:
    return MlflowException(problem, error_code=INVALID_PARAMETER_VALUE)


set_model(ServedGenerator())
