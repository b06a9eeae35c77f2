"""The stream of minibatches.  Kinds: algorithm, invariance."""

import pytest
import torch
from numpy.testing import assert_array_equal
from torch.testing import assert_close

from gan.minibatches import Minibatches
from gan.randomness import stream


@pytest.fixture
def images():
    """Ten images; all pixels of image i have the value 10 i."""
    return (torch.arange(10, dtype=torch.uint8) * 10)[:, None].expand(10, 3).contiguous()


def minibatches(images, batch_size=3, seed=0):
    return Minibatches(images, batch_size=batch_size, rng=stream(seed, "data"))


def numbers(x):
    return x[:, 0].mul(25.5).round().int().tolist()


def test_pixels_are_float32_in_the_unit_interval(images):
    x = next(minibatches(images, batch_size=10))
    assert x.dtype == torch.float32
    assert_close(x.sort(0).values, images / 255, rtol=1e-6, atol=0)


def test_an_epoch_shows_each_image_at_most_once_and_leaves_the_remainder_out(images):
    source = minibatches(images)
    for _ in range(20):
        epoch = [i for _ in range(3) for i in numbers(next(source))]
        assert len(epoch) == len(set(epoch)) == 9


def test_every_image_is_seen_when_the_batch_divides_them(images):
    source = minibatches(images, batch_size=5)
    epochs = [numbers(next(source)) + numbers(next(source)) for _ in range(6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6  # a new permutation each


def test_every_image_is_seen_as_often_in_the_long_run(images):
    source = minibatches(images)
    counts = torch.zeros(10)
    for _ in range(3 * 2_000):
        counts[numbers(next(source))] += 1
    assert_close(counts / 2_000, torch.full((10,), 0.9), rtol=0, atol=5 * 0.3 / 2_000**0.5)


def test_images_are_left_as_they_were(images):
    before = images.clone()
    source = minibatches(images)
    next(source).zero_()
    assert_array_equal(images, before)


def test_same_stream_same_minibatches(images):
    first, again, other = (minibatches(images, seed=seed) for seed in (0, 0, 1))
    assert [numbers(next(first)) for _ in range(9)] == [numbers(next(again)) for _ in range(9)]
    assert [numbers(next(first)) for _ in range(9)] != [numbers(next(other)) for _ in range(9)]


@pytest.mark.parametrize("n_before", [0, 2, 3, 4])
def test_a_stream_goes_on_from_its_state_within_and_between_epochs(images, n_before):
    rng, resumed_rng = stream(0, "data"), stream(1, "data")
    source = Minibatches(images, batch_size=3, rng=rng)
    for _ in range(n_before):
        next(source)
    resumed = Minibatches(images, batch_size=3, rng=resumed_rng)
    resumed.set_state(source.state())
    resumed_rng.set_state(rng.get_state())
    for _ in range(8):
        assert_array_equal(next(resumed), next(source))


def test_fewer_images_than_a_minibatch_are_refused(images):
    with pytest.raises(ValueError, match=r"at most the 10 training images, got 11"):
        minibatches(images, batch_size=11)
