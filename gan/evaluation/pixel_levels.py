"""The share of grey pixels: how many are neither near black nor near white.

    mean over images of the share of pixels in (0.1, 0.9)

Classifier features hardly see whether strokes have soft edges, and a Parzen window sees little
else: images rounded to black and white keep their classes and lose every grey pixel, blurred ones
double them.

Bias: none; standard error: of a mean over images.
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
