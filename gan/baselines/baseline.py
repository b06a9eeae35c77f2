"""What the GAN is compared with: one protocol to fit, sample, save and load, and its run."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gan.checkpoint import part_of
from gan.config import RunConfig, TrainConfig
from gan.datasets.images import ImageSet, ImageShape, pixel_mean
from gan.errors import DivergedError, ScoreError
from gan.minibatches import Minibatches
from gan.optimisers import Descent, build_descent
from gan.priors import Prior
from gan.randomness import Streams
from gan.run import MeansReport


class Baseline(nn.Module, ABC):
    """A generative model of images at some step of its training.

    `fit` trains it; `sample` draws from it in evaluation mode; parameters and buffers
    (`state_dict`) are all that is saved of it, and `load_state_dict` brings it back.

    Attributes:
        image_shape: (channels, height, width).
        step: updates so far.
        descents: optimisers by name, from `start` on.
    """

    def __init__(self, image_shape: ImageShape) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.step = 0
        self.descents: dict[str, Descent] = {}

    @property
    def n_pixels(self) -> int:
        """Pixels of an image, over all channels."""
        return math.prod(self.image_shape)

    def start(self, cfg: TrainConfig) -> None:
        """Make the optimisers, now that the parameters lie on the device that trains.

        One of all parameters, unless a baseline is trained part by part.
        """
        descent = build_descent(self.parameters(), cfg, learning_rate=cfg.learning_rate)
        self.descents = {"all": descent}

    def descent(self) -> Descent:
        """The optimiser of the next update, at its step size."""
        return self.descents["all"]

    @abstractmethod
    def update(self, x: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """One update; `step` says how many came before.

        Args:
            x: minibatch, [m, n_pixels] float32 in [0, 1].
            rng: of everything random in it, on the same device.

        Returns:
            What is reported, by metric name, each a tensor without axes on the device; another
            phase of the training may report under other names.
        """

    @property
    def learning_rate(self) -> float:
        """Step size of the next update."""
        return self.descent().learning_rate

    @abstractmethod
    def sample(self, n: int, seed: int) -> Tensor:
        """Draw n images, [n, channels, height, width] in [0, 1]; same seed, same images.

        The first images of a seed do not depend on n.
        """

    @abstractmethod
    def decoder(self) -> tuple[nn.Module, int]:
        """The last map of a sample, from hidden units [n, d] to pixels [n, n_pixels]; and d."""

    def showcase(self, n: int, seed: int) -> Tensor:
        """The first n samples of the seed."""
        return self.sample(n, seed)

    @property
    def prior(self) -> Prior:
        """Distribution of z, of a model that has one.

        Raises:
            ScoreError: it has none.
        """
        raise ScoreError("its images come from a Markov chain: no path leads from one to another")

    def decode_paths(self, z: Tensor, *, seed: int) -> Tensor:
        """See `gan.sampling.PathSampler`; only of a model with a z."""
        raise ScoreError("its images come from a Markov chain: no path leads from one to another")


class Build(Protocol):
    """Makes a baseline at step 0, on the CPU, as a configuration asks for it."""

    def __call__(self, cfg: RunConfig, *, image_shape: ImageShape, pixel_mean: Tensor) -> Baseline:
        """`pixel_mean`: of each pixel over the training images, [n_pixels] in [0, 1]."""
        ...


def fit(
    baseline: Baseline, images: Iterator[Tensor], cfg: TrainConfig, *, rng: torch.Generator
) -> Iterator[MeansReport]:
    """Train until `cfg.n_steps`, yielding every `cfg.report_every` steps and at the end.

    The caller scores, logs, checkpoints, or stops by not asking for the next value.  Between two
    reports no step waits for the device.

    Args:
        baseline: started; trained in place, from its `step` on.
        images: endless minibatches, [m, n_pixels] float32 in [0, 1].
        cfg: how many steps and images.
        rng: of everything random but the order of the images, on the same device.

    Raises:
        DivergedError: at the first report with a value that is not finite.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    while baseline.step < cfg.n_steps:
        for name, value in baseline.update(next(images), rng).items():
            sums[name] = sums[name] + value.detach() if name in sums else value.detach()
            counts[name] = counts.get(name, 0) + 1
        baseline.step += 1
        if baseline.step % cfg.report_every == 0 or baseline.step == cfg.n_steps:
            yield _progress(baseline, sums, counts, cfg)
            sums, counts = {}, {}


def _progress(
    baseline: Baseline, sums: Mapping[str, Tensor], counts: Mapping[str, int], cfg: TrainConfig
) -> MeansReport:
    totals = torch.stack([total.float() for total in sums.values()]).tolist()
    means = {name: total / counts[name] for name, total in zip(sums, totals, strict=True)}
    if not all(map(math.isfinite, means.values())):
        raise DivergedError(step=baseline.step, losses=means, learning_rate=baseline.learning_rate)
    return MeansReport(
        step=baseline.step,
        images_seen=baseline.step * cfg.batch_size,
        means=means,
        learning_rate=baseline.learning_rate,
    )


@dataclass(frozen=True)
class SavedBaseline:
    """A baseline with what is needed to use it.

    Attributes:
        model: in evaluation mode.
        config: the run that trained it.
        image_shape: (channels, height, width).
    """

    model: Baseline
    config: RunConfig
    image_shape: ImageShape

    @property
    def G(self) -> nn.Module:
        """The last map of a sample; see `Baseline.decoder`."""
        return self.model.decoder()[0]

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers, by name."""
        return self.model.state_dict()

    def sampler(self) -> Baseline:
        """Draws images from it."""
        return self.model


class BaselineRun:
    """The training run of a baseline; see `gan.run.TrainingRun`.

    Args:
        cfg: the run.
        images: training images.
        device: where to train.
        build: makes the baseline.
    """

    def __init__(
        self, cfg: RunConfig, images: ImageSet, *, device: torch.device | str, build: Build
    ) -> None:
        self.cfg, self.image_shape, self._build = cfg, images.image_shape, build
        mean = torch.from_numpy(pixel_mean(images.images))
        self.model = build(cfg, image_shape=self.image_shape, pixel_mean=mean).to(device).train()
        self.model.start(cfg.train)
        self.streams = Streams(cfg.seed, device)
        self.minibatches = Minibatches(
            torch.from_numpy(images.images).flatten(1).to(device),
            batch_size=cfg.train.batch_size,
            rng=self.streams.data,
        )

    @property
    def step(self) -> int:
        """Updates so far."""
        return self.model.step

    def train(self) -> Iterator[MeansReport]:
        """From the present step on; see `fit`."""
        return fit(self.model, self.minibatches, self.cfg.train, rng=self.streams.noise)

    def saved(self) -> SavedBaseline:
        """The baseline to sample from, as it is now."""
        state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        return from_weights(state, self.cfg, self.image_shape, build=self._build)

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, by name."""
        parts = {
            "model": self.model.state_dict(),
            "streams": self.streams.state(),
            "images": self.minibatches.state(),
            **{f"descents/{name}": d.state() for name, d in self.model.descents.items()},
        }
        flat = {f"{part}/{name}": t for part, state in parts.items() for name, t in state.items()}
        return flat | {"step": torch.tensor(self.model.step)}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        self.model.load_state_dict(part_of(state, "model/"))
        self.streams.set_state(part_of(state, "streams/"))
        self.minibatches.set_state(part_of(state, "images/"))
        for name, descent in self.model.descents.items():
            descent.set_state(part_of(state, f"descents/{name}/"))
        self.model.step = int(state["step"])


def weights_of(state: Mapping[str, Tensor], config: RunConfig) -> dict[str, Tensor]:
    """Parameters and buffers in a training state, by name.

    Args:
        state: as from `BaselineRun.state`, or a checkpoint's tensors.
        config: the run that the state is of.
    """
    return part_of(state, "model/")


def from_weights(
    weights: Mapping[str, Tensor], config: RunConfig, image_shape: ImageShape, *, build: Build
) -> SavedBaseline:
    """The baseline with these weights, on their device.

    Raises:
        RuntimeError: if they do not fit the configuration.
    """
    unknown = torch.full((math.prod(image_shape),), 0.5)
    model = build(config, image_shape=image_shape, pixel_mean=unknown)
    model.load_state_dict(weights)
    device = next(iter(weights.values())).device
    return SavedBaseline(model.to(device).eval().requires_grad_(False), config, image_shape)
