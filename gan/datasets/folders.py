"""Folders of pictures -> images and labels."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gan.datasets.arrays import as_labels
from gan.datasets.images import ImageSet
from gan.datasets.pictures import SUFFIXES, stack_pictures
from gan.errors import DatasetError


def read_folder(folder: Path) -> ImageSet:
    """All pictures in a folder; with sub-folders, each is a class, as torchvision's ImageFolder.

    The order is that of the SHA-256 of their paths within the folder.  It is the same everywhere,
    and mixes the classes: the last images, which are held out, are of all of them.  Files and
    folders whose names begin with a dot are left out, as they are in listings.

    Returns:
        Images; labels 0, 1, ... in the order of the names of the sub-folders, None in a folder
        without; as digest the SHA-256 of all paths and bytes in that order.

    Raises:
        DatasetError: naming the file or folder, if it holds no picture, one that cannot be read,
            pictures of several sizes, pictures beside classes, or another file.
        OSError: if a file cannot be read.
    """
    names = class_names(folder)
    paths = sorted(_pictures_in(folder, names), key=lambda path: _key(path.relative_to(folder)))
    summary = hashlib.sha256()

    def contents() -> Iterator[tuple[str, bytes]]:
        for path in paths:
            content = path.read_bytes()
            summary.update(_key(path.relative_to(folder)) + hashlib.sha256(content).digest())
            yield str(path.relative_to(folder)), content

    images = stack_pictures(contents())
    labels = None
    if names:
        number = {name: i for i, name in enumerate(names)}
        labels = as_labels(np.array([number[path.relative_to(folder).parts[0]] for path in paths]))
    return ImageSet(images=images, labels=labels, digest=summary.hexdigest())


def class_names(folder: Path) -> list[str]:
    """Names of the sub-folders, in the order of their labels; none in a flat folder."""
    return [path.name for path in _listed(folder) if path.is_dir()]


def holds_pictures(folder: Path) -> bool:
    """Whether there is any picture in a folder, or in one within it."""
    return any(path.suffix.lower() in SUFFIXES for path in folder.rglob("*"))


def _pictures_in(folder: Path, names: list[str]) -> Iterator[Path]:
    """Every file, each of which must be a picture."""
    for path in _listed(folder):
        if path.is_dir():
            yield from _pictures_of(path, of=folder)
        elif names:
            raise DatasetError(
                f"{path.name} must lie in the folder of its class, as there are folders of classes"
            )
        else:
            yield _picture(path, of=folder)


def _pictures_of(name: Path, *, of: Path) -> list[Path]:
    """Those of one class, in its folder or in folders within that."""
    files = [
        _picture(path, of=of)
        for path in name.rglob("*")
        if not (path.is_dir() or _is_hidden(path.relative_to(of)))
    ]
    if not files:
        raise DatasetError(f"the folder of each class must hold pictures, got none in {name.name}")
    return files


def _picture(path: Path, *, of: Path) -> Path:
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetError(
            f"must hold PNG or JPEG pictures alone, got {path.relative_to(of)}: take it out"
        )
    return path


def _listed(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not _is_hidden(path.relative_to(folder)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _key(path: Path) -> bytes:
    return hashlib.sha256(path.as_posix().encode()).digest()
