"""A picture of completions: for each kind of mask an image, what is visible of it, completions."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gan.evaluation.completion import Questions

HIDDEN = (0.36, 0.45, 0.60)
"""Colour of a hidden pixel, red, green and blue."""
SIDE, GAP, MARGIN, HEAD, FONT = 56, 4, 176, 28, 15
"""Pixels: of an image, between two, left for the names, above for the headings, of the letters."""
SECTION = 8
"""Pixels between two kinds of mask beside the gap."""


def completion_picture(
    asked: Mapping[str, Questions], completions: Mapping[str, Tensor], path: Path
) -> None:
    """Write a PNG: rows of an image, what is visible of it and its completions, by kind of mask.

    Args:
        asked: by name of the kind, as many questions of each as it has rows.
        completions: of them, [rows, draws, channels, height, width] in [0, 1].
        path: of the file.
    """
    draws = next(iter(completions.values())).shape[1]
    step = SIDE + GAP
    height = HEAD + sum(len(one) * step + SECTION for one in asked.values())
    canvas = Image.new("RGB", (MARGIN + (draws + 2) * step + GAP, height), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT)
    for column, text in enumerate(("image", "visible", "completions")):
        pen.text((MARGIN + column * step, HEAD // 2), text, fill="black", font=font, anchor="lm")
    top = HEAD
    for name, one in asked.items():
        middle = top + (len(one) * step - GAP) // 2
        pen.text((GAP * 2, middle), name.replace("_", " "), fill="black", font=font, anchor="lm")
        for row, images in enumerate(_rows(one, completions[name])):
            for column, image in enumerate(images):
                where = (MARGIN + column * step, top + row * step)
                canvas.paste(_enlarged(image), where)
        top += len(one) * step + SECTION
    canvas.save(path)


def _rows(asked: Questions, completions: Tensor) -> Tensor:
    """[rows, 2 + draws, 3, height, width]."""
    colour = torch.tensor(HIDDEN).view(3, 1, 1)
    images = asked.images.expand(-1, 3, -1, -1)
    visible = torch.where(asked.mask > 0, images, colour)
    drawn = completions.expand(-1, -1, 3, -1, -1)
    return torch.cat([images.unsqueeze(1), visible.unsqueeze(1), drawn], 1)


def _enlarged(image: Tensor) -> Image.Image:
    """[3, height, width] in [0, 1] -> a picture of SIDE x SIDE pixels."""
    pixels: NDArray[np.uint8] = image.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
