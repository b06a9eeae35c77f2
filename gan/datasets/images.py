"""What every reader of a data set returns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gan.errors import DatasetError

ImageShape = tuple[int, int, int]
"""(channels, height, width)."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in memory, all of one shape.

    Attributes:
        images: uint8 [n, channels, height, width], n >= 1.
        labels: int64 [n], or None where the file has none.
        conditions: real numbers that belong to each image, float32 [n, d] with d >= 1, or None.
        digest: SHA-256 (64 hexadecimal digits) that names the data: of the bytes of the file, or
            of those and the rows, for a part of it.

    Raises:
        DatasetError: if an array has another type or shape, or the lengths differ.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    digest: str
    conditions: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if self.conditions is not None:
            _require_conditions(self.conditions, n_images=len(images))
        if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
            raise DatasetError(
                "images must be uint8 [n, channels, height, width] with n >= 1, "
                f"got {images.dtype} {list(images.shape)}"
            )
        if labels is None:
            return
        if labels.dtype != np.int64 or labels.ndim != 1:
            raise DatasetError(
                f"labels must be int64 [n], got {labels.dtype} {list(labels.shape)}"
            )
        if len(labels) != len(images):
            raise DatasetError(
                "labels and images must be of one length, "
                f"got {len(labels)} labels and {len(images)} images"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        _, channels, height, width = self.images.shape
        return channels, height, width


def _require_conditions(conditions: NDArray[np.float32], *, n_images: int) -> None:
    if conditions.dtype != np.float32 or conditions.ndim != 2 or not conditions.shape[1]:
        raise DatasetError(
            "conditions must be float32 [n, d] with d >= 1, "
            f"got {conditions.dtype} {list(conditions.shape)}"
        )
    if len(conditions) != n_images:
        raise DatasetError(
            "conditions and images must be of one length, "
            f"got {len(conditions)} conditions and {n_images} images"
        )
    if not np.isfinite(conditions).all():
        raise DatasetError("conditions must be finite, got NaN or infinity")


def pixel_mean(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mean of each pixel over all images, in [0, 1].

    Args:
        images: uint8 [n, channels, height, width].

    Returns:
        [d], float64, with d = channels * height * width in the order of a flattened image.
    """
    # An integer sum is exact, so the mean depends on neither the order nor the blocking.
    sums: NDArray[np.uint64] = images.reshape(len(images), -1).sum(axis=0, dtype=np.uint64)
    return sums / np.float64(255 * len(images))


def class_sizes(labels: NDArray[np.int64]) -> list[int]:
    """How many images there are of each class.

    Raises:
        DatasetError: classes are not numbered from 0 without a gap.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    if classes[0] != 0 or classes[-1] != len(classes) - 1:
        raise DatasetError(
            "classes must be numbered from 0 without a gap, got "
            f"{len(classes)} from {classes[0]} to {classes[-1]}"
        )
    found: list[int] = sizes.tolist()
    return found
