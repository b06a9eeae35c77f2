"""Distorted images.  Kinds: closed form, invariance, independent reference."""

import math

import pytest
import torch
from torch.testing import assert_close

from gan.extensions.distortions import Distortions
from gan.randomness import stream

SHAPE = (1, 9, 9)


def rng():
    return stream(0, "distortions")


def dot(row, column):
    image = torch.zeros(1, 9, 9)
    image[0, row, column] = 1
    return image.flatten()[None]


def test_no_amounts_change_nothing():
    x = torch.rand(5, 81, generator=stream(0, "x"))
    assert Distortions().apply(x, SHAPE, rng()) is x


def test_the_identity_map_gives_the_images_back():
    maps = Distortions().maps(3, SHAPE, rng())
    expected = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(3, 2, 3)
    assert_close(maps, expected)
    x = torch.rand(5, 81, generator=stream(0, "x"))
    # A shear of next to nothing, so that the map is taken.
    found = Distortions(shear=1e-9).apply(x, SHAPE, rng())
    assert_close(found, x, rtol=0, atol=1e-5)


def moments(x):
    """Mass, and the mean row and column, of each image."""
    images = x.view(-1, 9, 9).double()
    mass = images.sum((1, 2))
    places = torch.arange(9).double()
    rows = (images.sum(2) * places).sum(1) / mass
    columns = (images.sum(1) * places).sum(1) / mass
    return mass, rows, columns


def test_shifts_move_the_centre_by_their_pixels_at_the_most():
    x = dot(4, 4).expand(2000, -1)
    mass, rows, columns = moments(Distortions(shift=2).apply(x, SHAPE, rng()))
    assert_close(mass, torch.ones(2000, dtype=torch.float64), rtol=0, atol=1e-5)
    for moved in (rows - 4, columns - 4):
        assert moved.abs().max() < 2 + 1e-4
        assert moved.std().item() == pytest.approx(2 / math.sqrt(3), rel=0.05)
        assert moved.mean().item() == pytest.approx(0, abs=0.1)


def test_turns_keep_the_distance_from_the_middle():
    x = dot(4, 7).expand(500, -1)
    _, rows, columns = moments(Distortions(rotation=60).apply(x, SHAPE, rng()))
    # Of a pixel that falls between pixels the mass moves a little.
    assert_close((rows - 4).hypot(columns - 4), torch.full_like(rows, 3.0), rtol=0, atol=0.1)
    angles = torch.atan2(rows - 4, columns - 4) * 180 / math.pi
    assert angles.abs().max() < 63
    assert angles.abs().max() > 55


def test_zoom_moves_what_is_off_the_middle_along_its_ray():
    x = dot(4, 6).expand(500, -1)
    _, rows, columns = moments(Distortions(zoom=0.25).apply(x, SHAPE, rng()))
    assert_close(rows, torch.full_like(rows, 4.0), rtol=0, atol=1e-4)
    assert columns.max() - 4 < 2.7
    assert columns.max() - 4 > 2.3
    assert columns.min() - 4 < 1.75


def test_shear_moves_a_row_by_its_height_over_the_middle():
    x = dot(1, 4).expand(500, -1)
    _, rows, columns = moments(Distortions(shear=0.5).apply(x, SHAPE, rng()))
    assert_close(rows, torch.full_like(rows, 1.0), rtol=0, atol=1e-4)
    assert (columns - 4).abs().max().item() == pytest.approx(1.5, abs=0.1)


def test_noise_has_its_standard_deviation():
    x = torch.full((200, 81), 0.5)
    found = Distortions(noise=0.3).apply(x, SHAPE, rng()) - x
    assert found.std().item() == pytest.approx(0.3, rel=0.02)
    assert found.mean().item() == pytest.approx(0, abs=0.01)


def test_images_are_distorted_each_by_itself_and_alike_by_the_same_stream():
    x = torch.rand(6, 81, generator=stream(0, "x"))
    every = Distortions(rotation=20, zoom=0.1, shear=0.2, shift=1, noise=0.1)
    one, same = (every.apply(x, SHAPE, rng()) for _ in range(2))
    assert torch.equal(one, same)
    alike = every.apply(x[:1].expand(6, -1), SHAPE, rng())
    assert not torch.equal(alike[0], alike[1])


def test_channels_are_distorted_together():
    x = torch.rand(4, 2, 9, 9, generator=stream(0, "x"))
    x[:, 1] = x[:, 0]
    found = Distortions(rotation=30, shift=2).apply(x.flatten(1), (2, 9, 9), rng())
    channels = found.view(4, 2, 9, 9)
    assert_close(channels[:, 0], channels[:, 1])
