"""Dockerfiles: tags, users, sources, and nothing secret in a layer (contract)."""

import re
import tomllib

import pytest

from tests.deploy.deploy_files import DOCKER, DOCKERFILES, GENERATED, ROOT
from tests.deploy.dockerfiles import build_arguments, parse, problems

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TRAINER = (DOCKER / "trainer.Dockerfile").read_text(encoding="utf-8")
TRACKER = (DOCKER / "tracker.Dockerfile").read_text(encoding="utf-8")


def test_dockerfiles_are_found():
    assert [file.name for file in DOCKERFILES] == [
        "storage.Dockerfile",
        "tracker.Dockerfile",
        "trainer.Dockerfile",
    ]


def test_an_instruction_over_lines_is_one():
    text = "# no\nFROM a:1 AS b\nRUN x \\\n    && y\ncopy --from=b /c /d\n"
    assert [(i.name, i.text) for i in parse(text)] == [
        ("FROM", "a:1 AS b"),
        ("RUN", "x && y"),
        ("COPY", "--from=b /c /d"),
    ]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_dockerfile_keeps_our_rules(file):
    assert problems(file.read_text(encoding="utf-8"), root=ROOT) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("FROM python", "base image python has no tag"),
        ("USER root", "must be two numbers, neither 0, got root"),
        ("USER 0:0", "must be two numbers, neither 0, got 0:0"),
        ("USER ${UID}:0", "must be two numbers, neither 0, got 10001:0"),
        ("ENV MLFLOW_TRACKING_PASSWORD=x", "ENV MLFLOW_TRACKING_PASSWORD would stay"),
        ("ARG PYPI_TOKEN", "ARG PYPI_TOKEN would stay in the image"),
        ("RUN pip install --index-url https://a:b@example.com x", "a password in an address"),
        ("COPY nowhere /x", "COPY nowhere: there is no such file"),
        ("COPY deploy/docker/make-secrets /x", ".dockerignore keeps it out"),
        ("COPY tests /x", "COPY tests: .dockerignore keeps it out"),
        ("ADD https://example.com/x /x", "ADD fetches and unpacks"),
    ],
)
def test_a_fault_is_found(line, expected):
    found = problems(f"{TRAINER}\n{line}\n", root=ROOT)
    assert any(expected in problem for problem in found), found


def test_a_dockerfile_without_a_user_is_one_of_root():
    assert problems("FROM python:3.11-slim\n", root=ROOT) == [
        "the last USER must be two numbers, neither 0, got root"
    ]


def test_no_secret_reaches_the_builder():
    """The .dockerignore lets nothing in but what it names."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    assert rules[0] == "*"
    assert all((ROOT / name).exists() for name in allowed)
    for generated in GENERATED:
        assert not [name for name in allowed if generated.startswith(name)]


def test_the_trainer_has_every_package_of_the_project():
    copied = re.findall(r"^COPY (\w+) \w+$", TRAINER, re.MULTILINE)
    packages = PROJECT["tool"]["setuptools"]["packages"]
    assert {name.partition(".")[0] for name in packages} == set(copied)


def test_the_trainer_has_what_the_project_says_of_a_cluster():
    assert ".whl)[cluster]" in TRAINER
    assert PROJECT["project"]["optional-dependencies"]["cluster"] == ["ray[default]"]


def test_the_python_of_the_images_is_one_that_the_project_takes():
    versions = set(re.findall(r"^FROM python:(\d+\.\d+)-slim", TRAINER + TRACKER, re.MULTILINE))
    assert versions == {PROJECT["project"]["requires-python"].removeprefix(">=")}


def test_server_and_clients_have_one_range_of_mlflow():
    def mlflow(requirements):
        (found,) = (r for r in requirements if re.match(r"mlflow\W", r))
        return found.replace("[auth]", "")

    tracker = PROJECT["dependency-groups"]["tracker"]
    assert "--group tracker" in TRACKER
    assert mlflow(tracker) == mlflow(PROJECT["project"]["dependencies"])


def test_all_images_have_one_user():
    arguments = [build_arguments(parse(file.read_text())) for file in DOCKERFILES]
    assert {(a["UID"], a["GID"]) for a in arguments} == {("10001", "10001")}
    assert "10001" in (DOCKER / "make-secrets").read_text(encoding="utf-8")
