"""The Parzen score: closed forms, the broadcast as reference, invariances, limits, errors."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal
from torch.testing import assert_close

from gan.config import DataConfig, EvaluationConfig
from gan.datasets.splits import load_test, load_train_valid
from gan.evaluation.parzen import (
    FINE_GRID,
    PAPER_GRID,
    choose_sigma,
    is_at_grid_end,
    parzen_log_likelihood,
    parzen_log_likelihoods,
    parzen_score,
)
from tests.gan import oracles


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def x(rng):
    return torch.from_numpy(rng.random((37, 20)))


@pytest.fixture
def samples(rng):
    return torch.from_numpy(rng.random((101, 20)))


# Closed form


@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
def test_one_centre_is_a_gaussian(x, samples, sigma):
    expected = multivariate_normal(samples[0].numpy(), sigma**2 * np.eye(20)).logpdf(x.numpy())
    got = parzen_log_likelihood(x, samples[:1], sigma=sigma)
    assert_allclose(got.numpy(), expected, rtol=1e-10, atol=1e-10)


def test_two_centres_are_a_mixture_of_equal_halves(x, samples):
    left, right = (multivariate_normal(s.numpy(), 0.3**2).pdf(x.numpy()) for s in samples[:2])
    got = parzen_log_likelihood(x, samples[:2], sigma=0.3)
    assert_allclose(got.numpy(), np.log((left + right) / 2), rtol=1e-10, atol=1e-10)


def test_density_integrates_to_one(samples):
    line = torch.linspace(-5, 6, 2_001, dtype=torch.float64)
    density = parzen_log_likelihood(line[:, None], samples[:, :1], sigma=0.4).exp()
    assert_close(torch.trapezoid(density, line).item(), 1.0, rtol=1e-9, atol=0)


def test_samples_repeated_k_times_are_the_same_density(x, samples):
    once = parzen_log_likelihood(x, samples, sigma=0.2)
    assert_close(
        parzen_log_likelihood(x, samples.repeat(3, 1), sigma=0.2), once, rtol=1e-12, atol=0
    )


def test_scaling_data_and_width_shifts_by_d_log_scale(x, samples):
    shifted = parzen_log_likelihood(x, samples, sigma=0.2) - 20 * math.log(2)
    assert_close(
        parzen_log_likelihood(2 * x, 2 * samples, sigma=0.4), shifted, rtol=1e-12, atol=1e-12
    )


# Independent reference


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.16681, 1.0])
def test_equals_the_broadcast_of_the_released_code(x, samples, sigma):
    expected = oracles.parzen_log_likelihood(x.numpy(), samples.numpy(), sigma)
    got = parzen_log_likelihood(x, samples, sigma=sigma)
    assert_allclose(got.numpy(), expected, rtol=1e-10, atol=1e-10)


def test_equals_the_broadcast_on_sparse_images_of_784_pixels(rng):
    images = rng.random((300, 784)) * (rng.random((300, 784)) < 0.2)
    x, samples = images[:20], images[20:]
    got = parzen_log_likelihood(torch.from_numpy(x), torch.from_numpy(samples), sigma=0.1)
    assert_allclose(
        got.numpy(), oracles.parzen_log_likelihood(x, samples, 0.1), rtol=1e-11, atol=0
    )


def test_shared_distances_give_every_width_its_own_likelihood(x, samples):
    together = parzen_log_likelihoods(x, samples, sigmas=PAPER_GRID)
    apart = torch.stack([parzen_log_likelihood(x, samples, sigma=s) for s in PAPER_GRID])
    assert together.shape == (10, 37)
    assert_close(together, apart, rtol=1e-12, atol=1e-12)


def test_score_has_mean_and_standard_error_of_the_released_code(x, samples):
    expected = oracles.parzen_log_likelihood(x.numpy(), samples.numpy(), 0.2)
    score = parzen_score(x, samples, sigma=0.2)
    assert_allclose(score.log_likelihood.numpy(), expected, rtol=1e-10, atol=1e-10)
    assert_allclose(score.mean, expected.mean(), rtol=1e-10, atol=0)
    assert_allclose(score.standard_error, expected.std() / np.sqrt(37), rtol=1e-10, atol=0)
    assert (score.sigma, score.n_samples) == (0.2, 101)


@pytest.mark.parametrize("grid", [PAPER_GRID, FINE_GRID, (0.5, 0.3, 0.4)])
def test_chosen_sigma_has_the_largest_mean_likelihood(x, samples, grid):
    means = [oracles.parzen_log_likelihood(x.numpy(), samples.numpy(), s).mean() for s in grid]
    assert choose_sigma(x, samples, grid=grid) == grid[int(np.argmax(means))]


# Invariance


@pytest.mark.parametrize("chunk", [1, 2, 7, 36, 37, 1_000])
def test_chunk_does_not_change_the_result(x, samples, chunk):
    whole = parzen_log_likelihoods(x, samples, sigmas=[0.1, 0.3], chunk=len(x))
    parts = parzen_log_likelihoods(x, samples, sigmas=[0.1, 0.3], chunk=chunk)
    assert_close(parts, whole, rtol=1e-10, atol=1e-10)


def test_order_of_samples_does_not_matter(x, samples):
    forward = parzen_log_likelihood(x, samples, sigma=0.2)
    assert_close(
        parzen_log_likelihood(x, samples.flip(0), sigma=0.2), forward, rtol=1e-12, atol=1e-12
    )


def test_float32_images_are_scored_in_float64(x, samples):
    narrow_x, narrow_samples = x.float(), samples.float()
    narrow = parzen_log_likelihood(narrow_x, narrow_samples, sigma=0.1)
    wide = parzen_log_likelihood(narrow_x.double(), narrow_samples.double(), sigma=0.1)
    assert narrow.dtype == torch.float64
    assert_close(narrow, wide, rtol=0, atol=0)


def test_image_shape_is_the_same_as_its_pixels_in_a_row(x, samples):
    flat = parzen_score(x, samples, sigma=0.2)
    square = parzen_score(x.view(-1, 1, 4, 5), samples.view(-1, 1, 4, 5), sigma=0.2)
    mixed = parzen_score(x, samples.view(-1, 1, 4, 5), sigma=0.2)
    assert_close(square.log_likelihood, flat.log_likelihood, rtol=0, atol=0)
    assert_close(mixed.log_likelihood, flat.log_likelihood, rtol=0, atol=0)


def test_inputs_are_left_alone_and_need_no_detaching(x, samples):
    before_x, before_samples = x.clone(), samples.clone()
    score = parzen_log_likelihood(x, samples.requires_grad_(), sigma=0.2)
    assert not score.requires_grad
    assert_close(x, before_x, rtol=0, atol=0)
    assert_close(samples.detach(), before_samples, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_samples_on_a_gpu_score_as_on_the_cpu(x, samples):
    on_cpu = parzen_score(x, samples, sigma=0.1)
    on_gpu = parzen_score(x, samples.cuda(), sigma=0.1)
    assert_close(on_gpu.log_likelihood, on_cpu.log_likelihood, rtol=1e-10, atol=1e-10)


# Limits


@pytest.mark.parametrize("sigma", [1e-3, 1e-8, 1e-100])
def test_narrow_window_on_its_own_sample_is_the_peak_of_one_gaussian(samples, sigma):
    peak = -math.log(101) - 20 * math.log(sigma * math.sqrt(2 * math.pi))
    got = parzen_log_likelihood(samples, samples, sigma=sigma)
    assert_close(got, torch.full_like(got, peak), rtol=1e-12, atol=0)


def test_narrow_window_far_from_all_samples_does_not_underflow(x, samples):
    expected = oracles.parzen_log_likelihood(x.numpy(), samples.numpy(), 1e-6)
    assert (expected < -1e11).all()
    got = parzen_log_likelihood(x, samples, sigma=1e-6)
    assert_allclose(got.numpy(), expected, rtol=1e-10, atol=0)


def test_wide_window_forgets_where_the_samples_are(x, samples):
    flat = -20 * math.log(1e9 * math.sqrt(2 * math.pi))
    got = parzen_log_likelihood(x, samples, sigma=1e9)
    assert_close(got, torch.full_like(got, flat), rtol=1e-12, atol=0)


# The grids


def test_paper_grid_is_the_logspace_of_the_released_code():
    assert_allclose(PAPER_GRID, np.logspace(-1, 0, 10), rtol=1e-14, atol=0)


def test_fine_grid_has_steps_of_one_hundredth():
    assert_allclose(FINE_GRID, np.arange(10, 31) / 100, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("sigma", "at_end"), [(FINE_GRID[0], True), (0.18, False), (FINE_GRID[-1], True)]
)
def test_grid_end_is_its_smallest_and_largest_width(sigma, at_end):
    assert is_at_grid_end(sigma, grid=FINE_GRID) == at_end
    assert is_at_grid_end(sigma, grid=FINE_GRID[::-1]) == at_end


def test_choice_outside_the_grid_shows_as_its_end(x, samples):
    narrow_grid = (0.01, 0.02, 0.03)
    assert is_at_grid_end(choose_sigma(x, samples, grid=narrow_grid), grid=narrow_grid)


# Errors


@pytest.mark.parametrize("sigma", [0.0, -0.1, math.nan, math.inf, 1e-200])
def test_width_that_is_not_positive_is_refused(x, samples, sigma):
    with pytest.raises(ValueError, match=rf"sigma must be > 0 .*, got {sigma}"):
        parzen_score(x, samples, sigma=sigma)


def test_empty_grid_is_refused(x, samples):
    with pytest.raises(ValueError, match="at least one window width, got none"):
        choose_sigma(x, samples, grid=())


def test_chunk_below_one_is_refused(x, samples):
    with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
        parzen_score(x, samples, sigma=0.2, chunk=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_samples_that_are_not_finite_are_refused(x, samples, bad):
    samples[3, 4:6] = bad
    with pytest.raises(ValueError, match=r"samples must be finite, got .* in 1 of 101 rows"):
        parzen_score(x, samples, sigma=0.2)
    with pytest.raises(ValueError, match=r"x must be finite, got .* in 1 of 101 rows"):
        parzen_score(samples, x, sigma=0.2)


@pytest.mark.parametrize(
    ("x_shape", "samples_shape"),
    [((2, 20), (3, 21)), ((2, 20), (3, 1, 4, 4)), ((2, 3, 4, 5), (3, 4, 5, 3))],
)
def test_points_and_samples_of_different_shape_are_refused(x_shape, samples_shape):
    with pytest.raises(ValueError, match=r"same shape but for their number, got \[2, .*\[3, "):
        parzen_score(torch.zeros(x_shape), torch.zeros(samples_shape), sigma=0.2)


@pytest.mark.parametrize("shape", [(0, 20), (5, 0), (20,)])
def test_empty_or_shapeless_sets_are_refused(x, shape):
    with pytest.raises(ValueError, match=r"samples must be \[n, d\] or .* not empty, got \["):
        parzen_score(x, torch.zeros(shape), sigma=0.2)


def test_pixels_of_0_to_255_are_refused(x, samples):
    with pytest.raises(ValueError, match=r"floating point in \[0, 1\], got torch.uint8"):
        parzen_score(x, (255 * samples).byte(), sigma=0.2)


# Golden


@pytest.mark.slow
def test_real_images_score_241_nats():
    """The first 10,000 training images as samples, by the paper's protocol."""
    train, valid = load_train_valid(DataConfig())
    samples = torch.from_numpy(train.images[:10_000] / 255)
    first_valid = torch.from_numpy(valid.images[: EvaluationConfig().n_sigma_images] / 255)
    test = torch.from_numpy(load_test(DataConfig()).images / 255)
    sigma = choose_sigma(first_valid, samples, grid=PAPER_GRID)
    score = parzen_score(test, samples, sigma=sigma)
    assert_close(sigma, 0.16681, rtol=0, atol=1e-5)
    assert_close(score.mean, 241.193, rtol=0, atol=0.001)
    assert_close(score.standard_error, 2.130, rtol=0, atol=0.001)
