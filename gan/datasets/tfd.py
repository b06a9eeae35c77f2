"""The Toronto Face Database: a .mat file of MATLAB whose five folds say who trains and who tests.

The database (Susskind et al., 2010) is given out on request alone, as TFD_48x48.mat and
TFD_96x96.mat; nothing of it is in the package.  G and D are trained on the images that no fold
labels, window widths are chosen on a fold's validation images, and its test images are scored, as
in the released code of Goodfellow et al. (2014).  A fold's training images, which are there for
classifiers, take no part.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gan.datasets.arrays import as_uint8
from gan.datasets.files import naming, parsing
from gan.datasets.images import ImageSet
from gan.datasets.matlab import read_arrays
from gan.errors import DatasetError

Part = Literal["unlabeled", "train", "valid", "test"]

CODES: dict[Part, int] = {"unlabeled": 0, "train": 1, "valid": 2, "test": 3}
"""What a fold's column says of each image."""
N_FOLDS = 5
SIDES = (48, 96)
"""Pixels of a side, in the two files of the database."""
FIELDS = ("images", "folds", "labs_ex")
"""What is read; the identities, `labs_id`, are not."""
N_EXPRESSIONS = 7

LEAST_UNLABELED = 90_000
"""The database has more unlabelled images than this; a file with fewer stands in for it."""


@dataclass(frozen=True, eq=False)
class Faces:
    """What such a file holds.

    Attributes:
        images: uint8 [n, 1, side, side].
        folds: a column for each fold, of `CODES`, [n, 5].
        expressions: 1 .. 7, or -1 where an image has no label, int64 [n].
        digest: SHA-256 of the file's bytes.
        path: of the file, for errors.
    """

    images: NDArray[np.uint8]
    folds: NDArray[np.uint8]
    expressions: NDArray[np.int64]
    digest: str
    path: Path

    def part(self, fold: int, name: Part) -> ImageSet:
        """The images that a fold, 0 .. 4, puts into a set; labels 0 .. 6 where all have one.

        Sets of the same images have the same digest, whichever folds they are of.

        Raises:
            DatasetError: there are none.
        """
        rows = np.flatnonzero(self.folds[:, fold] == CODES[name])
        if len(rows) == 0:
            raise DatasetError(
                f"{self.path}: fold {fold} must have {name} images, which have "
                f"{CODES[name]} in its column of folds, got none"
            )
        expressions = self.expressions[rows]
        which = hashlib.sha256(self.digest.encode())
        which.update(rows.astype("<i8").tobytes())
        return ImageSet(
            images=np.ascontiguousarray(self.images[rows]),
            labels=expressions - 1 if expressions.min() > 0 else None,
            digest=which.hexdigest(),
        )


def read_faces(path: Path) -> Faces:
    """The images, folds and expressions of TFD_48x48.mat, TFD_96x96.mat or a file laid out alike.

    Args:
        path: as `gan.datasets.matlab` takes it, with `images` [n, side, side], `folds` [n, 5] and
            `labs_ex` [n, 1].

    Raises:
        DatasetError: naming the file, if it is anything else; nothing in it is ever unpickled.
    """
    with naming(path), parsing():
        content = path.read_bytes()
        fields = read_arrays(content, FIELDS)
        images, folds, expressions = (_numbers(fields, name) for name in FIELDS)
        return Faces(
            images=_images(images),
            folds=_folds(folds, n_images=len(images)),
            expressions=_expressions(expressions, n_images=len(images)),
            digest=hashlib.sha256(content).hexdigest(),
            path=path,
        )


def stand_in_notice(n_unlabeled: int) -> str | None:
    """What is to be said beside every score of a file too small to be the database itself."""
    if n_unlabeled >= LEAST_UNLABELED:
        return None
    return (
        f"{n_unlabeled:,} unlabelled images stand in for the Toronto Face Database, which has "
        f"more than {LEAST_UNLABELED:,}: no score is comparable with the paper's"
    )


def _numbers(fields: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name not in fields:
        raise DatasetError(f"must hold {', '.join(FIELDS)}, got no {name}")
    return fields[name]


def _images(images: NDArray[Any]) -> NDArray[np.uint8]:
    if images.ndim != 3 or images.shape[1:] not in [(side, side) for side in SIDES]:
        sizes = " or ".join(f"[n, {side}, {side}]" for side in SIDES)
        raise DatasetError(f"images must be {sizes}, got {list(images.shape)}")
    if len(images) == 0:
        raise DatasetError("must hold at least one image, got none")
    return as_uint8(images)[:, np.newaxis]


def _folds(folds: NDArray[Any], *, n_images: int) -> NDArray[np.uint8]:
    if folds.shape != (n_images, N_FOLDS):
        raise DatasetError(
            f"folds must be [{n_images}, {N_FOLDS}], a row for each image, got {list(folds.shape)}"
        )
    is_code = np.isin(folds, list(CODES.values()))
    if not is_code.all():
        codes = ", ".join(f"{code} ({name})" for name, code in CODES.items())
        raise DatasetError(f"folds must be of {codes}, got {folds[~is_code][0]}")
    return folds.astype(np.uint8)


def _expressions(labels: NDArray[Any], *, n_images: int) -> NDArray[np.int64]:
    if labels.shape not in [(n_images, 1), (1, n_images)]:
        raise DatasetError(
            f"labs_ex must be [{n_images}, 1], a row for each image, got {list(labels.shape)}"
        )
    is_label = np.isin(labels, [-1, *range(1, N_EXPRESSIONS + 1)])
    if not is_label.all():
        raise DatasetError(
            f"labs_ex must be of 1 .. {N_EXPRESSIONS}, or -1 without a label, got "
            f"{labels[~is_label][0]}"
        )
    return labels.astype(np.int64).ravel()
