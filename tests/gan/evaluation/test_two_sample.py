"""Two-sample tests: enumeration and permutations as references, null distributions, errors."""

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier

from gan.errors import ScoreError
from gan.evaluation import two_sample
from gan.evaluation.two_sample import classifier_two_sample_test, nearest_neighbour_test


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def normal(rng, n, d=3, *, mean=0.0, scale=1.0):
    return torch.from_numpy(mean + scale * rng.standard_normal((n, d)))


# Nearest neighbour: references


def test_nearest_accuracy_is_that_of_scikit_learn_leaving_one_out(rng):
    real, samples = normal(rng, 50), normal(rng, 50, mean=0.5)
    points, labels = torch.cat([real, samples]).numpy(), np.repeat([0, 1], 50)
    answers = np.array(
        [
            KNeighborsClassifier(1)
            .fit(np.delete(points, i, 0), np.delete(labels, i))
            .predict(points[i : i + 1])[0]
            for i in range(100)
        ]
    )
    got = nearest_neighbour_test(real, samples, seed=0)
    assert_allclose(got.accuracy.value, (answers == labels).mean(), rtol=1e-12, atol=0)
    assert_allclose(got.accuracy_real.value, (answers[:50] == 0).mean(), rtol=1e-12, atol=0)
    assert_allclose(got.accuracy_samples.value, (answers[50:] == 1).mean(), rtol=1e-12, atol=0)


def test_permutation_moments_are_those_of_all_labellings(rng):
    nearest = torch.tensor([1, 0, 1, 1, 2, 6, 5, 0])  # mutual pairs, hubs and chains
    accuracies = []
    for samples in itertools.combinations(range(8), 4):
        is_sample = torch.zeros(8, dtype=torch.bool)
        is_sample[list(samples)] = True
        accuracies.append((is_sample[nearest] == is_sample).double().mean().item())
    got = two_sample._permutation_moments(nearest, 4)
    assert_allclose(got, [np.mean(accuracies), np.std(accuracies)], rtol=1e-12, atol=0)


def test_standard_error_is_the_sum_over_edges_that_touch(rng):
    nearest = torch.arange(40) ^ 1
    nearest[30:] = torch.from_numpy(rng.integers(0, 30, 10))
    is_right = torch.arange(40) // 2 % 3 > 0  # neighbours together: covariances above 0
    is_asked = torch.arange(40) < 25
    e = np.where(is_asked, is_right.double() - is_right[:25].double().mean(), 0)
    edges = [{i, int(nearest[i])} for i in range(40)]
    variance = sum(
        e[i] * e[j] for i in range(40) for j in range(40) if edges[i] & edges[j] or i == j
    )
    got = two_sample._accuracy("name", nearest, is_right, is_asked)
    assert variance > 1.5 * (e**2).sum()
    assert_allclose(got.standard_error, math.sqrt(variance) / 25, rtol=1e-12, atol=0)


def test_standard_error_is_never_below_that_of_independent_answers():
    # Right and wrong by turns along a ring: all covariances are negative.
    nearest, is_right = (torch.arange(40) + 1) % 40, torch.arange(40) % 2 == 0
    got = two_sample._accuracy("name", nearest, is_right, torch.ones(40, dtype=torch.bool))
    assert_allclose(got.standard_error, math.sqrt(0.25 / 40), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("mean", "scale"), [(0, 1), (0.7, 0.6)])
def test_standard_errors_are_the_spread_over_draws(rng, mean, scale):
    draws = [
        nearest_neighbour_test(
            normal(rng, 100, 2), normal(rng, 100, 2, mean=mean, scale=scale), seed=0
        )
        for _ in range(150)
    ]
    for name in ("accuracy", "accuracy_real", "accuracy_samples"):
        scores = [getattr(draw, name) for draw in draws]
        spread = np.std([score.value for score in scores])
        mean_error = np.mean([score.standard_error for score in scores])
        # 150 draws tell the spread to 6 %.
        assert 0.8 < mean_error / spread < 1.6


# Nearest neighbour: what it is for


def test_sets_apart_are_told_apart_by_their_neighbours(rng):
    got = nearest_neighbour_test(normal(rng, 40), normal(rng, 40, mean=20), seed=0)
    assert got.accuracy.value == got.accuracy_real.value == got.accuracy_samples.value == 1
    assert got.p_value < 1e-6


def test_copies_of_the_real_points_themselves_are_told_by_low_accuracy(rng):
    real = normal(rng, 60)
    got = nearest_neighbour_test(real, real.clone(), seed=0)
    assert got.accuracy.value == 0
    assert got.z < -5
    assert got.p_value < 1e-6


def test_collapsed_samples_are_low_on_real_and_high_on_samples(rng):
    real = normal(rng, 100)
    samples = real[:5].repeat(20, 1) + 1e-6 * normal(rng, 100)
    got = nearest_neighbour_test(real, samples, seed=0)
    assert got.accuracy_samples.value > 0.9
    assert got.accuracy_real.value < got.accuracy_samples.value


def test_choices_between_equally_near_points_know_no_classes():
    points = torch.eye(3).double().repeat(20, 1)
    draws = [nearest_neighbour_test(points, points.clone(), seed=seed) for seed in range(40)]
    # All choose one of three points: a share of 0, 1/3, 2/3 or 1, with deviation 0.29.
    shares = [draw.accuracy_real.value for draw in draws]
    assert abs(np.mean(shares) - 0.5) < 4 * 0.29 / math.sqrt(40)


# Classifier


def test_classifier_tells_apart_what_a_line_cannot(rng):
    got = classifier_two_sample_test(normal(rng, 400), normal(rng, 400, scale=3), seed=0)
    assert got.accuracy.low > 0.7
    assert got.p_value < 1e-9


def test_classifier_reaches_the_accuracy_of_the_bayes_rule(rng):
    got = classifier_two_sample_test(normal(rng, 2_000, 2), normal(rng, 2_000, 2, mean=1), seed=0)
    best = stats.norm.cdf(math.sqrt(2) / 2)
    assert_allclose(got.accuracy.value, best, rtol=0, atol=4 * math.sqrt(0.25 / 2_000))


def test_classifier_p_value_is_that_of_a_fair_coin(rng):
    got = classifier_two_sample_test(normal(rng, 61), normal(rng, 90, mean=0.3), seed=0)
    assert got.n_held_out == 62
    n_right = round(got.accuracy.value * 62)
    assert_allclose(got.z, (n_right - 31) / math.sqrt(62 / 4), rtol=1e-9, atol=1e-12)
    assert_allclose(got.p_value, stats.norm.sf(got.z), rtol=1e-9, atol=0)
    interval = stats.binomtest(n_right, 62).proportion_ci(method="wilson")
    assert_allclose([got.accuracy.low, got.accuracy.high], interval, rtol=1e-9, atol=0)


def test_classifier_takes_coordinates_that_never_change_and_any_scale(rng):
    real, samples = normal(rng, 100), normal(rng, 100, mean=1)
    expected = classifier_two_sample_test(real, samples, seed=0).accuracy.value
    real, samples = (torch.cat([x * 1e6, torch.ones(100, 1).double()], 1) for x in (real, samples))
    got = classifier_two_sample_test(real, samples, seed=0).accuracy.value
    assert_allclose(got, expected, rtol=0, atol=0.1)
    assert got > 0.7


# Null distributions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("test", "n_points"), [(classifier_two_sample_test, 50), (nearest_neighbour_test, 60)]
)
def test_on_two_halves_of_the_same_data_tests_reject_at_their_rate(test, n_points, monkeypatch):
    monkeypatch.setattr(two_sample, "N_EPOCHS", 20)
    rng = np.random.default_rng(1)
    results = []
    for seed in range(200):
        points = normal(rng, 2 * n_points)
        results.append(test(points[:n_points], points[n_points:], seed=seed))
    low, high = stats.binom(200, 0.05).ppf([0.001, 0.999])
    assert low <= sum(result.p_value < 0.05 for result in results) <= high
    z = [result.z for result in results]
    assert abs(np.mean(z)) < 3.3 / math.sqrt(200)
    assert 0.85 < np.std(z) < 1.15


# Invariance


@pytest.mark.parametrize("n_samples", [80, 130])
def test_nearest_neighbour_test_does_not_depend_on_the_chunk(rng, n_samples):
    real, samples = normal(rng, 80), normal(rng, n_samples, mean=0.3)
    expected = nearest_neighbour_test(real, samples, seed=0)
    assert nearest_neighbour_test(real, samples, seed=0, chunk=7) == expected


def test_nearest_neighbour_test_does_not_depend_on_order_or_seed_of_equally_large_sets(rng):
    real, samples = normal(rng, 80), normal(rng, 80, mean=0.3)
    expected = nearest_neighbour_test(real, samples, seed=0)
    got = nearest_neighbour_test(real.flip(0), samples.flip(0), seed=1)
    for name in ("accuracy", "accuracy_real", "accuracy_samples"):
        one, other = getattr(got, name), getattr(expected, name)
        assert one.value == other.value
        assert_allclose(one.standard_error, other.standard_error, rtol=1e-12, atol=0)
    assert_allclose(got.z, expected.z, rtol=1e-12, atol=0)


def test_classifier_test_draws_from_its_seed_alone(rng):
    real, samples = normal(rng, 80), normal(rng, 80, mean=0.3)
    expected = classifier_two_sample_test(real, samples, seed=0)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with torch.no_grad():
        assert classifier_two_sample_test(real, samples, seed=0) == expected
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("test", [classifier_two_sample_test, nearest_neighbour_test])
def test_images_are_tested_as_their_pixels(rng, test):
    real, samples = normal(rng, 80, 4), normal(rng, 60, 4, mean=0.3)
    images = (points.reshape(-1, 1, 2, 2) for points in (real, samples))
    assert test(*images, seed=0) == test(real, samples, seed=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("test", [classifier_two_sample_test, nearest_neighbour_test])
def test_two_sample_tests_do_not_depend_on_the_device(rng, test):
    real, samples = normal(rng, 80), normal(rng, 60, mean=0.3)
    assert test(real.cuda(), samples.cuda(), seed=0) == test(real, samples, seed=0)


# Errors


@pytest.mark.parametrize(
    ("test", "least"), [(classifier_two_sample_test, 40), (nearest_neighbour_test, 20)]
)
def test_too_few_points_are_refused(rng, test, least):
    with pytest.raises(ScoreError, match=f"samples must hold at least {least} points"):
        test(normal(rng, 99), normal(rng, least - 1), seed=0)


@pytest.mark.parametrize("test", [classifier_two_sample_test, nearest_neighbour_test])
def test_nan_is_refused(rng, test):
    real, samples = normal(rng, 99), normal(rng, 99)
    real[4, 1] = torch.nan
    with pytest.raises(ScoreError, match="real must be finite"):
        test(real, samples, seed=0)
