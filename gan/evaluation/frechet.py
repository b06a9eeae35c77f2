"""The Fréchet distance between two sets of features: points in, one distance out.

Each set is summed up by the Gaussian of its mean and covariance; the score is the squared
Wasserstein-2 distance of the two Gaussians,

    |m_r - m_s|^2 + tr( C_r + C_s - 2 (C_r^(1/2) C_s C_r^(1/2))^(1/2) )

Bias: upwards, of order 1/n: two sets of one isotropic Gaussian with covariance C score
tr(C) (d + 5) / 4 (1/n + 1/m) on average, not 0, and scores of different counts do not compare.
`extrapolated` takes this order away; it may be negative.

Standard error: the jackknife over random groups of points, one group of each set left out at a
time, which gives the bias as well.  Both know the spread between draws of both sets, neither that
between trained models.  For two sets of one distribution, where the distance is not linear in the
moments, the error is 1.4 times the spread: the interval errs to the wide side.

Source: Heusel et al. (2017), equation 6; Dowson and Landau (1982); extrapolation after Chong and
Forsyth (2020), which fit a line over 1/n where the jackknife takes two points of it.
Differs: the trace of the root is the sum of the singular values of C_r^(1/2) C_s^(1/2), exact to
1e-14 of tr C also for singular covariances (dead units, constant pixels), where eigenvalues of
C_r C_s, as in torchmetrics, are off by 5e-8 and negative distances come out.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.score import Score, normal_score, require_points
from gan.randomness import stream


@dataclass(frozen=True, kw_only=True, eq=False)
class FrechetScores:
    """The distance of two sets, and what it would be of endless ones."""

    distance: Score
    """`frechet_distance`, the usual score; its interval is about its own expectation, bias in."""
    extrapolated: Score
    """`frechet_distance_extrapolated`: without the bias of order 1/n; may be negative."""
    n_real: int
    n_samples: int
    pseudo_values: Tensor
    """Of the jackknife, one a group: [groups], float64, on the CPU."""

    @property
    def by_group(self) -> Tensor:
        """The pseudo-values, moved so that their mean is the distance: [groups].

        With one seed and as many samples, those of two generators are paired: the mean of their
        differences is that of the distances, with the standard error std / sqrt(groups).
        """
        return self.pseudo_values - self.pseudo_values.mean() + self.distance.value


def frechet_distance(
    real: Tensor, samples: Tensor, *, seed: int, groups: int = 20
) -> FrechetScores:
    """The Fréchet distance of two sets of points, float64.

    Args:
        real: features of real images, [n, d] or [n, c, h, w]; n > d or the covariance is singular.
        samples: features of samples, [m, d] or [m, c, h, w].
        seed: of the groups; the distance itself does not depend on it.
        groups: of the jackknife, >= 2; each costs one distance, 10 ms at d = 128, 1 s at 784.

    Raises:
        ScoreError: as `require_points`, with more than d points; or a square overflows.
        ValueError: groups < 2, not floating point, or the shapes of one point differ.
    """
    if groups < 2:
        raise ValueError(f"groups must be >= 2, got {groups}")
    d = real[0].numel() if real.ndim > 1 and len(real) else 1
    require_points(at_least=max(d + 1, 2 * groups), real=real, samples=samples)
    # The distance does not see a common shift, and the sums of squares cancel less without one.
    centre = real.flatten(1).double().mean(0)
    sets = [points.flatten(1).double() - centre for points in (real, samples)]
    if not all(bool(points.square().sum().square().isfinite()) for points in sets):
        raise ScoreError("real and samples must have finite squares, got an overflow")
    wholes = [_moments_of(points) for points in sets]
    distance = max(0.0, _moments_distance(*wholes))
    left_out = _left_out_distances(sets, wholes, seed=seed, groups=groups)

    # Pseudo-values: their mean is the jackknife's estimate, their spread its standard error.
    pseudo = groups * distance - (groups - 1) * left_out
    error = pseudo.std().item() / math.sqrt(groups)
    return FrechetScores(
        distance=normal_score("frechet_distance", distance, error),
        extrapolated=normal_score("frechet_distance_extrapolated", pseudo.mean().item(), error),
        n_real=len(real),
        n_samples=len(samples),
        pseudo_values=pseudo,
    )


def gaussian_frechet_distance(
    mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor
) -> float:
    """Squared Wasserstein-2 distance of two Gaussians; covariances [d, d] may be singular.

    Source: Dowson and Landau (1982), equation 4.
    """
    roots = _root(covariance_a).mT @ _root(covariance_b)
    traces = covariance_a.trace() + covariance_b.trace()
    mean_term = (mean_a - mean_b).square().sum()
    return float(mean_term + traces - 2 * torch.linalg.svdvals(roots).sum())


def _root(covariance: Tensor) -> Tensor:
    """Any A with A A^T = covariance: the singular values of A^T B do not depend on which."""
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp(min=0).sqrt()
    return root


@dataclass(frozen=True, kw_only=True, eq=False)
class _Moments:
    """Sums over a set of points, which add and subtract as sets do."""

    n: int
    total: Tensor
    """[d]"""
    scatter: Tensor
    """Sum of x x^T: [d, d]."""

    def __sub__(self, part: "_Moments") -> "_Moments":
        return _Moments(
            n=self.n - part.n,
            total=self.total - part.total,
            scatter=self.scatter - part.scatter,
        )

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Mean and unbiased covariance."""
        mean = self.total / self.n
        return mean, (self.scatter - self.n * torch.outer(mean, mean)) / (self.n - 1)


def _moments_of(points: Tensor) -> _Moments:
    return _Moments(n=len(points), total=points.sum(0), scatter=points.T @ points)


def _moments_distance(real: _Moments, samples: _Moments) -> float:
    return gaussian_frechet_distance(*real.gaussian(), *samples.gaussian())


def _left_out_distances(
    sets: list[Tensor], wholes: list[_Moments], *, seed: int, groups: int
) -> Tensor:
    """The distance without the g-th random group of either set: [groups], float64, on the CPU."""
    rng = stream(seed, "frechet groups")
    parts = [torch.randperm(len(points), generator=rng).tensor_split(groups) for points in sets]
    distances = []
    for indices in zip(*parts, strict=True):
        rests = [
            whole - _moments_of(points[index.to(points.device)])
            for whole, points, index in zip(wholes, sets, indices, strict=True)
        ]
        distances.append(_moments_distance(*rests))
    return torch.tensor(distances, dtype=torch.float64)
