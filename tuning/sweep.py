"""A sweep from beginning to end, or from wherever it was left."""

import atexit
import contextlib
import json
import logging
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gan.config import PipelineConfig, digest, flatten, to_dict
from gan.datasets.splits import load_train_valid
from gan.errors import ConfigError
from gan.objectives import OBJECTIVES
from tuning import cluster
from tuning.errors import (
    ReplacedError,
    StorageError,
    SweepInterrupted,
    TrackingError,
    TuningError,
)
from tuning.ledger import EXTRACTORS, START, Ledger, trial_run
from tuning.outbox import RunStatus
from tuning.provenance import provenance
from tuning.replica import STORAGE_URI
from tuning.results import best_trial
from tuning.space import Space, grid_points, parse_space, random_point
from tuning.sync import deliver_trial
from tuning.tracking import (
    CAUSE_TAG,
    DATA_TAG,
    close_run,
    close_stragglers,
    open_sweep,
    prepare_store,
    tracking_uri,
)
from tuning.trial import TrialSpec, end_trial

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""How long a cluster may take to let this process go when that was told to end."""


@dataclass(frozen=True, kw_only=True)
class TrialNews:
    """What a watcher of a sweep is told.

    Attributes:
        trial: index.
        report: its newest report.
        has_ended: whether it was its last.
    """

    trial: int
    report: Mapping[str, float]
    has_ended: bool = False


Watcher = Callable[[TrialNews], None]


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended as the tuner saw it: `error` in one line, or None."""

    error: str | None


def check_sweep(config: PipelineConfig) -> Space:
    """The search space of a sweep, checked before anything is started.

    Raises:
        ConfigError: naming every problem by its dotted path.
    """
    cfg, base = config.sweep, config.base
    if base.device == "cuda" and not cfg.gpus_per_trial:
        raise ConfigError(["base.device: cuda takes sweep.gpus_per_trial above 0"])
    space = parse_space(cfg.space, base)
    # Settings that are right one by one may be wrong together.
    if cfg.search == "grid":
        points = grid_points(space)
    else:
        points = [random_point(space, seed=cfg.seed, index=i) for i in range(cfg.n_trials)]
    for index, overrides in enumerate(points):
        trial_run(config, index, overrides)
    return space


def planned_trials(config: PipelineConfig) -> int:
    """How many trials a sweep has in all.

    Raises:
        ConfigError: if the search space does not fit the configuration.
    """
    space = check_sweep(config)
    return len(grid_points(space)) if config.sweep.search == "grid" else config.sweep.n_trials


def run_sweep(
    config: PipelineConfig, ledger: Ledger, *, extractors: Path, watcher: Watcher | None = None
) -> str:
    """Run what is missing of a sweep; returns the id of its MLflow run.

    Trials that were lost, or that an earlier run's time budget stopped, go on; the budget counts
    anew in each run.

    Args:
        config: what to run.
        ledger: of the sweep; one that exists is gone on with.
        extractors: folder of the nets that give features, which other sweeps may share.
        watcher: told of every report; must be quick.

    Raises:
        ConfigError: the space does not fit the configuration.
        DatasetError: the images cannot be read.
        TuningError: no cluster, no store, another process runs the sweep, or no trial succeeded.
        SweepInterrupted: the user stopped it; it can be resumed.
    """
    space = check_sweep(config)
    images, _ = load_train_valid(config.base.data)
    with ledger.lock():
        ledger.refresh()
        ledger.provide(EXTRACTORS, extractors)
        if config.base.start is not None:
            ledger.provide(START, Path(config.base.start))
        if not ledger.is_replica:  # of one that is, others may have the original
            _begin(ledger, config)
        sweep = _Sweep(config, ledger, space, extractors=extractors, data_digest=images.digest)
        try:
            with _stops_cleanly(ledger):
                _run(sweep, watcher)
        except _Terminated:  # while it was ending in any case
            sweep.terminate()
            raise _interrupted(ledger) from None
    return sweep.parent_run_id


def _run(sweep: "_Sweep", watcher: Watcher | None) -> None:
    ledger = sweep.ledger
    ends: dict[int, TrialEnd] = {}
    with sweep.closed_on_failure():
        try:
            sweep.open()
            sweep.end_stopped()
            ends = sweep.fit(watcher)
        except _Terminated:
            sweep.terminate()
            raise _interrupted(ledger) from None
        except KeyboardInterrupt:  # the second: Ray, left amid its work, may end this process
            sweep.terminate()
            raise
        finally:
            sweep.leave_cluster()
            if sweep.parent_run_id and not sweep.is_terminated:
                sweep.require_not_replaced()
                sweep.settle(ends)
    if ledger.interruption.exists():
        sweep.close("KILLED", "interrupted")
        raise _interrupted(ledger)
    if best_trial(ledger.results()) is None:
        sweep.close("FAILED", "no trial has a score")
        raise TuningError(f"no trial of {ledger.name} has a score: {_why_no_score(ledger)}")
    sweep.close("FINISHED")


def _interrupted(ledger: Ledger) -> SweepInterrupted:
    return SweepInterrupted(
        f"the sweep was stopped: go on with it by `gan sweep --resume {ledger.name}`"
    )


def _why_no_score(ledger: Ledger) -> str:
    causes = {result.cause for result in ledger.results() if result.status == "failed"}
    reasons = sorted(cause for cause in causes if cause)
    spent = ledger.spent_seconds()
    if spent is not None:
        reasons.append(
            f"the time budget of {spent:g} s ended the sweep before the first score; raise "
            f"sweep.time_budget_seconds, and the sweep goes on"
        )
    return "; ".join(reasons)


class _Sweep:
    """The driver's side of a running sweep."""

    def __init__(
        self,
        config: PipelineConfig,
        ledger: Ledger,
        space: Space,
        *,
        extractors: Path,
        data_digest: str,
    ) -> None:
        self.config, self.ledger, self.space = config, ledger, space
        self.extractors = extractors.absolute()
        self.objective = OBJECTIVES[config.sweep.objective]
        self.uri = tracking_uri()
        self.tags = provenance() | {DATA_TAG: data_digest}
        self.experiment_id = self.parent_run_id = ""
        self.n_slots, self._is_connected = 1, False
        self.is_terminated = False
        self._lease: cluster.Lease | None = None

    def open(self) -> None:
        """Prepare the store and join the cluster, side by side: each takes seconds."""
        cluster.require_lasting(self.uri, is_in_storage=self.ledger.is_replica)
        is_complete = self._is_complete()
        if self.ledger.is_replica and not is_complete:
            self._is_connected = cluster.connect()
            # Before anything is written that another driver may be using.
            self._lease = cluster.lease(self.ledger.location)
            self.ledger.refresh()  # whoever had the lease may have ended the sweep meanwhile
            is_complete = self._is_complete()
            if is_complete:
                self.ledger.join()
            else:
                _begin(self.ledger, self.config)
            self._open_store()
        else:
            self.ledger.join()
            with ThreadPoolExecutor(max_workers=1) as pool:
                opening = pool.submit(self._open_store)
                self._is_connected = not is_complete and cluster.connect()
                opening.result()
        if is_complete:
            return
        cluster.require_shared_store(self.uri)
        folder = self.ledger.shared_folder()
        if folder is not None:
            cluster.require_shared_folder(folder, else_set=STORAGE_URI)
        cfg = self.config.sweep
        self.n_slots = cluster.trial_slots(cpus=cfg.cpus_per_trial, gpus=cfg.gpus_per_trial)

    def _is_complete(self) -> bool:
        """Whether every trial has ended for good."""
        ended = [result for result in self.ledger.results() if not result.is_reopened]
        return len(ended) == planned_trials(self.config)

    def leave_cluster(self) -> None:
        """Leave the cluster that was joined; one on this machine ends with all its workers."""
        if self._lease is not None and not self.is_terminated:
            cluster.release(self._lease)
        if self._is_connected:
            self._is_connected = False
            cluster.disconnect()

    def terminate(self) -> None:
        """Close every run and leave the cluster, whether or not that still answers.

        Whoever stopped this process may have stopped the cluster, too: Ray then waits for it for
        a minute and ends this process.  So MLflow comes first, and a last time when no worker is
        left to open a run.
        """
        self.is_terminated = True
        # The tuner that is left behind would tell of the cluster that it has lost.
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        is_mine = self._is_still_mine()
        if is_mine:
            self._close_interrupted()
        if self.ledger.is_replica and is_mine:
            with contextlib.suppress(StorageError):  # then trials are taken for lost ones
                self.ledger.interrupt()
        leaving = threading.Thread(target=self.leave_cluster, daemon=True)
        leaving.start()
        leaving.join(PATIENCE_SECONDS)
        if leaving.is_alive():
            atexit.register(os._exit, 1)  # before Ray's own hook, which would wait in the same way
        if is_mine:
            self._close_interrupted()

    def _is_still_mine(self) -> bool:
        """Whether no other driver has taken over, whose runs these are then."""
        try:
            return not self.ledger.is_taken_over(is_patient=False)
        except StorageError:
            return True

    def _close_interrupted(self) -> None:
        if not self.parent_run_id:
            return
        try:
            close_stragglers(self.uri, self.parent_run_id, "KILLED", cause="interrupted")
            self.close("KILLED", "interrupted")
        except TrackingError as error:
            logger.warning("%s", error)

    def fit(self, watcher: Watcher | None) -> dict[int, TrialEnd]:
        """Run the missing trials; how each of them ended, as the tuner saw it."""
        ends: Future[dict[int, TrialEnd]] = Future()

        def run() -> None:
            try:
                ends.set_result(self._fit(watcher))
            except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
                ends.set_exception(error)

        # Not in this thread: a tuner that a signal interrupts tidies up first, and for that waits
        # for a cluster that may be gone.
        threading.Thread(target=run, name="tuner", daemon=True).start()
        return ends.result()

    def _fit(self, watcher: Watcher | None) -> dict[int, TrialEnd]:
        from ray import tune

        from tuning.search import LedgerSearch, build_proposer
        from tuning.trainable import trainable
        from tuning.tune_parts import Announcer, UntilStopped

        # Ours is one line for a failure, the tuner's a traceback.
        is_debug = logger.isEnabledFor(logging.DEBUG)
        logging.getLogger("ray.tune").setLevel(logging.INFO if is_debug else logging.CRITICAL)
        cfg = self.config.sweep
        search = LedgerSearch(
            self.ledger,
            build_proposer(cfg, self.space),
            self._tuner_config,
            objective=self.objective,
        )
        if not search.n_todo:
            return {}
        resources = {"cpu": cfg.cpus_per_trial, "gpu": cfg.gpus_per_trial}
        # By default one worker is started after the other.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(self.n_slots)
        with tempfile.TemporaryDirectory(prefix="tune-") as scratch:
            tuner = tune.Tuner(
                tune.with_resources(trainable, resources),
                tune_config=tune.TuneConfig(
                    search_alg=search,
                    scheduler=self._scheduler(),
                    num_samples=search.n_todo,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: f"{trial.config['index']:04d}",
                ),
                run_config=tune.RunConfig(
                    name=self.ledger.name,
                    storage_path=scratch,
                    stop=UntilStopped(self.ledger, seconds=cfg.time_budget_seconds),
                    failure_config=tune.FailureConfig(max_failures=cfg.max_retries),
                    callbacks=[Announcer(self.ledger, watcher, max_retries=cfg.max_retries)],
                    verbose=0,
                ),
            )
            # It prints a line for a trial that ends without a report; that is no output of ours.
            with contextlib.redirect_stdout(sys.stderr):
                results = tuner.fit()
        return {
            r.config["index"]: TrialEnd(one_line(str(r.error)) if r.error else None)
            for r in results
            if r.config
        }

    def end_stopped(self) -> None:
        """End the trials that the scheduler stopped in an earlier process, which died on it."""
        for index, overrides in self.ledger.proposals().items():
            if self.ledger.result(index) is None and self.ledger.is_marked_stopped(index):
                spec = TrialSpec(**self._worker_spec(index, overrides), device="cpu")
                end_trial(spec, error=None)

    def require_not_replaced(self) -> None:
        """Leave the runs alone if they are another driver's by now.

        Raises:
            ReplacedError: if they are.
        """
        if self._lease is not None and self.ledger.is_taken_over():
            self.is_terminated = True
            raise ReplacedError(f"{self.ledger.name} is being run by another process by now")

    def settle(self, ends: Mapping[int, TrialEnd]) -> None:
        """Close what workers that are gone left open, on disk and in MLflow."""
        is_interrupted = self.ledger.interruption.exists()
        # A spent time budget also ends trials of an earlier process that were not yet resumed.
        is_expired = self.ledger.expiry.exists()
        for index, overrides in self.ledger.proposals().items():
            is_open = self.ledger.result(index) is None and not is_interrupted
            if is_open and (index in ends or is_expired):
                spec = TrialSpec(**self._worker_spec(index, overrides), device="cpu")
                end_trial(spec, error=ends[index].error if index in ends else None)
            try:
                delivery = deliver_trial(self.ledger, index, self.uri)
            except ReplacedError:  # by `gan sync`, say, which sends what waits as well
                self.require_not_replaced()
                continue
            if delivery.refusal is not None:
                # And so it will be the next time: the others' records still go out.
                logger.warning("trial %d: %s", index, delivery.refusal)
        cause = "interrupted" if is_interrupted else "its process was lost"
        close_stragglers(self.uri, self.parent_run_id, "KILLED", cause=cause)

    @contextlib.contextmanager
    def closed_on_failure(self) -> Iterator[None]:
        """Close the parent run if the sweep itself fails; else it is closed by how trials did."""
        try:
            yield
        except BaseException as error:
            status: RunStatus = "FAILED" if isinstance(error, Exception) else "KILLED"
            if self.parent_run_id and not self.is_terminated:
                with contextlib.suppress(TrackingError):  # that may be what failed
                    self.close(status, f"{type(error).__name__}: {one_line(str(error))}")
            raise

    def close(self, status: RunStatus, cause: str | None = None) -> None:
        """Close the parent run."""
        tags = {CAUSE_TAG: cause} if cause else {}
        winner = best_trial(self.ledger.results())
        if winner is not None and winner.best is not None:
            tags["gan.best_trial"] = str(winner.trial)
            metric = self.objective.metric
            tags[f"gan.best_{metric}"] = f"{winner.best[metric]:.6g}"
        close_run(self.uri, self.parent_run_id, status, tags=tags)

    def _open_store(self) -> None:
        self.experiment_id = prepare_store(self.uri, self.config.name)
        self.parent_run_id = open_sweep(
            self.uri,
            self.experiment_id,
            sweep=self.ledger.key(),
            params=flatten(to_dict(self.config)),
            tags=self.tags | {"gan.config_digest": digest(self.config)},
        )

    def _scheduler(self) -> "TrialScheduler":
        from ray.tune.schedulers import FIFOScheduler

        from tuning.asha import ResumableASHA

        cfg = self.config.sweep
        if cfg.scheduler == "fifo":
            return FIFOScheduler()
        asha = ResumableASHA(
            objective=self.objective,
            grace_steps=cfg.grace_steps,
            max_steps=self.config.base.train.n_steps,
            reduction_factor=cfg.reduction_factor,
            on_stop=self.ledger.mark_stopped,
        )
        for index in self.ledger.proposals():
            asha.replay(index, self.ledger.history(index))
        return asha

    def _tuner_config(self, index: int, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """What the tuner keeps of a trial: what its scheduler reads, and what goes to the worker.

        That as text: of every number in a tree the tuner keeps statistics as of a metric.
        """
        spec = self._worker_spec(index, overrides)
        return {
            "index": index,
            "n_steps": spec["run"]["train"]["n_steps"],
            "spec": json.dumps(spec),
        }

    def _worker_spec(self, index: int, overrides: Mapping[str, Any]) -> dict[str, Any]:
        run = trial_run(self.config, index, overrides)
        return {
            "ledger": self.ledger.location,
            "driver": self.ledger.driver,
            "extractors": str(self.extractors),
            "index": index,
            "overrides": dict(overrides),
            "run": to_dict(run),
            "objective": self.objective.metric,
            "uri": self.uri,
            "experiment_id": self.experiment_id,
            "experiment": self.config.name,
            "parent_run_id": self.parent_run_id,
            "tags": self.tags,
            "threads": max(1, int(self.config.sweep.cpus_per_trial)),
        }


def _begin(ledger: Ledger, config: PipelineConfig) -> None:
    """Make the sweep this process's, and let trials go on that were lost or short of time."""
    ledger.open(config)
    ledger.take_over()
    ledger.begin()
    for result in ledger.results():
        if result.is_reopened:
            ledger.forget_result(result.trial)


class _Terminated(BaseException):
    """SIGTERM came: not an Exception, so that whatever is under way lets it through."""


@contextlib.contextmanager
def _stops_cleanly(ledger: Ledger) -> Iterator[None]:
    """Take the first Ctrl-C as a wish to stop, and SIGTERM as one to stop now, as is a second one.

    A scheduler or `timeout` sends SIGTERM to all processes of a job, the cluster's included, and
    kills after some seconds: no report may come any more.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can have handlers
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        ledger.interruption.touch()
        signal.signal(signum, old[signal.Signals(signum)])
        if signum == signal.SIGTERM:
            logger.warning("stopping at once: trials will go on from their last checkpoints")
            raise _Terminated
        logger.warning("stopping after the reports under way; once more to stop at once")

    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in old:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def one_line(error: str) -> str:
    """The reason at the end of a traceback, without the module of its type and Ray's advice."""
    last = next(reversed(error.strip().splitlines()), "")
    reason = re.sub(r"^(\w+\.)+(?=\w+(: |$))", "", last)
    return reason.partition(" Worker exit type: ")[0]
