"""Samples of a generator, and pictures of them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gan.nets import Player
from gan.priors import Prior
from gan.randomness import stream

NOISE_BLOCK = 1000
"""Draws of z at a time.  Another size would change the images that a seed gives."""


class Rows(Protocol):
    """Something rows can be drawn from."""

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw independent rows, [n, d]."""
        ...


def draw_in_blocks(source: Rows, n: int, rng: torch.Generator) -> Tensor:
    """Rows [n, d], drawn in blocks of one size, so that the first do not depend on n.

    Raises:
        ValueError: n is less than 1.
    """
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    blocks = [source.sample(NOISE_BLOCK, rng) for _ in range(math.ceil(n / NOISE_BLOCK))]
    return torch.cat(blocks)[:n]


def require_evaluation_mode(G: Player) -> None:
    """Refuse to sample a net that would drop units, and normalise by its minibatch.

    Raises:
        ValueError: G is in training mode.
    """
    if G.training:
        raise ValueError("G must be in evaluation mode, got a net in training mode")


class Sampler(Protocol):
    """Whatever can be scored: a GAN, a baseline, an extension, a fetched artifact."""

    def sample(self, n: int, seed: int) -> Tensor:
        """Draw n images, [n, channels, height, width] in [0, 1]; same seed, same images."""
        ...


class PathSampler(Sampler, Protocol):
    """A sampler whose images change with z alone, where all else is held."""

    @property
    def prior(self) -> Prior:
        """Distribution of z."""
        ...

    def showcase(self, n: int, seed: int) -> Tensor:
        """About n images for a picture with ten in a row, of which none was picked."""
        ...

    def decode_paths(self, z: Tensor, *, seed: int) -> Tensor:
        """Images along paths: z [paths, steps, dim] -> [paths, steps, channels, height, width].

        What an image depends on beside z is drawn by `seed`, once for each path.
        """
        ...


class GeneratorSampler:
    """Samples of a generator in evaluation mode: no dropout, batch norm by its running statistics.

    Args:
        G: generator in evaluation mode.
        prior: distribution of z.
        image_shape: (channels, height, width).
        batch_size: samples of one pass; bounds memory, does not change the images.
        pixels: what G makes [n, n_pixels] -> pixels in [0, 1]; None: it makes these.
    """

    def __init__(
        self,
        G: Player,
        prior: Prior,
        *,
        image_shape: tuple[int, int, int],
        batch_size: int = 1000,
        pixels: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        require_evaluation_mode(G)
        self.G, self.prior, self.image_shape, self.batch_size = G, prior, image_shape, batch_size
        self._pixels = pixels

    @torch.no_grad()  # not inference_mode: a classifier may be trained on the samples
    def sample(self, n: int, seed: int) -> Tensor:
        """Draw n images, [n, channels, height, width] in [0, 1]; same seed, same images.

        z comes from the stream "samples" of `seed`, in blocks of one size whatever is asked for,
        so that the first images depend on neither n nor `batch_size`.
        """
        rng = stream(seed, "samples", next(self.G.parameters()).device)
        return self.decode(draw_in_blocks(self.prior, n, rng))

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The images of z [n, dim]: [n, channels, height, width] in [0, 1]."""
        images = torch.cat([self.G(part) for part in torch.split(z, self.batch_size)])
        if self._pixels is not None:
            images = self._pixels(images)
        return images.view(len(z), *self.image_shape)

    def showcase(self, n: int, seed: int) -> Tensor:
        """The first n samples of the seed."""
        return self.sample(n, seed)

    def decode_paths(self, z: Tensor, *, seed: int) -> Tensor:
        """See `PathSampler`."""
        return self.decode(z.flatten(0, 1)).view(*z.shape[:2], *self.image_shape)


def tile(images: Tensor, *, columns: int, gap: int = 2) -> NDArray[np.uint8]:
    """One picture of all images in rows of `columns`, white between them.

    Args:
        images: [n, channels, height, width] in [0, 1], 1 or 3 channels.
        columns: images in a row.
        gap: pixels between images and around them.

    Returns:
        [H, W] for one channel, [H, W, 3] for three.
    """
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, channels)
    canvas = np.full(shape, 255, dtype=np.uint8)
    pixels = images.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    for i, image in enumerate(pixels):
        top = gap + (i // columns) * (height + gap)
        left = gap + (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas[..., 0] if channels == 1 else canvas


def save_png(picture: NDArray[np.uint8], path: Path, *, zoom: int = 1) -> None:
    """Write a picture as from `tile`, each pixel `zoom` pixels wide and high."""
    image = Image.fromarray(picture)
    if zoom > 1:
        image = image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
    image.save(path)
