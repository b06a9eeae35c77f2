"""Conditional GAN: p(x | c), with c an input of both G and D.

    min_G max_D  E log D(x, c) + E log(1 - D(G(z, c), c))

A condition is a class, which becomes a one-hot vector, or a vector of real numbers.  Rows carry it
beside what they are of: G takes (z, c) and hands c on, so that its rows (G(z, c), c) are what D
takes, as the rows (x, c) of the data are.  Algorithm 1 then needs no word about conditions.

D sees c twice: beside the pixels, and at its output, where it meets the last hidden layer h in

    logit = w . h + b + (V c) . h

(c is a one-hot vector, or a vector whose coordinates have mean 0 and variance 1 over the data.)
Without this product more samples are of another class than that asked for.

Source: section 7, first extension, of Goodfellow et al. (2014); Mirza and Osindero (2014),
equation 2; the product: Miyato and Koyama (2018), "cGANs with Projection Discriminator".
Differs from Mirza and Osindero: one layer takes image and condition, rather than one each.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from gan.config import ConditionalConfig, RunConfig
from gan.datasets.images import ImageSet, ImageShape, class_sizes, pixel_mean
from gan.errors import ConditionError, DatasetError
from gan.model import assemble_gan
from gan.nets import Discriminator, Generator, Player, build_discriminator, build_generator
from gan.priors import Prior, build_prior
from gan.randomness import stream
from gan.run import Parts, image_minibatches
from gan.sampling import draw_in_blocks, require_evaluation_mode
from gan.saved_generator import empty_generator

SHOWN_OF_EACH = 10
"""Images of one condition in a picture."""

MAX_CONDITIONS = 10_000
"""Vectors of the training images that are saved, to draw from where no condition is given."""


class Conditions(nn.Module):
    """Conditions to draw from: a table of rows, and how often each is drawn.

    Args:
        rows: [k, d] float32; of classes the identity.
        shares: probability of each row, [k] float32, sums to 1.

    The tensors are buffers, so that they go where G goes, and are saved with it.
    """

    rows: Tensor
    shares: Tensor
    up_to: Tensor
    """Sum of the shares up to each row, [k] float64."""

    def __init__(self, rows: Tensor, shares: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)
        self.register_buffer("shares", shares)
        self.register_buffer("up_to", shares.double().cumsum(0), persistent=False)

    @property
    def width(self) -> int:
        """Coordinates of a condition, d."""
        return self.rows.shape[1]

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Independent rows, each drawn by its share: [n, d]."""
        u = torch.rand(n, generator=rng, device=rng.device, dtype=torch.float64)
        # Rounding may leave the sum of all below u.
        return self.rows[torch.searchsorted(self.up_to, u).clamp_(max=len(self.rows) - 1)]


@dataclass(frozen=True)
class ConditionedPrior:
    """Independent z and c in one row: [z, c]."""

    prior: Prior
    conditions: Conditions

    @property
    def dim(self) -> int:
        """Coordinates of z and c together."""
        return self.prior.dim + self.conditions.width

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """[n, dim] float32."""
        return torch.cat([self.prior.sample(n, rng), self.conditions.sample(n, rng)], 1)


class Units(nn.Module):
    """Turns conditions in the units of the data into what the nets take.

    Args:
        mean: [d], subtracted.
        spread: [d] > 0, divided by.

    Of classes they are 0 and 1; of vectors the mean and standard deviation over the training
    images, as a net that takes 0 to 4,000 beside its pixels sees nothing else.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)

    def forward(self, c: Tensor) -> Tensor:
        """[n, d] -> [n, d]."""
        return (c - self.mean) / self.spread


class ConditionalGenerator(Player):
    """G(z, c): rows [z, c] in, rows [pixels, c] out, c in the units of the data.

    Args:
        net: takes [z, scale * units(c)].
        conditions: those to draw from.
        units: of the conditions.
        scale: of c beside z.
    """

    def __init__(
        self, net: Generator, conditions: Conditions, units: Units, *, scale: float
    ) -> None:
        super().__init__()
        self.net, self.conditions, self.units, self.scale = net, conditions, units, scale

    def draw_masks(self, n: int, rng: torch.Generator) -> list[Tensor | None]:
        """Those of the net: nothing of c is dropped."""
        return self.net.draw_masks(n, rng)

    def forward(self, row: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """[n, dim + d] -> [n, n_pixels + d]."""
        width = self.conditions.width
        z, c = row[:, :-width], row[:, -width:]
        pixels: Tensor = self.net(torch.cat([z, self.scale * self.units(c)], 1), masks)
        # Pixels in bfloat16 must not round c, by which D would know them.
        return torch.cat([pixels.to(c.dtype), c], 1)


class ConditionalDiscriminator(Player):
    """D(x, c): rows [pixels, c] to the logit of "this image belongs to this condition".

    Args:
        net: takes [pixels, scale * units(c)].
        units: of the conditions, d coordinates.
        scale: of c beside the pixels.
    """

    def __init__(self, net: Discriminator, units: Units, *, scale: float) -> None:
        super().__init__()
        self.net, self.units, self.width, self.scale = net, units, len(units.mean), scale
        # At 0 D begins without the product, as the net's own start has it.
        self.projection = nn.Parameter(torch.zeros(self.width, net.widths[-1]))

    def draw_masks(self, n: int, rng: torch.Generator) -> list[Tensor | None]:
        """Those of the net; c is never dropped."""
        masks = self.net.draw_masks(n, rng)
        if (first := masks[0]) is not None:
            first[:, -self.width :] = 1
        return masks

    def forward(self, row: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """[n, n_pixels + d] -> logits [n]."""
        x, c = row[:, : -self.width], self.units(row[:, -self.width :])
        h = self.net.features(torch.cat([x, self.scale * c], 1), masks)
        logits: Tensor = self.net.output(h).squeeze(1) + (h * (c @ self.projection)).sum(1)
        return logits


class ImagesOfConditions(nn.Module):
    """A conditional generator as a function of z [n, dim] and c [n, d]: [n, c, h, w] in [0, 1]."""

    def __init__(self, G: ConditionalGenerator, *, image_shape: ImageShape) -> None:
        super().__init__()
        self.G, self.image_shape = G, image_shape

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """Images in the order of the rows."""
        rows: Tensor = self.G(torch.cat([z, condition], 1))
        return rows[:, : math.prod(self.image_shape)].reshape(-1, *self.image_shape)


class ConditionalSampler:
    """Samples of a conditional generator.

    Args:
        G: in evaluation mode.
        prior: distribution of z.
        image_shape: (channels, height, width).
        batch_size: samples of one pass; bounds memory, does not change the images.

    Raises:
        ValueError: G is in training mode.
    """

    def __init__(
        self,
        G: ConditionalGenerator,
        prior: Prior,
        *,
        image_shape: ImageShape,
        batch_size: int = 1000,
    ) -> None:
        require_evaluation_mode(G)
        self.G, self.prior, self.image_shape, self.batch_size = G, prior, image_shape, batch_size

    def sample(self, n: int, seed: int) -> Tensor:
        """Draw n images, [n, channels, height, width] in [0, 1], of conditions as in the data."""
        rng = stream(seed, "conditions", self._device)
        return self.sample_given(draw_in_blocks(self.G.conditions, n, rng), seed)

    def sample_given(self, conditions: Tensor, seed: int) -> Tensor:
        """One image of each condition: [n, channels, height, width] in [0, 1].

        Args:
            conditions: [n, d]; see `condition_rows`.
            seed: the same seed and n give the same z, whatever the conditions.
        """
        rng = stream(seed, "samples", self._device)
        return self.decode(draw_in_blocks(self.prior, len(conditions), rng), conditions)

    def showcase(self, n: int, seed: int) -> Tensor:
        """About n images to look at, each row of ten with a condition of its own."""
        rows = self.G.conditions.rows[: max(1, n // SHOWN_OF_EACH)]
        return self.sample_given(rows.repeat_interleave(SHOWN_OF_EACH, 0), seed)

    @torch.no_grad()
    def decode(self, z: Tensor, conditions: Tensor) -> Tensor:
        """The images of z [n, dim] and conditions [n, d]: [n, channels, height, width]."""
        net = ImagesOfConditions(self.G, image_shape=self.image_shape)
        both = (torch.split(rows, self.batch_size) for rows in (z, conditions.to(z)))
        return torch.cat([net(*part) for part in zip(*both, strict=True)])

    def decode_paths(self, z: Tensor, *, seed: int) -> Tensor:
        """See `gan.sampling.PathSampler`: each path has one condition."""
        n_paths, n_steps, _ = z.shape
        conditions = self.G.conditions.sample(n_paths, stream(seed, "conditions", self._device))
        images = self.decode(z.flatten(0, 1), conditions.repeat_interleave(n_steps, 0))
        return images.view(n_paths, n_steps, *self.image_shape)

    @property
    def _device(self) -> torch.device:
        return self.G.conditions.rows.device


@dataclass(frozen=True)
class SavedConditional:
    """A conditional generator with what is needed to sample it.

    Attributes:
        G: the net, in evaluation mode, with the conditions it was trained on.
        config: the run that trained it.
        image_shape: (channels, height, width).
    """

    G: ConditionalGenerator
    config: RunConfig
    image_shape: ImageShape

    def tensors(self) -> dict[str, Tensor]:
        """Weights and conditions, by name."""
        return self.G.state_dict()

    def sampler(self) -> ConditionalSampler:
        """Draws images from it."""
        prior = build_prior(self.config.prior)
        return ConditionalSampler(self.G, prior, image_shape=self.image_shape)

    @property
    def n_classes(self) -> int | None:
        """Classes that can be asked for; None where conditions are vectors."""
        cfg = _settings(self.config)
        return len(self.G.conditions.rows) if cfg.on == "labels" else None

    def condition_rows(self, given: Sequence[float] | Sequence[int]) -> Tensor:
        """A condition as a row, [1, d].

        Args:
            given: one class, or the coordinates of a vector.

        Raises:
            ConditionError: a class that there is not, a vector of another length, or not finite.
        """
        conditions, n_classes = self.G.conditions, self.n_classes
        if n_classes is not None:
            if len(given) != 1 or given[0] not in range(n_classes):
                raise ConditionError(
                    f"the condition must be a class from 0 to {n_classes - 1}, got {_text(given)}"
                )
            return conditions.rows[[int(given[0])]]
        row = torch.tensor([list(given)], dtype=torch.float32)
        if row.shape[1] != conditions.width or not bool(row.isfinite().all()):
            raise ConditionError(
                f"the condition must be {conditions.width} finite numbers, got {_text(given)}"
            )
        return row

    def draw(self, given: Sequence[float] | Sequence[int], *, n: int, seed: int) -> Tensor:
        """Images [n, channels, height, width] of one condition, as `condition_rows` takes it."""
        return self.sampler().sample_given(self.condition_rows(given).expand(n, -1), seed)


def players(config: RunConfig, images: ImageSet, device: torch.device | str) -> Parts:
    """The parts of a conditional GAN.

    Raises:
        DatasetError: the images have no conditions of the kind that `conditional.on` names.
    """
    cfg = _settings(config)
    rows = _training_rows(images, cfg)
    trained_on, conditions = _tables(rows, cfg, seed=config.seed)
    rng = stream(config.seed, "init")
    net = build_generator(
        config.generator,
        dim=config.prior.dim + conditions.width,
        pixel_mean=torch.from_numpy(pixel_mean(images.images)),
        rng=rng,
    )
    n_pixels = math.prod(images.image_shape)
    judge = build_discriminator(
        config.discriminator, n_pixels=n_pixels + conditions.width, rng=rng
    )
    # Units for each: tensors of a checkpoint must not share memory.
    gan = assemble_gan(
        config,
        G=ConditionalGenerator(net, conditions, _units(rows, cfg), scale=cfg.scale),
        D=ConditionalDiscriminator(judge, _units(rows, cfg), scale=cfg.scale),
        prior=ConditionedPrior(build_prior(config.prior), trained_on.to(device)),
        device=device,
    )
    return Parts(
        gan=gan,
        minibatches=image_minibatches(config, images, gan, beside=rows.to(gan.device)),
        keep=lambda G: _saved(G, config, images.image_shape),
    )


def from_weights(
    weights: Mapping[str, Tensor], config: RunConfig, image_shape: ImageShape
) -> SavedConditional:
    """The conditional generator with these weights.

    Raises:
        KeyError: if they are not a conditional generator's.
        RuntimeError: if they do not fit the configuration.
    """
    rows, shares = weights["conditions.rows"], weights["conditions.shares"]
    conditions = Conditions(rows, shares)
    units = Units(weights["units.mean"], weights["units.spread"])
    n_pixels = math.prod(image_shape)
    net = empty_generator(config, n_pixels=n_pixels, n_beside=conditions.width)
    cfg = _settings(config)
    G = ConditionalGenerator(net, conditions, units, scale=cfg.scale)
    G.load_state_dict(weights)
    return _saved(G.eval().requires_grad_(False), config, image_shape)


def _saved(G: Player, config: RunConfig, image_shape: ImageShape) -> SavedConditional:
    assert isinstance(G, ConditionalGenerator)  # noqa: S101 (we made it)
    return SavedConditional(G=G, config=config, image_shape=image_shape)


def _settings(config: RunConfig) -> ConditionalConfig:
    assert config.conditional is not None  # noqa: S101 (else this is another task)
    return config.conditional


def require_conditions(images: ImageSet, config: RunConfig) -> None:
    """Refuse images without conditions of the kind that `conditional.on` names.

    Raises:
        DatasetError: saying what they lack.
    """
    _training_rows(images, _settings(config))


def _training_rows(images: ImageSet, cfg: ConditionalConfig) -> Tensor:
    """The condition of each training image: [n, d] float32."""
    if cfg.on == "vectors":
        if images.conditions is None:
            raise DatasetError(
                "conditional.on=vectors needs a data set with an array `conditions` [n, d]"
            )
        return torch.from_numpy(images.conditions.astype(np.float32))
    return one_hot_labels(images, needed_by="conditional.on=labels")


def one_hot_labels(images: ImageSet, *, needed_by: str) -> Tensor:
    """The class of each training image: [n, K] float32.

    Args:
        images: training images.
        needed_by: the setting or extension that asks for them.

    Raises:
        DatasetError: there are no labels, or they are not numbered from 0 without a gap.
    """
    if images.labels is None:
        raise DatasetError(f"{needed_by} needs a data set with labels")
    sizes = class_sizes(images.labels)
    return one_hot(torch.from_numpy(images.labels), len(sizes)).float()


def _tables(rows: Tensor, cfg: ConditionalConfig, *, seed: int) -> tuple[Conditions, Conditions]:
    """What G is trained on, which is all that D sees, and what is saved of it."""
    if cfg.on == "labels":
        classes = Conditions(torch.eye(rows.shape[1]), rows.double().mean(0).float())
        return classes, classes
    kept = torch.randperm(len(rows), generator=stream(seed, "kept conditions"))[:MAX_CONDITIONS]
    return _equally_often(rows), _equally_often(rows[kept])


def _units(rows: Tensor, cfg: ConditionalConfig) -> Units:
    if cfg.on == "labels":
        return Units(torch.zeros(rows.shape[1]), torch.ones(rows.shape[1]))
    spread = rows.double().std(0, correction=0)
    # A coordinate that never varies says nothing, whatever its size.
    spread = torch.where(spread > 0, spread, 1.0)
    return Units(rows.double().mean(0).float(), spread.float())


def _equally_often(rows: Tensor) -> Conditions:
    return Conditions(rows, torch.full((len(rows),), 1 / len(rows)))


def _text(given: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in given) or "nothing"
