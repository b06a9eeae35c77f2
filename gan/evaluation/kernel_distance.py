"""The kernel distance (KID) between two sets of features: squared MMD of a cubic kernel.

    k(x, y) = (x.y / d + 1)^3
    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

Bias: none at any count, so it is near 0, and below 0 half of the time, for two sets of one
distribution; scores of different counts compare.  The kernel is not free of scale: features times
ten are another score.

Standard error: of a two-sample U-statistic, terms of first and of second order in 1/n, so that it
holds for equal distributions as well, where the first vanishes; it is then 5 to 15 % too large, as
the first cannot be estimated below 0.  To test whether the distributions differ, hold the distance
against `null_error`, which has the second order alone: beyond 1.96 of it lie 4 to 5 % of draws.

Source: Binkowski et al. (2018), section 4; Gretton et al. (2012), equation 3 and section 6.
Differs: all pairs at once, where the usual code averages 100 subsets of 1,000 points: the
expectation is the same, the error smaller, and nothing is drawn.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.score import Score, normal_score, require_points

AT_LEAST = 10
"""Points a set: fewer tell nothing of the spread."""


@dataclass(frozen=True, kw_only=True)
class KernelScores:
    """The distance of two sets, and how far from 0 it would be by chance."""

    distance: Score
    """`kernel_distance`"""
    null_error: float
    """Standard deviation that the distance would have, were both sets of one distribution."""


def kernel_distance(real: Tensor, samples: Tensor, *, chunk: int = 200) -> Score:
    """The kernel distance alone; arguments and errors: `kernel_scores`."""
    return kernel_scores(real, samples, chunk=chunk).distance


@torch.no_grad()
def kernel_scores(real: Tensor, samples: Tensor, *, chunk: int = 200) -> KernelScores:
    """The kernel distance of two sets of points, in float64, and its error if they are equal.

    Args:
        real: features of real images, [n, d] or [n, c, h, w].
        samples: features of samples, [m, d] or [m, c, h, w].
        chunk: points a pass; bounds the memory at one matrix [chunk, max(n, m)] and float64
            copies of the points, does not change the result beyond 1e-14 of the mean kernel.

    Raises:
        ScoreError: as `require_points`, with `AT_LEAST` points; or the kernel overflows.
        ValueError: chunk < 1, not floating point, or the shapes of one point differ.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    require_points(at_least=AT_LEAST, real=real, samples=samples)
    x, y = real.flatten(1).double(), samples.flatten(1).double()
    xx, yy = (_kernel_means(points, points, chunk=chunk) for points in (x, y))
    xy = _kernel_means(x, y, chunk=chunk)
    value = xx.mean + yy.mean - 2 * xy.mean
    null_variance = _null_variance(xx, yy, xy)
    variance = max(_first_order_variance(xx, yy, xy) - null_variance, null_variance)
    if not math.isfinite(value + variance):
        raise ScoreError("real and samples must have finite kernels, got an overflow: scale them")
    return KernelScores(
        distance=normal_score("kernel_distance", value, math.sqrt(variance)),
        null_error=math.sqrt(null_variance),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _KernelMeans:
    """Means of the kernel over the pairs of two sets, or over the distinct pairs of one."""

    of_row: Tensor
    """[n], float64."""
    of_column: Tensor
    """[m], float64."""
    square: float
    """Mean of the squared kernel."""
    n_pairs: int

    @property
    def mean(self) -> float:
        return self.of_row.mean().item()

    @property
    def interaction(self) -> float:
        """Variance of the kernel over pairs that neither point explains alone."""
        rows, columns = self.of_row.square().mean(), self.of_column.square().mean()
        return max(0.0, self.square - (rows + columns).item() + self.mean * self.mean)


def _kernel_means(a: Tensor, b: Tensor, *, chunk: int) -> _KernelMeans:
    n, m, is_one_set = len(a), len(b), a is b
    n_others = m - 1 if is_one_set else m
    of_row, column_sum, square_sum = a.new_empty(n), a.new_zeros(m), a.new_zeros(())
    buffer, one = a.new_empty(min(chunk, n), m), a.new_ones(())
    for start in range(0, n, chunk):
        rows = a[start : start + chunk]
        k = buffer[: len(rows)]
        torch.addmm(one, rows, b.T, alpha=1 / a.shape[1], out=k)
        k.pow_(3)
        if is_one_set:
            k.diagonal(start).zero_()
        of_row[start : start + chunk] = k.sum(1) / n_others
        column_sum += k.sum(0)
        square_sum += torch.linalg.vector_norm(k).square()
    return _KernelMeans(
        of_row=of_row,
        of_column=column_sum / (n - 1 if is_one_set else n),
        square=(square_sum / (n * n_others)).item(),
        n_pairs=n * n_others,
    )


def _first_order_variance(xx: _KernelMeans, yy: _KernelMeans, xy: _KernelMeans) -> float:
    """From the spread over points of their mean kernels (Hoeffding's projection).

    The mean of a point is itself over finitely many others: that noise adds the variance of second
    order twice over.
    """
    u, v = xx.of_row - xy.of_row, yy.of_row - xy.of_column
    return 4 * (u.var() / len(u) + v.var() / len(v)).item()


def _null_variance(xx: _KernelMeans, yy: _KernelMeans, xy: _KernelMeans) -> float:
    """Of second order: all of the variance for equal distributions, the least of it for others."""
    weighted = ((2, xx), (2, yy), (4, xy))
    return sum(weight * part.interaction / part.n_pairs for weight, part in weighted)
