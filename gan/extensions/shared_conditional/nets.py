"""G and D of the shared model.

    f, h = encoder(x m, m)                what is visible of the image, and where
    p(y | visible) = softmax(head(h))     the label is one more variable:
    y' = y if it is visible, else a draw from p(y | visible)
    x' = x m + sigmoid(decoder(h, y', z) + V f) (1 - m)    visible pixels are copied through

f is what the encoder's convolutions make of the visible pixels, h what the layers behind make of
that; V f takes from the deeper layers what a pixel owes to its neighbours.

Label first, then pixels given the label: by the chain rule a hidden label and the hidden pixels
are drawn together, from p(y | visible) p(x | visible, y).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gan.config import RunConfig, SharedConditionalConfig
from gan.datasets.images import ImageShape
from gan.layers import Linear, dropout_mask, init_uniform
from gan.nets import Generator, Player, build_generator
from gan.randomness import stream


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Images with their labels, and what is visible of both.

    Attributes:
        x: [n, n_pixels] in [0, 1]; hidden pixels have no influence on G.
        y: one-hot labels, [n, K]; hidden labels have no influence on G.
        mask: 1 where a variable is visible, else 0; the label last, [n, n_pixels + 1].
    """

    x: Tensor
    y: Tensor
    mask: Tensor

    @property
    def hidden(self) -> Tensor:
        """1 where a pixel is hidden, [n, n_pixels]."""
        return 1 - self.mask[:, :-1]

    def part(self, start: int, stop: int) -> "Evidence":
        """Of some of the images."""
        return Evidence(x=self.x[start:stop], y=self.y[start:stop], mask=self.mask[start:stop])

    def rows(self) -> Tensor:
        """What D takes of the images as they are: [x, mask, y], [n, 2 n_pixels + 1 + K]."""
        return torch.cat([self.x, self.mask, self.y], 1)


@dataclass(frozen=True, kw_only=True)
class Completions:
    """Images with everything filled in, several of each.

    Attributes:
        x: [n, draws, n_pixels] in [0, 1].
        y: one-hot labels, [n, draws, K].
        logits: of p(y | visible pixels), [n, K].
    """

    x: Tensor
    y: Tensor
    logits: Tensor

    def rows(self, mask: Tensor, *, draw: int) -> Tensor:
        """What D takes of one draw: [x, mask, y], [n, 2 n_pixels + 1 + K]."""
        return torch.cat([self.x[:, draw], mask, self.y[:, draw]], 1)


class Encoder(nn.Module):
    """Convolutions and ReLU layers from the visible pixels and their mask to h.

    Args:
        image_shape: (channels, height, width).
        channels: feature maps of each convolution, 5 x 5 with stride 2; none: pixels as they are.
        hidden: units of each layer behind them; the last is h.
        batch_norm: normalise each layer over the minibatch before its ReLU.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        channels: Sequence[int],
        hidden: Sequence[int],
        batch_norm: bool,
    ) -> None:
        super().__init__()
        depth, height, width = image_shape
        self.input_shape = (2 * depth, height, width)
        self.convolutions = nn.Sequential()
        for before, after in itertools.pairwise([2 * depth, *channels]):
            self.convolutions.append(nn.Conv2d(before, after, 5, stride=2, padding=2))
            self.convolutions.append(nn.BatchNorm2d(after) if batch_norm else nn.Identity())
            self.convolutions.append(nn.ReLU())
            height, width = -(-height // 2), -(-width // 2)
        maps = channels[-1] if channels else 2 * depth
        self.n_features, self.widths = maps * height * width, tuple(hidden)
        widths = [self.n_features, *hidden]
        self.linears = nn.ModuleList(Linear(a, b) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(units) if batch_norm else nn.Identity() for units in hidden
        )

    def forward(self, seen: Tensor, masks: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """What the convolutions make of the visible, [n, n_features], and h, [n, width].

        Args:
            seen: visible pixels, then their mask, [n, 2 n_pixels].
            masks: of dropout, one a layer behind the convolutions.
        """
        features = self.convolutions(seen.view(-1, *self.input_shape)).flatten(1)
        h = features
        for linear, norm, mask in zip(self.linears, self.norms, masks, strict=True):
            h = norm(linear(h)).relu()
            h = h if mask is None else h * mask
        return features, h


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What is made of the visible pixels.

    Attributes:
        h: last layer of the encoder, [n, width].
        pixels: what its convolutions add to the logits of the pixels, V f, [n, n_pixels].
        label: logits of p(y | visible pixels), [n, K].
    """

    h: Tensor
    pixels: Tensor
    label: Tensor


class SharedGenerator(Player):
    """G of all conditionals p(hidden | visible).

    Args:
        encoder: takes [x m, m].
        decoder: takes [h, scale * y', z].
        n_classes: values of the label, K.
        scale: of the label beside h.
        dropout: share of the encoder's units that is dropped in training.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Generator,
        *,
        n_classes: int,
        scale: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.classes: Tensor
        self.encoder, self.decoder = encoder, decoder
        self.widths = encoder.widths
        self.head = Linear(self.widths[-1], n_classes)
        self.skip = Linear(encoder.n_features, len(decoder.output_bias))
        self.scale, self.dropout = scale, dropout
        self.register_buffer("classes", torch.arange(n_classes), persistent=False)

    @property
    def n_classes(self) -> int:
        """Values of the label, K."""
        return self.head.out_features

    def draw_masks(self, n: int, rng: torch.Generator, *, draws: int = 1) -> list[Tensor | None]:
        """Dropout masks of the encoder for n rows, then of the decoder for all draws."""
        own: list[Tensor | None] = [
            dropout_mask(n, width, drop=self.dropout, rng=rng) if self.dropout else None
            for width in self.widths
        ]
        return own + self.decoder.draw_masks(n * draws, rng)

    def encode(
        self, x: Tensor, mask: Tensor, masks: Sequence[Tensor | None] | None = None
    ) -> Encoded:
        """What is made of the visible pixels, without noise.

        Args:
            x: [n, n_pixels].
            mask: of the pixels, [n, n_pixels].
            masks: of dropout; None drops nothing.
        """
        features, h = self.encoder(
            torch.cat([x * mask, mask], 1), masks or [None] * len(self.widths)
        )
        return Encoded(h=h, pixels=self.skip(features), label=self.head(h))

    def decode(
        self,
        encoded: Encoded,
        y: Tensor,
        z: Tensor,
        masks: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """All pixels of each draw, [n, draws, n_pixels] in (0, 1).

        Args:
            encoded: of n images.
            y: one-hot labels, [n, draws, K].
            z: [n, draws, dim].
            masks: of dropout; None drops nothing.
        """
        h = encoded.h.unsqueeze(1).expand(-1, z.shape[1], -1)
        rows = torch.cat([h, self.scale * y, z], 2).flatten(0, 1)
        logits = self.decoder.logits(rows, masks).view(*z.shape[:2], -1)
        return torch.sigmoid(logits + encoded.pixels.unsqueeze(1))

    def forward(
        self,
        seen: Evidence,
        z: Tensor,
        noise: Tensor,
        masks: Sequence[Tensor | None] | None = None,
    ) -> Completions:
        """Completions.  No gradient passes through the draw of a hidden label.

        Args:
            seen: n images with their labels and masks.
            z: from the prior, [n, draws, dim].
            noise: by which hidden labels are drawn, standard Gumbel, [n, draws, K].
            masks: as from `draw_masks`; None drops nothing.
        """
        visible, n_own = seen.mask[:, :-1], len(self.widths)
        encoded = self.encode(seen.x, visible, masks[:n_own] if masks else None)
        drawn = (encoded.label.detach().float().unsqueeze(1) + noise).argmax(2)
        y = torch.where(
            seen.mask[:, None, -1:] > 0,
            seen.y.unsqueeze(1),
            (drawn.unsqueeze(2) == self.classes).to(seen.y.dtype),
        )
        pixels = self.decode(encoded, y, z, masks[n_own:] if masks else None)
        # Selected, not blended: a visible pixel is its own value bit for bit.
        x = torch.where(visible.unsqueeze(1) > 0, seen.x.unsqueeze(1), pixels.to(seen.x.dtype))
        return Completions(x=x, y=y, logits=encoded.label)


@dataclass(frozen=True)
class Gumbel:
    """Independent standard Gumbel numbers, -log(-log u).

    The largest of log p + gumbel is a draw from p.
    """

    dim: int

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """[n, dim] float32."""
        u = torch.rand(n, self.dim, generator=rng, device=rng.device, dtype=torch.float64)
        return u.clamp_(min=1e-300).log_().neg_().log_().neg_().float()


def build_shared_generator(
    config: RunConfig,
    pixel_mean: Tensor,
    *,
    image_shape: ImageShape,
    n_classes: int,
    rng: torch.Generator,
) -> SharedGenerator:
    """G as a configuration asks for it, with initial weights.

    Args:
        config: the run.
        pixel_mean: mean of each pixel over the training images, [n_pixels] in [0, 1].
        image_shape: (channels, height, width).
        n_classes: values of the label, K.
        rng: stream of the initial weights, on the CPU.
    """
    own = settings(config)
    decoder = build_generator(
        config.generator,
        dim=own.encoder_hidden[-1] + n_classes + config.prior.dim,
        pixel_mean=pixel_mean,
        rng=rng,
    )
    encoder = Encoder(
        image_shape,
        channels=own.encoder_channels,
        hidden=own.encoder_hidden,
        batch_norm=config.generator.batch_norm,
    )
    G = SharedGenerator(
        encoder, decoder, n_classes=n_classes, scale=own.scale, dropout=own.encoder_dropout
    )
    for module in (G.encoder, G.head, G.skip):
        init_uniform(module, init_range=config.generator.init_range, rng=rng)
    return G


def empty_generator(
    config: RunConfig, image_shape: ImageShape, *, n_classes: int
) -> SharedGenerator:
    """A generator of the shape that `config` asks for, whose weights are yet to be loaded."""
    mean = torch.full((math.prod(image_shape),), 0.5)
    rng = stream(config.seed, "init")
    return build_shared_generator(
        config, mean, image_shape=image_shape, n_classes=n_classes, rng=rng
    )


def settings(config: RunConfig) -> SharedConditionalConfig:
    """The section of this extension."""
    assert config.shared_conditional is not None  # noqa: S101 (else this is another task)
    return config.shared_conditional
