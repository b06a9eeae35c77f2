"""A run on a cluster that others share, from `gan submit` to samples of its champion."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy
import yaml
from mlflow import MlflowClient
from pyarrow.fs import FileSelector, S3FileSystem

from tests.cluster.services import BUCKET, S3_KEYS, Installation
from tests.pipeline.tiny_run import SETTINGS, write_images

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]


class Person:
    """Somebody with the variables of the installation and a working folder."""

    def __init__(self, installed: Installation, folder: Path) -> None:
        self.environment, self.folder = installed.user(), folder
        folder.mkdir(parents=True, exist_ok=True)

    def gan(
        self, *arguments: str, status: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, which must have that exit status."""
        answer = self.run(*arguments, **environment)
        assert answer.returncode == status, answer.stderr
        return answer

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever that is."""
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | self.environment | environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    def submit(self, *arguments: str) -> str:
        """Send tiny.yaml and do not wait; the job's id."""
        answer = self.gan("submit", "tiny.yaml", "--no-wait", "--json", *arguments)
        return str(json.loads(answer.stdout)["job"])


@pytest.fixture
def person(
    installed: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Person]:
    """A person with images and settings of a tiny run."""
    here = Person(installed, tmp_path / "person")
    write_images(here.folder)
    (here.folder / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    with monkeypatch.context() as patch:
        for name, value in here.environment.items():
            patch.setenv(name, value)
        yield here


def runs(experiment: str, condition: str = "") -> list[tuple[str, str, str]]:
    """Kind, status and id of the runs of an experiment."""
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    pages = client.search_runs([found.experiment_id], condition) if found else []
    return sorted((r.data.tags["gan.kind"], r.info.status, r.info.run_id) for r in pages)


def wait_for_step(experiment: str) -> None:
    """Until some trial of an experiment has logged a score."""
    for _ in range(240):
        trials = [run for run in runs(experiment) if run[0] == "trial"]
        client = MlflowClient()
        if any("frechet_distance_valid" in client.get_run(run[2]).data.metrics for run in trials):
            return
        time.sleep(0.5)
    pytest.fail("no trial has logged anything")


def test_a_run_goes_to_the_cluster_and_its_champion_comes_back(
    installed: Installation, person: Person, tmp_path: Path
) -> None:
    """Runs in PostgreSQL, files in the bucket, the model in a folder that shares no disk."""
    answer = person.gan("submit", "tiny.yaml", "--json", "--set", "name=whole")
    told = json.loads(answer.stdout)
    assert (told["status"], told["exit_status"]) == ("SUCCEEDED", 0)
    assert "promoted" in answer.stderr
    assert [run[:2] for run in runs("whole")] == [
        ("sweep", "FINISHED"),
        ("trial", "FINISHED"),
        ("trial", "FINISHED"),
    ]
    with sqlalchemy.create_engine(installed.database_uri).connect() as connection:
        statuses = connection.execute(sqlalchemy.text("select status from runs")).scalars().all()
    assert statuses.count("FINISHED") >= 3
    keys = bucket(installed)
    trials = [run for kind, _, run in runs("whole") if kind == "trial"]
    assert all(
        any(
            key.startswith("mlflow/") and f"/{run}/artifacts/checkpoints/best/" in key
            for key in keys
        )
        for run in trials
    )
    assert any(key.endswith("trials/0001/result.json") for key in keys)

    other = Person(installed, tmp_path / "other")
    other.gan("fetch", "tiny-generator@champion", "champion")
    other.gan("sample", "champion", "-n", "4", "-o", "samples.npy")
    assert (other.folder / "samples.npy").stat().st_size > 4 * 64

    listed = json.loads(other.gan("jobs", "--json").stdout)
    assert told["job"] in [job["job"] for job in listed if job["status"] == "SUCCEEDED"]
    assert "whole" in other.gan("logs", told["job"]).stdout


def object_store(installed: Installation) -> S3FileSystem:
    """The object storage, as its operator sees it."""
    return S3FileSystem(
        endpoint_override=f"http://127.0.0.1:{installed.storage.port}",
        region="us-east-1",
        access_key=S3_KEYS["AWS_ACCESS_KEY_ID"],
        secret_key=S3_KEYS["AWS_SECRET_ACCESS_KEY"],
    )


def bucket(installed: Installation) -> list[str]:
    """Every key in it."""
    found = object_store(installed).get_file_info(FileSelector(BUCKET, recursive=True))
    return [item.path.removeprefix(f"{BUCKET}/") for item in found if item.is_file]


def everything_kept(installed: Installation) -> bytes:
    """Whatever the bucket holds: sweeps, checkpoints and the artifacts of runs and models."""
    s3 = object_store(installed)
    content = []
    for key in bucket(installed):
        with s3.open_input_stream(f"{BUCKET}/{key}") as stream:
            content.append(stream.read())
    return b"\n".join(content)


def command_lines() -> str:
    """Those of all processes of this machine."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            lines.append(file.read_bytes().decode(errors="replace"))
    return "\n".join(lines)


def test_a_job_that_is_stopped_leaves_no_run_running_and_goes_on_when_sent_again(
    person: Person,
) -> None:
    settings = (
        "--set",
        "promote.model=stopped-generator",
        "--set",
        "name=stopped",
        "--set",
        "train.n_steps=4000",
    )
    settings += ("--set", "evaluation.score_every=500")
    job = person.submit(*settings)
    wait_for_step("stopped")
    told = json.loads(person.gan("stop", job, "--json").stdout)
    assert told["status"] == "STOPPED"
    before = runs("stopped")
    assert {status for _, status, _ in before} == {"KILLED"}
    assert runs("stopped", f"tags.`gan.job` = '{job}'") == before

    person.gan("submit", "tiny.yaml", *settings)
    after = runs("stopped")
    assert {run for _, _, run in before} <= {run for _, _, run in after}
    assert [run[:2] for run in after].count(("trial", "FINISHED")) == 2
    client = MlflowClient()
    for kind, _, run in after:
        if kind == "trial":
            steps = [m.step for m in client.get_metric_history(run, "images_seen")]
            assert steps == sorted(set(steps))
            assert steps[-1] == 4000


def test_of_three_that_begin_the_same_sweep_at_once_one_wins_and_nothing_is_lost(
    installed: Installation, person: Person, tmp_path: Path
) -> None:
    """Two send a job each, and one has a driver of his own in another folder."""
    settings = (
        "--set",
        "promote.model=twice-generator",
        "--set",
        "name=twice",
        "--set",
        "train.n_steps=16000",
    )
    settings += ("--set", "train.report_every=40", "--set", "evaluation.score_every=2000")
    other = Person(installed, tmp_path / "other")
    dataset = f"data.dataset={person.folder}/train.npz"
    test = f"data.test_path={person.folder}/test.npz"
    (other.folder / "tiny.yaml").write_bytes((person.folder / "tiny.yaml").read_bytes())
    command = ["sweep", "tiny.yaml", *settings, "--set", dataset, "--set", test]
    address = f"127.0.0.1:{installed.head.service.port}"
    with ThreadPoolExecutor(max_workers=3) as pool:
        # Without keys the simulator of storage would keep what it writes, frames and all.
        driving = pool.submit(other.run, *command, RAY_ADDRESS=address, **S3_KEYS)
        jobs = list(pool.map(lambda _: person.submit(*settings), range(2)))
        logs = list(pool.map(lambda job: person.run("logs", job, "--follow").stdout, jobs))
        driver = driving.result()
    listed = {job["job"]: job for job in json.loads(person.gan("jobs", "--json").stdout)}
    ends = [(listed[job]["exit_status"], log) for job, log in zip(jobs, logs, strict=True)]
    ends.append((driver.returncode, driver.stderr))
    told = "\n".join(f"--- ended with {status}\n{log[-2000:]}" for status, log in ends)
    assert sorted(status for status, _ in ends) == [0, 1, 1], told
    for status, log in ends:
        assert "Traceback" not in log
        reasons = ("is being run by another process", "another process is at work")
        assert status == 0 or any(reason in log for reason in reasons)
    found = runs("twice")
    assert [run[:2] for run in found] == [("sweep", "FINISHED"), *[("trial", "FINISHED")] * 2]
    for _, _, run in found[1:]:
        history = MlflowClient().get_metric_history(run, "images_seen")
        assert [m.step for m in history] == list(range(40, 16001, 40))
    # One that sends it again has what the winner made.
    person.gan("submit", "tiny.yaml", *settings)
    assert runs("twice") == found


def test_ray_s_own_command_submits_as_well(person: Person) -> None:
    """With the packages in the cluster's image, as there are those of this environment."""
    work = person.folder / "work"
    work.mkdir()
    for name in ("tiny.yaml", "train.npz", "test.npz"):
        (work / name).write_bytes((person.folder / name).read_bytes())
    environment = {k: person.environment[k] for k in ("MLFLOW_TRACKING_URI", "GAN_STORAGE_URI")}
    command = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--working-dir"]
    command += [str(work), "--runtime-env-json", json.dumps({"env_vars": environment}), "--"]
    answer = subprocess.run(
        [*command, "gan", "sweep", "tiny.yaml", "--set", "name=plain"],
        env=os.environ | person.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert ("sweep", "FINISHED") in [run[:2] for run in runs("plain")]


@pytest.mark.parametrize("token", ["", "0" * 64])
def test_without_the_token_the_cluster_answers_nothing(person: Person, token: str) -> None:
    variables = {"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": token}
    for command in (["jobs"], ["submit", "tiny.yaml"], ["stop", "gan-tiny-00000000"]):
        answer = person.gan(*command, status=1, **variables)
        assert "wants its token" in answer.stderr
        assert len(answer.stderr.splitlines()) == 1
        assert not token or token not in answer.stderr


@pytest.mark.parametrize(
    "variables",
    [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": "0" * 64}],
)
def test_without_the_token_no_driver_joins(
    installed: Installation, person: Person, variables: dict[str, str]
) -> None:
    address = f"127.0.0.1:{installed.head.service.port}"
    command = ("sweep", "tiny.yaml")
    answer = person.gan(*command, status=1, RAY_ADDRESS=address, **S3_KEYS, **variables)
    assert "could not be reached" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_secrets_are_in_no_job_no_log_no_run_no_artifact_and_no_command(
    installed: Installation, person: Person
) -> None:
    job = person.submit("--set", "name=secret")
    wait_for_step("secret")
    running = command_lines()
    assert "pipeline.cli" in running
    person.run("logs", job, "--follow")
    kept = person.gan("jobs", "--json").stdout + person.gan("logs", job).stdout
    details = subprocess.run(
        [str(Path(sys.executable).with_name("ray")), "job", "list"],
        env=os.environ | person.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    tags = [MlflowClient().get_run(run).data for _, _, run in runs("secret")]
    told = kept + details + running + "".join(str(d.tags) + str(d.params) for d in tags)
    stored = everything_kept(installed)
    assert b"safetensors" in stored
    token = installed.head.token_file.read_text()
    for secret in (installed.tracker.password, S3_KEYS["AWS_SECRET_ACCESS_KEY"], token):
        assert secret not in told
        assert secret.encode() not in stored


def test_what_a_cluster_cannot_reach_is_refused_before_it_is_asked(person: Person) -> None:
    variables = {
        "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
        "GAN_STORAGE_URI": "s3://key:hidden@bucket/sweeps",
    }
    answer = person.gan("submit", "tiny.yaml", status=2, **variables)
    assert "MLFLOW_TRACKING_URI must be the http:// or https:// address" in answer.stderr
    assert "GAN_STORAGE_URI holds a password" in answer.stderr
    assert "hidden" not in answer.stderr
