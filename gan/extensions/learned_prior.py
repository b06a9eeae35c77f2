"""Better distributions of z while the nets are trained.

    min_G max_D  E log D(x) + E log(1 - D(G(z))),   z = T(e), e ~ p(e)

Noise e of a fixed distribution becomes z by what is learned: `LearnedPriorConfig.method` says how.

    stacked     a net below the z of a trained generator, z = s(s^-1(e) + f(e)), s from R^dim onto
                the support of the generator's prior; its f begins at 0, so that the stack begins
                as the generator that it stands on
    mixture     z is of one of K Gaussians, drawn with equal chances; their means and widths are
                learned through e, and normalised: z has mean 0 and variance 1 in every coordinate,
                of which a fixed share is within the components
    importance  in G's updates, and when G is sampled, one of c candidates z_i ~ p(z) is drawn with
                odds D / (1 - D) at G(z_i), which estimate the density of the data over that of G;
                D learns these odds from samples of p(z) itself.  The average of D's parameters
                goes with that of G's, and is saved with it
    top_k       z is of the fixed prior, but G learns only from the k samples of a minibatch that
                D takes for images most
    fixed       none of them: what they are compared with

Algorithm 1 trains all of them: G takes the rows of noise and holds what is learned.  For top_k it
is told which samples G's loss is the mean over.

Source: section 7, fifth extension, of Goodfellow et al. (2014).  stacked: train.yaml of the folder
`tfd_pretrain` of its released code.  mixture: Gurumurthy et al. (2017), "DeLiGAN", section 4.
importance: see `gan.extensions.resampling`.  top_k: Sinha et al. (2020), "Top-k Training of GANs",
section 3.
Differs: the released stack has a sigmoid with bias -2 as its output, whatever support z has, and
begins with random weights: `output: sigmoid`, `output_bias: -2`, `begin: random` and `init_range:
0.05` are that stack.  DeLiGAN keeps the widths from 0 by a penalty on 1 - sigma instead, which
leaves mean and scale of z free.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from gan.algorithm1 import Taught, every_fake, train
from gan.checkpoint import part_of
from gan.config import LearnedPriorConfig, RunConfig
from gan.config import Task as TaskName
from gan.datasets.images import ImageSet, ImageShape, pixel_mean
from gan.extensions.prior_nets import (
    BelowZ,
    ComponentNoise,
    Components,
    MixtureGenerator,
    StackedGenerator,
    UnitCube,
    support_of,
)
from gan.extensions.resampling import Candidates, ResampledGenerator, ResampledPrior
from gan.layers import init_uniform
from gan.model import assemble_gan
from gan.nets import (
    Discriminator,
    Generator,
    Player,
    build_discriminator,
    build_generator,
)
from gan.priors import Gaussian, Prior, build_prior
from gan.randomness import stream
from gan.run import Parts, Run, image_minibatches
from gan.sampling import GeneratorSampler
from gan.saved_generator import Saved, empty_generator, generator_of, generator_weights

N_SHOWN, N_IN_ROW = 100, 10
"""Images of a picture."""


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

    def plain(self) -> GeneratorSampler | None:
        """Draws images of its generator by a fixed z, to see what was learned; None: as it is.

        z is of the prior that a stack or resampling begins from, and of one Gaussian of mean 0
        and variance 1, as the mixture as a whole has them.
        """
        match self.G:
            case StackedGenerator() | ResampledGenerator():
                prior = build_prior(self.config.prior)
            case MixtureGenerator():
                prior = Gaussian(self.config.prior.dim)
            case _:
                return None
        return GeneratorSampler(self.G.G, prior, image_shape=self.image_shape)

    def contrast(self, *, seed: int) -> Tensor:
        """A hundred images for a picture with ten in a row: [100, channels, height, width].

        Of a mixture a row has one component.  Of a stack and of resampling the rows are in pairs:
        above the image of the noise as it is, below that of the z which was made or chosen of it.
        Else the first samples.
        """
        sampler = self.sampler()
        rows = sampler.prior.sample(N_SHOWN, stream(seed, "contrast"))
        match self.G:
            case MixtureGenerator():
                n_components = len(self.G.components.means)
                which = torch.arange(N_SHOWN).floor_divide(N_IN_ROW).remainder(n_components)
                return sampler.decode(
                    torch.cat([rows[:, :-n_components], one_hot(which, n_components)], 1)
                )
            case StackedGenerator():
                noise_alone = rows
            case ResampledGenerator():
                noise_alone = rows[:, : self.config.prior.dim]  # the first candidate
            case _:
                return sampler.showcase(N_SHOWN, seed)
        plain = GeneratorSampler(self.G.G, sampler.prior, image_shape=self.image_shape)
        pairs = [plain.decode(noise_alone), sampler.decode(rows)]
        above, below = (torch.split(images[: N_SHOWN // 2], N_IN_ROW) for images in pairs)
        return torch.cat([torch.cat(pair) for pair in zip(above, below, strict=True)])


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
        config: the run; where it has an origin, with what `adopt` takes over from that.
        images: training images.
        device: where to train.
        origin: the generator that `stacked` stands on.

    Raises:
        ConfigError: that generator makes images of another shape.
    """
    return Run(config, images, device=device, build=functools.partial(_parts, origin=origin))


def _parts(
    config: RunConfig, images: ImageSet, device: torch.device | str, *, origin: Saved | None
) -> Parts:
    cfg, rng = _settings(config), stream(config.seed, "init")
    mean = torch.from_numpy(pixel_mean(images.images))
    if origin is None:
        net = build_generator(config.generator, dim=config.prior.dim, pixel_mean=mean, rng=rng)
    else:
        net = generator_of(origin, images.image_shape)
    D = build_discriminator(config.discriminator, n_pixels=len(mean), rng=rng)
    G = _player(net, config, rng)
    rows = noise(config)
    prior = rows.prior if isinstance(rows, Candidates) else rows
    gan = assemble_gan(
        config, G=G, D=D, prior=prior, device=device, averages_d=isinstance(rows, Candidates)
    )
    if isinstance(rows, Candidates):
        gan.g_prior = ResampledPrior(rows, gan.G, gan.D)
    epoch_steps = len(images.images) / (config.train.batch_size * config.train.d_steps)
    taught = top_k(cfg, epoch_steps=epoch_steps) if cfg.method == "top_k" else every_fake
    return Parts(
        gan=gan,
        minibatches=image_minibatches(config, images, gan),
        keep=lambda G: _saved(G, gan.discriminator(), config, images.image_shape),
        train=functools.partial(train, taught=taught),
    )


def _player(net: Generator, config: RunConfig, rng: torch.Generator) -> Player:
    """G as it is trained: the generator, with what its z is learned by."""
    cfg, dim = _settings(config), config.prior.dim
    if cfg.method == "stacked":
        below = BelowZ(
            dim,
            hidden=cfg.hidden,
            support=(
                UnitCube() if cfg.output == "sigmoid" else support_of(build_prior(config.prior))
            ),
            is_residual=cfg.begin == "identity",
        )
        init_uniform(below, init_range=cfg.init_range, rng=rng)
        output = cast(nn.Linear, below.linears[-1])
        nn.init.constant_(output.bias, cfg.output_bias)
        if below.is_residual:
            nn.init.zeros_(output.weight)
        return StackedGenerator(below, net, is_frozen=cfg.freeze_generator)
    if cfg.method == "mixture":
        means = torch.randn(cfg.n_components, dim, generator=rng)
        widths = torch.zeros_like(means)
        return MixtureGenerator(Components(means, widths, component_std=cfg.component_std), net)
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
    judge = part_of(state, "d_average/module." if config.train.average_decay else "D/")
    return {f"G.{k}": t for k, t in weights.items()} | {f"D.{k}": t for k, t in judge.items()}


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
    """What is saved of a run with these players, of which D is a part for resampling alone."""
    rows = noise(config)
    if isinstance(rows, Candidates):
        G = ResampledGenerator(cast(Generator, G), cast(Discriminator, D), rows)
    G = G.eval().requires_grad_(False)
    return SavedLearnedPrior(G=G, config=config, image_shape=image_shape)


def _settings(config: RunConfig) -> LearnedPriorConfig:
    assert config.learned_prior is not None  # noqa: S101 (else this is another task)
    return config.learned_prior
