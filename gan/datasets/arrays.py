"""From the arrays in which programs store images to the few forms that are used here."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan.errors import DatasetError

CHANNELS = (1, 3)


class RawSet(NamedTuple):
    """What a file holds, as it is stored."""

    images: NDArray[Any]
    """n at the front."""
    labels: NDArray[Any] | None = None
    """[n]."""
    conditions: NDArray[Any] | None = None
    """[n, d]."""


def channels_first(array: NDArray[Any]) -> NDArray[Any]:
    """Images as [n, channels, height, width], of the type that they came in.

    Args:
        array: [n, h, w]; [n, c, h, w] or [n, h, w, c] with c = 1 or 3, read as the former where
            both fit; or [n, d], where each row is a square grey image, d = h * h.

    Raises:
        DatasetError: for any other shape, and for one without a pixel.
    """
    shape = array.shape
    side = round(shape[-1] ** 0.5) if shape else 0
    if array.size == 0:
        fitting = None
    elif array.ndim == 2 and side * side == shape[1]:
        fitting = array.reshape(-1, 1, side, side)
    elif array.ndim == 3:
        fitting = array[:, np.newaxis]
    elif array.ndim == 4 and shape[1] in CHANNELS:
        fitting = array
    elif array.ndim == 4 and shape[3] in CHANNELS:
        fitting = array.transpose(0, 3, 1, 2)
    else:
        fitting = None
    if fitting is None:
        raise DatasetError(
            "images must be [n, h, w], or [n, c, h, w] or [n, h, w, c] with 1 or 3 channels, "
            f"or [n, h * h], got {list(shape)}"
        )
    return _writable(np.ascontiguousarray(fitting))


def as_uint8(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels as uint8; floats are multiplied by 255 and rounded.

    Args:
        images: integers in 0..255 or floats in [0, 1], any shape.

    Raises:
        DatasetError: if a pixel is out of range, or not a number.
    """
    _require_range(images)
    if images.dtype.kind == "f":
        images = np.rint(images * 255)
    return images.astype(np.uint8, copy=False)


def as_unit_floats(images: NDArray[Any]) -> NDArray[np.float32]:
    """Pixels as float32 in [0, 1]; integers are divided by 255.

    Args:
        images: integers in 0..255 or floats in [0, 1], any shape.

    Raises:
        DatasetError: if a pixel is out of range, or not a number.
    """
    _require_range(images)
    if images.dtype.kind != "f":
        images = images / np.float32(255)
    return images.astype(np.float32, copy=False)


def as_labels(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Labels as int64 [n].

    Raises:
        DatasetError: if they are not a list of integers.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "ui":
        raise DatasetError(f"labels must be integers [n], got {labels.dtype} {list(labels.shape)}")
    return _writable(labels.astype(np.int64, copy=False))


def as_conditions(conditions: NDArray[Any]) -> NDArray[np.float32]:
    """Conditions as float32 [n, d]; one number an image becomes d = 1.

    Raises:
        DatasetError: if they are not numbers.
    """
    if conditions.ndim not in (1, 2) or conditions.dtype.kind not in "uif":
        raise DatasetError(
            "conditions must be numbers [n] or [n, d], "
            f"got {conditions.dtype} {list(conditions.shape)}"
        )
    return _writable(conditions.reshape(len(conditions), -1).astype(np.float32, copy=False))


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or a copy of one that is not: torch.from_numpy warns of that."""
    return np.require(array, requirements="W")


def _require_range(images: NDArray[Any]) -> None:
    if images.dtype.kind not in "uif":
        raise DatasetError(
            f"pixels must be integers in 0..255 or floats in [0, 1], got {images.dtype}"
        )
    low, high = images.min().item(), images.max().item()
    is_float = images.dtype.kind == "f"
    if not (low >= 0 and high <= (1 if is_float else 255)):  # a NaN fails both
        allowed = "floats must lie in [0, 1]" if is_float else "integers must lie in 0..255"
        hint = _scaling_hint(low, high) if is_float else ""
        raise DatasetError(f"pixels given as {allowed}, got {low} to {high}{hint}")


def _scaling_hint(low: float, high: float) -> str:
    if -1 <= low < 0 and high <= 1:
        return ": if they are scaled to [-1, 1], save (x + 1) / 2"
    if low >= 0 and 1 < high <= 255:
        return ": if they are scaled to [0, 255], save x / 255"
    return ""
