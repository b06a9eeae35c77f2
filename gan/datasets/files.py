"""Images that a user names by path: data sets to train on, and samples to score."""

import hashlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gan.datasets.arrays import (
    RawSet,
    as_conditions,
    as_labels,
    as_uint8,
    as_unit_floats,
    channels_first,
)
from gan.datasets.folders import read_folder
from gan.datasets.images import ImageSet, ImageShape
from gan.datasets.parquet import read_parquet
from gan.datasets.pictures import SUFFIXES, stack_pictures
from gan.errors import DatasetError

DATASET_SUFFIXES = (".npz", ".parquet")
NUMPY_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY")
"""How an .npz begins, an .npz without arrays, and a .npy."""
SAMPLE_KEYS = ("images", "samples", "x_train", "x", "arr_0")

UNREADABLE = (
    *(OSError, EOFError, MemoryError, NotImplementedError, RuntimeError, ValueError),
    *(pa.ArrowException, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
"""What NumPy, zipfile and Arrow raise on a file that is missing, cut short or altered."""


def read_images(path: Path, *, part: Literal["train", "test"] = "train") -> ImageSet:
    """The image set in an .npz or .parquet file, in the order of the file, or in a folder.

    Args:
        path: an .npz with `images` (or `x_train`, or `x`), perhaps `labels` (`y_train`, `y`) and
            `conditions`; or a .parquet as `read_parquet` takes it.  Shapes as `channels_first`
            takes them; pixels are uint8, other integers in 0..255, or floats in [0, 1], which are
            rounded.  Or a folder of pictures as `read_folder` takes it.
        part: for an .npz that holds both: whether `x_train` is read, or `x_test`.

    Returns:
        The images, with the SHA-256 of the file's bytes as digest.

    Raises:
        DatasetError: naming the file, if it is anything else; nothing in it is ever unpickled.
    """
    with naming(path):
        if path.is_dir():
            with parsing():
                return read_folder(path)
        if path.suffix not in DATASET_SUFFIXES:
            raise DatasetError("images are read from a .parquet or .npz file, or from a folder")
        with parsing(), path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            images, labels, conditions = (
                read_parquet(file)
                if path.suffix == ".parquet"
                else _read_numpy(
                    file,
                    ("images", f"x_{part}", "x"),
                    ("labels", f"y_{part}", "y"),
                    ("conditions", f"conditions_{part}"),
                )
            )
        return ImageSet(
            images=as_uint8(channels_first(images)),
            labels=None if labels is None else as_labels(labels),
            digest=digest,
            conditions=None if conditions is None else as_conditions(conditions),
        )


def read_samples(path: Path) -> NDArray[np.float32]:
    """The samples that some program drew, [n, channels, height, width] in [0, 1].

    Args:
        path: a .npy; an .npz with `images`, `samples`, `x_train`, `x` or `arr_0`; a .parquet as
            `read_parquet` takes it; or a folder of PNG or JPEG pictures, read in the order of
            their names.  Floats stay as they are, integers in 0..255 are divided by 255.

    Raises:
        DatasetError: naming the file, if it is anything else; nothing in it is ever unpickled.
    """
    with naming(path):
        if path.is_dir():
            with parsing():
                images: NDArray[Any] = stack_pictures(_pictures_in(path))
        elif path.suffix == ".parquet":
            with parsing(), path.open("rb") as file:
                images = read_parquet(file).images
        elif path.suffix in (".npy", ".npz"):
            with parsing(), path.open("rb") as file:
                images = _read_numpy(file, SAMPLE_KEYS).images
        else:
            raise DatasetError(
                "samples are read from a .npy, .npz or .parquet file or a folder of PNG or JPEG "
                "pictures"
            )
        return as_unit_floats(channels_first(images))


def read_image(path: Path, *, image_shape: ImageShape) -> NDArray[np.float32]:
    """One image of the size of a data set, [channels, height, width] in [0, 1].

    Args:
        path: a PNG or JPEG picture, or a .npy array [h, w], [c, h, w] or [h, w, c], of integers in
            0..255 or floats in [0, 1].
        image_shape: that of the data set.

    Raises:
        DatasetError: naming the file, if it is anything else, of another size or out of range.
    """
    with naming(path):
        with parsing():
            if path.suffix.lower() in SUFFIXES:
                images: NDArray[Any] = stack_pictures([(path.name, path.read_bytes())])
            elif path.suffix == ".npy":
                with path.open("rb") as file:
                    images = _read_numpy(file, ()).images[np.newaxis]
            else:
                raise DatasetError("an image is read from a PNG, JPEG or .npy file")
        if images.ndim not in (3, 4):
            got = list(images.shape[1:])
            raise DatasetError(f"an image must be [h, w], [c, h, w] or [h, w, c], got {got}")
        image: NDArray[np.float32] = as_unit_floats(channels_first(images))[0]
        if image.shape != image_shape:
            raise DatasetError(
                f"an image must be of the data set's size (channels, height, width), "
                f"{list(image_shape)}, got {list(image.shape)}"
            )
        return image


def read_array(path: Path) -> NDArray[Any]:
    """The array in a .npy file.

    Raises:
        DatasetError: naming the file, if it is anything else; nothing in it is ever unpickled.
    """
    with naming(path):
        if path.suffix != ".npy":
            raise DatasetError("an array is read from a .npy file")
        with parsing(), path.open("rb") as file:
            return _read_numpy(file, ()).images


def _read_numpy(
    file: BinaryIO,
    image_keys: Sequence[str],
    label_keys: Sequence[str] = (),
    condition_keys: Sequence[str] = (),
) -> RawSet:
    """Arrays by the first key of each kind that an .npz has; or the array of a .npy as images."""
    head = file.read(max(map(len, NUMPY_MAGIC)))
    if not head.startswith(NUMPY_MAGIC):  # what np.load says of such a file is how to unpickle it
        is_cut = any(magic.startswith(head) for magic in NUMPY_MAGIC)
        what = "truncated" if is_cut else "neither an .npz archive nor a .npy array"
        raise DatasetError(f"cannot be read: it is {what}")
    file.seek(0)
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return RawSet(loaded)

    def first(keys: Sequence[str]) -> NDArray[Any] | None:
        return next((loaded[key] for key in keys if key in loaded.files), None)

    if not image_keys:
        raise DatasetError("must hold one array, as a .npy file does: it is an .npz archive")
    images = first(image_keys)
    if images is None:
        raise DatasetError(
            f"must hold an array named {' or '.join(image_keys)}, got {loaded.files}"
        )
    return RawSet(images, first(label_keys), first(condition_keys))


def _pictures_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            yield path.name, path.read_bytes()


@contextmanager
def parsing() -> Iterator[None]:
    """Turn what a damaged file raises into one line."""
    try:
        yield
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DatasetError(f"cannot be read: {reason.splitlines()[0]}") from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path in front of every error."""
    try:
        yield
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error
