"""Pictures of an evaluation.  Kind: independent reference (places of pixels, NumPy)."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image

from pipeline.evaluation_pictures import N_PATHS, interpolation_pictures, sample_pictures
from pipeline.generator_scores import N_STEPS, draw_paths
from tests.pipeline.tiny_generators import untrained


def levels(n, seed, *, channels=1):
    """Images of 4 x 4 pixels of bytes."""
    bytes_ = np.random.default_rng(seed).integers(0, 256, (n, channels, 4, 4))
    return torch.from_numpy(bytes_ / 255).float()


def read(path):
    """Every second pixel: pictures are twice as large."""
    picture = np.asarray(Image.open(path))
    assert_array_equal(picture[::2, ::2], picture[1::2, 1::2])
    return picture[::2, ::2]


def as_bytes(image):
    return np.rint(image.numpy() * 255).astype(np.uint8)


def test_samples_stand_in_the_order_in_which_they_came(tmp_path):
    samples = levels(120, 0)
    sample_pictures(tmp_path, samples, train=levels(50, 1))
    picture = read(tmp_path / "samples.png")
    assert picture.shape == (10 * 6 + 2, 10 * 6 + 2)
    for i in (0, 9, 10, 99):
        top, left = 2 + 6 * (i // 10), 2 + 6 * (i % 10)
        assert_array_equal(picture[top : top + 4, left : left + 4], as_bytes(samples[i, 0]))


@pytest.mark.parametrize("channels", [1, 3])
def test_right_of_each_sample_is_the_training_image_nearest_to_it(tmp_path, channels):
    samples, train = levels(7, 0, channels=channels), levels(40, 1, channels=channels)
    train[11] = samples[6]
    sample_pictures(tmp_path, samples, train=train)
    picture = read(tmp_path / "nearest.png").reshape(2 * (4 + 6) + 6, -1, channels)
    rows = train.flatten(1).numpy()
    for i, sample in enumerate(samples):
        nearest = int(((rows - sample.flatten().numpy()) ** 2).sum(1).argmin())
        top, left = 6 + 10 * (i // 5), 6 + (9 + 6) * (i % 5)
        pair = picture[top : top + 4, left : left + 9]
        assert_array_equal(pair[:, :4], as_bytes(sample).transpose(1, 2, 0))
        assert (pair[:, 4] == 255).all()
        assert_array_equal(pair[:, 5:], as_bytes(train[nearest]).transpose(1, 2, 0))
    assert nearest == 11


def test_few_samples_or_equal_ones_have_pictures_too(tmp_path):
    sample_pictures(tmp_path, levels(1, 0).expand(3, -1, -1, -1), train=levels(5, 1))
    assert read(tmp_path / "samples.png").shape == (8, 62)


def test_each_row_is_a_path(tmp_path):
    sampler = untrained().sampler()
    interpolation_pictures(tmp_path, sampler, seed=4)
    for kind in ("straight", "spherical"):
        picture = read(tmp_path / f"{kind}.png")
        assert picture.shape == (N_PATHS * 10 + 2, N_STEPS * 10 + 2)
        images = draw_paths(kind, sampler, n_paths=N_PATHS, seed=4)
        for path, step in ((0, 0), (0, 10), (7, 3)):
            top, left = 2 + 10 * path, 2 + 10 * step
            found = picture[top : top + 8, left : left + 8]
            assert_array_equal(found, as_bytes(images[path, step, 0]))


def test_one_coordinate_has_no_picture_of_arcs(tmp_path):
    interpolation_pictures(tmp_path, untrained("prior.dim=1").sampler(), seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["straight.png"]
