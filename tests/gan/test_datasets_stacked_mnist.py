"""Stacked MNIST.  Kinds: contract, invariance (each channel is a digit of its own split)."""

import numpy as np
import pytest
from scipy import stats

from gan.config import DataConfig
from gan.datasets.images import ImageSet
from gan.datasets.splits import load_test, load_train_valid
from gan.datasets.stacked_mnist import draw_triples, stack_digits
from gan.errors import DatasetError

STACKED = DataConfig(dataset="stacked_mnist")


def test_each_channel_is_a_digit():
    images = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 4, 5), np.uint8)
    stacked = stack_digits(ImageSet(images=images, labels=None, digest="d" * 64))
    assert stacked.images.shape == (20, 3, 4, 5)
    assert (stacked.images == draw_triples(20)[:, :, None, None]).all()
    assert stacked.labels is None


def test_triples_are_uniform_and_independent():
    rows = draw_triples(30_000)
    tenths = rows * 10 // 30_000
    counts = np.zeros((10, 10, 10))
    np.add.at(counts, tuple(tenths.T), 1)
    assert stats.chisquare(counts.ravel()).pvalue > 0.001
    assert (rows.min(), rows.max()) >= (0, 29_000)


def test_each_split_is_made_of_the_digits_of_its_own_split():
    for got, digits in zip(load_train_valid(STACKED), load_train_valid(DataConfig()), strict=True):
        assert got.image_shape == (3, 28, 28)
        assert len(got) == len(digits)
        assert got.digest != digits.digest
        rows = draw_triples(len(digits))[:100]
        assert (got.images[:100] == digits.images[:, 0][rows]).all()
    test = load_test(STACKED)
    rows = draw_triples(10_000)[:100]
    assert (test.images[:100] == load_test(DataConfig()).images[:, 0][rows]).all()


def test_a_test_file_of_the_users_is_refused():
    with pytest.raises(DatasetError, match="and stacked_mnist has test images of its own"):
        load_test(DataConfig(dataset="stacked_mnist", test_path="test.npz"))
