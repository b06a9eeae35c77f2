"""The stages of `gan run`: data -> sweep -> evaluate -> promote -> (extend ->) report."""

import dataclasses
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gan.config import NAMED, PipelineConfig, to_dict
from gan.datasets.folders import holds_pictures
from gan.datasets.published import files_of
from gan.errors import DatasetError
from pipeline.errors import PipelineError
from pipeline.evaluation import Judged, read_evaluation
from pipeline.extensions import EXTENSIONS, config_within
from pipeline.gate import Check
from pipeline.graph import Graph, Outcome, Stage
from pipeline.product import quality_checks
from pipeline.products import product_of
from pipeline.stages import data, evaluate, extend, promote, report, sweep
from tuning.ledger import Ledger, identity, open_ledger
from tuning.replica import joined, storage_uri, subfolders
from tuning.sweep import Watcher
from tuning.tracking import tracking_uri

WORKSPACES = Path("runs")


def main_line(
    config: PipelineConfig,
    *,
    watcher: Watcher | None = None,
    watch: Callable[[PipelineConfig], Watcher] | None = None,
    resume: str | None = None,
) -> Graph:
    """The graph of a configuration, with its workspace under `runs` in the working folder.

    Args:
        config: what to run.
        watcher: told of every report of the sweep.
        watch: makes the watcher of an extension's sweep.
        resume: name of the sweep that must be gone on with; None: whichever has these settings.
    """
    stages = (
        Stage(
            name="data",
            needs=(),
            settings=lambda c: {"data": to_dict(c.base.data)},
            run=data.run,
            # Only by reading a file is it known that the file is the same, and that is the stage.
            is_settled=lambda folder: False,
        ),
        Stage(
            name="sweep",
            needs=("data",),
            settings=identity,
            run=sweep.stage(watcher, resume=resume),
            is_settled=lambda folder: sweep.is_settled(
                folder, time_budget_seconds=config.sweep.time_budget_seconds
            ),
        ),
        Stage(
            name="evaluate",
            needs=("data", "sweep"),
            settings=lambda c: {"evaluation": to_dict(c.base.evaluation)},
            run=evaluate.run,
            reads=lambda c: (*_test_files(c), *_extractor_file(c)),
        ),
        Stage(
            name="promote",
            needs=("data", "sweep", "evaluate"),
            settings=lambda c: {
                "promote": to_dict(c.promote),
                "objective": c.sweep.objective,
                "store": tracking_uri(),
            },
            run=promote.run,
            is_settled=promote.is_settled,
        ),
        *_extend(config, watch),
        Stage(
            name="report",
            needs=("sweep", "evaluate", "promote", *(["extend"] if config.extensions else [])),
            settings=to_dict,
            run=report.run,
        ),
    )
    return Graph(stages, config, WORKSPACES / config.name)


def _extend(
    config: PipelineConfig, watch: Callable[[PipelineConfig], Watcher] | None
) -> list[Stage]:
    """The stage of the extensions, where there are any."""
    if not config.extensions:
        return []

    def line(extension: PipelineConfig) -> Graph:
        return main_line(extension, watcher=watch(extension) if watch else None)

    return [
        Stage(
            name="extend",
            needs=("data", "evaluate", "promote"),
            settings=lambda c: {name: to_dict(config_within(c, name)) for name in c.extensions},
            run=extend.stage(line),
            is_settled=lambda folder: extend.is_settled(
                line, config, WORKSPACES / config.name / "promote"
            ),
            reads=lambda c: (*_test_files(c), *_extractor_file(c)),
        )
    ]


def require_test_images(config: PipelineConfig) -> None:
    """Refuse a data set whose test images are not there, without opening them.

    `evaluate` would refuse it, too, but only after the whole sweep.  That the training images are
    not there is for the first stage to tell, which reads them.

    Raises:
        DatasetError: naming the setting.
    """
    data = config.base.data
    if data.root is not None:
        missing = [file for file in _test_files(config) if not file.is_file()]
        if missing:
            raise DatasetError(f"data.root must have the test images, too: no {missing[0]}")
    elif not (data.dataset in NAMED or data.is_folded) and Path(data.dataset).exists():
        path = None if data.test_path is None else Path(data.test_path)
        if path is None or not (path.is_file() or holds_pictures(path)):
            raise DatasetError(
                f"data.test_path must be a .parquet or .npz file, or a folder of pictures, with "
                f"test images for {data.dataset}, got {data.test_path}"
            )


def _test_files(config: PipelineConfig) -> tuple[Path, ...]:
    """The files with the test images, those of a folder of pictures each."""
    data = config.base.data
    if data.root is not None:
        return files_of(data.dataset, "test", root=Path(data.root))
    if data.test_path is None:
        return ()
    path = Path(data.test_path)
    return tuple(sorted(path.rglob("*"))) if path.is_dir() else (path,)


def _extractor_file(config: PipelineConfig) -> tuple[Path, ...]:
    """The source of the user's own extractor; what it reads in its turn is not known."""
    name = config.base.evaluation.extractor
    if name == "auto":
        return ()
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except (ImportError, ValueError):  # for the stage to tell
        return ()
    return (Path(spec.origin),) if spec and spec.origin else ()


def find_sweep(name: str) -> Ledger:
    """The sweep of that name under the working folder, or in the storage in use.

    Raises:
        PipelineError: if there is none; names those that there are.
    """
    found = {path.name: path for path in sorted(WORKSPACES.glob("*/sweeps/*")) if path.is_dir()}
    uri = storage_uri()
    kept = subfolders(uri) if uri else []
    if name in kept:
        ledger = open_ledger(joined(uri or "", name), role="driver")
        ledger.refresh()
        return ledger
    if name not in found:
        names = [*found, *kept]
        known = f"there are {', '.join(names)}" if names else "there is none in this folder"
        raise PipelineError(f"there is no sweep {name}; {known}")
    return Ledger(found[name])


def summary(graph: Graph, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What came out of the stages that were run or skipped, by name."""
    folders = {outcome.stage: outcome.folder for outcome in outcomes}
    result: dict[str, Any] = {}
    if "data" in folders:
        facts = json.loads((folders["data"] / data.FACTS).read_text())
        told = facts if folders.keys() == {"data"} else ("notice",)
        result |= {key: facts[key] for key in told if key in facts}
    if "sweep" in folders:
        winner = json.loads((folders["sweep"] / "winner.json").read_text())
        result |= {key: winner[key] for key in ("sweep", "trial", "run_id")}
        metric = graph.config.sweep.objective
        result[metric] = winner["best"][metric]
    if "evaluate" in folders:
        scores = json.loads((folders["evaluate"] / evaluate.SCORES).read_text())
        result |= product_of(graph.config.base).told_of(scores)
    if "promote" in folders:
        promotion = json.loads((folders["promote"] / promote.PROMOTION).read_text())
        result |= {key: promotion[key] for key in ("outcome", "model", "version", "reason")}
        artifact = folders["promote"] / promote.ARTIFACT
        if artifact.is_dir():
            result |= {"generator": str(artifact), "samples": str(artifact / "samples.png")}
    if "extend" in folders:
        told = json.loads((folders["extend"] / EXTENSIONS).read_text())
        result["extensions"] = {extension["task"]: extension["outcome"] for extension in told}
    if "report" in folders:
        result["report"] = str(folders["report"] / report.PAGE)
    return result


def judged_winner(graph: Graph) -> Judged:
    """The scores of the winner on validation images, and what the gate's checks make of them."""
    config = graph.config
    evaluation, _ = read_evaluation(graph.folder("evaluate"))
    winner = json.loads((graph.folder("sweep") / "winner.json").read_text())
    checks = quality_checks(product_of(config.base), evaluation, config.promote.limits)
    return Judged(
        evaluation=evaluation,
        checks=tuple(checks),
        split="valid",
        run_id=winner["run_id"],
    )


def refusals(graph: Graph, outcomes: Sequence[Outcome]) -> list[Check]:
    """The checks of the gate that the winner, or that of an extension, did not pass."""
    stages = {outcome.stage for outcome in outcomes}
    asked = {}
    if "promote" in stages:
        asked[""] = json.loads((graph.folder("promote") / promote.PROMOTION).read_text())
    if "extend" in stages:
        told = json.loads((graph.folder("extend") / EXTENSIONS).read_text())
        asked |= {f"{extension['task']}: ": extension for extension in told}
    return [
        dataclasses.replace(Check(**check), name=f"{whose}{check['name']}")
        for whose, promotion in asked.items()
        for check in promotion["checks"]
        if not check["passed"]
    ]
