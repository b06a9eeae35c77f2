"""How fast a score gets somewhere, over runs that differ in their seed alone.

steps = first_reached(curve.steps, curve.frechet, at_most=20)    # one number a seed, or None
mean_over_seeds(steps)                                           # with its 95 % interval
paired_difference(ours, theirs)                                  # the same seeds in both
"""

import math
from collections.abc import Sequence

import torch
from scipy.stats import t as student

from gan.evaluation.score import Score


def first_reached(at: Sequence[float], values: Sequence[float], *, at_most: float) -> float | None:
    """Where a curve first falls to a threshold, linear between its points; None: nowhere.

    Args:
        at: where the points are (steps, seconds), increasing, [n].
        values: the curve, [n].
        at_most: the threshold.  For a score that grows, negate both.
    """
    for i, value in enumerate(values):
        if value <= at_most:
            if i == 0:
                return float(at[0])
            before = values[i - 1]
            return at[i - 1] + (at[i] - at[i - 1]) * (before - at_most) / (before - value)
    return None


def mean_over_seeds(name: str, values: Sequence[float], *, unit: str = "") -> Score:
    """The mean with the 95 % interval of Student's t, for independent seeds.

    Args:
        name: of the score.
        values: one a seed, at least 2.
        unit: of the values.

    Raises:
        ValueError: fewer than 2 values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval needs at least 2 seeds, got {n}")
    points = torch.tensor(values, dtype=torch.float64)
    mean, error = points.mean().item(), points.std().item() / math.sqrt(n)
    half = float(student.ppf(0.975, n - 1)) * error
    return Score(
        name=name, value=mean, low=mean - half, high=mean + half, standard_error=error, unit=unit
    )


def paired_difference(
    name: str, ours: Sequence[float], theirs: Sequence[float], *, unit: str = ""
) -> Score:
    """Mean of ours - theirs with its 95 % interval, seed by seed.

    Args:
        name: of the score.
        ours: one value a seed.
        theirs: of the same seeds, in the same order.
        unit: of the values.

    Raises:
        ValueError: fewer than 2 seeds, or not as many of each.
    """
    if len(ours) != len(theirs):
        raise ValueError(
            f"ours and theirs must be of the same seeds, got {len(ours)} and {len(theirs)}"
        )
    return mean_over_seeds(name, [a - b for a, b in zip(ours, theirs, strict=True)], unit=unit)
