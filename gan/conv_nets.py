"""The convolutional discriminator of the released CIFAR-10 run, from flat arguments."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gan.config import DiscriminatorConfig, RunConfig
from gan.datasets.images import ImageSet, ImageShape
from gan.errors import ConfigError
from gan.layers import ConvMaxout, init_uniform
from gan.nets import Discriminator, Player, deconvolution_of, draw_mask, dropped


class ConvDiscriminator(Player):
    """D: convolutional maxout layers, then those of `Discriminator` on what they find.

    Args:
        image_shape: (channels, height, width).
        convolutions: the layers, from the pixels on.
        hidden: units of each hidden layer above them.
        pieces: linear pieces of a unit there.
        dropout_input: share of pixels that is dropped in training.
        dropout_hidden: share of units of each layer, convolutional or not, that is.

    Source: cifar10_convolutional.yaml of the released code.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        convolutions: Sequence[ConvMaxout],
        hidden: Sequence[int],
        pieces: int,
        dropout_input: float,
        dropout_hidden: float,
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self.drops = (dropout_input, *(dropout_hidden for _ in convolutions[1:]))
        *below, above = map_shapes(image_shape, convolutions)
        self.shapes = tuple(below)
        self.top = Discriminator(
            math.prod(above),
            hidden=hidden,
            pieces=pieces,
            dropout_input=dropout_hidden,
            dropout_hidden=dropout_hidden,
        )

    def draw_masks(self, n: int, rng: torch.Generator) -> list[Tensor | None]:
        """A dropout mask for what enters each layer, [n, units], channels last; None: no drop."""
        pairs = zip(self.shapes, self.drops, strict=True)
        below = [draw_mask(n, math.prod(shape), drop, rng) for shape, drop in pairs]
        return below + self.top.draw_masks(n, rng)

    def forward(self, x: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """[n, n_pixels] -> logits [n].  `masks` as from `draw_masks`; None drops nothing."""
        maps = x.view(-1, *self.shapes[0]).contiguous(memory_format=torch.channels_last)
        for i, layer in enumerate(self.convolutions):
            channels, height, width = self.shapes[i]
            mask = masks[i] if masks else None
            if mask is not None:
                mask = mask.view(-1, height, width, channels).permute(0, 3, 1, 2)
            maps = layer(dropped(maps, mask))
        # The order of units is that in memory, so that nothing is moved.
        units = maps.permute(0, 2, 3, 1).flatten(1)
        logits: Tensor = self.top(units, masks[len(self.shapes) :] if masks else None)
        return logits


def map_shapes(image_shape: ImageShape, convolutions: Sequence[ConvMaxout]) -> list[ImageShape]:
    """The image's shape, and that of the feature maps of each layer.

    Raises:
        ConfigError: a layer has no place for its kernel or its window.
    """
    shapes = [image_shape]
    for number, layer in enumerate(convolutions):
        _, height, width = shapes[-1]
        shapes.append((layer.channels, layer.side(height), layer.side(width)))
        if min(shapes[-1]) < 1:
            raise ConfigError(
                [
                    f"discriminator.convolutions.{number}: kernel and pool must fit into maps of "
                    f"{height} x {width}, got {layer.kernel} and {layer.pool}"
                ]
            )
    return shapes


def build_conv_discriminator(
    cfg: DiscriminatorConfig, *, image_shape: ImageShape, rng: torch.Generator
) -> ConvDiscriminator:
    """A convolutional D as a configuration asks for it, likewise.

    Raises:
        ConfigError: a layer has no place in images of this shape.
    """
    D = ConvDiscriminator(
        image_shape,
        convolutions=_convolutions(cfg, image_shape),
        hidden=cfg.hidden,
        pieces=cfg.pieces,
        dropout_input=cfg.dropout_input,
        dropout_hidden=cfg.dropout_hidden,
    )
    init_uniform(D, init_range=cfg.init_range, rng=rng)
    return D


def require_fitting(images: ImageSet, config: RunConfig) -> None:
    """Refuse images of a shape that the convolutions of a configuration do not take or make.

    Raises:
        ConfigError: naming the setting.
    """
    with torch.device("meta"):  # no weights are made
        deconvolution_of(config.generator, images.image_shape)
        map_shapes(images.image_shape, _convolutions(config.discriminator, images.image_shape))


def _convolutions(cfg: DiscriminatorConfig, image_shape: ImageShape) -> list[ConvMaxout]:
    below = [image_shape[0], *(layer.channels for layer in cfg.convolutions)]
    return [
        ConvMaxout(
            n_in,
            layer.channels,
            pieces=layer.pieces,
            kernel=layer.kernel,
            padding=layer.padding,
            pool=layer.pool,
            pool_stride=layer.pool_stride,
        )
        for n_in, layer in zip(below, cfg.convolutions, strict=False)
    ]
