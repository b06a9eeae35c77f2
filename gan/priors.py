"""Distributions p(z) of the noise at the bottom of G.

Every prior draws `[n, dim]` float32 on the device of the generator of random numbers it is given.
"""

import functools
import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gan.config import PriorConfig
from gan.randomness import stream


class Prior(Protocol):
    """Something z can be drawn from."""

    @property
    def dim(self) -> int:
        """Coordinates of z."""
        ...

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw n independent z, [n, dim] float32."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Independent coordinates, uniform on [-sqrt 3, sqrt 3]: mean 0, variance 1.

    Source: the released code's `uniform` noise, used for MNIST.
    """

    dim: int

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw n independent z, [n, dim] float32."""
        bound = math.sqrt(3)
        z = torch.empty(n, self.dim, device=rng.device)
        return z.uniform_(-bound, bound, generator=rng)


@dataclass(frozen=True)
class Gaussian:
    """N(0, I): support R^dim, mean 0, variance 1 a coordinate."""

    dim: int

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw n independent z, [n, dim] float32."""
        return torch.randn(n, self.dim, generator=rng, device=rng.device)


@dataclass(frozen=True)
class Spherical:
    """Uniform on the sphere of the given radius: mean 0, variance radius^2 / dim a coordinate.

    Source: the released code's `spherical` noise, which has radius 1.
    """

    dim: int
    radius: float

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw n independent z, [n, dim] float32."""
        z = torch.randn(n, self.dim, generator=rng, device=rng.device)
        norm: Tensor = torch.linalg.vector_norm(z, dim=1, keepdim=True)
        return z * norm.reciprocal().mul(self.radius)


@dataclass(frozen=True)
class Bernoulli:
    """Independent fair coordinates on {-1, +1}: mean 0, variance 1."""

    dim: int

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw n independent z, [n, dim] float32."""
        bits = torch.randint(0, 2, (n, self.dim), generator=rng, device=rng.device)
        return bits.to(torch.float32).mul_(2).sub_(1)


@dataclass(frozen=True)
class TruncatedNormal:
    """Independent normal coordinates cut at +-truncation, then scaled back to variance 1.

    Support [-truncation/s, truncation/s] with s^2 the variance of the cut normal; mean 0.
    """

    dim: int
    truncation: float

    def __post_init__(self) -> None:
        if not self.truncation > 0:
            raise ValueError(f"truncation must be > 0, got {self.truncation}")

    @property
    def std_before_scaling(self) -> float:
        """Standard deviation of N(0, 1) cut at +-a: sqrt(1 - 2 a phi(a) / (2 Phi(a) - 1))."""
        a = self.truncation
        density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
        return math.sqrt(1 - 2 * a * density / math.erf(a / math.sqrt(2)))

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw n independent z, [n, dim] float32."""
        # By the inverse of the distribution function: torch's trunc_normal_ rejects and draws
        # again, which waits for the device, and how it draws changed between versions of torch.
        a = self.truncation
        share = math.erf(a / math.sqrt(2))  # P(|N(0, 1)| < a)
        u = torch.empty(n, self.dim, dtype=torch.float64, device=rng.device)
        z = u.uniform_(-share, share, generator=rng).erfinv_().mul_(math.sqrt(2)).clamp_(-a, a)
        return z.div_(self.std_before_scaling).to(torch.float32)


@dataclass(frozen=True)
class Mixture:
    """A fixed mixture of n_components Gaussians of equal weight, each of covariance std^2 I.

    The means are drawn once, the same in every run; they are centred and scaled so that the
    mixture has mean 0 and, averaged over the coordinates, variance 1.  Support R^dim.
    """

    dim: int
    n_components: int
    component_std: float

    def means(self, device: torch.device | str = "cpu") -> Tensor:
        """The centres, [n_components, dim] float32."""
        centred = _unit_centres(self.n_components, self.dim, torch.device(device))
        return centred * math.sqrt(1 - self.component_std**2)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw n independent z, [n, dim] float32."""
        which = torch.randint(0, self.n_components, (n,), generator=rng, device=rng.device)
        noise = torch.randn(n, self.dim, generator=rng, device=rng.device)
        return self.means(rng.device)[which] + self.component_std * noise


@functools.lru_cache(maxsize=8)
def _unit_centres(n_components: int, dim: int, device: torch.device) -> Tensor:
    """Centres of mean 0 and mean square 1; kept, so that no step draws and uploads them anew."""
    rng = stream(0, f"mixture/{n_components}/{dim}")
    mu = torch.randn(n_components, dim, generator=rng)
    mu -= mu.mean(0)
    return (mu / mu.square().mean().sqrt()).to(device)


def build_prior(cfg: PriorConfig) -> Prior:
    """The prior that a configuration names."""
    match cfg.kind:
        case "uniform":
            return Uniform(cfg.dim)
        case "gaussian":
            return Gaussian(cfg.dim)
        case "spherical":
            radius = 1.0 if cfg.spherical_radius == "unit" else math.sqrt(cfg.dim)
            return Spherical(cfg.dim, radius)
        case "bernoulli":
            return Bernoulli(cfg.dim)
        case "truncated_normal":
            return TruncatedNormal(cfg.dim, cfg.truncation)
        case "mixture":
            return Mixture(cfg.dim, cfg.n_components, cfg.component_std)
