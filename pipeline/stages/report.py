"""One page about the sweep, its winner and the gate's decision."""

import json
from typing import Any

from gan.config import to_dict
from pipeline.evaluation import PICTURES, read_evaluation
from pipeline.extensions import EXTENSIONS
from pipeline.graph import Work
from pipeline.stages.evaluate import SCORES
from pipeline.stages.promote import PROMOTION

PAGE = "report.html"


def run(work: Work) -> None:
    """Write `report.html`, which needs no other file."""
    # It takes half a second to import, which a run that skips this stage should not pay.
    from pipeline.report_page import render_report

    sweep, evaluate = work.inputs["sweep"], work.inputs["evaluate"]
    winner = json.loads((sweep / "winner.json").read_text())
    evaluation, _ = read_evaluation(evaluate)
    extensions, pictures_of_extensions = _extensions(work)
    page = render_report(
        name=winner["sweep"],
        config=to_dict(work.config),
        trials=json.loads((sweep / "trials.json").read_text()),
        scores=json.loads((evaluate / SCORES).read_text()),
        evaluation=evaluation,
        promotion=json.loads((work.inputs["promote"] / PROMOTION).read_text()),
        pictures={file.name: file.read_bytes() for file in (evaluate / PICTURES).glob("*.png")},
        best_trial=winner["trial"],
        extensions=extensions,
        extension_pictures=pictures_of_extensions,
        mlflow_hint="gan ui",
    )
    (work.out / PAGE).write_text(page, encoding="utf-8")


def _extensions(work: Work) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """What came out of each extension, and their pictures by file name."""
    if "extend" not in work.inputs:
        return [], {}
    folder = work.inputs["extend"]
    told = json.loads((folder / EXTENSIONS).read_text())
    return told, {file.name: file.read_bytes() for file in folder.glob("*.png")}
