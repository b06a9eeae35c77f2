"""Algorithm 1 of Goodfellow et al. (2014): minibatch training of generative adversarial nets."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gan.config import TrainConfig
from gan.errors import DivergedError
from gan.losses import GENERATOR_LOSSES, discriminator_loss
from gan.metric_names import D_FAKE_MEAN, D_LOSS, D_REAL_MEAN, G_LOSS, LEARNING_RATE
from gan.model import Gan


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What training reports: means over the steps since the last report.

    Attributes:
        step: updates of G so far.
        images_seen: training images that D has seen so far.
        d_loss: -V(D, G) of equation 1, nats, of D's last update in each step.
        g_loss: G's loss, nats.
        d_real_mean: D(x) on training images, with dropout.
        d_fake_mean: D(G(z)) on the samples of the same update, with dropout.
        learning_rate: step size of G's next update.
    """

    step: int
    images_seen: int
    d_loss: float
    g_loss: float
    d_real_mean: float
    d_fake_mean: float
    learning_rate: float

    def metrics(self) -> dict[str, float]:
        """Every value but the counts, by metric name."""
        return {
            D_LOSS: self.d_loss,
            G_LOSS: self.g_loss,
            D_REAL_MEAN: self.d_real_mean,
            D_FAKE_MEAN: self.d_fake_mean,
            LEARNING_RATE: self.learning_rate,
        }


@dataclass(frozen=True, kw_only=True)
class ProgressBeside:
    """What training reports where more is descended than the two losses.

    Attributes:
        game: of the two players.
        beside: means of the other losses over the same steps, by metric name.
    """

    game: Progress
    beside: dict[str, float]

    @property
    def step(self) -> int:
        """Updates of G so far."""
        return self.game.step

    @property
    def images_seen(self) -> int:
        """Training images that D has seen so far."""
        return self.game.images_seen

    def metrics(self) -> dict[str, float]:
        """Every value but the counts, by metric name."""
        return self.game.metrics() | self.beside


Taught = Callable[[Tensor, int], Tensor]
"""D's logits of a minibatch of fakes, [m], and updates of G so far -> those G learns from, [k]."""


def every_fake(fake_logits: Tensor, step: int) -> Tensor:
    """All of them, as in the paper."""
    return fake_logits


def nothing() -> None:
    """The paper trains two nets."""


def train(
    gan: Gan,
    images: Iterator[Tensor],
    cfg: TrainConfig,
    *,
    taught: Taught = every_fake,
    beside: Callable[[], None] = nothing,
) -> Iterator[Progress]:
    """Train until `cfg.n_steps`, yielding every `cfg.report_every` steps and at the end.

    The caller scores, logs, checkpoints, or stops by not asking for the next value.  Between two
    reports no step waits for the device.

    Args:
        gan: both nets with their optimisers; trained in place, from `gan.step` on.
        images: endless minibatches, [m, n_pixels] float32 in [0, 1].
        cfg: settings of Algorithm 1.
        taught: which fakes of a minibatch G's loss is the mean over.
        beside: a step of what is trained beside both players, after each update of G.

    Raises:
        DivergedError: at the first report with a loss that is not finite.

    Source: Algorithm 1; `simultaneous` order: sgd.py of the released code.
    """
    generator_loss = GENERATOR_LOSSES[cfg.generator_loss]
    sums = torch.zeros(4, device=gan.device)
    n_summed = 0
    while gan.step < cfg.n_steps:
        n_d_only = cfg.d_steps if cfg.update_order == "alternating" else cfg.d_steps - 1
        for _ in range(n_d_only):
            x = next(images)
            with torch.no_grad():
                x_fake = gan.generate(len(x))
            # Real and fake in one pass: the layers of D do not couple the rows of a batch.
            real_logits, fake_logits = gan.discriminate(torch.cat([x, x_fake])).chunk(2)
            d_loss = discriminator_loss(real_logits, fake_logits)
            gan.d_descent.update(gan.d_descent.gradients(cfg.d_loss_scale * d_loss))

        if cfg.update_order == "alternating":
            x_fake = gan.generate(cfg.batch_size, gan.g_prior)
            with gan.fixed_discriminator():
                g_loss = generator_loss(taught(gan.discriminate(x_fake), gan.step))
            gan.g_descent.update(gan.g_descent.gradients(g_loss))
        else:
            x = next(images)
            masks = gan.D.draw_masks(2 * len(x), gan.streams.dropout)
            fake_masks = [None if mask is None else mask[len(x) :] for mask in masks]
            x_fake = gan.generate(len(x))
            logits = gan.discriminate(torch.cat([x, x_fake.detach()]), masks)
            real_logits, fake_logits = logits.chunk(2)
            d_loss = discriminator_loss(real_logits, fake_logits)
            d_grads = gan.d_descent.gradients(cfg.d_loss_scale * d_loss)
            with gan.fixed_discriminator():
                g_logits = gan.discriminate(x_fake, fake_masks)
                g_loss = generator_loss(taught(g_logits, gan.step))
            g_grads = gan.g_descent.gradients(g_loss)
            gan.d_descent.update(d_grads)
            gan.g_descent.update(g_grads)

        gan.step += 1
        gan.update_average()
        beside()
        with torch.no_grad():
            answers = torch.sigmoid(torch.stack([real_logits, fake_logits])).mean(1)
            sums += torch.cat([torch.stack([d_loss, g_loss]), answers])
        n_summed += 1
        if gan.step % cfg.report_every == 0 or gan.step == cfg.n_steps:
            yield progress(gan, (sums / n_summed).tolist(), cfg)
            sums.zero_()
            n_summed = 0


def progress(gan: Gan, means: list[float], cfg: TrainConfig) -> Progress:
    """What is reported at the present step.

    Args:
        gan: both nets.
        means: of D's and G's loss, and of D on images and on samples, since the last report.
        cfg: settings of Algorithm 1.

    Raises:
        DivergedError: a loss is not finite.
    """
    d_loss, g_loss, d_real_mean, d_fake_mean = means
    if not (math.isfinite(d_loss) and math.isfinite(g_loss)):
        raise DivergedError(
            step=gan.step,
            losses={"d_loss": d_loss, "g_loss": g_loss},
            learning_rate=gan.g_descent.learning_rate,
        )
    return Progress(
        step=gan.step,
        images_seen=gan.step * cfg.d_steps * cfg.batch_size,
        d_loss=d_loss,
        g_loss=g_loss,
        d_real_mean=d_real_mean,
        d_fake_mean=d_fake_mean,
        learning_rate=gan.g_descent.learning_rate,
    )
