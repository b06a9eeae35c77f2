"""What is sent, and what is closed, when all processes have ended."""

import json
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


# What nobody here would have written


def line(**record: object) -> bytes:
    return json.dumps(record).encode() + b"\n"


@pytest.mark.parametrize(
    "name", ["{victim}/id_rsa", "../../../../../victim/id_rsa", "link/id_rsa"]
)
def test_a_record_may_name_no_file_but_its_own(
    ledger, experiment, parent, mlflow_store, *, tmp_path, caplog, name
):
    victim = tmp_path / "victim"
    victim.mkdir()
    for file in ("id_rsa", "thesis.tex"):
        (victim / file).write_text("mine")
    report(a_log(ledger, experiment, parent, DEAD), 1)
    outbox = ledger.outbox(0)
    (outbox / ("0" * 32)).symlink_to(victim)
    name = name.format(victim=victim).replace("link", "0" * 32)
    with (outbox / "records.jsonl").open("ab") as lines:
        lines.write(line(kind="upload", file=name, artifact_path="stolen"))
    synced = sync(ledger, mlflow_store)
    assert [synced.n_sent, synced.n_waiting] == [1, 0]
    assert sorted(path.name for path in victim.iterdir()) == ["id_rsa", "thesis.tex"]
    assert not list(tmp_path.rglob("stolen"))
    assert f"{name!r} is no file of its own folder" in caplog.text


def test_what_waits_goes_to_no_other_store(ledger, experiment, parent, tmp_path, mlflow_tables):
    """Whose experiment has the same number, and even the same name."""
    report(a_log(ledger, experiment, parent, DEAD), 1)
    (tmp_path / "other.db").write_bytes(mlflow_tables.read_bytes())
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert prepare_store(other, "tiny") == experiment
    synced = sync(ledger, other)
    assert [synced.n_sent, synced.n_waiting] == [0, 1]
    assert ledger.has_waiting(0)
    assert stored_runs(tmp_path / "other.db", kind="trial") == []


def test_a_run_on_its_own_goes_to_no_experiment_of_another_name(
    ledger, experiment, mlflow_store, caplog
):
    identity = RunIdentity(
        experiment_id=experiment,
        experiment="another",
        sweep=ledger.key(),
        trial="0",
        run_name="0000",
        params={},
        tags={},
    )
    report(RunLog(DEAD, identity, ledger.outbox(0)), 1)
    assert sync(ledger, mlflow_store).n_waiting == 1
    assert "is not the store that" in caplog.text
    assert "set MLFLOW_TRACKING_URI to that one" in caplog.text


def test_a_record_that_is_refused_keeps_no_run_open_and_no_other_back(
    ledger, experiment, parent, mlflow_store, tmp_path
):
    lost = a_log(ledger, experiment, parent, mlflow_store)
    report(lost, 1)
    away = a_log(ledger, experiment, parent, DEAD)
    report(away, 2)
    with (ledger.outbox(0) / "records.jsonl").open("ab") as lines:
        refused = {"kind": "finish", "status": "FINISHED", "time_ms": 1, "tags": {"": "no name"}}
        lines.write(line(**refused))
    synced = sync(ledger, mlflow_store)
    assert [synced.n_sent, synced.n_waiting, synced.n_closed] == [1, 1, 2]
    (run,) = stored_runs(tmp_path / "mlflow.db", kind="trial")
    assert run.status == "KILLED"


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("outbox/run.json", "{}", "damaged: experiment_id: Field required"),
        ("outbox/run.json", None, "cannot be read: No such file"),
        ("trial.json", '{"trial": 0', "is damaged: "),
        ("result.json", "[1]", "is damaged: "),
    ],
)
def test_a_damaged_file_is_named(
    ledger, experiment, parent, mlflow_store, *, file, content, problem
):
    report(a_log(ledger, experiment, parent, DEAD), 1)
    path = ledger.trial_folder(0) / file
    path.write_text(content) if content is not None else path.unlink()
    with pytest.raises(TuningError, match=problem) as caught:
        sync(ledger, mlflow_store)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_another_process_runs_here_is_read_and_not_touched(elsewhere, ledger):
    """Both have the same replica: what the one has yet to write to storage is no rubbish."""
    with elsewhere.lock():
        elsewhere.refresh()
        fresh = elsewhere.folder / "extractors" / "net"
        fresh.parent.mkdir()
        fresh.write_text("not yet in storage")
        reader = open_ledger(elsewhere.location, role="driver")
        reader.refresh()
        assert fresh.exists()
        assert [result.trial for result in reader.results()] == [0, 1]
    reader.refresh()
    assert not fresh.exists()
