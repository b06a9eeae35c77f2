"""The two small objects through which the tuner talks to the sweep."""

import logging
import math
import time
from pathlib import Path
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial

from tuning.ledger import Ledger
from tuning.sweep import TrialNews, Watcher, one_line

logger = logging.getLogger(__name__)


class UntilStopped(Stopper):
    """Stops every trial once the user interrupts the sweep, or its time budget is spent.

    Both are files rather than flags in memory: the tuner pickles its stopper, and the workers look
    at the same files to tell a stopped sweep from a stopped trial.

    Args:
        ledger: the sweep.
        seconds: its time budget from the moment a first trial runs; None for no limit.
    """

    def __init__(self, ledger: Ledger, *, seconds: float | None) -> None:
        self._ledger, self._seconds = ledger, seconds
        self._ends_at, self._is_told = math.inf, False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped on its own."""
        return False

    def stop_all(self) -> bool:
        """Whether it is time to stop."""
        if self._seconds is not None:
            self._look_at_the_clock(self._seconds)
        if self._ledger.interruption.exists():
            if not self._is_told:
                self._ledger.interrupt()  # a signal's handler had no time to tell other machines
            self._is_told = True
            return True
        return self._ledger.expiry.exists()

    def _look_at_the_clock(self, seconds: float) -> None:
        now = time.monotonic()
        if self._ends_at == math.inf and self._ledger.beginning.exists():
            self._ends_at = now + seconds
        if now >= self._ends_at and not self._ledger.expiry.exists():
            self._ledger.expire(seconds)


class Announcer(Callback):
    """Hands every report to a watcher, and warns of every failure at once, in one line.

    Args:
        ledger: the sweep.
        watcher: told of every report.
        max_retries: times that a trial which failed is started again.
    """

    def __init__(self, ledger: Ledger, watcher: Watcher | None, *, max_retries: int) -> None:
        self._ledger, self._watcher, self._max_retries = ledger, watcher, max_retries

    def __getstate__(self) -> dict[str, Any]:
        """Leave the watcher behind: it may hold a terminal, and the pickled copy is never read."""
        return self.__dict__ | {"_watcher": None}

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by the tuner when a trial has a worker: the time budget counts from the first."""
        self._ledger.beginning.touch()

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Called by the tuner for every report."""
        self._announce(trial, result, has_ended=False)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by the tuner when a trial has ended without an error."""
        result = self._ledger.result(trial.config["index"])
        if result is not None and result.status == "failed":
            logger.warning("trial %d failed: %s", result.trial, result.cause)
        self._announce(trial, trial.last_result, has_ended=True)

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by the tuner when a trial has failed and is started again."""
        index = trial.config["index"]
        history = self._ledger.history(index)
        logger.warning(
            "trial %d failed: %s; retry %d of %d from step %d",
            index,
            _reason(trial).rstrip("."),
            trial.num_failures,
            self._max_retries,
            history[-1]["step"] if history else 0,
        )

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by the tuner when a trial has failed for the last time."""
        logger.warning("trial %d failed: %s", trial.config["index"], _reason(trial))
        self._announce(trial, trial.last_result, has_ended=True)

    def _announce(self, trial: Trial, result: dict[str, Any], *, has_ended: bool) -> None:
        if self._watcher is not None:
            index = trial.config["index"]
            self._watcher(TrialNews(trial=index, report=result, has_ended=has_ended))


def _reason(trial: Trial) -> str:
    return one_line(Path(trial.error_file).read_text()) if trial.error_file else "no reason given"
