"""Priors in coordinates whose density is smooth, as annealed importance sampling needs them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gan.errors import ScoreError
from gan.priors import Gaussian, Mixture, Prior, Spherical, TruncatedNormal, Uniform


@dataclass(frozen=True, kw_only=True)
class SmoothPrior:
    """A prior as chains need it: coordinates u on R^dim with a smooth density, and z of u."""

    dim: int
    log_density: Callable[[Tensor], Tensor]
    """Of u, up to a constant: [n, dim] -> [n], differentiable."""
    sample: Callable[[int, torch.Generator], Tensor]
    """n independent u: [n, dim]."""
    to_z: Callable[[Tensor], Tensor]
    """u -> z, [n, dim] -> [n, dim], differentiable: a prior draw of u gives a prior draw of z."""


def smooth_prior(prior: Prior) -> SmoothPrior:
    """The coordinates in which chains explore a prior.

    Gaussian: u = z.  Uniform, truncated normal: z is a smooth increasing function of a normal u,
    coordinate by coordinate.  Spherical (dim >= 2): z = radius u / |u| with u normal.  Mixture:
    u = z with its own density.

    Raises:
        ScoreError: the prior has no smooth density in any coordinates, as Bernoulli.
    """
    match prior:
        case Gaussian():
            return _pushed_normal(prior.dim, lambda u: u)
        case Uniform():
            return _pushed_normal(prior.dim, _uniform)
        case TruncatedNormal():
            return _pushed_normal(prior.dim, lambda u: _cut(u, prior))
        case Spherical() if prior.dim >= 2:
            return _pushed_normal(
                prior.dim, lambda u: prior.radius * torch.nn.functional.normalize(u, dim=1)
            )
        case Mixture():
            return SmoothPrior(
                dim=prior.dim,
                log_density=lambda u: _mixture_log_density(u, prior),
                sample=prior.sample,
                to_z=lambda u: u,
            )
    raise ScoreError(
        "annealed importance sampling needs a prior with a smooth density: gaussian, uniform, "
        "truncated_normal, mixture, or spherical of at least 2 coordinates; "
        f"got {type(prior).__name__} of {prior.dim}"
    )


def _pushed_normal(dim: int, to_z: Callable[[Tensor], Tensor]) -> SmoothPrior:
    return SmoothPrior(
        dim=dim,
        log_density=lambda u: -u.square().sum(1, dtype=torch.float64) / 2,
        sample=Gaussian(dim).sample,
        to_z=to_z,
    )


def _uniform(u: Tensor) -> Tensor:
    """Normal u -> uniform z, by the distribution function of u."""
    return torch.erf(u * math.sqrt(0.5)) * math.sqrt(3)


def _cut(u: Tensor, prior: TruncatedNormal) -> Tensor:
    """Normal u -> truncated normal z, by the inverse of the distribution function."""
    share = math.erf(prior.truncation * math.sqrt(0.5))
    # In float64, where the share of a wide cut is still below 1.
    cut = torch.erfinv(share * torch.erf(u.double() * math.sqrt(0.5))) * math.sqrt(2)
    return (cut / prior.std_before_scaling).to(u.dtype)


def _mixture_log_density(u: Tensor, prior: Mixture) -> Tensor:
    means = prior.means(u.device).to(u.dtype)
    excess = (u[:, None] - means).square().sum(2, dtype=torch.float64)
    return torch.logsumexp(-excess / (2 * prior.component_std**2), 1)
