"""What is sent to a cluster, and what is refused before anything is."""

from typing import Any

import pytest
import yaml

from gan.config import load_config, to_dict
from gan.errors import ConfigError
from pipeline import submission
from pipeline.settings import resolve


class Sent:
    """A cluster that takes every job."""

    def __init__(self, address: str) -> None:
        self.address = address

    def submit(self, command: str, **request: Any) -> str:
        Sent.last = {"command": command, "address": self.address, **request}
        return "gan-quick-1"

    last: dict[str, Any] = {}  # noqa: RUF012 - what a test looks at


@pytest.fixture(autouse=True)
def _cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    Sent.last = {}
    monkeypatch.setattr(submission, "JobServer", Sent)
    for name in ("MLFLOW_TRACKING_URI", "GAN_STORAGE_URI"):
        monkeypatch.delenv(name, raising=False)


def submit(*assignments: str, source: str = "quick") -> dict[str, Any]:
    assert submission.submit(source, assignments, "http://head:8265") == "gan-quick-1"
    return Sent.last


def test_a_job_gets_the_configuration_that_was_checked_here():
    sent = submit("sweep.n_trials=3")
    config = load_config(yaml.safe_load(sent["files"]["run.yaml"]))
    assert to_dict(config) == to_dict(resolve("quick", ["sweep.n_trials=3"]))
    assert sent["command"] == "python -m pipeline.cli run run.yaml"
    assert sent["packages"] == ("gan", "tuning", "pipeline")
    assert sent["environment"] == {}


def test_the_two_settings_are_passed_on(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow:5000")
    monkeypatch.setenv("GAN_STORAGE_URI", "s3://bucket/sweeps")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hidden")
    assert submit()["environment"] == {
        "MLFLOW_TRACKING_URI": "https://mlflow:5000",
        "GAN_STORAGE_URI": "s3://bucket/sweeps",
    }


def test_extensions_that_are_files_go_along(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    sent = submit(f"extensions=[conditional, {tmp_path}/mine.yaml]")
    assert sent["files"]["extension-1.yaml"] == "name: mine\n"
    assert yaml.safe_load(sent["files"]["run.yaml"])["extensions"] == [
        "conditional",
        "extension-1.yaml",
    ]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db", "got one of scheme 'sqlite'"),
        ("MLFLOW_TRACKING_URI", "mlruns", "got one of scheme 'none'"),
        (
            "MLFLOW_TRACKING_URI",
            "https://me:hidden@mlflow",
            "MLFLOW_TRACKING_URI holds a password",
        ),
        ("GAN_STORAGE_URI", "s3://key:hidden@bucket", "GAN_STORAGE_URI holds a password"),
    ],
)
def test_what_a_cluster_must_not_get_is_refused(name, value, problem, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as refused:
        submit()
    assert problem in str(refused.value)
    assert "hidden" not in str(refused.value)
    assert Sent.last == {}


@pytest.mark.parametrize("assignment", ["sweep.n_trials=0", "sweep.objective=accuracy_valid"])
def test_a_configuration_that_cannot_run_is_not_sent(assignment):
    with pytest.raises(ConfigError):
        submit(assignment)
    assert Sent.last == {}
