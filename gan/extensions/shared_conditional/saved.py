"""What is kept of the shared model: completions of images, their classes, images of any class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from gan.config import RunConfig
from gan.datasets.images import ImageShape
from gan.errors import ConditionError
from gan.extensions.shared_conditional.nets import (
    Evidence,
    Gumbel,
    SharedGenerator,
    empty_generator,
)
from gan.priors import Prior, build_prior
from gan.randomness import stream
from gan.sampling import draw_in_blocks, require_evaluation_mode

SHOWN_OF_EACH = 10
"""Images of one class in a picture."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """Images with everything filled in.

    Attributes:
        images: [n, draws, channels, height, width] in [0, 1]; visible pixels as they were.
        labels: int64 [n, draws]; visible ones as they were.
        log_probabilities: of each class given the visible pixels alone, nats, [n, K].
    """

    images: Tensor
    labels: Tensor
    log_probabilities: Tensor


class CompletedImages(nn.Module):
    """A shared model as a function of tensors: completions of images.

    Args:
        G: in evaluation mode.
        image_shape: (channels, height, width).
    """

    def __init__(self, G: SharedGenerator, *, image_shape: ImageShape) -> None:
        super().__init__()
        self.G, self.image_shape = G, image_shape

    def forward(
        self, image: Tensor, mask: Tensor, condition: Tensor, z: Tensor, noise: Tensor
    ) -> Tensor:
        """Completions [n, channels, height, width] in [0, 1].

        Args:
            image: [n, channels, height, width].
            mask: 1 where a pixel is visible, else 0, of the same shape.
            condition: one-hot labels [n, K]; all 0: the label is hidden.
            z: [n, dim].
            noise: standard Gumbel, by which hidden labels are drawn, [n, K].
        """
        known = condition.sum(1, keepdim=True)
        seen = Evidence(
            x=image.flatten(1), y=condition, mask=torch.cat([mask.flatten(1), known], 1)
        )
        found = self.G(seen, z.unsqueeze(1), noise.unsqueeze(1))
        images: Tensor = found.x[:, 0].reshape(-1, *self.image_shape)
        return images


class SharedSampler:
    """Completions and samples of a shared model.

    Args:
        G: in evaluation mode.
        prior: distribution of z.
        image_shape: (channels, height, width).
        batch_size: completions of one pass; bounds memory, does not change them.

    Raises:
        ValueError: G is in training mode.
    """

    def __init__(
        self,
        G: SharedGenerator,
        prior: Prior,
        *,
        image_shape: ImageShape,
        batch_size: int = 1000,
    ) -> None:
        require_evaluation_mode(G)
        self.G, self.prior, self.image_shape, self.batch_size = G, prior, image_shape, batch_size

    def sample(self, n: int, seed: int) -> Tensor:
        """Draw n images of which nothing is given, [n, channels, height, width] in [0, 1]."""
        blank = torch.zeros(n, *self.image_shape)
        return self.complete(blank, blank, labels=None, draws=1, seed=seed).images[:, 0]

    def sample_given(self, labels: Tensor, seed: int) -> Tensor:
        """One image of each label, of which no pixel is given: [n, channels, height, width].

        Args:
            labels: int64 [n].
            seed: the same seed and n give the same z, whatever the labels.
        """
        blank = torch.zeros(len(labels), *self.image_shape)
        return self.complete(blank, blank, labels=labels, draws=1, seed=seed).images[:, 0]

    def showcase(self, n: int, seed: int) -> Tensor:
        """About n images to look at, each row of ten with a class of its own."""
        classes = torch.arange(self.G.n_classes)[: max(1, n // SHOWN_OF_EACH)]
        return self.sample_given(classes.repeat_interleave(SHOWN_OF_EACH), seed)

    def complete(
        self,
        images: Tensor,
        mask: Tensor,
        *,
        labels: Tensor | None,
        draws: int,
        seed: int,
        is_label_drawn: bool = True,
        z_scale: float = 1.0,
    ) -> Completed:
        """Draw completions of images, each by noise of its own.

        Args:
            images: [n, channels, height, width] in [0, 1].
            mask: 1 where a pixel is visible, else 0, of the same shape.
            labels: the visible labels, int64 [n]; None: they are hidden.
            draws: completions of each image.
            seed: same seed, same completions, whatever `batch_size`.
            is_label_drawn: else a hidden label is the most probable one.
            z_scale: what z is multiplied by; at 0 it is its mean, of every prior.

        Raises:
            ValueError: there is no image, or no draw of any.
        """
        n, K = len(images), self.G.n_classes
        z = draw_in_blocks(self.prior, n * draws, stream(seed, "samples", self._device))
        z = z if z_scale == 1 else z_scale * z
        noise = draw_in_blocks(Gumbel(K), n * draws, stream(seed, "labels", self._device))
        noise = noise if is_label_drawn else torch.zeros_like(noise)
        seen = self._evidence(images, mask, labels)
        return self._decode(seen, z.view(n, draws, -1), noise.view(n, draws, K))

    @torch.no_grad()
    def log_probabilities(self, images: Tensor, mask: Tensor) -> Tensor:
        """Of each class given the visible pixels, nats: [n, K]."""
        rows = torch.cat([self._flat(images), self._flat(mask)], 1)
        halves = (part.chunk(2, 1) for part in torch.split(rows, self.batch_size))
        return torch.cat([self.G.encode(x, m).label for x, m in halves]).log_softmax(1)

    def decode_paths(self, z: Tensor, *, seed: int) -> Tensor:
        """See `gan.sampling.PathSampler`: nothing is given, and each path has one label."""
        n_paths, n_steps, _ = z.shape
        noise = Gumbel(self.G.n_classes).sample(n_paths, stream(seed, "labels", self._device))
        blank = torch.zeros(n_paths, *self.image_shape)
        same = noise.unsqueeze(1).expand(-1, n_steps, -1)
        return self._decode(self._evidence(blank, blank, None), z.to(self._device), same).images

    @torch.no_grad()
    def _decode(self, seen: Evidence, z: Tensor, noise: Tensor) -> Completed:
        """Completions [n, draws] of flat images by the noise that is given."""
        draws = z.shape[1]
        n_at_once = max(1, self.batch_size // draws)
        found = [
            self.G(seen.part(i, i + n_at_once), z[i : i + n_at_once], noise[i : i + n_at_once])
            for i in range(0, len(z), n_at_once)
        ]
        pixels = torch.cat([part.x for part in found])
        return Completed(
            images=pixels.view(len(z), draws, *self.image_shape),
            labels=torch.cat([part.y for part in found]).argmax(2),
            log_probabilities=torch.cat([part.logits for part in found]).log_softmax(1),
        )

    def _evidence(self, images: Tensor, mask: Tensor, labels: Tensor | None) -> Evidence:
        n, device = len(images), self._device
        y = torch.zeros(n, dtype=torch.int64) if labels is None else labels
        known = torch.full((n, 1), float(labels is not None), device=device)
        return Evidence(
            x=self._flat(images),
            y=one_hot(y.to(device), self.G.n_classes).float(),
            mask=torch.cat([self._flat(mask), known], 1),
        )

    def _flat(self, images: Tensor) -> Tensor:
        return images.to(self._device, torch.float32).flatten(1)

    @property
    def _device(self) -> torch.device:
        return self.G.head.weight.device


@dataclass(frozen=True)
class SavedShared:
    """A shared model with what is needed to use it.

    Attributes:
        G: the net, in evaluation mode.
        config: the run that trained it.
        image_shape: (channels, height, width).
    """

    G: SharedGenerator
    config: RunConfig
    image_shape: ImageShape

    def tensors(self) -> dict[str, Tensor]:
        """The weights, by name."""
        return self.G.state_dict()

    def sampler(self) -> SharedSampler:
        """Draws completions and images from it."""
        prior = build_prior(self.config.prior)
        return SharedSampler(self.G, prior, image_shape=self.image_shape)

    @property
    def n_classes(self) -> int:
        """Values of the label."""
        return self.G.n_classes

    def label(self, given: Sequence[float] | Sequence[int]) -> Tensor:
        """A class that is asked for, int64 [1].

        Raises:
            ConditionError: there is no such class.
        """
        if len(given) != 1 or given[0] not in range(self.n_classes):
            got = ", ".join(f"{value:g}" for value in given) or "nothing"
            raise ConditionError(
                f"the condition must be a class from 0 to {self.n_classes - 1}, got {got}"
            )
        return torch.tensor([int(given[0])])

    def draw(self, given: Sequence[float] | Sequence[int], *, n: int, seed: int) -> Tensor:
        """Images [n, channels, height, width] of one class, as `label` takes it."""
        return self.sampler().sample_given(self.label(given).expand(n), seed)


def from_weights(
    weights: Mapping[str, Tensor], config: RunConfig, image_shape: ImageShape
) -> SavedShared:
    """The shared model with these weights.

    Raises:
        KeyError: if they are not a shared model's.
        RuntimeError: if they do not fit the configuration.
    """
    G = empty_generator(config, image_shape, n_classes=len(weights["head.bias"]))
    G.load_state_dict(weights)
    return SavedShared(G=G.eval().requires_grad_(False), config=config, image_shape=image_shape)
