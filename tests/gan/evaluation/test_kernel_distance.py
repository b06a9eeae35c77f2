"""The kernel distance: double loops, the kernel's moments, its error, null draws, bad input."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import binom

from gan.errors import ScoreError
from gan.evaluation.kernel_distance import kernel_distance, kernel_scores


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def normal(rng, n, d, scale=1.0):
    return scale * torch.randn(n, d, generator=rng, dtype=torch.float64)


# Independent reference


def kernel(a, b):
    return (float(a @ b) / len(a) + 1) ** 3


def mmd(x, y):
    xx = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    return xx + yy - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_value_agrees_with_a_double_loop(rng):
    x, y = normal(rng, 23, 4), normal(rng, 31, 4, 1.5) + 0.3
    assert_allclose(kernel_distance(x, y).value, mmd(x.numpy(), y.numpy()), rtol=1e-12, atol=1e-13)


def test_error_agrees_with_leaving_out_one_point_at_a_time_far_from_the_null(rng):
    x, y = normal(rng, 60, 3), normal(rng, 50, 3) + 2
    left_out = [
        [kernel_distance(without(x, i), y).value for i in range(60)],
        [kernel_distance(x, without(y, i)).value for i in range(50)],
    ]
    variance = sum((len(v) - 1) * np.var(v) for v in left_out)
    # The jackknife counts the part of second order twice: of order 1/n here.
    assert_allclose(kernel_distance(x, y).standard_error, math.sqrt(variance), rtol=0.05, atol=0)


def without(points, i):
    return torch.cat([points[:i], points[i + 1 :]])


def test_null_error_agrees_with_the_matrices_of_kernels(rng):
    x, y = normal(rng, 23, 4), normal(rng, 31, 4, 1.5)

    def interaction(a, b, *, is_pair):
        k = np.ma.array((a @ b.T / 4 + 1).numpy() ** 3, mask=~is_pair)
        rows, columns = k.mean(1, keepdims=True), k.mean(0, keepdims=True)
        return (k**2).mean() - (rows**2).mean() - (columns**2).mean() + k.mean() ** 2

    every = np.ones((23, 31), dtype=bool)
    variance = (
        2 * interaction(x, x, is_pair=~np.eye(23, dtype=bool)) / (23 * 22)
        + 2 * interaction(y, y, is_pair=~np.eye(31, dtype=bool)) / (31 * 30)
        + 4 * interaction(x, y, is_pair=every) / (23 * 31)
    )
    got = kernel_scores(x, y).null_error
    assert_allclose(got, math.sqrt(variance), rtol=1e-10, atol=0)


# Closed form


def test_value_of_shifted_lines_is_the_kernels_moments(rng):
    # d = 1: (xy + 1)^3 = 1 + 3xy + 3x^2 y^2 + x^3 y^3, so MMD^2 = sum of c_k (E x^k - E y^k)^2.
    draws = [kernel_distance(normal(rng, 400, 1), normal(rng, 400, 1) + 1) for _ in range(100)]
    moments, shifted = np.array([0, 1, 0]), np.array([1, 2, 4])
    expected = np.sum([3, 3, 1] * (moments - shifted) ** 2)
    values = np.array([draw.value for draw in draws])
    error = values.std(ddof=1) / math.sqrt(len(draws))
    assert_allclose(values.mean(), expected, rtol=0, atol=4 * error)


# Bias, error, null distribution


@pytest.mark.parametrize(
    ("scale", "shift", "excess"), [(1.0, 0.0, 0.1), (1.1, 0.1, 0.1), (1.0, 1.0, 0.0)]
)
def test_standard_error_is_the_spread_over_draws(rng, scale, shift, excess):
    draws = [
        kernel_distance(normal(rng, 100, 8), normal(rng, 140, 8, scale) + shift)
        for _ in range(200)
    ]
    spread = np.std([draw.value for draw in draws], ddof=1)
    root_mean = math.sqrt(np.mean([draw.standard_error**2 for draw in draws]))
    # A spread of 200 draws is known to 5 to 8 %, as the tails are heavier than normal.
    assert_allclose(root_mean, (1 + excess) * spread, rtol=0.2, atol=0)


def test_two_halves_of_one_distribution_are_told_apart_at_the_nominal_rate(rng):
    draws = [kernel_scores(normal(rng, 60, 10), normal(rng, 60, 10)) for _ in range(200)]
    values = np.array([draw.distance.value for draw in draws])
    assert_allclose(values.mean(), 0, rtol=0, atol=4 * values.std(ddof=1) / math.sqrt(200))
    null_errors = np.array([draw.null_error for draw in draws])
    assert_allclose(null_errors.mean(), values.std(ddof=1), rtol=0.2, atol=0)
    n_told_apart = int((np.abs(values) > 1.96 * null_errors).sum())
    low, high = binom.ppf([1e-3, 1 - 1e-3], 200, 0.05)
    assert low <= n_told_apart <= high


# Invariance


@pytest.mark.parametrize("chunk", [1, 7, 41, 1_000])
def test_chunk_does_not_matter(rng, chunk):
    x, y = normal(rng, 53, 6), normal(rng, 41, 6) + 1
    got, expected = kernel_distance(x, y, chunk=chunk), kernel_distance(x, y)
    assert_allclose(got.value, expected.value, rtol=1e-12, atol=0)
    assert_allclose(got.standard_error, expected.standard_error, rtol=1e-12, atol=0)


def test_order_and_roles_and_shape_do_not_matter(rng):
    x, y = normal(rng, 53, 12), normal(rng, 41, 12) + 1
    expected = kernel_distance(x, y)
    for got in (
        kernel_distance(x.flip(0), y.flip(0)),
        kernel_distance(y, x),
        kernel_distance(x.reshape(53, 3, 2, 2), y.reshape(41, 3, 2, 2)),
    ):
        assert_allclose(got.value, expected.value, rtol=1e-12, atol=0)
        assert_allclose(got.standard_error, expected.standard_error, rtol=1e-12, atol=0)


def test_float32_points_are_scored_in_float64(rng):
    x, y = normal(rng, 53, 6).float(), normal(rng, 41, 6).float()
    assert kernel_distance(x, y) == kernel_distance(x.double(), y.double())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_answers_as_the_cpu(rng):
    x, y = normal(rng, 53, 6), normal(rng, 41, 6) + 1
    cpu, gpu = kernel_distance(x, y), kernel_distance(x.cuda(), y.cuda())
    assert_allclose(gpu.value, cpu.value, rtol=1e-12, atol=0)
    assert_allclose(gpu.standard_error, cpu.standard_error, rtol=1e-12, atol=0)


# Bad input


def test_bad_points_are_refused(rng):
    x, y = normal(rng, 20, 2), normal(rng, 20, 2)
    with pytest.raises(ScoreError, match="real must hold at least 10 points, got 9"):
        kernel_distance(x[:9], y)
    with pytest.raises(ScoreError, match="samples must hold distinct points"):
        kernel_distance(x, torch.ones_like(x))
    with pytest.raises(ScoreError, match="finite kernels, got an overflow"):
        kernel_distance(x, 1e60 * y)
    y[0, 0] = math.nan
    with pytest.raises(ScoreError, match="samples must be finite"):
        kernel_distance(x, y)


def test_misuse_is_refused(rng):
    x = normal(rng, 20, 2)
    with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
        kernel_distance(x, x, chunk=0)
    with pytest.raises(ValueError, match="real must be floating point"):
        kernel_distance(x.long(), x)
