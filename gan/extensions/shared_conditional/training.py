"""The game of the shared model, and the two proper scores that G descends beside it.

D sees images with their labels and masks, and G's completions of images under the same masks:

    min_G max_D  E log D(x, y, m) + E log(1 - D(x', y', m)),   (x', y') = G(x m, y m_y, m, z)

Differs from the plain game: beside its loss in it G descends

    energy_weight * E[ (|x - x'_1| + |x - x'_2|) / 2 - |x'_1 - x'_2| / 2 ]
    label_weight  * E[ -log p(y | visible pixels) ]

with x'_1, x'_2 two completions of one image by noise of their own, and |.| the Euclidean norm.
Both are strictly proper scoring rules: the first is least, as the game is at its equilibrium,
where completions are draws from p(hidden | visible), the second where the classes' probabilities
are the true ones.  So neither pulls G from where the game leads it, as a squared error would, by
which G forgets its noise; both lead there from a start where D tells G little.  A drawn label
passes no gradient on, so the label is learnt by the second alone.

Source: the energy score: Gneiting and Raftery (2007), "Strictly Proper Scoring Rules, Prediction,
and Estimation", section 4.3.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from gan.algorithm1 import ProgressBeside, progress
from gan.config import SharedConditionalConfig, TrainConfig
from gan.errors import DivergedError
from gan.extensions.shared_conditional.nets import (
    Completions,
    Evidence,
    Gumbel,
    SharedGenerator,
)
from gan.losses import GENERATOR_LOSSES, discriminator_loss
from gan.masks import MaskTable
from gan.metric_names import ENERGY_SCORE, LABEL_CROSS_ENTROPY
from gan.model import Gan

SMALLEST = 1e-12
"""Added to a squared norm, whose root has no derivative at 0, where nothing is hidden."""


def energy_score(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """(|x - x_1| + |x - x_2|) / 2 - |x_1 - x_2| / 2 of each row, [n].

    Args:
        x: what happened, [n, d].
        first: a draw of the model for each row, [n, d].
        second: another, independent one.

    The expectation over both draws is least, over all models, for that which x is drawn from.
    """
    to_first, to_second, between = map(_norms, (x - first, x - second, first - second))
    return (to_first + to_second - between) / 2


def _norms(rows: Tensor) -> Tensor:
    return (rows.square().sum(1) + SMALLEST).sqrt()


def train(
    gan: Gan,
    rows: Iterator[Tensor],
    cfg: TrainConfig,
    *,
    own: SharedConditionalConfig,
    masks: MaskTable,
) -> Iterator[ProgressBeside]:
    """Train until `cfg.n_steps`, yielding every `cfg.report_every` steps and at the end.

    As `gan.algorithm1.train` in alternating order, with a mask for each row.

    Args:
        gan: both nets with their optimisers; trained in place, from `gan.step` on.
        rows: endless minibatches [x, y], [m, n_pixels + K].
        cfg: settings of Algorithm 1.
        own: settings of the shared model.
        masks: to draw from.

    Raises:
        DivergedError: at the first report with a loss that is not finite.
    """
    generator_loss = GENERATOR_LOSSES[cfg.generator_loss]
    sums = torch.zeros(6, device=gan.device)
    n_summed = 0
    while gan.step < cfg.n_steps:
        for _ in range(cfg.d_steps):
            seen = _evidence(next(rows), masks, gan)
            with torch.no_grad():
                fakes = complete(gan, seen, draws=1)
            judged = torch.cat([seen.rows(), fakes.rows(seen.mask, draw=0)])
            real_logits, fake_logits = gan.discriminate(judged).chunk(2)
            d_loss = discriminator_loss(real_logits, fake_logits)
            gan.d_descent.update(gan.d_descent.gradients(cfg.d_loss_scale * d_loss))

        seen = _evidence(next(rows), masks, gan)
        fakes = complete(gan, seen, draws=2)
        with gan.fixed_discriminator():
            g_loss = generator_loss(gan.discriminate(fakes.rows(seen.mask, draw=0)))
        energy = energy_score(seen.x, fakes.x[:, 0], fakes.x[:, 1]).mean()
        surprise = cross_entropy(fakes.logits.float(), seen.y)
        total = g_loss + own.energy_weight * energy + own.label_weight * surprise
        gan.g_descent.update(gan.g_descent.gradients(total))

        gan.step += 1
        gan.update_average()
        with torch.no_grad():
            answers = torch.sigmoid(torch.stack([real_logits, fake_logits])).mean(1)
            sums += torch.stack([d_loss, g_loss, *answers, energy, surprise])
        n_summed += 1
        if gan.step % cfg.report_every == 0 or gan.step == cfg.n_steps:
            yield _report(gan, (sums / n_summed).tolist(), cfg)
            sums.zero_()
            n_summed = 0


def complete(gan: Gan, seen: Evidence, *, draws: int) -> Completions:
    """Completions by G in training mode, from fresh noise."""
    assert isinstance(gan.G, SharedGenerator)  # noqa: S101 (we made it)
    n, n_classes = seen.y.shape
    z = gan.prior.sample(n * draws, gan.streams.noise).view(n, draws, -1)
    noise = Gumbel(n_classes).sample(n * draws, gan.streams.noise).view(n, draws, -1)
    dropped = gan.G.draw_masks(n, gan.streams.dropout, draws=draws)
    found: Completions = gan.run_generator(seen, z, noise, dropped)
    return found


def _evidence(rows: Tensor, masks: MaskTable, gan: Gan) -> Evidence:
    mask = masks.draw(len(rows), gan.streams.noise)
    n_pixels = mask.shape[1] - 1
    return Evidence(x=rows[:, :n_pixels], y=rows[:, n_pixels:], mask=mask)


def _report(gan: Gan, means: list[float], cfg: TrainConfig) -> ProgressBeside:
    game, (energy, surprise) = progress(gan, means[:4], cfg), means[4:]
    beside = {ENERGY_SCORE: energy, LABEL_CROSS_ENTROPY: surprise}
    if not (math.isfinite(energy) and math.isfinite(surprise)):
        raise DivergedError(
            step=gan.step, losses=beside, learning_rate=gan.g_descent.learning_rate
        )
    return ProgressBeside(game=game, beside=beside)
