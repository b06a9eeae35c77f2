"""Repeats and the birthday estimate: SciPy's distances, uniform choices of known size, errors."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.spatial.distance import cdist
from torch.testing import assert_close

from gan.errors import ScoreError
from gan.evaluation.distinct import (
    count_distinct,
    distinct_score,
    nearest_distances,
    neighbour_counts,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def points(rng, n, d=20):
    return torch.from_numpy(rng.normal(size=(n, d)))


def distances(x):
    return cdist(x.numpy(), x.numpy()) + np.diag(np.full(len(x), np.inf))


# References


@pytest.mark.parametrize("chunk", [1, 37, 300])
def test_nearest_distances_are_scipys(rng, chunk):
    x = points(rng, 300) + 5
    got = nearest_distances(x, chunk=chunk).numpy()
    assert_allclose(got, distances(x).min(1), rtol=1e-10, atol=0)


def test_neighbours_are_counted_as_by_scipy(rng):
    x, y = points(rng, 80), points(rng, 300)
    expected = (cdist(x.numpy(), y.numpy()) <= 5).sum(1)
    assert 0 < expected.mean() < 300
    assert neighbour_counts(x, y, radius=5.0, chunk=13).tolist() == expected.tolist()


def test_equal_points_are_at_distance_zero(rng):
    x = points(rng, 50, d=784)
    assert nearest_distances(torch.cat([x, x]), chunk=9).max() == 0


def test_points_are_told_apart_to_the_last_bit():
    a = torch.rand(4, 5, dtype=torch.float64)
    b = a.clone()
    b[0, 0] = math.nextafter(b[0, 0].item(), 2)
    assert count_distinct(torch.cat([a, b])) == 5
    assert count_distinct(torch.tensor([[0.0, 1], [-0.0, 1]])) == 1


def test_near_repeats_and_collisions_are_those_of_all_pairs(rng):
    samples, real = points(rng, 400) * 0.8, points(rng, 400)
    got = distinct_score(samples, real, seed=0, close=0.05)
    radius = np.quantile(distances(real).min(1), 0.05)
    assert_allclose(got.radius, radius, rtol=1e-10, atol=0)
    d = distances(samples)
    n_near = int((d.min(1) <= radius).sum())
    assert got.near_repeats.value == (n_near // 2) / 200
    assert got.birthday.n_collisions == (d <= radius).sum() // 2
    assert got.birthday.n_pairs == 400 * 399 // 2
    # One of a mutual pair is the quantile: the comparison must not fall to rounding.
    n_real = (distances(real) <= radius * (1 + 1e-12)).sum() // 2
    assert got.real_birthday.n_collisions == n_real


# Closed form: a uniform choice among N


@pytest.mark.parametrize("n_images", [10, 300, 5_000])
def test_the_birthday_estimate_finds_the_size_of_a_uniform_choice(rng, n_images):
    images, real = points(rng, n_images), points(rng, 500)
    covered = []
    for _ in range(20):
        samples = images[torch.from_numpy(rng.integers(n_images, size=500))]
        birthday = distinct_score(samples, real, seed=0, close=0.001).birthday
        covered.append(birthday.support_low <= n_images <= birthday.support_high)
    assert np.mean(covered) >= 0.8


def test_an_uneven_choice_has_the_interval_of_its_spread(rng):
    shares = rng.dirichlet(np.full(200, 0.3))
    images, real = 100 * points(rng, 200), points(rng, 500)
    found = [
        distinct_score(
            images[torch.from_numpy(rng.choice(200, 500, p=shares))], real, seed=0
        ).birthday.collision
        for _ in range(60)
    ]
    assert_allclose(np.mean([f.value for f in found]), (shares**2).sum(), rtol=0.05, atol=0)
    spread = np.std([f.value for f in found])
    assert_allclose(np.mean([f.standard_error for f in found]), spread, rtol=0.25, atol=0)
    # Poisson's alone would be too narrow.
    assert spread > 1.5 * math.sqrt((shares**2).sum() / (500 * 499 / 2))


def test_without_a_collision_the_support_has_a_lower_end_alone(rng):
    got = distinct_score(100 * points(rng, 300), points(rng, 300), seed=0).birthday
    assert got.n_collisions == 0
    assert got.support == got.support_high == math.inf
    # Garwood: 3.689 collisions expected would show none with chance 2.5 %.
    assert_allclose(got.support_low, got.n_pairs / 3.6889, rtol=1e-4, atol=0)


# What it is for


def test_fresh_points_have_the_null_share_of_near_repeats(rng):
    shares = [
        distinct_score(
            points(rng, 500, d=8), points(rng, 500, d=8), seed=0, close=0.04
        ).near_repeats.value
        for _ in range(40)
    ]
    # Each has a spread of 2 sqrt(2 x 0.04 / 500) = 0.025: that of the radius and its own.
    assert_allclose(np.mean(shares), 0.04, rtol=0, atol=0.012)


def test_few_images_repeated_are_found(rng):
    samples = points(rng, 30).repeat(20, 1)
    got = distinct_score(samples, points(rng, 600), seed=0)
    assert got.n_distinct == 30
    assert_allclose(got.repeats.value, 570 / 600, rtol=1e-12, atol=0)
    assert got.near_repeats.value == 1
    assert got.birthday.support_high < 40 < got.real_birthday.support_low


def test_few_images_with_small_noise_are_found(rng):
    samples = points(rng, 30).repeat(20, 1) + 0.01 * points(rng, 600)
    got = distinct_score(samples, points(rng, 600), seed=0)
    assert got.repeats.value == 0
    assert got.near_repeats.low > 0.9
    assert got.birthday.support < 40


# Invariance


def test_score_depends_neither_on_the_chunk_nor_on_the_order_of_points(rng):
    samples, real = points(rng, 300) * 0.9, points(rng, 300)
    one = distinct_score(samples, real, seed=0)
    other = distinct_score(samples.flip(0), real.flip(0), seed=1, chunk=11)
    assert_allclose(one.radius, other.radius, rtol=1e-12, atol=0)
    assert one.near_repeats == other.near_repeats
    assert one.birthday == other.birthday


def test_of_unequal_sets_as_many_points_are_drawn(rng):
    samples, real = points(rng, 500), points(rng, 300)
    got = distinct_score(samples, real, seed=0)
    assert got.n_points == 300
    assert got.birthday == distinct_score(samples, real, seed=0).birthday
    assert got.radius != distinct_score(samples, points(rng, 300), seed=0).radius
    assert distinct_score(real, samples, seed=0).n_points == 300
    assert got.repeats.value == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_score_does_not_depend_on_the_device(rng):
    samples, real = points(rng, 300) * 0.9, points(rng, 300)
    cpu = distinct_score(samples, real, seed=0)
    gpu = distinct_score(samples.cuda(), real.cuda(), seed=0)
    assert cpu.birthday == gpu.birthday
    assert_close(cpu.radius, gpu.radius, rtol=1e-12, atol=0)


# Errors


def test_too_few_points_are_refused_with_the_number_needed(rng):
    with pytest.raises(ScoreError, match="samples must hold at least 200 points, got 199"):
        distinct_score(points(rng, 199), points(rng, 300), seed=0)


def test_one_image_throughout_is_refused(rng):
    with pytest.raises(ScoreError, match="samples must hold distinct points, got one point 300"):
        distinct_score(points(rng, 1).repeat(300, 1), points(rng, 300), seed=0)


def test_images_are_refused(rng):
    x = points(rng, 300)
    with pytest.raises(ValueError, match=r"samples must be \[n, d\], got \[300, 1, 20\]"):
        distinct_score(x[:, None], x, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"close": 0.0}, r"close must lie in \(0, 1\), got 0"),
        ({"chunk": 0}, "chunk must be >= 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(rng, options, message):
    x = points(rng, 300)
    with pytest.raises(ValueError, match=message):
        distinct_score(x, x, seed=0, **options)
