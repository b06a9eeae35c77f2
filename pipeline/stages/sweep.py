"""Run the sweep, and take its winner's generator out of its best checkpoint."""

import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gan.checkpoint import Checkpoint, load_checkpoint, load_newest
from gan.config import PipelineConfig, digest
from gan.errors import CheckpointError
from gan.objectives import OBJECTIVES, Objective
from gan.tasks import from_state, save
from pipeline.errors import StageError
from pipeline.evaluation import extractors_folder, prepare_extractor
from pipeline.graph import Work
from pipeline.registry import has_run
from pipeline.stages.data import FACTS
from tuning.ledger import Ledger, best_report, identity, open_ledger, trial_run
from tuning.replica import joined, storage_uri
from tuning.results import best_trial, look_up_runs, results_table
from tuning.sweep import TrialNews, Watcher, run_sweep
from tuning.tracking import tracking_uri

logger = logging.getLogger(__name__)

TRIALS = "trials.json"


def stage(watcher: Watcher | None, *, resume: str | None = None) -> Callable[[Work], None]:
    """The stage, telling `watcher` of every report.

    Args:
        watcher: see `tuning.sweep.run_sweep`; first told of the trials of an earlier run.
        resume: name of the sweep that must be gone on with; None: whichever has these settings.
    """

    def run(work: Work) -> None:
        """Write `results.parquet`, `trials.json`, `winner.json` and the folder `winner`.

        Raises:
            ConfigError: the search space does not fit the configuration.
            StageError: no trial has a score, or the sweep to resume had other images or is in
                another store.
            TuningError: the sweep could not be run, or was interrupted.
        """
        data = json.loads((work.inputs["data"] / FACTS).read_text())
        folder = sweep_folder(work.workspace, work.config, data_digest=data["train_digest"])
        if resume not in (None, folder.name):
            raise StageError(
                f"{resume} cannot go on: the images or the settings' defaults are no longer those "
                f"it was run with; without --resume they begin a sweep of their own",
                stage="sweep",
            )
        ledger = sweep_ledger(folder)
        ledger.refresh()
        best = best_trial(ledger.results())
        if best is not None and best.run_id:
            _require_run(best.run_id, ledger.name, workspace=work.workspace, stage="sweep")
        _announce(ledger, watcher, OBJECTIVES[work.config.sweep.objective])
        # A kill or a lost connection leaves no time to say it.
        logger.info("sweep %s: `gan sweep --resume %s` goes on after any stop", *[folder.name] * 2)
        extractors = extractors_folder(work.workspace)
        prepare_extractor(work.config, extractors)
        parent_run_id = run_sweep(work.config, ledger, extractors=extractors, watcher=watcher)
        look_up_runs(ledger, tracking_uri(), parent_run_id)
        _log_outcome(ledger)
        write_results(work, ledger, parent_run_id, tuple(data["image_shape"]))

    return run


def is_settled(folder: Path, *, time_budget_seconds: float | None) -> bool:
    """Whether the sweep is over: one that lost a trial, or now has more time, goes on."""
    trials = json.loads((folder / TRIALS).read_text())
    if any(trial["status"] == "failed" and not trial["is_final"] for trial in trials):
        return False
    name = json.loads((folder / "winner.json").read_text())["sweep"]
    ledger = sweep_ledger(folder.parent / "sweeps" / name)
    ledger.refresh()
    spent = ledger.spent_seconds()
    return spent is None or (time_budget_seconds is not None and time_budget_seconds <= spent)


def logged_winner(work: Work, *, stage: str) -> dict[str, Any]:
    """What a later stage reads in `winner.json`; its run is in the store in use.

    Raises:
        StageError: if that store is not the one of the sweep, or lost the run.
        TrackingError: if it does not answer.
    """
    winner: dict[str, Any] = json.loads((work.inputs["sweep"] / "winner.json").read_text())
    _require_run(winner["run_id"], winner["sweep"], workspace=work.workspace, stage=stage)
    return winner


def _require_run(run_id: str, sweep: str, *, workspace: Path, stage: str) -> None:
    # To train again unasked would be dear where the store is only misnamed.
    if not has_run(tracking_uri(), run_id):
        raise StageError(
            f"MLflow has no run {run_id!r}, that of the best trial of {sweep}: set "
            f"MLFLOW_TRACKING_URI to the store that has it, or delete {workspace / 'sweep'} and "
            f"{workspace / 'sweeps' / sweep}, and the next run trains again",
            stage=stage,
        )


def _announce(ledger: Ledger, watcher: Watcher | None, objective: Objective) -> None:
    """Tell of what an earlier run of the sweep has left: of each trial its step and best score."""
    for index in ledger.proposals():
        result, history = ledger.result(index), ledger.history(index)
        if result is None and not ledger.is_replica:
            # Its warnings of damaged checkpoints are seen here; a worker's are not.
            load_newest(ledger.trial_folder(index) / "checkpoints")
        has_ended = result is not None and not result.is_reopened
        if watcher is not None and (has_ended or history):
            report = {"step": history[-1]["step"] if history else 0}
            if best := best_report(history, objective):
                report[objective.metric] = best[objective.metric]
            watcher(TrialNews(trial=index, report=report, has_ended=has_ended))


def _log_outcome(ledger: Ledger) -> None:
    results = ledger.results()
    for result in results:
        if result.status == "failed":
            logger.warning("trial %d failed: %s", result.trial, result.cause)
    counts = Counter(result.status for result in results)
    how = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
    logger.info("%s: %d trials, %s", ledger.name, len(results), how)


def sweep_folder(workspace: Path, config: PipelineConfig, *, data_digest: str) -> Path:
    """Where the sweep of a configuration on some data has its ledger.

    Its name changes with everything that the trials depend on, so another sweep never goes on in
    the folder of this one.
    """
    key = digest(identity(config) | {"data": data_digest})
    return workspace / "sweeps" / f"{config.name}-{key[:8]}"


def sweep_ledger(folder: Path) -> Ledger:
    """The ledger of a sweep: its folder, or a replica of what GAN_STORAGE_URI has of that name.

    Raises:
        ConfigError: if that is no URI of a file system.
    """
    uri = storage_uri()
    location = str(folder.absolute()) if uri is None else joined(uri, folder.name)
    return open_ledger(location, role="driver")


def write_results(
    work: Work, ledger: Ledger, parent_run_id: str, image_shape: tuple[int, int, int]
) -> None:
    """Write what the later stages read of a sweep that is over."""
    results = ledger.results()
    winner = best_trial(results)
    pq.write_table(results_table(results), work.out / "results.parquet")
    trials = [{**asdict(r), "step": r.step, "best": r.best} for r in results]
    (work.out / TRIALS).write_text(json.dumps(trials))
    if winner is None or (best := winner.best) is None:
        raise StageError("no trial has a score", stage="sweep")
    lineage = {
        "sweep": ledger.name,
        "trial": winner.trial,
        "step": best["step"],
        "run_id": winner.run_id,
        "parent_run_id": parent_run_id,
        "best": best,
    }
    (work.out / "winner.json").write_text(json.dumps(lineage, indent=2) + "\n")
    checkpoint = _best_checkpoint(ledger, winner.trial, step=int(best["step"]))
    run = trial_run(work.config, winner.trial, winner.overrides)
    saved = from_state(checkpoint.tensors, run, image_shape=image_shape)
    (work.out / "winner").mkdir()
    save(work.out / "winner", saved)


def _best_checkpoint(ledger: Ledger, trial: int, *, step: int) -> Checkpoint:
    path = ledger.checkpoint_path(trial, step=step)
    try:
        return load_checkpoint(path)
    except CheckpointError as error:
        result = ledger.trial_folder(trial) / "result.json"
        raise StageError(
            f"{error}: delete {path.parent} and {result}, "
            f"and the next run trains this trial again",
            stage="sweep",
        ) from error
