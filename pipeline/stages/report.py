"""One page about the sweep, its winner and the gate's decision."""

import json

from gan.config import to_dict
from pipeline.evaluation import PICTURES, read_evaluation
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
    page = render_report(
        name=winner["sweep"],
        config=to_dict(work.config),
        trials=json.loads((sweep / "trials.json").read_text()),
        scores=json.loads((evaluate / SCORES).read_text()),
        evaluation=evaluation,
        promotion=json.loads((work.inputs["promote"] / PROMOTION).read_text()),
        pictures={file.name: file.read_bytes() for file in (evaluate / PICTURES).glob("*.png")},
        best_trial=winner["trial"],
        mlflow_hint="gan ui",
    )
    (work.out / PAGE).write_text(page, encoding="utf-8")
