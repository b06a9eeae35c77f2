"""Number of statistically different bins: k-means cells that samples fill unlike the data.

The cells are those of K centres fitted to training points.  In each, the share p of the samples
is compared with the share q of the real points by the two-proportion z-test

    z = (p - q) / sqrt( s (1 - s) (1/n + 1/m) ),     s the share of both together,

two-sided at level alpha.  NDB is the number of cells that reject, without correction for their
number, as published: of K cells a perfect sampler has alpha K on average, which is why
`null_share` stands beside the score.  `p_value` is the chance of so many or more were the cells
independent, and `different_by_holm` holds the cells that differ after Holm's correction, of which
a perfect sampler has any with chance alpha at most.

The interval of NDB / K is Wilson's over the K cells: it takes them as independent, which their
shares (that sum to 1) nearly are for large K, and takes the cells as given.

The Jensen-Shannon divergence between both histograms, in nats within [0, log 2], is biased
upwards, by (K - 1)/8 (1/n + 1/m) if nothing differs (`null_divergence`).  Its standard error is
the delta method's, less the share that the noise of the counts has in it, and at least that of
equal distributions, sqrt(2 (K - 1)) / 8 (1/n + 1/m).

Real points should be held out: centres fitted to the very points that they are compared with
draw the cells around their noise.

Source: Richardson and Weiss (2018), section 3; Lin (1991) for the divergence; Holm (1979).
Differs: real points other than those that the centres were fitted to may be, and should be,
given; no whitening by the standard deviation of the pixels, which the space of points settles.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from scipy import stats
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.distinct import count_distinct
from gan.evaluation.score import Score, normal_score, proportion_score, require_points
from gan.randomness import stream

POINTS_A_BIN = 10
"""Points that each set must hold per cell: below it the normal approximation is idle."""

N_FIT = 20_000
"""Training points that the centres are fitted to, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BinScore:
    """How unlike the data the samples fill K cells.

    Attributes:
        share: NDB / K.
        null_share: of it, expected from real points: the level of the single test.
        p_value: of so many different cells or more, were they independent.
        n_different: NDB.
        divergence: Jensen-Shannon, nats.
        null_divergence: of it, expected from real points.
        z: of each cell, float64 [K], positive where the samples hold more; 0 for an empty cell.
        is_different: by the single test, bool [K]; its sum is NDB.
        different_by_holm: by Holm's procedure over all cells, bool [K].
        centres: float64 [K, d].
    """

    share: Score
    null_share: float
    p_value: float
    n_different: int
    divergence: Score
    null_divergence: float
    z: Tensor
    is_different: Tensor
    different_by_holm: Tensor
    centres: Tensor


def bin_score(
    train: Tensor,
    real: Tensor,
    samples: Tensor,
    *,
    seed: int,
    n_bins: int = 100,
    significance: float = 0.05,
    chunk: int = 2_000,
) -> BinScore:
    """NDB of `samples` against `real` in cells fitted to `train`.

    Args:
        train: points that the centres are fitted to, [t, d]; `N_FIT` of them drawn by the seed.
        real: held-out real points, [m, d], or `train` again as in the paper.
        samples: generated points, [n, d].
        seed: of the draw and of k-means.
        n_bins: K; the paper has 100 for 10,000 to 20,000 points.
        significance: of the test of each cell, in (0, 1).
        chunk: points a pass of the assignment; bounds memory, does not change the result.

    Raises:
        ScoreError: as `require_points`, which needs `POINTS_A_BIN` x n_bins points of each set;
            `train` has fewer distinct points than bins.
        ValueError: points are not [n, d], n_bins < 2, chunk < 1, or significance out of range.
    """
    if n_bins < 2:
        raise ValueError(f"n_bins must be >= 2, got {n_bins}")
    if not 0 < significance < 1:
        raise ValueError(f"significance must lie in (0, 1), got {significance}")
    _require_rows(train, real, samples)
    require_points(at_least=POINTS_A_BIN * n_bins, train=train, real=real, samples=samples)
    centres = fit_centres(train, n_centres=n_bins, seed=seed)
    return compare_bins(
        bin_counts(real, centres, chunk=chunk),
        bin_counts(samples, centres, chunk=chunk),
        centres=centres,
        significance=significance,
    )


def fit_centres(train: Tensor, *, n_centres: int, seed: int) -> Tensor:
    """Centres of k-means, float64 [n_centres, d], on the device of `train`.

    Raises:
        ScoreError: `train` has fewer distinct points than centres.
    """
    rng = stream(seed, "bins")
    chosen = torch.randperm(len(train), generator=rng)[:N_FIT]
    state = int(torch.randint(2**31, (), generator=rng))
    k_means = MiniBatchKMeans(
        n_centres, batch_size=2_048, n_init=3, max_iter=30, random_state=state
    )
    points = train[chosen.to(train.device)].double().cpu()
    n_distinct = count_distinct(points)
    if n_distinct < n_centres:
        raise ScoreError(
            f"train must hold at least {n_centres:,} distinct points for as many bins, "
            f"got {n_distinct:,}"
        )
    centres = torch.from_numpy(k_means.fit(points.numpy()).cluster_centers_)
    return centres.to(train.device)


@torch.no_grad()
def bin_counts(points: Tensor, centres: Tensor, *, chunk: int = 2_000) -> Tensor:
    """Points nearest to each centre: int64 [K]; the first of equally near centres counts."""
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    counts = torch.zeros(len(centres), dtype=torch.int64, device=centres.device)
    for _, nearest in nearest_centres(points, centres, chunk=chunk):
        counts += torch.bincount(nearest, minlength=len(centres))
    return counts


def nearest_centres(
    points: Tensor, centres: Tensor, *, chunk: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """`chunk` points [m, d] a time, as `centres` [K, d], with the nearest centre's row: [m]."""
    half_norms = centres.square().sum(1) / 2
    for rows in torch.split(points, chunk):
        converted = rows.to(centres)
        yield converted, torch.addmm(half_norms, converted, centres.T, alpha=-1).argmin(1)


@torch.no_grad()
def lloyd(points: Tensor, centres: Tensor, *, n_steps: int, chunk: int = 1_000) -> Tensor:
    """Centres [k, d] after `n_steps` of Lloyd's algorithm on points [n, d].

    A centre that no point is nearest to stays where it was.  `chunk` points a pass bound the
    memory at a matrix [chunk, k].
    """
    for _ in range(n_steps):
        sums = torch.zeros_like(centres)
        counts = centres.new_zeros(len(centres))
        for rows, nearest in nearest_centres(points, centres, chunk=chunk):
            sums.index_add_(0, nearest, rows)
            counts.index_add_(0, nearest, torch.ones_like(rows[:, 0]))
        means = sums / counts.clamp(min=1)[:, None]
        centres = torch.where(counts[:, None] > 0, means, centres)
    return centres


def compare_bins(
    real_counts: Tensor, counts: Tensor, *, centres: Tensor, significance: float = 0.05
) -> BinScore:
    """The score from the counts of real points and samples per cell, int64 [K] each."""
    n_bins = len(counts)
    real_counts, counts = real_counts.double().cpu(), counts.double().cpu()
    z = two_proportion_z(counts, real_counts)
    p_values = torch.from_numpy(2 * stats.norm.sf(z.abs().numpy()))
    is_different = p_values < significance
    n_different = int(is_different.sum())
    return BinScore(
        share=proportion_score("ndb_share", n_different, n_bins),
        null_share=significance,
        p_value=float(stats.binom.sf(n_different - 1, n_bins, significance)),
        n_different=n_different,
        divergence=_divergence_score(counts, real_counts),
        null_divergence=(n_bins - 1) / 8 * _reciprocals(counts, real_counts),
        z=z,
        is_different=is_different,
        different_by_holm=holm_rejects(p_values, significance=significance),
        centres=centres,
    )


def two_proportion_z(counts: Tensor, real_counts: Tensor) -> Tensor:
    """The z of each cell, float64 [K]; 0 where a cell holds none or all of both sets."""
    n, m = counts.sum(), real_counts.sum()
    pooled = (counts + real_counts) / (n + m)
    deviation = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    difference = counts / n - real_counts / m
    return torch.where(deviation > 0, difference / deviation, torch.zeros_like(difference))


def holm_rejects(p_values: Tensor, *, significance: float) -> Tensor:
    """Which hypotheses Holm's step-down procedure rejects: bool, as `p_values` [K]."""
    ordered, order = p_values.sort()
    limits = significance / torch.arange(len(p_values), 0, -1, dtype=torch.float64)
    rejected = torch.zeros(len(p_values), dtype=torch.bool)
    # Up to the first that is not rejected on its own limit, and none after it.
    rejected[order] = (ordered < limits).long().cumprod(0).bool()
    return rejected


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    """Divergence of two histograms of shares, float64 [K] each: nats, in [0, log 2]."""
    middle = (p + q) / 2
    return float((torch.xlogy(p, p / middle) + torch.xlogy(q, q / middle)).nansum() / 2)


def _divergence_score(counts: Tensor, real_counts: Tensor) -> Score:
    p, q = counts / counts.sum(), real_counts / real_counts.sum()
    middle = (p + q) / 2
    null = 2 * (len(p) - 1) * (_reciprocals(counts, real_counts) / 8) ** 2
    variance = 0.0
    for shares, size in ((p, counts.sum()), (q, real_counts.sum())):
        # d JSD / d p_k = log(p_k / m_k) / 2; a cell that holds none has no spread.
        slope = torch.where(shares > 0, (shares / middle).log() / 2, torch.zeros_like(shares))
        mean = (slope * shares).sum()
        variance += float(((slope - mean).square() * shares).sum() / size)
    score = normal_score(
        "ndb_js_divergence",
        jensen_shannon(p, q),
        math.sqrt(max(null, variance - null)),
        unit="nats",
    )
    return replace(score, low=max(0.0, score.low), high=min(math.log(2), score.high))


def _reciprocals(counts: Tensor, real_counts: Tensor) -> float:
    return float(1 / counts.sum() + 1 / real_counts.sum())


def _require_rows(train: Tensor, real: Tensor, samples: Tensor) -> None:
    for name, points in (("train", train), ("real", real), ("samples", samples)):
        if points.ndim != 2:
            raise ValueError(f"{name} must be [n, d], got {list(points.shape)}")
