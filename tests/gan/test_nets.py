"""Generator and Discriminator.  Kinds: closed form, independent reference."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.testing import assert_close

from gan.config import DiscriminatorConfig, GeneratorConfig
from gan.nets import Discriminator, Generator, build_discriminator, build_generator
from gan.randomness import stream


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def pixel_mean(rng):
    return torch.from_numpy(np.concatenate([[0.0, 1.0], rng.uniform(0.01, 0.99, 14)]))


def small_generator(**settings):
    torch.manual_seed(0)
    return Generator(5, hidden=(7, 6), n_pixels=16, **settings)


def small_discriminator(**settings):
    torch.manual_seed(0)
    defaults = {"hidden": (6, 4), "pieces": 3, "dropout_input": 0.2, "dropout_hidden": 0.5}
    return Discriminator(16, **(defaults | settings))


def numpy_linear(x, linear):
    return x @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()


def masks_of(net, n):
    return net.draw_masks(n, stream(0, "dropout"))


# Independent reference


def test_generator_is_relu_layers_and_a_sigmoid(rng):
    G, z = small_generator(dropout_hidden=0.5), rng.normal(size=(9, 5)).astype(np.float32)
    masks = masks_of(G, 9)
    h = z
    for i in range(2):
        h = np.maximum(numpy_linear(h, G.linears[i]), 0) * masks[i].numpy()
    expected = 1 / (1 + np.exp(-numpy_linear(h, G.linears[2])))
    got = G(torch.from_numpy(z), masks).detach().numpy()
    assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_hidden_layers_of_g_have_the_activations_that_are_named(rng):
    G = small_generator(activations=("sigmoid", "relu"))
    z = rng.normal(size=(9, 5)).astype(np.float32)
    h = 1 / (1 + np.exp(-numpy_linear(z, G.linears[0])))
    h = np.maximum(numpy_linear(h, G.linears[1]), 0)
    expected = 1 / (1 + np.exp(-numpy_linear(h, G.linears[2])))
    assert_allclose(G(torch.from_numpy(z)).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert_allclose(G.layers(torch.from_numpy(z))[2].detach().numpy(), h, rtol=1e-5, atol=1e-6)


def test_batch_norm_comes_before_the_relu(rng):
    G, z = small_generator(batch_norm=True), rng.normal(size=(9, 5)).astype(np.float32)
    h = z
    for i in range(2):
        h = numpy_linear(h, G.linears[i])
        h = np.maximum((h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5), 0)
    expected = 1 / (1 + np.exp(-numpy_linear(h, G.linears[2])))
    assert_allclose(G(torch.from_numpy(z)).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_discriminator_is_dropout_and_maxout_layers_and_one_logit(rng):
    D, x = small_discriminator(), rng.random((9, 16), dtype=np.float32)
    masks = masks_of(D, 9)
    h = x * masks[0].numpy()
    for layer, mask in zip(D.layers, masks[1:], strict=True):
        pieces = numpy_linear(h, layer.linear).reshape(9, 3, -1)
        h = pieces.max(axis=1) * mask.numpy()
    expected = numpy_linear(h, D.output)[:, 0]
    got = D(torch.from_numpy(x), masks).detach().numpy()
    assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_discriminator_without_pieces_has_leaky_relus_of_slope_a_fifth(rng):
    D, x = small_discriminator(pieces=None), rng.random((9, 16), dtype=np.float32)
    h = x
    for layer in D.layers:
        h = numpy_linear(h, layer)
        h = np.where(h > 0, h, 0.2 * h)
    expected = numpy_linear(h, D.output)[:, 0]
    assert_allclose(D(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


# Closed form


def test_nets_of_the_paper_have_its_layers():
    rng = stream(0, "init")
    G = build_generator(GeneratorConfig(), dim=100, pixel_mean=torch.full((784,), 0.1), rng=rng)
    D = build_discriminator(DiscriminatorConfig(), n_pixels=784, rng=rng)
    shapes = [tuple(p.shape) for p in G.parameters()]
    assert shapes == [(1200, 100), (1200,), (1200, 1200), (1200,), (784, 1200), (784,)]
    shapes = [tuple(p.shape) for p in D.parameters()]
    assert shapes == [(1200, 784), (1200,), (1200, 240), (1200,), (1, 240), (1,)]


@pytest.mark.parametrize(("init_range", "expected"), [(0.05, 0.05), (None, 1 / math.sqrt(100))])
def test_weights_of_g_start_within_their_range(init_range, expected):
    cfg = GeneratorConfig(hidden=(300,), init_range=init_range)
    mean = torch.full((10,), 0.5)
    G = build_generator(cfg, dim=100, pixel_mean=mean, rng=stream(0, "init"))
    largest = G.linears[0].weight.abs().max().item()
    assert_allclose(largest, expected, rtol=1e-3, atol=0)
    assert_array_equal(G.linears[0].bias.detach(), 0)


def test_weights_of_d_start_within_their_range_and_its_biases_at_0():
    D = build_discriminator(DiscriminatorConfig(), n_pixels=784, rng=stream(0, "init"))
    for weight in (D.layers[0].linear.weight, D.layers[1].linear.weight):
        assert_allclose(weight.abs().max().item(), 0.005, rtol=1e-3, atol=0)
    assert D.output.weight.abs().max() <= 0.005
    for bias in (D.layers[0].linear.bias, D.layers[1].linear.bias, D.output.bias):
        assert_array_equal(bias.detach(), 0)


def test_output_bias_is_the_logit_of_each_pixels_mean_clipped_at_1e_minus_7(pixel_mean):
    G = build_generator(GeneratorConfig(), dim=3, pixel_mean=pixel_mean, rng=stream(0, "init"))
    clipped = np.clip(pixel_mean.numpy(), 1e-7, 1 - 1e-7)
    expected = np.log(clipped / (1 - clipped))
    assert_allclose(G.output_bias.detach().numpy(), expected, rtol=1e-6, atol=1e-6)
    assert_allclose(G.output_bias[0].item(), -16.118, rtol=1e-4, atol=0)  # a border pixel


def test_sigmoid_layers_start_with_their_bias_and_the_others_at_0(pixel_mean):
    cfg = GeneratorConfig(
        hidden=(7, 6, 5), activations=("relu", "sigmoid", "relu"), sigmoid_bias=-2.0
    )
    G = build_generator(cfg, dim=3, pixel_mean=pixel_mean, rng=stream(0, "init"))
    for linear, bias in zip(G.linears[:-1], (0, -2, 0), strict=True):
        assert_array_equal(linear.bias.detach(), bias)


def test_sparse_pixels_have_a_few_normal_weights_each_and_change_no_other_layer(pixel_mean):
    cfg = GeneratorConfig(hidden=(7, 60), output_sparse_init=5)
    G = build_generator(cfg, dim=3, pixel_mean=pixel_mean, rng=stream(0, "init"))
    weight = G.linears[-1].weight.detach()
    assert_array_equal((weight != 0).sum(1), 5)
    assert weight.abs().max() > 0.05
    dense = build_generator(
        GeneratorConfig(hidden=(7, 60)), dim=3, pixel_mean=pixel_mean, rng=stream(0, "init")
    )
    assert torch.equal(G.linears[1].weight, dense.linears[1].weight)
    assert torch.equal(G.output_bias, dense.output_bias)


def test_output_bias_starts_at_0_where_the_data_is_not_to_set_it(pixel_mean):
    cfg = GeneratorConfig(output_bias_from_data=False)
    G = build_generator(cfg, dim=3, pixel_mean=pixel_mean, rng=stream(0, "init"))
    assert_array_equal(G.output_bias.detach(), 0)


def test_generator_with_biases_alone_makes_the_mean_image(pixel_mean):
    cfg = GeneratorConfig(init_range=1e-12)
    G = build_generator(cfg, dim=3, pixel_mean=pixel_mean, rng=stream(0, "init"))
    image = G(torch.randn(1, 3, generator=stream(0, "z"))).detach()[0]
    assert_close(image, pixel_mean.float(), rtol=1e-5, atol=1e-6)


def test_each_layer_of_d_has_a_mask_of_its_width_and_share():
    D = small_discriminator(hidden=(60, 40), dropout_input=0.25, dropout_hidden=0.75)
    masks = masks_of(D, 500)
    assert [tuple(mask.shape) for mask in masks] == [(500, 16), (500, 60), (500, 40)]
    dropped = [(mask == 0).float().mean().item() for mask in masks]
    assert_allclose(dropped, [0.25, 0.75, 0.75], rtol=0, atol=0.03)


def test_each_hidden_layer_of_g_has_a_mask():
    masks = masks_of(small_generator(dropout_hidden=0.25), 500)
    assert [tuple(mask.shape) for mask in masks] == [(500, 7), (500, 6)]
    assert_allclose((masks[0] == 0).float().mean().item(), 0.25, rtol=0, atol=0.05)


def test_nothing_is_masked_where_nothing_is_dropped():
    assert masks_of(small_generator(), 4) == [None, None]
    D = small_discriminator(dropout_input=0.0)
    assert masks_of(D, 4)[0] is None
    assert masks_of(D, 4)[1] is not None


def test_no_masks_drop_nothing():
    D, x = small_discriminator(), torch.rand(4, 16, generator=stream(0, "x"))
    assert_array_equal(D(x).detach(), D(x, [None, None, None]).detach())


# Invariance


def test_rows_of_a_batch_do_not_touch_each_other():
    G, D = small_generator(), small_discriminator()
    z = torch.randn(8, 5, generator=stream(0, "z"))
    assert_close(D(G(z))[:3], D(G(z[:3])), rtol=1e-5, atol=1e-6)


def test_initial_weights_depend_on_the_stream_alone(pixel_mean):
    def build(seed):
        rng = stream(seed, "init")
        G = build_generator(GeneratorConfig(), dim=3, pixel_mean=pixel_mean, rng=rng)
        D = build_discriminator(DiscriminatorConfig(), n_pixels=16, rng=rng)
        return torch.cat([p.detach().flatten() for net in (G, D) for p in net.parameters()])

    torch.manual_seed(1)
    first = build(0)
    torch.manual_seed(2)
    assert_array_equal(build(0), first)
    assert not torch.equal(build(1), first)


def test_a_net_without_hidden_layers_is_a_linear_one():
    mean = torch.full((4,), 0.5)
    G = build_generator(GeneratorConfig(hidden=()), dim=3, pixel_mean=mean, rng=stream(0, "init"))
    z = torch.randn(2, 3, generator=stream(0, "z"))
    assert_array_equal(G(z, masks_of(G, 2)).detach(), G.linears[0](z).sigmoid().detach())
