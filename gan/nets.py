"""Generator and Discriminator of Goodfellow et al. (2014), from flat arguments.

Dropout masks come in as arguments rather than being drawn inside: a forward pass is then a
function of tensors alone, and the simultaneous order can show both players the same masks.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from gan.config import DiscriminatorConfig, GeneratorConfig
from gan.contrast import AS_THEY_ARE, Brightness
from gan.datasets.images import ImageShape
from gan.errors import ConfigError
from gan.layers import (
    Deconvolution,
    Linear,
    Maxout,
    UnitPixels,
    dropout_mask,
    init_sparse,
    init_uniform,
)

LEAKY_SLOPE = 0.2


class Player(nn.Module, ABC):
    """A net of either player: rows and dropout masks in, rows out."""

    @abstractmethod
    def draw_masks(self, n: int, rng: torch.Generator) -> list[Tensor | None]:
        """Dropout masks for a minibatch of n rows, in the order in which they apply."""


class Generator(Player):
    """G: noise through hidden layers to what D sees of an image.

    Attributes:
        pixels: what D sees -> pixels in [0, 1].

    Args:
        dim: coordinates of z.
        hidden: units of each hidden layer.
        n_pixels: channels * height * width of an image.
        activations: of each hidden layer; empty for ReLU in all.
        deconvolution: makes the image of the last hidden layer; None: a linear layer does.
        linear: what linear outputs are as pixels; None: outputs are sigmoid, and pixels.
        batch_norm: normalise each hidden layer over the minibatch before its activation.
        dropout_hidden: share of hidden units that is dropped in training; the paper has none.
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden: Sequence[int],
        n_pixels: int,
        activations: Sequence[str] = (),
        deconvolution: Deconvolution | None = None,
        linear: Brightness | None = None,
        batch_norm: bool = False,
        dropout_hidden: float = 0.0,
    ) -> None:
        super().__init__()
        self.hidden, self.dropout_hidden = tuple(hidden), dropout_hidden
        self.activations = tuple(activations) or ("relu",) * len(hidden)
        widths = [dim, *hidden]
        self.linears = nn.ModuleList(Linear(a, b) for a, b in itertools.pairwise(widths))
        self.linears.append(deconvolution or Linear(widths[-1], n_pixels))
        self.is_sigmoid = linear is None
        self.pixels = nn.Identity() if linear is None else UnitPixels(linear)
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(units) if batch_norm else nn.Identity() for units in hidden
        )

    @property
    def output_bias(self) -> nn.Parameter:
        """Bias of the pixels, [n_pixels], on the scale of logits."""
        return cast(nn.Linear, self.linears[-1]).bias

    def draw_masks(self, n: int, rng: torch.Generator) -> list[Tensor | None]:
        """One dropout mask for each hidden layer, [n, units]; None where nothing is dropped."""
        return [draw_mask(n, units, self.dropout_hidden, rng) for units in self.hidden]

    def forward(self, z: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """[n, dim] -> [n, n_pixels] as D sees them: of sigmoid outputs pixels in (0, 1).

        Args:
            z: noise.
            masks: from `draw_masks`; None drops nothing.
        """
        outputs = self.logits(z, masks)
        return torch.sigmoid(outputs) if self.is_sigmoid else outputs

    def logits(
        self, h: Tensor, masks: Sequence[Tensor | None] | None = None, *, layer: int = 0
    ) -> Tensor:
        """What the pixels are the sigmoid of; of linear outputs, these.

        Args:
            h: units of one of `layers`, [n, units].
            masks: as in `forward`.
            layer: which one; 0 is z.

        Returns:
            [n, n_pixels].
        """
        for i in range(layer, len(self.hidden)):
            h = dropped(self._hidden_layer(i, h), masks[i] if masks else None)
        logits: Tensor = self.linears[-1](h)
        return logits

    def layers(self, z: Tensor) -> list[Tensor]:
        """The layers from z upwards, each made of the one before it, without dropout."""
        layers = [z]
        for i in range(len(self.hidden)):
            layers.append(self._hidden_layer(i, layers[-1]))
        return layers

    def _hidden_layer(self, i: int, h: Tensor) -> Tensor:
        inputs: Tensor = self.norms[i](self.linears[i](h))
        return inputs.relu() if self.activations[i] == "relu" else inputs.sigmoid()


class Discriminator(Player):
    """D: pixels through maxout (or leaky ReLU) layers to the logit of "this is an image".

    Args:
        n_pixels: channels * height * width of an image.
        hidden: units of each hidden layer.
        pieces: linear pieces of a maxout unit; None for leaky ReLU units of slope 0.2.
        dropout_input: share of pixels that is dropped in training.
        dropout_hidden: share of units of each hidden layer that is dropped in training.
    """

    def __init__(
        self,
        n_pixels: int,
        *,
        hidden: Sequence[int],
        pieces: int | None,
        dropout_input: float,
        dropout_hidden: float,
    ) -> None:
        super().__init__()
        self.widths = (n_pixels, *hidden)
        self.drops = (dropout_input, *(dropout_hidden for _ in hidden))
        self.is_maxout = pieces is not None
        self.layers = nn.ModuleList(
            Linear(a, b) if pieces is None else Maxout(a, b, pieces=pieces)
            for a, b in itertools.pairwise(self.widths)
        )
        self.output = Linear(self.widths[-1], 1)

    def draw_masks(self, n: int, rng: torch.Generator) -> list[Tensor | None]:
        """One dropout mask for the pixels and for each hidden layer, [n, width]; None: no drop."""
        pairs = zip(self.widths, self.drops, strict=True)
        return [draw_mask(n, width, drop, rng) for width, drop in pairs]

    def forward(self, x: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """[n, n_pixels] -> logits [n].  `masks` as from `draw_masks`; None drops nothing."""
        logits: Tensor = self.output(self.features(x, masks))
        return logits.squeeze(1)

    def features(self, x: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """What the logit is a linear function of: the last hidden layer, [n, units]."""
        return self.hidden_layers(x, masks)[-1]

    def hidden_layers(
        self, x: Tensor, masks: Sequence[Tensor | None] | None = None
    ) -> list[Tensor]:
        """Every hidden layer, [n, units] each, from the one above the pixels on."""
        found, h = [], dropped(x, masks[0] if masks else None)
        for i, layer in enumerate(self.layers):
            h = layer(h) if self.is_maxout else leaky_relu(layer(h), LEAKY_SLOPE)
            h = dropped(h, masks[i + 1] if masks else None)
            found.append(h)
        return found


def build_generator(
    cfg: GeneratorConfig,
    *,
    dim: int,
    pixel_mean: Tensor,
    rng: torch.Generator,
    image_shape: ImageShape | None = None,
    brightness: Brightness = AS_THEY_ARE,
) -> Generator:
    """G as a configuration asks for it, with initial weights.

    Args:
        cfg: settings of G.
        dim: coordinates of z.
        pixel_mean: mean of each pixel over the training images, [n_pixels] in [0, 1].
        rng: stream of the initial weights, on the CPU.
        image_shape: (channels, height, width); read where G convolves.
        brightness: what linear outputs are as pixels.

    Raises:
        ConfigError: G would make images of another shape.
    """
    G = Generator(
        dim,
        hidden=cfg.hidden,
        n_pixels=len(pixel_mean),
        activations=cfg.activations,
        deconvolution=deconvolution_of(cfg, image_shape),
        linear=brightness if cfg.output == "linear" else None,
        batch_norm=cfg.batch_norm,
        dropout_hidden=cfg.dropout_hidden,
    )
    init_uniform(G, init_range=cfg.init_range, rng=rng)
    for linear, activation in zip(G.linears, G.activations, strict=False):  # but the output
        if activation == "sigmoid":
            nn.init.constant_(cast(nn.Linear, linear).bias, cfg.sigmoid_bias)
    if cfg.output_init_range is not None:
        init_uniform(G.linears[-1], init_range=cfg.output_init_range, rng=rng)
    if cfg.output_sparse_init is not None:
        init_sparse(cast(nn.Linear, G.linears[-1]), n_inputs=cfg.output_sparse_init, rng=rng)
    if cfg.output_bias_from_data:
        with torch.no_grad():
            G.output_bias.copy_(torch.logit(pixel_mean.double(), eps=1e-7))
    return G


def build_discriminator(
    cfg: DiscriminatorConfig, *, n_pixels: int, rng: torch.Generator
) -> Discriminator:
    """A fully connected D as a configuration asks for it, with initial weights.

    Args:
        cfg: settings of D.
        n_pixels: what enters it, of each row.
        rng: stream of the initial weights, on the CPU.
    """
    D = Discriminator(
        n_pixels,
        hidden=cfg.hidden,
        pieces=cfg.pieces if cfg.activation == "maxout" else None,
        dropout_input=cfg.dropout_input,
        dropout_hidden=cfg.dropout_hidden,
    )
    init_uniform(D, init_range=cfg.init_range, rng=rng)
    return D


def deconvolution_of(cfg: GeneratorConfig, image_shape: ImageShape | None) -> Deconvolution | None:
    """The last layer of a G that convolves; None of one that does not.

    Raises:
        ConfigError: it would make images of another shape.
    """
    if cfg.deconv_channels is None:
        return None
    if image_shape is None:
        raise ValueError("image_shape must be given to a generator that convolves, got none")
    side = math.isqrt(cfg.hidden[-1] // cfg.deconv_channels)
    layer = Deconvolution(
        cfg.deconv_channels,
        side=side,
        image_channels=image_shape[0],
        kernel=cfg.deconv_kernel,
        stride=cfg.deconv_stride,
    )
    if layer.image_shape != image_shape:
        raise ConfigError(
            [
                f"generator: deconv_stride * ({side} - 1) + deconv_kernel must be the height and "
                f"width of images, {image_shape[1]} and {image_shape[2]}, got "
                f"{layer.image_shape[1]}"
            ]
        )
    return layer


def draw_mask(n: int, width: int, drop: float, rng: torch.Generator) -> Tensor | None:
    """A dropout mask [n, width]; None where nothing is dropped."""
    return dropout_mask(n, width, drop=drop, rng=rng) if drop else None


def dropped(h: Tensor, mask: Tensor | None) -> Tensor:
    """Units times their mask, if there is one."""
    return h if mask is None else h * mask
