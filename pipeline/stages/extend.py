"""Run the paper's extensions on the images of this run, each as a main line of its own."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gan.config import PipelineConfig
from pipeline.evaluation import PICTURES
from pipeline.extensions import EXTENSIONS, config_within, require_images
from pipeline.graph import Graph, Work
from pipeline.products import product_of
from pipeline.stages.evaluate import SCORES
from pipeline.stages.promote import ARTIFACT, PROMOTION
from pipeline.stages.report import PAGE
from pipeline.starts import pin

logger = logging.getLogger(__name__)

Line = Callable[[PipelineConfig], Graph]
"""The main line of a configuration."""


def pinned(parent: PipelineConfig, name: str, promoted: Path) -> PipelineConfig:
    """The configuration of an extension behind a generator.

    Args:
        parent: the run of the generator.
        name: of the extension.
        promoted: folder of the stage `promote`.

    Raises:
        ConfigError: as `config_within`, or there is nothing that it can start from.
    """
    artifact = promoted / ARTIFACT
    config = config_within(parent, name)
    own = artifact if artifact.is_dir() else None
    return pin(config, promoted=own, accept=require_images)


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
        generators = json.loads((work.inputs["evaluate"] / SCORES).read_text())
        for name in work.config.extensions:
            graph = line(pinned(work.config, name, work.inputs["promote"]))
            for outcome in graph.run():
                state = "unchanged" if outcome.is_skipped else "done"
                logger.info("%s: %s %s, %s", name, outcome.stage, state, outcome.folder)
            came_to = _outcome(graph, work.out)
            beside = {k: v for k, v in generators.items() if k in came_to["scores"]}
            told.append(came_to | {"generator_scores": beside})
        (work.out / EXTENSIONS).write_text(json.dumps(told, indent=2) + "\n")

    return run


def is_settled(line: Line, config: PipelineConfig, promoted: Path) -> bool:
    """Whether no extension has anything left to do but to read its images again.

    Args:
        line: as of `stage`.
        config: the run of the generator.
        promoted: folder of the stage `promote`.
    """
    for name in config.extensions:
        plan = line(pinned(config, name, promoted)).plan()
        if any(would_run for stage, would_run in plan.items() if stage != "data"):
            return False
    return True


def _outcome(graph: Graph, out: Path) -> dict[str, Any]:
    """What an extension came to, as JSON values."""
    task = graph.config.base.task
    promotion = json.loads((graph.folder("promote") / PROMOTION).read_text())
    scores = json.loads((graph.folder("evaluate") / SCORES).read_text())
    product = product_of(graph.config.base)
    drawn = graph.folder("evaluate") / PICTURES / product.picture
    picture = None
    if drawn.is_file():
        picture = f"{task}.png"
        shutil.copy(drawn, out / picture)
    return {
        "task": task,
        "name": graph.config.name,
        "picture": picture,
        "scores": product.told_of(scores),
        "report": str(graph.folder("report") / PAGE),
        **{key: promotion[key] for key in ("outcome", "model", "version", "reason", "checks")},
    }
