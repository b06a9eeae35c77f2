"""Samples and pictures of them.  Kinds: closed form, invariance."""

from typing import get_args

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from torch.testing import assert_close

from gan.config import GeneratorConfig, PriorConfig, PriorKind
from gan.nets import build_generator
from gan.priors import build_prior
from gan.randomness import stream
from gan.sampling import NOISE_BLOCK, GeneratorSampler, save_png, tile


@pytest.fixture
def G():
    cfg = GeneratorConfig(hidden=(8,), batch_norm=True, dropout_hidden=0.5, init_range=None)
    mean = torch.full((12,), 0.4)
    return build_generator(cfg, dim=5, pixel_mean=mean, rng=stream(0, "init")).eval()


def sampler(G, kind="uniform", **settings):
    prior = build_prior(PriorConfig(kind=kind, dim=5))
    return GeneratorSampler(G, prior, image_shape=(3, 2, 2), **settings)


# Samples


def test_samples_are_images_in_the_unit_interval(G):
    images = sampler(G).sample(7, seed=0)
    assert images.shape == (7, 3, 2, 2)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1


def test_samples_are_what_g_makes_of_the_priors_draws(G):
    z = build_prior(PriorConfig(dim=5)).sample(NOISE_BLOCK, stream(3, "samples"))
    expected = G(z)[:7].view(7, 3, 2, 2)
    assert_close(sampler(G).sample(7, seed=3), expected, rtol=1e-6, atol=1e-7)


def test_same_seed_same_samples_and_another_seed_others(G):
    first = sampler(G).sample(5, seed=0)
    assert_array_equal(sampler(G).sample(5, seed=0), first)
    assert not torch.equal(sampler(G).sample(5, seed=1), first)


@pytest.mark.parametrize("kind", get_args(PriorKind))
def test_first_samples_depend_on_neither_n_nor_batch_size(G, kind):
    whole = sampler(G, kind).sample(2_100, seed=0)
    assert_close(sampler(G, kind).sample(3, seed=0), whole[:3], rtol=1e-6, atol=1e-7)
    for batch_size in (7, 5_000):
        others = sampler(G, kind, batch_size=batch_size).sample(1_234, seed=0)
        assert_close(others, whole[:1_234], rtol=1e-6, atol=1e-7)
    assert not torch.equal(whole[:1_000], whole[1_000:2_000])


def test_a_classifier_can_be_trained_on_samples(G):
    weight = torch.zeros(3, 2, 2, requires_grad=True)
    images = sampler(G).sample(4, seed=0)
    (weight * images).sum().backward()
    assert_close(weight.grad, images.sum(0), rtol=1e-6, atol=1e-7)


def test_a_generator_in_training_mode_is_refused(G):
    with pytest.raises(ValueError, match="G must be in evaluation mode, got a net in training"):
        sampler(G.train())


def test_no_samples_are_refused(G):
    with pytest.raises(ValueError, match=r"n must be >= 1, got 0"):
        sampler(G).sample(0, seed=0)


def test_decoded_z_are_gs_images_whatever_the_batch_size(G):
    z = torch.randn(23, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([G(row[None])[0].view(3, 2, 2) for row in z])
    for batch_size in (1, 7, 1_000):
        images = sampler(G, batch_size=batch_size).decode(z)
        assert_close(images, expected, rtol=1e-6, atol=1e-7)
        assert not images.requires_grad


def test_samples_are_the_decoded_draws(G):
    z = build_prior(PriorConfig(dim=5)).sample(NOISE_BLOCK, stream(3, "samples"))
    assert torch.equal(sampler(G).sample(9, seed=3), sampler(G).decode(z[:9]))


# Pictures


def test_tiles_lie_in_rows_with_white_between():
    images = torch.stack([torch.full((1, 2, 3), value) for value in (0.0, 0.2, 0.4)])
    W = 255
    expected = [
        [W, W, W, W, W, W, W, W, W],
        [W, 0, 0, 0, W, 51, 51, 51, W],
        [W, 0, 0, 0, W, 51, 51, 51, W],
        [W, W, W, W, W, W, W, W, W],
        [W, 102, 102, 102, W, W, W, W, W],
        [W, 102, 102, 102, W, W, W, W, W],
        [W, W, W, W, W, W, W, W, W],
    ]
    assert_array_equal(tile(images, columns=2, gap=1), np.array(expected, dtype=np.uint8))


def test_colours_stay_in_their_channels():
    image = torch.zeros(1, 3, 1, 2)
    image[0, 0, 0, 1] = 1.0  # the right pixel is red
    picture = tile(image, columns=1, gap=0)
    assert_array_equal(picture, np.array([[[0, 0, 0], [255, 0, 0]]], dtype=np.uint8))


def test_a_saved_picture_is_read_back_as_it_was(tmp_path):
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3)
    save_png(picture, tmp_path / "plain.png")
    save_png(picture, tmp_path / "zoomed.png", zoom=3)
    assert_array_equal(np.asarray(Image.open(tmp_path / "plain.png")), picture)
    zoomed = picture.repeat(3, axis=0).repeat(3, axis=1)
    assert_array_equal(np.asarray(Image.open(tmp_path / "zoomed.png")), zoomed)
