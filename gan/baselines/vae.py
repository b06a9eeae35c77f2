"""Variational autoencoder: Kingma and Welling (2014), arXiv:1312.6114."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from gan.baselines.baseline import Baseline
from gan.config import RunConfig, VaeConfig
from gan.datasets.images import ImageShape
from gan.layers import Linear, init_uniform
from gan.metric_names import KL_NATS, RECONSTRUCTION_NATS
from gan.priors import Gaussian, Prior
from gan.randomness import stream
from gan.sampling import draw_in_blocks


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag variance) || N(0, I)) of each row, nats.

    Args:
        mean: [n, dim].
        log_variance: [n, dim].

    Returns:
        [n].

    Source: appendix B of the paper.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


class Vae(Baseline):
    """Gaussian encoder q(z|x), Bernoulli decoder p(x|z) whose mean is the image.

    Each update descends the negative lower bound of equation 10 with one z a image,

        KL(q(z|x) || p(z)) - E log p(x|z).

    Source: section 3 of the paper.  Differs: ReLU units instead of tanh; pixels are taken for the
    probabilities of a Bernoulli variable rather than drawn from it.

    Args:
        image_shape: (channels, height, width).
        cfg: its settings.
        pixel_mean: mean of each pixel over the training images, [n_pixels] in [0, 1].
        rng: stream of the initial weights, on the CPU.
    """

    def __init__(
        self, image_shape: ImageShape, *, cfg: VaeConfig, pixel_mean: Tensor, rng: torch.Generator
    ) -> None:
        super().__init__(image_shape)
        self._prior = Gaussian(cfg.dim)
        self.encode = _perceptron([self.n_pixels, *cfg.hidden, 2 * cfg.dim])
        self.decode = _perceptron([cfg.dim, *reversed(cfg.hidden), self.n_pixels])
        init_uniform(self, init_range=None, rng=rng)
        with torch.no_grad():
            output = self.decode[-1]
            assert isinstance(output, Linear)  # noqa: S101 (else this is another net)
            output.bias.copy_(torch.logit(pixel_mean.double(), eps=1e-3))

    def update(self, x: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """See `Baseline`."""
        kl, reconstruction = self.bound(x, rng)
        descent = self.descent()
        descent.update(descent.gradients(kl + reconstruction))
        return {KL_NATS: kl, RECONSTRUCTION_NATS: reconstruction}

    def bound(self, x: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The two terms of the negative lower bound, means over x [m, n_pixels], nats."""
        mean, log_variance = self.encode(x).chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=rng, device=x.device)
        logits = self.decode(mean + noise * (0.5 * log_variance).exp())
        reconstruction = binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
        return gaussian_kl(mean, log_variance).mean(), reconstruction

    @property
    def prior(self) -> Prior:
        """Distribution of z."""
        return self._prior

    @torch.no_grad()
    def sample(self, n: int, seed: int) -> Tensor:
        """See `Baseline`: means of p(x|z), z drawn from the prior."""
        rng = stream(seed, "samples", next(self.parameters()).device)
        return self._images(draw_in_blocks(self.prior, n, rng))

    @torch.no_grad()
    def decode_paths(self, z: Tensor, *, seed: int) -> Tensor:
        """See `gan.sampling.PathSampler`."""
        return self._images(z.flatten(0, 1)).view(*z.shape[:2], *self.image_shape)

    def decoder(self) -> tuple[nn.Module, int]:
        """See `Baseline`: z to the means of p(x|z)."""
        return nn.Sequential(self.decode, nn.Sigmoid()), self.prior.dim

    def _images(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.decode(z)).view(len(z), *self.image_shape)


def build(cfg: RunConfig, *, image_shape: ImageShape, pixel_mean: Tensor) -> Vae:
    """The autoencoder that a configuration asks for, at step 0."""
    assert cfg.vae is not None  # noqa: S101 (else this is another task)
    rng = stream(cfg.seed, "init")
    return Vae(image_shape, cfg=cfg.vae, pixel_mean=pixel_mean, rng=rng)


def _perceptron(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
