"""Run the paper's extensions on the images of this run, each as a main line of its own."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gan.config import PipelineConfig
from pipeline.evaluation import HEADLINE_WITH_ERRORS, PICTURES
from pipeline.extensions import EXTENSIONS, config_within
from pipeline.graph import Graph, Work
from pipeline.stages.evaluate import SCORES
from pipeline.stages.promote import PROMOTION
from pipeline.stages.report import PAGE

logger = logging.getLogger(__name__)

PICTURE = {"conditional": "conditions.png"}
"""Task -> the picture of its evaluation that shows what it is for."""

Line = Callable[[PipelineConfig], Graph]
"""The main line of a configuration."""


def stage(line: Line) -> Callable[[Work], None]:
    """The stage, which makes main lines by `line`."""

    def run(work: Work) -> None:
        """Write `extensions.json`, what came out of each, and a picture of each.

        A stage of an extension that is up to date is skipped, as in a run of its own.

        Raises:
            ConfigError: there is no such extension.
            PipelineError, TuningError: as the stages of an extension raise them.
        """
        told = []
        for name in work.config.extensions:
            graph = line(config_within(work.config, name))
            for outcome in graph.run():
                state = "unchanged" if outcome.is_skipped else "done"
                logger.info("%s: %s %s, %s", name, outcome.stage, state, outcome.folder)
            told.append(_outcome(graph, work.out))
        (work.out / EXTENSIONS).write_text(json.dumps(told, indent=2) + "\n")

    return run


def is_settled(line: Line, config: PipelineConfig) -> bool:
    """Whether no extension has anything left to do but to read its images again."""
    for name in config.extensions:
        plan = line(config_within(config, name)).plan()
        if any(would_run for stage, would_run in plan.items() if stage != "data"):
            return False
    return True


def _outcome(graph: Graph, out: Path) -> dict[str, Any]:
    """What an extension came to, as JSON values."""
    task = graph.config.base.task
    promotion = json.loads((graph.folder("promote") / PROMOTION).read_text())
    scores = json.loads((graph.folder("evaluate") / SCORES).read_text())
    picture = PICTURE[task]
    shutil.copy(graph.folder("evaluate") / PICTURES / picture, out / f"{task}.png")
    return {
        "task": task,
        "name": graph.config.name,
        "picture": f"{task}.png",
        "scores": {name: scores[name] for name in HEADLINE_WITH_ERRORS if name in scores},
        "report": str(graph.folder("report") / PAGE),
        **{key: promotion[key] for key in ("outcome", "model", "version", "reason", "checks")},
    }
