"""Linear layers, maxout, dropout masks, initial weights.

Kinds: closed form, independent reference, algorithm.
"""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from torch import nn
from torch.testing import assert_close

from gan import layers
from gan.layers import (
    Linear,
    Maxout,
    dropout_mask,
    init_sparse,
    init_uniform,
    trained_weights,
)
from gan.randomness import stream


def mask(n, width, drop, seed=0):
    return dropout_mask(n, width, drop=drop, rng=stream(seed, "dropout"))


# Linear layers: independent reference


def linear_and_its_gradients(x, layer, weights_of_outputs):
    """What the layer answers, and the gradients of a weighted sum of it in x, W and b."""
    y = layer(x)
    loss = (y * weights_of_outputs).sum()
    return y, *torch.autograd.grad(loss, (x, layer.weight, layer.bias))


@pytest.mark.parametrize("n", [3, 64, 200])
@pytest.mark.parametrize(("n_in", "n_out"), [(5, 7), (100, 128), (784, 512), (300, 1), (1, 300)])
def test_a_linear_layer_and_its_gradients_are_those_of_numpy(n, n_in, n_out):
    rng = torch.Generator().manual_seed(0)
    layer = Linear(n_in, n_out)
    x = torch.randn(n, n_in, generator=rng, requires_grad=True)
    of_y = torch.randn(n, n_out, generator=rng)
    got = linear_and_its_gradients(x, layer, of_y)
    a, g = x.detach().double().numpy(), of_y.double().numpy()
    W, b = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    for ours, theirs in zip(got, (a @ W.T + b, g @ W, g.T @ a, g.sum(0)), strict=True):
        assert_allclose(ours.detach().numpy(), theirs, rtol=1e-4, atol=1e-4)
        assert ours.is_contiguous()


@pytest.mark.skipif(not layers.HAS_ONEDNN, reason="this build of torch has no oneDNN")
def test_large_float32_products_go_to_onednn_and_all_others_to_torch(monkeypatch):
    asked = []
    product = layers._times_transposed
    monkeypatch.setattr(
        layers, "_times_transposed", lambda a, *rest: asked.append(a.dtype) or product(a, *rest)
    )
    layer = Linear(1_000, 500)
    layer(torch.zeros(1, 1_000))
    assert asked == [torch.float32]
    layer(torch.zeros(1, 1_000)[:0])
    Linear(1_000, 499)(torch.zeros(1, 1_000))
    layer.double()(torch.zeros(1, 1_000, dtype=torch.float64))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(torch.zeros(1, 1_000)).dtype == torch.bfloat16
    assert asked == [torch.float32]


def test_without_onednn_a_linear_layer_is_that_of_torch(monkeypatch):
    monkeypatch.setattr(layers, "HAS_ONEDNN", False)
    monkeypatch.setattr(layers, "_times_transposed", None)
    layer, x = Linear(784, 512), torch.rand(64, 784)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


@pytest.mark.skipif(not layers.HAS_ONEDNN, reason="this build of torch has no oneDNN")
def test_no_gradient_is_computed_that_nothing_requires(monkeypatch):
    layer, x = Linear(784, 512), torch.rand(64, 784, requires_grad=True)
    layer.requires_grad_(False)
    y = layer(x)
    shapes = []
    product = layers._times_transposed
    monkeypatch.setattr(
        layers,
        "_times_transposed",
        lambda a, b: shapes.append((a.shape, b.shape)) or product(a, b),
    )
    y.sum().backward()
    assert shapes == [((64, 512), (784, 512))]


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


def test_weights_of_a_convolution_start_by_the_inputs_of_a_unit():
    layer = nn.Conv2d(4, 50, 5)
    init_uniform(layer, init_range=None, rng=stream(0, "init"))
    weights = layer.weight.detach().numpy().ravel()
    assert stats.kstest(weights, stats.uniform(-0.1, 0.2).cdf).pvalue > 1e-3
    assert_array_equal(layer.bias.detach(), 0)


def test_sparse_weights_are_normal_at_inputs_drawn_for_each_unit_alike_often():
    linear = nn.Linear(50, 4_000)
    bias = linear.bias.clone()
    init_sparse(linear, n_inputs=10, rng=stream(0, "init"))
    chosen = linear.weight.detach() != 0
    assert_array_equal(chosen.sum(1), 10)
    assert stats.chisquare(chosen.sum(0)).pvalue > 0.001
    assert stats.kstest(linear.weight.detach()[chosen], "norm").pvalue > 0.001
    assert torch.equal(linear.bias, bias)


def test_more_sparse_weights_than_inputs_are_refused():
    with pytest.raises(ValueError, match="n_inputs must be at most the 3 of the layer, got 4"):
        init_sparse(nn.Linear(3, 2), n_inputs=4, rng=stream(0, "init"))


def test_trained_weights_are_those_of_layers_that_are_not_frozen():
    maxout, frozen, convolution = Maxout(4, 3, pieces=2), nn.Linear(3, 2), nn.Conv2d(1, 5, 3)
    net = nn.Sequential(maxout, frozen.requires_grad_(False), nn.BatchNorm1d(2), convolution)
    found = trained_weights(net)
    assert [tuple(weight.shape) for weight in found] == [(6, 4), (5, 1, 3, 3)]


def test_initial_weights_depend_on_the_stream_alone():
    nets = [Maxout(6, 4, pieces=2) for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        init_uniform(net, init_range=0.1, rng=stream(seed, "init"))
    same, again, other = (net.linear.weight.detach() for net in nets)
    assert_array_equal(same, again)
    assert not torch.equal(same, other)
