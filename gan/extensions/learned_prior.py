"""Better distributions of z while the nets are trained.

    min_G max_D  E log D(x) + E log(1 - D(G(z))),   z = T(e), e ~ p(e)

Noise e of a fixed distribution becomes z by what is learned: `LearnedPriorConfig.method` says how.

    stacked     a net below the z of a trained generator, z = s(s^-1(e) + f(e)), s from R^dim onto
                the support of the generator's prior; its f begins at 0, so that the stack begins
                as the generator that it stands on
    mixture     z = (mu_k + sigma_k e - m) / v^(1/2), one of K Gaussians drawn with equal chances;
                mu_k and sigma_k are learned through e; m and v, the mixture's own mean and
                variance, are taken out, so that z has mean 0 and variance 1 in every coordinate
    importance  of c candidates z_i ~ p(z) one is drawn with odds D / (1 - D) at G(z_i), which
                estimate the density of the data over that of G: sampling-importance-resampling
    top_k       z is of the fixed prior, but G learns only from the k samples of a minibatch that
                D takes for images most
    fixed       none of them: what they are compared with

Algorithm 1 trains all of them: G takes the rows of noise and holds what is learned.  For top_k it
is told which samples G's loss is the mean over.

Source: section 7, fifth extension, of Goodfellow et al. (2014).  stacked: train.yaml of the folder
`tfd_pretrain` of its released code.  mixture: Gurumurthy et al. (2017), "DeLiGAN", section 4.
importance: Azadi et al. (2019), "Discriminator Rejection Sampling", equation 4; Rubin (1987).
top_k: Sinha et al. (2020), "Top-k Training of GANs", section 3.
Differs: the released stack has a sigmoid with bias -2 as its output, whatever support z has, and
begins with random weights (`begin: random` does so, too).  DeLiGAN holds the widths by a penalty
on 1 - sigma instead, which leaves mean and scale of z free.  Azadi et al. reject, which takes a
number of draws that is not known before, and after training only; here z is resampled in training
and sampling alike.
"""

import copy
import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from gan.algorithm1 import Taught, every_fake, train
from gan.config import LearnedPriorConfig, RunConfig
from gan.config import Task as TaskName
from gan.datasets.images import ImageSet, ImageShape, pixel_mean
from gan.errors import ConfigError
from gan.layers import Linear, init_uniform
from gan.model import assemble_gan
from gan.nets import (
    Discriminator,
    Generator,
    Player,
    build_discriminator,
    build_generator,
)
from gan.priors import (
    Bernoulli,
    Prior,
    Spherical,
    TruncatedNormal,
    Uniform,
    build_prior,
)
from gan.randomness import stream
from gan.run import Parts, Run, image_minibatches
from gan.sampling import GeneratorSampler
from gan.saved_generator import Saved, empty_generator, generator_weights

EDGE = 1e-4
"""How near to the edge of a box, in halves of its width, z is taken for inside."""


# A net below z


@dataclass(frozen=True)
class Box:
    """The cube of +-bound, each coordinate bound * tanh(a)."""

    bound: float

    def cover(self, a: Tensor) -> Tensor:
        """R^dim -> the support, [n, dim]."""
        return self.bound * torch.tanh(a)

    def coordinates(self, z: Tensor) -> Tensor:
        """The a of z; z at an edge, as all of Bernoulli's, is taken for EDGE within."""
        return torch.atanh((z / self.bound).clamp(EDGE - 1, 1 - EDGE))


@dataclass(frozen=True)
class Sphere:
    """The sphere of the given radius, radius * a / |a|."""

    radius: float

    def cover(self, a: Tensor) -> Tensor:
        """R^dim -> the support, [n, dim]."""
        return self.radius * normalize(a, dim=1)

    def coordinates(self, z: Tensor) -> Tensor:
        """One of the a that lead to z, which are of one direction: z itself."""
        return z


@dataclass(frozen=True)
class Everywhere:
    """R^dim."""

    def cover(self, a: Tensor) -> Tensor:
        """The same, [n, dim]."""
        return a

    def coordinates(self, z: Tensor) -> Tensor:
        """The same, [n, dim]."""
        return z


Support = Box | Sphere | Everywhere


def support_of(prior: Prior) -> Support:
    """Where the z of a prior lie; of Bernoulli's the convex hull."""
    match prior:
        case Uniform():
            return Box(math.sqrt(3))
        case Bernoulli():
            return Box(1.0)
        case TruncatedNormal():
            return Box(prior.truncation / prior.std_before_scaling)
        case Spherical():
            return Sphere(prior.radius)
        case _:
            return Everywhere()


class BelowZ(nn.Module):
    """z = s(s^-1(e) + f(e)), with f a net of ReLU layers and s onto the support of z.

    Args:
        dim: coordinates of e and of z.
        hidden: units of each hidden layer of f.
        support: where z may lie.
        is_residual: whether s^-1(e) is added; else z = s(f(e)).
    """

    def __init__(
        self, dim: int, *, hidden: Sequence[int], support: Support, is_residual: bool
    ) -> None:
        super().__init__()
        widths = [dim, *hidden, dim]
        self.linears = nn.ModuleList(Linear(a, b) for a, b in itertools.pairwise(widths))
        self.support, self.is_residual = support, is_residual

    def forward(self, e: Tensor) -> Tensor:
        """[n, dim] -> [n, dim]."""
        h = e
        for linear in self.linears[:-1]:
            h = linear(h).relu()
        a: Tensor = self.linears[-1](h)
        return self.support.cover(self.support.coordinates(e) + a if self.is_residual else a)


class StackedGenerator(Player):
    """G(T(e)): a generator on top of the net that makes its z.

    Args:
        below: T, makes z.
        G: takes z.
        is_frozen: G takes no part in the training: its parameters stay, nothing is dropped, and
            its batch norm goes by the running statistics.
    """

    def __init__(self, below: BelowZ, G: Generator, *, is_frozen: bool) -> None:
        super().__init__()
        self.below, self.G, self.is_frozen = below, G, is_frozen
        if is_frozen:
            G.requires_grad_(False)

    def train(self, mode: bool = True) -> "StackedGenerator":
        """As of any module, but for a frozen G."""
        super().train(mode)
        if self.is_frozen:
            self.G.eval()
        return self

    def draw_masks(self, n: int, rng: torch.Generator) -> list[Tensor | None]:
        """Those of G."""
        return [None] * len(self.G.hidden) if self.is_frozen else self.G.draw_masks(n, rng)

    def forward(self, e: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """[n, dim] -> [n, n_pixels] in (0, 1)."""
        return cast(Tensor, self.G(self.below(e), masks))


# A mixture of Gaussians


@dataclass(frozen=True)
class ComponentNoise:
    """Rows [e, k]: e of N(0, I), and one of K components, each as often, as a one-hot vector."""

    dim_z: int
    n_components: int

    @property
    def dim(self) -> int:
        """Coordinates of a row."""
        return self.dim_z + self.n_components

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw n independent rows, [n, dim] float32."""
        e = torch.randn(n, self.dim_z, generator=rng, device=rng.device)
        which = torch.randint(0, self.n_components, (n,), generator=rng, device=rng.device)
        return torch.cat([e, one_hot(which, self.n_components).to(e)], 1)


class Components(nn.Module):
    """A mixture of K Gaussians of equal weight, moved and scaled to mean 0 and variance 1.

        z = (mu_k + sigma_k e - m) / v^(1/2)
        m = mean_k mu_k,  v = mean_k (mu_k^2 + sigma_k^2) - m^2

    Args:
        means: mu, [K, dim].
        log_widths: log sigma, [K, dim].
    """

    def __init__(self, means: Tensor, log_widths: Tensor) -> None:
        super().__init__()
        self.means, self.log_widths = nn.Parameter(means), nn.Parameter(log_widths)

    def normalised(self) -> tuple[Tensor, Tensor]:
        """Means and widths of the components of z, [K, dim] each."""
        centred = self.means - self.means.mean(0)
        widths = self.log_widths.exp()
        scale = (centred.square() + widths.square()).mean(0).rsqrt()
        return centred * scale, widths * scale

    def forward(self, row: Tensor) -> Tensor:
        """Rows of `ComponentNoise` -> z, [n, dim]."""
        dim = self.means.shape[1]
        e, which = row[:, :dim], row[:, dim:]
        means, widths = self.normalised()
        return which @ means + e * (which @ widths)


class MixtureGenerator(Player):
    """G of z from a mixture: rows [e, k] in."""

    def __init__(self, components: Components, G: Generator) -> None:
        super().__init__()
        self.components, self.G = components, G

    def draw_masks(self, n: int, rng: torch.Generator) -> list[Tensor | None]:
        """Those of G."""
        return self.G.draw_masks(n, rng)

    def forward(self, row: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """[n, dim + K] -> [n, n_pixels] in (0, 1)."""
        return cast(Tensor, self.G(self.components(row), masks))


# Resampling by D


@dataclass(frozen=True)
class Candidates:
    """Rows [z_1 ... z_c, u_1 ... u_c]: c draws of a prior, and for each one a uniform number."""

    prior: Prior
    n_candidates: int

    @property
    def dim(self) -> int:
        """Coordinates of a row."""
        return self.n_candidates * (self.prior.dim + 1)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw n independent rows, [n, dim] float32."""
        z = self.prior.sample(n * self.n_candidates, rng).view(n, -1)
        u = torch.rand(n, self.n_candidates, generator=rng, device=rng.device)
        return torch.cat([z, u], 1)

    def split(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """Rows -> their candidates z [n c, dim], and their uniform numbers u [n, c]."""
        z = row[:, : -self.n_candidates].reshape(-1, self.prior.dim)
        return z, row[:, -self.n_candidates :]


def drawn_candidate(logits: Tensor, u: Tensor) -> Tensor:
    """Index of one candidate of each row, drawn with odds exp(logit) = D / (1 - D): [n].

    The largest of logit - log(-log u), where the second term is Gumbel's distribution.

    Args:
        logits: D's of the candidates' images, [n, c].
        u: uniform on [0, 1), [n, c].

    Source: Gumbel (1954), lecture 4; Maddison et al. (2014), "A* sampling", section 2.
    """
    gumbel = -torch.log(-torch.log(u.clamp(min=1e-12, max=1 - 1e-7)))
    return (logits + gumbel).argmax(1)


@dataclass(frozen=True)
class ResampledPrior:
    """z as the nets, as they are now, choose it among candidates; neither is trained by this.

    Attributes:
        candidates: rows to choose from.
        G: makes the images.
        D: says how far they are images of the data.
    """

    candidates: Candidates
    G: Player
    D: Player

    @property
    def dim(self) -> int:
        """Coordinates of z."""
        return self.candidates.prior.dim

    @torch.no_grad()
    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw n independent z, [n, dim] float32."""
        z, u = self.candidates.split(self.candidates.sample(n, rng))
        # Without dropout and by running statistics: no candidate's chance depends on another row.
        self.G.eval(), self.D.eval()
        chosen = drawn_candidate(self.D(self.G(z)).view_as(u), u)
        self.G.train(), self.D.train()
        return z.view(n, -1, self.dim)[torch.arange(n, device=z.device), chosen]


class ResampledGenerator(Player):
    """G of the z that D chose: rows of `Candidates` in.  In evaluation mode alone.

    Args:
        G: takes z.
        D: takes images.
        candidates: what the rows are.
    """

    def __init__(self, G: Generator, D: Discriminator, candidates: Candidates) -> None:
        super().__init__()
        self.G, self.D, self.candidates = G, D, candidates

    def draw_masks(self, n: int, rng: torch.Generator) -> list[Tensor | None]:
        """None: it is not trained."""
        return []

    def forward(self, row: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """[n, c (dim + 1)] -> [n, n_pixels] in (0, 1)."""
        z, u = self.candidates.split(row)
        x = self.G(z)
        chosen = drawn_candidate(self.D(x).view_as(u), u)
        images: Tensor = x.view(len(row), -1, x.shape[1])
        return images.gather(1, chosen.view(-1, 1, 1).expand(-1, 1, x.shape[1])).squeeze(1)


# Top-k updates of G


def n_taught(step: int, *, batch_size: int, epoch_steps: float, decay: float, floor: float) -> int:
    """Samples of a minibatch that G learns from: max(floor, decay^epoch) of it, rounded up.

    Args:
        step: updates of G so far.
        batch_size: samples of a minibatch.
        epoch_steps: updates of G in an epoch.
        decay: of the share an epoch, in (0, 1).
        floor: least share, in (0, 1].
    """
    share: float = max(floor, decay ** (step // epoch_steps))
    return math.ceil(batch_size * share)


def top_k(cfg: LearnedPriorConfig, *, epoch_steps: float) -> Taught:
    """Which fakes G learns from: those that D takes for images most."""

    def taught(fake_logits: Tensor, step: int) -> Tensor:
        k = n_taught(
            step,
            batch_size=len(fake_logits),
            epoch_steps=epoch_steps,
            decay=cfg.top_k_decay,
            floor=cfg.top_k_floor,
        )
        # All of them in their own order: the first epoch is that of the paper bit for bit.
        if k == len(fake_logits):
            return fake_logits
        return fake_logits.topk(k, sorted=False).values

    return taught


# Runs, and what they leave


@dataclass(frozen=True)
class SavedLearnedPrior:
    """A generator with the distribution of z that was learned with it.

    Attributes:
        G: from noise to images, in evaluation mode; what was learned of z is a part of it.
        config: the run that trained it.
        image_shape: (channels, height, width).
    """

    G: Player
    config: RunConfig
    image_shape: ImageShape

    def tensors(self) -> dict[str, Tensor]:
        """The weights, by name."""
        return self.G.state_dict()

    def sampler(self) -> GeneratorSampler:
        """Draws images from it."""
        return GeneratorSampler(self.G, noise(self.config), image_shape=self.image_shape)


def noise(config: RunConfig) -> Prior:
    """What the rows that a saved G takes are drawn from."""
    cfg, prior = _settings(config), build_prior(config.prior)
    match cfg.method:
        case "mixture":
            return ComponentNoise(prior.dim, cfg.n_components)
        case "importance":
            return Candidates(prior, cfg.candidates)
        case _:
            return prior


def start(
    config: RunConfig, images: ImageSet, *, device: torch.device | str, origin: Saved | None = None
) -> Run:
    """The run at step 0.

    Args:
        config: the run; of its origin, if it has one, it takes over what `adopt` says.
        images: training images.
        device: where to train.
        origin: the generator that `stacked` stands on.

    Raises:
        ConfigError: that generator makes images of another shape.
    """
    if origin is not None:
        config = adopt(config, origin.config)
    return Run(config, images, device=device, build=functools.partial(_parts, origin=origin))


def _parts(
    config: RunConfig, images: ImageSet, device: torch.device | str, *, origin: Saved | None
) -> Parts:
    cfg, rng = _settings(config), stream(config.seed, "init")
    mean = torch.from_numpy(pixel_mean(images.images))
    if origin is None:
        net = build_generator(config.generator, dim=config.prior.dim, pixel_mean=mean, rng=rng)
    else:
        net = _of_origin(origin, config, images.image_shape)
    D = build_discriminator(config.discriminator, n_pixels=len(mean), rng=rng)
    G = _player(net, config, rng)
    gan = assemble_gan(config, G=G, D=D, prior=noise(config), device=device)
    if cfg.method == "importance":
        gan.prior = ResampledPrior(cast(Candidates, gan.prior), gan.G, gan.D)
    epoch_steps = len(images.images) / (config.train.batch_size * config.train.d_steps)
    taught = top_k(cfg, epoch_steps=epoch_steps) if cfg.method == "top_k" else every_fake
    return Parts(
        gan=gan,
        minibatches=image_minibatches(config, images, gan),
        keep=lambda G: _saved(G, gan.D, config, images.image_shape),
        train=functools.partial(train, taught=taught),
    )


def _player(net: Generator, config: RunConfig, rng: torch.Generator) -> Player:
    """G as it is trained: the generator, with what its z is learned by."""
    cfg, dim = _settings(config), config.prior.dim
    if cfg.method == "stacked":
        below = BelowZ(
            dim,
            hidden=cfg.hidden,
            support=support_of(build_prior(config.prior)),
            is_residual=cfg.begin == "identity",
        )
        init_uniform(below, init_range=None, rng=rng)
        if below.is_residual:
            nn.init.zeros_(cast(nn.Linear, below.linears[-1]).weight)
        return StackedGenerator(below, net, is_frozen=cfg.freeze_generator)
    if cfg.method == "mixture":
        std = cfg.component_std
        means = torch.randn(cfg.n_components, dim, generator=rng) * math.sqrt(1 - std**2)
        return MixtureGenerator(Components(means, torch.full_like(means, math.log(std))), net)
    return net


def _of_origin(origin: Saved, config: RunConfig, image_shape: ImageShape) -> Generator:
    """A copy of the generator that a stack stands on, to be trained.

    Raises:
        ConfigError: it makes images of another shape.
    """
    if origin.image_shape != image_shape:
        raise ConfigError(
            [
                f"start: the generator makes images of shape {origin.image_shape}, the training "
                f"images have {image_shape}"
            ]
        )
    net = empty_generator(config, n_pixels=math.prod(image_shape))
    net.load_state_dict(origin.tensors())
    return net


def adopt(config: RunConfig, origin: RunConfig) -> RunConfig:
    """The run with the prior and the shape of the generator that a stack stands on."""
    return dataclasses.replace(config, prior=origin.prior, generator=origin.generator)


def origin_of(config: RunConfig) -> TaskName | None:
    """The task whose promoted model a run starts from: of a stack the generator."""
    return "generator" if _settings(config).method == "stacked" else None


def weights_of(state: Mapping[str, Tensor], config: RunConfig) -> dict[str, Tensor]:
    """The tensors that are kept of a training state."""
    weights = generator_weights(state, config)
    if _settings(config).method != "importance":
        return weights
    judge = {k: t for k, t in state.items() if k.startswith("D/")}
    return {f"G.{k}": t for k, t in weights.items()} | {
        f"D.{k.removeprefix('D/')}": t for k, t in judge.items()
    }


def from_weights(
    weights: Mapping[str, Tensor], config: RunConfig, image_shape: ImageShape
) -> SavedLearnedPrior:
    """What was saved with these weights.

    Raises:
        RuntimeError: if they do not fit the configuration.
    """
    n_pixels, rng = math.prod(image_shape), stream(config.seed, "init")
    G = _player(empty_generator(config, n_pixels=n_pixels), config, rng)
    D = build_discriminator(config.discriminator, n_pixels=n_pixels, rng=rng)
    saved = _saved(G, D, config, image_shape)
    saved.G.load_state_dict(weights)
    return saved


def _saved(G: Player, D: Player, config: RunConfig, image_shape: ImageShape) -> SavedLearnedPrior:
    """What is saved of a run with these players; D is copied where it is a part of it."""
    rows = noise(config)
    if isinstance(rows, Candidates):
        G = ResampledGenerator(cast(Generator, G), cast(Discriminator, copy.deepcopy(D)), rows)
    G = G.eval().requires_grad_(False)
    return SavedLearnedPrior(G=G, config=config, image_shape=image_shape)


def _settings(config: RunConfig) -> LearnedPriorConfig:
    assert config.learned_prior is not None  # noqa: S101 (else this is another task)
    return config.learned_prior
