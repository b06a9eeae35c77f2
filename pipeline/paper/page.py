"""The page: claims of the paper, what came of each, and what it was run by."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from gan.version import __version__
from pipeline.evaluation import PICTURES
from pipeline.paper.deviations import DEVIATIONS
from pipeline.paper.difficulties import MODELS, OPERATIONS
from pipeline.paper.faces import PAPER as PAPER_FACES
from pipeline.paper.faces import SMALL_NOTICE, TITLES
from pipeline.paper.parts import FAILURE
from pipeline.paper.subjects import Budget, Subject
from pipeline.report_page import REAL_IMAGES, embedded_picture, page_environment
from pipeline.theory import Claim, Drawing, Section

Results = Mapping[str, Mapping[str, Any]]
"""By name of the part."""

FIGURES = {
    "nearest": "Figure 2: samples, each with the nearest training image on its right",
    "straight": "Figure 3: along straight lines in z",
}
REAL_FRECHET = 0.42
"""Distance of 10,000 training images of MNIST from the test images: `frechet_distance_real`."""
TABLE_1_FACES = (
    "DBN 1909 ± 66, stacked CAE 2110 ± 50, deep GSN 1890 ± 29, adversarial nets 2057 ± 26"
)
EXTENSIONS: dict[str, tuple[str, Sequence[int]]] = {
    "conditional": ("p(x | c): c goes into G and D", ()),
    "inference": ("a net that predicts z given x", (8,)),
    "shared_conditional": ("one model of all conditionals", (9,)),
    "semi_supervised": ("features of D, or of that net, where labels are few", (10,)),
    "learned_prior": ("a better distribution of z during training", (11,)),
}
"""Presets of section 7's five, in its order: what each is, and numbers of its deviations."""


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
class LeftOut:
    """Something that the page does without."""

    title: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Number:
    """A score over the seeds of a row.

    Attributes:
        mean: over seeds.
        error: of one seed the standard error over test images, of several that of the mean.
    """

    mean: float
    error: float | None

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
        return Number(mean=values[0], error=found[0][1])
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Number(mean=statistics.fmean(values), error=error)


def claims_of(results: Results) -> list[Claim]:
    """The claims of the theory; none where that part failed."""
    return [Claim(**claim) for claim in results["theory"].get("claims", ())]


def render_paper(
    rows: Sequence[Row],
    results: Results,
    *,
    budget: Budget,
    left: Sequence[LeftOut],
    pictures: Mapping[str, bytes],
) -> str:
    """The page, which refers to nothing outside itself.

    Args:
        rows: subjects as they were run.
        results: by name of the part; see `pipeline.paper.parts.do`.
        budget: how much was trained.
        left: what was left out, and why.
        pictures: PNG files by `part/folder/picture`.
    """
    theory = results["theory"]
    claims = claims_of(results)
    models = [_model(row, results, pictures, budget) for row in rows]
    mnist = [model for model in models if model["subject"].data == "mnist"]
    drawn = [model for model in models if model["subject"].is_drawn and model["pictures"]]
    template = page_environment().get_template("paper.html.j2")
    return template.render(
        budget=budget,
        claims=claims,
        n_held=sum(claim.holds for claim in claims),
        sections=[_section(section) for section in theory.get("sections", ())],
        mnist=mnist,
        drawn=drawn,
        faces=_faces(results.get("faces"), pictures),
        paper_faces=PAPER_FACES,
        table_1_faces=TABLE_1_FACES,
        real_images=REAL_IMAGES,
        real_frechet=REAL_FRECHET,
        cuts=[(m["subject"].title, m["subject"].cut()) for m in models if budget == "quick"],
        extensions=EXTENSIONS,
        failures=[(name, r[FAILURE]) for name, r in results.items() if FAILURE in r],
        left=left,
        figures=FIGURES,
        kinds=MODELS,
        operations=OPERATIONS,
        anchors={f"subject-{m['subject'].name}" for m in (*mnist, *drawn)},
        deviations=[_code(text) for text in DEVIATIONS],
        seconds=sum(r.get("seconds", 0) for r in results.values()),
        version=__version__,
    )


def _model(
    row: Row, results: Results, pictures: Mapping[str, bytes], budget: Budget
) -> dict[str, Any]:
    done = [name for name in row.parts if FAILURE not in results[name]]
    own = [results[name] for name in done]
    refused = [name for result in own for name in result["refused_by"] or ()]
    parzen = number_of(own, "parzen_ll")
    ceiling = REAL_IMAGES.score + 2 * REAL_IMAGES.standard_error
    folder = f"{done[0]}/{PICTURES}" if done else ""
    return {
        "subject": row.subject,
        "command": row.command,
        "deviations": row.subject.departs(budget),
        "seeds": ", ".join(name.rsplit("-", 1)[1] for name in done),
        "parzen": parzen,
        "is_smooth": parzen is not None and parzen.mean > ceiling,
        "frechet": number_of(own, "frechet_distance"),
        "sigma": number_of(own, "parzen_sigma"),
        "is_judged": bool(own) and all(result["refused_by"] is not None for result in own),
        "refused_by": sorted(set(refused)),
        "step": own[0]["step"] if own else None,
        "runs": [result["run_id"] for result in own],
        "pictures": {
            name: embedded_picture(name, pictures[f"{folder}/{name}"])
            for name in ("samples", *FIGURES)
            if f"{folder}/{name}" in pictures
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
            "number": Number(mean=mean, error=error),
            "folds": stage["folds"],
            "pictures": {
                name: embedded_picture(name, pictures[f"faces/{PICTURES}-{number}/{name}"])
                for name in FIGURES
            },
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
