"""Minibatches from images that lie on the device as one uint8 tensor."""

import torch
from torch import Tensor

from gan.contrast import normalise_contrast


class Minibatches:
    """An endless stream of minibatches; every epoch is a new permutation of the images.

    The images that do not fill a last minibatch are left out of that epoch.

    Args:
        images: [n, n_pixels] uint8, on the device that trains.
        batch_size: images of one minibatch, at most n.
        rng: stream of the permutations, on the same device.
        beside: what follows the pixels of each image in its row, [n, d] float32 on the same
            device; None for the pixels alone.
        contrast_norm: given: what is handed out is normalised to it (`gan.contrast`).
    """

    def __init__(
        self,
        images: Tensor,
        *,
        batch_size: int,
        rng: torch.Generator,
        beside: Tensor | None = None,
        contrast_norm: float | None = None,
    ) -> None:
        if len(images) < batch_size:
            raise ValueError(
                f"batch_size must be at most the {len(images)} training images, got {batch_size}"
            )
        self.images, self.beside, self.batch_size = images, beside, batch_size
        self.contrast_norm = contrast_norm
        self._rng = rng
        self._order = torch.empty(0, dtype=torch.int64, device=images.device)
        self._position = 0

    def __iter__(self) -> "Minibatches":
        return self

    def __next__(self) -> Tensor:
        """[batch_size, n_pixels] float32, in [0, 1] or normalised; + d with what lies beside."""
        if self._position + self.batch_size > len(self._order):
            n = len(self.images)
            self._order = torch.randperm(n, generator=self._rng, device=self.images.device)
            self._position = 0
        chosen = self._order[self._position : self._position + self.batch_size]
        self._position += self.batch_size
        pixels = self.images.index_select(0, chosen).to(torch.float32)
        if self.contrast_norm is None:
            pixels.div_(255)
        else:
            pixels = normalise_contrast(pixels, norm=self.contrast_norm)
        if self.beside is None:
            return pixels
        return torch.cat([pixels, self.beside.index_select(0, chosen)], 1)

    def state(self) -> dict[str, Tensor]:
        """Where in which permutation the stream is."""
        return {"order": self._order, "position": torch.tensor(self._position)}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        self._order = state["order"].to(self.images.device)
        self._position = int(state["position"])
