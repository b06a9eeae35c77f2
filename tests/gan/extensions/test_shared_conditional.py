"""The shared model of all conditionals.  Kinds: closed form, reference, algorithm, bad input."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import chisquare, kstest
from torch.testing import assert_close

from gan.config import with_overrides
from gan.datasets.images import ImageSet
from gan.errors import ConditionError, ConfigError, DatasetError, DivergedError
from gan.evaluation.completion import log_likelihoods, questions
from gan.extensions.shared_conditional.nets import Evidence, Gumbel, build_shared_generator
from gan.extensions.shared_conditional.saved import CompletedImages, SharedSampler
from gan.extensions.shared_conditional.scores import (
    best_answer,
    classification_errors,
    completion_log_likelihoods,
    completions_picture,
    labelled,
    ways_of,
)
from gan.extensions.shared_conditional.training import complete, energy_score
from gan.masks import GROUPS
from gan.metric_names import LABEL_CROSS_ENTROPY
from gan.randomness import stream
from gan.tasks import start_run
from tests.gan.small import labelled_images, small_config, start_extension

SHAPE = (1, 4, 4)
SECTION = {"encoder_channels": [2, 3], "encoder_hidden": [6, 5]}


def trained(**settings):
    run = start_extension("shared_conditional", **settings)
    list(run.train())
    return run.saved()


def some_images(n=8):
    return torch.rand(n, *SHAPE, generator=stream(0, "images"))


def left_half(n=8):
    mask = torch.zeros(n, *SHAPE)
    mask[..., :2] = 1
    return mask


def evidence(n=8, *, label=0.0):
    known = torch.full((n, 1), label)
    return Evidence(
        x=some_images(n).flatten(1),
        y=torch.eye(3)[torch.arange(n) % 3],
        mask=torch.cat([left_half(n).flatten(1), known], 1),
    )


# The nets


@pytest.mark.parametrize("channels", [[2, 3], []])
def test_completions_are_those_of_the_formula(channels):
    """The whole forward pass in NumPy, without batch normalisation."""
    section = SECTION | {"encoder_channels": channels}
    G = trained(generator__batch_norm=False, shared_conditional=section).G
    seen, z = evidence(), torch.randn(8, 2, 5, generator=stream(0, "z"))
    noise = Gumbel(3).sample(16, stream(0, "gumbel")).view(8, 2, 3)
    found = G(seen, z, noise)
    p = {name: t.numpy() for name, t in G.state_dict().items()}

    def layer(name, rows):
        return rows @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def convolution(name, maps):
        """5 x 5 with stride 2, by loops."""
        weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
        side = -(-maps.shape[2] // 2)
        padded = np.pad(maps, ((0, 0), (0, 0), (2, 2), (2, 2)))
        out = np.empty((len(maps), len(weight), side, side))
        for i, j in np.ndindex(side, side):
            window = padded[:, :, 2 * i : 2 * i + 5, 2 * j : 2 * j + 5]
            out[:, :, i, j] = np.einsum("ncij,kcij->nk", window, weight) + bias
        return np.maximum(out, 0)

    x, m = seen.x.numpy(), seen.mask[:, :-1].numpy()
    maps = np.stack([x * m, m], 1).reshape(8, 2, 4, 4)
    for i in range(len(channels)):
        maps = convolution(f"encoder.convolutions.{3 * i}", maps)
    features = h = maps.reshape(8, -1)
    for i in range(2):
        h = np.maximum(layer(f"encoder.linears.{i}", h), 0)
    logits, local = layer("head", h), layer("skip", features)
    assert_allclose(found.logits.numpy(), logits, rtol=1e-4, atol=1e-5)
    for draw in range(2):
        classes = (logits + noise[:, draw].numpy()).argmax(1)
        y = np.eye(3)[classes]
        assert found.y[:, draw].argmax(1).tolist() == classes.tolist()
        rows = np.concatenate([h, 4.0 * y, z[:, draw].numpy()], 1)
        for i in range(2):
            rows = np.maximum(layer(f"decoder.linears.{i}", rows), 0)
        pixels = 1 / (1 + np.exp(-layer("decoder.linears.2", rows) - local))
        expected = x * m + pixels * (1 - m)
        assert_allclose(found.x[:, draw].numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_visible_variables_are_copied_bit_for_bit(precision):
    run = start_extension("shared_conditional", train__precision=precision)
    found = complete(run.gan, evidence(label=1.0), draws=2)
    seen = evidence(label=1.0)
    visible = seen.mask[:, None, :-1].expand(-1, 2, -1) > 0
    copied = seen.x[:, None].expand(-1, 2, -1)
    assert_close(found.x[visible], copied[visible], rtol=0, atol=0)
    assert_close(found.y, seen.y[:, None].expand(-1, 2, -1), rtol=0, atol=0)
    assert not torch.equal(found.x[~visible], copied[~visible])


def test_hidden_variables_have_no_influence():
    sampler = trained().sampler()
    images, mask = some_images(), left_half()
    other = torch.where(mask > 0, images, 1 - images)
    ours, theirs = (
        sampler.complete(x, mask, labels=None, draws=3, seed=0) for x in (images, other)
    )
    assert_close(ours.images, theirs.images, rtol=0, atol=0)
    assert_close(ours.log_probabilities, theirs.log_probabilities, rtol=0, atol=0)


def test_hidden_labels_are_drawn_by_their_probabilities():
    """And the largest of log p + Gumbel noise is such a draw."""
    sampler = trained().sampler()
    one = some_images(1)
    found = sampler.complete(one, left_half(1), labels=None, draws=6_000, seed=0)
    expected = 6_000 * found.log_probabilities.exp()[0].double().numpy()
    counts = found.labels[0].bincount(minlength=3).numpy()
    assert chisquare(counts, expected * (6_000 / expected.sum())).pvalue > 1e-3


def test_gumbel_noise_is_of_the_standard_distribution():
    noise = Gumbel(4).sample(2_000, stream(0, "gumbel")).flatten().numpy()
    assert kstest(noise, "gumbel_r").pvalue > 1e-3


def test_the_most_probable_label_can_be_asked_for():
    found = (
        trained()
        .sampler()
        .complete(some_images(), left_half(), labels=None, draws=4, seed=0, is_label_drawn=False)
    )
    best = found.log_probabilities.argmax(1)
    assert found.labels.tolist() == best[:, None].expand(-1, 4).tolist()


def test_d_sees_images_masks_and_labels():
    run = start_extension("shared_conditional")
    seen = evidence()
    rows = seen.rows()
    assert rows.shape == (8, 16 + 17 + 3)
    assert_close(rows[:, :16], seen.x, rtol=0, atol=0)
    assert_close(rows[:, 16:33], seen.mask, rtol=0, atol=0)
    assert_close(rows[:, 33:], seen.y, rtol=0, atol=0)
    fakes = complete(run.gan, seen, draws=2)
    of_second = fakes.rows(seen.mask, draw=1)
    assert_close(of_second[:, :16], fakes.x[:, 1], rtol=0, atol=0)
    assert_close(of_second[:, 16:33], seen.mask, rtol=0, atol=0)
    assert_close(of_second[:, 33:], fakes.y[:, 1], rtol=0, atol=0)
    assert run.gan.discriminate(rows).shape == (8,)


def test_dropout_of_the_encoder_is_drawn_once_for_all_draws_of_an_image():
    settings = SECTION | {"encoder_dropout": 0.5}
    run = start_extension("shared_conditional", shared_conditional=settings)
    own = run.gan.G.draw_masks(8, stream(0, "masks"), draws=3)
    assert [m.shape for m in own[:2]] == [(8, 6), (8, 5)]
    assert own[2:] == [None, None]
    dropped = run.gan.G.draw_masks(4_000, stream(0, "masks"))[0]
    assert_allclose((dropped == 0).float().mean(), 0.5, rtol=0, atol=0.02)


# The game and its proper scores


def test_the_energy_score_is_that_of_the_formula():
    rng = stream(0, "rows")
    x, first, second = (torch.randn(7, 5, generator=rng) for _ in range(3))
    d = [
        np.linalg.norm(a.numpy() - b.numpy(), axis=1)
        for a, b in ((x, first), (x, second), (first, second))
    ]
    expected = (d[0] + d[1]) / 2 - d[2] / 2
    assert_allclose(energy_score(x, first, second).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("shift", "scale"), [(0.5, 1.0), (0.0, 0.3), (0.0, 2.0)])
def test_the_energy_score_is_least_for_the_distribution_of_the_data(shift, scale):
    rng = stream(0, "rows")
    x, *draws = (torch.randn(40_000, 3, generator=rng) for _ in range(3))
    right = energy_score(x, *draws).mean()
    wrong = energy_score(x, *(shift + scale * draw for draw in draws)).mean()
    assert wrong > right + 0.02


def test_where_nothing_is_hidden_the_energy_score_is_0_and_has_a_gradient():
    x = torch.rand(3, 5)
    draw = x.clone().requires_grad_()
    score = energy_score(x, draw, draw.detach()).sum()
    (gradient,) = torch.autograd.grad(score, draw)
    assert_allclose(score.item(), 0.0, atol=1e-5)
    assert gradient.isfinite().all()


def test_d_alone_is_updated_by_its_loss_and_g_alone_by_the_others():
    run = start_extension("shared_conditional", train__d_steps=3, train__n_steps=1)
    list(run.train())
    assert run.gan.d_descent.n_updates == 3
    assert run.gan.g_descent.n_updates == 1


def test_weights_of_0_leave_the_game_alone():
    """The label is then not learnt: the head gets no gradient from a draw."""
    section = SECTION | {"energy_weight": 0.0, "label_weight": 0.0}
    run = start_extension("shared_conditional", shared_conditional=section)
    before = run.gan.G.head.weight.clone()
    list(run.train())
    assert_close(run.gan.G.head.weight, before, rtol=0, atol=0)


def test_reports_have_the_scores_beside_the_game():
    (report, *_) = start_extension("shared_conditional").train()
    assert {"energy_score", "label_cross_entropy", "d_loss"} <= report.metrics().keys()
    assert_allclose(report.beside[LABEL_CROSS_ENTROPY], math.log(3), rtol=0.2)


@pytest.mark.parametrize("weight", ["energy_weight", "label_weight"])
def test_a_loss_that_is_not_finite_stops_the_run(weight):
    run = start_extension("shared_conditional")
    with torch.no_grad():
        player = run.gan.G.head if weight == "label_weight" else run.gan.G.decoder
        next(player.parameters()).fill_(math.nan)
    with pytest.raises(DivergedError, match="losses must be finite, got"):
        list(run.train())


def bars(n=400):
    """Class 0: the left and right half are both dark, class 1: both bright; much the same."""
    labels = np.arange(n) % 2
    rng = np.random.default_rng(0)
    pixels = 200 * labels[:, None, None, None] + rng.integers(0, 50, (n, *SHAPE))
    return ImageSet(images=pixels.astype(np.uint8), labels=labels, digest="0" * 64)


@pytest.mark.slow
def test_it_completes_classifies_and_draws_by_class():
    config = small_config(
        shared_conditional={"encoder_channels": [4, 8], "encoder_hidden": [16]},
        generator__hidden=[16, 16],
        train__n_steps=600,
        train__report_every=600,
        train__optimizer="adam",
        train__learning_rate=0.003,
        train__batch_size=50,
        evaluation__score_every=600,
    )
    run = start_run(config, bars(), device="cpu")
    list(run.train())
    sampler = run.saved().sampler()
    images, labels = labelled(bars())
    assert classification_errors(sampler, images, labels).mean() < 0.02
    mask = torch.zeros_like(images)
    mask[..., :2] = 1
    found = sampler.complete(images[:50], mask[:50], labels=None, draws=4, seed=0)
    hidden = found.images[..., 2:].mean((2, 3, 4))
    expected = images[:50].mean((1, 2, 3)).unsqueeze(1).expand(-1, 4)
    assert_close(hidden, expected, rtol=0, atol=0.25)
    drawn = sampler.sample_given(torch.tensor([0, 1] * 50), seed=0).mean((1, 2, 3))
    assert (drawn[0::2] < 0.3).float().mean() > 0.9
    assert (drawn[1::2] > 0.6).float().mean() > 0.9
    assert 0.2 < (sampler.sample(200, seed=0).mean((1, 2, 3)) > 0.5).float().mean() < 0.8


# Sampling


def test_a_net_in_training_mode_is_not_sampled():
    saved = trained()
    with pytest.raises(ValueError, match="G must be in evaluation mode"):
        SharedSampler(saved.G.train(), saved.sampler().prior, image_shape=SHAPE)


def test_no_image_at_all_is_refused():
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        trained().sampler().sample(0, 0)


def test_completions_do_not_depend_on_the_batch():
    sampler = trained().sampler()
    whole = sampler.complete(some_images(), left_half(), labels=None, draws=3, seed=2)
    sampler.batch_size = 4
    parts = sampler.complete(some_images(), left_half(), labels=None, draws=3, seed=2)
    assert_close(parts.images, whole.images, rtol=1e-5, atol=1e-6)
    assert parts.labels.tolist() == whole.labels.tolist()
    assert whole.images.shape == (8, 3, *SHAPE)
    again = sampler.log_probabilities(some_images(), left_half())
    assert_close(again, whole.log_probabilities, rtol=1e-5, atol=1e-6)


def test_the_first_images_do_not_depend_on_how_many_are_asked_for():
    sampler = trained().sampler()
    assert_close(sampler.sample(1_050, 4)[:20], sampler.sample(20, 4), rtol=1e-5, atol=1e-6)


def test_same_seed_same_z_whatever_the_label():
    saved = trained()
    sampler = saved.sampler()
    ours, theirs = (sampler.sample_given(torch.full((20,), k), seed=3) for k in (0, 1))
    assert not torch.equal(ours, theirs)
    assert_close(saved.draw([1], n=20, seed=3), theirs, rtol=0, atol=0)


def test_a_path_has_one_label():
    sampler = trained().sampler()
    z = sampler.prior.sample(1, stream(0, "z")).expand(40, 4, -1)
    images = sampler.decode_paths(z, seed=0)
    assert images.shape == (40, 4, *SHAPE)
    assert_close(images, images[:, :1].expand_as(images), rtol=1e-5, atol=1e-5)
    assert 1 < len(images[:, 0].flatten(1).mul(1e4).round().unique(dim=0)) <= 3


def test_a_picture_has_ten_images_of_a_class_in_a_row():
    assert trained().sampler().showcase(100, seed=0).shape == (30, *SHAPE)


def test_the_exported_function_completes_as_the_sampler_does():
    saved = trained()
    net = CompletedImages(saved.G, image_shape=SHAPE)
    z = torch.randn(8, 5, generator=stream(0, "z"))
    noise = Gumbel(3).sample(8, stream(0, "gumbel"))
    for label in (0.0, 1.0):
        seen = evidence(label=label)
        found = net(some_images(), left_half(), label * seen.y, z, noise)
        expected = saved.G(seen, z[:, None], noise[:, None]).x[:, 0]
        assert_close(found.flatten(1), expected, rtol=1e-6, atol=1e-6)


# Scores


def test_the_score_is_the_mean_over_groups_of_the_likelihood_of_hidden_pixels():
    sampler = trained().sampler()
    images, labels = some_images(30), torch.arange(30) % 3
    asked = {
        group: (one.part(0, 10), one.part(10, 30))
        for group, one in questions(images, labels, n=30, seed=0).items()
    }
    found = completion_log_likelihoods(sampler, asked, seed=1)
    ways = ways_of(sampler, seed=1)
    expected = [log_likelihoods(*pair, ways=ways) for pair in asked.values()]
    assert_close(found, torch.stack(expected).mean(0), rtol=1e-9, atol=1e-9)


def test_the_best_completion_is_of_the_most_probable_class_with_z_at_its_mean():
    saved = trained()
    asked = questions(some_images(6), torch.arange(6) % 3, n=6, seed=0)["half"]
    found = best_answer(saved.sampler())(asked, 0)
    seen = Evidence(
        x=asked.images.flatten(1),
        y=torch.zeros(6, 3),
        mask=torch.cat([asked.mask.flatten(1), torch.zeros(6, 1)], 1),
    )
    expected = saved.G(seen, torch.zeros(6, 1, 5), torch.zeros(6, 1, 3)).x
    assert_close(found.flatten(2), expected, rtol=1e-6, atol=1e-6)


def test_a_picture_shows_image_visible_part_and_completions_of_each_group():
    asked = questions(some_images(30), torch.arange(30) % 3, n=30, seed=0)
    picture = completions_picture(trained().sampler(), asked, seed=0)
    assert picture.shape == (2 * len(GROUPS) * 10, *SHAPE)
    rows = picture.view(-1, 10, *SHAPE)
    first = asked["half"]
    assert_close(rows[0, 0], first.images[0], rtol=0, atol=0)
    shown = first.mask[0] > 0
    assert (rows[0, 1][~shown] == 0.5).all()
    assert_close(rows[0, 2][shown], first.images[0][shown], rtol=0, atol=0)


# Bad input


@pytest.mark.parametrize(
    ("given", "got"), [([3], "3"), ([-1], "-1"), ([0.5], "0.5"), ([], "nothing")]
)
def test_a_class_that_there_is_not_is_refused(given, got):
    with pytest.raises(ConditionError, match=f"must be a class from 0 to 2, got {got}$"):
        trained().label(given)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (None, "shared_conditional needs a data set with labels"),
        (np.arange(30) % 3 * 2, "without a gap, got 3 from 0 to 4"),
    ],
)
def test_images_without_labels_are_refused(labels, problem):
    images = dataclasses.replace(labelled_images(), labels=labels)
    config = small_config(shared_conditional=SECTION)
    with pytest.raises(DatasetError, match=problem):
        start_run(config, images, device="cpu")


def test_scores_of_images_without_labels_are_refused():
    with pytest.raises(DatasetError, match="the classes of completions need images with labels"):
        labelled(dataclasses.replace(labelled_images(), labels=None))


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"must be 1 or less together, got 0\.8 and 0\.3"):
        with_overrides(
            small_config(),
            {"shared_conditional": {"everything_share": 0.8, "blocks_share": 0.3}},
        )
    with pytest.raises(ConfigError, match="update_order must be alternating with shared_cond"):
        small_config(shared_conditional={}, train__update_order="simultaneous")


def test_initial_weights_are_those_of_the_seed():
    mean = torch.full((16,), 0.5)
    ours, theirs = (
        build_shared_generator(
            small_config(shared_conditional=SECTION),
            mean,
            image_shape=SHAPE,
            n_classes=3,
            rng=stream(0, "init"),
        ).state_dict()
        for _ in range(2)
    )
    assert_close(ours, theirs, rtol=0, atol=0)
