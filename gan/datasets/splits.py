"""Which images train, which choose, and which test.

As in Goodfellow et al. (2014): G and D are trained on all but the last `n_valid` images of the
training file (MNIST: train[:50000]), choices are made on those last ones (train[50000:]), and the
test file is opened for a generator that was chosen before, and for no choice.  A .mat file of the
Toronto Face Database says itself, fold by fold, which of its images do which.
"""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from gan.config import BUILT_IN, FOLDED_SUFFIX, NAMED, DataConfig
from gan.datasets.files import DATASET_SUFFIXES, read_images
from gan.datasets.folders import class_names
from gan.datasets.images import ImageSet
from gan.datasets.mnist import read_mnist
from gan.datasets.published import read_published
from gan.datasets.stacked_mnist import NAME as STACKED
from gan.datasets.stacked_mnist import stack_digits
from gan.datasets.tfd import read_faces
from gan.errors import DatasetError


def load_train_valid(data: DataConfig) -> tuple[ImageSet, ImageSet]:
    """The images to train on and those to choose by; opens the training file alone.

    Returns:
        All but the last `data.n_valid` images, and these; of a .mat file the unlabelled images,
        and the validation images of `data.fold`.  The digest of each covers the bytes of the file
        and the rows.

    Raises:
        DatasetError: if the data set is unknown, damaged, or not larger than `data.n_valid`.
    """
    if data.is_folded:
        faces = read_faces(_existing(data))
        return faces.part(data.fold, "unlabeled"), faces.part(data.fold, "valid")
    whole = _training_images(data)
    cut = len(whole) - data.n_valid
    if cut < 1:
        raise DatasetError(
            f"data.n_valid must be less than the {len(whole)} images of {data.dataset}, "
            f"got {data.n_valid}"
        )
    train, valid = _rows(whole, 0, cut), _rows(whole, cut, len(whole))
    return _made(train, data), _made(valid, data)


def load_test(data: DataConfig) -> ImageSet:
    """The test images, for a score that nothing is chosen by.

    Two callers: the stage `evaluate`, for the winner of a sweep and each time it is run, and
    `gan score --split test`, for whatever its user wants scored.

    Raises:
        DatasetError: if there are none, or if they are damaged, of another shape than the
            training images, or the training images themselves.
    """
    if data.dataset in NAMED:
        return _made(_named(data, "test"), data)
    if data.is_folded:
        return read_faces(_existing(data)).part(data.fold, "test")
    if data.test_path is None:
        raise DatasetError(
            f"{data.dataset} comes without test images: set data.test_path to a .parquet or "
            ".npz file, or to a folder of pictures"
        )
    train = _training_images(data)
    path = Path(data.test_path).expanduser()
    test = read_images(path, part="test")
    _require_same_classes(Path(data.dataset).expanduser(), path)
    if test.image_shape != train.image_shape:
        raise DatasetError(
            f"{data.test_path}: test images must have the shape of the training images, "
            f"{list(train.image_shape)}, got {list(test.image_shape)}"
        )
    if np.array_equal(test.images, train.images):
        raise DatasetError(
            f"{data.test_path}: test images must be others than the training images, got the same"
        )
    return test


def _training_images(data: DataConfig) -> ImageSet:
    if data.dataset in NAMED:
        return _named(data, "train")
    return read_images(_existing(data))


def _existing(data: DataConfig) -> Path:
    path = Path(data.dataset).expanduser()
    suffixes = (*DATASET_SUFFIXES, FOLDED_SUFFIX)
    if not path.is_dir() and (not path.is_file() or path.suffix not in suffixes):
        found = "no such file" if not path.exists() else "not such a file"
        raise DatasetError(
            f"data.dataset must be {', '.join(NAMED)}, or the path of a .parquet, .npz or "
            f"{FOLDED_SUFFIX} file or of a folder of pictures, got {data.dataset!r}: {found}"
        )
    return path


def _made(images: ImageSet, data: DataConfig) -> ImageSet:
    """What the data set makes of a split of its file."""
    return stack_digits(images) if data.dataset == STACKED else images


def _named(data: DataConfig, split: Literal["train", "test"]) -> ImageSet:
    """A split of a data set that is called by its name."""
    if data.test_path is not None:
        raise DatasetError(
            f"data.test_path belongs to a data set given by path, and {data.dataset} has test "
            f"images of its own: leave it out, got {data.test_path}"
        )
    if data.root is not None:
        root = Path(data.root).expanduser()
        return read_published(data.dataset, split, root=root, download=data.download)
    if data.dataset not in BUILT_IN:
        raise DatasetError(
            f"{data.dataset} is not inside the package: set data.root to the folder with its "
            "files, and data.download=true to have them downloaded into it"
        )
    return read_mnist(split)


def _require_same_classes(train: Path, test: Path) -> None:
    """Refuse folders in which the same label would be of different classes."""
    if not (train.is_dir() and test.is_dir()):
        return
    expected, got = class_names(train), class_names(test)
    if got != expected:
        raise DatasetError(
            f"{test}: must have the folders of classes that {train} has, {expected}, got {got}"
        )


def _rows(whole: ImageSet, start: int, stop: int) -> ImageSet:
    return ImageSet(
        images=whole.images[start:stop],
        labels=None if whole.labels is None else whole.labels[start:stop],
        conditions=None if whole.conditions is None else whole.conditions[start:stop],
        digest=hashlib.sha256(f"{whole.digest}[{start}:{stop}]".encode()).hexdigest(),
    )
