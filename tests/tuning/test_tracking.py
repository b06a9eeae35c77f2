"""Runs in a real MLflow store, read back with plain SQL: what is there, once, and how it ended."""

import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from numpy.testing import assert_allclose
from PIL import Image

from gan import metric_names
from gan.metric_names import IMAGES_SEEN
from tuning.errors import StoreUnavailableError, TrackingError
from tuning.outbox import RunIdentity
from tuning.run_log import RunLog, deliver
from tuning.tracking import (
    CAUSE_TAG,
    STOPPED_EARLY_TAG,
    close_run,
    close_stragglers,
    log_scores,
    open_sweep,
    prepare_store,
    tracking_uri,
)

pytestmark = pytest.mark.mlflow

ROOT = Path(__file__).parents[2]


class KilledError(BaseException):
    """Stands for SIGKILL: nothing in the code under test may catch it."""


@pytest.fixture
def experiment(mlflow_store: str) -> str:
    return prepare_store(mlflow_store, "gan")


@pytest.fixture
def trial(experiment: str) -> RunIdentity:
    return identity(experiment)


@pytest.fixture
def new_log(mlflow_store: str, trial: RunIdentity, tmp_path: Path):
    """The log of the trial, as each new process of it makes one."""
    return lambda **settings: RunLog(mlflow_store, trial, tmp_path / "outbox", **settings)


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.png"
    Image.linear_gradient("L").save(path)
    return path


@pytest.fixture
def outage(mlflow_store: str) -> "Outage":
    return Outage(mlflow_store)


class Outage:
    """Makes every statement about runs fail: their table is away."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def start(self) -> None:
        query(self._uri, "ALTER TABLE runs RENAME TO runs_away")

    def end(self) -> None:
        query(self._uri, "ALTER TABLE runs_away RENAME TO runs")


def identity(experiment: str, **fields: object) -> RunIdentity:
    defaults = {"sweep": "sweep-1", "trial": "0003", "run_name": "3", "params": {}, "tags": {}}
    return RunIdentity(experiment_id=experiment, **(defaults | fields))


def report(log: RunLog, step: int, grid: Path | None = None, *, time_ms: int = 0) -> None:
    """A report whose values depend on its step alone, as those of a deterministic trial do."""
    metrics = {IMAGES_SEEN: 1 / step, "g_loss": 2 / step}
    log.report(step, metrics, time_ms=time_ms or 1_000_000 + step, grid=grid)


def query(uri: str, sql: str, *values: object) -> list[tuple]:
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
        return connection.execute(sql, values).fetchall()


def history(
    uri: str, run_id: str | None, metric: str = IMAGES_SEEN
) -> list[tuple[int, float, int]]:
    """(step, value, time) in the order in which they were written."""
    sql = (
        "SELECT step, value, timestamp FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY rowid"
    )
    return query(uri, sql, run_id, metric)


def expected_history(*steps: int) -> list[tuple[int, float, int]]:
    return [(step, 1 / step, 1_000_000 + step) for step in steps]


def tags_of(uri: str, run_id: str | None) -> dict[str, str]:
    return dict(query(uri, "SELECT key, value FROM tags WHERE run_uuid = ?", run_id))


def params_of(uri: str, run_id: str | None) -> dict[str, str]:
    return dict(query(uri, "SELECT key, value FROM params WHERE run_uuid = ?", run_id))


def status_of(uri: str, run_id: str | None) -> str:
    return query(uri, "SELECT status FROM runs WHERE run_uuid = ?", run_id)[0][0]


def end_ms(uri: str, run_id: str | None) -> int:
    return query(uri, "SELECT end_time FROM runs WHERE run_uuid = ?", run_id)[0][0]


def artifacts(uri: str, run_id: str | None) -> Path:
    return Path(query(uri, "SELECT artifact_uri FROM runs WHERE run_uuid = ?", run_id)[0][0])


def grid_steps(uri: str, run_id: str | None) -> list[int]:
    images = (artifacts(uri, run_id) / "images").glob("samples+step+*.png")
    return sorted(int(path.name.split("+")[2]) for path in images)


# The store


def test_the_default_store_is_where_a_bare_mlflow_ui_looks(tmp_path, monkeypatch):
    from mlflow import get_tracking_uri

    monkeypatch.chdir(tmp_path)
    assert tracking_uri() == get_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize(
    ("setting", "uri"),
    [
        ("http://tracker:5000", "http://tracker:5000"),
        ("postgresql://u@h/db", "postgresql://u@h/db"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("sqlite:///store/mlflow.db", "sqlite:///{cwd}/store/mlflow.db"),
        ("", "sqlite:///{cwd}/mlflow.db"),
    ],
)
def test_the_environment_names_another_store(setting, uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", setting)
    assert tracking_uri() == uri.format(cwd=tmp_path)


@pytest.mark.slow
def test_a_folder_with_odd_signs_holds_its_own_store(tmp_path, monkeypatch):
    folder = tmp_path / "a b%20c"
    folder.mkdir()
    monkeypatch.chdir(folder)
    prepare_store(tracking_uri(), "gan")
    assert sorted(path.name for path in folder.iterdir()) == ["mlflow.db", "mlruns"]


def test_artifacts_lie_in_the_working_folder_by_an_absolute_path(mlflow_store, tmp_path):
    experiment = prepare_store(mlflow_store, "gan")
    assert prepare_store(mlflow_store, "gan") == experiment
    locations = query(
        mlflow_store,
        "SELECT artifact_location FROM experiments WHERE experiment_id = ?",
        experiment,
    )
    assert locations == [(str(tmp_path / "mlruns" / experiment),)]


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("sqlite:///{tmp}/file/mlflow.db", "File exists"),
        ("sqlite:////proc/nowhere/mlflow.db", "No such file or directory"),
        ("sqlite:///{tmp}/file", "file is not a database"),
        ("sqlite:///{tmp}", "unable to open database file"),
        ("file:{tmp}/mlruns", "maintenance mode"),
        ("carrier-pigeon://coop", "unsupported URI"),
        ("postgresql+nosuchdriver://user:secret@host/db", "sqlalchemy.dialects:postgresql"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_clear_line_at_once(uri, reason, tmp_path):
    (tmp_path / "file").write_text("not a database, and not a folder either")
    started = time.monotonic()
    with pytest.raises(TrackingError, match=reason) as caught:
        prepare_store(uri.format(tmp=tmp_path), "gan")
    assert time.monotonic() - started < 10
    message = str(caught.value)
    assert message.startswith("MLflow at ")
    assert "\n" not in message
    assert len(message) < 500
    assert "secret" not in message


def test_a_missing_database_driver_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(TrackingError, match="pymysql"):
        prepare_store("mysql+pymysql://user@host/db", "gan")


def test_a_read_only_database_is_refused(mlflow_store, experiment):
    uri = f"sqlite:///file:{mlflow_store.removeprefix('sqlite:///')}?mode=ro&uri=true"
    with pytest.raises(TrackingError, match="readonly database"):
        prepare_store(uri, "gan")


def test_a_dead_server_is_given_up_in_seconds(monkeypatch):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"used: \[Errno 111\] Connection refused$"):
        prepare_store(f"http://127.0.0.1:{free_port()}", "gan")
    assert time.monotonic() - started < 15
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"  # the user's own setting stays


def test_a_deleted_experiment_says_how_to_bring_it_back(mlflow_store, experiment):
    from mlflow import MlflowClient

    MlflowClient(mlflow_store).delete_experiment(experiment)
    with pytest.raises(TrackingError, match=f"mlflow experiments restore .*-id {experiment}"):
        prepare_store(mlflow_store, "gan")


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_an_artifact_folder_that_cannot_be_written_is_refused(prefix, mlflow_store, tmp_path):
    from mlflow import MlflowClient

    (tmp_path / "file").touch()
    location = f"{prefix}{tmp_path}/file/artifacts"
    MlflowClient(mlflow_store).create_experiment("gan", artifact_location=location)
    with pytest.raises(TrackingError, match="file/artifacts must be writable"):
        prepare_store(mlflow_store, "gan")


# The sweep's run


def test_a_resumed_sweep_goes_on_in_its_run(mlflow_store, experiment):
    first = open_sweep(
        mlflow_store, experiment, sweep="s", params={"n_trials": 4}, tags={"version.gan": "1"}
    )
    close_run(mlflow_store, first, "KILLED", tags={CAUSE_TAG: "interrupted"})
    assert status_of(mlflow_store, first) == "KILLED"
    assert tags_of(mlflow_store, first)[CAUSE_TAG] == "interrupted"

    again = open_sweep(
        mlflow_store,
        experiment,
        sweep="s",
        params={"n_trials": 8, "new": 1},
        tags={"version.gan": "2"},
    )
    assert again == first
    assert status_of(mlflow_store, first) == "RUNNING"
    assert params_of(mlflow_store, first) == {"n_trials": "4", "new": "1"}
    tags = tags_of(mlflow_store, first)
    assert CAUSE_TAG not in tags
    assert tags["version.gan"] == "2"
    assert open_sweep(mlflow_store, experiment, sweep="t", params={}, tags={}) != first


def test_a_trial_is_a_child_of_its_sweep(mlflow_store, experiment, tmp_path):
    from mlflow import MlflowClient

    sweep = open_sweep(mlflow_store, experiment, sweep="s", params={}, tags={})
    run_ids = []
    for trial in ("0", "1"):
        run = identity(experiment, sweep="s", trial=trial, run_name=trial, parent_run_id=sweep)
        log = RunLog(mlflow_store, run, tmp_path / trial)
        assert log.run_id is None
        report(log, 1)
        run_ids.append(log.run_id)
    children = MlflowClient(mlflow_store).search_runs(
        [experiment], f"tags.mlflow.parentRunId = '{sweep}'", order_by=["attributes.start_time"]
    )
    assert [run.info.run_id for run in children] == run_ids
    assert [run.info.run_name for run in children] == ["0", "1"]
    assert tags_of(mlflow_store, sweep)["gan.kind"] == "sweep"
    assert tags_of(mlflow_store, run_ids[1])["gan.kind"] == "trial"


def test_only_running_children_of_this_sweep_are_stragglers(mlflow_store, experiment, tmp_path):
    runs = {}
    for sweep in ("s", "t"):
        parent = open_sweep(mlflow_store, experiment, sweep=sweep, params={}, tags={})
        for trial in ("dead", "dead-too", "done"):
            run = identity(experiment, sweep=sweep, trial=trial, parent_run_id=parent)
            log = RunLog(mlflow_store, run, tmp_path / sweep / trial)
            report(log, 1)
            if trial == "done":
                log.finish("FINISHED", tags={})
            runs[sweep, trial] = log.run_id
        runs[sweep, "parent"] = parent

    n_closed = close_stragglers(mlflow_store, runs["s", "parent"], "KILLED", cause="no answer")
    assert n_closed == 2
    statuses = {key: status_of(mlflow_store, run_id) for key, run_id in runs.items()}
    assert [key for key, status in statuses.items() if status == "KILLED"] == [
        ("s", "dead"),
        ("s", "dead-too"),
    ]
    assert statuses["s", "parent"] == statuses["t", "dead"] == "RUNNING"
    assert statuses["s", "done"] == "FINISHED"
    assert tags_of(mlflow_store, runs["s", "dead-too"])[CAUSE_TAG] == "no answer"
    assert CAUSE_TAG not in tags_of(mlflow_store, runs["s", "done"])
    assert close_stragglers(mlflow_store, runs["s", "parent"], "KILLED", cause="") == 0


def test_stragglers_beyond_one_page_of_results_are_closed(
    mlflow_store, experiment, tmp_path, monkeypatch
):
    from mlflow import MlflowClient

    parent = open_sweep(mlflow_store, experiment, sweep="s", params={}, tags={})
    for trial in "abc":
        run = identity(experiment, trial=trial, parent_run_id=parent)
        report(RunLog(mlflow_store, run, tmp_path / trial), 1)
    search = MlflowClient.search_runs
    monkeypatch.setattr(
        MlflowClient, "search_runs", lambda *args, **kw: search(*args, **kw, max_results=2)
    )
    assert close_stragglers(mlflow_store, parent, "KILLED", cause="no answer") == 3


# A trial's run


def test_a_report_is_there_with_step_value_and_time(mlflow_store, new_log):
    log = new_log()
    report(log, 500)
    report(log, 1000)
    assert history(mlflow_store, log.run_id) == expected_history(500, 1000)
    assert [row[1] for row in history(mlflow_store, log.run_id, "g_loss")] == [2 / 500, 2 / 1000]
    assert log.pending() == 0


def test_every_metric_name_is_legal_and_says_its_split(mlflow_store, new_log):
    constants = [value for key, value in vars(metric_names).items() if key.isupper()]
    names = [name.format(layer=1) for name in constants]
    assert len(names) == len(set(names)) == 62
    scores = [name for name in names if "_ll" in name or "distance" in name]
    assert len(scores) >= 10
    assert all("valid" in name or "test" in name for name in scores)
    log = new_log()
    log.report(1, dict.fromkeys(names, 0.5), time_ms=1)
    rows = query(mlflow_store, "SELECT key FROM metrics WHERE run_uuid = ?", log.run_id)
    assert {row[0] for row in rows} == set(names)


def test_grids_lie_on_the_step_slider(mlflow_store, new_log, grid):
    log = new_log()
    report(log, 1, grid)
    report(log, 2)
    report(log, 3, grid)
    assert grid_steps(mlflow_store, log.run_id) == [1, 3]
    assert tags_of(mlflow_store, log.run_id)["mlflow.loggedImages"] == "True"
    (png,) = (artifacts(mlflow_store, log.run_id) / "images").glob("samples+step+3+*.png")
    with Image.open(png) as logged, Image.open(grid) as original:
        assert logged.tobytes() == original.tobytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_refused(value, new_log, mlflow_store):
    with pytest.raises(ValueError, match=r"metric g_loss must be finite, got .* at step 7"):
        new_log().report(7, {IMAGES_SEEN: 1.0, "g_loss": value}, time_ms=1)
    assert query(mlflow_store, "SELECT * FROM runs") == []


def test_a_report_that_does_not_count_images_is_refused(new_log):
    with pytest.raises(ValueError, match=r"must have images_seen, got \['g_loss'\] at step 7"):
        new_log().report(7, {"g_loss": 1.0}, time_ms=1)


def test_an_illegal_metric_name_is_refused_even_during_an_outage(new_log, outage):
    log = new_log()
    report(log, 1)
    outage.start()
    with pytest.raises(ValueError, match=r"metric name must match .* got 'D\(G\(z\)\)'"):
        log.report(2, {IMAGES_SEEN: 1.0, "D(G(z))": 0.5}, time_ms=1)
    assert log.pending() == 0


def test_what_is_not_there_cannot_be_logged(new_log, tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError, match=r"must exist, got .*missing"):
        report(new_log(), 1, missing)
    with pytest.raises(FileNotFoundError, match=r"must exist, got .*missing"):
        new_log().artifact(missing, "x")


def test_a_damaged_grid_is_no_outage(new_log, grid):
    grid.write_bytes(grid.read_bytes()[:40])
    log = new_log()
    with pytest.raises(OSError, match=r"truncated|cannot identify"):
        report(log, 1, grid)
    assert log.pending() == 0


def test_a_refused_request_raises(new_log, mlflow_store):
    from mlflow import MlflowClient

    log = new_log()
    report(log, 1)
    MlflowClient(mlflow_store).delete_run(log.run_id)
    with pytest.raises(TrackingError, match=f"The run {log.run_id} must be in the 'active' state"):
        report(log, 2)
    assert log.pending() == 0


def test_many_params_and_long_values_are_kept(mlflow_store, experiment, tmp_path):
    params = {f"group.field_{i:03}": i for i in range(250)}
    params |= {"long": "x" * 9_000, "none": None, "list": [1200, 1200], "flag": True}
    run = identity(experiment, params=params, tags={"long": "y" * 9_000})
    log = RunLog(mlflow_store, run, tmp_path / "outbox")
    report(log, 1)
    logged = params_of(mlflow_store, log.run_id)
    assert logged.keys() == params.keys()
    assert logged["long"] == "x" * 5_000
    assert (logged["none"], logged["list"], logged["flag"]) == ("None", "[1200, 1200]", "True")
    assert tags_of(mlflow_store, log.run_id)["long"] == "y" * 5_000


@pytest.mark.parametrize(
    ("status", "tags"),
    [
        ("FINISHED", {}),
        ("FINISHED", {STOPPED_EARLY_TAG: "asha"}),
        ("FAILED", {CAUSE_TAG: "DivergedError: losses must be finite"}),
        ("KILLED", {CAUSE_TAG: "interrupted"}),
    ],
)
def test_a_run_ends_as_it_ended(status, tags, mlflow_store, new_log):
    log = new_log()
    report(log, 1)
    before_ms = time.time() * 1000
    log.finish(status, tags=tags)
    assert log.pending() == 0
    assert status_of(mlflow_store, log.run_id) == status
    logged = tags_of(mlflow_store, log.run_id)
    causes = {key: logged[key] for key in (CAUSE_TAG, STOPPED_EARLY_TAG) if key in logged}
    assert causes == tags
    assert_allclose(end_ms(mlflow_store, log.run_id), before_ms, rtol=0, atol=5_000)


def test_what_is_told_too_late_of_a_failure_is_gone_once_a_trial_ends_well(
    mlflow_store, new_log, monkeypatch
):
    """Tags come before the status, and a slow server may take both when the trial has gone on."""
    from mlflow import MlflowClient

    first = new_log()
    report(first, 1)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", killed)
        with pytest.raises(KilledError):
            first.finish("FAILED", tags={CAUSE_TAG: "OSError: disk full"})
    assert CAUSE_TAG in tags_of(mlflow_store, first.run_id)
    second = new_log()
    report(second, 2)
    assert CAUSE_TAG not in tags_of(mlflow_store, second.run_id)
    MlflowClient(tracking_uri=mlflow_store).set_tag(second.run_id, CAUSE_TAG, "late")
    second.finish("FINISHED", tags={})
    assert second.run_id == first.run_id
    assert CAUSE_TAG not in tags_of(mlflow_store, second.run_id)


def test_an_unknown_status_is_refused(new_log):
    with pytest.raises(ValueError, match=r"status must be one of .* got 'DONE'"):
        new_log().finish("DONE", tags={})


def test_scores_taken_after_the_end_are_added_once(mlflow_store, new_log):
    log = new_log()
    report(log, 500)
    log.finish("FINISHED", tags={})
    log_scores(mlflow_store, log.run_id, {"parzen_ll_test": 200.5}, step=500)
    scores = {"parzen_ll_test": 200.5, "parzen_ll_test_se": 2.0}
    log_scores(mlflow_store, log.run_id, scores, step=500)
    for name, value in scores.items():
        assert [row[:2] for row in history(mlflow_store, log.run_id, name)] == [(500, value)]
    assert status_of(mlflow_store, log.run_id) == "FINISHED"


def test_a_score_taken_again_with_another_result_is_the_one_shown(mlflow_store, new_log):
    from mlflow import MlflowClient

    log = new_log()
    report(log, 500)
    log.finish("FINISHED", tags={})
    for value in (200.5, 199.5):  # the test file has changed, say
        log_scores(mlflow_store, log.run_id, {"parzen_ll_test": value}, step=500)
    shown = MlflowClient(mlflow_store).get_run(log.run_id).data.metrics
    assert shown["parzen_ll_test"] == 199.5


# Each step once


def test_a_trial_that_starts_again_goes_on_in_its_run_without_double_steps(mlflow_store, new_log):
    first = new_log()
    for step in (1, 2, 3):
        report(first, step)
    first.finish("FAILED", tags={CAUSE_TAG: "worker died"})

    again = new_log()  # from the checkpoint of step 1
    for step in (2, 3, 4, 4, 5):
        report(again, step, time_ms=2_000_000 + step)
    assert again.run_id == first.run_id
    assert [row[0] for row in history(mlflow_store, again.run_id)] == [1, 2, 3, 4, 5]
    assert history(mlflow_store, again.run_id)[:3] == expected_history(1, 2, 3)
    assert len(query(mlflow_store, "SELECT * FROM runs")) == 1
    assert status_of(mlflow_store, again.run_id) == "RUNNING"
    assert CAUSE_TAG not in tags_of(mlflow_store, again.run_id)


def test_killed_between_grid_and_metrics_a_trial_logs_neither_twice(
    mlflow_store, new_log, grid, monkeypatch
):
    from mlflow import MlflowClient

    first = new_log()
    report(first, 1, grid)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", killed)
        with pytest.raises(KilledError):
            report(first, 2, grid)
    assert grid_steps(mlflow_store, first.run_id) == [1, 2]

    again = new_log()
    for step in (1, 2, 3):
        report(again, step, grid)
    assert grid_steps(mlflow_store, first.run_id) == [1, 2, 3]
    assert history(mlflow_store, first.run_id) == expected_history(1, 2, 3)


def test_killed_within_a_grid_a_trial_completes_it(mlflow_store, new_log, grid, monkeypatch):
    from mlflow import MlflowClient

    first = new_log()
    report(first, 1)
    images = artifacts(mlflow_store, first.run_id) / "images"
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", killed)
        with pytest.raises(KilledError):
            report(first, 2, grid)
    for preview in images.glob("*.webp"):
        preview.unlink()
    report(new_log(), 2, grid)
    assert len(list(images.glob("*.webp"))) == 1


def test_killed_before_its_params_were_logged_a_run_gets_them(
    mlflow_store, experiment, tmp_path, monkeypatch
):
    from mlflow import MlflowClient

    run = identity(experiment, params={"train.d_steps": 2})
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", killed)
        with pytest.raises(KilledError):
            report(RunLog(mlflow_store, run, tmp_path / "outbox"), 1)
    log = RunLog(mlflow_store, run, tmp_path / "outbox")
    report(log, 1)
    assert len(query(mlflow_store, "SELECT * FROM runs")) == 1
    assert params_of(mlflow_store, log.run_id) == {"train.d_steps": "2"}
    assert history(mlflow_store, log.run_id) == expected_history(1)


def killed(*_: object, **__: object) -> None:
    raise KilledError


@pytest.mark.slow
def test_two_processes_write_one_database_at_once(mlflow_store, experiment, tmp_path):
    program = """
import sys
from pathlib import Path
from tuning.outbox import RunIdentity
from tuning.run_log import RunLog
uri, experiment, trial, folder = sys.argv[1:]
run = RunIdentity(experiment_id=experiment, sweep="s", trial=trial, run_name=trial,
                  params={"a": 1}, tags={})
log = RunLog(uri, run, Path(folder) / trial)
for step in range(1, 31):
    metrics = {"images_seen": 1 / step} | {f"m{i}": float(step * i) for i in range(5)}
    log.report(step, metrics, time_ms=1_000_000 + step)
    assert log.pending() == 0, step
log.finish("FINISHED", tags={})
print(log.run_id)
"""
    words = [sys.executable, "-c", program, mlflow_store, experiment]
    trials = [
        subprocess.Popen(
            [*words, trial, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for trial in ("0", "1")
    ]
    for trial in trials:
        out, err = trial.communicate(timeout=120)
        assert trial.returncode == 0, err
        assert "locked" not in err
        run_id = out.strip()
        assert history(mlflow_store, run_id) == expected_history(*range(1, 31))
        assert [row[1] for row in history(mlflow_store, run_id, "m4")] == [
            4.0 * step for step in range(1, 31)
        ]
        assert status_of(mlflow_store, run_id) == "FINISHED"
    assert len(query(mlflow_store, "SELECT * FROM runs")) == 2


# Answers that are none


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """URI of a server that answers everything with status 200 and those bytes."""

    class Handler(BaseHTTPRequestHandler):
        body = b""

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(200)
            self.send_header("content-length", str(len(Handler.body)))
            self.end_headers()
            self.wfile.write(Handler.body)

        do_POST = do_GET  # noqa: N815 - as http.server calls it

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def answer(body: bytes) -> str:
            Handler.body = body
            return f"http://127.0.0.1:{server.server_port}"

        yield answer
        server.shutdown()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>please log in</html>",
        b"[]",
        b"{}",
        b'{"experiment": 5}',
        b'{"experiment": {"experiment_id": {}}}',
        b'{"experiment": {"experiment_id": "1", "lifecycle_stage": "active"',
        b'{"experiment": {"experiment_id": "1", "artifact_location": "\\u0000"}}',
        b'{"runs": [{"info": 3}]}',
        b"\xff\xfe",
    ],
)
def test_an_answer_that_is_none_is_one_clear_line(body, answering, tmp_path):
    uri = answering(body)
    with pytest.raises(TrackingError) as refused:
        prepare_store(uri, "gan")
    assert "\n" not in str(refused.value)
    if b"artifact_location" in body:
        return  # that of an experiment; of a run nothing is asked for
    with pytest.raises(StoreUnavailableError):
        open_sweep(uri, "1", sweep="s", params={}, tags={})


# Outages


def test_training_goes_on_through_an_outage_and_nothing_is_lost(
    mlflow_store, new_log, grid, outage
):
    log = new_log()
    report(log, 1)
    outage.start()
    for step in (2, 3, 4):
        report(log, step, grid if step == 3 else None)
    assert log.pending() == 3
    assert history(mlflow_store, log.run_id) == expected_history(1)

    outage.end()
    log.flush()
    report(log, 5)
    assert log.pending() == 0
    assert history(mlflow_store, log.run_id) == expected_history(1, 2, 3, 4, 5)
    assert grid_steps(mlflow_store, log.run_id) == [3]


def test_an_outage_is_one_line_of_the_log(new_log, outage, caplog, capsys):
    log = new_log(retry_seconds=0.0)
    report(log, 1)
    outage.start()
    for step in (2, 3, 4):
        report(log, step)
        log.flush()
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "no such table" in warnings[0].getMessage()
    assert "Traceback" not in capsys.readouterr().err


def test_what_waited_goes_out_first_when_the_process_starts_again(
    mlflow_store, new_log, outage, tmp_path
):
    outage.start()
    first = new_log()
    for step in (1, 2, 3):
        report(first, step)
    assert first.run_id is None
    outage.end()

    again = new_log()
    assert again.pending() == 3
    for step in (2, 3, 4):
        report(again, step, time_ms=2_000_000 + step)
    assert [row[0] for row in history(mlflow_store, again.run_id)] == [1, 2, 3, 4]
    assert history(mlflow_store, again.run_id)[:3] == expected_history(1, 2, 3)
    assert not (tmp_path / "outbox").exists()


def test_a_step_that_waits_is_not_kept_twice(new_log, outage):
    outage.start()
    for _ in range(2):
        log = new_log()
        for step in (1, 2):
            report(log, step)
    assert log.pending() == 2


def test_an_answer_that_was_lost_does_not_double_a_report(
    mlflow_store, new_log, grid, monkeypatch
):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    log = new_log()
    report(log, 1)
    log_batch = MlflowClient.log_batch
    n_sent = 0

    def log_batch_without_answer(client: MlflowClient, *args: object, **kw: object) -> None:
        nonlocal n_sent
        n_sent += bool(kw.get("metrics"))
        log_batch(client, *args, **kw)
        raise MlflowException("timed out")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", log_batch_without_answer)
        report(log, 2, grid)
    assert log.pending() == 1
    log.flush()
    assert log.pending() == 0
    assert n_sent == 1
    assert history(mlflow_store, log.run_id) == expected_history(1, 2)
    assert grid_steps(mlflow_store, log.run_id) == [2]


def test_a_run_that_could_not_be_closed_is_closed_by_the_driver(
    mlflow_store, new_log, outage, tmp_path
):
    log = new_log()
    report(log, 1)
    outage.start()
    report(log, 2)
    log.finish("FINISHED", tags={STOPPED_EARLY_TAG: "asha"})
    finished_ms = time.time() * 1000
    assert log.pending() == 2
    assert deliver(mlflow_store, tmp_path / "outbox").n_waiting == 2
    outage.end()

    assert status_of(mlflow_store, log.run_id) == "RUNNING"
    time.sleep(0.02)
    assert deliver(mlflow_store, tmp_path / "outbox").n_waiting == 0
    assert end_ms(mlflow_store, log.run_id) <= finished_ms
    assert status_of(mlflow_store, log.run_id) == "FINISHED"
    assert tags_of(mlflow_store, log.run_id)[STOPPED_EARLY_TAG] == "asha"
    assert history(mlflow_store, log.run_id) == expected_history(1, 2)
    assert deliver(mlflow_store, tmp_path / "outbox").n_waiting == 0


def test_a_retry_after_a_failure_that_was_not_sent_ends_well(mlflow_store, new_log, outage):
    outage.start()
    first = new_log()
    report(first, 1)
    first.finish("FAILED", tags={CAUSE_TAG: "worker died"})
    outage.end()

    again = new_log()
    report(again, 2)
    assert status_of(mlflow_store, again.run_id) == "RUNNING"
    again.finish("FINISHED", tags={})
    assert status_of(mlflow_store, again.run_id) == "FINISHED"
    assert CAUSE_TAG not in tags_of(mlflow_store, again.run_id)
    assert history(mlflow_store, again.run_id) == expected_history(1, 2)


def test_a_dead_server_does_not_stop_a_trial(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    log = RunLog(f"http://127.0.0.1:{free_port()}", identity("1"), tmp_path / "outbox")
    for step in (1, 2):
        report(log, step)
    log.finish("FINISHED", tags={})
    assert log.pending() == 3
    assert log.run_id is None


@pytest.mark.parametrize(
    ("code", "waits"),
    [
        ("TEMPORARILY_UNAVAILABLE", True),
        ("INTERNAL_ERROR", True),
        ("REQUEST_LIMIT_EXCEEDED", True),
        ("PERMISSION_DENIED", True),
        ("BAD_REQUEST", True),  # what MLflow makes of an exhausted pool of connections
        ("INVALID_PARAMETER_VALUE", False),
        ("RESOURCE_DOES_NOT_EXIST", False),
    ],
)
def test_only_what_may_pass_later_waits(code, waits, new_log, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    log = new_log()
    report(log, 1)
    monkeypatch.setattr(
        MlflowClient, "log_batch", raising(MlflowException(code, ErrorCode.Value(code)))
    )
    if waits:
        report(log, 2)
        assert log.pending() == 1
    else:
        with pytest.raises(TrackingError, match=code):
            report(log, 2)
        assert log.pending() == 0


@pytest.mark.parametrize(
    ("status", "waits"), [(502, True), (403, True), (429, True), (413, False)]
)
def test_only_an_upload_that_may_pass_later_waits(status, waits, new_log, tmp_path, monkeypatch):
    import requests
    from mlflow import MlflowClient

    response = requests.Response()
    response.status_code = status
    error = requests.HTTPError(f"status {status}", response=response)
    monkeypatch.setattr(MlflowClient, "log_artifacts", raising(error))
    log = new_log()
    report(log, 1)
    if waits:
        log.artifact(tmp_path / "mlruns", "x")
        assert log.pending() == 1
    else:
        with pytest.raises(TrackingError, match="status 413"):
            log.artifact(tmp_path / "mlruns", "x")


def raising(error: Exception):
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


# Artifacts


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_an_upload_replaces_what_lay_there_and_nothing_else(mlflow_store, new_log, tmp_path):
    log = new_log()
    log.artifact(
        write(tmp_path / "a", weights="1", old="1", sub__x="1", sub__y="1", gone__z="1"),
        "checkpoints/last",
    )
    log.artifact(write(tmp_path / "b", weights="best"), "checkpoints/best")
    log.artifact(write(tmp_path / "c", weights="2", sub__x="2"), "checkpoints/last")
    stored = artifacts(mlflow_store, log.run_id) / "checkpoints"
    assert contents(stored / "last") == {"weights": "2", "sub/x": "2"}
    assert contents(stored / "best") == {"weights": "best"}


def test_a_single_file_keeps_its_name(mlflow_store, new_log, tmp_path, outage):
    log = new_log()
    for content in ("1", "2"):
        log.artifact(
            write(tmp_path / "f", config="1" if content == "1" else "2") / "config", "meta"
        )
        log.artifact(write(tmp_path / "g", other="kept") / "other", "meta")
    stored = artifacts(mlflow_store, log.run_id) / "meta"
    assert contents(stored) == {"config": "2", "other": "kept"}
    outage.start()
    report(log, 1)
    log.artifact(write(tmp_path / "f", config="3") / "config", "meta")
    outage.end()
    log.flush()
    assert contents(stored) == {"config": "3", "other": "kept"}


def test_the_checkpoint_of_an_outage_is_the_one_that_was_logged(
    mlflow_store, new_log, tmp_path, outage
):
    log = new_log()
    report(log, 1)
    outage.start()
    report(log, 2)
    log.artifact(write(tmp_path / "last", weights="2"), "checkpoints/last")
    write(tmp_path / "last", weights="overwritten by the trial")
    outage.end()
    log.flush()
    stored = artifacts(mlflow_store, log.run_id) / "checkpoints"
    assert contents(stored) == {"last/weights": "2"}


# A real server


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server:
    """`mlflow server` on the store of the working folder."""

    def __init__(self, store: str) -> None:
        self._store, self._port = store, free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["server", "--backend-store-uri", self._store, "--port", str(self._port)]
        words += ["--artifacts-destination", "served", "--workers", "1"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.2)
        raise AssertionError("the server did not start")

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(mlflow_store: str):
    server = Server(mlflow_store)
    yield server
    server.stop()


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back_has_everything_once(
    server, mlflow_store, tmp_path, grid, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    server.start()
    experiment = prepare_store(server.uri, "served")
    parent = open_sweep(server.uri, experiment, sweep="s", params={"n_trials": 1}, tags={})
    run = identity(experiment, sweep="s", parent_run_id=parent, params={"train.d_steps": 2})
    log = RunLog(server.uri, run, tmp_path / "outbox")
    report(log, 1, grid)
    log.artifact(write(tmp_path / "a", weights="1", stale="1"), "checkpoints/last")
    server.stop()
    report(log, 2, grid)
    log.artifact(write(tmp_path / "b", weights="2"), "checkpoints/last")
    log.finish("FAILED", tags={CAUSE_TAG: "tracker away"})
    assert log.pending() == 3
    with pytest.raises(StoreUnavailableError, match="Connection refused"):
        close_run(server.uri, parent, "FINISHED", tags={})

    server.start()
    assert deliver(server.uri, tmp_path / "outbox").n_waiting == 0
    close_run(server.uri, parent, "FINISHED", tags={})
    assert history(mlflow_store, log.run_id) == expected_history(1, 2)
    assert status_of(mlflow_store, log.run_id) == "FAILED"
    assert status_of(mlflow_store, parent) == "FINISHED"
    stored = tmp_path / "served" / experiment / log.run_id / "artifacts"
    assert contents(stored / "checkpoints") == {"last/weights": "2"}
    pngs = (stored / "images").glob("samples+step+*.png")
    assert sorted(path.name.split("+")[2] for path in pngs) == ["1", "2"]


# Imports


def test_mlflow_is_imported_where_it_is_used():
    program = "import sys, tuning.run_log, tuning.tracking; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
