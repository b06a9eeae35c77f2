"""What is sent, and what is closed, when all processes have ended."""

import time
from pathlib import Path

import pytest

from tests.tuning.stored_runs import stored_runs
from tests.tuning.tiny_sweeps import a_result, tiny_config
from tuning.errors import ReplacedError, TuningError
from tuning.ledger import Ledger, open_ledger
from tuning.outbox import RunIdentity
from tuning.run_log import RunLog
from tuning.sync import deliver_trial, sync
from tuning.tracking import open_sweep, prepare_store

pytestmark = pytest.mark.mlflow

DEAD = "http://127.0.0.1:1"


@pytest.fixture
def ledger(tmp_path: Path, mlflow_store: str) -> Ledger:
    """A sweep whose first trial has ended, with a run that is open and a report that waits."""
    ledger = Ledger(tmp_path / "sweeps" / "tiny-1a2b3c4d")
    ledger.open(tiny_config("quarters.npz"))
    for index in (0, 1):
        ledger.propose(index, {})
    ledger.write_result(a_result(0, run_id=""))
    return ledger


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def experiment(mlflow_store: str) -> str:
    return prepare_store(mlflow_store, "tiny")


@pytest.fixture
def parent(ledger: Ledger, experiment: str, mlflow_store: str) -> str:
    return open_sweep(mlflow_store, experiment, sweep=ledger.key(), params={}, tags={})


def a_log(ledger: Ledger, experiment: str, parent: str, uri: str, *, index: int = 0) -> RunLog:
    identity = RunIdentity(
        experiment_id=experiment,
        sweep=ledger.key(),
        trial=str(index),
        run_name="0000",
        parent_run_id=parent,
        params={},
        tags={},
    )
    return RunLog(uri, identity, ledger.outbox(index))


def report(log: RunLog, step: int) -> None:
    log.report(step, {"images_seen": 50.0 * step}, time_ms=time.time_ns() // 1_000_000)


def test_what_waits_goes_out_and_what_was_left_open_is_closed(
    ledger, experiment, parent, mlflow_store, tmp_path
):
    away = a_log(ledger, experiment, parent, DEAD)
    report(away, 1)
    away.finish("FINISHED", tags={})
    lost = a_log(ledger, experiment, parent, mlflow_store, index=1)
    report(lost, 1)

    synced = sync(ledger, mlflow_store)
    assert [synced.name, synced.n_sent, synced.n_waiting] == ["tiny-1a2b3c4d", 2, 0]
    assert synced.n_closed == 2  # the sweep's own run, and that of the trial that was lost
    trials = stored_runs(tmp_path / "mlflow.db", kind="trial")
    assert sorted(run.status for run in trials) == ["FINISHED", "KILLED"]
    (sweep,) = stored_runs(tmp_path / "mlflow.db", kind="sweep")
    assert sweep.tags["gan.cause"] == "its process was lost"
    assert ledger.result(0).run_id in {run.run_id for run in trials}
    again = sync(ledger, mlflow_store)
    assert [again.n_sent, again.n_waiting, again.n_closed] == [0, 0, 0]


def test_while_mlflow_is_away_everything_stays_where_it_is(ledger, experiment, parent):
    report(a_log(ledger, experiment, parent, DEAD), 1)
    synced = sync(ledger, DEAD)
    assert [synced.n_sent, synced.n_waiting, synced.n_closed] == [0, 1, 0]
    assert ledger.has_waiting(0)


def test_a_sweep_that_runs_is_left_alone(ledger, mlflow_store):
    with ledger.lock(), pytest.raises(TuningError, match="is being run by another process"):
        sync(Ledger(ledger.folder), mlflow_store)


# Kept elsewhere


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """The same sweep, whose original no process has as a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    ledger = open_ledger(f"file://{tmp_path}/original/tiny-1a2b3c4d", role="driver")
    ledger.open(tiny_config("quarters.npz"))
    ledger.take_over()
    for index in (0, 1):
        ledger.propose(index, {})
        ledger.write_result(a_result(index, run_id=""))
    return ledger


def test_what_waits_elsewhere_goes_out_and_the_driver_keeps_its_results(
    elsewhere, experiment, mlflow_store, tmp_path
):
    worker = open_ledger(elsewhere.location, driver=elsewhere.driver)
    with worker.writing(0):
        report(a_log(worker, experiment, "", DEAD), 1)
        worker.save(0)
    assert elsewhere.has_waiting(0)
    delivery = deliver_trial(elsewhere, 0, mlflow_store)
    assert (delivery.n_sent, delivery.n_waiting) == (1, 0)
    assert [result.trial for result in elsewhere.results()] == [0, 1]
    (run,) = stored_runs(tmp_path / "mlflow.db", kind="trial")
    assert elsewhere.result(0).run_id == run.run_id
    assert not elsewhere.has_waiting(0)


def test_sync_acts_for_the_driver_that_was_last(elsewhere, experiment, mlflow_store):
    worker = open_ledger(elsewhere.location, driver=elsewhere.driver)
    with worker.writing(0):
        report(a_log(worker, experiment, "", DEAD), 1)
        worker.save(0)
    synced = sync(open_ledger(elsewhere.location, role="driver"), mlflow_store)
    assert [synced.n_sent, synced.n_waiting, synced.n_closed] == [1, 0, 0]


def test_of_two_attempts_at_a_trial_the_earlier_keeps_nothing_more(elsewhere):
    first = open_ledger(elsewhere.location, driver=elsewhere.driver)
    second = open_ledger(elsewhere.location, driver=elsewhere.driver)
    with first.writing(0):
        second._write("trials/0000/attempt", "another")
        with pytest.raises(ReplacedError, match="trial 0 of tiny-1a2b3c4d is being run by anoth"):
            first.save(0)
