"""Section 4 of the paper, where densities are known: every identity in float64, no samples.

A density is its values at the points of a grid, and `cell` the volume around each point, so that
`density.sum() * cell` is 1.  A discrete distribution is one with `cell` 1.  D is a logit a point,
D(x) = sigmoid(a), as everywhere here.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

LOG_4 = math.log(4)


def gaussian(x: Tensor, mean: Tensor | float, std: float) -> Tensor:
    """The density of N(mean, std^2) at the points x, in the shape of x - mean."""
    return (-0.5 * ((x - mean) / std).square()).exp() / (std * math.sqrt(2 * math.pi))


def optimal_discriminator(p_data: Tensor, p_g: Tensor) -> Tensor:
    """D* of Proposition 1 (equation 2), p_data / (p_data + p_g).

    Args:
        p_data: density of the data, [..., n].
        p_g: density of G's samples, of the same shape.

    Returns:
        [..., n]; NaN where neither has mass, where D* is not defined.
    """
    return p_data / (p_data + p_g)


def optimal_logit(p_data: Tensor, p_g: Tensor) -> Tensor:
    """The logit of D*, log p_data - log p_g: infinite where one of them has no mass."""
    return p_data.log() - p_g.log()


def value(logits: Tensor, p_data: Tensor, p_g: Tensor, *, cell: float = 1.0) -> Tensor:
    """V(D, G) of equation 3, the integral of p_data log D + p_g log(1 - D).

    Args:
        logits: of D, [..., n]; may be infinite.
        p_data: density of the data, [..., n].
        p_g: density of G's samples, [..., n].
        cell: volume around a point.

    Returns:
        [...], nats; a point without mass adds nothing, whatever D says there.
    """
    return cell * (_times(p_data, logsigmoid(logits)) + _times(p_g, logsigmoid(-logits))).sum(-1)


def criterion(p_data: Tensor, p_g: Tensor, *, cell: float = 1.0) -> Tensor:
    """C(G) = max over D of V(D, G), equation 4: V of the D of Proposition 1; [...], nats."""
    both = p_data + p_g
    terms = _times(p_data, (p_data / both).log()) + _times(p_g, (p_g / both).log())
    return cell * terms.sum(-1)


def kl_divergence(p: Tensor, q: Tensor, *, cell: float = 1.0) -> Tensor:
    """KL(p || q), [...], nats; infinite where q lacks mass that p has."""
    return cell * _times(p, (p / q).log()).sum(-1)


def jensen_shannon_divergence(p: Tensor, q: Tensor, *, cell: float = 1.0) -> Tensor:
    """JSD(p || q), the mean divergence of both from their mixture; [...], from 0 to log 2 nats."""
    mixture = (p + q) / 2
    return (kl_divergence(p, mixture, cell=cell) + kl_divergence(q, mixture, cell=cell)) / 2


def fit_discriminator(
    p_data: Tensor, p_g: Tensor, *, cell: float = 1.0, n_steps: int = 3_000, rate: float = 4.0
) -> Tensor:
    """Logits of a D with a parameter a point, trained on V from D = 1/2.

    The gradient is V's own, by automatic differentiation: nothing here knows Proposition 1, which
    is held against it.

    Args:
        p_data: density of the data, [n] float64.
        p_g: density of G's samples, [n] float64.
        cell: volume around a point.
        n_steps: updates of D.
        rate: step size, over the mass of both players at a point.

    Returns:
        [n].
    """
    logits = torch.zeros_like(p_data, requires_grad=True)
    step = rate / (cell * (p_data + p_g))
    for _ in range(n_steps):
        (gradient,) = torch.autograd.grad(value(logits, p_data, p_g, cell=cell), logits)
        with torch.no_grad():
            logits += step * gradient
    return logits.detach()


@dataclass(frozen=True, kw_only=True)
class TabularProgress:
    """Algorithm 1 on a table, after a step.

    Attributes:
        step: updates of p_g.
        logits: of D, [n].
        p_g: [n].
        value: V(D, G), nats.
        divergence: JSD(p_data || p_g), nats.
    """

    step: int
    logits: Tensor
    p_g: Tensor
    value: float
    divergence: float


def algorithm1(
    p_data: Tensor,
    p_g: Tensor,
    *,
    d_steps: int | Literal["optimal"],
    n_steps: int,
    d_rate: float = 1.0,
    g_rate: float = 0.1,
    cell: float = 1.0,
) -> Iterator[TabularProgress]:
    """Algorithm 1 as in Proposition 2: D and p_g are tables, and expectations are exact.

    D ascends V in its logits; each gradient is divided by the density of both players, so that a
    rate has the same meaning everywhere.  p_g descends E log(1 - D), in which it is linear, along
    the simplex: an exponentiated gradient, which keeps it a density.

    Args:
        p_data: density of the data, [n] float64, positive.
        p_g: that of G's samples at first, [n] float64, positive.
        d_steps: updates of D a step, k of Algorithm 1; "optimal" for the D of Proposition 1, as
            Proposition 2 supposes; 0 trains G against a D that stays as it is after one fit.
        n_steps: updates of p_g.
        d_rate: step size of D.
        g_rate: step size of p_g.
        cell: volume around a point.

    Yields:
        The beginning and every step.
    """
    logits = optimal_logit(p_data, p_g) if d_steps == 0 else torch.zeros_like(p_data)
    for step in range(n_steps + 1):
        if d_steps == "optimal":
            logits = optimal_logit(p_data, p_g)
        else:
            for _ in range(d_steps):
                logits = logits + d_rate * _ascent(logits, p_data, p_g)
        yield TabularProgress(
            step=step,
            logits=logits,
            p_g=p_g,
            value=value(logits, p_data, p_g, cell=cell).item(),
            divergence=jensen_shannon_divergence(p_data, p_g, cell=cell).item(),
        )
        log_p_g = p_g.log() - g_rate * logsigmoid(-logits)
        p_g = torch.softmax(log_p_g, 0) / cell


def _ascent(logits: Tensor, p_data: Tensor, p_g: Tensor) -> Tensor:
    """The gradient of V in D's logits, over p_data + p_g: D* - D."""
    return optimal_discriminator(p_data, p_g) - logits.sigmoid()


def _times(mass: Tensor, logarithm: Tensor) -> Tensor:
    """Their product, with 0 log 0 = 0."""
    return torch.where(mass > 0, mass * logarithm, torch.zeros_like(mass))
