"""Errors and anchors of the Parzen score: plain loops, the spread of fresh draws, errors."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

from gan.config import DataConfig
from gan.datasets.splits import load_test, load_train_valid
from gan.errors import ScoreError
from gan.evaluation.parzen import PAPER_GRID, choose_sigma, parzen_score
from gan.evaluation.parzen_anchors import centres_anchor, parzen_with_errors, real_anchor
from gan.randomness import stream
from tests.gan import oracles


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def x(rng):
    return torch.from_numpy(rng.random((41, 6)))


@pytest.fixture
def samples(rng):
    return torch.from_numpy(rng.random((103, 6)))


# Independent reference


def test_score_and_image_error_are_those_of_the_score_itself(x, samples):
    expected = parzen_score(x, samples, sigma=0.2)
    got = parzen_with_errors(x, samples, sigma=0.2, seed=0)
    assert_close(got.log_likelihood, expected.log_likelihood, rtol=1e-12, atol=1e-12)
    assert_allclose(got.score.value, expected.mean, rtol=1e-12, atol=0)
    assert_allclose(got.image_standard_error, expected.standard_error, rtol=1e-12, atol=0)
    assert (got.score.name, got.score.unit, got.n_samples) == ("parzen_ll", "nats", 103)


def test_sample_error_is_the_jackknife_that_leaves_groups_out(x, samples):
    order = torch.randperm(103, generator=stream(5, "parzen/groups")).numpy()
    groups = np.array_split(order, 10)
    without = [
        oracles.parzen_log_likelihood(x.numpy(), np.delete(samples.numpy(), group, 0), 0.2).mean()
        for group in groups
    ]
    expected = math.sqrt(0.9 * sum((np.array(without) - np.mean(without)) ** 2))
    got = parzen_with_errors(x, samples, sigma=0.2, seed=5, n_groups=10)
    assert_allclose(got.sample_standard_error, expected, rtol=1e-10, atol=0)


def test_interval_has_both_errors(x, samples):
    got = parzen_with_errors(x, samples, sigma=0.2, seed=0)
    whole = math.hypot(got.image_standard_error, got.sample_standard_error)
    assert_allclose(got.score.standard_error, whole, rtol=1e-12, atol=0)
    assert_allclose(got.score.high - got.score.value, 1.959964 * whole, rtol=1e-6, atol=0)


def test_sample_error_is_the_spread_over_fresh_draws_of_samples():
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(200, 5)))
    runs = [
        parzen_with_errors(x, torch.from_numpy(rng.normal(size=(400, 5))), sigma=0.4, seed=i)
        for i in range(60)
    ]
    spread = np.std([run.score.value for run in runs], ddof=1)
    claimed = np.sqrt(np.mean([run.sample_standard_error**2 for run in runs]))
    # The spread of 60 draws is itself known to 9 %.
    assert_allclose(claimed, spread, rtol=0.3, atol=0)


def test_sample_error_of_one_centre_in_two_copies_is_zero(x, samples):
    got = parzen_with_errors(x, samples[:1].repeat(40, 1), sigma=0.2, seed=0)
    assert_allclose(got.sample_standard_error, 0, rtol=0, atol=1e-12)


# Invariance


def test_chunk_does_not_change_the_errors(x, samples):
    whole = parzen_with_errors(x, samples, sigma=0.2, seed=0)
    parts = parzen_with_errors(x, samples, sigma=0.2, seed=0, chunk=7)
    assert_allclose(
        [parts.sample_standard_error, parts.score.value],
        [whole.sample_standard_error, whole.score.value],
        rtol=1e-12,
        atol=0,
    )


def test_sorted_samples_have_the_error_of_shuffled_ones(x, samples):
    by_first = samples[samples[:, 0].argsort()]
    errors = [
        parzen_with_errors(x, s, sigma=0.2, seed=0).sample_standard_error
        for s in (samples, by_first)
    ]
    assert_allclose(errors[1], errors[0], rtol=0.5, atol=0)


def test_order_of_samples_does_not_change_the_score(x, samples):
    forward = parzen_with_errors(x, samples, sigma=0.2, seed=0).score.value
    backward = parzen_with_errors(x, samples.flip(0), sigma=0.2, seed=0).score.value
    assert_allclose(backward, forward, rtol=1e-12, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_errors_on_a_gpu_are_those_on_the_cpu(x, samples):
    on_cpu = parzen_with_errors(x, samples, sigma=0.2, seed=0)
    on_gpu = parzen_with_errors(x.cuda(), samples.cuda(), sigma=0.2, seed=0)
    assert_close(on_gpu.log_likelihood, on_cpu.log_likelihood, rtol=1e-10, atol=1e-10)
    assert_allclose(on_gpu.sample_standard_error, on_cpu.sample_standard_error, rtol=1e-8, atol=0)


# Anchors


def test_real_anchor_is_the_protocol_on_a_seeded_draw(rng, x, samples):
    valid, train = samples[:20], torch.from_numpy(rng.random((90, 6)))
    got = real_anchor(x, valid, train, n_samples=60, grid=PAPER_GRID, seed=3)
    order = torch.randperm(90, generator=stream(3, "parzen/real_anchor"))[:60]
    drawn = train[order]
    sigma = choose_sigma(valid, drawn, grid=PAPER_GRID)
    assert (got.sigma, got.n_samples, got.score.name) == (sigma, 60, "parzen_ll_real")
    expected = oracles.parzen_log_likelihood(x.numpy(), drawn.numpy(), sigma)
    assert_allclose(got.log_likelihood.numpy(), expected, rtol=1e-10, atol=1e-10)
    again = real_anchor(x, valid, train, n_samples=60, grid=PAPER_GRID, seed=3)
    other = real_anchor(x, valid, train, n_samples=60, grid=PAPER_GRID, seed=4)
    assert again.score == got.score
    assert other.score != got.score


def test_centres_anchor_has_the_error_of_the_images_alone(x, samples):
    got = centres_anchor(x, samples[:20], samples[20:], grid=PAPER_GRID)
    sigma = choose_sigma(samples[:20], samples[20:], grid=PAPER_GRID)
    expected = parzen_score(x, samples[20:], sigma=sigma)
    assert got.sample_standard_error is None
    assert_allclose(got.score.value, expected.mean, rtol=1e-12, atol=0)
    assert_allclose(got.score.standard_error, expected.standard_error, rtol=1e-12, atol=0)
    assert (got.sigma, got.n_samples, got.score.name) == (sigma, 83, "parzen_ll_centres")


def test_anchors_choose_sigma_on_validation_images_alone(x, samples):
    """Copies of the centres ask for the narrowest window, the scored images for a wider one."""
    assert choose_sigma(x, samples, grid=PAPER_GRID) > 0.1
    real = real_anchor(x, samples, samples, n_samples=103, grid=PAPER_GRID, seed=0)
    centres = centres_anchor(x, samples, samples, grid=PAPER_GRID)
    assert (real.sigma, centres.sigma) == (0.1, 0.1)


# Errors


def test_too_few_samples_for_the_groups_are_refused(x, samples):
    with pytest.raises(ScoreError, match="at least 40 for the error of 20 groups, got 39"):
        parzen_with_errors(x, samples[:39], sigma=0.2, seed=0)
    with pytest.raises(ValueError, match="n_groups must be >= 2, got 1"):
        parzen_with_errors(x, samples, sigma=0.2, seed=0, n_groups=1)


def test_images_without_spread_are_refused(x, samples):
    with pytest.raises(ScoreError, match="x must hold at least 2 points, got 1"):
        parzen_with_errors(x[:1], samples, sigma=0.2, seed=0)
    with pytest.raises(ScoreError, match="x must hold distinct points"):
        centres_anchor(x[:1].repeat(5, 1), x, samples, grid=PAPER_GRID)


def test_real_anchor_of_fewer_images_than_samples_is_refused(x, samples):
    with pytest.raises(ScoreError, match=r"at least 104 images, .*, got 103"):
        real_anchor(x, x, samples, n_samples=104, grid=PAPER_GRID, seed=0)


# Golden


@pytest.mark.slow
def test_real_mnist_scores_241_to_244_with_a_sample_error_near_its_spread():
    """Nine draws of 10,000 real images span 241.2 to 243.6 nats: a deviation of about 0.8."""
    train, valid = (
        torch.from_numpy(split.images / 255) for split in load_train_valid(DataConfig())
    )
    test = torch.from_numpy(load_test(DataConfig()).images / 255)
    got = real_anchor(test, valid[:1_000], train, n_samples=10_000, grid=PAPER_GRID, seed=0)
    assert_close(got.sigma, 0.16681, rtol=0, atol=1e-5)
    assert_close(got.score.value, 242.4, rtol=0, atol=2.5)
    assert_close(got.image_standard_error, 2.1, rtol=0, atol=0.2)
    assert_close(got.sample_standard_error, 0.8, rtol=0, atol=0.5)
