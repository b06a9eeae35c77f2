"""What the served models share: how many images a request may ask for."""

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from pandas import DataFrame

MAX_IMAGES = 1_000
"""Images in one answer; as many of MNIST are 16 MB of JSON, and take a second."""


def counts_and_seeds(model_input: DataFrame) -> list[tuple[int, int]]:
    """`n` and `seed` of each row.

    Raises:
        MlflowException: with status 400, if there is no image to draw, or too many, or a seed is
            below 0.
    """
    counts, seeds = model_input["n"].tolist(), model_input["seed"].tolist()
    if not counts or min(counts) < 1 or sum(counts) > MAX_IMAGES:
        raise bad_request(
            f"each n must be >= 1 and all of them together <= {MAX_IMAGES:,}, got {counts}"
        )
    if min(seeds) < 0:
        raise bad_request(f"each seed must be >= 0, got {seeds}")
    return list(zip(counts, seeds, strict=True))


def bad_request(problem: str) -> MlflowException:
    """What MLflow answers with status 400 and this text."""
    return MlflowException(problem, error_code=INVALID_PARAMETER_VALUE)
