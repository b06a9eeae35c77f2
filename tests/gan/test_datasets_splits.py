"""Image sets and who sees which rows.  Kinds: independent reference, invariance."""

import hashlib

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gan.config import DataConfig
from gan.datasets.images import ImageSet, pixel_mean
from gan.datasets.mnist import read_mnist
from gan.datasets.splits import load_test, load_train_valid
from gan.errors import DatasetError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (20, 3, 4, 5), dtype=np.uint8)


@pytest.fixture
def dataset(tmp_path, images):
    """Path of a training file with 20 images and labels 0..19."""
    path = tmp_path / "train.npz"
    np.savez(path, images=images, labels=np.arange(20))
    return str(path)


@pytest.fixture
def test_path(tmp_path, images):
    path = tmp_path / "test.npz"
    np.savez(path, images=255 - images)
    return str(path)


def test_mnist_trains_on_the_first_50000_and_validates_on_the_rest():
    whole = read_mnist("train")
    train, valid = load_train_valid(DataConfig())
    assert_array_equal(train.images, whole.images[:50_000])
    assert_array_equal(train.labels, whole.labels[:50_000])
    assert_array_equal(valid.images, whole.images[50_000:])
    assert_array_equal(valid.labels, whole.labels[50_000:])


def test_mnist_tests_on_its_test_file():
    assert_array_equal(load_test(DataConfig()).images, read_mnist("test").images)


def test_n_valid_images_at_the_end_of_a_file_are_held_out(dataset, images):
    train, valid = load_train_valid(DataConfig(dataset=dataset, n_valid=6))
    assert_array_equal(train.images, images[:14])
    assert_array_equal(valid.images, images[14:])
    assert valid.labels.tolist() == [14, 15, 16, 17, 18, 19]


def test_set_without_labels_is_split_too(tmp_path, images):
    np.savez(tmp_path / "bare.npz", images=images)
    train, valid = load_train_valid(DataConfig(dataset=str(tmp_path / "bare.npz"), n_valid=6))
    assert (train.labels, valid.labels) == (None, None)


def test_digests_cover_the_file_and_the_rows(dataset):
    with open(dataset, "rb") as file:
        whole = hashlib.sha256(file.read()).hexdigest()
    parts = load_train_valid(DataConfig(dataset=dataset, n_valid=6))
    expected = [hashlib.sha256(f"{whole}{rows}".encode()) for rows in ("[0:14]", "[14:20]")]
    assert [part.digest for part in parts] == [digest.hexdigest() for digest in expected]


def test_digest_of_mnist_changes_with_the_boundary():
    digests = {
        part.digest
        for n_valid in (10_000, 9_999)
        for part in load_train_valid(DataConfig(n_valid=n_valid))
    }
    assert len(digests) == 4


def test_training_never_reads_the_test_file(dataset, tmp_path):
    absent = str(tmp_path / "absent.npz")
    train, _ = load_train_valid(DataConfig(dataset=dataset, test_path=absent, n_valid=6))
    assert len(train) == 14


def test_test_images_come_from_test_path(dataset, test_path, images):
    test = load_test(DataConfig(dataset=dataset, test_path=test_path))
    assert_array_equal(test.images, 255 - images)


def test_one_file_may_hold_training_and_test_images(tmp_path, images):
    path = tmp_path / "both.npz"
    np.savez(path, x_train=images, x_test=255 - images, y_train=np.arange(20))
    data = DataConfig(dataset=str(path), test_path=str(path), n_valid=6)
    assert_array_equal(load_train_valid(data)[0].images, images[:14])
    assert_array_equal(load_test(data).images, 255 - images)


def test_paths_may_begin_with_the_home_folder(dataset, test_path, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    data = DataConfig(dataset="~/train.npz", test_path="~/test.npz", n_valid=6)
    assert len(load_train_valid(data)[1]) == 6
    assert len(load_test(data)) == 20


@pytest.mark.parametrize("n_valid", [20, 21])
def test_holding_out_every_image_is_refused(dataset, n_valid):
    message = rf"data\.n_valid must be less than the 20 images of .*train\.npz, got {n_valid}"
    with pytest.raises(DatasetError, match=message):
        load_train_valid(DataConfig(dataset=dataset, n_valid=n_valid))


@pytest.mark.parametrize(
    ("name", "found"),
    [("mnits", "no such file"), ("a.csv", "not such a file")],
)
def test_unknown_dataset_is_refused(tmp_path, name, found):
    (tmp_path / "a.csv").touch()
    names = "mnist, stacked_mnist, fashion_mnist, cifar10"
    message = rf"data\.dataset must be {names}, or the path .*{name}': {found}"
    with pytest.raises(DatasetError, match=message):
        load_train_valid(DataConfig(dataset=str(tmp_path / name)))


def test_path_without_test_path_has_no_test_images(dataset):
    with pytest.raises(DatasetError, match=r"train\.npz comes without .*: set data\.test_path"):
        load_test(DataConfig(dataset=dataset))


def test_test_images_of_another_shape_are_refused(dataset, tmp_path, images):
    np.savez(tmp_path / "small.npz", images=images[:, :, :3])
    message = r"small\.npz: test images must have .*, \[3, 4, 5\], got \[3, 3, 5\]"
    with pytest.raises(DatasetError, match=message):
        load_test(DataConfig(dataset=dataset, test_path=str(tmp_path / "small.npz")))


def test_training_images_do_not_pass_as_test_images(dataset):
    with pytest.raises(DatasetError, match=r"must be others than the training images"):
        load_test(DataConfig(dataset=dataset, test_path=dataset))


@pytest.mark.parametrize("load", [load_train_valid, load_test])
def test_test_path_beside_mnist_is_refused(load):
    with pytest.raises(DatasetError, match=r"data\.test_path belongs to .*, got mine\.npz"):
        load(DataConfig(test_path="mine.npz"))


def test_pixel_mean_is_the_mean_over_images_in_unit_range(images):
    expected = [sum(column) / len(column) / 255 for column in images.reshape(20, -1).T.tolist()]
    mean = pixel_mean(images)
    assert mean.dtype == np.float64
    assert_allclose(mean, expected, rtol=1e-14, atol=0)


def test_image_set_knows_its_length_and_shape(images):
    image_set = ImageSet(images=images, labels=None, digest="")
    assert len(image_set) == 20
    assert image_set.image_shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("bad", "got"),
    [
        (np.zeros((2, 1, 3, 3)), r"float64 \[2, 1, 3, 3\]"),
        (np.zeros((2, 3, 3), np.uint8), r"uint8 \[2, 3, 3\]"),
        (np.zeros((0, 1, 3, 3), np.uint8), r"uint8 \[0, 1, 3, 3\]"),
    ],
)
def test_images_of_another_form_are_refused(bad, got):
    with pytest.raises(DatasetError, match=rf"images must be uint8 .* with n >= 1, got {got}"):
        ImageSet(images=bad, labels=None, digest="")


@pytest.mark.parametrize(
    ("bad", "got"),
    [
        (np.arange(20, dtype=np.int32), r"int32 \[20\]"),
        (np.zeros((20, 10), np.int64), r"int64 \[20, 10\]"),
    ],
)
def test_labels_of_another_form_are_refused(images, bad, got):
    with pytest.raises(DatasetError, match=rf"labels must be int64 \[n\], got {got}"):
        ImageSet(images=images, labels=bad, digest="")


def test_labels_and_images_of_different_length_are_refused(images):
    with pytest.raises(DatasetError, match=r"one length, got 19 labels and 20 images"):
        ImageSet(images=images, labels=np.arange(19), digest="")
