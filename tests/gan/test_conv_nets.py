"""Nets of the released CIFAR-10 runs: maxout convolutions, deconvolution, units of each layer.

Kinds: independent reference (direct loops, pylearn2's sizes), algorithm, invariance.
"""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from gan.config import RunConfig, TrainConfig, run_config, with_overrides
from gan.contrast import Brightness
from gan.conv_nets import build_conv_discriminator, map_shapes, require_fitting
from gan.datasets.images import ImageSet
from gan.errors import ConfigError
from gan.layers import ConvMaxout, Deconvolution, init_uniform
from gan.nets import Generator, build_generator
from gan.optimisers import build_descents
from gan.randomness import stream
from gan.run import Run
from gan.tasks import from_state

RELEASED = {
    "discriminator.convolutions": [
        {"channels": 32, "kernel": 8, "padding": 4, "pool": 4, "pool_stride": 2},
        {"channels": 32, "kernel": 8, "padding": 3, "pool": 4, "pool_stride": 2},
        {"channels": 192, "kernel": 5, "padding": 3, "pool": 2, "pool_stride": 2},
    ],
    "discriminator.hidden": [500],
}
SMALL = {
    "device": "cpu",
    "prior.dim": 4,
    "generator.hidden": [12, 18],
    "generator.activations": ["relu", "sigmoid"],
    "generator.output": "linear",
    "generator.output_bias_from_data": False,
    "generator.init_range": None,
    "generator.deconv_channels": 2,
    "generator.deconv_kernel": 2,
    "discriminator.convolutions": [
        {"channels": 4, "kernel": 3, "padding": 1, "pool": 2, "pool_stride": 2},
        {"channels": 6, "kernel": 3, "padding": 1, "pool": 3, "pool_stride": 2},
    ],
    "discriminator.hidden": [5],
    "discriminator.init_range": None,
    "train.n_steps": 4,
    "train.batch_size": 6,
    "train.report_every": 2,
    "train.contrast_norm": 13.0,
    "evaluation.score_every": 4,
}
SHAPE = (3, 8, 8)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), dtype=np.uint8)
    return ImageSet(images=pixels, labels=None, digest="0" * 64)


def config(**overrides):
    paths = {name.replace("__", "."): value for name, value in overrides.items()}
    return with_overrides(RunConfig(), SMALL | paths)


def small_discriminator():
    return build_conv_discriminator(
        config().discriminator, image_shape=SHAPE, rng=stream(0, "init")
    )


# Sizes


def test_maps_of_the_released_net_have_pylearn2s_sizes():
    cfg = with_overrides(RunConfig(), RELEASED).discriminator
    with torch.device("meta"):
        D = build_conv_discriminator(cfg, image_shape=(3, 32, 32), rng=stream(0, "init"))
    # Detectors of 33, 15 and 9 units a side; cuda-convnet pools at ceil((n - pool) / stride) + 1.
    shapes = map_shapes((3, 32, 32), D.convolutions)
    assert shapes == [(3, 32, 32), (32, 16, 16), (32, 7, 7), (192, 5, 5)]
    assert D.top.widths == (4800, 500)
    weights = [layer.conv.weight.shape for layer in D.convolutions]
    assert weights == [(64, 3, 8, 8), (64, 32, 8, 8), (384, 32, 5, 5)]


def test_deconvolution_of_the_released_net_makes_32_by_32():
    layer = Deconvolution(80, side=10, image_channels=3, kernel=5, stride=3)
    assert layer.image_shape == (3, 32, 32)
    assert layer.bias.shape == (3072,)
    assert layer(torch.zeros(2, 8000)).shape == (2, 3072)


@pytest.mark.parametrize("pool", [(1, 1), (2, 2), (3, 2), (4, 2), (4, 3)])
@pytest.mark.parametrize("side", [7, 8, 9])
def test_side_is_that_of_what_comes_out(side, pool, rng):
    layer = ConvMaxout(3, 2, pieces=2, kernel=3, padding=1, pool=pool[0], pool_stride=pool[1])
    maps = layer(torch.rand(1, 3, side, side, generator=rng))
    assert maps.shape == (1, 2, layer.side(side), layer.side(side))


# References


def test_maxout_convolution_is_that_of_direct_loops(rng):
    layer = ConvMaxout(2, 3, pieces=2, kernel=3, padding=1, pool=2, pool_stride=2)
    init_uniform(layer, init_range=1.0, rng=rng)
    with torch.no_grad():
        layer.conv.bias.copy_(torch.rand(6, generator=rng))
    x = torch.rand(2, 2, 5, 5, generator=rng)
    W, b = layer.conv.weight.detach().numpy(), layer.conv.bias.detach().numpy()
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    units = np.empty((2, 3, 5, 5))
    for n in range(2):
        for channel in range(3):
            for i in range(5):
                for j in range(5):
                    window = padded[n, :, i : i + 3, j : j + 3]
                    # Pieces of a unit are as many channels apart as there are units.
                    units[n, channel, i, j] = max(
                        (window * W[piece * 3 + channel]).sum() + b[piece * 3 + channel]
                        for piece in range(2)
                    )
    pooled = np.empty((2, 3, 3, 3))
    for i in range(3):
        for j in range(3):  # the last window has one row and column within the map
            pooled[:, :, i, j] = units[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((2, 3))
    assert_allclose(layer(x).detach(), pooled, rtol=1e-5, atol=1e-6)


def test_deconvolution_is_that_of_direct_loops(rng):
    layer = Deconvolution(2, side=3, image_channels=3, kernel=4, stride=2)
    init_uniform(layer, init_range=1.0, rng=rng)
    with torch.no_grad():
        layer.bias.copy_(torch.rand(192, generator=rng))
    h = torch.rand(2, 18, generator=rng)
    W = layer.conv.weight.detach().numpy()
    image = np.zeros((2, 3, 8, 8))
    for n in range(2):
        for channel, maps in enumerate(h[n].view(2, 3, 3).numpy()):
            for i in range(3):
                for j in range(3):
                    image[n, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += maps[i, j] * W[channel]
    expected = image.reshape(2, -1) + layer.bias.detach().numpy()
    assert_allclose(layer(h).detach(), expected, rtol=1e-5, atol=1e-6)


def test_gradients_of_a_maxout_convolution_are_those_of_finite_differences(rng):
    layer = ConvMaxout(2, 3, pieces=2, kernel=3, padding=1, pool=3, pool_stride=2).double()
    init_uniform(layer, init_range=1.0, rng=rng)
    x = torch.rand(2, 2, 5, 5, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


# Players


def test_gradients_reach_every_weight_of_both_players(images):
    run = Run(config(), images, device="cpu")
    x_fake = run.gan.generate(6)
    logits = run.gan.discriminate(torch.cat([next(run.minibatches), x_fake]))
    loss = logits.square().sum()
    for net in (run.gan.G, run.gan.D):
        grads = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
        assert all(bool(grad.any()) for grad in grads)
    assert x_fake.shape == (6, 192)


def test_masks_drop_what_enters_each_layer(rng):
    D = small_discriminator()
    masks = D.draw_masks(500, rng)
    assert [mask.shape for mask in masks] == [(500, 192), (500, 64), (500, 24), (500, 5)]
    shares = [(mask == 0).float().mean().item() for mask in masks]
    assert_allclose(shares, [0.2, 0.5, 0.5, 0.5], rtol=0, atol=0.03)
    for mask, keep in zip(masks, (0.8, 0.5, 0.5, 0.5), strict=True):
        assert_allclose(mask.unique(), [0, 1 / keep], rtol=1e-4, atol=0)


def test_masked_pixels_are_zeros_of_the_image(rng):
    D, x = small_discriminator(), torch.rand(3, 192, generator=rng)
    mask = D.draw_masks(3, rng)[0]
    # A mask has its channels last, an image first.
    dropped = x.view(3, *SHAPE) * mask.view(3, 8, 8, 3).permute(0, 3, 1, 2)
    found = D(x, [mask, None, None, None])
    assert_allclose(found.detach(), D(dropped.flatten(1)).detach(), rtol=1e-5, atol=1e-6)


def test_zero_mask_of_any_layer_leaves_the_biases_of_those_above(rng):
    D, x = small_discriminator(), torch.rand(3, 192, generator=rng)
    for i, mask in enumerate(D.draw_masks(3, rng)):
        masks = [None] * 4
        masks[i] = torch.zeros_like(mask)
        assert_allclose(D(x, masks).detach(), 0, rtol=0, atol=1e-6)
        assert D(x).abs().min() > 0


def test_rows_do_not_depend_on_the_others(rng):
    D, x = small_discriminator(), torch.rand(5, 192, generator=rng)
    masks = D.draw_masks(5, rng)
    alone = [D(x[i : i + 1], [mask[i : i + 1] for mask in masks]) for i in range(5)]
    assert_allclose(D(x, masks).detach(), torch.cat(alone).detach(), rtol=1e-5, atol=1e-6)


def test_without_dropout_there_are_no_masks(rng):
    cfg = config(discriminator__dropout_input=0.0, discriminator__dropout_hidden=0.0)
    D = build_conv_discriminator(cfg.discriminator, image_shape=SHAPE, rng=rng)
    assert D.draw_masks(3, rng) == [None] * 4


def test_hidden_layers_have_the_units_that_are_asked_for(rng):
    G = Generator(3, hidden=(4, 5), n_pixels=6, activations=("sigmoid", "relu"))
    init_uniform(G, init_range=1.0, rng=rng)
    z = torch.randn(7, 3, generator=rng)
    first = torch.sigmoid(z @ G.linears[0].weight.T)
    second = (first @ G.linears[1].weight.T).relu()
    _, *found = G.layers(z)
    for layer, expected in zip(found, (first, second), strict=True):
        assert_allclose(layer.detach(), expected.detach(), rtol=1e-5, atol=1e-6)
    expected = torch.sigmoid(second @ G.linears[2].weight.T)
    assert_allclose(G(z).detach(), expected.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kernel", "stride"), [(5, 3), (2, 2), (2, 3), (3, 1)])
def test_limit_of_columns_holds_for_the_weights_that_lead_to_each_pixel(kernel, stride, rng):
    layer = Deconvolution(4, side=5, image_channels=2, kernel=kernel, stride=stride)
    init_uniform(layer, init_range=1.0, rng=rng)
    side = layer.image_shape[1]

    def norms():
        jacobian = torch.autograd.functional.jacobian(layer, torch.zeros(1, 4 * 5 * 5))
        return jacobian.view(2, side, side, -1).norm(dim=3)

    inner = slice(kernel - 1, side - kernel + 1)  # not at the border, where units are missing
    before = norms()[:, inner, inner]
    limit = before[before > 0].mean().item()  # between positions of a small kernel all are 0
    expected = before.clamp(max=limit)
    descent, _ = build_descents(layer, nn.Linear(2, 1), TrainConfig(), g_max_norm=limit)
    descent.update(tuple(torch.zeros_like(p) for p in layer.parameters()))
    assert_allclose(norms()[:, inner, inner], expected, rtol=1e-5, atol=0)
    assert norms().max() <= limit * (1 + 1e-6)


def test_sigmoid_layers_below_a_deconvolution_start_with_their_bias():
    cfg = config(generator__sigmoid_bias=-2.0).generator
    G = build_generator(
        cfg, dim=4, pixel_mean=torch.zeros(192), rng=stream(0, "i"), image_shape=SHAPE
    )
    for linear, bias in zip(G.linears, (0, -2, 0), strict=True):
        assert_array_equal(linear.bias.detach(), bias)


def test_output_weights_may_have_a_range_of_their_own():
    cfg = config(generator__output_init_range=0.5, generator__init_range=0.01).generator
    mean = torch.zeros(192)
    G = build_generator(cfg, dim=4, pixel_mean=mean, rng=stream(0, "i"), image_shape=SHAPE)
    largest = [G.linears[i].weight.abs().max().item() for i in (0, 1)]
    assert max(largest) <= 0.01
    assert 0.3 < G.linears[2].conv.weight.abs().max() <= 0.5


def test_range_of_a_deconvolution_is_by_what_leads_to_a_pixel():
    layer = Deconvolution(5, side=3, image_channels=3, kernel=4, stride=2)
    init_uniform(layer, init_range=None, rng=torch.Generator().manual_seed(0))
    assert 0.9 < layer.conv.weight.abs().max() * np.sqrt(5 * 4 * 4) <= 1


def test_bfloat16_changes_logits_little(images):
    logits = []
    for precision in ("float32", "bfloat16"):
        gan = Run(config(train__precision=precision), images, device="cpu").gan
        x = gan.generate(20)
        logits.append(gan.discriminate(x, [None] * 4))
        assert (x.dtype, logits[-1].dtype) == (torch.float32, torch.float32)
    assert_allclose(logits[1].detach(), logits[0].detach(), rtol=0.1, atol=0.02)


# Runs


@pytest.mark.parametrize("order", ["alternating", "simultaneous"])
def test_run_goes_on_bitwise_from_its_state(images, order):
    whole = Run(config(train__update_order=order), images, device="cpu")
    reports = whole.train()
    next(reports)
    resumed = Run(config(train__update_order=order), images, device="cpu")
    resumed.set_state({name: t.clone() for name, t in whole.state().items()})
    next(reports)
    next(resumed.train())
    for name, tensor in whole.state().items():
        assert_array_equal(tensor, resumed.state()[name], err_msg=name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_trains_on_a_gpu(images, precision):
    run = Run(config(train__precision=precision), images, device="cuda")
    before = {name: p.clone() for name, p in run.gan.D.named_parameters()}
    reports = [report.metrics() for report in run.train()]
    assert all(np.isfinite(list(report.values())).all() for report in reports)
    for name, parameter in run.gan.D.named_parameters():
        assert bool(parameter.isfinite().all())
        assert not torch.equal(parameter, before[name]), name


def test_samples_are_pixels_by_the_brightness_of_the_training_images(images):
    run = Run(config(), images, device="cpu")
    saved = run.saved()
    samples = saved.sampler().sample(50, seed=1)
    assert samples.shape == (50, *SHAPE)
    assert 0 <= samples.min() < samples.max() <= 1
    x = images.images.reshape(20, -1) / 255
    lengths = np.linalg.norm(x - x.mean(1, keepdims=True), axis=1)
    expected = Brightness(shift=x.mean(), scale=lengths.mean() / 13)
    assert_allclose([saved.G.pixels.shift, saved.G.pixels.scale], expected, rtol=1e-6)
    again = from_state(run.state(), run.cfg, image_shape=SHAPE).sampler().sample(50, seed=1)
    assert_array_equal(samples, again)


REFUSED = {
    "sigmoid of normalised images": (
        {"generator": {"output_bias_from_data": True}, "train": {"contrast_norm": 55}},
        r"generator\.output must be linear with train\.contrast_norm, .*got sigmoid",
    ),
    "bias from data": (
        {"generator": {"output": "linear"}},
        r"output_bias_from_data must be false with generator\.output linear, .*got true",
    ),
    "activations": (
        {"generator": {"activations": ["relu"]}},
        r"activations must be empty or one for each of 2 hidden layers, got 1",
    ),
    "maps": (
        {"generator": {"hidden": [100], "deconv_channels": 3}},
        r"deconv_channels must divide .* into square maps, got 3 for \[100\]",
    ),
    "maps of nothing": (
        {"generator": {"hidden": [], "deconv_channels": 3}},
        r"deconv_channels must divide .* into square maps, got 3 for \[\]",
    ),
    "sparse maps": (
        {"generator": {"hidden": [100], "deconv_channels": 4, "output_sparse_init": 3}},
        r"output_sparse_init must be null with generator\.deconv_channels 4, got 3",
    ),
    "sparse range": (
        {"generator": {"output_init_range": 0.5, "output_sparse_init": 3}},
        r"output_sparse_init must be null with generator\.output_init_range 0\.5, got 3",
    ),
    "leaky convolutions": (
        {"discriminator": {"activation": "leaky_relu", "convolutions": [{"channels": 2}]}},
        r"activation must be maxout with discriminator\.convolutions, .*got leaky_relu",
    ),
    "stride": (
        {"discriminator": {"convolutions": [{"channels": 2, "pool_stride": 2}]}},
        r"pool_stride must be pool, 1, at the most, .*got 2",
    ),
    "misspelt": (
        {"discriminator": {"convolutions": [{"chanels": 2}]}},
        r"convolutions\.0\.chanels: unknown setting; did you mean channels\?",
    ),
    "extension": (
        {"conditional": {}, "discriminator": {"convolutions": [{"channels": 2}]}},
        r"discriminator\.convolutions has no part in conditional: leave it at \(\)",
    ),
}


@pytest.mark.parametrize("conflict", REFUSED)
def test_settings_that_do_not_go_together_are_refused(conflict):
    settings, message = REFUSED[conflict]
    with pytest.raises(ConfigError, match=message):
        run_config(settings)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"generator__deconv_kernel": 5},
            r"deconv_stride \* \(3 - 1\) \+ deconv_kernel must .* images, 8 and 8, got 11",
        ),
        (
            {"discriminator__convolutions": [{"channels": 2, "kernel": 9}]},
            r"convolutions\.0: kernel and pool must fit into maps of 8 x 8, got 9 and 1",
        ),
        (
            {"discriminator__convolutions": [{"channels": 2}, {"channels": 2, "pool": 5}]},
            r"convolutions\.1: kernel and pool must fit into maps of 4 x 4, got 5 and 5",
        ),
    ],
)
def test_nets_that_do_not_fit_the_images_are_refused_before_the_run(images, overrides, message):
    with pytest.raises(ConfigError, match=message):
        require_fitting(images, config(**overrides))
    with pytest.raises(ConfigError, match=message):
        Run(config(**overrides), images, device="cpu")
    require_fitting(images, config())
