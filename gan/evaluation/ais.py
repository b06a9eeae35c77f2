"""Log-likelihood of a generator plus Gaussian noise, by annealed importance sampling.

    p_sigma(x) = integral p(z) N(x; decode(z), sigma^2 I) dz                          [nats]

Chains go from the prior to the posterior of z over f_t(u) = p(u) p_sigma(x | u)^beta_t, with
0 = beta_0 < ... < beta_T = 1 on a sigmoidal schedule and one Hamiltonian transition at each
intermediate beta_t; a chain's weight is w = prod_t p_sigma(x | u_t-1)^(beta_t - beta_t-1), and

    log p(x)  is estimated by  log mean_chains w.

Bias: E w = p(x), so the estimate of log p(x) is a stochastic lower bound: low by less with more
temperatures and more chains.  `bidirectional_gap` says how low: on data simulated from the model
an exact draw of the posterior is at hand, chains run backwards from it give an upper bound, and
the truth lies between.  The gap is measured on the model's own data, so it bounds the error on
the test images only as far as their posteriors are as hard.

Error: the standard error of a score is that of the mean over test points; the noise of the chains
is inside it, their bias is not, nor the spread over trained models.

Validity: E w = p(x) holds if no chain's step size depends on that chain, which an average over its
own past does not satisfy.  So a few pilot chains of each point adapt the step from their past
acceptance, hand it to the point's other chains and are then thrown away.

The pixels are on the scale of decode, and not dequantised here: hand in dequantised x to compare
with the source.  A small sigma rewards faithful pixels, as the width of a Parzen window does.

    settings = AisSettings(n_temperatures=1_000)
    sigma = choose_sigma(decode, prior, valid[:50], grid=FINE_GRID, settings=settings)
    score = ais_score(decode, prior, test[:1_000], sigma=sigma, settings=settings)
    gap = bidirectional_gap(decode, prior, n_points=100, sigma=sigma, settings=settings)

Source: Wu, Burda, Salakhutdinov and Grosse (2017), arXiv:1611.04273, section 3 (AIS and its
validation); Neal (2001), equation 3 (weights); Neal (2011), section 5.2 (the transition); Grosse,
Ghahramani and Adams (2015), arXiv:1511.02543 (bidirectional Monte Carlo).
Differs: steps are adapted by pilot chains, for the reason above, not by each chain's own past.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.score import Score, normal_score, require_points
from gan.evaluation.smooth_priors import SmoothPrior
from gan.randomness import stream

Decode = Callable[[Tensor], Tensor]
"""Differentiable z [n, dim] -> mean of the pixels [n, d] or [n, c, h, w], row by row."""

TARGET_ACCEPTANCE = 0.65
"""Share of accepted transitions that the step size is steered to: section 3 of Wu et al."""

N_PILOTS = 4
"""Chains of each point that only choose its step sizes."""

ADAPTATION_RATE = 0.2
"""Change of log step at a transition, per unit by which the pilots' acceptance is off."""

FIRST_STEP = 0.3
"""Step size at the first transition, where u is nearly N(0, I)."""

SCHEDULE_WIDTH = 4.0
"""The schedule is the logistic function between minus and plus this, scaled to [0, 1]."""

NOISE_BLOCK = 16
"""Transitions whose noise is drawn at a time.  Another size would change the estimates."""


@dataclass(frozen=True, kw_only=True)
class AisSettings:
    """How hard the estimate works; the defaults are the source's.

    Attributes:
        n_chains: chains whose weights are averaged, a point.
        n_temperatures: steps of the schedule; 1 is plain importance sampling from the prior.
        n_leapfrog: leapfrog steps, each one gradient of decode, a transition.
        seed: of all noise; a point's noise depends on this and its place in x alone.
        chunk: points a pass.  (n_chains + 4) * chunk rows go through decode at once; the result
            does not change but for what another batch size rounds otherwise inside decode.
    """

    n_chains: int = 16
    n_temperatures: int = 10_000
    n_leapfrog: int = 10
    seed: int = 0
    chunk: int = 100

    def __post_init__(self) -> None:
        for name in ("n_chains", "n_temperatures", "n_leapfrog", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, eq=False)
class AisScore:
    """Stochastic lower bounds on the log-likelihood of a set of points."""

    score: Score
    """Mean over the points."""
    sigma: float
    log_likelihood: Tensor
    """Of each point: [b], float64, nats, on the CPU."""
    acceptance: Tensor
    """Share of transitions accepted, of each point: [b]; far from 0.65 is a bad sign."""
    effective_chains: Tensor
    """(sum w)^2 / sum w^2 of each point, [b], 1 to n_chains; near 1 asks for more temperatures."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BidirectionalGap:
    """Lower and upper bounds on the log-likelihood of points that the model itself made."""

    lower: Score
    upper: Score
    gap: Score
    """Mean of upper - lower; its expectation is >= 0."""
    x: Tensor
    """The simulated points: [b, d], on the device of decode."""
    lower_bounds: Tensor
    """Of each simulated point: [b], float64, nats, on the CPU."""
    upper_bounds: Tensor
    """Of each simulated point: [b], float64, nats, on the CPU."""


def ais_score(
    decode: Decode, prior: SmoothPrior, x: Tensor, *, sigma: float, settings: AisSettings
) -> AisScore:
    """The log-likelihood of points under decode with Gaussian noise of width sigma.

    Args:
        decode: mean of the pixels given z, differentiable, each row for itself: a net in
            evaluation mode.
        prior: of z, from `gan.evaluation.smooth_priors`.
        x: points, [b, d] or [b, c, h, w], at least 2, on the device and in the type of decode.
        sigma: width of the noise, > 0; from `choose_sigma` on validation images, never on `x`.
        settings: chains, temperatures, seed.

    Raises:
        ScoreError: too few points, NaN, points all the same, or decode gives NaN.
        ValueError: sigma is not > 0, or decode gives points of another size than x.
    """
    require_points(at_least=2, x=x)
    _require_width(sigma)
    parts = [
        _forward(
            _Target(decode, prior, rows, sigma, n_leapfrog=settings.n_leapfrog), points, settings
        )
        for points, rows in _chunks(x.flatten(1), settings.chunk)
    ]
    log_weights = torch.cat([part.log_weights for part in parts])
    log_likelihood = _log_mean_exp(log_weights)
    return AisScore(
        score=_mean_score("ais_ll", log_likelihood),
        sigma=sigma,
        log_likelihood=log_likelihood,
        acceptance=torch.cat([part.acceptance for part in parts]),
        effective_chains=torch.softmax(log_weights, 1).square().sum(1).reciprocal(),
    )


def choose_sigma(
    decode: Decode,
    prior: SmoothPrior,
    valid: Tensor,
    *,
    grid: Sequence[float],
    settings: AisSettings,
) -> float:
    """The width in `grid` with the largest mean log-likelihood on `valid`; of equals, the first.

    Each width costs a full estimate: a few dozen points and fewer temperatures will do.  All
    widths share their noise.

    Raises:
        ScoreError, ValueError: as `ais_score`; ValueError too if the grid is empty.
    """
    if len(grid) == 0:
        raise ValueError("grid must hold at least one width, got none")
    for sigma in grid:
        _require_width(sigma)
    scores = [ais_score(decode, prior, valid, sigma=s, settings=settings) for s in grid]
    means = [score.score.value for score in scores]
    return float(grid[means.index(max(means))])


def bidirectional_gap(
    decode: Decode,
    prior: SmoothPrior,
    *,
    n_points: int,
    sigma: float,
    settings: AisSettings,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> BidirectionalGap:
    """Bounds from below and above on the log-likelihood of points drawn from the model.

    The z that made a point is an exact draw of its posterior; chains from it to the prior have
    weights w with E 1/w = 1/p(x), so -log mean 1/w is a stochastic upper bound.  They use the
    steps that the forward pilots chose, which know x but not this z.

    Args:
        decode: as for `ais_score`.
        prior: as for `ais_score`.
        n_points: points to simulate, at least 2.
        sigma: as for `ais_score`.
        settings: as for `ais_score`.
        device: of decode.
        dtype: of decode.

    Raises:
        ScoreError, ValueError: as `ais_score`.
    """
    _require_width(sigma)
    if n_points < 2:
        raise ScoreError(f"a gap needs at least 2 simulated points, got {n_points}")
    rng = stream(settings.seed, "ais/simulated")
    u = prior.sample(n_points, rng).to(device, dtype)
    with torch.no_grad():
        mean = torch.cat([decode(prior.to_z(rows)).flatten(1) for _, rows in _chunks(u, 1_000)])
    noise = torch.randn(mean.shape, generator=rng, dtype=dtype).to(device)
    x = mean + sigma * noise
    require_points(at_least=2, simulated=x)

    lower, upper = [], []
    for points, rows in _chunks(x, settings.chunk):
        target = _Target(decode, prior, rows, sigma, n_leapfrog=settings.n_leapfrog)
        forward = _forward(target, points, settings)
        start = u[points.start : points.stop]
        lower.append(_log_mean_exp(forward.log_weights))
        upper.append(-_log_mean_exp(_reverse(target, points, settings, start, forward.steps)))
    lower_bounds, upper_bounds = torch.cat(lower), torch.cat(upper)
    return BidirectionalGap(
        lower=_mean_score("ais_ll_lower", lower_bounds),
        upper=_mean_score("ais_ll_upper", upper_bounds),
        gap=_mean_score("ais_ll_gap", upper_bounds - lower_bounds),
        x=x,
        lower_bounds=lower_bounds,
        upper_bounds=upper_bounds,
    )


def sigmoidal_schedule(n_temperatures: int) -> list[float]:
    """0 = beta_0 < ... < beta_T = 1, T = n_temperatures: finest steps at both ends."""
    ticks = torch.linspace(-1, 1, n_temperatures + 1, dtype=torch.float64)
    betas = torch.sigmoid(SCHEDULE_WIDTH * ticks)
    scaled: list[float] = ((betas - betas[0]) / (betas[-1] - betas[0])).tolist()
    return scaled


@dataclass(frozen=True, eq=False)
class _State:
    """Where chains stand: u and, at u, both terms of the log density with their gradients."""

    u: Tensor  # [b, m, dim]
    log_prior: Tensor  # [b, m] float64
    log_likelihood: Tensor  # [b, m] float64
    prior_gradient: Tensor  # [b, m, dim]
    likelihood_gradient: Tensor  # [b, m, dim]

    def log_density(self, beta: float) -> Tensor:
        return self.log_prior + beta * self.log_likelihood

    def gradient(self, beta: float) -> Tensor:
        return self.prior_gradient + beta * self.likelihood_gradient

    def where(self, accepted: Tensor, other: "_State") -> "_State":
        """This state in the chains that accepted, [b, m], the other elsewhere."""
        wide = accepted[..., None]
        return _State(
            torch.where(wide, self.u, other.u),
            torch.where(accepted, self.log_prior, other.log_prior),
            torch.where(accepted, self.log_likelihood, other.log_likelihood),
            torch.where(wide, self.prior_gradient, other.prior_gradient),
            torch.where(wide, self.likelihood_gradient, other.likelihood_gradient),
        )


class _Target:
    """p(u) and p_sigma(x | u) for some points x [b, d], and how finely moves follow them."""

    def __init__(
        self, decode: Decode, prior: SmoothPrior, x: Tensor, sigma: float, *, n_leapfrog: int
    ) -> None:
        self.decode, self.prior, self.x, self.sigma = decode, prior, x, sigma
        self.n_leapfrog = n_leapfrog

    def at(self, u: Tensor) -> _State:
        """Densities and gradients at u, [b, m, dim]."""
        b, m, dim = u.shape
        d = self.x.shape[1]
        with torch.enable_grad():
            leaf = u.detach().requires_grad_()
            rows = leaf.view(b * m, dim)
            log_prior = self.prior.log_density(rows).view(b, m).double()
            pixels = self.decode(self.prior.to_z(rows)).flatten(1)
            if pixels.shape != (b * m, d):
                raise ValueError(
                    f"decode must give [{b * m}, {d}] as x has {d} pixels, "
                    f"got {list(pixels.shape)}"
                )
            residual = self.x[:, None] - pixels.view(b, m, d)
            # Summed in float64: thousands of nats, of which a thousandth matters.
            scaled = residual.square().sum(2, dtype=torch.float64) / self.sigma**2
            log_likelihood = -scaled / 2 - d * math.log(self.sigma * math.sqrt(2 * math.pi))
            (prior_gradient,) = torch.autograd.grad(log_prior.sum(), leaf)
            (likelihood_gradient,) = torch.autograd.grad(log_likelihood.sum(), leaf)
        return _State(
            u, log_prior.detach(), log_likelihood.detach(), prior_gradient, likelihood_gradient
        )


class _Noise:
    """All randomness of the chains of some points.

    Each point has a CPU stream of its own: neither chunk nor device changes what it draws.
    """

    def __init__(
        self, name: str, points: range, *, n_chains: int, dim: int, seed: int, like: Tensor
    ) -> None:
        self.rngs = [stream(seed, f"ais/{name}/{i}") for i in points]
        self.n_chains, self.dim, self.like = n_chains, dim, like

    def draw(self, one_point: Callable[[torch.Generator], Tensor]) -> Tensor:
        """[b, ...] of what each point draws."""
        return torch.stack([one_point(rng) for rng in self.rngs]).to(self.like)

    def transitions(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Without end: momenta [b, m, dim] and uniform numbers [b, m] of one transition."""
        block, dtype = (NOISE_BLOCK, self.n_chains), self.like.dtype
        while True:
            momenta = self.draw(
                lambda rng: torch.randn(*block, self.dim, generator=rng, dtype=dtype)
            )
            uniforms = self.draw(lambda rng: torch.rand(*block, generator=rng, dtype=dtype))
            yield from zip(momenta.unbind(1), uniforms.unbind(1), strict=True)


@dataclass(frozen=True, eq=False)
class _Forward:
    log_weights: Tensor  # [b, n_chains] float64, on the CPU
    acceptance: Tensor  # [b] float64, on the CPU
    steps: list[Tensor]  # [b] at each of the n_temperatures - 1 transitions


def _forward(target: _Target, points: range, settings: AisSettings) -> _Forward:
    """Chains from the prior to the posterior, step sizes from the pilots beside them."""
    n = settings.n_chains
    noise = _Noise(
        "forward",
        points,
        n_chains=n + N_PILOTS,
        dim=target.prior.dim,
        seed=settings.seed,
        like=target.x,
    )
    state = target.at(noise.draw(lambda rng: target.prior.sample(n + N_PILOTS, rng)))
    if not bool(torch.isfinite(state.log_likelihood).all()):
        raise ScoreError("decode must give finite points on draws of the prior, got others")
    betas, transitions = sigmoidal_schedule(settings.n_temperatures), noise.transitions()
    log_weights = betas[1] * state.log_likelihood[:, :n]
    step = torch.full_like(target.x[:, 0], FIRST_STEP)
    steps, accepted = [], torch.zeros_like(log_weights[:, 0])
    for beta, next_beta in pairwise(betas[1:]):
        state, chance = _transition(target, state, beta, step, noise=next(transitions))
        steps.append(step)
        excess = chance[:, n:].mean(1) - TARGET_ACCEPTANCE
        step = step * (ADAPTATION_RATE * excess).exp().to(step.dtype)
        accepted += chance[:, :n].mean(1)
        log_weights += (next_beta - beta) * state.log_likelihood[:, :n]
    acceptance = accepted / len(steps) if steps else torch.ones_like(accepted)
    return _Forward(log_weights.cpu(), acceptance.cpu(), steps)


def _reverse(
    target: _Target, points: range, settings: AisSettings, start: Tensor, steps: list[Tensor]
) -> Tensor:
    """Log weights, [b, n_chains], of the same chains backwards from draws of the posterior."""
    n = settings.n_chains
    noise = _Noise(
        "reverse", points, n_chains=n, dim=target.prior.dim, seed=settings.seed, like=target.x
    )
    state = target.at(start[:, None].repeat(1, n, 1))
    betas, transitions = sigmoidal_schedule(settings.n_temperatures)[::-1], noise.transitions()
    log_weights = (betas[1] - 1) * state.log_likelihood
    for (beta, next_beta), step in zip(pairwise(betas[1:]), reversed(steps), strict=True):
        state, _ = _transition(target, state, beta, step, noise=next(transitions))
        log_weights += (next_beta - beta) * state.log_likelihood
    return log_weights.cpu()


def _transition(
    target: _Target,
    state: _State,
    beta: float,
    step: Tensor,
    *,
    noise: tuple[Tensor, Tensor],
) -> tuple[_State, Tensor]:
    """One Hamiltonian move that leaves p(u) p(x | u)^beta in place, and its acceptance [b, m]."""
    momentum, uniform = noise
    eps = step[:, None, None]
    new, speed = state, momentum + eps / 2 * state.gradient(beta)
    for i in range(target.n_leapfrog):
        new = target.at(new.u + eps * speed)
        speed = speed + (eps if i < target.n_leapfrog - 1 else eps / 2) * new.gradient(beta)
    energy = [v.square().sum(2, dtype=torch.float64) / 2 for v in (momentum, speed)]
    log_chance = new.log_density(beta) - state.log_density(beta) + energy[0] - energy[1]
    # A move that left the numbers' range is one that is not made.
    chance = log_chance.nan_to_num(nan=-math.inf).clamp(max=0).exp()
    return new.where(uniform < chance, state), chance


def _chunks(rows: Tensor, chunk: int) -> Iterator[tuple[range, Tensor]]:
    """The places and rows of each pass."""
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        yield range(start, start + len(part)), part


def _log_mean_exp(log_weights: Tensor) -> Tensor:
    return torch.logsumexp(log_weights, 1) - math.log(log_weights.shape[1])


def _mean_score(name: str, of_points: Tensor) -> Score:
    standard_error = of_points.std().item() / math.sqrt(len(of_points))
    return normal_score(name, of_points.mean().item(), standard_error, unit="nats")


def _require_width(sigma: float) -> None:
    if not (sigma > 0 and 0 < sigma * sigma < math.inf):
        raise ValueError(f"sigma must be > 0 and its square finite and > 0, got {sigma}")
