"""What each cheater is; the Parzen scores of three of them, from the training images."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.ndimage import convolve
from sklearn.cluster import KMeans
from torch.testing import assert_close

from gan.config import DataConfig
from gan.datasets.splits import load_test, load_train_valid
from gan.errors import ScoreError
from gan.evaluation.cheaters import (
    CHEATERS,
    FAINT,
    RARE_CLASS,
    Material,
    binarised,
    blur,
    blurred,
    class_missing,
    class_starved,
    copied,
    copied_with_noise,
    copied_with_shift,
    few_distinct,
    honest,
    k_means_centres,
    lloyd,
    other_data,
    tenth_faint_noise,
    tenth_noise,
)
from gan.evaluation.parzen import PAPER_GRID, choose_sigma, parzen_score

N = 200


@pytest.fixture(scope="module")
def material():
    """Images whose first pixel tells the image, and the second its class."""
    rng = torch.Generator().manual_seed(0)
    train, fresh = torch.rand(2, 1_000, 1, 6, 6, generator=rng)
    labels = torch.arange(1_000) % 4
    fresh[:, 0, 0, 0] = torch.arange(1_000) / 1_000
    fresh[:, 0, 0, 1] = labels / 10
    return Material(train=train, fresh=fresh, fresh_labels=labels)


def classes(samples):
    return (samples[:, 0, 0, 1] * 10).round().long()


def nearest(samples, images):
    return torch.cdist(samples.flatten(1), images.flatten(1)).min(1)


# All of them


def test_all_thirteen_are_there_and_described():
    assert len(CHEATERS) == 13
    assert len({cheater.description for cheater in CHEATERS.values()}) == 13


@pytest.mark.parametrize("make", [honest, *(cheater.make for cheater in CHEATERS.values())])
def test_each_makes_n_images_in_range_that_the_seed_decides(material, make):
    samples = make(material, n=N, seed=0)
    assert samples.shape == (N, 1, 6, 6)
    assert samples.dtype == torch.float32
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert torch.equal(samples, make(material, n=N, seed=0))
    assert not torch.equal(samples, make(material, n=N, seed=1))


def test_the_material_is_left_as_it_was(material):
    train, fresh = material.train.clone(), material.fresh.clone()
    for cheater in CHEATERS.values():
        cheater.make(material, n=N, seed=0)
    assert torch.equal(train, material.train)
    assert torch.equal(fresh, material.fresh)


# Each of them


def test_honest_samples_are_fresh_images_none_twice(material):
    samples = honest(material, n=1_000, seed=0)
    assert sorted(samples[:, 0, 0, 0].tolist()) == material.fresh[:, 0, 0, 0].tolist()


def test_blur_is_scipys_convolution():
    images = torch.rand(3, 2, 7, 5, dtype=torch.float64)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    expected = [[convolve(c, kernel, mode="nearest") for c in image] for image in images.numpy()]
    assert_allclose(blur(images).numpy(), expected, rtol=1e-12, atol=0)


def test_blurred_samples_are_the_blur_of_fresh_images(material):
    assert nearest(blurred(material, n=N, seed=0), blur(material.fresh))[0].max() < 1e-2


def test_lloyd_is_scikit_learns_k_means_whatever_the_chunk():
    rng = np.random.default_rng(0)
    x, start = rng.normal(size=(300, 4)), rng.normal(size=(9, 4))
    expected = KMeans(9, init=start, n_init=1, max_iter=2, tol=0).fit(x).cluster_centers_
    for chunk in (7, 1_000):
        got = lloyd(torch.from_numpy(x), torch.from_numpy(start), n_steps=2, chunk=chunk)
        assert_allclose(got.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_a_centre_without_points_stays():
    centres = torch.tensor([[0.0], [100.0]])
    assert lloyd(torch.tensor([[1.0], [3.0]]), centres, n_steps=2).tolist() == [[2.0], [100.0]]


def test_k_means_centres_are_nearer_to_the_training_images_than_fresh_ones(material):
    centres = k_means_centres(material, n=N, seed=0)
    train = material.train
    assert nearest(train, centres)[0].mean() < 0.9 * nearest(train, material.fresh[:N])[0].mean()


def test_copies_are_training_images_none_twice(material):
    distance, which = nearest(copied(material, n=N, seed=0), material.train)
    assert distance.max() < 1e-2
    assert len(which.unique()) == N


def test_copies_with_noise_are_near_training_images(material):
    samples = copied_with_noise(material, n=N, seed=0)
    which = nearest(samples, material.train)[1]
    assert len(which.unique()) == N
    difference = samples - material.train[which]
    inside = (samples > 0) & (samples < 1)
    assert_close(difference[inside].std().item(), 0.05, rtol=0.05, atol=0)


def test_shifted_copies_are_moved_by_one_pixel_in_four_directions(material):
    samples = copied_with_shift(material, n=N, seed=0)
    moves = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    inner = [material.train.roll(move, (2, 3))[:, :, 1:-1, 1:-1].flatten(1) for move in moves]
    distance = torch.stack(
        [torch.cdist(samples[:, :, 1:-1, 1:-1].flatten(1), x).amin(1) for x in inner]
    )
    assert distance.amin(0).max() < 1e-2
    assert (torch.bincount(distance.argmin(0), minlength=4) > N / 8).all()


def test_a_class_is_missing(material):
    counts = torch.bincount(classes(class_missing(material, n=N, seed=0)), minlength=4)
    assert counts[RARE_CLASS] == 0
    assert (counts > 0).sum() == 3


def test_a_class_is_starved_to_a_tenth(material):
    samples = class_starved(material, n=N, seed=0)
    is_rare = classes(samples) == RARE_CLASS
    assert is_rare.sum() == 5  # a tenth of a quarter of 200
    assert is_rare[5:].any()


def test_few_images_are_repeated(material):
    samples = few_distinct(material, n=N, seed=0)
    counts = samples.flatten(1).unique(dim=0, return_counts=True)[1]
    assert counts.tolist() == [10] * 20


def test_binarised_samples_are_black_or_white(material):
    samples = binarised(material, n=N, seed=0)
    assert samples.unique().tolist() == [0, 1]
    assert nearest(samples, (material.fresh > 0.5).float())[0].max() == 0


def test_a_tenth_is_noise(material):
    samples = tenth_noise(material, n=N, seed=0)
    is_noise = nearest(samples, material.fresh)[0] > 1e-2
    assert is_noise.sum() == N / 10
    assert is_noise[: N // 2].any()


def test_a_tenth_is_faint_noise(material):
    samples = tenth_faint_noise(material, n=N, seed=0)
    is_noise = nearest(samples, material.fresh)[0] > 1e-2
    assert is_noise.sum() == N / 10
    assert 0 < samples[is_noise].max() <= FAINT


def test_other_data_are_those_given(material):
    other = torch.rand(500, 1, 6, 6)
    given = Material(train=material.train, fresh=material.fresh, other=other)
    assert nearest(other_data(given, n=N, seed=0), other)[0].max() < 1e-2


def test_other_data_are_transposed_or_turned_fresh_images_where_none_are_given(material):
    samples = other_data(material, n=N, seed=0)
    assert nearest(samples.mT, material.fresh)[0].max() < 1e-2
    wide = Material(train=material.train[:, :, :4], fresh=material.fresh[:, :, :4])
    samples = other_data(wide, n=N, seed=0)
    assert nearest(samples.flip(2, 3), wide.fresh)[0].max() < 1e-2


# Errors


def test_more_samples_than_images_are_refused(material):
    with pytest.raises(ScoreError, match=r"1,001 samples without a repeat .* got 1,000"):
        honest(material, n=1_001, seed=0)


def test_a_class_cannot_be_left_out_without_labels(material):
    unlabelled = Material(train=material.train, fresh=material.fresh)
    with pytest.raises(ScoreError, match="only where fresh_labels are given"):
        class_missing(unlabelled, n=N, seed=0)


def test_a_class_cannot_be_starved_where_there_is_none(material):
    fives = Material(
        train=material.train, fresh=material.fresh, fresh_labels=torch.full([1_000], 5)
    )
    with pytest.raises(ScoreError, match="must hold class 2 and others, got 0 of it among 1,000"):
        class_starved(fives, n=N, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": torch.zeros(5, 36)}, r"train must be floating point \[n, c, h, w\]"),
        ({"fresh": torch.zeros(5, 1, 6, 6).byte()}, "fresh must be .* got torch.uint8"),
        ({"fresh": torch.full((5, 1, 6, 6), 2.0)}, r"fresh must lie in \[0, 1\], got 2..2"),
        ({"other": torch.zeros(5, 1, 6, 7)}, r"shape of train, \[1, 6, 6\], got \[1, 6, 7\]"),
        ({"other": torch.full((5, 1, 6, 6), torch.nan)}, r"other must lie in \[0, 1\], got nan"),
        ({"fresh_labels": torch.zeros(5)}, r"fresh_labels must be int64 \[1000\]"),
    ],
)
def test_what_is_no_material_is_refused(material, change, message):
    sets = {"train": material.train, "fresh": material.fresh, **change}
    with pytest.raises(ValueError, match=message):
        Material(**sets)


# Golden


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cheat", "expected"),
    [
        (lambda images, labels: blur(images[:10_000]), 318.483),
        (lambda images, labels: (images[:10_000] > 0.5).float(), 112.758),
        (lambda images, labels: images[labels != RARE_CLASS][:10_000], 209.100),
    ],
    ids=["blurred", "binarised", "class_missing"],
)
def test_parzen_scores_of_cheaters_of_the_first_training_images(cheat, expected):
    """The images themselves score 241.2; other draws gave 319.7, 114.2 and 212.5."""
    train, valid = load_train_valid(DataConfig())
    images = torch.from_numpy(train.images).float() / 255
    samples = cheat(images, torch.from_numpy(train.labels))
    first_valid = torch.from_numpy(valid.images[:1_000]).float() / 255
    test = torch.from_numpy(load_test(DataConfig()).images).float() / 255
    sigma = choose_sigma(first_valid, samples, grid=PAPER_GRID)
    assert_close(parzen_score(test, samples, sigma=sigma).mean, expected, rtol=0, atol=0.01)
