"""What the tuner's callbacks say, without a tuner (contract)."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gan.checkpoint import save_checkpoint
from tests.tuning.tiny_sweeps import scores
from tuning import tune_parts
from tuning.ledger import Ledger
from tuning.sweep import TrialNews
from tuning.tune_parts import Announcer, UntilStopped


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "tiny")
    ledger.propose(3, {})
    return ledger


@pytest.fixture
def trial(tmp_path: Path) -> Any:
    """Trial 3 as the tuner hands it over after its second failure."""
    error = tmp_path / "error.txt"
    error.write_text("Failure # 2\nTraceback\ngan.errors.CheckpointError: disk is full.\n")
    return SimpleNamespace(
        config={"index": 3}, error_file=str(error), num_failures=2, last_result={"step": 25}
    )


def recover(ledger: Ledger, trial: Any) -> None:
    announcer = Announcer(ledger, watcher=None, max_retries=4)
    announcer.on_trial_recover(iteration=1, trials=[trial], trial=trial)


def test_a_failure_that_is_tried_again_is_told_at_once_with_cause_count_and_step(
    ledger, trial, caplog
):
    save_checkpoint(
        ledger.trial_folder(3) / "checkpoints",
        step=20,
        tensors={},
        meta={"history": scores(10, [1.0, 2.0]), "elapsed_seconds": 1.0},
    )
    recover(ledger, trial)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "trial 3 failed: CheckpointError: disk is full; retry 2 of 4 from step 20"
    )


def test_a_trial_without_a_checkpoint_is_tried_again_from_step_0(ledger, trial, caplog):
    trial.error_file = None
    recover(ledger, trial)
    assert caplog.messages == ["trial 3 failed: no reason given; retry 2 of 4 from step 0"]


def test_the_last_failure_is_told_with_its_cause_and_ends_the_trial(ledger, trial, caplog):
    news: list[TrialNews] = []
    announcer = Announcer(ledger, news.append, max_retries=4)
    announcer.on_trial_error(iteration=1, trials=[trial], trial=trial)
    assert caplog.messages == ["trial 3 failed: CheckpointError: disk is full."]
    assert news == [TrialNews(trial=3, report={"step": 25}, has_ended=True)]


def test_the_time_budget_counts_from_the_first_trial_that_runs(ledger, trial, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(tune_parts, "time", SimpleNamespace(monotonic=lambda: clock.now))
    stopper = UntilStopped(ledger, seconds=60.0)
    clock.now = 100.0
    assert not stopper.stop_all()  # workers have taken all that time to start
    Announcer(ledger, None, max_retries=0).on_trial_start(iteration=1, trials=[trial], trial=trial)
    assert not stopper.stop_all()
    clock.now = 159.0
    assert not stopper.stop_all()
    assert ledger.spent_seconds() is None
    clock.now = 160.0
    assert stopper.stop_all()
    assert ledger.spent_seconds() == 60.0


def test_without_a_time_budget_no_clock_stops_a_sweep(ledger, monkeypatch):
    monkeypatch.setattr(tune_parts, "time", SimpleNamespace(monotonic=lambda: 1e9))
    ledger.beginning.touch()
    assert not UntilStopped(ledger, seconds=None).stop_all()


def test_the_copy_that_the_tuner_pickles_has_no_watcher(ledger):
    state = Announcer(ledger, lambda news: None, max_retries=4).__getstate__()
    assert state == {"_ledger": ledger, "_watcher": None, "_max_retries": 4}
