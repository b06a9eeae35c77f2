"""The two small objects through which the tuner talks to the sweep."""

import math
import time
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial

from tuning.ledger import Ledger
from tuning.sweep import TrialNews, Watcher


class UntilStopped(Stopper):
    """Stops every trial once the user interrupts the sweep, or its time budget is spent.

    Both are files rather than flags in memory: the tuner pickles its stopper, and the workers look
    at the same files to tell a stopped sweep from a stopped trial.

    Args:
        ledger: the sweep.
        seconds: its time budget from now on; None for no limit.
    """

    def __init__(self, ledger: Ledger, *, seconds: float | None) -> None:
        self._ledger = ledger
        self._ends_at = math.inf if seconds is None else time.monotonic() + seconds

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped on its own."""
        return False

    def stop_all(self) -> bool:
        """Whether it is time to stop."""
        if time.monotonic() >= self._ends_at:
            self._ledger.expiry.touch()
        return self._ledger.interruption.exists() or self._ledger.expiry.exists()


class Announcer(Callback):
    """Hands every report to a watcher."""

    def __init__(self, watcher: Watcher | None) -> None:
        self._watcher = watcher

    def __getstate__(self) -> dict[str, Any]:
        """Leave the watcher behind: it may hold a terminal, and the pickled copy is never read."""
        return {"_watcher": None}

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
        self._announce(trial, trial.last_result, has_ended=True)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Called by the tuner when a trial has failed for the last time."""
        self._announce(trial, trial.last_result, has_ended=True)

    def _announce(self, trial: Trial, result: dict[str, Any], *, has_ended: bool) -> None:
        if self._watcher is not None:
            index = trial.config["index"]
            self._watcher(TrialNews(trial=index, report=result, has_ended=has_ended))
