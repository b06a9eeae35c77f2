"""Asynchronous successive halving that survives a restart."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from gan.objectives import Objective


@dataclass(frozen=True)
class _Key:
    """All that the scheduler looks at of a trial: an identity that a restart does not change."""

    trial_id: str


class ResumableASHA(ASHAScheduler):
    """ASHA (Li et al., 2020) on the axis `step`, with trials told apart by their index.

    The tuner gives a restarted trial a new id; under it the trial would enter each rung a second
    time.  Rungs are filled again from the reports that a sweep left.

    Args:
        objective: the score that fills the rungs, and which way is better.
        grace_steps: updates of G before the first rung.
        max_steps: updates of G of a whole trial.
        reduction_factor: the best 1/this of a rung go on.
        on_stop: told the index of a trial before it is stopped, so that the decision is on record
            whatever becomes of the trial's process.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        grace_steps: int,
        max_steps: int,
        reduction_factor: int,
        on_stop: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(
            time_attr="step",
            metric=objective.metric,
            mode="max" if objective.is_larger_better else "min",
            grace_period=min(grace_steps, max_steps),
            max_t=max_steps,
            reduction_factor=reduction_factor,
            stop_last_trials=False,
        )
        self._objective, self._on_stop = objective, on_stop

    def replay(self, index: int, history: Iterable[dict[str, float]]) -> None:
        """Enter the reports of an earlier process into the rungs."""
        key = _Key(str(index))
        super().on_trial_add(None, key)
        for report in history:
            super().on_trial_result(None, key, report)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Enter a trial."""
        super().on_trial_add(tune_controller, _key(trial))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether a trial goes on."""
        if self._objective.metric not in result:
            return str(TrialScheduler.CONTINUE)
        action = str(super().on_trial_result(tune_controller, _key(trial), result))
        if result["step"] >= _n_steps(trial):
            # A trial ends by itself at its last step; told to stop there it would look cut short.
            return str(TrialScheduler.CONTINUE)
        if action == TrialScheduler.STOP and self._on_stop is not None:
            self._on_stop(trial.config["index"])
        return action

    def on_trial_complete(
        self, tune_controller: Any, trial: Trial, result: dict[str, Any]
    ) -> None:
        """Enter a trial's last result."""
        super().on_trial_complete(tune_controller, _key(trial), result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Forget a trial that was taken out."""
        super().on_trial_remove(tune_controller, _key(trial))


def _key(trial: Trial) -> _Key:
    return _Key(str(trial.config["index"]))


def _n_steps(trial: Trial) -> int:
    """Steps of a trial as its own settings have them: a sweep may vary them."""
    return int(trial.config["n_steps"])
