"""What a run leaves: nets in evaluation mode.  Of the paper's GAN that is its generator."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gan.checkpoint import part_of
from gan.config import RunConfig
from gan.datasets.images import ImageShape
from gan.errors import ConfigError
from gan.nets import Generator, build_generator
from gan.priors import build_prior
from gan.randomness import stream
from gan.sampling import GeneratorSampler, PathSampler


class Saved(Protocol):
    """Nets in evaluation mode with what is needed to use them; `gan.tasks` reads and writes it."""

    @property
    def config(self) -> RunConfig:
        """The run that trained them."""
        ...

    @property
    def image_shape(self) -> ImageShape:
        """(channels, height, width)."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """All that configuration and shape do not say, by name."""
        ...


class SavedSampler(Saved, Protocol):
    """What is saved of a run that trains a generator of images."""

    @property
    def G(self) -> nn.Module:
        """The net, in evaluation mode."""
        ...

    def sampler(self) -> PathSampler:
        """Draws images from it."""
        ...


@dataclass(frozen=True)
class SavedGenerator:
    """A generator with what is needed to sample it.

    Attributes:
        G: the net, in evaluation mode.
        config: the run that trained it.
        image_shape: (channels, height, width).
    """

    G: Generator
    config: RunConfig
    image_shape: ImageShape

    def tensors(self) -> dict[str, Tensor]:
        """The weights, by name."""
        return self.G.state_dict()

    def sampler(self) -> GeneratorSampler:
        """Draws images from it."""
        prior = build_prior(self.config.prior)
        return GeneratorSampler(self.G, prior, image_shape=self.image_shape, pixels=self.G.pixels)


def generator_weights(state: Mapping[str, Tensor], config: RunConfig) -> dict[str, Tensor]:
    """G's tensors in a training state: of the average if the run kept one, else of G itself.

    Args:
        state: as from `gan.model.Gan.state`, or a checkpoint's tensors.
        config: the run that the state is of.
    """
    return part_of(state, "average/module." if config.train.average_decay else "G/")


def generator_from_weights(
    weights: Mapping[str, Tensor], config: RunConfig, image_shape: ImageShape
) -> SavedGenerator:
    """The generator with these weights.

    Raises:
        RuntimeError: if they do not fit the configuration.
    """
    G = empty_generator(config, n_pixels=math.prod(image_shape), image_shape=image_shape)
    G.load_state_dict(weights)
    return SavedGenerator(G=G.eval().requires_grad_(False), config=config, image_shape=image_shape)


def generator_of(origin: Saved, image_shape: ImageShape) -> Generator:
    """A copy of the generator that a run starts from, in evaluation mode.

    Args:
        origin: of the task generator.
        image_shape: (channels, height, width) of the run's images.

    Raises:
        ConfigError: it makes images of another shape.
    """
    if origin.image_shape != image_shape:
        raise ConfigError(
            [
                f"start: the generator makes images of shape {origin.image_shape}, the training "
                f"images have {image_shape}"
            ]
        )
    net = empty_generator(origin.config, n_pixels=math.prod(image_shape))
    net.load_state_dict(origin.tensors())
    return net.eval()


def empty_generator(
    config: RunConfig,
    *,
    n_pixels: int,
    n_beside: int = 0,
    image_shape: ImageShape | None = None,
) -> Generator:
    """A generator of the shape that `config` asks for, whose weights are yet to be loaded.

    Args:
        config: the run.
        n_pixels: channels * height * width of an image.
        n_beside: inputs beside z.
        image_shape: (channels, height, width); read where G convolves.
    """
    return build_generator(
        config.generator,
        dim=config.prior.dim + n_beside,
        pixel_mean=torch.full((n_pixels,), 0.5),
        rng=stream(config.seed, "init"),
        image_shape=image_shape,
    )
