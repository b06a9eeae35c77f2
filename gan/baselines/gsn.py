"""Deep generative stochastic network: Bengio et al. (2014), arXiv:1306.1091."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from gan.baselines.baseline import Baseline
from gan.baselines.chains import Chains
from gan.config import GsnConfig, RunConfig
from gan.datasets.images import ImageShape
from gan.layers import Linear
from gan.metric_names import WALKBACK_NATS
from gan.randomness import stream
from gan.sampling import draw_in_blocks


def salt_and_pepper(x: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Pixels x where each value is, with probability `share`, replaced by a coin flip of 0 or 1.

    Source: the corruption C(X~ | X) of the paper's experiments.
    """
    u = torch.rand(x.shape, generator=rng, device=x.device)
    return torch.where(u < share, (u < share / 2).to(x.dtype), x)


class GsnState(NamedTuple):
    """A chain between two transitions; of many chains, each tensor has them on its first axis.

    Attributes:
        layers: corrupted pixels [n, n_pixels], then the units of each hidden layer [n, units].
        logits: of the means p(x | h) from which these pixels were drawn, [n, n_pixels].
    """

    layers: tuple[Tensor, ...]
    logits: Tensor


class Gsn(Baseline):
    """A chain that corrupts the image and takes it through noisy hidden layers and back.

    With x~ as layer 0 and L hidden layers h_1 .. h_L, whose weights serve both directions, one
    transition renews the odd layers from the even ones, then the even layers from the odd ones:

        h_i = n' + tanh(n + h_(i-1) W_i + h_(i+1) W_(i+1)^T + b_i)      n, n' ~ N(0, sigma^2)
        p   = sigmoid(h_1 W_1^T + b_0),    x ~ Bernoulli(p),    x~ ~ C(x~ | x)

    Each update descends the walkback loss: from a corrupted training image x the chain makes a
    few transitions, after each of which -log p(x) of that same image is taken.  By theorem 1 of
    the paper the chain's x is distributed as the data where p(x | x~, h) is exact.

    Source: the paper's network on MNIST, whose Parzen score of 214 +- 1.1 nats (window width fixed
    at .23) is in Table 1; sizes, noise and the noiseless h_1 from its released code (yaoli/GSN).
    Differs: training pixels are taken for probabilities; the output bias starts at the logit of
    the pixels' means.

    Args:
        image_shape: (channels, height, width).
        cfg: its settings.
        pixel_mean: mean of each pixel over the training images, [n_pixels] in [0, 1].
        rng: stream of the initial weights, on the CPU.
    """

    def __init__(
        self, image_shape: ImageShape, *, cfg: GsnConfig, pixel_mean: Tensor, rng: torch.Generator
    ) -> None:
        super().__init__(image_shape)
        self.cfg = cfg
        # down[i] leads from layer i + 1 to layer i, with W_(i+1)^T and b_i of the docstring.
        widths = [self.n_pixels, *cfg.hidden]
        self.down = [Linear(above, below) for below, above in itertools.pairwise(widths)]
        self.maps = nn.ModuleList(self.down)
        self.top_bias = nn.Parameter(torch.zeros(cfg.hidden[-1]))
        with torch.no_grad():
            for layer in self.down:
                bound = math.sqrt(6 / sum(layer.weight.shape))
                layer.weight.uniform_(-bound, bound, generator=rng)
                layer.bias.zero_()
            self.down[0].bias.copy_(torch.logit(pixel_mean.double(), eps=1e-3))

    def update(self, x: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """See `Baseline`; descends the mean over pixels, by which the released code's rates go."""
        nats = self.walkback_nats(x, rng)
        descent = self.descent()
        descent.update(descent.gradients(nats / self.n_pixels))
        return {WALKBACK_NATS: nats}

    def walkback_nats(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """-log p(x) along the walk from x [m, n_pixels], mean over transitions and images."""
        state, total = self.clamp(x, rng), x.new_zeros(())
        for _ in range(self.cfg.walkback):
            state = self.transition(state, rng)
            total = total + binary_cross_entropy_with_logits(state.logits, x, reduction="sum")
        return total / (self.cfg.walkback * len(x))

    def clamp(self, x: Tensor, rng: torch.Generator) -> GsnState:
        """Chains that begin at images [n, n_pixels]: these corrupted, hidden units at 0."""
        hidden = [x.new_zeros(len(x), units) for units in self.cfg.hidden]
        corrupted = salt_and_pepper(x, self.cfg.corruption, rng)
        return GsnState((corrupted, *hidden), torch.logit(x))

    def transition(self, state: GsnState, rng: torch.Generator) -> GsnState:
        """One renewal of all layers; no gradient goes through the drawn pixels."""
        layers, n_layers = list(state.layers), len(state.layers)
        for i in range(1, n_layers, 2):
            layers[i] = self._renew(layers, i, rng)
        logits = self.down[0](layers[1])
        for i in range(2, n_layers, 2):
            layers[i] = self._renew(layers, i, rng)
        x = torch.bernoulli(torch.sigmoid(logits.detach()), generator=rng)
        layers[0] = salt_and_pepper(x, self.cfg.corruption, rng)
        return GsnState(tuple(layers), logits)

    @torch.no_grad()
    def sample(self, n: int, seed: int) -> Tensor:
        """See `Baseline`: the means p of chains that begin at coin flips.

        Independent, unless `samples_per_chain` is more than 1: images of one chain are not.
        """
        rng = stream(seed, "samples", self.top_bias.device)
        chains = Chains(
            start=self._coin_flips,
            transition=self.transition,
            read=lambda state: torch.sigmoid(state.logits),
            rows_per_chain=self.cfg.samples_per_chain,
            burn_in=self.cfg.burn_in,
            thinning=self.cfg.thinning,
        )
        return draw_in_blocks(chains, n, rng).view(n, *self.image_shape)

    def decoder(self) -> tuple[nn.Module, int]:
        """See `Baseline`: h_1 to p."""
        return nn.Sequential(self.down[0], nn.Sigmoid()), self.cfg.hidden[0]

    def _renew(self, layers: Sequence[Tensor], i: int, rng: torch.Generator) -> Tensor:
        above = self.down[i](layers[i + 1]) if i + 1 < len(layers) else self.top_bias
        inputs = layers[i - 1] @ self.down[i - 1].weight + above
        if i == 1:
            return torch.tanh(inputs)
        return self._noisy(torch.tanh(self._noisy(inputs, rng)), rng)

    def _noisy(self, h: Tensor, rng: torch.Generator) -> Tensor:
        noise = torch.randn(h.shape, generator=rng, device=h.device)
        return torch.add(h, noise, alpha=self.cfg.hidden_noise)

    def _coin_flips(self, n_chains: int, rng: torch.Generator) -> GsnState:
        zeros = self.top_bias.new_zeros(n_chains, self.n_pixels)
        return self.clamp(salt_and_pepper(zeros, 1.0, rng), rng)


def build(cfg: RunConfig, *, image_shape: ImageShape, pixel_mean: Tensor) -> Gsn:
    """The network that a configuration asks for, at step 0."""
    assert cfg.gsn is not None  # noqa: S101 (else this is another task)
    rng = stream(cfg.seed, "init")
    return Gsn(image_shape, cfg=cfg.gsn, pixel_mean=pixel_mean, rng=rng)
