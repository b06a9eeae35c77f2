"""Images by path: every form that is taken, and one line for each that is not.

Kinds: independent reference (pixels written by NumPy and Pillow), invariance.
"""

import hashlib
import pickle
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from gan.datasets.files import read_images, read_samples
from gan.errors import DatasetError
from tests.gan.bombs import Bomb

N, HEIGHT, WIDTH = 4, 6, 5


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def grey(rng):
    return rng.integers(0, 256, (N, 1, HEIGHT, WIDTH), dtype=np.uint8)


@pytest.fixture
def colour(rng):
    return rng.integers(0, 256, (N, 3, HEIGHT, WIDTH), dtype=np.uint8)


@pytest.fixture
def save_npz(tmp_path):
    def save(**arrays):
        np.savez_compressed(tmp_path / "set.npz", **arrays)
        return tmp_path / "set.npz"

    return save


@pytest.fixture
def save_npy(tmp_path):
    def save(array):
        np.save(tmp_path / "samples.npy", array)
        return tmp_path / "samples.npy"

    return save


@pytest.mark.parametrize("key", ["images", "x_train", "x"])
def test_npz_images_go_by_three_names(save_npz, grey, key):
    assert_array_equal(read_images(save_npz(**{key: grey})).images, grey)


@pytest.mark.parametrize("key", ["labels", "y_train", "y"])
def test_npz_labels_go_by_three_names(save_npz, grey, key):
    labels = read_images(save_npz(images=grey, **{key: np.array([3, 1, 2, 0], np.uint8)})).labels
    assert labels.dtype == np.int64
    assert labels.tolist() == [3, 1, 2, 0]


def test_npz_without_labels_has_none(save_npz, grey):
    assert read_images(save_npz(images=grey)).labels is None


def test_part_chooses_between_training_and_test_arrays(save_npz, grey):
    path = save_npz(x_train=grey, y_train=np.arange(4), x_test=255 - grey, y_test=np.arange(4, 8))
    test = read_images(path, part="test")
    assert_array_equal(test.images, 255 - grey)
    assert test.labels.tolist() == [4, 5, 6, 7]
    assert_array_equal(read_images(path).images, grey)


def test_digest_is_that_of_the_file(save_npz, grey):
    path = save_npz(images=grey)
    assert read_images(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "layout",
    [
        lambda grey, colour: (grey[:, 0], grey),
        lambda grey, colour: (grey, grey),
        lambda grey, colour: (grey.transpose(0, 2, 3, 1), grey),
        lambda grey, colour: (colour, colour),
        lambda grey, colour: (colour.transpose(0, 2, 3, 1), colour),
        lambda grey, colour: (colour[..., :3], colour[..., :3]),  # both ends are 3: first wins
        lambda grey, colour: (grey[:, 0, :5].reshape(N, 25), grey[:, :, :5]),
    ],
    ids=["nhw", "n1hw", "nhw1", "n3hw", "nhw3", "n3h3", "flat"],
)
def test_every_layout_becomes_channels_first(save_npz, grey, colour, layout):
    stored, expected = layout(grey, colour)
    images = read_images(save_npz(images=stored)).images
    assert_array_equal(images, expected)
    assert images.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_of_an_8_bit_image_become_that_image_again(save_npz, dtype):
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    assert_array_equal(read_images(save_npz(images=(every / 255).astype(dtype))).images, every)


def test_floats_are_rounded_to_the_nearest_level(save_npz, rng):
    floats = rng.random((N, HEIGHT, WIDTH))
    expected = [round(255 * value) for value in floats.ravel().tolist()]
    assert read_images(save_npz(images=floats)).images.ravel().tolist() == expected


def test_wider_integers_in_range_are_taken(save_npz, grey):
    assert_array_equal(read_images(save_npz(images=grey.astype(np.int64))).images, grey)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (-1.0, 1.0, r"got -1\.0 to 1\.0: if they are scaled to \[-1, 1\], save \(x \+ 1\) / 2$"),
        (0.0, 254.5, r"got 0\.0 to 254\.5: if they are scaled to \[0, 255\], save x / 255$"),
        (-2.5, 2.5, r"got -2\.5 to 2\.5$"),
        (0.0, 1.0000001, r"got 0\.0 to 1\.0000001"),
        (0.0, np.inf, r"got 0\.0 to inf$"),
        (0.0, np.nan, r"got nan to nan$"),
    ],
)
def test_floats_out_of_range_are_refused_with_the_range(save_npz, low, high, message):
    images = np.zeros((2, 3, 3))
    images[0, 0, 0], images[1, 2, 2] = low, high
    with pytest.raises(DatasetError, match=r"set\.npz: .*floats must lie in \[0, 1\], " + message):
        read_images(save_npz(images=images))


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 256)])
def test_integers_out_of_range_are_refused_with_the_range(save_npz, low, high):
    images = np.array([[[low, high]]])
    with pytest.raises(
        DatasetError, match=rf"integers must lie in 0\.\.255, got {low} to {high}$"
    ):
        read_images(save_npz(images=images))


@pytest.mark.parametrize("dtype", [np.bool_, np.complex64, "S1"])
def test_pixels_that_are_not_numbers_are_refused(save_npz, dtype):
    with pytest.raises(DatasetError, match=r"integers in 0\.\.255 or floats in \[0, 1\], got"):
        read_images(save_npz(images=np.zeros((2, 3, 3), dtype)))


@pytest.mark.parametrize(
    "shape", [(), (9,), (2, 10), (2, 2, 4, 2), (2, 3, 1, 4, 4), (0, 3, 3), (2, 0, 3)]
)
def test_other_shapes_are_refused(save_npz, shape):
    got = re.escape(str(list(shape)))
    with pytest.raises(DatasetError, match=rf"set\.npz: images must be \[n, h, w\].*, got {got}"):
        read_images(save_npz(images=np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("labels", [np.zeros(N), np.zeros((N, 10), np.int64)])
def test_labels_other_than_a_list_of_integers_are_refused(save_npz, grey, labels):
    with pytest.raises(DatasetError, match=r"set\.npz: labels must be integers \[n\], got"):
        read_images(save_npz(images=grey, labels=labels))


def test_labels_of_another_length_are_refused(save_npz, grey):
    with pytest.raises(DatasetError, match=r"set\.npz: .*got 3 labels and 4 images"):
        read_images(save_npz(images=grey, labels=np.arange(3)))


def test_npz_without_images_is_refused_with_the_names_in_it(save_npz, grey):
    message = r"must hold an array named images or x_train or x, got \['pixels', 'z'\]"
    with pytest.raises(DatasetError, match=message):
        read_images(save_npz(pixels=grey, z=grey))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_npz_is_refused_in_one_line(save_npz, grey, share):
    path = save_npz(images=grey)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DatasetError, match=r"^[^\n]*set\.npz: cannot be read: [^\n]+$"):
        read_images(path)


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.csv: images are read from a \.parquet or \.npz"):
        read_images(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["set.npz", "set.parquet"])
def test_missing_files_are_refused(tmp_path, name):
    with pytest.raises(DatasetError, match=rf"{name}: cannot be read: No such file or directory$"):
        read_images(tmp_path / name)


@pytest.mark.parametrize("n_bytes", [0, 1, 2, 3])
def test_npz_or_npy_of_a_few_bytes_is_truncated(save_npz, save_npy, grey, n_bytes):
    for path in (save_npz(images=grey), save_npy(grey)):
        path.write_bytes(path.read_bytes()[:n_bytes])
        with pytest.raises(DatasetError, match=r"cannot be read: it is truncated$"):
            read_samples(path)


@pytest.mark.parametrize("content", [b"hello", b"PKhello", b"\x93NUMBER", pickle.dumps([1, 2, 3])])
def test_what_is_no_numpy_file_is_refused_without_advice_to_unpickle_it(tmp_path, content):
    (tmp_path / "set.npz").write_bytes(content)
    message = r"set\.npz: cannot be read: it is neither an \.npz archive nor a \.npy array$"
    with pytest.raises(DatasetError, match=message):
        read_images(tmp_path / "set.npz")


def test_altered_pixels_of_an_npz_are_noticed(tmp_path, grey):
    path = tmp_path / "set.npz"
    np.savez(path, images=grey)
    path.write_bytes(path.read_bytes().replace(grey.tobytes(), (255 - grey).tobytes()))
    with pytest.raises(DatasetError, match=r"set\.npz: cannot be read: Bad CRC-32"):
        read_images(path)


@pytest.mark.parametrize("name", ["set.npz", "set.npy"])
def test_nothing_is_unpickled(tmp_path, name):
    trace = tmp_path / "trace"
    pickled = np.array([Bomb(trace)], dtype=object)
    if name == "set.npz":
        np.savez(tmp_path / name, images=pickled)
    else:
        np.save(tmp_path / name, pickled, allow_pickle=True)
    with pytest.raises(DatasetError, match=rf"{name}: cannot be read: .*allow_pickle=False"):
        read_samples(tmp_path / name)
    assert not trace.exists()


def test_samples_keep_their_floats(save_npy, rng):
    floats = rng.random((N, 1, HEIGHT, WIDTH), dtype=np.float32)
    samples = read_samples(save_npy(floats))
    assert samples.dtype == np.float32
    assert_array_equal(samples, floats)


def test_integer_samples_are_divided_by_255(save_npy, colour):
    samples = read_samples(save_npy(colour.transpose(0, 2, 3, 1)))
    assert samples.dtype == np.float32
    assert_allclose(samples, colour.astype(np.float64) / 255, rtol=1e-7, atol=0)


@pytest.mark.parametrize("key", ["images", "samples", "x_train", "x", "arr_0"])
def test_samples_in_an_npz_go_by_five_names(save_npz, rng, key):
    floats = rng.random((N, HEIGHT, WIDTH))
    assert_allclose(read_samples(save_npz(**{key: floats}))[:, 0], floats, rtol=1e-7, atol=0)


def test_samples_in_a_folder_are_read_in_the_order_of_their_names(tmp_path, grey):
    for image, name in zip(grey, ["0.png", "1.PNG", "10.png", "2.png"], strict=True):
        Image.fromarray(image[0]).save(tmp_path / name)
    (tmp_path / "README.txt").touch()
    assert_allclose(read_samples(tmp_path), grey / 255, rtol=1e-7, atol=0)


def test_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"must hold PNG or JPEG pictures, got none"):
        read_samples(tmp_path)


def test_folder_with_a_damaged_picture_is_refused_by_its_name(tmp_path, grey):
    path = tmp_path / "7.png"
    Image.fromarray(grey[0, 0]).save(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DatasetError, match=r"7\.png is not a whole PNG or JPEG picture"):
        read_samples(tmp_path)


def test_picture_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "7.png").mkdir()
    with pytest.raises(DatasetError, match=r"cannot be read: Is a directory"):
        read_samples(tmp_path)


def test_samples_out_of_range_are_refused(save_npy):
    samples = np.linspace(-1, 1, 18).reshape(2, 3, 3)
    with pytest.raises(
        DatasetError, match=r"samples\.npy: .*got -1\.0 to 1\.0: if they are scaled"
    ):
        read_samples(save_npy(samples))


def test_samples_of_another_kind_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.pt: samples are read from a \.npy, \.npz or"):
        read_samples(tmp_path / "a.pt")
