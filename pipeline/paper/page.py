"""The page: claims of the paper, what came of each, and what it was run by."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from gan.version import __version__
from pipeline.paper.deviations import DEVIATIONS
from pipeline.paper.difficulties import MODELS, OPERATIONS
from pipeline.paper.faces import PAPER as PAPER_FACES
from pipeline.paper.faces import SMALL_NOTICE, TITLES
from pipeline.paper.parts import FAILURE
from pipeline.paper.subjects import Budget, Subject
from pipeline.report_page import REAL_IMAGES, embedded_picture, page_environment
from pipeline.theory import Claim, Drawing, Section

Results = Mapping[str, Mapping[str, Any]]

FIGURES = {"nearest": "Figure 2", "straight": "Figure 3"}
PANELS = {"a": "MNIST and its like", "c": "CIFAR-10, connected fully", "d": "convolutional"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A subject as it was run.

    Attributes:
        subject: what it is.
        parts: names of its parts, one a seed.
        command: what trains the first of them by hand.
    """

    subject: Subject
    parts: Sequence[str]
    command: str


@dataclass(frozen=True, kw_only=True)
class Left:
    """Something that the page does without."""

    title: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Number:
    """A score over the seeds of a row.

    Attributes:
        mean: over seeds.
        error: of one seed the standard error over test images, of several that of the mean.
        n_seeds: how many.
    """

    mean: float
    error: float | None
    n_seeds: int

    def __str__(self) -> str:
        digits = 1 if abs(self.mean) >= 10 else 2
        text = f"{self.mean:,.{digits}f}"
        if self.error is not None:
            text += f" ± {self.error:.{digits}f}"
        return text.replace("-", "−")


def number_of(results: Sequence[Mapping[str, Any]], score: str) -> Number | None:
    """A score over the runs of a row that have it; None where none has."""
    found = [r["scores"][score] for r in results if score in r.get("scores", {})]
    if not found:
        return None
    values = [value for value, _ in found]
    if len(values) == 1:
        return Number(mean=values[0], error=found[0][1], n_seeds=1)
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Number(mean=statistics.fmean(values), error=error, n_seeds=len(values))


def render_paper(
    rows: Sequence[Row],
    results: Results,
    *,
    budget: Budget,
    left: Sequence[Left],
    pictures: Mapping[str, bytes],
) -> str:
    """The page, which refers to nothing outside itself.

    Args:
        rows: subjects as they were run.
        results: by name of the part; see `pipeline.paper.parts.do`.
        budget: how much was trained.
        left: what was left out, and why.
        pictures: PNG files by `part/picture`.
    """
    theory = results["theory"]
    claims = [Claim(**claim) for claim in theory.get("claims", ())]
    models = [_model(row, results, pictures) for row in rows]
    template = page_environment().get_template("paper.html.j2")
    return template.render(
        budget=budget,
        claims=claims,
        n_held=sum(claim.holds for claim in claims),
        sections=[_section(section) for section in theory.get("sections", ())],
        mnist=[m for m in models if m["subject"].data == "mnist"],
        models=models,
        shown=[m for m in models if m["subject"].panel is not None],
        faces=_faces(results.get("faces"), pictures),
        paper_faces=PAPER_FACES,
        real_images=REAL_IMAGES,
        cuts=[(m["subject"].title, m["subject"].cut()) for m in models if budget == "quick"],
        failures=[(name, r[FAILURE]) for name, r in results.items() if FAILURE in r],
        left=left,
        figures=FIGURES,
        kinds=MODELS,
        operations=OPERATIONS,
        anchors={f"subject-{m['subject'].name}" for m in models},
        deviations=[_code(text) for text in DEVIATIONS],
        seconds=sum(r.get("seconds", 0) for r in results.values()),
        version=__version__,
    )


def _model(row: Row, results: Results, pictures: Mapping[str, bytes]) -> dict[str, Any]:
    own = [results[name] for name in row.parts if FAILURE not in results[name]]
    refused = [name for result in own for name in result["refused_by"] or ()]
    first = row.parts[0]
    return {
        "subject": row.subject,
        "command": row.command,
        "seeds": ", ".join(name.rsplit("-", 1)[1] for name in row.parts),
        "parzen": number_of(own, "parzen_ll"),
        "frechet": number_of(own, "frechet_distance"),
        "sigma": number_of(own, "parzen_sigma"),
        "is_judged": bool(own) and all(result["refused_by"] is not None for result in own),
        "refused_by": sorted(set(refused)),
        "step": own[0]["step"] if own else None,
        "runs": [result["run_id"] for result in own],
        "pictures": {
            name: embedded_picture(name, pictures[f"{first}/{name}"])
            for name in ("samples", "nearest", "straight")
            if f"{first}/{name}" in pictures
        },
    }


def _faces(
    result: Mapping[str, Any] | None, pictures: Mapping[str, bytes]
) -> dict[str, Any] | None:
    if result is None or FAILURE in result:
        return None
    stages = [
        {
            "title": title,
            "n_steps": n_steps,
            "number": Number(mean=mean, error=error, n_seeds=1),
            "folds": stage["folds"],
            "picture": embedded_picture(title, pictures[f"faces/{number}-faces"]),
        }
        for number, (title, n_steps, stage) in enumerate(
            zip(TITLES, result["n_steps"], result["stages"], strict=True)
        )
        for mean, error in [stage["mean_and_error"]]
    ]
    notices = [result["notice"], SMALL_NOTICE if result["is_small"] else None]
    return {"stages": stages, "notices": [notice for notice in notices if notice]}


def _section(facts: Mapping[str, Any]) -> Section:
    drawings = [
        Drawing(svg=Markup(drawing["svg"]), alt=drawing["alt"], caption=drawing["caption"])  # noqa: S704 - made by `pipeline.theory`
        for drawing in facts["drawings"]
    ]
    return Section(
        title=facts["title"], text=facts["text"], drawings=drawings, movie=facts["movie"]
    )


def _code(text: str) -> Markup:
    """A text whose words between backquotes are code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704
