"""Section 4 and Figure 1 of the paper as one page: each claim, and what came of it."""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from markupsafe import Markup
from torch import Tensor

from gan.files import write_atomically
from gan.losses import GENERATOR_LOSSES
from gan.one_dimension import BANDWIDTH, Figure1, figure1
from gan.randomness import stream
from gan.theory import (
    LOG_4,
    TabularProgress,
    algorithm1,
    criterion,
    fit_discriminator,
    gaussian,
    jensen_shannon_divergence,
    optimal_discriminator,
    optimal_logit,
    value,
)
from gan.version import __version__
from pipeline import theory_figures as figures
from pipeline.report_page import page_environment

PAGE, CLAIMS = "theory.html", "theory.json"

EXACT = 1e-10
"""Largest error of an identity in double precision."""
K: tuple[int | Literal["optimal"], ...] = (1, 2, 5, "optimal")
"""Updates of D for each of p_g whose convergence is shown."""
N_TABLE, N_TABLE_STEPS = 12, 400
COLLAPSE_STEPS = (0, 50, 200, 800)
"""Updates of p_g, at which its collapse against a D that stays is shown."""
N_RANDOM = 1_000
REJECTED = 1e-4
"""D(G(z)) of samples that D is sure of."""

Kind = Literal["exact", "trained"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper, and a number that shows whether it holds.

    Attributes:
        text: the claim.
        source: where the paper has it.
        measured: the number.
        low: least value with which the claim holds.
        high: largest.
        kind: an identity, or something that was trained.
    """

    text: str
    source: str
    measured: float
    low: float
    high: float
    kind: Kind

    @property
    def holds(self) -> bool:
        """Whether the number is within its bounds."""
        return self.low <= self.measured <= self.high

    @property
    def measured_text(self) -> str:
        """The number as a person reads it."""
        return f"{self.measured:.3g}"

    @property
    def condition(self) -> str:
        """The bounds as a person reads them."""
        if self.low == 0:
            return f"at most {self.high:g}"
        return f"{self.low:.4g} to {self.high:.4g}"


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure with what is said of it."""

    svg: Markup
    alt: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page."""

    title: str
    text: str
    drawings: Sequence[Drawing]
    movie: str = ""


def hold_theory(seed: int) -> tuple[list[Claim], list[Section]]:
    """Every claim with its number, and the parts of a page that show where it comes from.

    Args:
        seed: of random distributions and of the GAN of one pixel.
    """
    parts = [
        _saturation(),
        _discriminator(),
        _criterion(seed),
        _convergence(seed),
        _helvetica(),
        _figure1(seed),
    ]
    return [claim for part, _ in parts for claim in part], [section for _, section in parts]


def write_theory(folder: Path, *, seed: int) -> list[Claim]:
    """Write `theory.html`, which needs no other file, and `theory.json` into a folder.

    Args:
        folder: made where it is not there.
        seed: as of `hold_theory`.

    Raises:
        OSError: they cannot be written.
    """
    claims, sections = hold_theory(seed)
    folder.mkdir(parents=True, exist_ok=True)
    page = (
        page_environment()
        .get_template("theory.html.j2")
        .render(
            claims=claims,
            n_held=sum(claim.holds for claim in claims),
            sections=sections,
            seed=seed,
            command=f"gan theory --seed {seed}",
            version=__version__,
        )
    )
    write_atomically(folder / PAGE, page)
    facts = [asdict(claim) | {"holds": claim.holds} for claim in claims]
    write_atomically(folder / CLAIMS, json.dumps({"seed": seed, "claims": facts}, indent=2) + "\n")
    return claims


Part = tuple[list[Claim], Section]


def _grid() -> tuple[Tensor, float]:
    x = torch.linspace(-8, 8, 1_601, dtype=torch.float64)
    return x, (x[1] - x[0]).item()


def _saturation() -> Part:
    logit = torch.logit(torch.tensor(REJECTED, dtype=torch.float64)).requires_grad_()
    steps = {
        name: torch.autograd.grad(loss(logit[None]), logit)[0].abs().item()
        for name, loss in GENERATOR_LOSSES.items()
    }
    claims = [
        Claim(
            text=f"Where D rejects samples, D(G(z)) = {REJECTED:g}, the gradient of "
            "log(1 - D(G(z))) in D's logit is a small share of that of -log D(G(z))",
            source="section 3",
            measured=steps["minimax"] / steps["non_saturating"],
            low=0,
            high=10 * REJECTED,
            kind="exact",
        )
    ]
    text = (
        "Early in training D tells samples apart with ease. The loss of equation 1 then "
        "saturates, and G learns next to nothing; the other one, of the same game, does not."
    )
    return claims, Section(title="What G learns from early on", text=text, drawings=[])


def _discriminator() -> Part:
    x, cell = _grid()
    p_data, p_g = gaussian(x, -1.0, 1.0), gaussian(x, 1.0, 1.5)
    trained = fit_discriminator(p_data, p_g, cell=cell).sigmoid()
    closed = optimal_discriminator(p_data, p_g)
    best = value(optimal_logit(p_data, p_g), p_data, p_g, cell=cell)
    claims = [
        Claim(
            text="D* = p_data / (p_data + p_g): largest distance of a D that was trained on V",
            source="Proposition 1",
            measured=(trained - closed).abs().max().item(),
            low=0,
            high=1e-3,
            kind="trained",
        ),
        Claim(
            text="max over D of V(D, G) is V of that D*: difference, nats",
            source="equation 4",
            measured=(best - criterion(p_data, p_g, cell=cell)).abs().item(),
            low=0,
            high=EXACT,
            kind="exact",
        ),
    ]
    shown = (x > -5) & (x < 6)
    drawing = Drawing(
        svg=figures.closed_and_trained(*(t[shown] for t in (x, closed, trained, p_data, p_g))),
        alt="The trained discriminator lies on the curve of the optimal one.",
        caption="Two Gaussians; D has a parameter at each point, and knows V alone.",
    )
    text = "For G as it is there is one best discriminator, which training finds."
    return claims, Section(title="The best discriminator", text=text, drawings=[drawing])


def _criterion(seed: int) -> Part:
    rng = stream(seed, "theory")
    p = torch.rand(2, N_RANDOM, N_TABLE, generator=rng, dtype=torch.float64)
    p_data, p_g = p / p.sum(-1, keepdim=True)
    found = criterion(p_data, p_g)
    expected = 2 * jensen_shannon_divergence(p_data, p_g) - LOG_4
    claims = [
        Claim(
            text=f"C(G) = -log 4 + 2 JSD: largest difference over {N_RANDOM:,} pairs of random "
            "distributions, nats",
            source="Theorem 1, equations 5 and 6",
            measured=(found - expected).abs().max().item(),
            low=0,
            high=EXACT,
            kind="exact",
        ),
        Claim(
            text="C(G) where p_g = p_data is -log 4: largest difference, nats",
            source="Theorem 1",
            measured=(criterion(p_data, p_data) + LOG_4).abs().max().item(),
            low=0,
            high=EXACT,
            kind="exact",
        ),
        Claim(
            text="and nowhere smaller: least C(G) + log 4 over the pairs, nats",
            source="Theorem 1",
            measured=(found + LOG_4).min().item(),
            low=EXACT,
            high=2 * torch.log(torch.tensor(2.0)).item(),
            kind="exact",
        ),
        Claim(
            text="There D* is 1/2: largest distance",
            source="Theorem 1",
            measured=(optimal_discriminator(p_data, p_data) - 0.5).abs().max().item(),
            low=0,
            high=EXACT,
            kind="exact",
        ),
    ]
    text = (
        "What G descends when D is at its best is the Jensen-Shannon divergence, with its only "
        "minimum at the data's distribution."
    )
    return claims, Section(title="What G descends", text=text, drawings=[])


def _convergence(seed: int) -> Part:
    p = torch.rand(2, N_TABLE, generator=stream(seed, "tables"), dtype=torch.float64)
    p_data, p_g = p / p.sum(-1, keepdim=True)
    paths: dict[str, list[TabularProgress]] = {
        f"k = {k}": list(algorithm1(p_data, p_g, d_steps=k, n_steps=N_TABLE_STEPS)) for k in K
    }
    claims = [
        Claim(
            text=f"Algorithm 1 with {name}: JSD after {N_TABLE_STEPS:,} updates of p_g, nats",
            source="Proposition 2",
            measured=abs(path[-1].divergence),  # of rounding, once it is nothing
            low=0,
            high=1e-6,
            kind="trained",
        )
        for name, path in paths.items()
    ]
    divergences = {name: [max(p.divergence, 1e-16) for p in path] for name, path in paths.items()}
    values = {name: [abs(p.value + LOG_4) + 1e-16 for p in path] for name, path in paths.items()}
    drawings = [
        Drawing(
            svg=figures.descent("divergence", divergences, ylabel="JSD, nats"),
            alt="The divergence falls for each k.",
            caption="The divergence of p_g from the data.",
        ),
        Drawing(
            svg=figures.descent("value", values, ylabel="|V + log 4|, nats"),
            alt="V nears minus log 4 for each k.",
            caption="How far V(D, G) is from its value at the end, -log 4.",
        ),
    ]
    text = (
        f"Algorithm 1 where D and p_g are tables of {N_TABLE} numbers and expectations are "
        "exact: k updates of D for each of p_g."
    )
    return claims, Section(title="Algorithm 1 converges", text=text, drawings=drawings)


def _helvetica() -> Part:
    places = torch.arange(N_TABLE, dtype=torch.float64)
    p_data = torch.softmax(-0.08 * (places - 5).square(), 0)
    p_g = torch.full_like(p_data, 1 / N_TABLE)
    path = list(algorithm1(p_data, p_g, d_steps=0, n_steps=max(COLLAPSE_STEPS)))
    last = path[-1].p_g
    claims = [
        Claim(
            text=f"Without D kept in step G collapses: largest probability of p_g after "
            f"{max(COLLAPSE_STEPS)} updates against a D that stays",
            source="section 6",
            measured=last.max().item(),
            low=0.9,
            high=1 + EXACT,
            kind="trained",
        )
    ]
    drawing = Drawing(
        svg=figures.collapse({step: path[step].p_g for step in COLLAPSE_STEPS}, p_data),
        alt="The bars of p_g shrink to one.",
        caption="p_g (bars) and the data (dashes), after some updates of G with D held still.",
    )
    text = (
        "The Helvetica scenario: G maps too many z to the one x that D takes for the most real, "
        "and p_g loses the diversity of the data."
    )
    return claims, Section(title="If D is not kept in step", text=text, drawings=[drawing])


def _figure1(seed: int) -> Part:
    found = figure1(seed)
    movie = base64.b64encode(figures.animation(found.path)).decode()
    start, end = found.path[0].divergence, found.converged.divergence
    claims = [
        Claim(
            text="A D of maxout units trained alone nears D* where there is data or sample: mean "
            "distance under both densities",
            source="Figure 1 (b)",
            measured=_distance_from_optimum(found),
            low=0,
            high=0.05,
            kind="trained",
        ),
        Claim(
            text="Algorithm 1 brings G near the data: JSD at the end, as a share of that at the "
            "beginning",
            source="Figure 1 (d)",
            measured=end / start,
            low=0,
            high=0.1,
            kind="trained",
        ),
    ]
    drawing = Drawing(
        svg=figures.four_panels(found),
        alt="Four panels: near convergence; D trained alone; G following D; the end of training.",
        caption="D (dashed), data (dotted) and p_g (solid); arrows lead from evenly spaced z, "
        "below, to x = G(z). Where they crowd, p_g is high. In (c) G has gone where D was "
        "highest, and past the data: D follows in turn.",
    )
    text = (
        f"Images of one pixel, data N(0.5, 0.15), z uniform on a line, {found.converged.step:,} "
        f"updates of Algorithm 1 as everywhere in this package. p_g is drawn by Gaussians of "
        f"width {BANDWIDTH:g} around 20,001 samples. The divergence is {start:.3f} nats at the "
        f"beginning and {end:.3f} at the end."
    )
    uri = f"data:image/gif;base64,{movie}"
    return claims, Section(title="Figure 1", text=text, drawings=[drawing], movie=uri)


def _distance_from_optimum(found: Figure1) -> float:
    """Mean of |D - D*| under half of each density, of panel (b)."""
    moment = found.best_response
    weight = moment.p_data + moment.p_g
    closed = optimal_discriminator(moment.p_data, moment.p_g)
    distance = ((moment.D - closed).abs() * weight).sum() / weight.sum()
    return float(distance)
