"""A training run: nets at some step, from which it goes on, is saved and is restored."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from gan.algorithm1 import train
from gan.checkpoint import part_of
from gan.config import EvaluationConfig, RunConfig, TrainConfig
from gan.contrast import AS_THEY_ARE, mean_brightness
from gan.datasets.images import ImageSet, pixel_mean
from gan.evaluation.parzen import PAPER_GRID, ParzenScore, choose_sigma, parzen_score
from gan.metric_names import LEARNING_RATE
from gan.minibatches import Minibatches
from gan.model import Gan, build_gan
from gan.nets import Generator, Player
from gan.saved_generator import Saved, SavedGenerator


class Report(Protocol):
    """What a run reports of the steps since its last report."""

    @property
    def step(self) -> int:
        """Updates so far."""
        ...

    @property
    def images_seen(self) -> int:
        """Training images that were read so far."""
        ...

    def metrics(self) -> dict[str, float]:
        """Every value but the step, by metric name; finite."""
        ...


@dataclass(frozen=True, kw_only=True)
class MeansReport:
    """A report of means over the updates since the last one.

    Attributes:
        step: updates so far.
        images_seen: images, or samples, that were learned from so far.
        means: by metric name.
        learning_rate: step size of the next update.
    """

    step: int
    images_seen: int
    means: dict[str, float]
    learning_rate: float

    def metrics(self) -> dict[str, float]:
        """Every value but the counts, by metric name."""
        return self.means | {LEARNING_RATE: self.learning_rate}


class TrainingRun(Protocol):
    """Whatever is trained, the paper's GAN or an extension, as a trial drives it."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        ...

    @property
    def step(self) -> int:
        """Updates so far."""
        ...

    def train(self) -> Iterator[Report]:
        """Train from the present step to the last; the caller stops by asking no further."""
        ...

    def saved(self) -> Saved:
        """What is kept of it, as it is now."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, by name."""
        ...

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What Algorithm 1 needs, and how its generator is kept.

    Attributes:
        gan: both players.
        minibatches: rows as D takes them.
        keep: G in evaluation mode -> what is saved of the run.
        train: the loop; Algorithm 1, or one that departs from it.
    """

    gan: Gan
    minibatches: Minibatches
    keep: Callable[[Player], Saved]
    train: Callable[[Gan, Iterator[Tensor], TrainConfig], Iterator[Report]] = train


def unconditional(cfg: RunConfig, images: ImageSet, device: torch.device | str) -> Parts:
    """The parts of the paper's GAN."""
    norm = cfg.train.contrast_norm
    gan = build_gan(
        cfg,
        pixel_mean=torch.from_numpy(pixel_mean(images.images)),
        image_shape=images.image_shape,
        brightness=AS_THEY_ARE if norm is None else mean_brightness(images.images, norm=norm),
        device=device,
    )
    return Parts(
        gan=gan,
        minibatches=image_minibatches(cfg, images, gan),
        keep=lambda G: SavedGenerator(
            G=cast(Generator, G), config=cfg, image_shape=images.image_shape
        ),
    )


def image_minibatches(
    cfg: RunConfig, images: ImageSet, gan: Gan, *, beside: Tensor | None = None
) -> Minibatches:
    """The training images on the device of `gan`, with what lies beside their pixels."""
    return Minibatches(
        torch.from_numpy(images.images).flatten(1).to(gan.device),
        batch_size=cfg.train.batch_size,
        rng=gan.streams.data,
        beside=beside,
        contrast_norm=cfg.train.contrast_norm,
    )


class Run:
    """A run of Algorithm 1.

    Args:
        cfg: the run.
        images: training images.
        device: where to train.
        build: makes the players and the rows that they see.
    """

    def __init__(
        self,
        cfg: RunConfig,
        images: ImageSet,
        *,
        device: torch.device | str,
        build: Callable[[RunConfig, ImageSet, torch.device | str], Parts] = unconditional,
    ) -> None:
        self.cfg, self.image_shape = cfg, images.image_shape
        parts = build(cfg, images, device)
        self.gan, self.minibatches, self._parts = parts.gan, parts.minibatches, parts

    @property
    def step(self) -> int:
        """Updates of G so far."""
        return self.gan.step

    def train(self) -> Iterator[Report]:
        """Algorithm 1 from the present step on; see `gan.algorithm1.train`."""
        return self._parts.train(self.gan, self.minibatches, self.cfg.train)

    def saved(self) -> Saved:
        """The generator to sample from, as it is now."""
        return self._parts.keep(self.gan.generator())

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, by name."""
        images = {f"images/{name}": t for name, t in self.minibatches.state().items()}
        return self.gan.state() | images

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        self.gan.set_state({k: t for k, t in state.items() if not k.startswith("images/")})
        self.minibatches.set_state(part_of(state, "images/"))


def is_scored_at(cfg: RunConfig, step: int) -> bool:
    """Whether a score is due at this step."""
    return step % cfg.evaluation.score_every == 0 or step == cfg.train.n_steps


def score_samples(
    samples: Tensor,
    images: Tensor,
    *,
    valid: Tensor,
    cfg: EvaluationConfig,
    grid: tuple[float, ...] = PAPER_GRID,
) -> ParzenScore:
    """The Parzen score of samples on images, by the protocol of the released code.

    Args:
        samples: [n, channels, height, width] in [0, 1].
        images: images to score, [b, channels, height, width] in [0, 1].
        valid: validation images, on whose first `cfg.n_sigma_images` the width is chosen.
        cfg: settings of the score.
        grid: window widths to choose from.
    """
    sigma = choose_sigma(valid[: cfg.n_sigma_images], samples, grid=grid, chunk=cfg.chunk)
    return parzen_score(images, samples, sigma=sigma, chunk=cfg.chunk)


def unit_pixels(images: ImageSet, *, device: torch.device | str = "cpu") -> Tensor:
    """Images as float64 in [0, 1], [n, channels, height, width]."""
    return torch.from_numpy(images.images).to(device, torch.float64).div_(255)
