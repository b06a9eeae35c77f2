"""What an inference net is scored by while it trains: codes of held-out images."""

import functools
import math

import torch
from torch import Tensor

from gan.config import DataConfig
from gan.datasets.images import ImageSet
from gan.evaluation.nearest_accuracy import nearest_accuracy, nearest_is_right
from gan.extensions.inference.nets import settings
from gan.extensions.inference.saved import SavedInference
from gan.metric_names import (
    NEAREST_ACCURACY_VALID,
    NEAREST_ACCURACY_VALID_SE,
    RECONSTRUCTION_ERROR_VALID,
    RECONSTRUCTION_ERROR_VALID_SE,
)
from gan.run import unit_pixels
from gan.validation import Scored, Validation, load_data

MAX_REFERENCES, MAX_QUERIES = 50_000, 10_000
"""Training images that codes are compared with, and held-out images that are: the first ones.  All
of MNIST; of larger sets a score would take longer than the training."""
SHOWN_IN_ROW = 10
N_SHOWN_ROWS = 5


def score_inference(saved: SavedInference, validation: Validation) -> Scored:
    """1-NN accuracy (of images with labels) and reconstruction error; a picture of x and G(E(x)).

    The accuracy is that of the nearest training image by Euclidean distance of
    `SavedInference.points`.
    """
    train, valid = load_data(validation.config.data)
    x = _pixels(validation.config.data, validation.device)
    errors = reconstruction_errors(saved, x)
    scores = {
        RECONSTRUCTION_ERROR_VALID: errors.mean().item(),
        RECONSTRUCTION_ERROR_VALID_SE: standard_error(errors),
    }
    if valid.labels is not None and train.labels is not None:
        right = nearest_right(saved, valid, train, device=validation.device)
        accuracy = nearest_accuracy(right)
        scores[NEAREST_ACCURACY_VALID] = accuracy.value
        scores[NEAREST_ACCURACY_VALID_SE] = accuracy.standard_error or 0.0
    shown = x[: SHOWN_IN_ROW * N_SHOWN_ROWS]
    return Scored(scores=scores, picture=beside_reconstructions(saved, shown))


def nearest_right(
    saved: SavedInference,
    queries: ImageSet,
    references: ImageSet,
    *,
    device: torch.device | str = "cpu",
    limit: int = MAX_REFERENCES,
) -> Tensor:
    """Whether the nearest reference, by codes, is of each query's class: [n] bool.

    Args:
        saved: gives the codes.
        queries: with labels; the first MAX_QUERIES count.
        references: with labels; the first `limit` count.
        device: where to compare.
        limit: of references.
    """
    rows, labels = [], []
    for images, most in ((queries, MAX_QUERIES), (references, limit)):
        assert images.labels is not None  # noqa: S101 (callers ask those with labels)
        rows.append(image_points(saved, images, device=device, limit=most))
        labels.append(torch.from_numpy(images.labels[:most]).to(device))
    return nearest_is_right(rows[0], labels[0], rows[1], labels[1])


def image_points(
    saved: SavedInference, images: ImageSet, *, device: torch.device | str = "cpu", limit: int
) -> Tensor:
    """`SavedInference.points` of the first images of a set, [n, width], a part at a time."""
    pixels = torch.from_numpy(images.images[:limit])
    return torch.cat(
        [saved.points(part.to(device, torch.float32) / 255) for part in torch.split(pixels, 5_000)]
    )


def reconstruction_errors(
    saved: SavedInference, images: Tensor, *, is_refined: bool = False
) -> Tensor:
    """Mean of (G(E(x)) - x)^2 over the pixels of each image, [n] float64.

    Args:
        saved: both nets.
        images: [n, channels, height, width] in [0, 1].
        is_refined: whether the codes are refined by the steps that the run's settings say.
    """
    cfg = settings(saved.config)
    found = saved.reconstruct(images, refine_steps=cfg.refine_steps if is_refined else 0)
    return (found.double() - images.to(found.device, torch.float64)).square().flatten(1).mean(1)


def beside_reconstructions(saved: SavedInference, images: Tensor) -> Tensor:
    """Rows of images for a picture with ten in a row: x, and G(E(x)) below them.

    Args:
        saved: both nets.
        images: [n, channels, height, width] in [0, 1]; n is a multiple of ten, or below it.
    """
    both = (images, saved.reconstruct(images))
    parts = zip(*(torch.split(rows, SHOWN_IN_ROW) for rows in both), strict=True)
    return torch.cat([part.to("cpu", torch.float32) for pair in parts for part in pair])


def standard_error(values: Tensor) -> float:
    """Of the mean of values, [n] with n > 1: their standard deviation over sqrt n."""
    return values.std().item() / math.sqrt(len(values))


@functools.lru_cache(maxsize=1)
def _pixels(data: DataConfig, device: str) -> Tensor:
    return unit_pixels(load_data(data)[1], device=device)[:MAX_QUERIES].float()
