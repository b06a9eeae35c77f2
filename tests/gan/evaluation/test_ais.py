"""Annealed importance sampling: exact likelihoods, quadrature, unbiased weights, invariances."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import integrate, stats
from torch.testing import assert_close

from gan.errors import ScoreError
from gan.evaluation.ais import (
    AisSettings,
    ais_score,
    bidirectional_gap,
    choose_sigma,
    sigmoidal_schedule,
)
from gan.evaluation.smooth_priors import smooth_prior
from gan.priors import Bernoulli, Gaussian, Mixture, Spherical, TruncatedNormal, Uniform
from gan.randomness import stream

SIGMA = 0.3
QUICK = AisSettings(n_chains=8, n_temperatures=10, n_leapfrog=2)


def curve(z):
    """A line bent through three pixels, [n, dim] -> [n, 3]."""
    t = z.sum(1)
    return torch.stack([torch.sin(2 * t), t.square() / 2 + 0.3 * t, torch.tanh(t - 1)], 1)


def curve_densities(x, t):
    """p(x | z) of `curve` at coordinates z that sum to t, by SciPy: [b, len(t)]."""
    means = np.stack([np.sin(2 * t), t**2 / 2 + 0.3 * t, np.tanh(t - 1)], 1)
    return np.exp(stats.norm.logpdf(np.asarray(x)[:, None], means, SIGMA).sum(2))


def linear(n_pixels, dim):
    """A decoder x = W z + b and its exact density with noise of width SIGMA."""
    rng = np.random.default_rng(2)
    W, b = rng.normal(size=(n_pixels, dim)) / 2, rng.normal(size=n_pixels)
    exact = stats.multivariate_normal(b, W @ W.T + SIGMA**2 * np.eye(n_pixels), seed=3)
    W, b = torch.from_numpy(W), torch.from_numpy(b)
    return lambda z: z.to(W) @ W.T + b, exact


@pytest.fixture
def x():
    """Points near `curve`, [5, 3]."""
    z = torch.tensor([[-1.2], [-0.4], [0.3], [0.9], [1.5]], dtype=torch.float64)
    noise = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return curve(z) + SIGMA * noise


def integral_of(prior):
    """Exact log p(x) of points under `curve`, by Simpson's rule over what the prior is."""

    def log_likelihood(x):
        if isinstance(prior, Spherical):
            t = np.linspace(-math.pi, math.pi, 1_001)
            coordinate, density = (
                prior.radius * (np.cos(t) + np.sin(t)),
                np.full_like(t, 1 / math.tau),
            )
        else:
            t = coordinate = np.linspace(*SUPPORT[type(prior)], 1_001)
            density = DENSITY[type(prior)](t)
        return np.log(integrate.simpson(curve_densities(x, coordinate) * density, x=t, axis=1))

    return log_likelihood


CUT = stats.truncnorm(-1.5, 1.5)
CENTRES = Mixture(1, 3, 0.4).means().numpy()
SUPPORT = {
    Gaussian: (-8, 8),
    Uniform: (-math.sqrt(3), math.sqrt(3)),
    TruncatedNormal: (-1.5 / CUT.std(), 1.5 / CUT.std()),
    Mixture: (-8, 8),
}
DENSITY = {
    Gaussian: stats.norm.pdf,
    Uniform: lambda t: np.full_like(t, 1 / math.sqrt(12)),
    TruncatedNormal: lambda t: CUT.pdf(np.clip(t * CUT.std(), -1.5, 1.5)) * CUT.std(),
    Mixture: lambda t: stats.norm.pdf(t, CENTRES, 0.4).mean(0),
}
PRIORS = [
    Gaussian(1),
    Uniform(1),
    TruncatedNormal(1, 1.5),
    Mixture(1, 3, 0.4),
    Spherical(2, 1.4),
]


# Exact likelihoods


def test_linear_decoder_of_50_pixels_agrees_within_half_a_nat():
    decode, exact = linear(50, 4)
    x = torch.from_numpy(exact.rvs(4))
    settings = AisSettings(n_chains=12, n_temperatures=400, n_leapfrog=4)
    got = ais_score(decode, smooth_prior(Gaussian(4)), x, sigma=SIGMA, settings=settings)
    expected = exact.logpdf(x.numpy())
    assert_allclose(got.score.value, expected.mean(), rtol=0, atol=0.5)
    assert_allclose(got.log_likelihood.numpy(), expected, rtol=0, atol=1.5)
    assert_allclose(got.acceptance.numpy(), 0.65, rtol=0, atol=0.1)


@pytest.mark.slow
def test_linear_decoder_of_50_pixels_and_50_coordinates_agrees_within_half_a_nat():
    decode, exact = linear(50, 50)
    x = torch.from_numpy(exact.rvs(8))
    settings = AisSettings(n_chains=16, n_temperatures=10_000)
    got = ais_score(decode, smooth_prior(Gaussian(50)), x, sigma=SIGMA, settings=settings)
    assert_allclose(got.score.value, exact.logpdf(x.numpy()).mean(), rtol=0, atol=0.5)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
@pytest.mark.parametrize("n_temperatures", [4, 20])
def test_bent_decoder_agrees_with_quadrature_for_every_prior(prior, n_temperatures, x):
    """E w = p(x) holds at any number of temperatures: within 4 errors of the mean over chains."""
    settings = AisSettings(n_chains=2_000, n_temperatures=n_temperatures, n_leapfrog=3)
    got = ais_score(curve, smooth_prior(prior), x, sigma=SIGMA, settings=settings)
    expected = integral_of(prior)(x)
    # var(mean w) / p^2 = 1/ESS - 1/n.
    errors = np.sqrt(1 / got.effective_chains.numpy() - 1 / 2_000)
    assert (errors < 0.1).all()
    assert (np.abs(got.log_likelihood.exp().numpy() / np.exp(expected) - 1) < 4 * errors).all()
    assert_allclose(got.log_likelihood.numpy(), expected, rtol=0, atol=0.25)


# The weights


def test_mean_inverse_weight_of_the_reverse_chains_is_one_over_the_likelihood():
    settings = AisSettings(n_chains=1, n_temperatures=30, n_leapfrog=3, chunk=1_000)
    prior = smooth_prior(Gaussian(1))
    gap = bidirectional_gap(
        curve, prior, n_points=1_000, sigma=SIGMA, settings=settings, dtype=torch.float64
    )
    exact = torch.from_numpy(integral_of(Gaussian(1))(gap.x))
    for ratio in ((exact - gap.upper_bounds).exp(), (gap.lower_bounds - exact).exp()):
        error = ratio.std().item() / math.sqrt(1_000)
        assert error < 0.1
        assert abs(ratio.mean().item() - 1) < 4 * error


def test_one_temperature_is_the_mean_over_draws_of_the_prior(x):
    settings = AisSettings(n_chains=50, n_temperatures=1, seed=7)
    got = ais_score(curve, smooth_prior(Gaussian(1)), x, sigma=SIGMA, settings=settings)
    for i, row in enumerate(x.numpy()):
        z = torch.randn(54, 1, generator=stream(7, f"ais/forward/{i}")).double()[:50]
        (densities,) = curve_densities(row[None], z.numpy()[:, 0])
        expected = math.log(np.mean(densities))
        assert_allclose(got.log_likelihood[i].item(), expected, rtol=1e-6, atol=1e-6)
        effective = np.sum(densities) ** 2 / np.sum(np.square(densities))
        assert_allclose(got.effective_chains[i].item(), effective, rtol=1e-6, atol=0)


def test_bounds_enclose_the_exact_likelihood_of_the_simulated_points():
    decode, exact = linear(50, 5)
    prior = smooth_prior(Gaussian(5))
    gaps = []
    for n_temperatures in (10, 100):
        settings = AisSettings(n_chains=8, n_temperatures=n_temperatures, n_leapfrog=5)
        gap = bidirectional_gap(
            decode, prior, n_points=10, sigma=SIGMA, settings=settings, dtype=torch.float64
        )
        truth = exact.logpdf(gap.x.numpy()).mean()
        assert gap.lower.value < truth < gap.upper.value
        assert_allclose(gap.gap.value, gap.upper.value - gap.lower.value, rtol=1e-10, atol=0)
        gaps.append(gap.gap.value)
    assert gaps[1] < gaps[0] / 3


def test_score_has_the_standard_error_of_the_mean_over_points(x):
    got = ais_score(curve, smooth_prior(Gaussian(1)), x, sigma=SIGMA, settings=QUICK)
    values = got.log_likelihood.numpy()
    assert_allclose(got.score.value, values.mean(), rtol=1e-12, atol=0)
    error = values.std(ddof=1) / math.sqrt(5)
    assert_allclose(got.score.standard_error, error, rtol=1e-12, atol=0)
    assert (got.score.name, got.score.unit, got.sigma) == ("ais_ll", "nats", SIGMA)


def test_chosen_sigma_is_the_width_that_made_the_points():
    decode, exact = linear(50, 2)
    x = torch.from_numpy(exact.rvs(8))
    settings = AisSettings(n_chains=8, n_temperatures=60, n_leapfrog=3)
    prior = smooth_prior(Gaussian(2))
    grid = (0.2, SIGMA, 0.45)
    assert choose_sigma(decode, prior, x, grid=grid, settings=settings) == SIGMA


@pytest.mark.parametrize("n_temperatures", [1, 2, 7, 100])
def test_schedule_rises_from_zero_to_one_the_same_way_at_both_ends(n_temperatures):
    betas = np.array(sigmoidal_schedule(n_temperatures))
    assert len(betas) == n_temperatures + 1
    assert (betas[0], betas[-1]) == (0, 1)
    assert (np.diff(betas) > 0).all()
    assert_allclose(betas, 1 - betas[::-1], rtol=0, atol=1e-12)
    t = np.linspace(-4, 4, n_temperatures + 1)
    logistic = 1 / (1 + np.exp(-t))
    expected = (logistic - logistic[0]) / (logistic[-1] - logistic[0])
    assert_allclose(betas, expected, rtol=1e-10, atol=1e-12)


# Invariance


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunk_does_not_change_the_result(chunk, x):
    prior = smooth_prior(Uniform(2))
    whole, parts = (
        ais_score(
            curve,
            prior,
            x,
            sigma=SIGMA,
            settings=AisSettings(n_chains=8, n_temperatures=18, n_leapfrog=2, chunk=size),
        )
        for size in (100, chunk)
    )
    assert_close(parts.log_likelihood, whole.log_likelihood, rtol=1e-12, atol=1e-12)
    assert_close(parts.acceptance, whole.acceptance, rtol=1e-12, atol=1e-12)


def test_chunk_does_not_change_the_gap():
    gaps = [
        bidirectional_gap(
            curve,
            smooth_prior(Gaussian(1)),
            n_points=5,
            sigma=SIGMA,
            settings=AisSettings(n_chains=4, n_temperatures=20, n_leapfrog=3, chunk=chunk),
            dtype=torch.float64,
        )
        for chunk in (100, 2)
    ]
    assert_close(gaps[1].lower_bounds, gaps[0].lower_bounds, rtol=1e-12, atol=1e-12)
    assert_close(gaps[1].upper_bounds, gaps[0].upper_bounds, rtol=1e-12, atol=1e-12)


def test_seed_decides_all_noise(x):
    prior = smooth_prior(Gaussian(1))
    runs = [
        ais_score(
            curve,
            prior,
            x,
            sigma=SIGMA,
            settings=AisSettings(n_chains=8, n_temperatures=5, n_leapfrog=2, seed=seed),
        ).log_likelihood
        for seed in (0, 0, 1)
    ]
    assert_close(runs[1], runs[0], rtol=0, atol=0)
    assert (runs[2] != runs[0]).all()


def test_images_are_scored_as_their_pixels_in_a_row_and_float32_nearly_alike(x):
    prior = smooth_prior(Gaussian(1))
    flat = ais_score(curve, prior, x, sigma=SIGMA, settings=QUICK)
    images = ais_score(
        lambda z: curve(z)[:, None, None], prior, x[:, None, None], sigma=SIGMA, settings=QUICK
    )
    settings = AisSettings(n_chains=100, n_temperatures=60, n_leapfrog=3)
    wide, narrow = (
        ais_score(curve, prior, points, sigma=SIGMA, settings=settings)
        for points in (x, x.float())
    )
    assert_close(images.log_likelihood, flat.log_likelihood, rtol=0, atol=0)
    assert narrow.log_likelihood.dtype == torch.float64
    assert_close(narrow.log_likelihood, wide.log_likelihood, rtol=0, atol=0.3)


def test_decoder_is_left_without_gradients_even_under_no_grad(x):
    net = torch.nn.Linear(2, 3).double()
    with torch.no_grad():
        got = ais_score(net, smooth_prior(Gaussian(2)), x, sigma=SIGMA, settings=QUICK)
    assert net.weight.grad is None
    assert not got.log_likelihood.requires_grad


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
def test_float32_net_meets_nothing_but_float32(prior, x):
    net = torch.nn.Linear(prior.dim, 3)
    smooth = smooth_prior(prior)
    got = ais_score(net, smooth, x.float(), sigma=SIGMA, settings=QUICK)
    gap = bidirectional_gap(net, smooth, n_points=2, sigma=SIGMA, settings=QUICK)
    assert got.log_likelihood.dtype == gap.upper_bounds.dtype == torch.float64
    assert gap.x.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_points_on_a_gpu_score_as_on_the_cpu(x):
    prior = smooth_prior(TruncatedNormal(2, 1.5))
    on_cpu = ais_score(curve, prior, x, sigma=SIGMA, settings=QUICK)
    on_gpu = ais_score(curve, prior, x.cuda(), sigma=SIGMA, settings=QUICK)
    assert_close(on_gpu.log_likelihood, on_cpu.log_likelihood, rtol=1e-8, atol=1e-8)


# Errors


@pytest.mark.parametrize("prior", [Bernoulli(5), Spherical(1, 1.0)])
def test_prior_without_a_smooth_density_is_refused(prior):
    with pytest.raises(ScoreError, match=f"smooth density: .*; got {type(prior).__name__} of"):
        smooth_prior(prior)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, 1e-200])
def test_width_that_is_not_positive_is_refused(sigma, x):
    prior = smooth_prior(Gaussian(1))
    with pytest.raises(ValueError, match=f"sigma must be > 0 .*, got {sigma}"):
        ais_score(curve, prior, x, sigma=sigma, settings=QUICK)
    with pytest.raises(ValueError, match=f"sigma must be > 0 .*, got {sigma}"):
        choose_sigma(curve, prior, x, grid=(0.1, sigma), settings=QUICK)
    with pytest.raises(ValueError, match=f"sigma must be > 0 .*, got {sigma}"):
        bidirectional_gap(curve, prior, n_points=2, sigma=sigma, settings=QUICK)


def test_empty_grid_is_refused(x):
    with pytest.raises(ValueError, match="at least one width, got none"):
        choose_sigma(curve, smooth_prior(Gaussian(1)), x, grid=(), settings=QUICK)


@pytest.mark.parametrize("name", ["n_chains", "n_temperatures", "n_leapfrog", "chunk"])
def test_settings_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        AisSettings(**{name: 0})


def test_points_that_cannot_be_scored_are_refused(x):
    prior = smooth_prior(Gaussian(1))
    with pytest.raises(ScoreError, match="x must hold at least 2 points, got 1"):
        ais_score(curve, prior, x[:1], sigma=SIGMA, settings=QUICK)
    with pytest.raises(ScoreError, match="x must be finite, got NaN"):
        ais_score(curve, prior, x.log(), sigma=SIGMA, settings=QUICK)
    with pytest.raises(ScoreError, match="at least 2 simulated points, got 1"):
        bidirectional_gap(curve, prior, n_points=1, sigma=SIGMA, settings=QUICK)


def test_decoder_of_other_points_or_of_none_is_refused(x):
    prior = smooth_prior(Gaussian(1))
    with pytest.raises(ValueError, match=r"give \[60, 3\] as x has 3 pixels, got \[60, 2\]"):
        ais_score(lambda z: curve(z)[:, :2], prior, x, sigma=SIGMA, settings=QUICK)
    with pytest.raises(ScoreError, match="decode must give finite points"):
        ais_score(lambda z: curve(z) * math.nan, prior, x, sigma=SIGMA, settings=QUICK)
