"""Levels of pixels: the share of grey ones, and images freed of brightness and contrast.

The share of grey pixels is that of pixels neither near black nor near white:

    mean over images of the share of pixels in (0.1, 0.9)

Classifier features hardly see whether strokes have soft edges, and a Parzen window sees little
else: images rounded to black and white keep their classes and lose every grey pixel, blurred ones
double them.

Bias: none; standard error: of a mean over images.

Distances between pixels find noise as bright as images, and none in faint noise, which lies as
near to an empty image as a thin stroke does; freed of brightness and contrast it is noise again.
"""

import math

import torch
from torch import Tensor

from gan.evaluation.score import Score, normal_score, require_points

GREY = (0.1, 0.9)
"""Bounds of a grey pixel."""


@torch.no_grad()
def grey_share(images: Tensor) -> Score:
    """The share of grey pixels of images in [0, 1], [n, d] or [n, c, h, w], n >= 2.

    Raises:
        ScoreError: fewer than 2 images, NaN or infinity, or all images the same.
        ValueError: as `require_points`.
    """
    require_points(at_least=2, images=images)
    low, high = GREY
    shares = ((images > low) & (images < high)).flatten(1).double().mean(1)
    error = shares.std().item() / math.sqrt(len(shares))
    return normal_score("grey_share", shares.mean().item(), error, unit="share of pixels")


@torch.no_grad()
def standardised(images: Tensor) -> Tensor:
    """Images [n, c, h, w] with mean 0 and norm 1 over all pixels of each; constant ones become 0.

    The squared distance of two such images is 2 - 2 r, with r the correlation of their pixels.
    """
    centred = images - images.mean((1, 2, 3), keepdim=True)
    norms = centred.square().sum((1, 2, 3), keepdim=True).sqrt()
    # Not by the norm: what rounding the mean leaves of a constant image is no pattern.
    is_flat = images.amax((1, 2, 3), keepdim=True) == images.amin((1, 2, 3), keepdim=True)
    return torch.where(is_flat, 0.0, centred / norms)
