"""Figures of section 4 of the paper and of its Figure 1, inline SVG but for the animation."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.style
import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from PIL import Image
from torch import Tensor

from gan.one_dimension import Figure1, Moment
from pipeline.report_figures import BLUE, GREY, INK, LEGEND_ABOVE, STYLE, VERMILLION, WIDE, svg

GREEN = "#009E73"
N_LINES = 16
"""From z to x, evenly spaced in z."""
N_FRAMES, FRAME_MS = 50, 120
HEIGHT = 1.6
"""Of the densities' axis, in heights of the data's density."""

PANELS = {
    "near": "(a) near convergence",
    "best_response": "(b) D trained alone",
    "moved": "(c) G follows D",
    "converged": "(d) the end of training",
}


def four_panels(figure1: Figure1) -> Markup:
    """Figure 1: D dashed, data dotted, p_g solid; below, the lines from z to x = G(z)."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        columns = figure.subplots(2, 4, sharey="row", height_ratios=(3, 1))
        for i, (name, title) in enumerate(PANELS.items()):
            moment = getattr(figure1, name)
            _draw(columns[0, i], columns[1, i], moment)
            columns[0, i].set_title(f"{title}\nJSD {moment.divergence:.3f} nats", fontsize=10)
        columns[0, 0].set_ylabel("density, and D(x)")
        _legend(figure, columns[0, 0])
        return svg(figure, "figure1", {})


def animation(path: Sequence[Moment]) -> bytes:
    """The same picture from the beginning to the end of training, a GIF."""
    frames = []
    with matplotlib.style.context(["default", STYLE]):
        for moment in (path[i] for i in _spread(len(path), N_FRAMES)):
            figure = Figure(figsize=(5, 4), dpi=80, layout="constrained")
            above, below = figure.subplots(2, 1, height_ratios=(3, 1))
            _draw(above, below, moment)
            above.set_title(f"update {moment.step:,}, JSD {moment.divergence:.3f} nats")
            _legend(figure, above)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png")
            frames.append(Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE))
    moving = io.BytesIO()
    frames[0].save(
        moving, "GIF", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0
    )
    return moving.getvalue()


def descent(name: str, curves: Mapping[str, Sequence[float]], *, ylabel: str) -> Markup:
    """A quantity against the updates of p_g, a curve for each k, on a logarithmic axis.

    Args:
        name: of the figure, unique on the page.
        curves: k -> a value a step, positive.
        ylabel: quantity and unit.
    """
    styles = [(BLUE, "-"), (VERMILLION, "-."), (GREEN, "--"), (GREY, (0, (1, 1))), (INK, ":")]
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=WIDE, layout="constrained")
        axes = figure.subplots()
        for (label, values), (color, style) in zip(curves.items(), styles, strict=False):
            axes.plot(values, color=color, ls=style, lw=1.8, label=label)
        axes.set(yscale="log", ylabel=ylabel, xlabel="updates of p_g")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0e}"))
        axes.legend(**LEGEND_ABOVE | {"ncols": len(curves)}, fontsize=9)
        return svg(figure, name, {})


def closed_and_trained(
    x: Tensor, closed: Tensor, trained: Tensor, p_data: Tensor, p_g: Tensor
) -> Markup:
    """D* of Proposition 1 and a trained D, with both densities; [n] each."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=WIDE, layout="constrained")
        axes = figure.subplots()
        axes.plot(x, p_data, color=INK, ls=":", lw=1.6, label="p_data")
        axes.plot(x, p_g, color=GREEN, lw=1.6, label="p_g")
        axes.plot(x, closed, color=BLUE, ls="--", lw=1.8, label="D* in closed form")
        axes.plot(
            x[::40], trained[::40], color=VERMILLION, ls="", marker="o", ms=4, label="D trained"
        )
        axes.set(xlabel="x", ylim=(-0.02, 1.02))
        axes.legend(**LEGEND_ABOVE | {"ncols": 4})
        return svg(figure, "optimal-discriminator", {})


def collapse(tables: Mapping[int, Tensor], p_data: Tensor) -> Markup:
    """p_g after some updates against a D that stays, over the data's distribution; [n] each."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=WIDE, layout="constrained")
        panels = figure.subplots(1, len(tables), sharey=True)
        for axes, (step, p_g) in zip(panels, tables.items(), strict=True):
            places = range(len(p_data))
            axes.bar(places, p_g.tolist(), color=GREEN, width=0.8)
            axes.plot(places, p_data.tolist(), color=INK, ls="", marker="_", ms=9, mew=1.8)
            axes.set(title=f"{step} updates", xticks=[], ylim=(0, 1))
            axes.title.set_fontsize(10)
        panels[0].set_ylabel("probability")
        return svg(figure, "collapse", {})


def _legend(figure: Figure, axes: Any) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)


def _draw(above: Any, below: Any, moment: Moment) -> None:
    top = HEIGHT * moment.p_data.max().item()
    above.plot(moment.x, moment.p_data, color=INK, ls=":", lw=1.8, label="p_data")
    above.plot(moment.x, moment.p_g, color=GREEN, lw=1.8, label="p_g")
    # On its own scale, 0 to 1 over the height of the panel, as the paper draws it.
    above.plot(moment.x, moment.D * top, color=BLUE, ls="--", lw=1.8, label="D, 1 at the top")
    above.set(xlim=(0, 1), ylim=(0, top), xticklabels=[], yticks=[])
    z = moment.z / moment.z.abs().max() / 2 + 0.5
    for i in torch.linspace(0, len(z) - 1, N_LINES).long():
        below.annotate(
            "",
            (moment.G[i].item(), 1),
            (z[i].item(), 0),
            arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 0.8, "shrinkA": 0, "shrinkB": 0},
        )
    below.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[0, 1], yticklabels=["z", "x"])
    below.tick_params(length=0)
    below.grid(visible=False)


def _spread(n: int, most: int) -> list[int]:
    """Evenly many of n places, both ends among them."""
    return [round(i * (n - 1) / (min(n, most) - 1)) for i in range(min(n, most))]
