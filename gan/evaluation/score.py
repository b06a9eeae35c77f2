"""What every score answers, and what every score asks of its points."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gan.errors import ScoreError

Z_95 = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number about a set of samples.

    Attributes:
        name: as in the tracking contract, without the split: `frechet_distance`.
        value: finite.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        standard_error: of the estimate; None where only the interval is known.
        unit: `nats`, `probability`, ...

    Raises:
        ScoreError: a number is not finite.
    """

    name: str
    value: float
    low: float
    high: float
    standard_error: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        numbers = (self.value, self.low, self.high, self.standard_error or 0.0)
        if not all(map(math.isfinite, numbers)):
            raise ScoreError(f"{self.name} must be finite, got {numbers}")


def normal_score(name: str, value: float, standard_error: float, *, unit: str = "") -> Score:
    """A score whose interval is that of a normal distribution."""
    half = Z_95 * standard_error
    return Score(
        name=name,
        value=value,
        low=value - half,
        high=value + half,
        standard_error=standard_error,
        unit=unit,
    )


def proportion_score(name: str, n_yes: int, n: int) -> Score:
    """A share of n independent answers, with Wilson's interval, which stays within [0, 1].

    Source: Wilson (1927); Brown, Cai and DasGupta (2001), equation 4.
    """
    share = n_yes / n
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2)) / (1 + Z_95**2 / n)
    return Score(
        name=name,
        value=share,
        low=min(share, max(0.0, centre - half)),
        high=max(share, min(1.0, centre + half)),
        standard_error=math.sqrt(share * (1 - share) / n),
        unit="probability",
    )


def require_points(*, at_least: int, **sets: Tensor) -> None:
    """Refuse sets of points that a score cannot be taken of, naming the set.

    Args:
        at_least: points that the score needs of each set.
        sets: name -> [n, d] or [n, c, h, w] floating point, all of one point's shape.

    Raises:
        ScoreError: too few points, NaN or infinity, or all points of a set are the same.
        ValueError: not floating point, or the shapes of one point differ.
    """
    shapes = {tuple(points.shape[1:]) for points in sets.values()}
    if len(shapes) != 1 or shapes == {()}:
        got = ", ".join(f"{name} {list(points.shape)}" for name, points in sets.items())
        raise ValueError(f"all sets must hold points of one shape, got {got}")
    for name, points in sets.items():
        if not points.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {points.dtype}")
        if len(points) < at_least:
            raise ScoreError(f"{name} must hold at least {at_least:,} points, got {len(points):,}")
        if not bool(torch.isfinite(points).all()):
            raise ScoreError(f"{name} must be finite, got NaN or infinity")
        if bool((points == points[:1]).all()):
            n = f"{len(points):,}"
            raise ScoreError(f"{name} must hold distinct points, got one point {n} times")
