"""Copying: SciPy and loops as references, null distribution, copies found, invariances, errors."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from scipy.spatial.distance import cdist
from torch.testing import assert_close

from gan.errors import ScoreError
from gan.evaluation.copying import (
    CellScores,
    copying_scores,
    mann_whitney_z,
    nearness_scores,
    score_cells,
)
from gan.evaluation.neighbours import nearest_neighbours


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def train(rng):
    return torch.from_numpy(rng.standard_normal((300, 4)))


@pytest.fixture
def test(rng):
    return torch.from_numpy(rng.standard_normal((140, 4)))


@pytest.fixture
def samples(rng):
    return torch.from_numpy(rng.standard_normal((170, 4)) * 1.2)


def scipy_z(x, y):
    """Z of the two-sided p-value and the side of U."""
    u, p_value = stats.mannwhitneyu(x, y, use_continuity=False, method="asymptotic")
    return math.copysign(stats.norm.isf(p_value / 2), u - len(x) * len(y) / 2)


# Z_U


@pytest.mark.parametrize("n_values", [2, 5, 30, 10**6])
def test_z_is_that_of_scipy_with_and_without_ties(rng, n_values):
    x, y = rng.integers(0, n_values, 40) / 7, rng.integers(0, n_values, 61) / 7
    got = mann_whitney_z(torch.from_numpy(x), torch.from_numpy(y))
    assert_allclose(got, scipy_z(x, y), rtol=1e-9, atol=1e-12)


def test_swapping_the_sets_changes_the_sign_of_z(rng):
    x, y = (torch.from_numpy(rng.integers(0, 9, n).astype(float)) for n in (31, 52))
    assert_allclose(mann_whitney_z(x, y), -mann_whitney_z(y, x), rtol=1e-12, atol=0)


def test_smaller_values_have_a_negative_z():
    low, high = torch.arange(5.0).double(), torch.arange(10.0, 17.0).double()
    assert_allclose(
        mann_whitney_z(low, high), -35 / 2 / math.sqrt(35 * 13 / 12), rtol=1e-12, atol=0
    )


def test_equal_values_only_have_z_zero():
    assert mann_whitney_z(torch.zeros(5).double(), torch.zeros(9).double()) == 0


# The scores against loops


def test_overall_z_is_that_of_scipy_on_all_distances(train, test, samples):
    got = copying_scores(train=train, test=test, samples=samples, seed=0, n_cells=3)
    d_samples, d_test = (cdist(x, train).min(1) for x in (samples, test))
    assert_allclose(got.nearness.z.value, scipy_z(d_samples, d_test), rtol=1e-9, atol=0)


def test_cells_are_scored_by_their_own_training_points(train, test, samples):
    centres = torch.tensor(
        [[-1.0, 0, 0, 0], [0.5, 0, 0, 0], [9, 9, 9, 9], [1.6, 0, 0, 0]]
    ).double()
    got = score_cells(train=train, test=test, samples=samples, centres=centres)
    cells = [cdist(x, centres).argmin(1) for x in (train, test, samples)]
    for i in (0, 1, 3):
        t, p, q = (x[cell == i] for x, cell in zip((train, test, samples), cells, strict=True))
        expected = scipy_z(cdist(q, t).min(1), cdist(p, t).min(1))
        assert_allclose(got.z[i].item(), expected, rtol=1e-9, atol=0)
        assert (got.n_test[i], got.n_samples[i]) == (len(p), len(q))
    assert math.isnan(got.z[2])
    assert got.is_scored.tolist() == [True, True, False, True]


def test_c_t_is_the_mean_over_cells_weighted_by_test_points(train, test, samples):
    got = copying_scores(train=train, test=test, samples=samples, seed=0, n_cells=4)
    w, z = got.cells.n_test[got.cells.is_scored], got.cells.z[got.cells.is_scored]
    assert len(z) >= 3
    assert_allclose(got.c_t.value, np.average(z, weights=w), rtol=1e-12, atol=0)
    expected = math.sqrt((w.numpy() ** 2).sum()) / w.sum().item()
    assert_allclose(got.c_t.standard_error, expected, rtol=1e-12, atol=0)


def test_cells_with_few_samples_are_not_scored(train, test, samples):
    centres = torch.tensor([[-1.0, 0, 0, 0], [1.0, 0, 0, 0]]).double()
    samples = torch.cat([samples[samples[:, 0] > 0], samples[samples[:, 0] < 0][:19]])
    got = score_cells(train=train, test=test, samples=samples, centres=centres)
    assert got.n_samples[0] == 19
    assert got.is_scored.tolist() == [False, True]


def test_authenticity_is_that_of_loops(train, test, samples):
    got = copying_scores(train=train, test=test, samples=samples, seed=0, n_cells=3)
    own = cdist(train, train)
    np.fill_diagonal(own, np.inf)
    near = got.nearness
    for score, points in ((near.authenticity, samples), (near.authenticity_test, test)):
        answers = [d.min() > own[d.argmin()].min() for d in cdist(points, train)]
        interval = stats.binomtest(sum(answers), len(answers)).proportion_ci(method="wilson")
        assert score.value == np.mean(answers)
        assert_allclose([score.low, score.high], interval, rtol=1e-9, atol=0)


def test_a_sample_as_far_as_the_next_training_point_is_not_authentic():
    line = torch.arange(40.0)[:, None] * 2
    samples = line.repeat(2, 1) + torch.tensor([2.0, 3.0]).repeat_interleave(40)[:, None]
    got = copying_scores(train=line, test=line + 0.5, samples=samples, seed=0, n_cells=1)
    # Of all samples those beyond the end: 2 away, no farther than the spacing; and 3 away.
    assert got.nearness.authenticity.value == 1 / 80


def test_lowest_cell_is_judged_among_all_scored_cells():
    z = torch.tensor([0.5, torch.nan, -2.5, 1.0]).double()
    cells = CellScores(z=z, n_test=torch.ones(4), n_samples=torch.ones(4))
    assert cells.lowest_z == -2.5
    expected = 1 - (1 - stats.norm.cdf(-2.5)) ** 3
    assert_allclose(cells.lowest_p_value, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("lowest", "p_value"), [(-30, 2 * stats.norm.cdf(-30)), (50, 1)])
def test_lowest_p_value_holds_at_the_ends(lowest, p_value):
    z = torch.tensor([lowest, 60]).double()
    cells = CellScores(z=z, n_test=torch.ones(2), n_samples=torch.ones(2))
    assert_allclose(cells.lowest_p_value, p_value, rtol=1e-9, atol=0)


def test_nearness_by_known_neighbours_is_that_of_the_points(train, test, samples):
    expected = copying_scores(train=train, test=test, samples=samples, seed=0, n_cells=3).nearness
    near_test, near_samples = (nearest_neighbours(x, train) for x in (test, samples))
    images = train.reshape(-1, 1, 2, 2)
    for reference in (train, images):
        got = nearness_scores(reference, near_test=near_test, near_samples=near_samples)
        assert got == expected


def test_names_of_nearness_say_in_which_space(train, test, samples):
    near = {"near_test": nearest_neighbours(test, train)}
    near["near_samples"] = nearest_neighbours(samples, train)
    got = nearness_scores(train, **near, suffix="_pixels")
    assert got.z.name == "copying_z_pixels"
    assert got.authenticity.name == "authenticity_pixels"
    assert got.authenticity_test.name == "authenticity_test_pixels"


# What it is for


def test_copies_are_found_and_have_no_authenticity(train, test):
    got = copying_scores(train=train, test=test, samples=train[:150], seed=0, n_cells=3)
    assert got.nearness.z.value < -10
    assert got.c_t.high < 0
    assert got.cells.lowest_p_value < 1e-9
    assert got.nearness.authenticity.value == 0
    assert got.nearness.authenticity_test.value > 0.3


def test_copies_in_one_region_are_found_there_if_the_rest_is_far(train, test, samples):
    is_left = train[:, 0] < 0
    samples = torch.cat([train[is_left], samples[samples[:, 0] > 0] * 2])
    centres = torch.tensor([[-1.0, 0, 0, 0], [1.0, 0, 0, 0]]).double()
    cells = score_cells(train=train, test=test, samples=samples, centres=centres)
    assert cells.z[0] < -5 < 5 < cells.z[1]


def test_poor_samples_have_a_positive_z(train, test, samples):
    got = copying_scores(train=train, test=test, samples=samples * 3, seed=0, n_cells=1)
    assert got.nearness.z.low > 0


# Null distribution


@pytest.mark.slow
def test_on_honest_samples_the_tests_reject_at_their_rate():
    rng = np.random.default_rng(1)
    z, c_t, lowest = [], [], []
    for seed in range(200):
        train, test, samples = torch.from_numpy(rng.standard_normal((3, 130, 3)))
        got = copying_scores(train=train, test=test, samples=samples, seed=seed, n_cells=3)
        z.append(got.nearness.z.value)
        c_t.append(got.c_t.value / got.c_t.standard_error)
        lowest.append(got.cells.lowest_p_value)
    low, high = stats.binom(200, 0.05).ppf([0.001, 0.999])
    for rejections in (
        np.abs(z) > 1.96,
        np.abs(c_t) > 1.96,
        np.array(lowest) < 0.05,
    ):
        assert low <= rejections.sum() <= high
    for statistic in (z, c_t):
        assert stats.kstest(statistic, "norm").pvalue > 0.001


# Invariance


def values(scores):
    near = scores.nearness
    named = [near.z, scores.c_t, near.authenticity, near.authenticity_test]
    return [score.value for score in named]


def test_scores_depend_on_neither_chunk_nor_order_nor_type(train, test, samples, rng):
    train, test, samples = train.float(), test.float(), samples.float()
    expected = values(copying_scores(train=train, test=test, samples=samples, seed=0, n_cells=3))
    reordered = {
        "test": test[torch.from_numpy(rng.permutation(140))],
        "samples": samples[torch.from_numpy(rng.permutation(170))],
    }
    for chunk in (7, 1_000):
        got = copying_scores(train=train, **reordered, seed=0, n_cells=3, chunk=chunk)
        assert_allclose(values(got), expected, rtol=1e-12, atol=1e-12)


def test_images_are_scored_as_their_pixels(train, test, samples):
    expected = copying_scores(train=train, test=test, samples=samples, seed=0, n_cells=3)
    images = {
        "train": train.reshape(-1, 1, 2, 2),
        "test": test.reshape(-1, 1, 2, 2),
        "samples": samples.reshape(-1, 1, 2, 2),
    }
    assert values(copying_scores(**images, seed=0, n_cells=3)) == values(expected)


def test_the_seed_decides_the_partition_only(train, test, samples):
    one, same, other = (
        copying_scores(train=train, test=test, samples=samples, seed=seed, n_cells=3)
        for seed in (0, 0, 1)
    )
    assert_close(one.cells.z, same.cells.z, equal_nan=True)
    assert one.nearness == other.nearness
    assert one.c_t != other.c_t


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scores_do_not_depend_on_the_device(train, test, samples):
    sets = {"train": train, "test": test, "samples": samples}
    on_gpu = {name: points.cuda() for name, points in sets.items()}
    expected = values(copying_scores(**sets, seed=0, n_cells=3))
    got = values(copying_scores(**on_gpu, seed=0, n_cells=3))
    assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


# Errors


def test_training_points_with_few_distinct_ones_leave_cells_empty(test, samples):
    train = torch.eye(4).double().repeat(20, 1)
    got = copying_scores(train=train, test=test, samples=samples, seed=0, n_cells=6)
    assert 1 <= got.cells.is_scored.sum() <= 4


def test_too_few_points_are_refused(train, test, samples):
    with pytest.raises(ScoreError, match="test must hold at least 20 points, got 19"):
        copying_scores(train=train, test=test[:19], samples=samples, seed=0)


def test_no_cell_with_enough_points_is_refused(train, test, samples):
    with pytest.raises(
        ScoreError, match=r"a cell must hold at least 20 test points .* of 60 cells"
    ):
        copying_scores(train=train, test=test, samples=samples, seed=0, n_cells=60)


@pytest.mark.parametrize("n_cells", [0, 301])
def test_n_cells_out_of_range_is_refused(train, test, samples, n_cells):
    with pytest.raises(ValueError, match=f"n_cells must be from 1 to 300, got {n_cells}"):
        copying_scores(train=train, test=test, samples=samples, seed=0, n_cells=n_cells)


def test_nan_is_refused(train, test, samples):
    samples[3, 1] = torch.nan
    with pytest.raises(ScoreError, match="samples must be finite"):
        copying_scores(train=train, test=test, samples=samples, seed=0)
