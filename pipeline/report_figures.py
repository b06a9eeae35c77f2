"""Figures of the report, each one inline SVG: same data, same bytes.

A figure knows curves and points, not trials.  Colours are Okabe and Ito's, and whatever a colour
says a shape or a line style says too.  Text stays text: it can be searched, read out and scaled.
"""

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import matplotlib.style
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

Status = Literal["finished", "stopped", "failed"]

BLUE, VERMILLION = "#0072B2", "#D55E00"
INK, GREY, PALE = "#2b2f36", "#8a8f98", "#e3e6ea"

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gan report",
    "text.parse_math": False,  # a `$` in the name of a setting is a `$`
    "font.family": "DejaVu Sans",  # comes with matplotlib, so text is measured alike everywhere
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}
WIDE, SMALL = (6.0, 3.4), (4.4, 3.1)
"""Inches, at 72 units of the SVG each: text of 10 units is legible on a phone and not coarse on a
laptop, because the page lays two or three figures side by side where there is room."""

MAX_POINTS = 200
"""Of one curve: keeps the page of a sweep of 64 long trials under 1.5 MB."""
MAX_STRIPS = 6
"""More distinct numbers than this get a numeric axis, fewer get one strip each."""

LEGEND_ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3, "borderpad": 0}


class Reference(NamedTuple):
    """One row of `score_in_context`; the score in nats."""

    label: str
    score: float
    standard_error: float
    is_ours: bool = False


class Curve(NamedTuple):
    """One trial against its updates of G."""

    label: str
    steps: Sequence[int]
    values: Sequence[float]
    errors: Sequence[float] = ()
    """Standard errors of `values`, drawn for the winner; empty: none."""
    status: Status = "finished"
    is_winner: bool = False

    def reach(self) -> list[float]:
        """The values, and the two ends of each standard error."""
        ends = zip(self.values, self.errors, strict=False)
        return [*self.values, *(end for v, error in ends for end in (v - error, v + error))]


class Point(NamedTuple):
    """One trial against one of its settings."""

    label: str
    x: Any
    score: float | None
    standard_error: float
    status: Status = "finished"
    is_winner: bool = False


class ClassShare(NamedTuple):
    """Of one class: its share of the samples, and of the data."""

    name: str
    share: float
    real_share: float


def score_in_context(references: Sequence[Reference]) -> Markup:
    """One row per model, the best on top, with two standard errors to either side."""
    rows = sorted(references, key=lambda reference: reference.score)
    with matplotlib.style.context(["default", STYLE]):
        figure, axes = _panel((WIDE[0], 0.9 + 0.3 * len(rows)))
        for y, row in enumerate(rows):
            color, marker = (BLUE, "D") if row.is_ours else (INK, "o")
            axes.errorbar(row.score, y, xerr=2 * row.standard_error, fmt=marker, color=color, ms=6)
            text = f"{row.score:.1f} ± {row.standard_error:.1f}"
            axes.annotate(
                text, (1.01, y), xycoords=("axes fraction", "data"), va="center", color=color
            )
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
            if row.is_ours:
                tick.set(color=BLUE, fontweight="bold")
        axes.set(ylim=(-0.6, len(rows) - 0.4), xlabel="nats, more is better")
        axes.tick_params(axis="y", length=0)
        return svg(figure, "context", {})


def learning_curves(
    name: str,
    curves: Sequence[Curve],
    *,
    ylabel: str,
    limits: tuple[float, float],
    level: tuple[float, str] | None = None,
) -> Markup:
    """All trials over the updates of G: the winner in blue, the others behind it in grey.

    Args:
        name: of the figure, unique on the page.
        curves: at least one; their order does not show.
        ylabel: quantity and unit.
        limits: of the vertical axis; what lies outside is cut off.
        level: a height to mark with a dashed line, and its name.
    """
    with matplotlib.style.context(["default", STYLE]):
        figure, axes = _panel(WIDE)
        if level is not None:
            _mark_level(axes, *level)
        titles = {f"curve-{i}": curve.label for i, curve in enumerate(curves)}
        for gid, curve in zip(titles, curves, strict=True):
            _draw_curve(axes, curve, gid=gid)
        axes.set(ylim=limits, ylabel=ylabel)
        _label_steps(axes)
        if any(curve.is_winner for curve in curves):
            axes.legend(**LEGEND_ABOVE)
        return svg(figure, name, titles)


def discriminator_answers(real: Curve, fake: Curve) -> Markup:
    """D(x) and D(G(z)) of one trial over the updates of G, with the line at 1/2."""
    with matplotlib.style.context(["default", STYLE]):
        figure, axes = _panel(WIDE)
        _mark_level(axes, 0.5, "1/2")
        for curve, color, style in ((real, BLUE, "-"), (fake, VERMILLION, "-.")):
            steps, values = _thin(curve.steps), _thin(curve.values)
            axes.plot(steps, values, color=color, ls=style, lw=1.8, label=curve.label)
        axes.set(ylim=(-0.02, 1.02), ylabel="mean answer of D")
        _label_steps(axes)
        axes.legend(**LEGEND_ABOVE)
        return svg(figure, "answers", {})


def score_by_setting(
    name: str,
    points: Sequence[Point],
    *,
    xlabel: str,
    ylabel: str,
    limits: tuple[float, float],
    is_larger_better: bool,
    is_log: bool = False,
) -> Markup:
    """The best score of every trial against one setting, with its standard error.

    Words, lists and few distinct numbers get one strip each; other numbers a numeric axis.  A
    point without a score, or with a worse one than `limits` hold, lies on their worse edge: the
    lower one if larger is better, else the upper one.
    """
    edge = limits[0] if is_larger_better else limits[1]
    with matplotlib.style.context(["default", STYLE]):
        figure, axes = _panel(SMALL)
        positions = _strips(axes, points) or _numbers(axes, points, is_log=is_log)
        titles = {f"point-{i}": point.label for i, point in enumerate(points)}
        for gid, x, point in zip(titles, positions, points, strict=True):
            _draw_point(axes, x, point, limits=limits, edge=edge, gid=gid)
        axes.set(ylim=limits, xlabel=xlabel, ylabel=ylabel)
        return svg(figure, name, titles)


def class_shares(classes: Sequence[ClassShare], *, starved_fraction: float) -> Markup:
    """One bar per class for the samples, with a line at the data's share across it.

    Args:
        classes: at least one.
        starved_fraction: of the data's share; where a class is starved, as a dotted line.
    """
    places = range(len(classes))
    levels = [100 * row.real_share for row in classes]
    with matplotlib.style.context(["default", STYLE]):
        figure, axes = _panel(WIDE)
        heights = [100 * row.share for row in classes]
        handles = [axes.bar(places, heights, 0.6, color=BLUE, alpha=0.75, label="samples")]
        for height, style, label in (
            (1.0, {"color": INK, "lw": 2}, "validation images"),
            (starved_fraction, {"color": VERMILLION, "lw": 1.5, "ls": ":"}, "starved below"),
        ):
            ys = [height * level for level in levels]
            left, right = ([x + side for x in places] for side in (-0.42, 0.42))
            handles.append(axes.hlines(ys, left, right, label=label, **style))
        is_crowded = sum(len(row.name) + 1 for row in classes) > 60
        axes.set_xticks(places, [row.name for row in classes], rotation=90 if is_crowded else 0)
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="class, by the classifier", ylabel="share, %")
        axes.set_ylim(bottom=0)
        axes.legend(handles=handles, **LEGEND_ABOVE)
        return svg(figure, "classes", {})


def score_limits(
    scores: Sequence[float],
    *,
    spreads: float,
    is_larger_better: bool,
    shown: Sequence[float] = (),
) -> tuple[float, float]:
    """An axis from the best score to `spreads` times as far as the median lies from it.

    A trial that collapsed scores hundreds of nats below the others and would flatten them.

    Args:
        scores: at least one.
        spreads: how much room is left to the scores worse than the median; with 2 at least half
            of the scores lie in the better half.
        is_larger_better: direction of the score.
        shown: heights that must not be cut off.
    """
    sign = 1 if is_larger_better else -1
    merits = sorted(sign * score for score in scores)
    best, median = merits[-1], merits[len(merits) // 2]
    worst = max(merits[0], best - spreads * (best - median))
    return with_margin([sign * worst, sign * best, *shown])


def with_margin(values: Sequence[float]) -> tuple[float, float]:
    """The range of `values` and a little room on either side."""
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _panel(size: tuple[float, float]) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def _mark_level(axes: Any, height: float, name: str) -> None:
    axes.axhline(height, color=INK, ls="--", lw=1, zorder=1)
    axes.annotate(
        name,
        (1.01, height),
        xycoords=("axes fraction", "data"),
        va="center",
        annotation_clip=False,
    )


def _label_steps(axes: Any) -> None:
    axes.set_xlabel("step (updates of G)")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def _draw_curve(axes: Any, curve: Curve, *, gid: str) -> None:
    steps, values = _thin(curve.steps), _thin(curve.values)
    if curve.is_winner:
        if curve.errors:
            ends = list(zip(values, _thin(curve.errors), strict=True))
            low, high = [v - error for v, error in ends], [v + error for v, error in ends]
            axes.fill_between(steps, low, high, color=BLUE, alpha=0.2, lw=0)
        axes.plot(steps, values, color=BLUE, lw=2.2, zorder=3, label=curve.label, gid=gid)
    else:
        axes.plot(steps, values, color=GREY, lw=1, alpha=0.6, zorder=2, gid=gid)
    axes.plot(steps[-1], values[-1], zorder=4, **_marker(curve.status, is_winner=curve.is_winner))


def _draw_point(
    axes: Any, x: float, point: Point, *, limits: tuple[float, float], edge: float, gid: str
) -> None:
    style = _marker(point.status, is_winner=point.is_winner)
    if point.score is None or not limits[0] <= point.score <= limits[1]:
        axes.plot(x, edge, clip_on=False, zorder=4, gid=gid, **style)
        return
    low, high = point.score - point.standard_error, point.score + point.standard_error
    axes.vlines(x, low, high, color=style["color"], lw=1)
    axes.plot(x, point.score, zorder=4 + point.is_winner, gid=gid, **style)


def _marker(status: Status, *, is_winner: bool) -> dict[str, Any]:
    """One shape per status, and the diamond for the winner; the page's captions say the same."""
    if is_winner:
        return {"marker": "D", "ms": 7, "color": BLUE, "ls": "none"}
    shape = {"marker": "x" if status == "failed" else "o", "ms": 5}
    face = "white" if status == "stopped" else "#5c626b"
    return {**shape, "color": "#5c626b", "mfc": face, "ls": "none"}


def _strips(axes: Any, points: Sequence[Point]) -> list[float]:
    """One place per distinct value, points side by side; nothing if the axis must be numeric."""
    are_numbers = all(_is_number(point.x) for point in points)
    distinct = {setting_text(point.x): point.x for point in points}
    if are_numbers and len(distinct) > MAX_STRIPS:
        return []
    names = sorted(distinct, key=lambda name: distinct[name] if are_numbers else name)
    labels = [name if len(name) <= 20 else f"{name[:19]}…" for name in names]
    is_crowded = sum(map(len, labels)) > 34
    axes.set_xticks(
        range(len(names)),
        labels,
        rotation=25 if is_crowded else 0,
        ha="right" if is_crowded else "center",
        rotation_mode="anchor" if is_crowded else "default",
    )
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.grid(visible=False, axis="x")
    positions = {}
    for column, name in enumerate(names):
        members = [i for i, point in enumerate(points) if setting_text(point.x) == name]
        gap = min(0.12, 0.7 / len(members))
        for place, i in enumerate(members):
            positions[i] = column + gap * (place - (len(members) - 1) / 2)
    return [positions[i] for i in range(len(points))]


def _numbers(axes: Any, points: Sequence[Point], *, is_log: bool) -> list[float]:
    if is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: ""))
    return [float(point.x) for point in points]


def setting_text(value: Any) -> str:
    """A setting as a person writes it; a fraction to four digits."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(setting_text(part) for part in value)}]"
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _thin(values: Sequence[Any]) -> list[Any]:
    """Evenly many of `values` with the last one, at most MAX_POINTS + 1."""
    stride = -(-len(values) // MAX_POINTS)
    kept = list(values[::stride])
    return kept if (len(values) - 1) % stride == 0 else [*kept, values[-1]]


def svg(figure: Figure, name: str, titles: Mapping[str, str]) -> Markup:
    """The figure as an `svg` element that may stand beside others in one page.

    Every id gets the figure's name in front; coordinates keep two decimals; namespaces, which an
    HTML parser supplies itself, go.  `titles` become the hints of the groups with these ids.
    """
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    figure.savefig(buffer, format="svg", metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace("xlink:href", "href")
    svg = re.sub(r'<svg [^>]*(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', svg)
    svg = re.sub(r' d="([^"]*)"', lambda path: _rounded(path[0]), svg)
    for gid, title in titles.items():
        group = f'<g id="{gid}">'
        svg = svg.replace(group, f"{group}<title>{html.escape(title)}</title>")
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return Markup(svg)  # noqa: S704 - matplotlib escapes the texts, and the hints are escaped above


def _rounded(path: str) -> str:
    return re.sub(r"(\.\d\d)\d+", r"\1", path)
