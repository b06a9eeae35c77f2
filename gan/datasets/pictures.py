"""Encoded pictures -> pixels."""

import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gan.errors import DatasetError

FORMATS = ("PNG", "JPEG")
SUFFIXES = (".jpeg", ".jpg", ".png")

MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB"}
"""Mode in which a picture is stored -> mode in which it is read; transparency is dropped."""


def stack_pictures(named: Iterable[tuple[str, bytes]]) -> NDArray[np.uint8]:
    """Decoded PNG or JPEG pictures, [n, channels, height, width].

    Args:
        named: the name by which an error calls a picture, and its encoded bytes.

    Raises:
        DatasetError: if there is no picture, if one cannot be decoded, or if their sizes differ.
    """
    pictures: list[NDArray[np.uint8]] = []
    for name, encoded in named:
        picture = _decode(name, encoded)
        if pictures and picture.shape != pictures[0].shape:
            raise DatasetError(
                "pictures must all be of one size (channels, height, width), got "
                f"{list(picture.shape)} in {name} after {list(pictures[0].shape)}"
            )
        pictures.append(picture)
    if not pictures:
        raise DatasetError("must hold PNG or JPEG pictures, got none")
    return np.stack(pictures)


def _decode(name: str, encoded: bytes) -> NDArray[np.uint8]:
    """One picture, [channels, height, width]."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as picture:
            if picture.mode not in MODES:
                raise DatasetError(
                    f"pictures must be 8-bit grey or RGB, got mode {picture.mode} in {name}"
                )
            pixels = np.asarray(picture.convert(MODES[picture.mode]))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{name} is not a whole PNG or JPEG picture") from error
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
