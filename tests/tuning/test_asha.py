"""ASHA that is told what an earlier process reported.

Kinds of tests: independent reference (rungs as lists, NumPy), invariance (a restart at any time).
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from gan.objectives import OBJECTIVES
from tuning.asha import ResumableASHA

CONTINUE, STOP = "CONTINUE", "STOP"
GRACE, FACTOR, N_STEPS, EVERY = 10, 3, 100, 5
PARZEN, DISTANCE = "parzen_ll_valid", "frechet_distance_valid"


@dataclass
class FakeTrial:
    """What the scheduler sees of a trial: the tuner makes a new id at every start."""

    index: int
    n_steps: int = N_STEPS
    trial_id: str = field(default_factory=lambda: uuid4().hex)

    @property
    def config(self) -> dict[str, Any]:
        return {"index": self.index, "n_steps": self.n_steps}


@dataclass
class Event:
    """A report, and what a scheduler that was never restarted said to it."""

    index: int
    report: dict[str, float]
    decision: str


def new_asha(metric: str = PARZEN, **changes: Any) -> ResumableASHA:
    settings = {"grace_steps": GRACE, "max_steps": N_STEPS, "reduction_factor": FACTOR}
    return ResumableASHA(objective=OBJECTIVES[metric], **settings | changes)


def report(step: int, score: float | None, metric: str = PARZEN) -> dict[str, float]:
    scored = {} if score is None else {metric: score}
    return {"step": step, "d_loss": 1.0} | scored


def whole_sweep(
    seed: int, metric: str = PARZEN, n_trials: int = 12, n_slots: int = 3
) -> list[Event]:
    """Trials whose reports arrive in random order, a few at a time, until each ends or stops."""
    rng = np.random.default_rng(seed)
    asha, events = new_asha(metric), []
    waiting, running = list(range(n_trials)), {}
    while waiting or running:
        while waiting and len(running) < n_slots:
            index = waiting.pop(0)
            running[index] = (FakeTrial(index), 0)
            asha.on_trial_add(None, running[index][0])
        index = int(rng.choice(list(running)))
        trial, step = running[index]
        step += EVERY
        score = rng.normal() if step % (2 * EVERY) == 0 else None
        decision = asha.on_trial_result(None, trial, report(step, score, metric))
        events.append(Event(index, report(step, score, metric), decision))
        running[index] = (trial, step)
        if decision == STOP or step == N_STEPS:
            asha.on_trial_complete(None, trial, report(step, score, metric))
            del running[index]
    return events


@pytest.mark.parametrize("metric", [PARZEN, DISTANCE])
@pytest.mark.parametrize("seed", range(5))
def test_the_decisions_are_those_of_successive_halving(seed, metric):
    rungs = {step: [] for step in (10, 30, 90)}
    n_stopped = 0
    for event in whole_sweep(seed, metric):
        expected = CONTINUE
        score = event.report.get(metric)
        if score is not None and event.report["step"] in rungs:
            rung = rungs[event.report["step"]]
            merit = score if metric == PARZEN else -score
            if rung and merit < np.percentile(rung, 100 * (1 - 1 / FACTOR)):
                expected = STOP
            rung.append(merit)
        assert event.decision == expected
        n_stopped += expected == STOP
    assert 0 < n_stopped < 12


@pytest.mark.parametrize("seed", range(20))
def test_after_a_restart_at_any_time_it_decides_as_it_would_have_without_one(seed):
    events = whole_sweep(seed)
    cut = int(np.random.default_rng(seed).integers(1, len(events)))
    before, after = events[:cut], events[cut:]
    asha, histories = new_asha(), {}
    for event in before:
        histories.setdefault(event.index, []).append(event.report)
    for index, history in histories.items():
        asha.replay(index, history)

    trials: dict[int, FakeTrial] = {}
    for event in after:
        if event.index not in trials:
            trials[event.index] = FakeTrial(event.index)
            asha.on_trial_add(None, trials[event.index])
            # A resumed trial begins with the report of its checkpoint.
            for last in histories.get(event.index, [])[-1:]:
                assert asha.on_trial_result(None, trials[event.index], last) == CONTINUE
        decision = asha.on_trial_result(None, trials[event.index], event.report)
        assert decision == event.decision, event
        if decision == STOP:
            asha.on_trial_complete(None, trials[event.index], event.report)


def test_a_restarted_trial_does_not_enter_a_rung_twice():
    asha = new_asha()
    for index, score in enumerate([1.0, 2.0, 3.0]):
        trial = FakeTrial(index)
        asha.on_trial_add(None, trial)
        asha.on_trial_result(None, trial, report(GRACE, score))
    for _ in range(9):  # were it to enter again, the rung's bar would sink to its score
        trial = FakeTrial(0)
        asha.on_trial_add(None, trial)
        assert asha.on_trial_result(None, trial, report(GRACE, 1.0)) == CONTINUE
    other = FakeTrial(3)
    asha.on_trial_add(None, other)
    assert asha.on_trial_result(None, other, report(GRACE, 1.5)) == STOP


def test_a_trial_that_is_to_be_stopped_is_put_on_record_first():
    told = []
    asha = new_asha(on_stop=told.append)
    asha.replay(0, [report(GRACE, 5.0)])
    asha.replay(1, [report(GRACE, 4.0)])
    assert told == []  # what an earlier process decided is on record already
    for index, score in ((2, 3.0), (3, 6.0), (4, 1.0)):
        trial = FakeTrial(index)
        asha.on_trial_add(None, trial)
        asha.on_trial_result(None, trial, report(GRACE, score))
    last = FakeTrial(5, n_steps=GRACE)
    asha.on_trial_add(None, last)
    asha.on_trial_result(None, last, report(GRACE, 0.0))
    assert told == [2, 4]


@pytest.mark.parametrize(("metric", "worse", "better"), [(PARZEN, 4.0, 6.0), (DISTANCE, 6.0, 4.0)])
def test_a_worse_trial_is_stopped_and_a_better_one_is_not(metric, worse, better):
    asha = new_asha(metric)
    asha.replay(0, [report(GRACE, 5.0, metric)])
    for index, score, expected in ((1, worse, STOP), (2, better, CONTINUE)):
        trial = FakeTrial(index)
        asha.on_trial_add(None, trial)
        assert asha.on_trial_result(None, trial, report(GRACE, score, metric)) == expected


def test_a_report_without_the_objective_enters_no_rung():
    asha = new_asha(DISTANCE)
    for index in range(6):
        trial = FakeTrial(index)
        asha.on_trial_add(None, trial)
        assert asha.on_trial_result(None, trial, report(GRACE, -index, PARZEN)) == CONTINUE


@pytest.mark.parametrize("n_steps", [10, 30, 90, 100])
def test_a_trial_at_its_own_last_step_is_never_told_to_stop(n_steps):
    asha = new_asha()
    for index in range(6):
        asha.replay(index, [report(step, 99.0) for step in (10, 30, 90, 100)])
    for trial in (FakeTrial(6, n_steps=n_steps), FakeTrial(7, n_steps=n_steps + 1)):
        asha.on_trial_add(None, trial)
        expected = CONTINUE if trial.n_steps == n_steps else STOP
        # At 100 the scheduler's own last rung, 90, is behind.
        decision = asha.on_trial_result(None, trial, report(n_steps, -99.0))
        assert decision == expected


def test_a_grace_longer_than_a_trial_stops_nothing():
    asha = new_asha(grace_steps=1000, reduction_factor=2)
    for index in range(5):
        trial = FakeTrial(index)
        asha.on_trial_add(None, trial)
        decisions = [asha.on_trial_result(None, trial, report(s, -index)) for s in (50, 100)]
        assert decisions == [CONTINUE, CONTINUE]


def test_a_trial_that_is_taken_out_is_forgotten():
    asha = new_asha()
    trial = FakeTrial(0)
    asha.on_trial_add(None, trial)
    asha.on_trial_remove(None, trial)
    asha.on_trial_add(None, FakeTrial(0))
    assert asha.on_trial_result(None, FakeTrial(0), report(GRACE, 1.0)) == CONTINUE


def test_the_end_of_a_trial_that_was_never_scored_is_no_error():
    asha = new_asha()
    trial = FakeTrial(0)
    asha.on_trial_add(None, trial)
    assert asha.on_trial_result(None, trial, report(EVERY, None)) == CONTINUE
    asha.on_trial_complete(None, trial, report(EVERY, None))
