"""What a trial's process calls to log: each step once, in order, also when MLflow is away."""

import logging
import math
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from gan.metric_names import IMAGES_SEEN
from tuning.errors import StoreUnavailableError, TrackingError
from tuning.outbox import (
    Finish,
    Outbox,
    Record,
    Report,
    RunIdentity,
    RunStatus,
    Upload,
    waiting_run,
)
from tuning.tracking import TrialRun, require_store_of

logger = logging.getLogger(__name__)

FINISH_SECONDS = 5.0
"""How long the end of a run waits for MLflow; an outbox that is not empty then is sent later."""

_METRIC_NAME = re.compile(r"[A-Za-z0-9_./ -]{1,250}")


class RunLog:
    """The single writer of a trial's run.

    The run is found by its tags, or made, when something is first sent: a trial that is retried,
    moved or resumed goes on in its run.  Each step is logged exactly once: a process that starts
    again from an older checkpoint computes steps again, and those that are in the run's history
    of `images_seen`, or that wait, are passed over.

    In the background (what a trial does) nothing here waits for MLflow but `finish`, for seconds,
    and `close`, for the record under way.
    If MLflow does not answer, training goes on and what was to be logged waits in the outbox; if
    the outbox cannot be written either, see `Outbox`, training goes on all the same.

    Report a step *before* its checkpoint is written: killed between the two, a trial computes
    the step again, whereas one that begins after it would never report it.

    Args:
        uri: a store that `prepare_store` has prepared.
        run: which run to write.
        outbox: a folder beside the trial's checkpoints; made when something must wait.
        retry_seconds: shortest pause after an attempt to which MLflow did not answer.
        in_background: whether a thread sends; then `close` is to be called at the end.

    Attributes:
        run_id: MLflow's id of the run; None until the store has answered.
    """

    def __init__(
        self,
        uri: str,
        run: RunIdentity,
        outbox: Path,
        *,
        retry_seconds: float = 30.0,
        in_background: bool = False,
    ) -> None:
        self.run_id: str | None = None
        self._uri, self._identity = uri, run
        self._run: TrialRun | None = None
        self._outbox = Outbox(
            outbox,
            run,
            self._send,
            retry_seconds=retry_seconds,
            in_background=in_background,
        )
        waiting = [record.step for record in self._outbox.records if isinstance(record, Report)]
        self._reported_step = max(waiting, default=-1)

    def report(
        self, step: int, metrics: Mapping[str, float], *, time_ms: int, grid: Path | None = None
    ) -> None:
        """Log the metrics of one step, and a grid of samples drawn at it.

        Args:
            step: updates of G; one that was reported before is passed over.
            metrics: finite values by name, `images_seen` among them.
            time_ms: when they were read, in milliseconds since 1970 (UTC).
            grid: a PNG.

        Raises:
            ValueError: no `images_seen`, a value that is not finite, a name that is not legal.
            FileNotFoundError: `grid` is not there.
            TrackingError: the store refuses the report.
        """
        _check_metrics(step, metrics)
        if grid is not None:
            _require_exists(grid)
        if step <= self._reported_step:
            return
        values = {name: float(value) for name, value in metrics.items()}
        self._outbox.submit(Report(step=step, time_ms=time_ms, metrics=values, file=grid))
        self._reported_step = step

    def artifact(self, local: Path, artifact_path: str) -> None:
        """Upload a file, or what a folder holds; it replaces what lay at `artifact_path`.

        Raises:
            FileNotFoundError: `local` is not there.
            TrackingError: the store refuses it.
        """
        _require_exists(local)
        self._outbox.submit(Upload(file=local, artifact_path=artifact_path))

    def finish(self, status: RunStatus, *, tags: Mapping[str, str]) -> None:
        """Close the run, after all that waits; `pending` says whether the store took it.

        Args:
            status: FINISHED, FAILED or KILLED.
            tags: `gan.cause` of a failure, `gan.stopped_early` of a trial that was stopped.

        Raises:
            ValueError: another status.
            TrackingError: the store refuses a record.
        """
        if status not in get_args(RunStatus):
            raise ValueError(f"status must be one of {get_args(RunStatus)}, got {status!r}")
        time_ms = time.time_ns() // 1_000_000
        end = Finish(status=status, time_ms=time_ms, tags=dict(tags))
        self._outbox.submit(end, at_once=True)
        self._outbox.wait(FINISH_SECONDS)

    def close(self) -> None:
        """End what goes on in the background; what MLflow did not take stays in the outbox."""
        self._outbox.close()

    def flush(self) -> None:
        """Try now to send what waits.

        Raises:
            TrackingError: the store refuses a record.
        """
        self._outbox.flush(at_once=True)

    def pending(self) -> int:
        """Records that wait because the store does not answer."""
        return len(self._outbox.records)

    def held(self) -> AbstractContextManager[None]:
        """While it is entered, the outbox on disk stays as it is."""
        return self._outbox.held()

    def _send(self, records: Sequence[Record]) -> None:
        try:
            if self._run is None:
                self._run = TrialRun(self._uri, self._identity)
                self.run_id = self._run.run_id
            self._run.send(records)
        except StoreUnavailableError:
            # Whether the request took effect is unknown, so the run's history is read again.
            self._run = None
            raise
        if isinstance(records[-1], Finish):
            # Whatever comes next, say a retry that finds this very outbox, opens the run again.
            self._run = None


@dataclass(frozen=True)
class Delivery:
    """What came of sending what waited in an outbox.

    Attributes:
        n_sent: records that are in MLflow now.
        n_waiting: records that wait on, since MLflow does not answer, or refuses one.
        run_id: of the run, if MLflow answered.
        refusal: why it refuses one.
    """

    n_sent: int
    n_waiting: int
    run_id: str | None
    refusal: str | None = None


NOTHING = Delivery(n_sent=0, n_waiting=0, run_id=None)
"""Of an outbox in which nothing waited."""


def deliver(uri: str, outbox: Path) -> Delivery:
    """Send what waits in the outbox of a trial that is over, to the store that has its sweep.

    Raises:
        TuningError: the outbox is damaged.
    """
    run = waiting_run(outbox)
    if run is None:
        return NOTHING
    log = RunLog(uri, run, outbox)
    n_before, refusal = log.pending(), None
    try:
        require_store_of(uri, run)
        log.flush()
    except StoreUnavailableError as error:
        logger.warning("%s", error)
    except TrackingError as error:
        refusal = str(error)
    return Delivery(n_before - log.pending(), log.pending(), log.run_id, refusal)


def _check_metrics(step: int, metrics: Mapping[str, float]) -> None:
    # Here and not in the store alone, which is asked much later if it does not answer now.
    if IMAGES_SEEN not in metrics:
        raise ValueError(f"a report must have {IMAGES_SEEN}, got {sorted(metrics)} at step {step}")
    for name, value in metrics.items():
        if not _METRIC_NAME.fullmatch(name):
            raise ValueError(f"a metric name must match {_METRIC_NAME.pattern}, got {name!r}")
        if not math.isfinite(value):
            raise ValueError(f"metric {name} must be finite, got {value} at step {step}")


def _require_exists(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"what is to be logged must exist, got {path}")
