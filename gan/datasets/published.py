"""MNIST, Fashion-MNIST and CIFAR-10 from a folder, in the files in which they are published."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from gan.datasets.arrays import channels_first
from gan.datasets.cifar10 import BATCHES, PICKLED, RAW, read_pickled, read_raw
from gan.datasets.download import fetch_cifar10, fetch_fashion_mnist, fetch_mnist
from gan.datasets.files import read_images
from gan.datasets.idx import packed, read_idx
from gan.datasets.images import ImageSet
from gan.datasets.mnist import IDX_SHA256, STEMS
from gan.errors import DatasetError

Split = Literal["train", "test"]

IDX_KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A way in which a set lies in a folder.

    Attributes:
        folder: where its files are, within that folder.
        names: split -> their names; of a folder that has one of them, all are asked for.
        read: their paths, in this order -> the split.
    """

    folder: str
    names: Mapping[Split, tuple[str, ...]]
    read: Callable[[Sequence[Path]], ImageSet]

    def files(self, root: Path, split: Split) -> tuple[Path, ...]:
        """The files of a split, whether or not they are there."""
        return tuple(root / self.folder / name for name in self.names[split])

    def is_in(self, root: Path) -> bool:
        """Whether any file of it is there."""
        files = [file for split in get_args(Split) for file in self.files(root, split)]
        return any(file.is_file() or packed(file).is_file() for file in files)


@dataclass(frozen=True, kw_only=True)
class Published:
    """One of the sets that `gan.config.PUBLISHED` names.

    Attributes:
        layouts: the first that is there is read.
        fetch: downloads it into a folder.
        image_shape: (channels, height, width).
    """

    layouts: tuple[Layout, ...]
    fetch: Callable[[Path], None]
    image_shape: tuple[int, int, int]

    def layout_in(self, root: Path) -> Layout | None:
        """That in which the set lies in a folder."""
        return next((layout for layout in self.layouts if layout.is_in(root)), None)


def read_published(name: str, split: Split, *, root: Path, download: bool = False) -> ImageSet:
    """A split of a published set, whole and in its published order.

    Args:
        name: which set.
        split: which files of it; `gan.datasets.splits` says who may ask for `test`.
        root: the folder.
        download: whether torchvision may fetch what is not there.

    Returns:
        Images, labels 0..9, and as digest the SHA-256 of the bytes they were read from (of IDX
        files unpacked: it does not depend on whether they are packed).

    Raises:
        DatasetError: if files are missing, damaged or of another set, or cannot be downloaded.
    """
    known = SETS[name]
    if download and known.layout_in(root) is None:
        known.fetch(root)
    layout = known.layout_in(root)
    if layout is None:
        places = ", ".join(f"{layout.folder}/{layout.names[split][0]}" for layout in known.layouts)
        raise DatasetError(
            f"data.root must be a folder with the files of {name} (one of {places}), got {root}: "
            f"{'none of them is there' if root.is_dir() else 'no such folder'}; "
            "data.download=true would download them"
        )
    images = layout.read(layout.files(root, split))
    if images.image_shape != known.image_shape:
        raise DatasetError(
            f"{root}: images of {name} must have the shape {list(known.image_shape)}, "
            f"got {list(images.image_shape)}"
        )
    return images


def files_of(name: str, split: Split, *, root: Path) -> tuple[Path, ...]:
    """The files of a split of a set; none where the set is not in this folder."""
    layout = SETS[name].layout_in(root)
    files = () if layout is None else layout.files(root, split)
    return tuple(file if file.is_file() else packed(file) for file in files)


def _idx(folder: str, *, is_mnist: bool) -> Layout:
    """The four files of MNIST and its like."""
    return Layout(
        folder=folder,
        names={
            split: tuple(f"{STEMS[split]}-{kind}" for kind in IDX_KINDS)
            for split in get_args(Split)
        },
        read=lambda paths: _read_idx_pair(*paths, is_mnist=is_mnist),
    )


def _read_idx_pair(images_path: Path, labels_path: Path, *, is_mnist: bool) -> ImageSet:
    content, images = read_idx(images_path, n_axes=3)
    labels_content, labels = read_idx(labels_path, n_axes=1)
    # Files of both sets have the same names and sizes.
    digest, of_mnist = hashlib.sha256(content).hexdigest(), IDX_SHA256[images_path.name]
    if is_mnist and digest != of_mnist:
        raise DatasetError(
            f"{images_path}: must have, unpacked, the SHA-256 {of_mnist}, got {digest}"
        )
    if not is_mnist and digest == of_mnist:
        raise DatasetError(f"{images_path}: must be of Fashion-MNIST, got that of MNIST")
    if len(images) != len(labels):
        raise DatasetError(
            f"{labels_path}: must hold a label for each of {len(images)} images, got {len(labels)}"
        )
    return ImageSet(
        images=channels_first(images),
        labels=labels.astype(np.int64),
        digest=hashlib.sha256(content + labels_content).hexdigest(),
    )


def _pickled(folder: str) -> Layout:
    return Layout(folder=folder, names=BATCHES, read=read_pickled)


def _raw(folder: str) -> Layout:
    names = {split: tuple(f"{name}.bin" for name in BATCHES[split]) for split in get_args(Split)}
    return Layout(folder=folder, names=names, read=read_raw)


PARQUET = Layout(
    folder=".",
    names={split: (f"{split}.parquet",) for split in get_args(Split)},
    read=lambda paths: read_images(paths[0]),
)
"""One file a split, with the columns that Hugging Face has."""

SETS: Mapping[str, Published] = {
    "mnist": Published(
        layouts=(_idx("MNIST/raw", is_mnist=True), _idx(".", is_mnist=True), PARQUET),
        fetch=fetch_mnist,
        image_shape=(1, 28, 28),
    ),
    "fashion_mnist": Published(
        layouts=(_idx("FashionMNIST/raw", is_mnist=False), _idx(".", is_mnist=False), PARQUET),
        fetch=fetch_fashion_mnist,
        image_shape=(1, 28, 28),
    ),
    "cifar10": Published(
        layouts=(_pickled(PICKLED), _raw(RAW), PARQUET, _pickled("."), _raw(".")),
        fetch=fetch_cifar10,
        image_shape=(3, 32, 32),
    ),
}
"""By the name that `data.dataset` has for them."""
