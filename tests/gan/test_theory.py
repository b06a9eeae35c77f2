"""Section 4 of the paper.  Kinds: independent reference, identity, algorithm."""

import itertools
import math

import pytest
import torch
from scipy.integrate import quad
from scipy.spatial.distance import jensenshannon
from scipy.stats import norm
from torch.testing import assert_close

from gan.theory import (
    LOG_4,
    algorithm1,
    criterion,
    fit_discriminator,
    jensen_shannon_divergence,
    kl_divergence,
    optimal_discriminator,
    optimal_logit,
    value,
)

EXACT = {"rtol": 0, "atol": 1e-10}
GRID = torch.linspace(-20, 20, 2_001, dtype=torch.float64)
CELL = (GRID[1] - GRID[0]).item()


def gaussian(mean, std):
    return torch.from_numpy(norm.pdf(GRID, mean, std))


def discrete(n, seed, *, zeros=0):
    p = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    p[:zeros] = 0
    return p / p.sum()


PAIRS = {
    "two gaussians": (gaussian(0.0, 1.0), gaussian(1.5, 0.7), CELL),
    "a mixture": ((gaussian(-2.0, 0.5) + gaussian(2.0, 0.5)) / 2, gaussian(0.0, 2.0), CELL),
    "discrete": (discrete(50, 0), discrete(50, 1), 1.0),
    "the same": (discrete(50, 0), discrete(50, 0), 1.0),
}
EVERY_PAIR = pytest.mark.parametrize(("p_data", "p_g", "cell"), PAIRS.values(), ids=PAIRS)


@EVERY_PAIR
def test_a_trained_discriminator_is_that_of_proposition_1(p_data, p_g, cell):
    logits = fit_discriminator(p_data, p_g, cell=cell)
    trained = value(logits, p_data, p_g, cell=cell)
    optimal = criterion(p_data, p_g, cell=cell)
    # In the tails of a density the best logits are far from 0, and reached ever more slowly.
    is_grid = cell != 1.0
    assert optimal - 1e-5 * is_grid - 1e-10 < trained <= optimal + 1e-10
    error = (logits.sigmoid() - optimal_discriminator(p_data, p_g)).abs().max()
    assert error < (2e-4 if is_grid else 1e-10)


@EVERY_PAIR
def test_criterion_is_the_jensen_shannon_divergence(p_data, p_g, cell):
    divergence = jensen_shannon_divergence(p_data, p_g, cell=cell)
    assert_close(criterion(p_data, p_g, cell=cell), -LOG_4 + 2 * divergence, **EXACT)
    at_optimum = value(optimal_logit(p_data, p_g), p_data, p_g, cell=cell)
    assert_close(at_optimum, criterion(p_data, p_g, cell=cell), **EXACT)


@pytest.mark.parametrize("zeros", [0, 3])
def test_divergence_is_that_of_scipy(zeros):
    p, q = discrete(20, 3, zeros=zeros), discrete(20, 4)
    assert_close(jensen_shannon_divergence(p, q).item(), jensenshannon(p, q) ** 2, **EXACT)
    assert_close(jensen_shannon_divergence(q, p).item(), jensenshannon(p, q) ** 2, **EXACT)


def test_divergence_of_densities_is_their_integral():
    def integrand(x):
        p, q = norm.pdf(x, 0.0, 1.0), norm.pdf(x, 1.5, 0.7)
        m = (p + q) / 2
        return (p * math.log(p / m) + q * math.log(q / m)) / 2

    integral, _ = quad(integrand, -10, 10, epsabs=1e-12, limit=200)
    found = jensen_shannon_divergence(gaussian(0.0, 1.0), gaussian(1.5, 0.7), cell=CELL).item()
    assert_close(found, integral, **EXACT)


def test_divergence_of_gaussians_is_the_known_one():
    """KL between normal distributions in closed form."""
    found = kl_divergence(gaussian(0.0, 1.0), gaussian(1.5, 0.7), cell=CELL).item()
    assert_close(found, math.log(0.7) + (1 + 1.5**2) / (2 * 0.7**2) - 0.5, **EXACT)


def test_least_criterion_is_minus_log_4_and_only_where_g_has_the_data_s_density():
    p_data = discrete(10, 0)
    assert LOG_4 == math.log(4)
    assert_close(criterion(p_data, p_data).item(), -math.log(4), **EXACT)
    others = torch.stack([discrete(10, seed) for seed in range(1, 200)])
    assert (criterion(p_data, others) > -math.log(4) + 1e-3).all()
    nearby = p_data + 1e-3 * (others - p_data)
    assert (criterion(p_data, nearby) > -math.log(4)).all()


def test_no_discriminator_beats_that_of_proposition_1():
    p_data, p_g = discrete(10, 0), discrete(10, 1)
    logits = 3 * torch.randn(1_000, 10, dtype=torch.float64)
    assert (value(logits, p_data, p_g) < criterion(p_data, p_g)).all()


def test_what_shares_no_mass_is_told_apart_without_error():
    p_data, p_g = torch.eye(2, dtype=torch.float64)
    assert_close(criterion(p_data, p_g).item(), 0.0, **EXACT)
    assert_close(jensen_shannon_divergence(p_data, p_g).item(), math.log(2), **EXACT)
    assert kl_divergence(p_data, p_g).item() == math.inf
    assert optimal_logit(p_data, p_g).tolist() == [math.inf, -math.inf]
    assert value(optimal_logit(p_data, p_g), p_data, p_g).item() == 0.0


def test_where_neither_has_mass_nothing_counts():
    p_data, p_g = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]], dtype=torch.float64)
    whole = criterion(p_data[:2], p_g[:2])
    assert_close(criterion(p_data, p_g), whole, **EXACT)
    logits = torch.cat([optimal_logit(p_data[:2], p_g[:2]), torch.tensor([7.0])])
    assert_close(value(logits, p_data, p_g), whole, **EXACT)


# Proposition 2


@pytest.mark.parametrize("d_steps", [1, 2, 5, 20, "optimal"])
def test_algorithm_1_brings_p_g_to_p_data(d_steps):
    p_data, p_g = discrete(20, 0), discrete(20, 1)
    *_, last = algorithm1(p_data, p_g, d_steps=d_steps, n_steps=3_000)
    assert last.divergence < 1e-8
    assert_close(last.p_g, p_data, rtol=0, atol=1e-4)
    assert_close(last.value, -LOG_4, rtol=0, atol=1e-6)
    assert_close(last.logits.sigmoid(), torch.full_like(p_data, 0.5), rtol=0, atol=1e-3)


def test_with_the_optimal_discriminator_every_step_is_nearer():
    p_data, p_g = PAIRS["a mixture"][:2]
    path = list(algorithm1(p_data, p_g, d_steps="optimal", n_steps=50, cell=CELL))
    assert [progress.step for progress in path] == list(range(51))
    divergences = [progress.divergence for progress in path]
    assert all(after < before for before, after in itertools.pairwise(divergences))
    for progress in path:
        assert_close(progress.p_g.sum().item() * CELL, 1.0, **EXACT)
        assert_close(progress.value, -LOG_4 + 2 * progress.divergence, **EXACT)


def test_without_updates_of_d_everything_is_mapped_to_what_d_likes_best():
    """The Helvetica scenario of section 6."""
    p_data, p_g = discrete(20, 0), discrete(20, 1)
    favourite = int(optimal_logit(p_data, p_g).argmax())
    *_, last = algorithm1(p_data, p_g, d_steps=0, n_steps=3_000, g_rate=1.0)
    assert int(last.p_g.argmax()) == favourite
    assert last.p_g[favourite] > 0.999
    assert last.divergence > jensen_shannon_divergence(p_data, p_g)
