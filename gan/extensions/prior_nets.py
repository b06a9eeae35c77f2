"""Nets that make z of noise: a stack below a trained generator, and a mixture of Gaussians.

Each is a part of a G that takes rows of the noise; `gan.extensions.learned_prior` trains them.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from gan.layers import Linear
from gan.nets import Generator, Player
from gan.priors import Bernoulli, Prior, Spherical, TruncatedNormal, Uniform

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


@dataclass(frozen=True)
class UnitCube:
    """The cube from 0 to 1, of sigmoid units, each coordinate 1 / (1 + exp(-a))."""

    def cover(self, a: Tensor) -> Tensor:
        """R^dim -> the cube, [n, dim]."""
        return torch.sigmoid(a)

    def coordinates(self, z: Tensor) -> Tensor:
        """The a of z; z at a face or beyond is taken for EDGE within."""
        return torch.logit(z, eps=EDGE)


Support = Box | Sphere | Everywhere | UnitCube


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
    """A mixture of K Gaussians of equal weight that has mean 0 and variance 1 whatever is learned.

        z = nu_k + tau_k e,   nu = (1 - s^2)^(1/2) (mu - m) / v^(1/2),   tau = s sigma / w^(1/2)

    with m and v the mean and variance over k of mu_k, and w the mean over k of sigma_k^2, so that
    s^2 of the variance of each coordinate is within the components.  Were that share left to the
    training, too, the widths would go to 0, and each component to one image.

    Args:
        means: mu, [K, dim].
        log_widths: log sigma, [K, dim].
        component_std: s, in (0, 1).
    """

    def __init__(self, means: Tensor, log_widths: Tensor, *, component_std: float) -> None:
        super().__init__()
        self.means, self.log_widths = nn.Parameter(means), nn.Parameter(log_widths)
        self.component_std = component_std

    def normalised(self) -> tuple[Tensor, Tensor]:
        """Means nu and widths tau of the components of z, [K, dim] each."""
        centred, widths = self.means - self.means.mean(0), self.log_widths.exp()
        means, widths = (rows * rows.square().mean(0).rsqrt() for rows in (centred, widths))
        return math.sqrt(1 - self.component_std**2) * means, self.component_std * widths

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
