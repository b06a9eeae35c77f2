"""The batches of CIFAR-10, as its authors publish them: 10,000 images in each of six files.

The version for Python (`cifar-10-batches-py`, which torchvision downloads) consists of pickles.
They are not unpickled: `pickletools` lists the opcodes of a pickle without carrying out any, and
the pixels and labels stand among their arguments.  Only files with the published checksums are
read at all, so the arguments are where they are known to be.

Source: Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images.
"""

import hashlib
import pickletools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan.datasets.images import ImageSet
from gan.errors import DatasetError

PICKLED, RAW = "cifar-10-batches-py", "cifar-10-batches-bin"
"""Names of the folders."""

BATCHES: Mapping[Literal["train", "test"], tuple[str, ...]] = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
"""Split -> its files, which end in .bin in the version for other languages."""

MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""Checksums of the pickles, by which torchvision knows them."""

N_IMAGES, IMAGE_SHAPE = 10_000, (3, 32, 32)
N_PIXELS = 3 * 32 * 32


class Batch(NamedTuple):
    """What one file holds."""

    pixels: NDArray[np.uint8]
    """[n, 3072], channel after channel."""
    labels: NDArray[np.uint8]
    """[n]."""


def read_pickled(paths: Sequence[Path]) -> ImageSet:
    """The images of batches of the version for Python; the digest is of the bytes of the files.

    Raises:
        DatasetError: naming the file, if it is missing or not, byte for byte, the published one.
    """
    contents = [_content(path) for path in paths]
    for path, content in zip(paths, contents, strict=True):
        found, expected = hashlib.md5(content, usedforsecurity=False).hexdigest(), MD5[path.name]
        if found != expected:
            raise DatasetError(
                f"{path}: must have the MD5 {expected}, got {found}: it is altered or cut short"
            )
    return _joined([parse_pickled(content) for content in contents], contents)


def parse_pickled(content: bytes) -> Batch:
    """The pixels and labels of a pickled batch, by its opcodes.

    A batch is a dict of strings to lists and one array: a string that is one of the keys says
    what the numbers and the long string behind it are.

    Raises:
        DatasetError: it has no opcodes, or its labels and pixels do not fit together.
    """
    key, pixels, labels = "", b"", bytearray()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "SHORT_BINSTRING" and argument in ("data", "labels", "filenames"):
                key = str(argument)
            elif opcode.name == "BINSTRING" and key == "data":
                pixels = str(argument).encode("latin-1")
            elif opcode.name == "BININT1" and key == "labels":
                labels.append(int(argument or 0))
    except ValueError as error:
        raise DatasetError(f"must be a batch of CIFAR-10: {error}") from error
    if not labels or len(pixels) != N_PIXELS * len(labels):
        raise DatasetError(
            f"must hold {N_PIXELS} pixels for each label, got {len(pixels)} for {len(labels)}"
        )
    return Batch(
        np.frombuffer(pixels, np.uint8).reshape(-1, N_PIXELS), np.frombuffer(labels, np.uint8)
    )


def read_raw(paths: Sequence[Path]) -> ImageSet:
    """The images of batches of the version for other languages; the digest likewise.

    Raises:
        DatasetError: naming the file, if it is missing, cut short or has labels beyond 9.
    """
    contents = [_content(path) for path in paths]
    size = N_IMAGES * (1 + N_PIXELS)
    for path, content in zip(paths, contents, strict=True):
        if len(content) != size:
            raise DatasetError(f"{path}: must have {size} bytes, got {len(content)}")
    batches = [parse_raw(content) for content in contents]
    for path, batch in zip(paths, batches, strict=True):
        if (highest := batch.labels.max()) > 9:
            raise DatasetError(f"{path}: labels must be 0 to 9, got {highest}: it is altered")
    return _joined(batches, contents)


def parse_raw(content: bytes) -> Batch:
    """The pixels and labels of a batch of rows of one label and its pixels."""
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + N_PIXELS)
    return Batch(rows[:, 1:], rows[:, 0])


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error


def _joined(batches: list[Batch], contents: list[bytes]) -> ImageSet:
    return ImageSet(
        images=np.concatenate([batch.pixels for batch in batches]).reshape(-1, *IMAGE_SHAPE),
        labels=np.concatenate([batch.labels for batch in batches]).astype(np.int64),
        digest=hashlib.sha256(b"".join(contents)).hexdigest(),
    )
