"""Do samples copy the training points?  Compared with test points, which cannot have.

d(x) is the distance of a point to its nearest training point.  A generator that has learned the
distribution draws samples as far from the training points as fresh test points are; one that has
learned the training set by heart draws nearer ones; one that draws poorly, farther ones.

`copying_scores` holds

- Z_U = (U - mn/2) / s of U = #{(i, j): d(sample_i) > d(test_j)} + #{equal} / 2, Mann and Whitney's
  count over m samples and n test points; s^2 = mn/12 (N + 1 - sum(t^3 - t) / (N (N - 1))), with
  N = m + n and t points in each group of equal distances, as copies all at distance 0.  Given the
  training points it is about normal with mean 0, deviation 1, if samples are distributed as test
  points are.  Z << 0: copies; Z >> 0: samples apart.  It grows with the square root of the points.
- C_T, the mean of the Z_U within each cell of a k-means partition of the training points,
  distances being to the training points of the cell, weighted by the cell's share of test points.
  Copies in some regions are not made up for there by poor samples in others.  Its deviation is
  sqrt(sum w^2) / sum w, since cells are independent.
  Source: Meehan, Chaudhuri and Dasgupta (2020), sections 3.1 and 3.2.
- authenticity, the share of samples farther from their nearest training point t than t is from
  its own nearest other training point, and the same of test points: that is what honest samples
  reach.  Wilson's intervals, given the training points.
  Source: Alaa et al. (2022), section 4.2.

The intervals of Z_U and C_T are those of honest samples: 0 outside says that they differ.
"""

import math
import warnings
from dataclasses import dataclass

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.neighbours import Neighbours, nearest_neighbours
from gan.evaluation.score import Score, normal_score, proportion_score, require_points
from gan.randomness import stream_seed

N_CELLS = 50
"""The authors' number for MNIST."""

MIN_POINTS_IN_CELL = 20
"""The authors' least number of samples; we ask it of test points too."""

MAX_ITERATIONS = 25
"""Of k-means: any partition gives a valid test, so there is no need to converge."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CellScores:
    """The test within each cell of a partition."""

    z: Tensor
    """Z_U of each cell, [n_cells], float64; NaN where the cell holds too few points to tell."""
    n_test: Tensor
    """Test points of each cell, [n_cells], int64."""
    n_samples: Tensor
    """Samples of each cell, [n_cells], int64."""

    @property
    def is_scored(self) -> Tensor:
        """Of each cell: whether it holds enough points, [n_cells]."""
        return ~self.z.isnan()

    @property
    def lowest_z(self) -> float:
        """Z_U of the cell that looks most like copying."""
        return self.z[self.is_scored].min().item()

    @property
    def lowest_p_value(self) -> float:
        """Of a lowest Z_U this low over all scored cells, if samples are honest (Sidak)."""
        p_value = math.erfc(-self.lowest_z / math.sqrt(2)) / 2
        return (
            -math.expm1(int(self.is_scored.sum()) * math.log1p(-p_value)) if p_value < 1 else 1.0
        )


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """How near samples lie to the training points, beside test points, over the whole space."""

    z: Score
    """Z_U over all points: far below 0 for copies."""
    authenticity: Score
    authenticity_test: Score
    """What honest samples reach."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CopyingScores:
    """The same, and within each cell of a partition."""

    nearness: Nearness
    c_t: Score
    """C_T, the mean over cells: far below 0 for copies."""
    cells: CellScores


def copying_scores(
    *,
    train: Tensor,
    test: Tensor,
    samples: Tensor,
    seed: int,
    n_cells: int = N_CELLS,
    chunk: int = 256,
) -> CopyingScores:
    """All scores of copying, from one search of neighbours.

    Args:
        train: points that the generator was trained on, [m, d] or [m, c, h, w], any floating
            type, any device.
        test: points it was not trained on, of the same distribution.
        samples: the generator's.
        seed: of the partition.
        n_cells: cells of the partition, from 1 to m.
        chunk: as `nearest_neighbours`.

    Raises:
        ScoreError: a set holds fewer than 20 points, NaN, infinity, or one point only; no cell
            holds 20 test points and 20 samples.
        ValueError: as `require_points` and `nearest_neighbours`; n_cells is out of range.
    """
    require_points(at_least=MIN_POINTS_IN_CELL, train=train, test=test, samples=samples)
    train, test, samples = train.flatten(1), test.flatten(1), samples.flatten(1)
    centres = _k_means(train, n_cells=n_cells, seed=seed)
    cells = score_cells(train=train, test=test, samples=samples, centres=centres, chunk=chunk)

    nearness = nearness_scores(
        train,
        near_test=nearest_neighbours(test, train, chunk=chunk),
        near_samples=nearest_neighbours(samples, train, chunk=chunk),
        chunk=chunk,
    )
    return CopyingScores(nearness=nearness, c_t=_mean_over_cells(cells), cells=cells)


def nearness_scores(
    train: Tensor,
    *,
    near_test: Neighbours,
    near_samples: Neighbours,
    suffix: str = "",
    chunk: int = 256,
) -> Nearness:
    """Z_U over all points and authenticity, from neighbours that are known.

    Args:
        train: [m, d] or [m, c, h, w].
        near_test: the nearest of `train` to each test point.
        near_samples: the same of each sample.
        suffix: of the scores' names, to say in which space: `_pixels`.
        chunk: as `nearest_neighbours`.
    """
    z = mann_whitney_z(near_samples.distances[:, 0], near_test.distances[:, 0])
    is_authentic, is_authentic_test = _authentic(
        train.flatten(1), near_samples, near_test, chunk=chunk
    )
    return Nearness(
        z=normal_score(f"copying_z{suffix}", z, 1.0),
        authenticity=_share(f"authenticity{suffix}", is_authentic),
        authenticity_test=_share(f"authenticity_test{suffix}", is_authentic_test),
    )


def mann_whitney_z(x: Tensor, y: Tensor) -> float:
    """Z of Mann and Whitney's U of x over y, < 0 if x is the smaller, corrected for ties.

    Args:
        x: [m], not empty.
        y: [n], not empty.

    Returns:
        0 if all values are equal: nothing then tells x from y.

    Differs: without the correction for continuity, so that swapping x and y changes the sign only.
    """
    m, n = len(x), len(y)
    total = m + n
    _, group, sizes = torch.unique(torch.cat([x, y]), return_inverse=True, return_counts=True)
    sizes = sizes.double()
    # Equal values share the mean of the ranks that they take up.
    ranks = sizes.cumsum(0) - (sizes - 1) / 2
    if len(sizes) == 1:
        return 0.0
    u = float(ranks[group[:m]].sum()) - m * (m + 1) / 2
    ties = float((sizes**3 - sizes).sum()) / (total * (total - 1))
    return (u - m * n / 2) / math.sqrt(m * n / 12 * (total + 1 - ties))


def score_cells(
    *, train: Tensor, test: Tensor, samples: Tensor, centres: Tensor, chunk: int = 256
) -> CellScores:
    """Z_U within each cell of the points nearest to one of `centres`.

    Args:
        train: [m, d].
        test: [n, d].
        samples: [n', d].
        centres: [n_cells, d].
        chunk: as `nearest_neighbours`.

    Raises:
        ValueError: as `nearest_neighbours`.
    """
    sets = [train, test, samples]
    cells = [nearest_neighbours(points, centres, chunk=chunk).indices[:, 0] for points in sets]
    n_train, n_test, n_samples = (cell.bincount(minlength=len(centres)) for cell in cells)
    has_enough = (n_train > 0) & (torch.minimum(n_test, n_samples) >= MIN_POINTS_IN_CELL)
    z = torch.full([len(centres)], torch.nan, dtype=torch.float64)
    for i in has_enough.nonzero().flatten().tolist():
        members, fresh, drawn = (p[cell == i] for p, cell in zip(sets, cells, strict=True))
        z[i] = mann_whitney_z(
            nearest_neighbours(drawn, members, chunk=chunk).distances[:, 0],
            nearest_neighbours(fresh, members, chunk=chunk).distances[:, 0],
        )
    return CellScores(z=z, n_test=n_test.cpu(), n_samples=n_samples.cpu())


def _k_means(train: Tensor, *, n_cells: int, seed: int) -> Tensor:
    """Centres of a partition, [n_cells, d]; found on the CPU, to be the same for every device."""
    if not 1 <= n_cells <= len(train):
        raise ValueError(f"n_cells must be from 1 to {len(train):,}, got {n_cells}")
    k_means = KMeans(
        n_cells,
        n_init=1,
        max_iter=MAX_ITERATIONS,
        random_state=stream_seed(seed, "copying/cells") % 2**32,
    )
    with warnings.catch_warnings():
        # Fewer distinct points than cells: the cells left over stay empty, and are not scored.
        warnings.simplefilter("ignore", ConvergenceWarning)
        k_means.fit(train.detach().cpu().numpy())
    return torch.from_numpy(k_means.cluster_centers_).to(train)


def _mean_over_cells(cells: CellScores) -> Score:
    if not bool(cells.is_scored.any()):
        raise ScoreError(
            f"a cell must hold at least {MIN_POINTS_IN_CELL} test points and as many samples, got "
            f"none such of {len(cells.z)} cells: give more points or fewer cells"
        )
    weights = cells.n_test[cells.is_scored].double()
    mean = (weights * cells.z[cells.is_scored]).sum() / weights.sum()
    deviation = weights.square().sum().sqrt() / weights.sum()
    return normal_score("copying_c_t", mean.item(), deviation.item())


def _authentic(train: Tensor, *near: Neighbours, chunk: int) -> list[Tensor]:
    """Of each point: whether it is farther from its nearest t than t is from the next of train."""
    needed = torch.unique(torch.cat([found.indices[:, 0] for found in near]))
    own = torch.full([len(train)], torch.nan, dtype=torch.float64, device=train.device)
    own[needed] = nearest_neighbours(train[needed], train, exclude=needed, chunk=chunk).distances[
        :, 0
    ]
    return [found.distances[:, 0] > own[found.indices[:, 0]] for found in near]


def _share(name: str, answers: Tensor) -> Score:
    return proportion_score(name, int(answers.sum()), len(answers))
