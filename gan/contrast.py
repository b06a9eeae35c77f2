"""Global contrast normalisation: an image without its brightness and its contrast.

    g = norm * (x - mean(x)) / |x - mean(x)|

and back by one affine map for all samples,

    x = shift + scale * g,    shift = E mean(x),    scale = E |x - mean(x)| / norm

with expectations over training images, cut off outside of [0, 1].  What an image's own mean and
contrast were is lost, and a generator that has learnt g alone knows neither.  To give samples
means and contrasts drawn from training images would be to score what was not learnt; two numbers
of the whole set are the least that must be added, and of all pairs these come nearest to the
images, in squared error: as g is orthogonal to a constant, that error is, a pixel,

    var mean(x) + var |x - mean(x)| / d

On CIFAR-10's 40,000 training images its root is 0.137, of which cutting off spares 0.002; the
standard deviation of pixels there is 0.25.

Source: pylearn2's `global_contrast_normalize`; cifar10_fully_connected.yaml has the norm 55.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEAST_CONTRAST = 0.5
"""|x - mean(x)| of pixels 0 .. 255 below which an image is of one colour: one pixel that differs
by 1 comes to 0.7 or more."""

CHUNK = 1000


class Brightness(NamedTuple):
    """How linear outputs become pixels in [0, 1]."""

    shift: float
    """The pixel of an output 0."""
    scale: float
    """Pixels a unit of output."""


AS_THEY_ARE = Brightness(shift=0.0, scale=1.0)
"""Of outputs that are pixels themselves."""


def normalise_contrast(pixels: Tensor, *, norm: float) -> Tensor:
    """Images without mean, of one Euclidean norm; those of one colour become 0.

    Args:
        pixels: [n, d] float, 0 .. 255.
        norm: of the result.

    Returns:
        [n, d].
    """
    differences = pixels - pixels.mean(1, keepdim=True)
    lengths = differences.norm(dim=1, keepdim=True)
    return differences * torch.where(lengths < LEAST_CONTRAST, 0.0, norm / lengths)


def mean_brightness(images: NDArray[np.uint8], *, norm: float) -> Brightness:
    """The affine map back to pixels that is nearest to these images in the mean.

    Args:
        images: training images, uint8 [n, channels, height, width].
        norm: of their normalised form.
    """
    rows = images.reshape(len(images), -1)
    means, lengths = np.empty(len(rows)), np.empty(len(rows))
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK] / np.float64(255)
        means[start : start + CHUNK] = part.mean(1)
        lengths[start : start + CHUNK] = np.linalg.norm(part - part.mean(1, keepdims=True), axis=1)
    return Brightness(shift=float(means.mean()), scale=float(lengths.mean() / norm))
