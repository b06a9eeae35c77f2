"""The conditional GAN.  Kinds: closed form, independent reference, algorithm, bad input."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import chisquare
from torch.testing import assert_close

from gan.config import ConditionalConfig, with_overrides
from gan.datasets.images import ImageSet
from gan.errors import ConditionError, ConfigError, DatasetError
from gan.extensions import conditional
from gan.extensions.conditional import (
    ConditionalDiscriminator,
    ConditionalGenerator,
    ConditionalSampler,
    Conditions,
    Units,
)
from gan.nets import Discriminator, Generator
from gan.randomness import stream
from gan.run import Run
from gan.tasks import task_of
from tests.gan.small import labelled_images, small_config, start_extension


@pytest.fixture
def run():
    return start_extension("conditional")


def trained(name="conditional", **settings):
    run = start_extension(name, **settings)
    list(run.train())
    return run.saved()


# Rows: Algorithm 1 sees (x, c) and (G(z, c), c)


def test_the_data_s_rows_are_images_with_their_own_classes(run):
    images = labelled_images()
    pixels = torch.from_numpy(images.images).flatten(1) / 255
    for _ in range(5):
        rows = next(run.minibatches)
        assert rows.shape == (8, 16 + 3)
        which = torch.cdist(rows[:, :16], pixels).argmin(1)
        assert rows[:, 16:].argmax(1).tolist() == images.labels[which].tolist()
        assert rows[:, 16:].sum(1).tolist() == [1.0] * 8


def test_vectors_stand_beside_their_own_images():
    images = labelled_images()
    rows = next(start_extension("conditional_vectors").minibatches)
    pixels = torch.from_numpy(images.images).flatten(1) / 255
    which = torch.cdist(rows[:, :16], pixels).argmin(1)
    assert_close(rows[:, 16:], torch.from_numpy(images.conditions)[which], rtol=0, atol=0)


def test_the_generator_hands_its_condition_on(run):
    rows = run.gan.prior.sample(50, stream(0, "z"))
    out = run.gan.G(rows)
    assert out.shape == (50, 16 + 3)
    assert_close(out[:, 16:], rows[:, 5:], rtol=0, atol=0)


def test_conditions_are_drawn_as_often_as_they_are_in_the_data():
    images = labelled_images()
    labels = np.repeat([0, 1, 2], [15, 10, 5])
    run = Run(
        small_config(conditional={}),
        dataclasses.replace(images, labels=labels),
        device="cpu",
        build=task_of(small_config(conditional={})).start.keywords["build"],
    )
    drawn = run.gan.prior.sample(6_000, stream(0, "z"))[:, 5:].argmax(1).bincount()
    assert chisquare(drawn, [3_000, 2_000, 1_000]).pvalue > 1e-3


# The nets


def test_the_logit_is_that_of_the_formula():
    rng = torch.Generator().manual_seed(0)
    net = Discriminator(6, hidden=[5], pieces=2, dropout_input=0.0, dropout_hidden=0.0)
    mean, spread = np.array([0.5, -1.0], np.float32), np.array([2.0, 0.1], np.float32)
    units = Units(torch.from_numpy(mean), torch.from_numpy(spread))
    D = ConditionalDiscriminator(net, units, scale=3.0)
    for parameter in D.parameters():
        torch.nn.init.normal_(parameter, generator=rng)
    row = torch.randn(7, 6, generator=rng)
    x, c = row[:, :4].numpy(), (row[:, 4:].numpy() - mean) / spread
    weight, bias = (p.detach().numpy() for p in net.layers[0].linear.parameters())
    pieces = np.concatenate([x, 3 * c], 1) @ weight.T + bias
    h = pieces.reshape(7, 2, 5).max(1)
    w, b = (p.detach().numpy() for p in net.output.parameters())
    V = D.projection.detach().numpy()
    expected = h @ w[0] + b[0] + np.einsum("nk,kh,nh->n", c, V, h)
    assert_allclose(D(row).detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_the_generator_s_net_takes_z_and_the_scaled_condition():
    rng = torch.Generator().manual_seed(0)
    net = Generator(5, hidden=[4], n_pixels=6)
    conditions = Conditions(torch.eye(2), torch.full((2,), 0.5))
    mean, spread = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.1])
    G = ConditionalGenerator(net, conditions, Units(mean, spread), scale=3.0)
    row = torch.randn(7, 5, generator=rng)
    expected = net(torch.cat([row[:, :3], 3 * (row[:, 3:] - mean) / spread], 1))
    assert_close(G(row)[:, :6], expected, rtol=1e-6, atol=1e-6)
    assert_close(G(row)[:, 6:], row[:, 3:], rtol=0, atol=0)


def test_vectors_in_other_units_give_the_same_images():
    """But for rounding: 0 to 4,000 with an offset, and a coordinate that never varies."""
    images = labelled_images()
    plain = np.concatenate([images.conditions, np.zeros((30, 1), np.float32)], 1)
    config = small_config(conditional={"on": "vectors"})
    runs = []
    for vectors in (plain, 4_000 * plain + 100):
        other = dataclasses.replace(images, conditions=vectors.astype(np.float32))
        runs.append(task_of(config).start(config, other, device="cpu"))
        list(runs[-1].train())
    first, second = (run.saved() for run in runs)
    row = first.condition_rows([0.2, 0.7, 0.0]).expand(5, -1)
    scaled = second.condition_rows([900.0, 2_900.0, 100.0]).expand(5, -1)
    ours, theirs = first.sampler().sample_given(row, 0), second.sampler().sample_given(scaled, 0)
    assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_of_a_condition_nothing_is_dropped():
    run = start_extension("conditional", discriminator__dropout_input=0.5)
    first, *_ = run.gan.D.draw_masks(1_000, stream(0, "masks"))
    assert first.shape == (1_000, 16 + 3)
    assert (first[:, 16:] == 1).all()
    assert_allclose((first[:, :16] == 0).float().mean(), 0.5, rtol=0, atol=0.02)


def test_g_learns_the_condition_and_d_to_refuse_another():
    """Class 0 is black, class 1 white: told apart by c alone, for z is the same."""
    labels = np.arange(400) % 2
    rng = np.random.default_rng(0)
    pixels = 230 * labels[:, None, None, None] + rng.integers(0, 25, (400, 1, 4, 4))
    images = ImageSet(images=pixels.astype(np.uint8), labels=labels, digest="0" * 64)
    config = small_config(
        conditional={},
        train__n_steps=400,
        train__report_every=400,
        train__optimizer="adam",
        train__learning_rate=0.003,
        train__batch_size=50,
        evaluation__score_every=400,
        generator__output_bias_from_data=False,
    )
    run = task_of(config).start(config, images, device="cpu")
    list(run.train())
    saved = run.saved()
    black, white = (
        saved.sampler().sample_given(saved.condition_rows([k]).expand(200, -1), seed=0)
        for k in (0, 1)
    )
    assert (black.mean((1, 2, 3)) < 0.3).float().mean() > 0.9
    assert (white.mean((1, 2, 3)) > 0.7).float().mean() > 0.9
    x = torch.from_numpy(images.images).flatten(1) / 255
    c = torch.nn.functional.one_hot(torch.from_numpy(labels)).float()
    D = run.gan.D.eval()
    own, other = (D(torch.cat([x, given], 1)) for given in (c, 1 - c))
    assert (own > other).float().mean() > 0.9


def test_fakes_carry_conditions_of_the_data_bit_for_bit_also_in_bfloat16():
    """Else D would know them by the rounding of c alone."""
    run = start_extension("conditional_vectors", train__precision="bfloat16")
    known = torch.from_numpy(labelled_images().conditions)
    fakes = run.gan.generate(50)[:, 16:]
    assert torch.cdist(fakes.double(), known.double()).min(1).values.max() == 0


def test_g_is_trained_on_every_condition_and_saves_some(monkeypatch):
    monkeypatch.setattr(conditional, "MAX_CONDITIONS", 10)
    run = start_extension("conditional_vectors")
    drawn = run.gan.prior.sample(2_000, stream(0, "z"))[:, 5:]
    assert len(drawn.unique(dim=0)) == 30  # as many as there are images
    saved = run.saved()
    assert saved.G.conditions.rows.shape == (10, 2)
    known = torch.from_numpy(labelled_images().conditions)
    rows = saved.G.conditions.rows.double()
    assert torch.cdist(rows, known.double()).min(1).values.max() < 1e-9


# Sampling


def test_a_net_in_training_mode_is_not_sampled():
    saved = trained()
    with pytest.raises(ValueError, match="G must be in evaluation mode"):
        ConditionalSampler(saved.G.train(), saved.sampler().prior, image_shape=(1, 4, 4))


@pytest.mark.parametrize("draw", ["sample", "sample_given"])
def test_no_image_at_all_is_refused(draw):
    what = 0 if draw == "sample" else torch.zeros(0, 3)
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        getattr(trained().sampler(), draw)(what, 0)


def test_same_seed_same_z_whatever_the_condition_and_the_batch():
    saved = trained()
    one = saved.sampler().sample_given(saved.condition_rows([1]).expand(30, -1), seed=3)
    other = saved.sampler().sample_given(saved.condition_rows([2]).expand(30, -1), seed=3)
    assert not torch.equal(one, other)
    z = saved.sampler().prior.sample(1_000, stream(3, "samples"))[:30]
    rows = torch.cat([z, saved.condition_rows([1]).expand(30, -1)], 1)
    assert_close(one, saved.G(rows)[:, :16].view(30, 1, 4, 4), rtol=1e-6, atol=1e-6)
    sampler = saved.sampler()
    sampler.batch_size = 7
    again = sampler.sample_given(saved.condition_rows([1]).expand(30, -1), seed=3)
    assert_close(again, one, rtol=1e-6, atol=1e-6)


def test_the_first_images_do_not_depend_on_how_many_are_asked_for():
    sampler = trained().sampler()
    assert_close(sampler.sample(1_050, 4)[:20], sampler.sample(20, 4), rtol=1e-6, atol=1e-6)


def test_a_picture_has_ten_images_of_a_condition_in_a_row():
    saved = trained()
    assert saved.sampler().showcase(100, seed=0).shape == (30, 1, 4, 4)  # of three classes
    vectors = trained("conditional_vectors")
    assert vectors.sampler().showcase(100, seed=0).shape == (100, 1, 4, 4)


def test_a_path_has_one_condition():
    saved = trained()
    z = saved.sampler().prior.sample(1, stream(0, "z")).expand(40, 4, -1)
    images = saved.sampler().decode_paths(z, seed=0)
    assert images.shape == (40, 4, 1, 4, 4)
    assert_close(images, images[:, :1].expand_as(images), rtol=1e-5, atol=1e-5)
    assert len(images[:, 0].flatten(1).mul(1e4).round().unique(dim=0)) == 3  # as many as classes


# Bad input


@pytest.mark.parametrize(
    ("given", "got"),
    [([3], "3"), ([-1], "-1"), ([0.5], "0.5"), ([0, 1], "0, 1"), ([], "nothing")],
)
def test_a_class_that_there_is_not_is_refused(given, got):
    match = f"the condition must be a class from 0 to 2, got {got}$"
    with pytest.raises(ConditionError, match=match):
        trained().condition_rows(given)


@pytest.mark.parametrize(
    ("given", "got"), [([1.0], "1"), ([1.0, 2.0, 3.0], "1, 2, 3"), ([0.0, float("nan")], "0, nan")]
)
def test_a_vector_of_another_length_is_refused(given, got):
    saved = trained("conditional_vectors")
    with pytest.raises(ConditionError, match=f"must be 2 finite numbers, got {got}$"):
        saved.condition_rows(given)


@pytest.mark.parametrize(
    ("changes", "on", "problem"),
    [
        ({"labels": None}, "labels", "on=labels needs a data set with labels"),
        (
            {"conditions": None},
            "vectors",
            "on=vectors needs a data set with an array",
        ),
        ({"labels": np.arange(30) % 3 * 2}, "labels", "without a gap, got 3 from 0 to 4"),
        ({"labels": np.arange(30) % 3 - 1}, "labels", "without a gap, got 3 from -1 to 1"),
    ],
)
def test_images_without_conditions_are_refused(changes, on, problem):
    config = dataclasses.replace(small_config(), conditional=ConditionalConfig(on=on))
    images = dataclasses.replace(labelled_images(), **changes)
    with pytest.raises(DatasetError, match=problem):
        task_of(config).start(config, images, device="cpu")


@pytest.mark.parametrize(
    ("conditions", "problem"),
    [
        (np.zeros((30, 2)), "must be float32"),
        (np.zeros((30, 0), np.float32), r"d >= 1, got float32 \[30, 0\]"),
        (np.zeros((29, 2), np.float32), "got 29 conditions and 30 images"),
        (np.full((30, 2), np.nan, np.float32), "conditions must be finite"),
    ],
)
def test_conditions_that_do_not_fit_the_images_are_refused(conditions, problem):
    with pytest.raises(DatasetError, match=problem):
        dataclasses.replace(labelled_images(), conditions=conditions)


def test_a_scale_that_is_not_positive_is_refused():
    with pytest.raises(ConfigError, match=r"conditional\.scale: input should be greater than 0"):
        with_overrides(small_config(), {"conditional": {"scale": 0.0}})
