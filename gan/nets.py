"""Generator and Discriminator of Goodfellow et al. (2014), from flat arguments.

Dropout masks come in as arguments rather than being drawn inside: a forward pass is then a
function of tensors alone, and the simultaneous order can show both players the same masks.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from gan.config import DiscriminatorConfig, GeneratorConfig
from gan.layers import Linear, Maxout, dropout_mask, init_sparse, init_uniform

LEAKY_SLOPE = 0.2

Activation = Literal["relu", "sigmoid"]
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
}
"""Of a hidden layer of G."""


class Player(nn.Module, ABC):
    """A net of either player: rows and dropout masks in, rows out."""

    @abstractmethod
    def draw_masks(self, n: int, rng: torch.Generator) -> list[Tensor | None]:
        """Dropout masks for a minibatch of n rows, in the order in which they apply."""


class Generator(Player):
    """G: noise through ReLU, or sigmoid, layers to pixels in (0, 1).

    Args:
        dim: coordinates of z.
        hidden: units of each hidden layer.
        n_pixels: channels * height * width of an image.
        activations: of each hidden layer; None for ReLU everywhere.
        batch_norm: normalise each hidden layer over the minibatch before its activation.
        dropout_hidden: share of hidden units that is dropped in training; the paper has none.
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden: Sequence[int],
        n_pixels: int,
        activations: Sequence[Activation] | None = None,
        batch_norm: bool = False,
        dropout_hidden: float = 0.0,
    ) -> None:
        super().__init__()
        self.hidden, self.dropout_hidden = tuple(hidden), dropout_hidden
        relu: tuple[Activation, ...] = tuple("relu" for _ in self.hidden)
        self.activations = tuple(activations or relu)
        widths = [dim, *hidden, n_pixels]
        self.linears = nn.ModuleList(Linear(a, b) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(units) if batch_norm else nn.Identity() for units in hidden
        )

    @property
    def output_bias(self) -> nn.Parameter:
        """Bias of the pixels, [n_pixels], on the scale of logits."""
        return cast(nn.Linear, self.linears[-1]).bias

    def draw_masks(self, n: int, rng: torch.Generator) -> list[Tensor | None]:
        """One dropout mask for each hidden layer, [n, units]; None where nothing is dropped."""
        return [_mask(n, units, self.dropout_hidden, rng) for units in self.hidden]

    def forward(self, z: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """[n, dim] -> [n, n_pixels] in (0, 1); `masks` from `draw_masks`, None drops nothing."""
        return torch.sigmoid(self.logits(z, masks))

    def logits(
        self, h: Tensor, masks: Sequence[Tensor | None] | None = None, *, layer: int = 0
    ) -> Tensor:
        """What the pixels are the sigmoid of.

        Args:
            h: units of one of `layers`, [n, units].
            masks: as in `forward`.
            layer: which one; 0 is z.

        Returns:
            [n, n_pixels].
        """
        for i in range(layer, len(self.hidden)):
            h = _drop(self._hidden_layer(i, h), masks[i] if masks else None)
        logits: Tensor = self.linears[-1](h)
        return logits

    def layers(self, z: Tensor) -> list[Tensor]:
        """The layers from z upwards, each made of the one before it, without dropout."""
        layers = [z]
        for i in range(len(self.hidden)):
            layers.append(self._hidden_layer(i, layers[-1]))
        return layers

    def _hidden_layer(self, i: int, h: Tensor) -> Tensor:
        return ACTIVATIONS[self.activations[i]](self.norms[i](self.linears[i](h)))


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
        return [_mask(n, width, drop, rng) for width, drop in pairs]

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
        found, h = [], _drop(x, masks[0] if masks else None)
        for i, layer in enumerate(self.layers):
            h = layer(h) if self.is_maxout else leaky_relu(layer(h), LEAKY_SLOPE)
            h = _drop(h, masks[i + 1] if masks else None)
            found.append(h)
        return found


def build_generator(
    cfg: GeneratorConfig, *, dim: int, pixel_mean: Tensor, rng: torch.Generator
) -> Generator:
    """G as a configuration asks for it, with initial weights.

    Args:
        cfg: settings of G.
        dim: coordinates of z.
        pixel_mean: mean of each pixel over the training images, [n_pixels] in [0, 1].
        rng: stream of the initial weights, on the CPU.
    """
    G = Generator(
        dim,
        hidden=cfg.hidden,
        n_pixels=len(pixel_mean),
        activations=cfg.activations,
        batch_norm=cfg.batch_norm,
        dropout_hidden=cfg.dropout_hidden,
    )
    init_uniform(G, init_range=cfg.init_range, rng=rng)
    for linear, activation in zip(G.linears, G.activations, strict=False):  # but the output
        if activation == "sigmoid":
            nn.init.constant_(cast(nn.Linear, linear).bias, cfg.sigmoid_bias)
    if cfg.output_sparse_init is not None:
        init_sparse(cast(nn.Linear, G.linears[-1]), n_inputs=cfg.output_sparse_init, rng=rng)
    if cfg.output_bias_from_data:
        with torch.no_grad():
            G.output_bias.copy_(torch.logit(pixel_mean.double(), eps=1e-7))
    return G


def build_discriminator(
    cfg: DiscriminatorConfig, *, n_pixels: int, rng: torch.Generator
) -> Discriminator:
    """D as a configuration asks for it, with initial weights drawn from `rng` (on the CPU)."""
    D = Discriminator(
        n_pixels,
        hidden=cfg.hidden,
        pieces=cfg.pieces if cfg.activation == "maxout" else None,
        dropout_input=cfg.dropout_input,
        dropout_hidden=cfg.dropout_hidden,
    )
    init_uniform(D, init_range=cfg.init_range, rng=rng)
    return D


def _mask(n: int, width: int, drop: float, rng: torch.Generator) -> Tensor | None:
    return dropout_mask(n, width, drop=drop, rng=rng) if drop else None


def _drop(h: Tensor, mask: Tensor | None) -> Tensor:
    return h if mask is None else h * mask
