"""Deep Boltzmann machine: Salakhutdinov and Hinton (2009), "Deep Boltzmann machines", AISTATS."""

import itertools
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from gan.baselines.rbm import GibbsChains, Rbm, draw, outer_mean, phase_at
from gan.baselines.rbm_stack import RbmStack
from gan.config import DbmConfig, RunConfig, TrainConfig
from gan.datasets.images import ImageShape
from gan.layers import product
from gan.metric_names import ENERGY_GAP_NATS
from gan.optimisers import build_descent
from gan.randomness import stream
from gan.sampling import draw_in_blocks

JOINT = "joint"
"""Name of the descent of all layers together."""


class Dbm(RbmStack[DbmConfig]):
    """Layers of binary units s_0 = v, s_1 .. s_l, each joined with the next in both directions.

        E(s) = - sum_i s_(i+1)^T W_i s_i - sum_i bias_i^T s_i,    p(s) = exp(-E(s)) / Z.

    First each pair of layers is trained as an RBM, in turn from the bottom, with what a layer
    receives doubled where it will receive from two sides; then all together, along

        E_data[dE] - E_model[dE],

    the first by mean field, the second by Gibbs chains that go on from update to update.  Pixels
    are the probabilities of units that are drawn anew at every reading.

    Source: section 3 of the paper.  Differs: images are the means of p(v|s_1), not drawn; a fixed
    number of mean-field passes; in the second mean of a product, one factor is the mean of its
    layer given the others rather than drawn.

    Attributes:
        chain: all layers of the persistent chains side by side, [n_chains, sum of widths].

    Args:
        image_shape: (channels, height, width).
        cfg: its settings.
        n_chains: Gibbs chains, as many as images in a minibatch.
        pixel_mean: mean of each pixel over the training images, [n_pixels] in [0, 1].
        rng: stream of the initial weights, on the CPU.
    """

    chain: Tensor

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        cfg: DbmConfig,
        n_chains: int,
        pixel_mean: Tensor,
        rng: torch.Generator,
    ) -> None:
        widths = [math.prod(image_shape), *cfg.hidden]
        last = len(cfg.hidden) - 1
        rbms = [
            Rbm(
                a,
                b,
                n_chains=n_chains,
                up=1.0 if i == last else 2.0,
                down=1.0 if i == 0 else 2.0,
                rng=rng,
            )
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        ]
        super().__init__(image_shape, cfg=cfg, rbms=rbms, pixel_mean=pixel_mean)
        self.widths = widths
        self.register_buffer("chain", torch.zeros(n_chains, sum(self.widths)))

    def start(self, cfg: TrainConfig) -> None:
        """See `Baseline`."""
        n_layers = len(self.rbms)
        n_before = round(cfg.n_steps * (1 - self.cfg.joint_share))
        n_before = max(n_layers, min(n_before, cfg.n_steps - 1))  # a step for each phase
        self._ends = [n_before * (i + 1) // n_layers for i in range(n_layers)] + [cfg.n_steps]
        self.descents = self._rbm_descents(cfg)
        self.descents[JOINT] = build_descent(
            self._joint_parameters(), cfg, learning_rate=self.cfg.joint_learning_rate
        )

    @torch.no_grad()
    def update(self, x: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """See `Baseline`."""
        phase, done = phase_at(self.step, self._ends)
        v = draw(x, rng)
        if phase < len(self.rbms):
            return self._update_rbm(phase, v, begins=done == 0, persistent=False, rng=rng)
        mu = self.mean_field(v)
        if done == 0:
            self.chain.copy_(torch.cat([draw(p, rng) for p in mu], 1))
        for _ in range(self.cfg.gibbs_steps):
            self.chain.copy_(self.gibbs(self.chain, rng))
        states = self.smooth(self.chain)
        gap = self.energy(mu).mean() - self.energy(states).mean()
        self.descent().update(self.contrast(mu, states))
        return {ENERGY_GAP_NATS: gap}

    def energy(self, states: Sequence[Tensor]) -> Tensor:
        """E of rows of states, or its mean where they are the means of independent units.

        Args:
            states: of each layer, the pixels first, [n, width].

        Returns:
            [n].
        """
        total = -sum(s @ self.bias(i) for i, s in enumerate(states))
        for i, (below, above) in enumerate(itertools.pairwise(states)):
            total = total - (product(below, self._rbm(i).weight.T) * above).sum(1)
        return cast(Tensor, total)

    def bias(self, layer: int) -> Tensor:
        """Of a layer's units: the sum of what the RBMs below and above it have for them."""
        if layer == 0:
            return self._rbm(0).vbias
        below = self._rbm(layer - 1).hbias
        return below if layer == len(self.rbms) else below + self._rbm(layer).vbias

    def mean_field(self, v: Tensor) -> list[Tensor]:
        """Means of the factorised q(h) that is nearest to p(h|v), each layer [n, width], v first.

        From a pass upwards, in which what comes from below stands for what will come from above,
        too, `mean_field_steps` times each layer given those beside it.
        """
        from_v = product(v, self._rbm(0).weight.T)  # once: v stays as it is
        mu = [v]
        for i in range(len(self.rbms)):
            rbm = self._rbm(i)
            received = product(mu[i], rbm.weight.T) if i else from_v
            mu.append((rbm.up * received + self.bias(i + 1)).sigmoid_())
        for _ in range(self.cfg.mean_field_steps):
            for i in range(1, len(mu)):
                mu[i] = self._received(i, mu, from_v if i == 1 else None).sigmoid_()
        return mu

    def gibbs(self, chain: Tensor, rng: torch.Generator) -> Tensor:
        """One step: the odd layers given the even ones, then these; all layers side by side."""
        states = self._layers(chain)
        for first in (1, 0):
            for i in range(first, len(states), 2):
                states[i] = draw(self._received(i, states).sigmoid_(), rng)
        return torch.cat(states, 1)

    def smooth(self, chain: Tensor) -> list[Tensor]:
        """The layers of a chain, the odd ones by their means given the even ones.

        Means of products of two layers are those of the states, with less variance.
        """
        states = self._layers(chain)
        for i in range(1, len(states), 2):
            states[i] = self._received(i, states).sigmoid_()
        return states

    def contrast(self, mu: Sequence[Tensor], states: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Gradients to descend, of the mean energy of `mu` less that of `states`.

        Args:
            mu: of the minibatch, by mean field; each layer [n, width].
            states: of the chains.

        Returns:
            Those of the weights, then of a bias for each layer, from the bottom.
        """
        pairs = zip(itertools.pairwise(mu), itertools.pairwise(states), strict=True)
        weights = [
            outer_mean(above, below) - outer_mean(mu_above, mu_below)
            for (mu_below, mu_above), (below, above) in pairs
        ]
        biases = [s.mean(0) - m.mean(0) for m, s in zip(mu, states, strict=True)]
        return (*weights, *biases)

    @torch.no_grad()
    def sample(self, n: int, seed: int) -> Tensor:
        """See `Baseline`: means of p(v|s_1)."""
        rng = stream(seed, "samples", self.chain.device)
        chains = GibbsChains(
            self.gibbs,
            self.chain,
            read=lambda chain, rng: self._rbm(0).propdown(self._layers(chain)[1]),
            burn_in=self.cfg.sample_burn_in,
            thin=self.cfg.sample_thin,
        )
        return draw_in_blocks(chains, n, rng).view(n, *self.image_shape)

    def _joint_parameters(self) -> list[nn.Parameter]:
        """All weights, and a bias of each layer, in the order of `contrast`."""
        rbms = [self._rbm(i) for i in range(len(self.rbms))]
        return [*(r.weight for r in rbms), rbms[0].vbias, *(r.hbias for r in rbms)]

    def _layers(self, chain: Tensor) -> list[Tensor]:
        # Contiguous: of others, oneDNN takes a product in hundreds of times as long.
        return [states.contiguous() for states in torch.split(chain, self.widths, 1)]

    def _received(
        self, layer: int, states: Sequence[Tensor], from_below: Tensor | None = None
    ) -> Tensor:
        """What the units of a layer receive from those beside it, and their bias, [n, width]."""
        received = self.bias(layer)
        if layer > 0:
            if from_below is None:
                from_below = product(states[layer - 1], self._rbm(layer - 1).weight.T)
            received = received + from_below
        if layer < len(self.rbms):
            received = received + product(states[layer + 1], self._rbm(layer).weight)
        return received


def build(cfg: RunConfig, *, image_shape: ImageShape, pixel_mean: Tensor) -> Dbm:
    """The deep Boltzmann machine that a configuration asks for, at step 0."""
    assert cfg.dbm is not None  # noqa: S101 (else this is another task)
    return Dbm(
        image_shape,
        cfg=cfg.dbm,
        n_chains=cfg.train.batch_size,
        pixel_mean=pixel_mean,
        rng=stream(cfg.seed, "init"),
    )
