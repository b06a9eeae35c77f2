"""The scripts beside the compose file, run (contract)."""

import configparser
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from tests.deploy.conftest import make_secrets
from tests.deploy.deploy_files import DOCKER

SCRIPTS = [DOCKER / "make-secrets", DOCKER / "tracker-entrypoint"]
KEY = re.compile(r"[0-9a-f]{64}")


@pytest.fixture(scope="module")
def prepare():
    """The script of the service `prepare`, which is in no package."""
    spec = spec_from_file_location("prepare", DOCKER / "prepare.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_script_is_bash_and_can_be_run(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


def test_secrets_are_of_one_owner_alone(secrets):
    owner = secrets.stat().st_uid
    assert owner == (os.getuid() or 10001)
    assert secrets.stat().st_mode & 0o777 == 0o700
    for file in secrets.iterdir():
        assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (owner, 0o600), file.name
    lines = (secrets.parent / ".env").read_text().splitlines()
    assert lines == [f"GAN_UID={owner}", f"GAN_GID={secrets.stat().st_gid}"]


def test_secrets_are_all_different_and_long(secrets):
    bare = [file.read_text() for file in secrets.iterdir() if KEY.fullmatch(file.read_text())]
    assert len(bare) == len(set(bare)) == 9


def test_programs_can_read_their_secrets(secrets):
    ini = configparser.ConfigParser(interpolation=None)
    ini.read([secrets / "mlflow_auth.ini"])
    password = (secrets / "mlflow_admin_password").read_text()
    assert ini["mlflow"]["admin_password"] == password
    ini.read([secrets / "s3_sweeps"])
    keys = {
        identity["name"]: identity["credentials"][0]
        for identity in json.loads((secrets / "s3.json").read_text())["identities"]
    }
    assert keys["sweeps"] == {
        "accessKey": ini["default"]["aws_access_key_id"],
        "secretKey": ini["default"]["aws_secret_access_key"],
    }
    host, port, database, user, word = (secrets / "pgpass").read_text().strip().split(":")
    assert (host, port, database, user) == ("postgres", "5432", "mlflow", "mlflow")
    assert word == (secrets / "postgres_password").read_text()
    security = tomllib.loads((secrets / "security.toml").read_text())
    assert security["jwt"]["filer_signing"]["key"] == (secrets / "filer_key").read_text()


def test_mlflow_knows_every_setting_of_its_accounts(secrets):
    (mlflow,) = find_spec("mlflow").submodule_search_locations
    known = (Path(mlflow) / "server/auth/basic_auth.ini").read_text()
    ini = configparser.ConfigParser(interpolation=None)
    ini.read([secrets / "mlflow_auth.ini"])
    for name in ini["mlflow"]:
        assert re.search(rf"^(# )?{name} =", known, re.MULTILINE), name
    assert KEY.search(ini["mlflow"]["database_uri"]) is None


def test_made_secrets_are_told_by_name_alone(tmp_path):
    said = make_secrets(tmp_path)
    assert "made secrets/ray_token" in said
    assert KEY.search(said) is None


def test_secrets_that_there_are_stay(tmp_path):
    make_secrets(tmp_path)
    (tmp_path / "secrets/pgpass").unlink()
    (tmp_path / "secrets/mlflow_trainer").write_text("my own")
    before = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    env = (tmp_path / ".env").read_text()
    assert make_secrets(tmp_path) == "made secrets/pgpass\n"
    after = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert before["postgres_password"] in after.pop("pgpass")
    assert after == before
    assert (tmp_path / ".env").read_text() == env


def test_an_empty_secret_is_none(tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/ray_token").touch()
    make_secrets(tmp_path)
    assert KEY.fullmatch((tmp_path / "secrets/ray_token").read_text())


def test_settings_beside_the_owner_stay(tmp_path):
    (tmp_path / ".env").write_text("GAN_WORKER_CPUS=4\n")
    make_secrets(tmp_path)
    lines = (tmp_path / ".env").read_text().splitlines()
    assert [line.partition("=")[0] for line in lines] == ["GAN_WORKER_CPUS", "GAN_UID", "GAN_GID"]


def tracker(*command, **environment):
    return subprocess.run(
        [DOCKER / "tracker-entrypoint", *command],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_key_comes_from_its_file(tmp_path):
    (tmp_path / "key").write_text("k e y")
    done = tracker("env", MLFLOW_FLASK_SERVER_SECRET_KEY_FILE=str(tmp_path / "key"))
    assert "MLFLOW_FLASK_SERVER_SECRET_KEY=k e y\n" in done.stdout
    assert "SECRET_KEY_FILE" not in done.stdout


def test_without_a_file_the_command_is_run_as_it_is():
    done = tracker("sh", "-c", "echo $0 $1; exit 3", "a", "b c")
    assert (done.returncode, done.stdout) == (3, "a b c\n")


@pytest.mark.parametrize("content", ["", None], ids=["empty", "missing"])
def test_a_server_without_its_key_does_not_start(tmp_path, content):
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    done = tracker("echo", "started", MLFLOW_FLASK_SERVER_SECRET_KEY_FILE=str(file))
    assert done.returncode != 0
    assert done.stdout == ""
    assert str(file) in done.stderr


class Storage:
    """As much of a client of S3 as is used."""

    def __init__(self, *names):
        self.made = list(names)

    def list_buckets(self):
        return {"Buckets": [{"Name": name} for name in self.made]}

    def create_bucket(self, *, Bucket):  # as boto3 calls it
        self.made.append(Bucket)


def test_buckets_that_are_missing_are_made(prepare):
    storage = Storage("mlflow")
    for _ in range(2):
        prepare.make_buckets(storage, ["mlflow", "gan-sweeps"])
    assert storage.made == ["mlflow", "gan-sweeps"]


class Tracker:
    """As much of MLflow's client for accounts as is used."""

    def __init__(self, error_code="RESOURCE_DOES_NOT_EXIST"):
        self.passwords, self.error_code = {}, error_code

    def get_user(self, username):
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import ErrorCode

        if username not in self.passwords:
            raise MlflowException("no", error_code=ErrorCode.Value(self.error_code))

    def create_user(self, username, password):
        assert username not in self.passwords
        self.passwords[username] = password

    def update_user_password(self, username, password):
        assert username in self.passwords
        self.passwords[username] = password


def test_the_account_is_made_once_and_then_follows_its_file(prepare, secrets):
    tracker = Tracker()
    name, password = prepare.read_account(secrets / "mlflow_trainer")
    prepare.make_account(tracker, name, "an older password")
    prepare.make_account(tracker, name, password)
    assert tracker.passwords == {"trainer": (secrets / "mlflow_trainer_password").read_text()}


def test_an_account_is_not_made_if_the_server_refuses_to_say(prepare):
    from mlflow.exceptions import MlflowException

    tracker = Tracker("PERMISSION_DENIED")
    with pytest.raises(MlflowException, match="no"):
        prepare.make_account(tracker, "trainer", "a long password")
    assert tracker.passwords == {}


def test_the_script_tells_what_it_takes():
    done = subprocess.run(
        [sys.executable, DOCKER / "prepare.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--bucket" in done.stdout
    assert "--account" in done.stdout
