"""What is sent to a cluster, and what is refused before anything is."""

import sysconfig
from pathlib import Path
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
    mine = "name: mine\nbase: {learned_prior: {}}\n"
    (tmp_path / "mine.yaml").write_text(mine)
    sent = submit(f"extensions=[conditional, {tmp_path}/mine.yaml]")
    assert sent["files"]["extension-1.yaml"] == mine
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
        ("MLFLOW_TRACKING_URI", "https://mlflow/?token=hidden", "nothing behind its ?"),
        ("MLFLOW_TRACKING_URI", "https://mlflow/?hidden", "got a value without a name"),
        ("MLFLOW_TRACKING_URI", "https://mlflow/#token=hidden", "got token"),
        ("GAN_STORAGE_URI", "s3://key:hidden@bucket", "GAN_STORAGE_URI holds a password"),
        (
            "GAN_STORAGE_URI",
            "s3://b/p?access_key=a&secret_key=hidden",
            "got access_key, secret_key",
        ),
        ("GAN_STORAGE_URI", "s3://b/p?region=r&session_token=hidden", "got session_token"),
        ("GAN_STORAGE_URI", "abfs://acct/p?client_secret=hidden", "got client_secret"),
        (
            "GAN_STORAGE_URI",
            "s3://b?endpoint_override=http://me:hidden@h",
            "GAN_STORAGE_URI holds a password",
        ),
    ],
)
def test_what_a_cluster_must_not_get_is_refused(name, value, problem, monkeypatch):
    monkeypatch.setenv(name, value)
    told = refused()
    assert problem in told
    assert "hidden" not in told


@pytest.mark.parametrize(
    "uri",
    [
        "s3://b/p?endpoint_override=h:1&scheme=http&region=us-east-1&allow_bucket_creation=true",
        "gs://b/p?project_id=x&retry_limit_seconds=3",
    ],
)
def test_where_the_storage_is_goes_along(uri, monkeypatch):
    monkeypatch.setenv("GAN_STORAGE_URI", uri)
    assert submit()["environment"] == {"GAN_STORAGE_URI": uri}


def refused(*assignments: str, source: str = "quick") -> str:
    with pytest.raises(ConfigError) as refusal:
        submit(*assignments, source=source)
    assert Sent.last == {}
    return str(refusal.value)


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("sweep.n_trials=0", "sweep.n_trials: "),
        ("sweep.objective=accuracy_valid", "sweep.objective: input should be"),
        ("sweep.objective=few_labels_nats", "sweep.objective: generator is scored by"),
        ("extensions=[nonsense]", "there is no preset nonsense"),
        ("extensions=[nope.yaml]", "nope.yaml: No such file"),
        ("extensions=[quick]", "quick trains no extension"),
        ("extensions=[conditional, conditional]", "are both of the task conditional"),
        ("start=mnist-generator@champion", "start: generator starts from nothing here"),
    ],
)
def test_a_configuration_that_cannot_run_is_not_sent(assignment, problem):
    assert problem in refused(assignment)


def test_a_model_of_the_registry_is_for_the_cluster_to_find():
    sent = submit("start=mnist-generator@champion", source="inference")
    assert yaml.safe_load(sent["files"]["run.yaml"])["base"]["start"] == (
        "mnist-generator@champion"
    )


def test_a_folder_of_this_machine_to_start_from_is_refused(tmp_path):
    problem = refused(f"start={tmp_path}", source="inference")
    assert problem.startswith("start must name a registered model")
    assert problem.endswith(f"got {tmp_path}")


def test_nor_may_an_extension_start_from_one(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"base: {{inference: {{}}, start: {tmp_path}}}\n")
    assert "start must name a registered model" in refused(f"extensions=[{mine}]")


def test_an_extractor_that_is_not_sent_is_refused(tmp_path, monkeypatch):
    (tmp_path / "unsent_features.py").write_text("raise SystemExit('it was run')\n")
    monkeypatch.syspath_prepend(tmp_path)
    problem = refused("evaluation.extractor=unsent_features:points")
    assert problem.startswith("evaluation.extractor must be of a package that is installed")
    assert f"{tmp_path}/unsent_features.py, which is not sent" in problem


@pytest.mark.parametrize("name", ["pytest:main", "of_the_cluster.features:points"])
def test_an_extractor_that_may_be_installed_there_is_taken(name):
    assert Path(pytest.__file__).is_relative_to(sysconfig.get_path("purelib"))
    sent = submit(f"evaluation.extractor={name}")
    assert yaml.safe_load(sent["files"]["run.yaml"])["base"]["evaluation"]["extractor"] == name


def test_home_is_that_of_the_cluster_s_machines(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: {data: {dataset: ~/a.npz, test_path: ~/b.npz, n_valid: 10}}\n")
    sent = submit("data.test_path=/c.npz", source=str(mine))
    data = yaml.safe_load(sent["files"]["run.yaml"])["base"]["data"]
    assert (data["dataset"], data["test_path"]) == ("~/a.npz", "/c.npz")
