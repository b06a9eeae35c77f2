"""Folders of pictures: order, labels, and one line for each fault.

Kinds: independent reference (torchvision's ImageFolder), invariance.
"""

import shutil

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from torchvision.datasets import ImageFolder

from gan.config import DataConfig
from gan.datasets.files import read_images
from gan.datasets.splits import load_test, load_train_valid
from gan.errors import DatasetError

CLASSES = {"ape": 5, "bee": 4, "cow": 6}


def picture(rng, *, mode="RGB", size=(5, 4)):
    shape = (*reversed(size), 3) if mode == "RGB" else tuple(reversed(size))
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path, rng):
    """Three classes of colour pictures of 4 rows and 5 columns."""
    for name, n in CLASSES.items():
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(n):
            picture(rng).save(tmp_path / "train" / name / f"{i}.png")
    return tmp_path / "train"


def test_images_and_labels_are_those_of_image_folder(folder):
    found, reference = read_images(folder), ImageFolder(str(folder))
    expected = {
        (np.asarray(image).transpose(2, 0, 1).tobytes(), label) for image, label in reference
    }
    pairs = zip(found.images, found.labels.tolist(), strict=True)
    assert {(image.tobytes(), label) for image, label in pairs} == expected
    assert found.images.shape == (15, 3, 4, 5)
    assert len(expected) == 15


def test_order_and_digest_do_not_depend_on_where_the_folder_lies(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other" / "copy")
    one, two = read_images(folder), read_images(tmp_path / "other" / "copy")
    assert_array_equal(one.images, two.images)
    assert_array_equal(one.labels, two.labels)
    assert one.digest == two.digest


def test_digest_covers_names_and_bytes(folder, rng):
    digests = {read_images(folder).digest}
    picture(rng).save(folder / "ape" / "0.png")
    digests.add(read_images(folder).digest)
    (folder / "ape" / "0.png").rename(folder / "ape" / "9.png")
    digests.add(read_images(folder).digest)
    assert len(digests) == 3


def test_images_that_are_held_out_are_of_every_class(tmp_path, rng):
    for name in "abcde":
        (tmp_path / name).mkdir()
        for i in range(40):
            picture(rng, size=(2, 2)).save(tmp_path / name / f"{i}.png")
    _, valid = load_train_valid(DataConfig(dataset=str(tmp_path), n_valid=50))
    assert sorted(set(valid.labels.tolist())) == [0, 1, 2, 3, 4]


def test_flat_folder_has_no_labels(tmp_path, rng):
    for name in ("b.png", "a.JPG", "c.jpeg"):
        picture(rng, mode="L").save(tmp_path / name)
    found = read_images(tmp_path)
    assert found.images.shape == (3, 1, 4, 5)
    assert found.labels is None


def test_folders_within_a_class_belong_to_it(folder, rng):
    (folder / "cow" / "calf").mkdir()
    picture(rng).save(folder / "cow" / "calf" / "0.png")
    assert np.bincount(read_images(folder).labels).tolist() == [5, 4, 7]


def test_hidden_files_are_left_out(folder, rng):
    before = read_images(folder)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "ape" / "._0.png").write_bytes(b"x")
    (folder / ".cache").mkdir()
    picture(rng).save(folder / ".cache" / "0.png")
    assert read_images(folder).digest == before.digest


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


FAULTS = {
    "cut picture": (
        lambda folder, rng: cut(folder / "bee" / "2.png"),
        r"bee/2\.png is not a whole PNG or JPEG picture",
    ),
    "no picture": (
        lambda folder, rng: (folder / "bee" / "2.png").write_bytes(b"GIF89a"),
        r"bee/2\.png is not a whole PNG or JPEG picture",
    ),
    "grey among colour": (
        lambda folder, rng: picture(rng, mode="L").save(folder / "cow" / "1.png"),
        r"must all be of one size \(channels, height, width\), got .*\[.*4, 5\] in .* after \[",
    ),
    "another size": (
        lambda folder, rng: picture(rng, size=(6, 4)).save(folder / "cow" / "1.png"),
        r"must all be of one size \(channels, height, width\), got \[3, 4, \d\] in .*\.png after",
    ),
    "another file": (
        lambda folder, rng: (folder / "ape" / "list.txt").write_text("x"),
        r"must hold PNG or JPEG pictures alone, got ape/list\.txt: take it out",
    ),
    "empty class": (
        lambda folder, rng: (folder / "dog").mkdir(),
        r"the folder of each class must hold pictures, got none in dog",
    ),
    "picture beside classes": (
        lambda folder, rng: picture(rng).save(folder / "0.png"),
        r"0\.png must lie in the folder of its class",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_and_nothing_is_left_out(folder, rng, fault):
    make, message = FAULTS[fault]
    make(folder, rng)
    with pytest.raises(DatasetError, match=rf"train: .*{message}"):
        read_images(folder)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"must hold PNG or JPEG pictures, got none"):
        read_images(tmp_path)


def test_test_images_are_of_the_same_classes(folder, tmp_path, rng):
    shutil.copytree(folder, tmp_path / "test")
    for path in (tmp_path / "test").rglob("*.png"):
        picture(rng).save(path)
    data = DataConfig(dataset=str(folder), test_path=str(tmp_path / "test"), n_valid=3)
    assert len(load_test(data)) == 15
    shutil.rmtree(tmp_path / "test" / "bee")
    with pytest.raises(
        DatasetError, match=r"test: must have the folders .*'bee', 'cow'\], got \["
    ):
        load_test(data)
