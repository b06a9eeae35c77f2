"""The inference net, and what is a code of a given generator."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from gan.config import InferenceConfig, RunConfig
from gan.errors import ConfigError
from gan.layers import Linear, dropout_mask, init_uniform
from gan.nets import LEAKY_SLOPE, Generator, Player
from gan.priors import Prior
from gan.randomness import stream
from gan.sampling import draw_in_blocks

N_FOR_SPREAD = 10_000
"""Samples by which the spread of each unit of a code is known."""
LEAST_SPREAD = 0.2
"""Least spread of a unit, as a share of the mean over its layer: of those that are never on."""


class InferenceNet(Player):
    """E: pixels through leaky ReLU layers to the units of a code, on the scale of these.

    Args:
        n_pixels: channels * height * width of an image.
        hidden: units of each hidden layer.
        n_code: units of the code.
        batch_norm: normalise each hidden layer over the minibatch before its leaky ReLU.
        dropout_input: share of pixels that is dropped in training.
        dropout_hidden: share of units of each hidden layer that is dropped in training.

    Source: permutation-invariant encoder of Donahue et al. (2017), "Adversarial Feature
    Learning", section 4.1, which has two layers of 1,024.
    """

    def __init__(
        self,
        n_pixels: int,
        *,
        hidden: Sequence[int],
        n_code: int,
        batch_norm: bool,
        dropout_input: float,
        dropout_hidden: float,
    ) -> None:
        super().__init__()
        self.widths = (n_pixels, *hidden)
        self.drops = (dropout_input, *(dropout_hidden for _ in hidden))
        self.linears = nn.ModuleList(Linear(a, b) for a, b in itertools.pairwise(self.widths))
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(units) if batch_norm else nn.Identity() for units in hidden
        )
        self.output = Linear(self.widths[-1], n_code)

    def draw_masks(self, n: int, rng: torch.Generator) -> list[Tensor | None]:
        """One dropout mask for the pixels and for each hidden layer, [n, width]; None: no drop."""
        return [
            dropout_mask(n, width, drop=drop, rng=rng) if drop else None
            for width, drop in zip(self.widths, self.drops, strict=True)
        ]

    def forward(self, x: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """[n, n_pixels] -> codes [n, n_code].  `masks` as from `draw_masks`; None: no drop."""
        code: Tensor = self.output(self.features(x, masks))
        return code

    def features(self, x: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """What the code is a linear function of: the last hidden layer, [n, units]."""
        kept = masks or [None] * len(self.widths)
        h = _dropped(x, kept[0])
        for linear, norm, mask in zip(self.linears, self.norms, kept[1:], strict=True):
            h = _dropped(leaky_relu(norm(linear(h)), LEAKY_SLOPE), mask)
        return h


def _dropped(h: Tensor, mask: Tensor | None) -> Tensor:
    return h if mask is None else h * mask


@dataclass(frozen=True)
class Codes:
    """Which layers of a generator are a code, side by side.

    Attributes:
        layers: places among `Generator.layers`, ascending; 0 is z.
        widths: units of each of them.
    """

    layers: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def width(self) -> int:
        """Units of a code."""
        return sum(self.widths)

    def of(self, G: Generator, z: Tensor) -> tuple[Tensor, Tensor]:
        """Samples, and the codes that E is to predict of them.

        Args:
            G: without dropout.
            z: [n, dim].

        Returns:
            Codes [n, width], and pixels [n, n_pixels].
        """
        layers = G.layers(z)
        pixels = torch.sigmoid(G.logits(layers[-1], layer=len(layers) - 1))
        return torch.cat([layers[i] for i in self.layers], 1), pixels

    def lowest(self, code: Tensor) -> Tensor:
        """The part of a code that an image is made of: its lowest layer, [n, units]."""
        return code[:, : self.widths[0]]

    def with_lowest(self, code: Tensor, lowest: Tensor) -> Tensor:
        """Codes whose lowest layer is another one."""
        return torch.cat([lowest, code[:, self.widths[0] :]], 1)

    def decode(self, G: Generator, code: Tensor) -> Tensor:
        """The pixels that codes lead to: [n, width] -> [n, n_pixels]."""
        return torch.sigmoid(G.logits(self.lowest(code), layer=self.layers[0]))

    def spread(self, codes: Tensor) -> Tensor:
        """Standard deviation of each unit over the rows, [width], none much below its layer's."""
        parts = torch.split(codes.std(0, correction=0), list(self.widths))
        return torch.cat([part.clamp(min=LEAST_SPREAD * part.mean()) for part in parts])

    @torch.no_grad()
    def spread_of(self, G: Generator, prior: Prior) -> Tensor:
        """Spread of the units of samples of G in evaluation mode, the same whoever asks."""
        device = next(G.parameters()).device
        z = draw_in_blocks(prior, N_FOR_SPREAD, stream(0, "spread of codes"))
        codes, _ = self.of(G, z.to(device))
        return self.spread(codes)


def codes_of(config: RunConfig) -> Codes:
    """What the codes of a run are.

    Raises:
        ConfigError: G has no such layer.
    """
    cfg = settings(config)
    layers = cfg.layers
    units = (config.prior.dim, *config.generator.hidden)
    if layers[-1] >= len(units):
        raise ConfigError(
            [
                f"inference.layers must be from 0, which is z, to {len(units) - 1}, the last "
                f"hidden layer of G, got {list(layers)}"
            ]
        )
    return Codes(layers=layers, widths=tuple(units[i] for i in layers))


def build_inference_net(config: RunConfig, *, n_pixels: int, rng: torch.Generator) -> InferenceNet:
    """E as a configuration asks for it, with initial weights drawn from `rng` (on the CPU).

    Raises:
        ConfigError: as `codes_of`.
    """
    cfg = settings(config)
    E = InferenceNet(
        n_pixels,
        hidden=cfg.hidden,
        n_code=codes_of(config).width,
        batch_norm=cfg.batch_norm,
        dropout_input=cfg.dropout_input,
        dropout_hidden=cfg.dropout_hidden,
    )
    init_uniform(E, init_range=None, rng=rng)
    return E


def settings(config: RunConfig) -> InferenceConfig:
    """The section of the configuration."""
    assert config.inference is not None  # noqa: S101 (else this is another task)
    return config.inference
