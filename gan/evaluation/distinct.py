"""How many different images the samples are: repeats, near repeats, and the birthday estimate.

* Repeats: samples that equal an earlier one, bit for bit (0 for a generator that is continuous
  in z, and so no proof of variety).
* Near repeats: samples whose nearest other sample is within a radius, the `CLOSE` quantile of the
  same distance among as many real points.  Fresh real images have a share of `CLOSE` of these, up
  to the error of the quantile.
* Birthday estimate: the chance c that two samples are within the radius, from all pairs.  A
  uniform choice among N images repeats itself with chance 1/N, so 1/c is the size of that choice
  that collides as often.  The same number of real points stands beside it: the data's 1/c is the
  most that the measure can tell, and about n / `CLOSE` or less.

Intervals.  Near repeats come in pairs, so Wilson's interval is taken as of n/2 answers; the error
of the radius, CLOSE (1 +- 2 / sqrt(CLOSE n)) for fresh real images, is not in it.  Pairs within
the radius are counted as Poisson (Garwood's exact interval); those of a choice that is uniform
are pairwise independent, and where some images collide more than others, the jackknife variance
over that of Poisson widens the interval (quasi-Poisson).  The estimate of c is unbiased, that of
1/c is not where few pairs collide.

Source: Arora, Risteski and Zhang (2018), who look through the closest pairs by eye and conclude
from one collision in a batch of s that the support is about s^2; Garwood (1936).
Differs: a radius from real data in place of the eye, and all pairs in place of one.
"""

import math
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from gan.evaluation.score import Score, proportion_score, require_points
from gan.randomness import stream

CLOSE = 0.01
"""Share of real points that have another one within the radius."""

LEAST_POINTS = 200
"""Of which two real ones are within the radius."""


@dataclass(frozen=True, kw_only=True)
class Birthday:
    """How often two points of a set are within the radius.

    Attributes:
        collision: chance of it, with its interval.
        n_collisions: pairs within the radius.
        n_pairs: pairs looked at.
    """

    collision: Score
    n_collisions: int
    n_pairs: int

    @property
    def support(self) -> float:
        """Images of a uniform choice that collides as often; infinite without a collision."""
        return _reciprocal(self.collision.value)

    @property
    def support_low(self) -> float:
        """Lower end of its 95 % interval; finite, also where nothing collided."""
        return _reciprocal(self.collision.high)

    @property
    def support_high(self) -> float:
        """Upper end of its 95 % interval; infinite without a collision."""
        return _reciprocal(self.collision.low)


@dataclass(frozen=True, kw_only=True, eq=False)
class DistinctScore:
    """How many different images the samples are.

    Attributes:
        repeats: share of samples equal to an earlier one.
        n_distinct: samples that are not.
        near_repeats: share of samples with another one within the radius.
        null_near_repeats: of it, expected from real points.
        birthday: of the samples.
        real_birthday: of as many real points, at the same radius.
        radius: on the scale of the points.
        n_points: of each set, among which distances were taken.
    """

    repeats: Score
    n_distinct: int
    near_repeats: Score
    null_near_repeats: float
    birthday: Birthday
    real_birthday: Birthday
    radius: float
    n_points: int


@torch.no_grad()
def distinct_score(
    samples: Tensor, real: Tensor, *, seed: int, close: float = CLOSE, chunk: int = 1_000
) -> DistinctScore:
    """Repeats and near repeats among `samples`, calibrated on `real`.

    Args:
        samples: generated points, [n, d].
        real: real points, no two of which are one image, [m, d]; with fewer than n, so many of
            the samples are drawn, and the other way round, as distances shrink with the number.
        seed: of that draw; without effect if n = m.
        close: share of the real points that are to have another one within the radius, in (0, 1).
        chunk: points a pass; bounds the memory at a few matrices [chunk, n], does not change the
            result.

    Raises:
        ScoreError: as `require_points`, which needs `LEAST_POINTS` of each set.
        ValueError: points are not [n, d], chunk < 1, or close out of range.
    """
    for name, points in (("samples", samples), ("real", real)):
        if points.ndim != 2:
            raise ValueError(f"{name} must be [n, d], got {list(points.shape)}")
    if not 0 < close < 1:
        raise ValueError(f"close must lie in (0, 1), got {close}")
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    require_points(at_least=LEAST_POINTS, samples=samples, real=real)
    n_points = min(len(samples), len(real))
    drawn = _draw("samples", samples, n_points, seed).double()
    drawn_real = _draw("real", real, n_points, seed).to(drawn)
    real_nearest = nearest_distances(drawn_real, chunk=chunk)
    radius = float(real_nearest.quantile(close))
    nearest = nearest_distances(drawn, chunk=chunk)
    n_distinct = count_distinct(samples)
    return DistinctScore(
        repeats=proportion_score("repeat_share", len(samples) - n_distinct, len(samples)),
        n_distinct=n_distinct,
        near_repeats=_near_repeats(int((nearest <= radius).sum()), n_points),
        null_near_repeats=close,
        birthday=_birthday(drawn, nearest, radius=radius, chunk=chunk),
        real_birthday=_birthday(drawn_real, real_nearest, radius=radius, chunk=chunk),
        radius=radius,
        n_points=n_points,
    )


def count_distinct(points: Tensor) -> int:
    """Points that equal no earlier one, of [n, d]; -0 equals 0."""
    rows = (points + 0.0).cpu().numpy()
    return len({row.tobytes() for row in rows})


def nearest_distances(points: Tensor, *, chunk: int) -> Tensor:
    """Distance from each point to the nearest other one: [n], as `points` [n, d], float64.

    Distances come from matrix products of the centred points, which lose half the digits of a
    distance near 0: one under 1e-6 of the points' norm may read as 0.
    """
    centred = points - points.mean(0)
    squares = centred.square().sum(1)
    nearest = torch.full_like(squares, math.inf)
    for start in range(0, len(points), chunk):
        # Distances are symmetric: this block's rows against itself and those after it.
        rows, others = centred[start : start + chunk], centred[start:]
        squared = _squared_distances(rows, others, squares[start : start + chunk], squares[start:])
        squared.diagonal().fill_(math.inf)
        block = nearest[start:]
        torch.minimum(block, squared.amin(0), out=block)
        block[: len(rows)] = torch.minimum(block[: len(rows)], squared.amin(1))
    return nearest.sqrt()


def neighbour_counts(points: Tensor, among: Tensor, *, radius: float, chunk: int) -> Tensor:
    """How many of `among` [n, d] are within the radius of each of `points` [k, d]: int64 [k]."""
    centre = among.mean(0)
    rows, others = points - centre, among - centre
    squares, other_squares = rows.square().sum(1), others.square().sum(1)
    counts = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for start in range(0, len(points), chunk):
        stop = start + chunk
        squared = _squared_distances(rows[start:stop], others, squares[start:stop], other_squares)
        counts[start:stop] = (squared.sqrt() <= radius).sum(1)
    return counts


def _squared_distances(x: Tensor, y: Tensor, x_squares: Tensor, y_squares: Tensor) -> Tensor:
    squared = torch.addmm(y_squares, x, y.T, alpha=-2)
    squared += x_squares[:, None]
    # What is left of a distance of 0 after cancellation: it must not read as > a radius of 0.
    rounding = 1e-13 * float(y_squares.amax())
    return squared.masked_fill_(squared < rounding, 0)


def _birthday(points: Tensor, nearest: Tensor, *, radius: float, chunk: int) -> Birthday:
    n = len(points)
    n_pairs = n * (n - 1) // 2
    close = points[nearest <= radius]
    # A hair wider: two products may round the distance that is the radius differently.
    wider = radius * (1 + 1e-9)
    partners = neighbour_counts(close, points, radius=wider, chunk=chunk).double() - 1
    n_collisions = int(partners.sum()) // 2
    rate = n_collisions / n_pairs
    dispersion = _dispersion(partners, n=n)
    low, high = _garwood(n_collisions / dispersion)
    return Birthday(
        collision=Score(
            name="collision_probability",
            value=rate,
            low=low * dispersion / n_pairs,
            high=min(1.0, high * dispersion / n_pairs),
            standard_error=math.sqrt(rate * dispersion / n_pairs),
            unit="probability",
        ),
        n_collisions=n_collisions,
        n_pairs=n_pairs,
    )


def _dispersion(partners: Tensor, *, n: int) -> float:
    """Variance of the share of colliding pairs over that of independent pairs, >= 1.

    By Hoeffding it is 4 zeta_1 / n + v with v that of independent pairs.  The points' own shares,
    partners / (n - 1), vary by zeta_1 and by the noise of their pairs, n v / 2.

    Args:
        partners: of each of the points that have any, float64.
        n: points in all.
    """
    own = partners / (n - 1)
    rate = float(own.sum()) / n
    if rate == 0:
        return 1.0
    own_variance = float(own.square().sum()) / n - rate**2
    independent = rate / (n * (n - 1) / 2)
    return max(1.0, 4 * own_variance / n / independent - 1)


def _garwood(count: float) -> tuple[float, float]:
    """95 % interval of a Poisson mean."""
    low = float(stats.chi2.ppf(0.025, 2 * count) / 2) if count > 0 else 0.0
    return low, float(stats.chi2.ppf(0.975, 2 * count + 2) / 2)


def _near_repeats(n_near: int, n: int) -> Score:
    return proportion_score("near_repeat_share", n_near // 2, n // 2)


def _draw(name: str, points: Tensor, n: int, seed: int) -> Tensor:
    if len(points) == n:
        return points
    rows = torch.randperm(len(points), generator=stream(seed, f"distinct/{name}"))[:n]
    return points[rows.to(points.device)]


def _reciprocal(chance: float) -> float:
    return 1 / chance if chance > 0 else math.inf
