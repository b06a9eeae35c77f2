"""Small random changes of images, after which they are of the same thing."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from gan.config import DistortionConfig
from gan.datasets.images import ImageShape


@dataclass(frozen=True, kw_only=True)
class Distortions:
    """Each image turned, zoomed, slanted and shifted by amounts of its own, then noise added.

    Each amount is uniform on +- the attribute's value.  What comes in from outside is black.

    Attributes:
        rotation: degrees.
        zoom: of the scale 1 + zoom.
        shear: of the horizontal shift of a row, as a share of its height over the middle.
        shift: pixels, in each direction.
        noise: standard deviation of normal noise on every pixel, which may leave [0, 1].
    """

    rotation: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    noise: float = 0.0

    @classmethod
    def of(cls, config: DistortionConfig, *, noise: float = 0.0) -> "Distortions":
        """Those of a section of a configuration."""
        return cls(
            rotation=config.rotation,
            zoom=config.zoom,
            shear=config.shear,
            shift=config.shift,
            noise=noise,
        )

    @property
    def is_moving(self) -> bool:
        """Whether any pixel goes to another place."""
        return bool(self.rotation or self.zoom or self.shear or self.shift)

    def apply(self, x: Tensor, image_shape: ImageShape, rng: torch.Generator) -> Tensor:
        """Images [n, n_pixels], distorted; all of them unchanged where every amount is 0."""
        if self.is_moving:
            x = warp(x, self.maps(len(x), image_shape, rng), image_shape)
        if self.noise:
            x = x + self.noise * torch.randn(x.shape, generator=rng, device=x.device)
        return x

    def maps(self, n: int, image_shape: ImageShape, rng: torch.Generator) -> Tensor:
        """Where each point (x, y) of n distorted images is taken from, [n, 2, 3].

        In `affine_grid`'s coordinates, which are -1 and 1 at the edges; of images that are not
        square a turn is one of the square that they are stretched to.
        """
        _, height, width = image_shape
        u = torch.empty(5, n, device=rng.device).uniform_(-1, 1, generator=rng)
        angle, scale = u[0] * math.radians(self.rotation), 1 + u[1] * self.zoom
        cos, sin = angle.cos() / scale, angle.sin() / scale
        shear = u[2] * self.shear
        # In half widths and half heights, as a pixel is 2 / width of the coordinates.
        right, down = u[3] * self.shift * 2 / width, u[4] * self.shift * 2 / height
        upper = torch.stack([cos, shear * cos - sin, right], 1)
        lower = torch.stack([sin, shear * sin + cos, down], 1)
        return torch.stack([upper, lower], 1)


def warp(x: Tensor, maps: Tensor, image_shape: ImageShape) -> Tensor:
    """Images [n, n_pixels], each point taken from where its map [2, 3] says, bilinearly."""
    images = x.view(-1, *image_shape)
    grid = affine_grid(maps.to(x.dtype), list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False).flatten(1)
