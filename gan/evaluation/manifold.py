"""Precision, recall, density and coverage: do samples lie where data lies, and everywhere?

A set's manifold is the union of the balls around its points, each of which reaches to the point's
k-th nearest neighbour in its own set.  With X real and Y samples:

    precision  share of Y within the manifold of X                    (k = 3)
    recall     share of X within the manifold of Y                    (k = 3)
    density    mean over Y of the number of balls of X around it, / k (k = 5)
    coverage   share of balls of X that hold any point of Y           (k = 5)

Bias: all depend on n, k and the dimension, so scores of different counts do not compare.  For two
sets of one distribution density is 1 on average and coverage `expected_coverage`, in any
dimension; precision and recall have no such value: take them of two real sets.  One outlier of X
opens a wide ball that lets bad samples into precision, less into density.

Intervals: Wilson's for the three shares, given the balls: over draws of both sets the shares
spread 1.1 (10 dimensions) to 1.5 times (2 dimensions) as far.  Density's error is over draws of
both sets: as of a mean over pairs, it adds the spread over points of Y to that over balls of X.

Ties: balls are closed, and distances equal up to rounding are equal, so a copy of a point's k-th
neighbour is always within its ball.  The rounding of a squared distance is 1e-13 (|x|^2 + |y|^2)
at d = 200: noise on a copy is seen from 1e-6 of the norm upwards.

Source: Kynkäänniemi et al. (2019), equations 1 to 3; Naeem et al. (2020), equations 3, 6 and 9.
Differs: `<=` for all four, where the authors of density and coverage have `<` in their code; a
point is its own neighbour nowhere, found by its index and not by its distance 0.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.score import Score, normal_score, proportion_score, require_points


@dataclass(frozen=True, kw_only=True, eq=False)
class ManifoldScores:
    """The four scores, and what each point adds to them; tensors are on the points' device."""

    precision: Score
    recall: Score
    density: Score
    coverage: Score
    is_precise: Tensor
    """Whether each sample is within the manifold of the real points: [m], bool."""
    is_recalled: Tensor
    """Whether each real point is within the manifold of the samples: [n], bool."""
    n_balls: Tensor
    """Real points whose ball holds the sample: [m], int64; density is its mean / k."""
    is_covered: Tensor
    """Whether each real point's ball holds a sample: [n], bool."""


@torch.no_grad()
def manifold_scores(
    real: Tensor,
    samples: Tensor,
    *,
    k_precision: int = 3,
    k_coverage: int = 5,
    chunk: int = 200,
) -> ManifoldScores:
    """All four scores: 10,000 against 10,000 points of 128 features in 2 to 3 s on one core.

    Args:
        real: X, [n, d] or [n, c, h, w].
        samples: Y, [m, d] or [m, c, h, w].
        k_precision: neighbours of precision and recall; Kynkäänniemi et al. have 3.
        k_coverage: neighbours of density and coverage; Naeem et al. have 5.
        chunk: points a pass; bounds the memory at one matrix [chunk, max(n, m)] and float64
            copies of the points, does not change the result.

    Raises:
        ScoreError: as `require_points`, with more points than the larger k; or squares overflow.
        ValueError: a k or chunk < 1, not floating point, or the shapes of one point differ.
    """
    for name, value in (
        ("k_precision", k_precision),
        ("k_coverage", k_coverage),
        ("chunk", chunk),
    ):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    require_points(at_least=max(k_precision, k_coverage) + 1, real=real, samples=samples)
    x, y = real.flatten(1).double(), samples.flatten(1).double()
    _require_squares(x, y)
    x_narrow, x_wide = _squared_radii(x, ks=(k_precision, k_coverage), chunk=chunk)
    (y_narrow,) = _squared_radii(y, ks=(k_precision,), chunk=chunk)

    is_precise = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    is_recalled = torch.empty(len(x), dtype=torch.bool, device=x.device)
    n_balls, n_held = (torch.zeros(len(s), dtype=torch.int64, device=s.device) for s in (y, x))
    buffer = x.new_empty(min(chunk, len(x)), len(y))
    for start in range(0, len(x), chunk):
        rows = slice(start, start + chunk)
        nearest = _squared_distances(x[rows], y, shrink=_shrink(x.shape[1]), out=buffer)
        is_precise |= (nearest <= x_narrow[rows, None]).any(0)
        is_recalled[rows] = (nearest <= y_narrow).any(1)
        is_held = nearest <= x_wide[rows, None]
        n_balls += is_held.sum(0)
        n_held[rows] = is_held.sum(1)

    return ManifoldScores(
        precision=proportion_score("precision", int(is_precise.sum()), len(y)),
        recall=proportion_score("recall", int(is_recalled.sum()), len(x)),
        density=_density(n_balls, n_held, k=k_coverage),
        coverage=proportion_score("coverage", int((n_held > 0).sum()), len(x)),
        is_precise=is_precise,
        is_recalled=is_recalled,
        n_balls=n_balls,
        is_covered=n_held > 0,
    )


@dataclass(frozen=True, eq=False)
class Balls:
    """The balls of real points, for the coverage of many sets of samples.

    Attributes:
        centres: X, [n, d] float64.
        squared_radii: to the k-th nearest other point, [n] float64.
    """

    centres: Tensor
    squared_radii: Tensor

    @torch.no_grad()
    def coverage(self, samples: Tensor, *, chunk: int = 200) -> Score:
        """As of `manifold_scores`, in a third of its time.

        Args:
            samples: Y, [m, d] or [m, c, h, w].
            chunk: points a pass; bounds the memory, does not change the result.

        Raises:
            ScoreError: as `require_points`, of the samples; or squares overflow.
            ValueError: not floating point, or the shape of one point is another.
        """
        require_points(at_least=1, real=self.centres, samples=samples.flatten(1))
        y = samples.flatten(1).double()
        _require_squares(y)
        is_covered = torch.empty(len(self.centres), dtype=torch.bool, device=y.device)
        buffer = y.new_empty(min(chunk, len(self.centres)), len(y))
        for start in range(0, len(self.centres), chunk):
            rows = slice(start, start + chunk)
            x = self.centres[rows]
            nearest = _squared_distances(x, y, shrink=_shrink(x.shape[1]), out=buffer)
            is_covered[rows] = nearest.amin(1) <= self.squared_radii[rows]
        return proportion_score("coverage", int(is_covered.sum()), len(self.centres))


@torch.no_grad()
def balls(real: Tensor, *, k: int = 5, chunk: int = 200) -> Balls:
    """The ball of each real point, which reaches to its k-th nearest other point.

    Args:
        real: X, [n, d] or [n, c, h, w].
        k: Naeem et al. have 5.
        chunk: points a pass; bounds the memory, does not change the result.

    Raises:
        ScoreError: as `require_points`, with more than k points; or squares overflow.
        ValueError: k < 1, or not floating point.
    """
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    require_points(at_least=k + 1, real=real)
    x = real.flatten(1).double()
    _require_squares(x)
    (squared_radii,) = _squared_radii(x, ks=(k,), chunk=chunk)
    return Balls(centres=x, squared_radii=squared_radii)


def _require_squares(*sets: Tensor) -> None:
    total = sum((points * points).sum() for points in sets)
    if not bool(torch.as_tensor(total).isfinite()):
        raise ScoreError("real and samples must have finite squares, got an overflow")


def expected_coverage(*, n_real: int, n_samples: int, k: int = 5) -> float:
    """Mean coverage if samples and real points are of one continuous distribution.

    A ball is empty if the k nearest of all other points are real: 1 - 2^-k at equal large counts.

    Source: Naeem et al. (2020), equation 9.
    """
    others = n_real - 1 + n_samples
    return 1 - math.prod((n_real - 1 - i) / (others - i) for i in range(k))


def _density(n_balls: Tensor, n_held: Tensor, *, k: int) -> Score:
    """Mean over pairs of "the ball of x holds y", times n / k: both sets add to its error."""
    n = len(n_held)
    per_sample, per_ball = n_balls.double() / k, n_held.double() * n / (k * len(n_balls))
    variance = per_sample.var() / len(n_balls) + per_ball.var() / n
    return normal_score("density", per_sample.mean().item(), variance.sqrt().item())


def _squared_radii(points: Tensor, *, ks: tuple[int, ...], chunk: int) -> Tensor:
    """Squared distance of each point to its k-th nearest other point: [len(ks), n], float64."""
    radii = points.new_empty(len(ks), len(points))
    buffer = points.new_empty(min(chunk, len(points)), len(points))
    for start in range(0, len(points), chunk):
        rows = points[start : start + chunk]
        distances = _squared_distances(rows, points, shrink=1.0, out=buffer)
        distances.diagonal(start).fill_(math.inf)
        nearest = distances.topk(max(ks), dim=1, largest=False).values
        radii[:, start : start + chunk] = nearest[:, [k - 1 for k in ks]].T
    return radii


def _squared_distances(a: Tensor, b: Tensor, *, shrink: float, out: Tensor) -> Tensor:
    """|a|^2 shrink + |b|^2 shrink - 2 a.b, written to the first rows of `out`: [len(a), len(b)].

    By a float64 product: float32 would save a quarter of the time and need a second look at every
    pair near a radius.
    """
    out = out[: len(a)]
    a_squares, b_squares = (p.square().sum(1) * shrink for p in (a, b))
    torch.addmm(b_squares, a, b.T, alpha=-2, out=out)
    return out.add_(a_squares[:, None])


def _shrink(d: int) -> float:
    """What makes a squared distance too small by more than two of them can differ by rounding.

    A sum of d products is off by at most d eps / 2 of the sum of their sizes, and so is a squared
    distance by d eps (|a|^2 + |b|^2).  Two pairs of equal distance differ by twice that; 4 more
    for the additions.
    """
    return 1 - 2 * (d + 4) * torch.finfo(torch.float64).eps
