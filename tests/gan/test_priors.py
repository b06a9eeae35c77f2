"""Distributions of z.  Kinds: closed form (moments, support), independent reference (SciPy)."""

import math
from typing import get_args

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from torch.testing import assert_close

from gan.config import PriorConfig, PriorKind
from gan.priors import Mixture, Spherical, TruncatedNormal, Uniform, build_prior
from gan.randomness import stream

N, DIM = 50_000, 4

PRIORS = {
    "uniform": {},
    "gaussian": {},
    "spherical": {},
    "spherical/sqrt_dim": {"spherical_radius": "sqrt_dim"},
    "bernoulli": {},
    "truncated_normal": {"truncation": 1.5},
    "mixture": {"n_components": 5, "component_std": 0.4},
}


CUT = stats.truncnorm(-1.5, 1.5)


@pytest.fixture(params=PRIORS)
def name(request):
    return request.param


def build(name, *, dim=DIM):
    return build_prior(PriorConfig(kind=name.split("/")[0], dim=dim, **PRIORS[name]))


def draw(prior, n=N, seed=0):
    return prior.sample(n, stream(seed, "noise"))


def test_every_kind_of_the_configuration_is_tested():
    kinds = get_args(PriorKind)
    assert len(kinds) == 6
    assert {name.split("/")[0] for name in PRIORS} == set(kinds)


# Closed form


def test_coordinates_have_mean_0(name):
    # Six standard errors; no prior here has a variance above 1.3 a coordinate.
    assert_close(draw(build(name)).mean(0), torch.zeros(DIM), rtol=0, atol=6 * 1.2 / math.sqrt(N))


def test_variance_is_1_a_coordinate_but_for_the_unit_sphere(name):
    variance = draw(build(name)).double().square().mean().item()
    expected = 1 / DIM if name == "spherical" else 1.0
    assert_allclose(variance, expected, rtol=0.015, atol=0)


@pytest.mark.parametrize("name", sorted(PRIORS.keys() - {"mixture"}))
def test_coordinates_are_uncorrelated_but_for_the_mixture(name):
    z = draw(build(name)).double()
    covariance = z.T @ z / N
    scale = 1 / DIM if name == "spherical" else 1.0
    assert_close(covariance, scale * torch.eye(DIM).double(), rtol=0, atol=6 * 1.5 / math.sqrt(N))


def test_draws_are_float32_rows(name):
    prior = build(name)
    z = draw(prior, n=7)
    assert z.shape == (7, DIM)
    assert z.dtype == torch.float32
    assert prior.dim == DIM


def test_uniform_fills_its_support_and_no_more():
    z = draw(Uniform(DIM))
    assert z.abs().max() <= math.sqrt(3)
    assert_close(z.max().item(), math.sqrt(3), rtol=1e-3, atol=0)
    assert_close(z.min().item(), -math.sqrt(3), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("radius", "expected"), [("unit", 1.0), ("sqrt_dim", math.sqrt(9))])
def test_spherical_draws_lie_on_the_sphere(radius, expected):
    prior = build_prior(PriorConfig(kind="spherical", dim=9, spherical_radius=radius))
    norms = torch.linalg.vector_norm(draw(prior), dim=1)
    assert_close(norms, torch.full((N,), expected), rtol=1e-6, atol=0)


def test_bernoulli_draws_are_plus_or_minus_1():
    values, counts = draw(build("bernoulli")).unique(return_counts=True)
    assert values.tolist() == [-1.0, 1.0]
    assert_allclose(counts[1].item() / (N * DIM), 0.5, rtol=0, atol=6 * 0.5 / math.sqrt(N * DIM))


@pytest.mark.parametrize("truncation", [0.01, 0.5, 2.0, 30.0])
def test_truncated_normal_stays_in_its_support_with_variance_1(truncation):
    prior = TruncatedNormal(DIM, truncation)
    z = draw(prior)
    assert z.abs().max() <= truncation / prior.std_before_scaling * (1 + 1e-6)
    assert_allclose(z.double().square().mean().item(), 1.0, rtol=0.015, atol=0)


def test_truncation_must_be_positive():
    with pytest.raises(ValueError, match=r"truncation must be > 0, got 0"):
        TruncatedNormal(DIM, 0.0)


def test_centres_of_a_mixture_have_mean_0_and_the_variance_its_components_leave():
    mu = Mixture(DIM, 5, 0.4).means()
    assert mu.shape == (5, DIM)
    assert_close(mu.mean(0), torch.zeros(DIM), rtol=0, atol=1e-6)
    assert_close(mu.square().mean().item(), 1 - 0.4**2, rtol=1e-6, atol=0)


def test_mixture_has_the_covariance_of_its_components():
    prior = Mixture(DIM, 5, 0.4)
    mu = prior.means().double()
    z = draw(prior).double()
    expected = mu.T @ mu / 5 + 0.4**2 * torch.eye(DIM).double()
    assert_close(z.T @ z / N, expected, rtol=0, atol=6 * 2 / math.sqrt(N))


def test_components_of_a_mixture_have_equal_weight():
    prior = Mixture(DIM, 5, 0.01)  # so narrow that the nearest centre is the component
    nearest = torch.cdist(draw(prior), prior.means()).argmin(1)
    share = nearest.bincount(minlength=5) / N
    assert_close(share, torch.full((5,), 0.2), rtol=0, atol=6 * 0.4 / math.sqrt(N))


def test_centres_are_the_same_in_every_run_and_scale_with_the_component_alone():
    narrow, wide = Mixture(DIM, 5, 0.1).means(), Mixture(DIM, 5, 0.9).means()
    ratio = math.sqrt(1 - 0.9**2) / math.sqrt(1 - 0.1**2)
    assert_close(wide, narrow * ratio, rtol=1e-6, atol=0)
    assert_array_equal(Mixture(DIM, 5, 0.1).means(), narrow)
    assert not torch.equal(Mixture(DIM, 6, 0.1).means()[:5], narrow)


# Independent reference


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("uniform", stats.uniform(-math.sqrt(3), 2 * math.sqrt(3))),
        ("gaussian", stats.norm()),
        ("truncated_normal", stats.truncnorm(-1.5, 1.5, scale=1 / CUT.std())),
        # A coordinate of a point on the unit sphere of R^4: (1 + x) / 2 is Beta(3/2, 3/2).
        ("spherical", stats.beta(1.5, 1.5, loc=-1, scale=2)),
        ("spherical/sqrt_dim", stats.beta(1.5, 1.5, loc=-2, scale=4)),
    ],
)
def test_coordinates_follow_the_distribution_of_scipy(name, distribution):
    z = draw(build(name)).numpy()
    p_values = [stats.kstest(z[:, i], distribution.cdf).pvalue for i in range(DIM)]
    assert min(p_values) > 1e-3


@pytest.mark.parametrize("truncation", [0.01, 0.5, 2.0, 8.0])
def test_scale_of_the_truncated_normal_is_that_of_scipy(truncation):
    expected = stats.truncnorm(-truncation, truncation).std()
    got = TruncatedNormal(DIM, truncation).std_before_scaling
    assert_allclose(got, expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("deviations", [3.0, 4.0])
def test_tails_of_a_wide_truncated_normal_are_those_of_the_normal(deviations):
    z = draw(TruncatedNormal(1, 8.0), n=1_000_000)
    n_expected = 2 * stats.norm.sf(deviations) * len(z)
    n_beyond = (z.abs() > deviations).sum().item()
    assert_allclose(n_beyond, n_expected, rtol=0, atol=5 * math.sqrt(n_expected))


# Invariance


def test_same_stream_same_draws_and_the_next_ones_differ(name):
    prior = build(name, dim=16)
    rng = stream(0, "noise")
    first, second = prior.sample(20, rng), prior.sample(20, rng)
    assert_array_equal(draw(prior, n=20), first)
    assert not torch.equal(first, second)
    assert not torch.equal(draw(prior, n=20, seed=1), first)


def test_draws_leave_the_global_stream_alone(name):
    before = torch.get_rng_state()
    draw(build(name), n=3)
    assert_array_equal(torch.get_rng_state(), before)


def test_each_setting_reaches_its_prior():
    assert build_prior(PriorConfig(kind="spherical", dim=9)) == Spherical(9, 1.0)
    cut = PriorConfig(kind="truncated_normal", dim=3, truncation=1.25)
    assert build_prior(cut) == TruncatedNormal(3, 1.25)
    mixed = PriorConfig(kind="mixture", dim=3, n_components=7, component_std=0.25)
    assert build_prior(mixed) == Mixture(3, 7, 0.25)
