"""Maxout, dropout masks, initial weights.  Kinds: closed form, independent reference."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from torch import nn
from torch.testing import assert_close

from gan.layers import Maxout, dropout_mask, init_uniform
from gan.randomness import stream


def mask(n, width, drop, seed=0):
    return dropout_mask(n, width, drop=drop, rng=stream(seed, "dropout"))


# Dropout: closed form


@pytest.mark.parametrize("drop", [0.2, 0.5, 1 / 3, 0.9])
def test_mask_is_0_or_the_inverse_of_the_share_that_is_kept(drop):
    kept = round((1 - drop) * 2**16) / 2**16
    assert_close(mask(300, 100, drop).unique(), torch.tensor([0.0, 1 / kept]), rtol=1e-7, atol=0)


@pytest.mark.parametrize("drop", [0.2, 0.5, 0.9])
def test_mask_has_mean_1_and_the_variance_of_a_scaled_coin(drop):
    factors = mask(1000, 400, drop).double()
    variance = drop / (1 - drop)
    n = factors.numel()
    assert_allclose(factors.mean().item(), 1.0, rtol=0, atol=5 * math.sqrt(variance / n))
    assert_allclose(factors.var().item(), variance, rtol=0.02, atol=0)


@pytest.mark.parametrize("drop", [0.0, 1e-9, 0.2, 1 / 3, 0.5, 0.99999, 1 - 1e-9])
def test_of_all_16_bit_values_exactly_the_rounded_share_is_kept(drop, monkeypatch):
    every_value = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    monkeypatch.setattr(
        torch.Tensor, "random_", lambda words, *_, **__: words.copy_(every_value.view(torch.int64))
    )
    factors = mask(2**8, 2**8, drop)
    n_kept = max(1, round((1 - drop) * 2**16))
    assert factors.count_nonzero() == n_kept
    assert_close(factors.double().mean().item(), 1.0, rtol=1e-6, atol=0)


def test_a_share_that_rounds_to_nothing_drops_nothing():
    assert_array_equal(mask(50, 40, 1e-7), torch.ones(50, 40))


def test_four_units_that_share_a_word_are_dropped_independently():
    factors = mask(20_000, 8, 0.5).double() - 1
    covariance = factors.T @ factors / 20_000
    assert_close(covariance, torch.eye(8).double(), rtol=0, atol=5 / math.sqrt(20_000))


def test_rows_are_dropped_independently():
    factors = mask(20_000, 8, 0.5).double() - 1
    between = (factors[:-1] * factors[1:]).mean(0)
    assert_close(between, torch.zeros(8).double(), rtol=0, atol=5 / math.sqrt(20_000))


@pytest.mark.parametrize(("n", "width"), [(1, 1), (3, 5), (2, 4), (7, 1)])
def test_mask_has_any_shape(n, width):
    assert mask(n, width, 0.5).shape == (n, width)
    assert mask(n, width, 0.5).dtype == torch.float32


def test_same_stream_same_mask():
    assert_array_equal(mask(9, 9, 0.5), mask(9, 9, 0.5))
    assert not torch.equal(mask(9, 9, 0.5), mask(9, 9, 0.5, seed=1))


# Maxout: independent reference


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Maxout(4, 3, pieces=5).double()


@pytest.fixture
def x():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(6, 4)))


def test_maxout_is_the_largest_piece(layer, x):
    weight, bias = (p.detach().numpy() for p in (layer.linear.weight, layer.linear.bias))
    expected = np.full((6, 3), -np.inf)
    for row in range(6):
        for unit in range(3):
            for piece in range(5):
                i = piece * 3 + unit
                value = sum(x[row, j].item() * weight[i, j] for j in range(4)) + bias[i]
                expected[row, unit] = max(expected[row, unit], value)
    assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_maxout_gradients_are_those_of_finite_differences(layer, x):
    x.requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,), eps=1e-6, atol=1e-6, rtol=1e-5)

    def of_parameters(weight, bias):
        return torch.func.functional_call(
            layer, {"linear.weight": weight, "linear.bias": bias}, (x.detach(),)
        )

    parameters = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())
    assert torch.autograd.gradcheck(of_parameters, parameters, eps=1e-6, atol=1e-6, rtol=1e-5)


def test_maxout_gradients_are_those_of_amax(layer, x):
    weights = torch.arange(18, dtype=torch.float64).view(6, 3)
    (layer(x) * weights).sum().backward()
    ours = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    (layer.linear(x).view(6, 5, 3).amax(1) * weights).sum().backward()
    theirs = [p.grad for p in layer.parameters()]
    assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_each_of_two_equal_largest_pieces_receives_the_whole_gradient(x):
    layer = Maxout(4, 1, pieces=2).double()
    with torch.no_grad():
        layer.linear.weight[1], layer.linear.bias[1] = layer.linear.weight[0], layer.linear.bias[0]
    layer(x).sum().backward()
    assert_close(layer.linear.bias.grad, torch.full((2,), 6.0).double(), rtol=1e-12, atol=0)


def test_one_piece_is_a_linear_layer(x):
    layer = Maxout(4, 3, pieces=1).double()
    assert_array_equal(layer(x).detach(), layer.linear(x).detach())


# Initial weights: closed form


@pytest.mark.parametrize(("init_range", "bounds"), [(0.05, (0.05, 0.05)), (None, (0.2, 0.1))])
def test_weights_start_uniform_within_their_range_and_biases_at_0(init_range, bounds):
    net = nn.Sequential(nn.Linear(25, 100), nn.ReLU(), nn.Linear(100, 80))
    init_uniform(net, init_range=init_range, rng=stream(0, "init"))
    for layer, bound in zip((net[0], net[2]), bounds, strict=True):
        weights = layer.weight.detach().numpy().ravel()
        assert stats.kstest(weights, stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
        assert np.abs(weights).max() <= bound
        assert_array_equal(layer.bias.detach(), 0)


def test_initial_weights_depend_on_the_stream_alone():
    nets = [Maxout(6, 4, pieces=2) for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        init_uniform(net, init_range=0.1, rng=stream(seed, "init"))
    same, again, other = (net.linear.weight.detach() for net in nets)
    assert_array_equal(same, again)
    assert not torch.equal(same, other)
