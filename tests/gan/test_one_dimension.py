"""The experiment of Figure 1.  Kinds: reference, contract, behaviour."""

import dataclasses
import itertools

import pytest
import torch
from scipy.stats import gaussian_kde, norm

from gan.one_dimension import (
    BANDWIDTH,
    CONFIG,
    MEAN,
    N_NOISE,
    STD,
    density,
    figure1,
    minibatches,
    moment,
    new_gan,
)

SHORT = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, n_steps=40))


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr("gan.one_dimension.D_ONLY_STEPS", 100)
    return figure1(0, config=SHORT)


def test_density_is_that_of_scipy_s_kernel_estimate():
    samples = torch.rand(500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    theirs = gaussian_kde(samples, bw_method=BANDWIDTH / samples.std().item())(x)
    assert (density(samples, x) - torch.from_numpy(theirs)).abs().max() < 2e-2  # of bins


def test_data_are_normal_and_within_the_pixel_s_range():
    x = torch.cat(list(itertools.islice(minibatches(), 100)))
    assert x.shape == (51_200, 1)
    assert 0 < x.min() < x.max() < 1
    for quantile in (0.1, 0.5, 0.9):
        expected = norm.ppf(quantile, MEAN, STD)
        assert abs(x.quantile(quantile).item() - expected) < 0.004


def test_a_moment_has_densities_on_one_axis():
    found = moment(new_gan())
    cell = found.x[1] - found.x[0]
    assert found.p_g.sum() * cell == pytest.approx(1, abs=1e-3)
    assert found.p_data.sum() * cell == pytest.approx(1, abs=2e-3)
    assert found.G.shape == found.z.shape == (N_NOISE,)
    assert 0 < found.D.min() <= found.D.max() < 1
    assert 0 < found.divergence < 0.7


@pytest.mark.slow
def test_panels_branch_off_and_leave_training_as_it_is(short):
    again = figure1(0, config=SHORT)  # of which nothing depends on what was done aside
    assert [m.step for m in short.path] == [0, 40]
    assert torch.equal(again.converged.G, short.converged.G)
    assert torch.equal(short.best_response.G, short.near.G)
    assert not torch.equal(short.best_response.D, short.near.D)
    assert not torch.equal(short.moved.G, short.best_response.G)
    assert torch.equal(short.moved.D, short.best_response.D)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_training_brings_g_to_the_data_and_d_near_its_best(seed):
    found = figure1(seed)
    assert found.converged.divergence < 0.1 * found.path[0].divergence
