"""Global contrast normalisation and the way back to pixels.

Kinds: independent reference (loops), closed form, invariance.
"""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from gan.contrast import Brightness, mean_brightness, normalise_contrast
from gan.layers import UnitPixels
from gan.minibatches import Minibatches
from gan.randomness import stream

NORM = 55.0


@pytest.fixture
def images():
    """Pictures of several brightnesses and contrasts, that no affine map below cuts off."""
    rng = np.random.default_rng(0)
    middle = rng.integers(90, 160, (40, 1, 1, 1))
    noise = rng.integers(-60, 61, (40, 3, 4, 4)) * rng.uniform(0.2, 1, (40, 1, 1, 1))
    return (middle + noise).astype(np.uint8)


def rows(images):
    return torch.from_numpy(images).flatten(1).float()


def test_normalised_images_are_those_of_pylearn2(images):
    expected = []
    for image in images.reshape(len(images), -1).tolist():
        mean = sum(image) / len(image)
        length = math.sqrt(sum((pixel - mean) ** 2 for pixel in image))
        expected.append([NORM * (pixel - mean) / length for pixel in image])
    assert_allclose(normalise_contrast(rows(images), norm=NORM), expected, rtol=2e-5, atol=2e-5)


def test_normalised_images_have_no_mean_and_one_norm(images):
    found = normalise_contrast(rows(images).double(), norm=NORM)
    assert_allclose(found.mean(1), 0, rtol=0, atol=1e-12)
    assert_allclose(found.norm(dim=1), NORM, rtol=1e-12, atol=0)


def test_brightness_and_contrast_of_an_image_make_no_difference(images):
    x = rows(images).double()
    found = normalise_contrast(0.5 * x + 20, norm=NORM)
    assert_allclose(found, normalise_contrast(x, norm=NORM), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("colour", [0, 7, 179, 255])
def test_image_of_one_colour_becomes_zero(colour):
    plain = torch.full((2, 3072), float(colour))
    assert_array_equal(normalise_contrast(plain, norm=NORM), 0)
    plain[0, 5] += 1 if colour < 255 else -1
    assert_allclose(normalise_contrast(plain, norm=NORM).norm(dim=1), [NORM, 0], rtol=1e-4)


def test_round_trip_by_an_images_own_brightness_is_exact(images):
    for image in images:
        there = normalise_contrast(rows(image[None]).double(), norm=NORM)
        own = UnitPixels(mean_brightness(image[None], norm=NORM)).double()
        assert_allclose(own(there), rows(image[None]) / 255, rtol=0, atol=1e-7)


def test_round_trip_by_the_mean_brightness_has_the_error_that_is_stated(images):
    x = rows(images).double() / 255
    means, lengths = x.mean(1), (x - x.mean(1, keepdim=True)).norm(dim=1)
    back = UnitPixels(mean_brightness(images, norm=NORM)).double()
    error = (back(normalise_contrast(x * 255, norm=NORM)) - x).square().mean()
    expected = means.var(correction=0) + lengths.var(correction=0) / x.shape[1]
    assert_allclose(error, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("factor", [0.97, 1.03])
@pytest.mark.parametrize("field", ["shift", "scale"])
def test_no_other_map_comes_nearer(images, field, factor):
    x = rows(images).double() / 255
    there = normalise_contrast(x * 255, norm=NORM)
    best = mean_brightness(images, norm=NORM)
    other = best._replace(**{field: getattr(best, field) * factor})

    def error(brightness):
        return (brightness.shift + brightness.scale * there - x).square().mean()

    assert error(best) < error(other)


def test_pixels_are_cut_off_outside_of_the_unit_interval():
    pixels = UnitPixels(Brightness(shift=0.5, scale=0.25))
    found = pixels(torch.tensor([[-3.0, -2.0, 0.0, 1.0, 2.0, 9.0]]))
    assert_array_equal(found, [[0, 0, 0.5, 0.75, 1, 1]])


def test_minibatches_are_normalised_and_else_the_same(images):
    stored = torch.from_numpy(images).flatten(1)
    plain = Minibatches(stored, batch_size=8, rng=stream(3, "data"))
    normalised = Minibatches(stored, batch_size=8, rng=stream(3, "data"), contrast_norm=NORM)
    for _ in range(6):
        expected = normalise_contrast(next(plain) * 255, norm=NORM)
        assert_allclose(next(normalised), expected, rtol=1e-4, atol=1e-4)
