"""The compose file: the schema of its specification, and what we ask beyond it (contract)."""

import json
from copy import deepcopy
from pathlib import Path

import check_jsonschema
import jsonschema
import pytest
from yaml import safe_load

from tests.deploy.command_lines import problem
from tests.deploy.compose_rules import problems, secrets_of
from tests.deploy.deploy_files import COMPOSE, DOCKER, ROOT, load
from tests.deploy.dockerfiles import build_arguments, parse

SCHEMA = json.loads(
    (
        Path(check_jsonschema.__file__).parent / "builtin_schemas/vendor/compose-spec.json"
    ).read_text(encoding="utf-8")
)
OVERLAY = DOCKER / "compose.gpu.yaml"
SERVICES = load(COMPOSE)["services"]


@pytest.fixture
def compose():
    return deepcopy(load(COMPOSE))


@pytest.mark.parametrize("file", [COMPOSE, OVERLAY], ids=lambda file: file.name)
def test_file_follows_the_specification(file):
    jsonschema.validate(load(file), SCHEMA)


def test_the_specification_refuses_a_misspelt_key(compose):
    compose["services"]["postgres"]["healthchek"] = {}
    with pytest.raises(jsonschema.ValidationError, match="healthchek"):
        jsonschema.validate(compose, SCHEMA)


def test_the_parts_of_a_cluster_are_there():
    assert {"ray-head", "ray-worker", "mlflow", "postgres", "storage", "prepare"} == set(SERVICES)


def test_file_keeps_our_rules(compose):
    assert problems(compose) == []


FAULTS = {
    "user: '0:0'": "ray-head: must run as the owner of the secrets, got user 0:0",
    "user: null": "ray-head: must run as the owner",
    "cap_add: [SYS_PTRACE]": "ray-head: must not gain capabilities",
    "privileged: true": "ray-head: must not gain capabilities",
    "cap_drop: [NET_RAW]": "ray-head: must drop all capabilities",
    "security_opt: []": "ray-head: must not be able to gain privileges",
    "healthcheck: {disable: true}": "ray-head: has no health check",
    "image: gan-trainer": "ray-head: image gan-trainer has no tag",
    "ports: ['8265:8265']": "ray-head: port 8265:8265 must be published on 127.0.0.1 alone",
    "ports: ['127.0.0.1:8265:8266']": "its command does not listen there",
    "environment: {RAY_AUTH_MODE: disabled}": "ray-head: Ray must ask for a token",
    "environment: {MLFLOW_TRACKING_PASSWORD: x}": "MLFLOW_TRACKING_PASSWORD must name a file",
    "environment: {AWS_SECRET_ACCESS_KEY: x}": "AWS_SECRET_ACCESS_KEY must name a file",
    "environment: {MLFLOW_TRACKING_URI: 'http://a:b@mlflow:5000'}": "a password in an address",
    "environment: {MLFLOW_TRACKING_URI: 'http://mlflow:5001'}": "mlflow does not listen on 5001",
    "environment: {MLFLOW_TRACKING_URI: 'http://tracker:5000'}": "tracker is no service",
    "environment: {A: 'postgresql+psycopg2://a@postgres:5432'}": "no service that it reaches",
    "environment: {A: '${POSTGRES_PASSWORD:-mlflow}'}": "a secret with a default",
    "environment: {AWS_SHARED_CREDENTIALS_FILE: /run/secrets/s3_admin}": "no secret is mounted",
    "command: [ray, start, --redis-password=x]": "a secret as an option",
    "secrets: [ray_token, s3_sweeps, root_password]": "secret root_password is not defined",
    "depends_on: [prepare]": "depends_on must state conditions",
    "depends_on: {prepare: {condition: service_started}}": "is service_completed_successfully",
    "depends_on: {mlflow: {condition: service_started}}": "must wait until mlflow is service_hea",
    "depends_on: {redis: {condition: service_healthy}}": "depends on redis, which is no service",
    "volumes: ['/:/host']": "volume / is not a named one",
    "shm_size: null": None,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_service_is_found(compose, fault):
    service = compose["services"]["ray-head"]
    for key, value in safe_load(fault).items():
        is_addition = key == "environment"
        service[key] = service[key] | value if is_addition else value
        if value is None:
            del service[key]
    expected = FAULTS[fault] or "ray-head: Ray's object store needs a /dev/shm"
    assert any(expected in found for found in problems(compose)), problems(compose)


def test_a_secret_that_nobody_uses_is_found(compose):
    compose["secrets"]["old"] = {"file": "secrets/old"}
    assert problems(compose) == ["secret old is used by no service"]


def test_every_secret_is_one_that_make_secrets_makes(secrets):
    files = {secret["file"] for secret in load(COMPOSE)["secrets"].values()}
    assert len(files) >= 10
    assert files <= {f"secrets/{file.name}" for file in secrets.iterdir()}


def test_the_database_is_reached_by_mlflow_alone():
    networks = load(COMPOSE)["networks"]
    reaching = {name for name, service in SERVICES.items() if "database" in service["networks"]}
    assert reaching == {"mlflow", "postgres"}
    assert networks["database"] == {"internal": True}
    assert SERVICES["postgres"]["networks"] == ["database"]


def test_nobody_has_the_keys_of_another():
    holders = {
        secret: {name for name, service in SERVICES.items() if secret in secrets_of(service)}
        for secret in load(COMPOSE)["secrets"]
    }
    assert holders["mlflow_admin"] == holders["s3_prepare"] == {"prepare"}
    assert holders["s3_mlflow"] == holders["pgpass"] == holders["mlflow_auth.ini"] == {"mlflow"}
    assert holders["ray_token"] == holders["s3_sweeps"] == {"ray-head", "ray-worker"}
    assert holders["s3.json"] == {"storage"}


@pytest.mark.parametrize("name", [n for n, service in SERVICES.items() if "build" in service])
def test_build_finds_its_dockerfile_and_arguments(name):
    build = SERVICES[name]["build"]
    context = (COMPOSE.parent / build["context"]).resolve()
    assert context == ROOT
    declared = build_arguments(parse((context / build["dockerfile"]).read_text()))
    assert build["args"].keys() <= declared.keys()


def test_the_overlay_changes_services_and_arguments_that_there_are():
    for name, service in load(OVERLAY)["services"].items():
        assert service["build"]["args"].keys() <= SERVICES[name]["build"]["args"].keys()
        assert service["image"] != SERVICES[name]["image"]


def commands():
    for name, service in SERVICES.items():
        test = service["healthcheck"].get("test", [])
        for words in (service.get("command"), test[1:]):
            if words and words[0] in ("ray", "mlflow", "python"):
                filled = [word.replace("${GAN_WORKER_CPUS:-2}", "2") for word in words]
                yield pytest.param(filled, id=f"{name}: {' '.join(words[:2])}")


@pytest.mark.parametrize("words", list(commands()))
def test_command_is_one_that_the_program_takes(words):
    assert problem(words) is None


def test_an_unknown_option_is_found():
    assert "--dashbord-host" in problem(["ray", "start", "--head", "--dashbord-host=0.0.0.0"])
    assert "--app" in problem(["mlflow", "server", "--app=basic-auth"])


def test_buckets_are_those_that_the_settings_and_keys_name(secrets):
    (prepare, mlflow, head) = (SERVICES[name] for name in ("prepare", "mlflow", "ray-head"))
    options = [word.partition("=") for word in prepare["command"]]
    made = {value for option, _, value in options if option == "--bucket"}
    assert head["environment"]["GAN_STORAGE_URI"].startswith("s3://gan-sweeps?")
    assert "--artifacts-destination=s3://mlflow" in mlflow["command"]
    assert made == {"gan-sweeps", "mlflow"}
    actions = {
        identity["name"]: {action.partition(":")[2] for action in identity["actions"]}
        for identity in json.loads((secrets / "s3.json").read_text())["identities"]
    }
    assert actions == {"prepare": {""}, "mlflow": {"mlflow"}, "sweeps": {"gan-sweeps"}}


def test_pyarrow_reads_where_sweeps_are_kept(monkeypatch):
    from pyarrow.fs import FileSystem

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    uri = SERVICES["ray-head"]["environment"]["GAN_STORAGE_URI"]
    storage, path = FileSystem.from_uri(uri)
    assert (storage.type_name, path) == ("s3", "gan-sweeps")
