"""An evaluation as a person reads it: scores with intervals, checks with verdicts."""

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from gan.evaluation.score import Score
from gan.evaluation.suite import Evaluation
from pipeline.gate import Check

ANCHORS = {
    "parzen_ll": "parzen_ll_real",
    "frechet_distance": "frechet_distance_real",
    "precision": "precision_real",
    "recall": "recall_real",
    "density": "density_real",
    "coverage": "coverage_real",
    "authenticity": "authenticity_test",
    "authenticity_pixels": "authenticity_test_pixels",
    "grey_share": "grey_share_real",
}
"""Score -> that of real images in place of samples, or of the scored images themselves."""


def rows(evaluation: Evaluation) -> list[tuple[Score, Score | None]]:
    """Each score, with that of real images where it was taken; these have no rows of their own."""
    scores = evaluation.scores
    return [
        (score, scores.get(ANCHORS.get(name, "")))
        for name, score in scores.items()
        if name not in ANCHORS.values()
    ]


def unavailable_parts(evaluation: Evaluation) -> dict[str, list[str]]:
    """Reason -> the parts that could not be taken for it: several lack the same of samples."""

    def why(part: str) -> str:
        return evaluation.unavailable[part]

    by_reason = sorted(evaluation.unavailable, key=why)
    return {reason: list(parts) for reason, parts in groupby(by_reason, key=why)}


def print_evaluation(
    evaluation: Evaluation, checks: Sequence[Check], *, title: str, console: Console
) -> None:
    """Print both tables."""
    heading = Text(title)
    scores = Table(
        title=heading, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False
    )
    scores.add_column("score", overflow="fold")  # where room is short, names give way: no number
    scores.add_column("value", justify="right", no_wrap=True)
    scores.add_column("95 % interval", no_wrap=True)
    scores.add_column("real images", justify="right", no_wrap=True)
    for score, real in rows(evaluation):
        unit = f", {score.unit}" if score.unit == "nats" else ""
        interval = f"{_text(score.low)} to {_text(score.high)}"
        anchor = "" if real is None else _text(real.value)
        scores.add_row(f"{score.name}{unit}", _text(score.value), interval, anchor)
    verdicts = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    verdicts.add_column("check", no_wrap=True)
    verdicts.add_column("verdict", no_wrap=True)
    verdicts.add_column("why", overflow="fold")
    for check in checks:
        verdict = Text("passed") if check.passed else Text("not passed", style="bold red")
        verdicts.add_row(check.name, verdict, Text(check.reason))  # [1, 8, 8] is no markup
    console.print(Group(scores, Text(), *_unavailable(evaluation), verdicts))


def _unavailable(evaluation: Evaluation) -> list[Text]:
    lines = [
        Text(f"not available: {', '.join(parts)}: {reason}")
        for reason, parts in unavailable_parts(evaluation).items()
    ]
    return [*lines, Text()] if lines else []


def _text(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 1_000 else f"{value:.4g}"
