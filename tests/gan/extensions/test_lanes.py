"""Nets side by side.  Kinds: independent reference, closed form, invariance."""

import pytest
import torch
from numpy.testing import assert_allclose
from torch.nn import functional
from torch.testing import assert_close

from gan.extensions.semi_supervised.few_labels import FewLabels
from gan.extensions.semi_supervised.lanes import (
    BatchNormalisedLayer,
    LaneOrder,
    NormalisedLayer,
    Normals,
    lane_product,
)
from gan.randomness import stream

SIZES = pytest.mark.parametrize(
    ("lanes", "n", "n_in", "n_out"),
    [(1, 5, 4, 3), (3, 5, 4, 3), (1, 60, 120, 90)],  # the last one by way of oneDNN
)


def draw(*shape, name="x"):
    return torch.randn(*shape, generator=stream(0, name))


@SIZES
def test_weight_normalisation_and_its_gradients_are_those_of_the_formula(lanes, n, n_in, n_out):
    layer = NormalisedLayer(draw(lanes, n_in, n_out, name="theta"), is_scale_trained=True)
    with torch.no_grad():
        layer.scale.copy_(draw(lanes, 1, n_out, name="scale"))
        layer.bias.copy_(draw(lanes, 1, n_out, name="bias"))
    x, weights = draw(lanes, n, n_in).requires_grad_(), draw(lanes, n, n_out, name="weights")
    given = [x, layer.theta, layer.scale, layer.bias]
    ours = layer(x)
    exact = [t.detach().double().requires_grad_() for t in given]
    x64, theta, scale, bias = exact
    expected = x64 @ (scale * theta / torch.linalg.vector_norm(theta, dim=1, keepdim=True)) + bias
    assert_close(ours.double(), expected, rtol=1e-4, atol=1e-4)
    gradients = torch.autograd.grad((ours * weights).sum(), given)
    references = torch.autograd.grad((expected * weights).sum(), exact)
    for gradient, reference in zip(gradients, references, strict=True):
        assert_close(gradient.double(), reference, rtol=1e-4, atol=1e-4)


def test_a_fixed_scale_has_no_gradient_and_a_fixed_layer_hands_gradients_on():
    layer = NormalisedLayer(draw(2, 4, 3, name="theta"))
    assert [name for name, _ in layer.named_parameters()] == ["theta", "bias"]
    x = draw(2, 5, 4).requires_grad_()
    (free,) = torch.autograd.grad(layer(x).square().sum(), [x])
    layer.requires_grad_(False)
    (fixed,) = torch.autograd.grad(layer(x).square().sum(), [x])
    assert_close(fixed, free, rtol=0, atol=0)


def test_initialised_units_have_mean_0_and_variance_1():
    layer = NormalisedLayer(draw(2, 4, 3, name="theta"))
    x = draw(2, 50, 4) * 3 + 1
    returned = layer.initialise(x)
    y = layer(x).detach()
    assert_close(returned, y, rtol=1e-4, atol=1e-4)
    assert_allclose(y.mean(1), 0, rtol=0, atol=1e-5)
    assert_allclose(y.var(1, correction=0), 1, rtol=1e-5, atol=0)


@pytest.mark.parametrize("lanes", [1, 3])
def test_batch_normalisation_is_torch_s_in_each_lane(lanes):
    layer = BatchNormalisedLayer(draw(lanes, 4, 3, name="W"))
    with torch.no_grad():
        layer.bias.copy_(draw(lanes, 1, 3, name="bias"))
    x = draw(lanes, 6, 4)
    y = layer(x)
    W, bias = layer.weight.detach(), layer.bias.detach()
    for i in range(lanes):
        mean, var = torch.zeros(3), torch.ones(3)
        expected = functional.batch_norm(
            x[i] @ W[i], mean, var, bias=bias[i, 0], training=True, momentum=0.1, eps=1e-6
        )
        assert_close(y[i].detach(), expected, rtol=1e-5, atol=1e-5)
        assert_close(layer.mean[i, 0], mean, rtol=1e-5, atol=1e-6)
        assert_close(layer.var[i, 0], var, rtol=1e-5, atol=1e-6)


def test_running_statistics_rest_where_no_gradient_is_recorded():
    layer = BatchNormalisedLayer(draw(2, 4, 3, name="W"))
    with torch.no_grad():
        layer(draw(2, 6, 4))
    assert_close(layer.mean, torch.zeros(2, 1, 3), rtol=0, atol=0)
    assert_close(layer.var, torch.ones(2, 1, 3), rtol=0, atol=0)


def test_a_folded_layer_normalises_by_the_running_statistics():
    layer = BatchNormalisedLayer(draw(2, 4, 3, name="W"))
    for i in range(5):
        layer(draw(2, 6, 4, name=f"x{i}"))
    weight, bias = layer.weights()
    x = draw(2, 7, 4)
    y = x @ layer.weight
    expected = (y - layer.mean) / torch.sqrt(layer.var + 1e-6) + layer.bias
    assert_close(x @ weight + bias, expected, rtol=1e-5, atol=1e-5)


def test_products_in_bfloat16_differ_by_its_rounding_alone():
    x, W = draw(2, 50, 40), draw(2, 40, 30, name="W")
    exact = lane_product(x, W)
    rounded = lane_product(x.bfloat16(), W.bfloat16())
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.02 * exact.abs().max()


def test_noise_is_standard_normal_new_each_time_and_of_its_lane_alone():
    normals = Normals([(50, 20), (40, 30)], rngs=[stream(seed, "dropout") for seed in (0, 1)])
    alone = Normals([(50, 20), (40, 30)], rngs=[stream(1, "dropout")])
    for _ in range(2):
        normals.draw()
        alone.draw()
        for one, beside in zip(alone.tensors, normals.tensors, strict=True):
            assert_close(one[0], beside[1], rtol=0, atol=0)
            assert not torch.equal(beside[0], beside[1])
            assert_allclose([beside.mean(), beside.std()], [0, 1], rtol=0, atol=0.1)


@pytest.fixture
def few():
    """Two lanes of 40 images with 3 and 4 labels."""
    rows = [torch.tensor([7, 1, 30]), torch.tensor([2, 9, 5, 39])]
    labels = [torch.arange(3), torch.arange(4)]
    unlabelled = [torch.tensor(sorted(set(range(40)) - set(r.tolist()))) for r in rows]
    pixels = torch.zeros(40, 4, dtype=torch.uint8)
    parts = zip(rows, labels, unlabelled, strict=True)
    return [FewLabels(pixels, *part, image_shape=(1, 2, 2)) for part in parts]


def test_a_pass_shows_each_unlabelled_image_once_and_the_labelled_ones_in_turn(few):
    order = LaneOrder(few, batch_size=9, rngs=[stream(seed, "data") for seed in (0, 1)])
    batches = torch.stack([next(order) for _ in range(4)])  # of 36 images: a pass of 4
    assert batches.shape == (4, 4, 2, 9)
    for lane in range(2):
        labelled, labels, for_d, for_g = batches[:, :, lane].transpose(0, 1).flatten(1)
        assert_close(
            labels, few[lane].labels[(labelled[:, None] == few[lane].labelled).int().argmax(1)]
        )
        n = len(few[lane].labelled)
        assert labelled[: 36 // n * n].view(-1, n).sort(1).values.unique(dim=0).tolist() == [
            few[lane].labelled.sort().values.tolist()
        ]
        for rows in (for_d, for_g):
            assert len(rows.unique()) == 36
            assert set(rows.tolist()) <= set(few[lane].unlabelled.tolist())
        assert not torch.equal(for_d, for_g)
    assert not torch.equal(next(order), batches[0])


def test_a_lane_s_order_does_not_depend_on_its_neighbours(few):
    beside = LaneOrder(few, batch_size=9, rngs=[stream(seed, "data") for seed in (0, 1)])
    alone = LaneOrder(few[1:], batch_size=9, rngs=[stream(1, "data")])
    for _ in range(4):
        assert_close(next(beside)[:, 1:], next(alone), rtol=0, atol=0)


def test_an_order_goes_on_where_its_state_was_read(few):
    rngs = [stream(seed, "data") for seed in (0, 1)]
    order = LaneOrder(few, batch_size=9, rngs=rngs)
    next(order)
    state = {name: tensor.clone() for name, tensor in order.state().items()}
    streams = [rng.get_state() for rng in rngs]
    expected = [next(order).clone() for _ in range(6)]
    again = [stream(0, "other"), stream(1, "other")]
    resumed = LaneOrder(few, batch_size=9, rngs=again)
    resumed.set_state(state)
    for rng, saved in zip(again, streams, strict=True):
        rng.set_state(saved)
    for rows in expected:
        assert_close(next(resumed), rows, rtol=0, atol=0)
