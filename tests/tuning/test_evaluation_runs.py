"""Evaluations in a real MLflow store, and checkpoints out of it.  Kind: contract."""

import filecmp
import sqlite3
from contextlib import closing

import pytest

from gan.errors import ScoreError
from tests.tuning.stored_runs import stored_runs
from tuning.errors import TrackingError
from tuning.tracking import download_checkpoint, log_evaluation

pytestmark = pytest.mark.mlflow

PARAMS = {"source": "samples.npy", "n_samples": 200, "long": "x" * 9_000}
METRICS = {"precision_valid": 0.5, "precision_valid_se": 0.0, "density_valid": -1e300}


@pytest.fixture
def folder(tmp_path):
    """What an evaluation leaves."""
    made = tmp_path / "left"
    (made / "pictures").mkdir(parents=True)
    (made / "evaluation.json").write_text("{}")
    (made / "pictures" / "samples.png").write_bytes(b"png")
    return made


@pytest.fixture
def log(mlflow_store, folder):
    def log(**changes):
        settings = {"name": "samples.npy, valid", "params": PARAMS, "metrics": METRICS}
        return log_evaluation(
            mlflow_store, "evaluations", **settings | {"folder": folder} | changes
        )

    return log


def rows(database, sql):
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def test_evaluation_is_a_finished_run_of_its_own_with_all_its_files(log, folder, tmp_path):
    run_id = log()
    (run,) = stored_runs(tmp_path / "mlflow.db", kind="evaluation")
    assert (run.run_id, run.status) == (run_id, "FINISHED")
    assert run.tags["mlflow.runName"] == "samples.npy, valid"
    values = dict(rows(tmp_path / "mlflow.db", "SELECT key, value FROM metrics"))
    assert values == METRICS
    assert run.steps == {name: [0] for name in METRICS}
    assert run.params == {"source": "samples.npy", "n_samples": "200", "long": "x" * 5_000}
    compared = filecmp.dircmp(folder, run.artifacts)
    assert (compared.left_only, compared.right_only) == ([], [])
    assert (run.artifacts / "pictures" / "samples.png").read_bytes() == b"png"
    names = rows(tmp_path / "mlflow.db", "SELECT name FROM experiments WHERE experiment_id != 0")
    assert names == [("evaluations",)]


def test_second_evaluation_is_a_second_run(log, tmp_path):
    assert log() != log()
    assert len(stored_runs(tmp_path / "mlflow.db", kind="evaluation")) == 2


@pytest.mark.parametrize("step", ["log_batch", "log_artifacts"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_run_that_fails_midway_is_failed_and_says_why(log, tmp_path, monkeypatch, step, error):
    from mlflow import MlflowClient

    intact = getattr(MlflowClient, step)

    def fail(self, *arguments, **settings):
        monkeypatch.setattr(MlflowClient, step, intact)
        raise error

    monkeypatch.setattr(MlflowClient, step, fail)
    is_outage = isinstance(error, OSError)
    with pytest.raises(TrackingError if is_outage else KeyboardInterrupt) as caught:
        log()
    (run,) = stored_runs(tmp_path / "mlflow.db", kind="evaluation")
    assert run.status == "FAILED"
    assert run.tags["gan.cause"] == ("disk full" if is_outage else "KeyboardInterrupt")
    if is_outage:
        assert "cannot be used: disk full" in str(caught.value)


def test_metric_that_mlflow_refuses_is_an_error_of_one_line(log, tmp_path):
    with pytest.raises(TrackingError, match="cannot be used: Invalid") as caught:
        log(metrics={"a\nb": 1.0})
    assert "\n" not in str(caught.value)
    (run,) = stored_runs(tmp_path / "mlflow.db", kind="evaluation")
    assert run.status == "FAILED"


def test_checkpoint_comes_down_as_it_was_uploaded(mlflow_store, tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_store)
    run_id = client.create_run("0").info.run_id
    up = tmp_path / "up"
    up.mkdir()
    for name in ("manifest.json", "state.json", "state.safetensors"):
        (up / name).write_text(name)
    client.log_artifacts(run_id, str(up), "checkpoints/best")
    (tmp_path / "samples.png").write_bytes(b"png")
    client.log_artifact(run_id, str(tmp_path / "samples.png"))

    download_checkpoint(mlflow_store, run_id, tmp_path / "down")
    names = sorted(path.name for path in (tmp_path / "down").iterdir())
    assert names == ["manifest.json", "state.json", "state.safetensors"]
    assert filecmp.cmpfiles(up, tmp_path / "down", names, shallow=False)[0] == names


def test_run_without_a_checkpoint_or_no_run_is_refused(log, mlflow_store, tmp_path):
    run_id = log()
    with pytest.raises(TrackingError, match=f"run {run_id} has no checkpoint in checkpoints/best"):
        download_checkpoint(mlflow_store, run_id, tmp_path / "down")
    with pytest.raises(TrackingError, match=f"Run with id={'0' * 32} not found"):
        download_checkpoint(mlflow_store, "0" * 32, tmp_path / "down")
    assert not (tmp_path / "down").exists()


def test_error_of_the_caller_is_not_taken_for_one_of_the_store(log, folder, monkeypatch):
    from mlflow import MlflowClient

    def fail(*_):
        raise ScoreError("not of the store")

    monkeypatch.setattr(MlflowClient, "log_artifacts", fail)
    with pytest.raises(ScoreError, match="not of the store"):
        log()
