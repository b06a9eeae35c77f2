"""NDB: NumPy loops, statsmodels' formulas by hand and SciPy as references; null distributions."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from scipy.spatial.distance import cdist, jensenshannon
from torch.testing import assert_close

from gan.errors import ScoreError
from gan.evaluation.bins import (
    bin_counts,
    bin_score,
    compare_bins,
    fit_centres,
    holm_rejects,
    jensen_shannon,
    two_proportion_z,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def points(rng, n, d=3):
    return torch.from_numpy(rng.normal(size=(n, d)))


# References


def test_counts_are_those_of_the_nearest_centres(rng):
    x, centres = points(rng, 500), points(rng, 7)
    nearest = cdist(x.numpy(), centres.numpy()).argmin(1)
    assert_close(bin_counts(x, centres), torch.from_numpy(np.bincount(nearest, minlength=7)))


def test_z_squared_is_pearsons_statistic_of_the_two_by_two_table():
    counts, real = torch.tensor([30.0, 60, 110]), torch.tensor([90.0, 120, 90])
    expected = [
        stats.chi2_contingency([[a, 200 - a], [b, 300 - b]], correction=False).statistic
        for a, b in zip(counts.tolist(), real.tolist(), strict=True)
    ]
    z = two_proportion_z(counts.double(), real.double())
    assert_allclose(z.square().numpy(), expected, rtol=1e-12, atol=0)
    assert z.sign().tolist() == [-1, -1, 1]


def test_an_empty_cell_has_z_zero():
    z = two_proportion_z(torch.tensor([0.0, 5, 5]), torch.tensor([0.0, 4, 6]))
    assert z[0] == 0


def test_divergence_is_scipys_distance_squared(rng):
    p, q = rng.dirichlet(np.ones(20), 2)
    p[3], p[4] = 0, p[3] + p[4]
    got = jensen_shannon(torch.from_numpy(p), torch.from_numpy(q))
    assert_allclose(got, jensenshannon(p, q) ** 2, rtol=1e-12, atol=0)


def test_divergence_of_disjoint_histograms_is_log_two():
    assert_allclose(
        jensen_shannon(torch.tensor([1.0, 0]), torch.tensor([0.0, 1])), math.log(2), rtol=1e-6
    )


def test_error_of_the_divergence_is_the_spread_of_draws(rng):
    p, q = rng.dirichlet(5 * np.ones(30), 2)
    draws = [
        jensenshannon(rng.multinomial(2_000, p), rng.multinomial(3_000, q)) ** 2
        for _ in range(2_000)
    ]
    counts = [torch.from_numpy(rng.multinomial(n, s)) for n, s in ((3_000, q), (2_000, p))]
    got = compare_bins(*counts, centres=torch.zeros(30, 1)).divergence
    assert_allclose(got.standard_error, np.std(draws), rtol=0.15, atol=0)


def test_divergence_of_equal_distributions_is_as_stated(rng):
    p = rng.dirichlet(5 * np.ones(50))
    draws = [
        jensenshannon(rng.multinomial(4_000, p), rng.multinomial(8_000, p)) ** 2
        for _ in range(500)
    ]
    counts = [torch.from_numpy(rng.multinomial(n, p)) for n in (8_000, 4_000)]
    got = compare_bins(*counts, centres=torch.zeros(50, 1))
    assert_allclose(got.null_divergence, np.mean(draws), rtol=0.03, atol=0)
    assert_allclose(got.divergence.standard_error, np.std(draws), rtol=0.4, atol=0)


def test_holm_rejects_what_the_loop_over_ordered_p_values_rejects(rng):
    p_values = rng.uniform(size=40) ** 6
    expected = np.zeros(40, dtype=bool)
    for i, which in enumerate(np.argsort(p_values)):
        if p_values[which] >= 0.05 / (40 - i):
            break
        expected[which] = True
    assert 0 < expected.sum() < (p_values < 0.05).sum()
    got = holm_rejects(torch.from_numpy(p_values), significance=0.05)
    assert got.tolist() == expected.tolist()


def test_holm_stops_at_the_first_that_is_not_rejected():
    # The last is below its own limit of 0.05; the second is not below 0.05 / 3.
    p_values = torch.tensor([0.032, 0.001, 0.03, 0.031], dtype=torch.float64)
    assert holm_rejects(p_values, significance=0.05).tolist() == [False, True, False, False]


def test_ndb_is_the_number_of_cells_that_reject():
    counts, real = torch.tensor([300, 200, 500, 0]), torch.tensor([100, 210, 480, 210])
    got = compare_bins(real, counts, centres=torch.zeros(4, 1))
    assert got.is_different.tolist() == [True, False, False, True]
    assert got.n_different == 2
    assert got.share.value == 0.5
    assert_allclose(got.p_value, stats.binomtest(2, 4, 0.05, "greater").pvalue, rtol=1e-12)


# Null distribution and power


def test_cells_of_equal_distributions_differ_at_the_nominal_rate(rng):
    centres = points(rng, 40)
    found = [
        compare_bins(
            bin_counts(points(rng, 2_000), centres),
            bin_counts(points(rng, 2_000), centres),
            centres=centres,
        )
        for _ in range(200)
    ]
    n_different = [f.n_different for f in found]
    # 200 x 40 tests, a little dependent.
    assert_allclose(np.mean(n_different), 0.05 * 40, rtol=0, atol=5 * np.std(n_different) / 14)
    n_holm = sum(bool(f.different_by_holm.any()) for f in found)
    assert stats.binomtest(n_holm, 200, 0.05, "greater").pvalue > 0.001
    n_many = sum(f.p_value < 0.05 for f in found)
    assert stats.binomtest(n_many, 200, 0.05, "greater").pvalue > 0.001


def test_a_lost_mode_is_found(rng):
    train, real, samples = (points(rng, 2_000) for _ in range(3))
    samples = samples[samples[:, 0] < 1]
    got = bin_score(train, real, samples, seed=0, n_bins=20)
    lost = got.centres[:, 0] > 1.2
    assert lost.any()
    assert got.different_by_holm[lost].all()
    assert (got.z[lost] < 0).all()
    assert got.p_value < 1e-4
    assert got.divergence.low > got.null_divergence


# Invariance


def test_score_depends_neither_on_the_chunk_nor_on_the_order_of_samples(rng):
    train, real, samples = points(rng, 1_000), points(rng, 700), points(rng, 600) * 1.2
    one = bin_score(train, real, samples, seed=3, n_bins=20)
    other = bin_score(train, real.flip(0), samples.flip(0), seed=3, n_bins=20, chunk=17)
    assert one.share == other.share
    assert one.divergence == other.divergence
    assert_close(one.z, other.z, rtol=0, atol=0)


def test_the_seed_decides_the_centres(rng):
    train = points(rng, 500)
    assert_close(
        fit_centres(train, n_centres=5, seed=1),
        fit_centres(train, n_centres=5, seed=1),
        rtol=0,
        atol=0,
    )
    other = fit_centres(train, n_centres=5, seed=2)
    assert not torch.equal(fit_centres(train, n_centres=5, seed=1), other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_score_does_not_depend_on_the_device(rng):
    train, real, samples = points(rng, 500), points(rng, 500), points(rng, 500) * 1.2
    cpu = bin_score(train, real, samples, seed=0, n_bins=10)
    gpu = bin_score(train.cuda(), real.cuda(), samples.cuda(), seed=0, n_bins=10)
    assert cpu.share == gpu.share


# Errors


def test_too_few_points_are_refused_with_the_number_needed(rng):
    x = points(rng, 200)
    with pytest.raises(ScoreError, match="samples must hold at least 200 points, got 199"):
        bin_score(x, x, x[:199], seed=0, n_bins=20)


def test_too_few_distinct_training_points_are_refused(rng):
    x = points(rng, 200)
    with pytest.raises(ScoreError, match=r"at least 20 distinct points .* got 5"):
        bin_score(x[:5].repeat(40, 1), x, x, seed=0, n_bins=20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_bins": 1}, "n_bins must be >= 2, got 1"),
        ({"significance": 1.0}, r"significance must lie in \(0, 1\), got 1.0"),
        ({"chunk": 0}, "chunk must be >= 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(rng, options, message):
    x = points(rng, 100)
    with pytest.raises(ValueError, match=message):
        bin_score(x, x, x, seed=0, **{"n_bins": 5, **options})


def test_images_are_refused(rng):
    x = points(rng, 100)
    with pytest.raises(ValueError, match=r"samples must be \[n, d\], got \[100, 1, 3\]"):
        bin_score(x, x, x[:, None], seed=0, n_bins=5)
