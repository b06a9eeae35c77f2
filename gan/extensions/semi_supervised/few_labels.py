"""A few labels, drawn once, and training images whose labels nobody can read any more.

    few = hide(images, draw_few(images.labels, 100, seed=0))

What trains on few labels receives a `FewLabels` and nothing else: of all other images it has the
pixels alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan.datasets.images import ImageSet, class_sizes
from gan.errors import ConfigError, DatasetError
from gan.randomness import stream

N_LABELS = "semi_supervised.n_labels"


@dataclass(frozen=True, eq=False)
class FewLabels:
    """Training images of which a few have labels.

    Attributes:
        pixels: of all training images, [n, n_pixels] uint8.
        labelled: rows of `pixels` whose class is known, [l] int64, class by class.
        labels: their classes, [l] int64, as many of each.
        unlabelled: all other rows of `pixels`, [n - l] int64, ascending.
        image_shape: (channels, height, width).
    """

    pixels: Tensor
    labelled: Tensor
    labels: Tensor
    unlabelled: Tensor
    image_shape: tuple[int, int, int]

    @property
    def n_classes(self) -> int:
        """Number of classes, of each of which there are labels."""
        return int(self.labels.max()) + 1


def draw_few(labels: NDArray[np.int64], n: int, *, seed: int) -> Tensor:
    """Rows of n images to be labelled, as many of each class: [n] int64, class by class.

    The draw has a random stream of its own: it depends on labels, n and seed alone.  Of one seed
    the rows for fewer labels are among those for more.

    Args:
        labels: class of each image, numbered from 0 without a gap.
        n: a multiple of the number of classes.
        seed: of the run.

    Raises:
        ConfigError: n is less than the classes, not a multiple of them, or more than there are
            images, in all or of one class; or there is one class alone.
        DatasetError: classes are not numbered from 0 without a gap.
    """
    classes = torch.from_numpy(labels)
    sizes = class_sizes(labels)
    require_n_labels(n, sizes)
    rng = stream(seed, "few labels")
    shuffled = torch.randperm(len(classes), generator=rng)
    kinds = classes[shuffled]
    return torch.cat(
        [shuffled[kinds == k][: n // len(sizes)].sort().values for k in range(len(sizes))]
    )


def require_n_labels(n: int, sizes: list[int]) -> None:
    """Refuse a number of labels that cannot be drawn in equal parts, leaving images unlabelled.

    Args:
        n: labels.
        sizes: images of each class.

    Raises:
        ConfigError: saying what it must be.
    """
    n_classes, n_images = len(sizes), sum(sizes)
    if n_classes < 2:
        raise ConfigError([f"{N_LABELS}: a classifier needs two classes or more, got {n_classes}"])
    if n < n_classes:
        raise ConfigError(
            [f"{N_LABELS}: must be at least one label for each of {n_classes} classes, got {n}"]
        )
    if n >= n_images:
        raise ConfigError(
            [f"{N_LABELS}: must be less than the {n_images} training images, got {n}"]
        )
    if n % n_classes:
        raise ConfigError([f"{N_LABELS}: must be a multiple of the {n_classes} classes, got {n}"])
    if n // n_classes > min(sizes):
        raise ConfigError(
            [
                f"{N_LABELS}: there must be {n // n_classes} images of each class, the smallest "
                f"has {min(sizes)}"
            ]
        )


def require_minibatch(n_unlabelled: int, batch_size: int) -> None:
    """Refuse minibatches that the images without labels do not fill.

    Raises:
        ConfigError: saying how large they may be.
    """
    if batch_size > n_unlabelled:
        raise ConfigError(
            [
                f"train.batch_size: must be at most the {n_unlabelled} unlabelled images, "
                f"got {batch_size}"
            ]
        )


def hide(images: ImageSet, rows: Tensor) -> FewLabels:
    """The images with the labels of these rows; all other labels are left behind.

    Args:
        images: training images with labels.
        rows: those to be labelled, as from `draw_few`.

    Raises:
        DatasetError: the images have no labels.
    """
    if images.labels is None:
        raise DatasetError("semi_supervised needs a data set with labels")
    is_hidden = torch.ones(len(images), dtype=torch.bool)
    is_hidden[rows] = False
    return FewLabels(
        pixels=torch.from_numpy(images.images).flatten(1),
        labelled=rows,
        labels=torch.from_numpy(images.labels)[rows],
        unlabelled=is_hidden.nonzero().squeeze(1),
        image_shape=images.image_shape,
    )
