"""Deep belief net: Hinton, Osindero and Teh (2006), Neural Computation 18."""

import itertools
import math

import torch
from torch import Tensor

from gan.baselines.rbm import GibbsChains, Rbm, draw, phase_at
from gan.baselines.rbm_stack import RbmStack
from gan.config import DbnConfig, RunConfig, TrainConfig
from gan.datasets.images import ImageShape
from gan.randomness import stream
from gan.sampling import draw_in_blocks


class Dbn(RbmStack[DbnConfig]):
    """RBMs one above the other, of which only the top one runs in both directions.

        p(v, h_1 .. h_l) = p(v|h_1) p(h_1|h_2) .. p(h_(l-1), h_l)

    They are trained in turn, from the bottom: each on h drawn of those below it, which then stay
    as they are.  Pixels are the probabilities of units that are drawn anew at every reading; where
    they are taken for states themselves, samples of MNIST score worse (Parzen, Fréchet).

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
        widths = itertools.pairwise([math.prod(image_shape), *cfg.hidden])
        rbms = [Rbm(a, b, n_chains=n_chains, rng=rng) for a, b in widths]
        super().__init__(image_shape, cfg=cfg, rbms=rbms, pixel_mean=pixel_mean)
        self.register_buffer("depth", torch.tensor(1))

    def start(self, cfg: TrainConfig) -> None:
        """See `Baseline`."""
        n_layers = len(self.rbms)
        self._ends = [cfg.n_steps * (i + 1) // n_layers for i in range(n_layers)]
        self.descents = self._rbm_descents(cfg)

    @torch.no_grad()
    def update(self, x: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """See `Baseline`."""
        phase, done = phase_at(self.step, self._ends)
        if done == 0:
            self.depth.fill_(phase + 1)
        return self._update_rbm(
            phase, draw(x, rng), begins=done == 0, persistent=self.cfg.persistent, rng=rng
        )

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

    def _means(self, states: Tensor, rng: torch.Generator) -> Tensor:
        """Means of p(v|h_1), h_1 drawn given the visible states of the top RBM."""
        depth = int(self.depth)
        if depth == 1:
            states = self._rbm(0).sample_h_given_v(states, rng)
        for i in range(depth - 2, 0, -1):
            states = self._rbm(i).sample_v_given_h(states, rng)
        return self._rbm(0).propdown(states)


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
