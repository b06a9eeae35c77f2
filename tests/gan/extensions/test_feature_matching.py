"""Feature matching.  Kinds: independent reference, closed form, algorithm, invariance."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import log_softmax, logsumexp, softmax
from torch.testing import assert_close

from gan.datasets.images import ImageSet
from gan.errors import DivergedError
from gan.extensions.semi_supervised.feature_matching import FeatureMatching
from gan.extensions.semi_supervised.few_labels import draw_few, hide
from gan.extensions.semi_supervised.losses import (
    consistency_loss,
    consistency_targets,
    feature_loss,
    labelled_loss,
    unlabelled_loss,
)
from gan.extensions.semi_supervised.nets import (
    PlainClassifier,
    PlainGenerator,
    classify,
    plain_weights,
)
from gan.extensions.semi_supervised.run import SemiSupervisedRun
from gan.randomness import stream
from tests.gan.small import EXTENSIONS, labelled_images, small_config

SMALL = EXTENSIONS["semi_supervised"]["semi_supervised"]
CONSISTENT = EXTENSIONS["semi_supervised_consistent"]["semi_supervised"]


def small_lanes(*seeds, is_supervised=False, images=None, section=None, **settings):
    config = small_config(semi_supervised=SMALL | (section or {}), **settings)
    images = labelled_images() if images is None else images
    few = [hide(images, draw_few(images.labels, 6, seed=seed)) for seed in seeds]
    return FeatureMatching(config, few, seeds=seeds, device="cpu", is_supervised=is_supervised)


def logits(name):
    return 3 * torch.randn(2, 7, 4, generator=stream(0, name))


# The losses


def test_the_labelled_loss_is_the_cross_entropy_of_each_lane():
    labels = torch.randint(0, 4, (2, 7), generator=stream(0, "labels"))
    of_each = log_softmax(logits("l").numpy(), axis=2)
    expected = [
        -np.mean([of_each[lane, i, labels[lane, i]] for i in range(7)]) for lane in range(2)
    ]
    assert_allclose(labelled_loss(logits("l"), labels), expected, rtol=1e-5, atol=1e-6)


def test_the_unlabelled_loss_is_that_of_k_classes_and_fakes_whose_logit_is_0():
    """Half of -log p(no fake | image) - log p(fake | fake), by a softmax over K + 1 classes."""
    zero = np.zeros((2, 7, 1))
    p_unlabelled = softmax(np.concatenate([logits("u"), zero], 2), axis=2)
    p_fake = softmax(np.concatenate([logits("f"), zero], 2), axis=2)
    expected = -np.log(p_unlabelled[..., :4].sum(2)) - np.log(p_fake[..., 4])
    found = unlabelled_loss(logits("u"), logits("f"))
    assert_allclose(found, expected.mean(1) / 2, rtol=1e-5, atol=1e-6)


def test_the_unlabelled_loss_is_that_of_the_source():
    z_u, z_f = (logsumexp(logits(name).numpy(), axis=2) for name in "uf")
    softplus_u, softplus_f = np.logaddexp(0, z_u), np.logaddexp(0, z_f)
    expected = -0.5 * z_u.mean(1) + 0.5 * softplus_u.mean(1) + 0.5 * softplus_f.mean(1)
    assert_allclose(unlabelled_loss(logits("u"), logits("f")), expected, rtol=1e-5, atol=1e-6)


def test_the_unlabelled_loss_is_finite_at_logits_of_any_size():
    for size in (1e4, -1e4):
        assert unlabelled_loss(logits("u") + size, logits("f") + size).isfinite().all()


def test_the_feature_loss_compares_means_over_the_minibatch():
    fake, real = logits("f").numpy(), logits("r").numpy()
    expected = [((fake[i].mean(0) - real[i].mean(0)) ** 2).mean() for i in range(2)]
    found = feature_loss(torch.from_numpy(fake), torch.from_numpy(real))
    assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_consistency_loss_is_the_cross_entropy_given_the_targets():
    targets = softmax(logits("t").numpy(), axis=2)
    expected = -(targets * log_softmax(logits("d").numpy(), axis=2)).sum(2).mean(1)
    found = consistency_loss(logits("d"), torch.from_numpy(targets))
    assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_targets_are_powers_of_the_probabilities_over_the_shares():
    shares = softmax(logits("s").numpy(), axis=2).mean(1, keepdims=True)
    powers = (softmax(logits("l").numpy(), axis=2) / shares) ** 2.5
    found = consistency_targets(logits("l"), torch.from_numpy(shares), power=2.5)
    assert_allclose(found, powers / powers.sum(2, keepdims=True), rtol=1e-4, atol=1e-6)


def test_targets_are_what_d_says_where_classes_are_alike_frequent_and_the_power_is_1():
    shares = torch.full((2, 1, 4), 0.25)
    found = consistency_targets(logits("l"), shares, power=1.0)
    assert_allclose(found, softmax(logits("l").numpy(), axis=2), rtol=1e-5, atol=1e-6)


# The nets


def test_d_begins_with_units_of_mean_0_and_variance_1_on_training_images():
    images = labelled_images(400)
    lanes = small_lanes(0, 1, images=images, section={"noise_input": 0.0, "noise_hidden": 0.0})
    for lane in range(2):
        h = lanes.few[lane].pixels[lanes.few[lane].unlabelled].float().div(255)
        for layer in lanes.D.layers:
            W, bias = layer.weights()
            h = (h.relu() if layer is not lanes.D.layers[0] else h) @ W[lane] + bias[lane]
            assert_allclose(h.mean(0).detach(), 0, rtol=0, atol=0.2)
            assert_allclose(h.std(0).detach(), 1, rtol=0, atol=0.2)


def test_g_begins_at_the_mean_image():
    images = labelled_images(400)
    images.images[:, 0, 1, 1] = 30
    lanes = small_lanes(0, images=images)
    bias = torch.sigmoid(lanes.G.output.bias[0, 0]).detach()
    mean = torch.from_numpy(images.images).flatten(1).double().mean(0).div(255)
    assert_allclose(bias, mean.clamp(1e-3, 1 - 1e-3), rtol=1e-4, atol=0)


def test_initial_weights_do_not_depend_on_the_neighbours():
    beside, alone = small_lanes(0, 1, 2), small_lanes(1)
    for net in ("D", "G"):
        for key, tensor in getattr(alone, net).state_dict().items():
            assert torch.equal(getattr(beside, net).state_dict()[key][1:2], tensor)


def test_plain_nets_are_a_lane_s_in_evaluation_mode():
    lanes = small_lanes(0, train__optimizer="adam", train__learning_rate=0.01)
    for _ in range(5):
        lanes.advance()
    D, G = PlainClassifier([16, 9, 8, 3]), PlainGenerator([5, 7, 6, 16])
    D.load_state_dict(plain_weights(lanes.D.state_dict()))
    G.load_state_dict(plain_weights(lanes.G.state_dict()))
    pixels = lanes.few[0].pixels
    without_noise = [torch.zeros(1, 30, width) for width in (16, 9, 8)]
    expected = lanes.D(pixels.float().div(255).unsqueeze(0), without_noise)
    assert_close(D(pixels.float() / 255), expected[0], rtol=1e-4, atol=1e-4)
    assert_close(classify(lanes.D, pixels, chunk=7), expected, rtol=1e-4, atol=1e-4)
    # G by the running statistics, written out
    h = z = lanes.config.prior.dim and torch.randn(20, 5, generator=stream(0, "z"))
    for layer in lanes.G.layers:
        y = (h @ layer.weight[0] - layer.mean[0]) / torch.sqrt(layer.var[0] + 1e-6)
        h = torch.log1p(torch.exp(y + layer.bias[0]))
    theta = lanes.G.output.theta[0]
    y = h @ (lanes.G.output.scale[0] * theta / theta.norm(dim=0)) + lanes.G.output.bias[0]
    assert_close(G(z), torch.sigmoid(y), rtol=1e-4, atol=1e-4)


# Training


@pytest.mark.parametrize("section", [SMALL, CONSISTENT])
def test_a_lane_is_trained_alike_alone_and_beside_others(section):
    settings = {"train__optimizer": "adam", "train__learning_rate": 0.01, "section": section}
    beside, alone = small_lanes(0, 1, 2, 3, **settings), small_lanes(2, **settings)
    for _ in range(8):
        beside.advance()
        alone.advance()
    for net in ("D", "G"):
        for key, tensor in getattr(alone, net).state_dict().items():
            found = getattr(beside, net).state_dict()[key][2:3]
            assert_close(found, tensor, rtol=1e-3, atol=1e-4)
    losses = beside.read_losses()
    assert_close(losses[:, 2:3], alone.read_losses(), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(losses[:, 2], losses[:, 1])


def test_losses_are_summed_until_they_are_read():
    lanes = small_lanes(0, 1)
    lanes.advance()
    first = lanes.read_losses()
    assert (first[:3] > 0).all()
    assert_close(lanes.read_losses(), torch.zeros(4, 2), rtol=0, atol=0)


def test_losses_are_four_where_distorted_copies_have_a_part():
    for section, is_zero in ((SMALL, True), (CONSISTENT, False)):
        lanes = small_lanes(0, 1, section=section)
        lanes.advance()
        assert (lanes.read_losses()[3] == 0).tolist() == [is_zero, is_zero]


def test_a_run_reports_consistency_where_it_has_a_part():
    for section, names in ((SMALL, set()), (CONSISTENT, {"consistency_loss"})):
        run = SemiSupervisedRun(
            small_config(semi_supervised=section), labelled_images(), device="cpu"
        )
        (*_, report) = run.train()
        assert {name for name in report.metrics() if "consistency" in name} == names


def test_shares_of_classes_follow_what_d_says():
    lanes = small_lanes(0, 1, section=CONSISTENT)
    given = logits("shares")[:, :, :3]
    lanes._targets(given)
    expected = 0.99 / 3 + 0.01 * softmax(given.numpy(), axis=2).mean(1)
    assert_allclose(lanes.state()["shares"][:, 0], expected, rtol=1e-5, atol=0)


def test_labelled_images_and_copies_are_distorted_and_others_not():
    section = CONSISTENT | {"rotation": 0.0, "shift": 100.0}  # most of them out of the picture
    lanes = small_lanes(0, section=section)
    seen = []
    lanes.D.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    lanes.advance()
    labelled, unlabelled, _, copies = seen[0].split(lanes.config.train.batch_size, 1)
    pixels = lanes.few[0].pixels.float() / 255
    assert (unlabelled[0, :, None] == pixels).all(2).any(1).all()
    for moved in (labelled, copies):
        assert (moved.sum(2) == 0).float().mean() > 0.8


def test_a_weight_on_consistency_makes_copies_and_images_agree():
    settings = {"train__optimizer": "adam", "train__learning_rate": 0.01}
    losses = []
    for weight in (1e-9, 10.0):
        section = CONSISTENT | {"consistency_weight": weight}
        lanes = small_lanes(0, 1, section=section, train__n_steps=1000, **settings)
        for _ in range(60):
            lanes.advance()
        lanes.read_losses()
        for _ in range(20):
            lanes.advance()
        losses.append(lanes.read_losses()[3])
    assert (losses[1] < 0.8 * losses[0]).all()


def test_a_supervised_net_learns_from_distorted_images_too():
    section = CONSISTENT | {"rotation": 0.0, "shift": 100.0}
    lanes = small_lanes(0, section=section, is_supervised=True)
    seen = []
    lanes.D.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    lanes.advance()
    assert (seen[0].sum(2) == 0).float().mean() > 0.8


def test_a_supervised_net_sees_the_labelled_images_alone():
    images = labelled_images()
    changed = dataclasses.replace(images, images=images.images.copy())
    labelled = draw_few(images.labels, 6, seed=0)
    others = np.setdiff1d(np.arange(30), labelled)
    changed.images[others] = 255 - changed.images[others]
    states = []
    for given in (images, changed):
        lanes = small_lanes(0, images=given, is_supervised=True, train__optimizer="adam")
        for _ in range(5):
            lanes.advance()
        states.append(lanes.D.state_dict())
    assert_close(*states, rtol=0, atol=0)


def test_g_stays_as_it_is_where_d_is_supervised():
    lanes = small_lanes(0, is_supervised=True)
    before = {k: t.clone() for k, t in lanes.G.state_dict().items()}
    lanes.advance()
    assert_close(lanes.G.state_dict(), before, rtol=0, atol=0)


def test_averages_follow_the_weights():
    lanes = small_lanes(0, train__average_decay=0.75, train__learning_rate=0.5)
    expected = {k: t.clone() for k, t in lanes.D.state_dict().items()}
    for _ in range(4):
        lanes.advance()
        for key, tensor in lanes.D.state_dict().items():
            expected[key] = 0.75 * expected[key] + 0.25 * tensor
    D, _ = lanes.nets()
    assert D is not lanes.D
    assert_close(D.state_dict(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("anneal_from", "factors"),
    [
        (1.0, [1, 1, 1, 1]),
        (0.5, [1, 1, 1, 0.5]),
        (0.0, [1, 0.75, 0.5, 0.25]),
    ],
)
def test_the_step_size_falls_linearly_after_a_share_of_the_steps(anneal_from, factors):
    section = {"anneal_from": anneal_from}
    lanes = small_lanes(0, section=section, train__learning_rate=0.2, train__decay_per_step=1.0)
    rates = []
    for _ in range(4):
        rates.append(lanes.learning_rate)
        lanes.advance()
    assert_allclose(rates, 0.2 * np.array(factors), rtol=1e-12, atol=0)


def test_a_step_is_captured_on_a_gpu_alone():
    with pytest.raises(ValueError, match=r"on CUDA with train.optimizer=adam, got cpu and sgd"):
        small_lanes(0).capture()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("section", [SMALL, CONSISTENT])
def test_captured_steps_are_the_steps_themselves(section):
    config = small_config(semi_supervised=section, train__optimizer="adam", train__n_steps=20)
    images = labelled_images()
    states = []
    for is_captured in (False, True):
        few = [hide(images, draw_few(images.labels, 6, seed=seed)) for seed in range(3)]
        lanes = FeatureMatching(config, few, seeds=range(3), device="cuda")
        if is_captured:
            lanes.capture()
        while lanes.step < 20:
            lanes.advance()
        states.append(lanes.state())
    assert_close(*states, rtol=1e-4, atol=1e-5)


def test_black_and_white_are_told_apart_by_one_label_each():
    classes = np.arange(400) % 2
    rng = np.random.default_rng(0)
    pixels = 230 * classes[:, None, None, None] + rng.integers(0, 25, (400, 1, 4, 4))
    images = ImageSet(images=pixels.astype(np.uint8), labels=classes, digest="0" * 64)
    config = small_config(
        semi_supervised=SMALL | {"n_labels": 2},
        train__n_steps=200,
        train__report_every=200,
        train__optimizer="adam",
        train__learning_rate=0.003,
        train__batch_size=50,
        evaluation__score_every=200,
    )
    run = SemiSupervisedRun(config, images, device="cpu")
    list(run.train())
    p = run.saved().log_probabilities(torch.from_numpy(images.images) / 255).exp()
    assert_allclose(p.sum(1), 1, rtol=1e-5, atol=0)
    assert (p.argmax(1).numpy() == classes).all()


def test_a_loss_that_is_not_finite_stops_the_run():
    config = small_config(semi_supervised=SMALL)
    run = SemiSupervisedRun(config, labelled_images(), device="cpu")
    with torch.no_grad():
        run.method.lanes.D.layers[0].bias.fill_(float("nan"))
    with pytest.raises(DivergedError, match="losses must be finite, got labelled_loss = nan"):
        list(run.train())
