"""What is kept of an inference net: codes of images, reconstructions, and samples."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gan.checkpoint import part_of
from gan.config import RunConfig
from gan.datasets.images import ImageShape
from gan.errors import ImageError
from gan.extensions.inference.nets import (
    Codes,
    InferenceNet,
    build_inference_net,
    codes_of,
    settings,
)
from gan.nets import Generator
from gan.optimisers import AdamDescent
from gan.priors import build_prior
from gan.randomness import stream
from gan.sampling import GeneratorSampler
from gan.saved_generator import empty_generator

BATCH = 2_000
"""Images of one pass: bounds memory, does not change the codes beyond rounding."""


@dataclass(frozen=True)
class SavedInference:
    """An inference net with the generator that it is of.

    Attributes:
        E: the net, in evaluation mode.
        G: the generator, in evaluation mode.
        spread: standard deviation over samples of each unit of a code, [width].
        config: the run that trained it.
        image_shape: (channels, height, width).
    """

    E: InferenceNet
    G: Generator
    spread: Tensor
    config: RunConfig
    image_shape: ImageShape

    def tensors(self) -> dict[str, Tensor]:
        """The weights of both nets, by name."""
        nets = {"E": self.E, "G": self.G}
        return {
            f"{name}.{k}": t for name, net in nets.items() for k, t in net.state_dict().items()
        }

    def sampler(self) -> GeneratorSampler:
        """Draws images from G."""
        prior = build_prior(self.config.prior)
        return GeneratorSampler(self.G, prior, image_shape=self.image_shape)

    def encode(self, images: Tensor, *, refine_steps: int = 0) -> Tensor:
        """The codes of images: z, or what else of G `inference.layers` names.

        Args:
            images: [n, channels, height, width] floating point in [0, 1].
            refine_steps: steps of Adam on |G(code) - x|^2 behind the prediction, each image's
                code by itself; only the lowest layer of a code moves.

        Returns:
            [n, width] float32.

        Raises:
            ImageError: the images are of another shape or range.
        """
        self.require_images(images)
        parts = [self._encode(part, refine_steps) for part in torch.split(images, BATCH)]
        return torch.cat(parts)

    def decode(self, codes: Tensor) -> Tensor:
        """The images of codes [n, width]: [n, channels, height, width] in [0, 1]."""
        with torch.no_grad():
            pixels = [self._codes.decode(self.G, part) for part in torch.split(codes, BATCH)]
        return torch.cat(pixels).view(-1, *self.image_shape)

    def reconstruct(self, images: Tensor, *, refine_steps: int = 0) -> Tensor:
        """G(E(x)): the images of the codes of images.

        Args:
            images: as `encode`.
            refine_steps: as `encode`.

        Returns:
            [n, channels, height, width] in [0, 1].

        Raises:
            ImageError: as `encode`.
        """
        return self.decode(self.encode(images, refine_steps=refine_steps))

    def points(self, images: Tensor) -> Tensor:
        """Codes in standard deviations, so that distances weigh all units alike: [n, width].

        Args:
            images: as `encode`.

        Raises:
            ImageError: as `encode`.
        """
        return self.encode(images) / self.spread

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The last hidden layer of E, [n, units]; images as `encode`.

        Raises:
            ImageError: as `encode`.
        """
        self.require_images(images)
        return torch.cat(
            [self.E.features(self._rows(part)) for part in torch.split(images, BATCH)]
        )

    def require_images(self, images: Tensor) -> None:
        """Refuse images of which there is no code.

        Raises:
            ImageError: the images are of another shape, or not numbers in [0, 1].
        """
        expected = ("n", *self.image_shape)
        if images.shape[1:] != self.image_shape or not len(images):
            raise ImageError(
                f"images must be [{', '.join(map(str, expected))}], got {list(images.shape)}"
            )
        if not images.is_floating_point():
            raise ImageError(f"images must be floating point in [0, 1], got {images.dtype}")
        low, high = images.aminmax()
        if not (low >= 0 and high <= 1):  # also if one is NaN
            raise ImageError(
                f"images must have pixels in [0, 1], got {low.item():g} to {high.item():g}"
            )

    def untrained(self) -> "SavedInference":
        """The same with an E at step 0, to compare with."""
        n_pixels = math.prod(self.image_shape)
        rng = stream(self.config.seed, "init inference")
        E = build_inference_net(self.config, n_pixels=n_pixels, rng=rng)
        E = E.to(self.spread.device).eval().requires_grad_(False)
        return dataclasses.replace(self, E=E)

    @property
    def _codes(self) -> Codes:
        return codes_of(self.config)

    def _rows(self, images: Tensor) -> Tensor:
        return images.to(self.spread.device, torch.float32).flatten(1)

    def _encode(self, images: Tensor, refine_steps: int) -> Tensor:
        x = self._rows(images)
        with torch.no_grad():
            code: Tensor = self.E(x)
        return self._refine(code, x, refine_steps) if refine_steps else code

    def _refine(self, code: Tensor, x: Tensor, n_steps: int) -> Tensor:
        """Codes whose lowest layer went down the gradient of |G(code) - x|^2."""
        codes, cfg = self._codes, settings(self.config)
        spread = codes.lowest(self.spread[None])
        # In standard deviations: Adam's steps are of one size for all units.
        moved = nn.Parameter(codes.lowest(code) / spread)
        train = dataclasses.replace(
            self.config.train, adam_beta1=0.9, adam_beta2=0.999, decay_per_step=1.0
        )
        descent = AdamDescent([moved], train, learning_rate=cfg.refine_rate)
        for _ in range(n_steps):
            pixels = torch.sigmoid(self.G.logits(moved * spread, layer=codes.layers[0]))
            # A sum, so that no image's steps depend on how many there are.
            descent.update(descent.gradients((pixels - x).square().sum()))
        return codes.with_lowest(code, moved.detach() * spread)


def from_weights(
    weights: Mapping[str, Tensor], config: RunConfig, image_shape: ImageShape
) -> SavedInference:
    """The inference net and the generator with these weights.

    Raises:
        ConfigError: G has not the layers that E predicts.
        RuntimeError: if they do not fit the configuration.
    """
    n_pixels = math.prod(image_shape)
    E = build_inference_net(config, n_pixels=n_pixels, rng=stream(config.seed, "init inference"))
    G = empty_generator(config, n_pixels=n_pixels)
    E.load_state_dict(part_of(weights, "E."))
    G.load_state_dict(part_of(weights, "G."))
    return saved_inference(E.eval().requires_grad_(False), G, config, image_shape)


def saved_inference(
    E: InferenceNet, G: Generator, config: RunConfig, image_shape: ImageShape
) -> SavedInference:
    """Both nets, in evaluation mode, as they are kept."""
    G = G.eval().requires_grad_(False)
    spread = codes_of(config).spread_of(G, build_prior(config.prior))
    return SavedInference(E=E, G=G, spread=spread, config=config, image_shape=image_shape)
