"""Whether samples of a conditional generator are of the classes that were asked for.

    accuracy of class k   share of the samples asked to be k that the classifier calls k
    condition accuracy    mean of these over the classes
    lowest                the smallest of them

The classifier must not be one that the generator was trained with.

Bias: the classifier errs on real images, too, which bounds what the best generator reaches; the
lowest of several estimates is below the lowest of what they estimate.  Standard errors: of
independent answers within each class.

Source: "GAN-test" of Shmelkov et al. (2018), section 3.2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.score import Score, normal_score, proportion_score

NO_CLASSES = "not checked: conditions are vectors, and no classifier tells if they are followed"


@dataclass(frozen=True, kw_only=True)
class ConditionAccuracy:
    """How well conditions are followed."""

    accuracy: Score
    lowest: Score
    lowest_class: str
    """Name of the class with the lowest accuracy, the first of several."""
    by_class: dict[str, Score]


def condition_accuracy(
    asked: Tensor, answers: Tensor, *, names: Sequence[str]
) -> ConditionAccuracy:
    """The accuracy of samples of all classes.

    Args:
        asked: class of each sample that was asked for, int64 [n] in 0 .. K - 1.
        answers: class that the classifier gives it, int64 [n].
        names: of the K classes.

    Raises:
        ScoreError: a class was not asked for.
        ValueError: the two are not int64 [n], or hold what is no class.
    """
    for name, classes in (("asked", asked), ("answers", answers)):
        if classes.dtype != torch.int64 or classes.shape != (len(asked),):
            raise ValueError(
                f"{name} must be int64 [n], got {classes.dtype} {list(classes.shape)}"
            )
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < len(names):
            raise ValueError(f"{name} must hold classes from 0 to {len(names) - 1}")
    n_asked = asked.bincount(minlength=len(names)).tolist()
    n_right = asked[asked == answers].bincount(minlength=len(names)).tolist()
    if missing := [name for name, n in zip(names, n_asked, strict=True) if not n]:
        raise ScoreError(f"samples of every class are needed, got none of {', '.join(missing)}")
    by_class = {
        name: proportion_score(f"condition_accuracy_{name}", right, n)
        for name, right, n in zip(names, n_right, n_asked, strict=True)
    }
    mean = sum(score.value for score in by_class.values()) / len(names)
    variance = sum((score.standard_error or 0) ** 2 for score in by_class.values())
    lowest_class = min(by_class, key=lambda name: by_class[name].value)
    index = list(names).index(lowest_class)
    return ConditionAccuracy(
        accuracy=normal_score(
            "condition_accuracy", mean, math.sqrt(variance) / len(names), unit="probability"
        ),
        lowest=proportion_score("condition_accuracy_lowest", n_right[index], n_asked[index]),
        lowest_class=lowest_class,
        by_class=by_class,
    )
