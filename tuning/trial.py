"""One trial: train, score, log and checkpoint, from wherever it was left.

The same code runs inside a Ray worker, under `gan train`, and in a test.
"""

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from gan.checkpoint import load_newest, prune_checkpoints, save_checkpoint
from gan.config import digest, flatten, run_config
from gan.errors import ConfigError, DivergedError, ScoreError
from gan.metric_names import IMAGES_PER_SECOND, IMAGES_SEEN
from gan.objectives import OBJECTIVES
from gan.run import Report, TrainingRun, is_scored_at
from gan.sampling import save_png, tile
from gan.saved_generator import Saved
from gan.tasks import load, run_facts, start_run, task_of
from gan.validation import Validation, load_data
from tuning.errors import ReplacedError, StorageError, TuningError
from tuning.ledger import (
    EXTRACTORS,
    START,
    Ledger,
    StopCause,
    TrialResult,
    TrialStatus,
    best_report,
    open_ledger,
)
from tuning.outbox import RunIdentity, RunStatus
from tuning.run_log import RunLog
from tuning.tracking import BEST_CHECKPOINT, CAUSE_TAG, DATA_TAG, STOPPED_EARLY_TAG


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """What a worker needs to know of a trial; every field is a JSON value.

    Attributes:
        ledger: where the sweep lies, a folder or a URI; see `tuning.ledger.open_ledger`.
        driver: mark of the driver, of a sweep at a URI; see `tuning.ledger.Ledger`.
        extractors: folder of the nets that give features, on storage that every node can reach;
            of a sweep at a URI the ledger has it.
        index: of the trial in the sweep.
        overrides: dotted path -> value, as the search proposed them.
        run: the whole run configuration, `overrides` included.
        objective: a key of `OBJECTIVES`, by which the best checkpoint is chosen.
        uri: of the MLflow store.
        experiment_id: MLflow's.
        experiment: name of that.
        parent_run_id: of the sweep's run; None for a run on its own.
        tags: of the trial's run.
        threads: of torch.
        device: `cpu` or `cuda`.
    """

    ledger: str
    driver: str
    extractors: str
    index: int
    overrides: dict[str, Any]
    run: dict[str, Any]
    objective: str
    uri: str
    experiment_id: str
    experiment: str
    parent_run_id: str | None
    tags: dict[str, str]
    threads: int
    device: str


@dataclass
class _Journal:
    """What a trial carries from checkpoint to checkpoint beside its tensors."""

    history: list[dict[str, float]] = field(default_factory=list)
    elapsed_seconds: float = 0.0

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> "_Journal":
        return cls(**{name: meta[name] for name in ("history", "elapsed_seconds") if name in meta})


def run_trial(spec: TrialSpec) -> Generator[dict[str, float]]:
    """Train a trial to its end, yielding every report.

    A trial that is closed before its end (its scheduler stopped it) is recorded as such, unless
    the whole sweep is being interrupted; then it is left to be resumed.

    A trial of a sweep, kept elsewhere, that another driver has taken over ends without a word: it
    goes on there, and this sweep's own driver says so.

    Raises:
        CheckpointError: if a checkpoint cannot be written.
        TuningError: if another process on this machine runs this trial.
    """
    torch.set_num_threads(spec.threads)
    ledger = open_ledger(spec.ledger, driver=spec.driver)
    with contextlib.suppress(ReplacedError), ledger.writing(spec.index):
        trial = _Trial(spec, ledger, in_background=True)
        with contextlib.closing(trial.log):
            yield from _run(trial)


def _run(trial: "_Trial") -> Generator[dict[str, float]]:
    try:
        yield from trial.reports()
    except GeneratorExit:
        trial.end_early(trial.ledger.stop_cause(trial.spec.index))
        raise
    except KeyboardInterrupt:
        trial.finish("KILLED", cause="interrupted")
        raise
    except (ConfigError, DivergedError, ScoreError, ValueError) as error:
        # The same settings, seed and data fail again: a retry would only repeat it.
        trial.end("failed", cause=str(error))
    except (StorageError, ReplacedError):
        # Nothing can be kept, or another goes on: the run's end is for that one to tell.
        raise
    except Exception as error:
        trial.finish("FAILED", cause=f"{type(error).__name__}: {error}")
        raise
    else:
        trial.end("finished", cause=None)


def end_trial(spec: TrialSpec, *, error: str | None) -> None:
    """Record the end of a trial whose process is gone before it could.

    A trial that was stopped before its first checkpoint is left to be run.

    Args:
        spec: the trial.
        error: why it failed after its last retry; None if it was stopped early.

    Raises:
        TuningError: if its process is not gone.
    """
    ledger = open_ledger(spec.ledger, driver=spec.driver)
    with ledger.writing(spec.index):
        trial = _Trial(spec, ledger)
        trial.journal = _Journal.from_meta(ledger.newest_meta(spec.index))
        if error is not None:
            trial.end("failed", cause=error, is_final=False)
        elif trial.journal.history:
            trial.end_early(ledger.stop_cause(spec.index))


class _Trial:
    def __init__(self, spec: TrialSpec, ledger: Ledger, *, in_background: bool = False) -> None:
        self.spec, self.cfg, self.ledger = spec, run_config(spec.run), ledger
        self.objective = OBJECTIVES[spec.objective]
        self.folder = self.ledger.trial_folder(spec.index)
        self.log = RunLog(
            spec.uri, self._identity(), ledger.outbox(spec.index), in_background=in_background
        )
        self.journal = _Journal()
        # Between two steps: what a checkpoint can be taken of.
        self.resumable: TrainingRun | None = None

    def reports(self) -> Iterator[dict[str, float]]:
        images, _ = load_data(self.cfg.data)
        if images.digest != self.spec.tags.get(DATA_TAG, images.digest):
            raise TuningError(f"{self.cfg.data.dataset} is not the file the sweep began with")
        run = start_run(self.cfg, images, device=self.spec.device, origin=self._origin())
        checkpoint = load_newest(self.checkpoints)
        if checkpoint is not None:
            run.set_state(checkpoint.tensors)
            self.journal = _Journal.from_meta(checkpoint.meta)
            # It may have died before it could.
            self._upload(checkpoint.path, step=checkpoint.step)
            self._upload_best_of_original(checkpoint.step)
            yield self.journal.history[-1]  # what the scheduler would otherwise never learn
        images_seen = self.journal.history[-1][IMAGES_SEEN] if self.journal.history else 0
        resumed_at = time.monotonic() - self.journal.elapsed_seconds
        asked_at = time.monotonic()
        for progress in run.train():
            seconds = time.monotonic() - asked_at
            report = _metrics(
                progress, seconds=seconds, n_images=progress.images_seen - int(images_seen)
            )
            images_seen = progress.images_seen
            is_scored = is_scored_at(self.cfg, progress.step)
            grid = None
            if is_scored:
                scores, grid = self._score(run.saved())
                report |= scores
            metrics = {name: value for name, value in report.items() if name != "step"}
            # Logged before it is checkpointed: see RunLog.
            time_ms = time.time_ns() // 1_000_000
            self.log.report(progress.step, metrics, time_ms=time_ms, grid=grid)
            self.journal.history.append(report)
            self.journal.elapsed_seconds = time.monotonic() - resumed_at
            if is_scored:
                self._checkpoint(run)
            self.resumable = run
            yield report
            self.resumable = None
            asked_at = time.monotonic()

    def _origin(self) -> Saved | None:
        """What the run starts from, wherever that lies on this machine."""
        if self.cfg.start is None:
            return None
        return load(self.ledger.provided(START, Path(self.cfg.start)))

    def end_early(self, cause: StopCause) -> None:
        """Record that the trial was stopped, or leave it to be resumed if the user did that."""
        if self.journal.history and self.journal.history[-1]["step"] >= self.cfg.train.n_steps:
            self.end("finished", cause=None)
            return
        # A larger time budget lets the trial go on, as a resumed sweep does.
        if cause != "asha" and self.resumable is not None:
            self._checkpoint(self.resumable)
        if cause == "interrupted":
            self.finish("KILLED", cause=cause)
        else:
            self.end("stopped", cause=cause)

    def end(self, status: TrialStatus, *, cause: str | None, is_final: bool = True) -> None:
        """Record how the trial ended, in MLflow and on disk.

        The result comes last: a trial that dies between the two is resumed at its last checkpoint
        and ends again, whereas one with a result is never looked at again.
        """
        if status == "failed":
            self.finish("FAILED", cause=cause)
        else:
            self.finish("FINISHED", cause=cause)
        self.ledger.write_result(
            TrialResult(
                trial=self.spec.index,
                status=status,
                cause=cause,
                is_final=is_final,
                overrides=self.spec.overrides,
                seed=self.cfg.seed,
                run_id=self.log.run_id or "",
                objective=self.spec.objective,
                elapsed_seconds=self.journal.elapsed_seconds,
                history=self.journal.history,
            )
        )

    def finish(self, status: RunStatus, *, cause: str | None) -> None:
        """Close the run in MLflow; what it could not take is kept with the trial."""
        tag = STOPPED_EARLY_TAG if status == "FINISHED" else CAUSE_TAG
        self.log.finish(status, tags={tag: cause} if cause else {})
        self._save()

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def _score(self, saved: Saved) -> tuple[dict[str, float], Path]:
        validation = Validation(
            config=self.cfg,
            metric=self.objective.metric,
            extractors=self.ledger.provided(EXTRACTORS, Path(self.spec.extractors)),
            device=self.spec.device,
        )
        scored = task_of(self.cfg).score(saved, validation)
        self.objective.require(scored.scores)
        grid = self.folder / "samples.png"
        save_png(tile(scored.picture, columns=10), grid, zoom=2)
        return scored.scores, grid

    def _checkpoint(self, run: TrainingRun) -> None:
        best = best_report(self.journal.history, self.objective)
        meta = asdict(self.journal) | run_facts(self.cfg, run.image_shape)
        step = run.step
        path = save_checkpoint(self.checkpoints, step=step, tensors=run.state(), meta=meta)
        best_step = int(best["step"]) if best else step
        prune_checkpoints(
            self.checkpoints,
            step=step,
            keep=self.cfg.evaluation.keep_checkpoints,
            also=[best_step],
        )
        self._save()
        self._upload(path, step=step)

    def _upload_best_of_original(self, newest: int) -> None:
        """What waits to be uploaded is not kept in an original: the checkpoints are there."""
        best = best_report(self.journal.history, self.objective)
        if self.ledger.is_replica and best is not None and best["step"] != newest:
            path = self.ledger.checkpoint_path(self.spec.index, step=int(best["step"]))
            if path.is_dir():
                self.log.artifact(path, BEST_CHECKPOINT)

    def _save(self) -> None:
        with self.log.held():  # a record must not be sent, and its file go, in between
            self.ledger.save(self.spec.index)

    def _upload(self, checkpoint: Path, *, step: int) -> None:
        self.log.artifact(checkpoint, "checkpoints/last")
        best = best_report(self.journal.history, self.objective)
        if best is not None and best["step"] == step:
            self.log.artifact(checkpoint, BEST_CHECKPOINT)

    def _identity(self) -> RunIdentity:
        spec = self.spec
        varied = ", ".join(
            f"{path.split('.')[-1]}={_short(value)}" for path, value in spec.overrides.items()
        )
        return RunIdentity(
            experiment_id=spec.experiment_id,
            experiment=spec.experiment,
            sweep=self.ledger.key(),
            trial=str(spec.index),
            parent_run_id=spec.parent_run_id,
            run_name=f"{spec.index:04d} {varied}".strip(),
            params=flatten(spec.run),
            tags=spec.tags | {"gan.config_digest": digest(self.cfg)},
        )


def _metrics(report: Report, *, seconds: float, n_images: int) -> dict[str, float]:
    return {
        "step": report.step,
        **report.metrics(),
        IMAGES_SEEN: report.images_seen,
        IMAGES_PER_SECOND: n_images / seconds,
    }


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
