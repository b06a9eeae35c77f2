"""Stacked contractive autoencoder: Rifai et al. (2011), and their walk for samples (2012)."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from gan.baselines.baseline import Baseline
from gan.baselines.chains import Chains
from gan.config import RunConfig, StackedCaeConfig, TrainConfig
from gan.datasets.images import ImageShape
from gan.layers import Linear
from gan.metric_names import LAYER_CONTRACTION, LAYER_RECONSTRUCTION_NATS
from gan.optimisers import Descent, build_descent
from gan.randomness import stream
from gan.sampling import draw_in_blocks


class ContractiveLayer(nn.Module):
    """One autoencoder: sigmoid units, the same weights up and down.

        h = f(x) = sigmoid(x W + b),    g(h) = sigmoid(h W^T + c)

    Source: Rifai et al., "Contractive Auto-Encoders" (ICML 2011).

    Args:
        n_visible: inputs.
        n_hidden: units.
        rng: stream of the initial weights, on the CPU.
    """

    def __init__(self, n_visible: int, n_hidden: int, *, rng: torch.Generator) -> None:
        super().__init__()
        self.down = Linear(n_hidden, n_visible)
        self.bias = nn.Parameter(torch.zeros(n_hidden))
        with torch.no_grad():
            bound = math.sqrt(6 / (n_visible + n_hidden))
            self.down.weight.uniform_(-bound, bound, generator=rng)
            self.down.bias.zero_()

    def encode(self, x: Tensor) -> Tensor:
        """f: [n, n_visible] in [0, 1] -> [n, n_hidden] in (0, 1)."""
        return torch.sigmoid(x @ self.down.weight + self.bias)

    def decode(self, h: Tensor) -> Tensor:
        """The function g: [n, n_hidden] -> [n, n_visible] in (0, 1)."""
        return torch.sigmoid(self.down(h))

    def losses(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of g(f(x)) in nats and |J(x)|^2, means over x [m, n_visible].

        With h' = h (1 - h), J_ji = h'_j W_ij has the squared Frobenius norm

            |J|^2 = sum_j h'_j^2 sum_i W_ij^2.

        Source: the closed form for sigmoid units, in the paper of 2011.
        """
        h = self.encode(x)
        nats = binary_cross_entropy_with_logits(self.down(h), x, reduction="sum") / len(x)
        squared_norms = self.down.weight.square().sum(0)
        return nats, (h * (1 - h)).square().mean(0) @ squared_norms

    def walk(self, x: Tensor, rng: torch.Generator, *, std: float) -> Tensor:
        """One step of the walk along the directions in which the encoder yields.

            x <- g(f(x) + J J^T eps),    eps ~ N(0, std^2 I),    J the Jacobian of f at x

        Args:
            x: [n, n_visible] in [0, 1].
            rng: of eps, on the same device.
            std: standard deviation of eps, in hidden units.

        Source: Rifai et al., "A Generative Process for Sampling Contractive Auto-Encoders" (ICML
        2012), arXiv:1206.6434.
        """
        h = self.encode(x)
        slope = h * (1 - h)
        eps = std * torch.randn(h.shape, generator=rng, device=h.device)
        W = self.down.weight
        return self.decode(h + slope * ((slope * eps) @ W.T @ W))


class StackedCae(Baseline):
    """Contractive autoencoders, each of the codes of the one below, trained one after the other.

    Each update descends, of the layer whose turn it is and with its inputs x,

        -log p(x | g(f(x))) + contraction |J(x)|^2,    J the Jacobian of f at x.

    Sampled is the walk of the last layer, whose inputs are decoded down to pixels.

    Source: the two-layer model of Bengio et al. (2013), arXiv:1207.4404, whose Parzen score of
    121 +- 1.6 nats on MNIST is in Table 1.  Differs: sizes and weights of the losses are our own;
    training pixels and codes are taken for probabilities; the pixels' output bias starts at the
    logit of their means.

    Args:
        image_shape: (channels, height, width).
        cfg: its settings.
        pixel_mean: mean of each pixel over the training images, [n_pixels] in [0, 1].
        rng: stream of the initial weights, on the CPU.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        cfg: StackedCaeConfig,
        pixel_mean: Tensor,
        rng: torch.Generator,
    ) -> None:
        super().__init__(image_shape)
        self.cfg, self._n_steps = cfg, 1
        widths = [self.n_pixels, *cfg.hidden]
        self.layers = [ContractiveLayer(a, b, rng=rng) for a, b in itertools.pairwise(widths)]
        self.stack = nn.ModuleList(self.layers)
        with torch.no_grad():
            self.layers[0].down.bias.copy_(torch.logit(pixel_mean.double(), eps=1e-3))

    def start(self, cfg: TrainConfig) -> None:
        """See `Baseline`; each layer has an optimiser of its own."""
        self._n_steps = cfg.n_steps
        self.descents = {
            f"layer{i}": build_descent(layer.parameters(), cfg, learning_rate=cfg.learning_rate)
            for i, layer in enumerate(self.layers, start=1)
        }

    def descent(self) -> Descent:
        """See `Baseline`: that of the layer whose turn it is."""
        return self.descents[f"layer{self._turn() + 1}"]

    def update(self, x: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """See `Baseline`; descends the mean over inputs."""
        index, descent = self._turn(), self.descent()
        with torch.no_grad():
            for below in self.layers[:index]:
                x = below.encode(x)
        nats, contraction = self.layers[index].losses(x)
        loss = (nats + self.cfg.contraction * contraction) / x.shape[1]
        descent.update(descent.gradients(loss))
        return {
            LAYER_RECONSTRUCTION_NATS.format(layer=index + 1): nats,
            LAYER_CONTRACTION.format(layer=index + 1): contraction,
        }

    @torch.no_grad()
    def sample(self, n: int, seed: int) -> Tensor:
        """See `Baseline`: means g(h) at the end of walks that begin at coin flips.

        Independent, unless `samples_per_chain` is more than 1: images of one walk are not.  They
        depend on `burn_in`, as the walk does not stay among digits: on MNIST, with the defaults,
        1 % of images are all but black (mean pixel below .04) after 10 steps, 8 % after 20, 38 %
        after 100, 90 % after 400.
        """
        rng = stream(seed, "samples", self.layers[0].bias.device)
        walks = Chains(
            start=self._codes_of_coin_flips,
            transition=lambda x, rng: self.layers[-1].walk(x, rng, std=self.cfg.walk_std),
            read=self._pixels,
            rows_per_chain=self.cfg.samples_per_chain,
            burn_in=self.cfg.burn_in,
            thinning=self.cfg.thinning,
        )
        return draw_in_blocks(walks, n, rng).view(n, *self.image_shape)

    def decoder(self) -> tuple[nn.Module, int]:
        """See `Baseline`: codes of the first layer to pixels."""
        return nn.Sequential(self.layers[0].down, nn.Sigmoid()), self.cfg.hidden[0]

    def _turn(self) -> int:
        return min(self.step * len(self.layers) // self._n_steps, len(self.layers) - 1)

    def _codes_of_coin_flips(self, n: int, rng: torch.Generator) -> Tensor:
        device = self.layers[0].bias.device
        x = torch.randint(2, (n, self.n_pixels), generator=rng, device=device).float()
        for layer in self.layers[:-1]:
            x = layer.encode(x)
        return x

    def _pixels(self, codes: Tensor) -> Tensor:
        for layer in reversed(self.layers[:-1]):
            codes = layer.decode(codes)
        return codes


def build(cfg: RunConfig, *, image_shape: ImageShape, pixel_mean: Tensor) -> StackedCae:
    """The autoencoder that a configuration asks for, at step 0."""
    assert cfg.stacked_cae is not None  # noqa: S101 (else this is another task)
    rng = stream(cfg.seed, "init")
    return StackedCae(image_shape, cfg=cfg.stacked_cae, pixel_mean=pixel_mean, rng=rng)
