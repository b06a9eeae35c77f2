"""Runs that train E: beside a generator that stays as it is, and beside Algorithm 1."""

import dataclasses
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from gan.algorithm1 import ProgressBeside, train
from gan.checkpoint import part_of
from gan.config import RunConfig
from gan.config import Task as TaskName
from gan.datasets.images import ImageSet
from gan.extensions.inference.nets import codes_of, settings
from gan.extensions.inference.saved import SavedInference, saved_inference
from gan.extensions.inference.training import ErrorMeans, Learner
from gan.nets import Generator
from gan.priors import Prior, build_prior
from gan.run import MeansReport, Run, TrainingRun
from gan.saved_generator import Saved, generator_of, generator_weights


class FrozenRun:
    """A run of E on samples of a generator that stays as it is.

    Args:
        config: the run, with the prior and the shape of that generator.
        images: training images.
        G: the generator; it is not changed.
        device: where to train.
    """

    def __init__(
        self, config: RunConfig, images: ImageSet, *, G: Generator, device: torch.device | str
    ) -> None:
        self.config, self.image_shape = config, images.image_shape
        self.G = G.to(device).eval().requires_grad_(False)
        self.prior = build_prior(config.prior)
        spread = codes_of(config).spread_of(self.G, self.prior)
        self.learner = Learner(config, images, device=device, spread=spread)

    @property
    def step(self) -> int:
        """Updates of E so far."""
        return self.learner.descent.n_updates

    def train(self) -> Iterator[MeansReport]:
        """Train until `train.n_steps`, yielding every `train.report_every` steps and at the end.

        Raises:
            DivergedError: at the first report with an error that is not finite.
        """
        cfg, learner = self.config.train, self.learner
        means = ErrorMeans(learner.device)
        while self.step < cfg.n_steps:
            z = self.prior.sample(cfg.batch_size, learner.streams.noise)
            means.add(learner.step(self.G, z))
            if self.step % cfg.report_every == 0 or self.step == cfg.n_steps:
                rate = learner.descent.learning_rate
                yield MeansReport(
                    step=self.step,
                    images_seen=self.step * cfg.batch_size,
                    means=means.take(step=self.step, learning_rate=rate),
                    learning_rate=rate,
                )

    def saved(self) -> SavedInference:
        """E as it is now, with G."""
        return saved_inference(self.learner.net(), self.G, self.config, self.image_shape)

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, and G, by name."""
        return self.learner.state() | {f"G/{k}": t for k, t in self.G.state_dict().items()}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        self.learner.set_state(state)
        self.G.load_state_dict(part_of(state, "G/"))


class Remembering:
    """A prior that keeps the z it gave last: in Algorithm 1 those of G's update.

    Args:
        prior: to draw from.
    """

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.last: Tensor | None = None

    @property
    def dim(self) -> int:
        """Coordinates of z."""
        return self.prior.dim

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """As the prior: [n, dim] float32."""
        self.last = self.prior.sample(n, rng)
        return self.last


class JointRun:
    """A run of E beside Algorithm 1, whose players are what they are without it, bit for bit.

    After each update of G, E learns from the generator that would be sampled: the average of G if
    one is kept, else G.

    Args:
        config: the run.
        images: training images.
        device: where to train.
    """

    def __init__(self, config: RunConfig, images: ImageSet, *, device: torch.device | str) -> None:
        self.config, self.image_shape = config, images.image_shape
        self.game = Run(config, images, device=device)
        self.prior = Remembering(self.game.gan.prior)
        self.game.gan.prior = self.prior
        self.learner = Learner(config, images, device=device, spread=None)

    @property
    def step(self) -> int:
        """Updates of G, and of E, so far."""
        return self.game.step

    def train(self) -> Iterator[ProgressBeside]:
        """As `gan.algorithm1.train`.

        Raises:
            DivergedError: at the first report with a loss or an error that is not finite.
        """
        means, gan = ErrorMeans(self.learner.device), self.game.gan
        steps = train(
            gan,
            self.game.minibatches,
            self.config.train,
            beside=lambda: means.add(self._infer()),
        )
        for progress in steps:
            rate = self.learner.descent.learning_rate
            errors = means.take(step=progress.step, learning_rate=rate)
            yield ProgressBeside(game=progress, beside=errors)

    def saved(self) -> SavedInference:
        """E as it is now, with G."""
        G = self.game.gan.generator()
        return saved_inference(self.learner.net(), _net(G), self.config, self.image_shape)

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, by name."""
        return self.game.state() | self.learner.state()

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        self.learner.set_state(state)
        own = self.learner.state()
        self.game.set_state({k: t for k, t in state.items() if k not in own})

    def _infer(self) -> tuple[Tensor, Tensor]:
        cfg, z = settings(self.config), self.prior.last
        if cfg.joint_z == "fresh" or z is None:
            z = self.prior.prior.sample(self.config.train.batch_size, self.learner.streams.noise)
        gan = self.game.gan
        return self.learner.step(_net(gan.G if gan.average is None else gan.average.module), z)


def _net(G: torch.nn.Module) -> Generator:
    assert isinstance(G, Generator)  # noqa: S101 (we made it)
    return G


def start(
    config: RunConfig, images: ImageSet, *, device: torch.device | str, origin: Saved | None = None
) -> TrainingRun:
    """The run at step 0.

    Args:
        config: the run; where it has an origin, with what `adopt` takes over from that.
        images: training images.
        device: where to train.
        origin: the generator that stays as it is.

    Raises:
        ConfigError: that generator makes images of another shape, or has not the layers that E is
            to predict.
    """
    if origin is None:
        return JointRun(config, images, device=device)
    G = generator_of(origin, images.image_shape)
    return FrozenRun(config, images, G=G, device=device)


def adopt(config: RunConfig, origin: RunConfig) -> RunConfig:
    """The run with the prior and the shape of the generator that stays as it is.

    Raises:
        ConfigError: that generator has not the layers that E is to predict.
    """
    config = dataclasses.replace(config, prior=origin.prior, generator=origin.generator)
    codes_of(config)
    return config


def origin_of(config: RunConfig) -> TaskName | None:
    """The task whose promoted model a run starts from: of a frozen generator that one."""
    return "generator" if settings(config).generator == "frozen" else None


def weights_of(state: Mapping[str, Tensor], config: RunConfig) -> dict[str, Tensor]:
    """The tensors that are kept of a training state."""
    averages = bool(config.train.average_decay)
    E = part_of(state, "e_average/module." if averages else "E/")
    is_frozen = settings(config).generator == "frozen"
    G = part_of(state, "G/") if is_frozen else generator_weights(state, config)
    return {f"E.{k}": t for k, t in E.items()} | {f"G.{k}": t for k, t in G.items()}
