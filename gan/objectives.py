"""What a sweep makes as good as possible: one score, and its direction."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gan.errors import ScoreError
from gan.metric_names import (
    COMPLETION_LL_VALID,
    FEW_LABELS_NATS,
    FRECHET_DISTANCE_VALID,
    NEAREST_ACCURACY_VALID,
    PARZEN_LL_VALID,
    RECONSTRUCTION_ERROR_VALID,
)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A score by which trials are compared.

    Attributes:
        metric: its name in a report; its standard error has the same name and `_se`.
        is_larger_better: its direction.
        title: for a heading.
        unit: of the score; empty where it has none.
        form: how a person reads it, as in `format`.
        of: the images that it is taken of.
        is_of_training: whether these are what a run learns from, so that of its scores the last
            one counts rather than the best.
    """

    metric: str
    is_larger_better: bool
    title: str
    unit: str
    form: str
    of: str = "validation"
    is_of_training: bool = False

    @property
    def split(self) -> str:
        """The images that it is taken of, in a sentence."""
        return "the validation split" if self.of == "validation" else f"the {self.of}"

    @property
    def metric_se(self) -> str:
        """Name of its standard error in a report."""
        return f"{self.metric}_se"

    def merit(self, report: Mapping[str, float]) -> float:
        """How good a report is that has the score: larger is better, whatever its direction."""
        value = report[self.metric]
        return value if self.is_larger_better else -value

    def require(self, scores: Mapping[str, float]) -> None:
        """Refuse scores by which nothing can be decided.

        Raises:
            ScoreError: if the objective or its standard error was not taken, or is not finite.
        """
        for name in (self.metric, self.metric_se):
            if name not in scores:
                taken = ", ".join(scores) or "none"
                raise ScoreError(
                    f"sweep.objective {self.metric} needs the score {name}, which was not taken; "
                    f"taken: {taken}"
                )
            if not math.isfinite(scores[name]):
                raise ScoreError(f"{name} must be finite, got {scores[name]}")

    def text(self, score: float) -> str:
        """A score as a person reads it, without its unit."""
        return f"{score:{self.form}}"


OBJECTIVES = {
    objective.metric: objective
    for objective in (
        Objective(
            metric=FRECHET_DISTANCE_VALID,
            is_larger_better=False,
            title="Fréchet distance",
            unit="",
            form=".4g",  # its scale is that of the features
        ),
        Objective(
            metric=PARZEN_LL_VALID,
            is_larger_better=True,
            title="Parzen log-likelihood",
            unit="nats",
            form=".1f",
        ),
        Objective(
            metric=NEAREST_ACCURACY_VALID,
            is_larger_better=True,
            title="1-NN accuracy of inferred codes",
            unit="",
            form=".2%",
        ),
        Objective(
            metric=RECONSTRUCTION_ERROR_VALID,
            is_larger_better=False,
            title="reconstruction error",
            unit="a pixel",
            form=".4g",
        ),
        Objective(
            metric=COMPLETION_LL_VALID,
            is_larger_better=True,
            title="log-likelihood of hidden pixels",
            unit="nats a pixel",
            form=".3f",
        ),
        Objective(
            metric=FEW_LABELS_NATS,
            is_larger_better=False,
            title="cross-entropy of the few labels",
            unit="nats",
            form=".4g",
            of="labelled images",
            is_of_training=True,
        ),
    )
}
"""By the metric's name, which is also what `sweep.objective` is set to."""
