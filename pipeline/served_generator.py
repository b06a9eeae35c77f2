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

Rows for a conditional generator have a column `condition` besides: a class, or the list of a
vector's coordinates.

    {"dataframe_records": [{"n": 2, "seed": 0, "condition": 7}]}
"""

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
from gan.extensions.conditional import SavedConditional
from pipeline.artifacts import load_artifact

MAX_IMAGES = 1_000
"""Images in one answer; as many of MNIST are 16 MB of JSON, and take a second."""


class ServedGenerator(PythonModel):  # type: ignore[misc]
    """Rows of `n` and `seed`, and perhaps `condition`, in; images out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the artifact that MLflow has laid down."""
        self._saved = load_artifact(Path(context.artifacts["generator"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: DataFrame,
        params: dict[str, Any] | None = None,
    ) -> NDArray[np.float32]:
        """Images, [sum of n, channels, height, width] in [0, 1], of all rows in their order.

        Args:
            context: not used; the artifact was read by `load_context`.
            model_input: integer columns `n`, images of that row, and `seed`; `condition`, if the
                generator takes one.
            params: not used; MLflow hands it over.

        Raises:
            MlflowException: with status 400, if there is no image to draw, or too many, a seed is
                below 0, or what is asked for is no condition of this generator.
        """
        counts, seeds = model_input["n"].tolist(), model_input["seed"].tolist()
        if not counts or min(counts) < 1 or sum(counts) > MAX_IMAGES:
            raise _bad_request(
                f"each n must be >= 1 and all of them together <= {MAX_IMAGES:,}, got {counts}"
            )
        if min(seeds) < 0:
            raise _bad_request(f"each seed must be >= 0, got {seeds}")
        saved = self._saved
        if not isinstance(saved, SavedConditional):
            rows = zip(counts, seeds, strict=True)
            return np.concatenate([saved.sampler().sample(n, seed).numpy() for n, seed in rows])
        given = [np.atleast_1d(condition).tolist() for condition in model_input["condition"]]
        try:
            images = [
                saved.draw(condition, n=n, seed=seed).numpy()
                for n, seed, condition in zip(counts, seeds, given, strict=True)
            ]
        except ConditionError as error:
            raise _bad_request(str(error)) from error
        return np.concatenate(images)


def _bad_request(problem: str) -> MlflowException:
    return MlflowException(problem, error_code=INVALID_PARAMETER_VALUE)


set_model(ServedGenerator())
