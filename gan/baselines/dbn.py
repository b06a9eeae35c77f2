"""Deep belief net: Hinton, Osindero and Teh (2006), Neural Computation 18."""

import itertools
from typing import cast

import torch
from torch import Tensor, nn

from gan.baselines.baseline import Baseline
from gan.baselines.rbm import GibbsChains, Propdown, Rbm, annealed, draw, phase_at
from gan.config import DbnConfig, RunConfig, TrainConfig
from gan.datasets.images import ImageShape
from gan.metric_names import FREE_ENERGY_GAP_NATS
from gan.optimisers import Descent, build_descent
from gan.randomness import stream
from gan.sampling import draw_in_blocks


class Dbn(Baseline):
    """RBMs one above the other, of which only the top one runs in both directions.

        p(v, h_1 .. h_l) = p(v|h_1) p(h_1|h_2) .. p(h_(l-1), h_l)

    They are trained in turn, from the bottom: each on h drawn of those below it, which then stay
    as they are.  Pixels are the probabilities of units that are drawn anew at every reading.

    Source: section 4 of the paper; persistent chains: Tieleman (2008).  Differs: no labels in the
    top RBM, no up-down algorithm behind the greedy training; images are the means of p(v|h_1), as
    in Bengio et al. (2013), "Better mixing via deep representations".

    Attributes:
        depth: RBMs whose training has begun; the highest of them is the top one.

    Args:
        image_shape: (channels, height, width).
        cfg: its settings.
        n_chains: Gibbs chains of each RBM, as many as images in a minibatch.
        pixel_mean: mean of each pixel over the training images, [n_pixels] in [0, 1].
        rng: stream of the initial weights, on the CPU.
    """

    depth: Tensor

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        cfg: DbnConfig,
        n_chains: int,
        pixel_mean: Tensor,
        rng: torch.Generator,
    ) -> None:
        super().__init__(image_shape)
        self.cfg = cfg
        widths = itertools.pairwise([self.n_pixels, *cfg.hidden])
        self.rbms = nn.ModuleList(Rbm(a, b, n_chains=n_chains, rng=rng) for a, b in widths)
        self.register_buffer("depth", torch.tensor(1))
        with torch.no_grad():
            self._rbm(0).vbias.copy_(torch.logit(pixel_mean.double(), eps=1e-3))

    def start(self, cfg: TrainConfig) -> None:
        """See `Baseline`."""
        n_layers = len(self.rbms)
        self._ends = [cfg.n_steps * (i + 1) // n_layers for i in range(n_layers)]
        self.descents = {
            f"rbm_{i}": build_descent(rbm.parameters(), cfg, learning_rate=cfg.learning_rate)
            for i, rbm in enumerate(self.rbms)
        }

    @property
    def learning_rate(self) -> float:
        """Step size of the next update."""
        return self._descent().learning_rate

    @torch.no_grad()
    def update(self, x: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """See `Baseline`."""
        phase, done = phase_at(self.step, self._ends)
        v = draw(x, rng)
        for i in range(phase):
            p = self._rbm(i).propup(v)
            v = draw(p, rng)
        rbm = self._rbm(phase)
        if done == 0:
            rbm.begin_at(v)
            self.depth.fill_(phase + 1)
            if phase:
                rbm.vbias.copy_(torch.logit(p.mean(0), eps=1e-2))
        gradients, gap = rbm.contrast(
            v, k=self.cfg.gibbs_steps, persistent=self.cfg.persistent, rng=rng
        )
        self._descent().update(gradients)
        return {FREE_ENERGY_GAP_NATS: gap}

    @torch.no_grad()
    def sample(self, n: int, seed: int) -> Tensor:
        """See `Baseline`: means of p(v|h_1), from Gibbs chains in the top RBM."""
        top = self._rbm(int(self.depth) - 1)
        rng = stream(seed, "samples", top.chain.device)
        chains = GibbsChains(
            top.gibbs_vhv,
            top.chain,
            read=self._means,
            burn_in=self.cfg.sample_burn_in,
            thin=self.cfg.sample_thin,
        )
        return draw_in_blocks(chains, n, rng).view(n, *self.image_shape)

    def decoder(self) -> tuple[nn.Module, int]:
        """See `Baseline`: h_1 to the means of p(v|h_1)."""
        return Propdown(self._rbm(0)), self.cfg.hidden[0]

    def _means(self, states: Tensor, rng: torch.Generator) -> Tensor:
        """Means of p(v|h_1), h_1 drawn given the visible states of the top RBM."""
        depth = int(self.depth)
        if depth == 1:
            states = self._rbm(0).sample_h_given_v(states, rng)
        for i in range(depth - 2, 0, -1):
            states = self._rbm(i).sample_v_given_h(states, rng)
        return self._rbm(0).propdown(states)

    def _rbm(self, i: int) -> Rbm:
        return cast(Rbm, self.rbms[i])

    def _descent(self) -> Descent:
        """That of the RBM in training, at its step size of this step."""
        phase, done = phase_at(self.step, self._ends)
        descent = self.descents[f"rbm_{phase}"]
        descent.rate_factor = annealed(done, anneal_from=self.cfg.anneal_from)
        return descent


def build(cfg: RunConfig, *, image_shape: ImageShape, pixel_mean: Tensor) -> Dbn:
    """The deep belief net that a configuration asks for, at step 0."""
    assert cfg.dbn is not None  # noqa: S101 (else this is another task)
    return Dbn(
        image_shape,
        cfg=cfg.dbn,
        n_chains=cfg.train.batch_size,
        pixel_mean=pixel_mean,
        rng=stream(cfg.seed, "init"),
    )
