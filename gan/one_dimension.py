"""The experiment of Figure 1: a GAN of images of one pixel, whose densities can be drawn.

Data, p_g and D are functions on (0, 1).  What trains is Algorithm 1 itself (`gan.algorithm1`),
with the nets that images have.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gan.algorithm1 import train
from gan.config import (
    DiscriminatorConfig,
    GeneratorConfig,
    PriorConfig,
    RunConfig,
    TrainConfig,
)
from gan.losses import GENERATOR_LOSSES
from gan.model import Gan, build_gan
from gan.randomness import stream
from gan.theory import gaussian, jensen_shannon_divergence

MEAN, STD = 0.5, 0.15
"""Of the data: normal, drawn again where it leaves (0, 1), as 9 of 10,000 values do."""
N_POINTS, N_NOISE, N_BINS = 1_001, 20_001, 2_000
BANDWIDTH = 0.01
"""Of the Gaussians by which p_g is drawn, on the axis of x."""
NEAR = 0.05
"""Divergence, nats, from which on the pair of panel (a) counts as near convergence."""
D_ONLY_STEPS, G_ONLY_STEPS = 2_000, 10
"""Updates of D behind panel (b), and of G behind panel (c)."""

CONFIG = RunConfig(
    prior=PriorConfig(kind="uniform", dim=1),
    generator=GeneratorConfig(hidden=(32, 32), init_range=0.3, output_bias_from_data=False),
    discriminator=DiscriminatorConfig(
        hidden=(48, 48), pieces=3, dropout_input=0.0, dropout_hidden=0.0, init_range=0.5
    ),
    train=TrainConfig(
        n_steps=3_000,
        batch_size=512,
        d_steps=3,
        optimizer="sgd",
        momentum=0.0,
        final_momentum=0.0,
        learning_rate=0.02,
        d_learning_rate=0.3,
        decay_per_step=1.0,
        report_every=40,
    ),
)
"""The run: two hidden layers in G and in D, k = 3.  D moves fast, at a rate that never falls: one
that falls ends in a D that no longer follows, and G then runs off from where it was."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Both players at some moment of training, in float64.

    Attributes:
        step: updates of G.
        x: points of (0, 1), [n].
        p_data: density of the data at them, [n].
        p_g: that of G's samples, by Gaussians of width `BANDWIDTH`, [n].
        D: D(x), [n].
        z: noise, evenly spaced over its support, [m].
        G: G(z), [m].
        divergence: JSD(p_data || p_g), nats, both densities smoothed alike.
    """

    step: int
    x: Tensor
    p_data: Tensor
    p_g: Tensor
    D: Tensor
    z: Tensor
    G: Tensor
    divergence: float


@dataclass(frozen=True, kw_only=True)
class Figure1:
    """The panels of Figure 1, in the words of its caption.

    Attributes:
        near: (a) a pair near convergence: p_g is similar to p_data, D partially accurate.
        best_response: (b) D trained to convergence against that G, D* = p_data / (p_data + p_g).
        moved: (c) after updates of G against that D.
        converged: (d) the end of training.
        path: from the beginning to the end of training, for an animation.
    """

    near: Moment
    best_response: Moment
    moved: Moment
    converged: Moment
    path: list[Moment]


def figure1(seed: int = 0, *, config: RunConfig = CONFIG) -> Figure1:
    """Train, and look at the moments that the paper draws.

    Panels (b) and (c) branch off at the pair of panel (a), and leave training as it is.

    Args:
        seed: of the run.
        config: the run; its own seed is not read.

    Raises:
        DivergedError: a loss is not finite.
    """
    config = dataclasses.replace(config, seed=seed)
    gan = new_gan(config)
    path, near, state = [moment(gan)], None, copy.deepcopy(gan.state())
    for _ in train(gan, minibatches(config), config.train):
        path.append(moment(gan))
        if near is None and path[-1].divergence < NEAR:
            near, state = path[-1], copy.deepcopy(gan.state())
    best_response, moved = _aside(config, state)
    return Figure1(
        near=near or path[0],
        best_response=best_response,
        moved=moved,
        converged=path[-1],
        path=path,
    )


def new_gan(config: RunConfig = CONFIG) -> Gan:
    """Both players at step 0."""
    return build_gan(config, image_shape=(1, 1, 1), pixel_mean=torch.full((1,), 0.5), device="cpu")


def minibatches(config: RunConfig = CONFIG) -> Iterator[Tensor]:
    """Endless fresh data, [batch, 1] float32 in (0, 1)."""
    rng = stream(config.seed, "one_dimension")
    n = config.train.batch_size
    while True:
        x = torch.randn(2 * n, generator=rng).mul_(STD).add_(MEAN)  # of which n lie within
        yield x[(x > 0) & (x < 1)][:n, None]


def moment(gan: Gan) -> Moment:
    """What both nets are now."""
    x = torch.linspace(0, 1, N_POINTS + 2, dtype=torch.float64)[1:-1]
    z = torch.linspace(-math.sqrt(3), math.sqrt(3), N_NOISE)
    with torch.no_grad():
        G = gan.G(z[:, None])[:, 0].double()
        D = gan.D(x[:, None].float()).sigmoid().double()
    p_g, p_data = density(G, x), gaussian(x, MEAN, STD)
    cell = (x[1] - x[0]).item()
    smooth = gaussian(x, MEAN, math.hypot(STD, BANDWIDTH))
    divergence = jensen_shannon_divergence(
        smooth / (smooth.sum() * cell), p_g / (p_g.sum() * cell), cell=cell
    )
    return Moment(
        step=gan.step,
        x=x,
        p_data=p_data,
        p_g=p_g,
        D=D,
        z=z.double(),
        G=G,
        divergence=divergence.item(),
    )


def density(samples: Tensor, x: Tensor) -> Tensor:
    """A mean of Gaussians of width `BANDWIDTH` around samples in (0, 1), binned finely.

    Args:
        samples: [m].
        x: points, [n].

    Returns:
        [n].
    """
    counts = torch.histc(samples, bins=N_BINS, min=0.0, max=1.0) / len(samples)
    centres = (torch.arange(N_BINS, dtype=x.dtype) + 0.5) / N_BINS
    used = counts > 0
    return gaussian(x[:, None], centres[used], BANDWIDTH) @ counts[used].to(x.dtype)


def _aside(config: RunConfig, state: dict[str, Tensor]) -> tuple[Moment, Moment]:
    """D trained to convergence against a G that stays, then G after updates against that D."""
    gan = new_gan(config)
    gan.set_state(state)
    kept = {name: tensor.clone() for name, tensor in gan.G.state_dict().items()}
    images = minibatches(dataclasses.replace(config, seed=config.seed + 1))
    once = dataclasses.replace(config.train, d_steps=D_ONLY_STEPS, n_steps=gan.step + 1)
    next(train(gan, images, once))
    gan.G.load_state_dict(kept)
    best_response = moment(gan)
    g_loss = GENERATOR_LOSSES[config.train.generator_loss]
    for _ in range(G_ONLY_STEPS):
        x_fake = gan.generate(config.train.batch_size)
        with gan.fixed_discriminator():
            loss = g_loss(gan.discriminate(x_fake))
        gan.g_descent.update(gan.g_descent.gradients(loss))
    return best_response, moment(gan)
