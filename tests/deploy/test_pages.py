"""What the pages name exists: commands, files, variables, ports (contract)."""

import re
import shlex

import pytest
from yamllint import linter
from yamllint.config import YamlLintConfig

from tests.deploy import names, secrecy
from tests.deploy.command_lines import commands_of, problem, split
from tests.deploy.deploy_files import DEPLOY, GENERATED, PAGES, ROOT, TEXTS, YAMLS
from tests.deploy.names import VARIABLE

COMMANDS = {
    f"{page.parent.name}: {shlex.join(command)}": command
    for page in PAGES
    for command in commands_of(page.read_text(encoding="utf-8"))
}
YAML_STYLE = YamlLintConfig(
    "extends: default\n"
    "rules:\n"
    "  braces: {max-spaces-inside: 0}\n"
    "  document-start: disable\n"
    "  line-length: {max: 99}\n"
    # Numbers of the kind 0440 are how Kubernetes writes the mode of a file.
    "  octal-values: disable\n"
)


def relative(path):
    return path.relative_to(DEPLOY).as_posix()


def test_pages_and_files_are_found():
    assert [page.parent.name for page in PAGES] == ["docker", "kuberay", "ray"]
    assert len(YAMLS) == 5
    assert len(COMMANDS) >= 40


def test_commands_are_found_wherever_they_stand():
    block = "   ```bash\n   A=1 gan run | x >y  # all\n   ```\n"
    page = f"Run `gan ui`, `gan`.\n\n{block}`A=1 ray up f`\n"
    assert commands_of(page) == [["gan", "run"], ["x"], ["gan", "ui"], ["ray", "up", "f"]]
    assert split("(umask 077; a | b >c)") == [["umask", "077"], ["a"], ["b"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_a_page_is_one_that_its_program_takes(command, monkeypatch):
    # As every page tells its reader to export it, see below.
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
    assert problem(COMMANDS[command]) is None


@pytest.mark.parametrize(
    "line",
    [
        "gan sbumit quick",
        "gan run quick --set sweep.trials=4",
        "gan submit fast",
        "gan run quick --fast",
        "ray upp deploy/ray/cluster.yaml",
        "ray up deploy/ray/aws.yaml",
        "ray job submit -- gan swep",
        "ray exec deploy/ray/cluster.yaml 'ray statuss'",
        "docker compose up",
        "docker compose -f deploy/docker/compose.yaml pu",
        "docker compose -f deploy/docker/compose.yaml up --scale worker=3",
        "docker compose -f deploy/docker/compose.yaml exec head ray status",
        "docker build -f deploy/docker/trainer.Dockerfile --build-arg BACKEND=cpu .",
        "docker push registry.example.com/trainer:cpu",
        "kubectl apply -f deploy/kuberay/cluster.yaml",
        "kubectl get raycluster gans",
        "kubectl create secret generic gan-tracker --from-file=credentials=x",
        "kubectl aply -f deploy/kuberay/rayjob.yaml",
        "deploy/docker/make-secrets --force",
        "podman build .",
    ],
)
def test_a_command_that_does_not_exist_is_found(line):
    (command,) = split(line)
    assert problem(command) is not None


@pytest.mark.parametrize("path", TEXTS, ids=relative)
def test_variables_are_read_by_somebody(path):
    named = set(VARIABLE.findall(path.read_text(encoding="utf-8")))
    assert [name for name in sorted(named) if not names.is_read(name)] == []


def test_a_variable_that_nobody_reads_is_found():
    assert VARIABLE.findall("MLFLOW_TRACKING_URL=x, RAY_AUTH=y") == [
        "MLFLOW_TRACKING_URL",
        "RAY_AUTH",
    ]
    assert not names.is_read("MLFLOW_TRACKING_URL")


@pytest.mark.parametrize("path", TEXTS, ids=relative)
def test_ports_are_those_of_the_programs(path):
    assert names.ports_in(path.read_text(encoding="utf-8")) <= names.ports().keys()


def test_a_port_of_nobody_is_found():
    assert names.ports_in("http://a:8266/x --port=6380") - names.ports().keys() == {8266, 6380}


@pytest.mark.parametrize("path", TEXTS, ids=relative)
def test_files_that_are_named_exist(path):
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8")
    for name in names.paths_in(path.read_text(encoding="utf-8")):
        folder = next((known for known in GENERATED if f"{name}/".startswith(f"{known}/")), None)
        if folder is None:
            assert (ROOT / name).exists(), name
        else:
            assert re.search(rf"^/{re.escape(folder)}/?$", ignored, re.MULTILINE), folder


def test_secrets_that_a_page_names_are_made(secrets):
    page = (DEPLOY / "docker/README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"secrets/(\w[\w.]*\w)", page))
    assert len(named) >= 3
    assert named <= {file.name for file in secrets.iterdir()}
    table = page[page.index("| file | who") : page.index("| `..._key`")]
    listed = set(re.findall(r"`(\w+(?:\.\w+)?)`(?=[^|]* \|[^|]+\|$)", table, re.MULTILINE))
    assert len(listed) >= 11
    assert listed <= {file.name for file in secrets.iterdir()}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_page_has_no_secret_in_a_command(page):
    lines = [shlex.join(c) for c in commands_of(page.read_text(encoding="utf-8"))]
    assert [found for line in lines for found in secrecy.of_text(line, line)] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_page_says_what_a_user_needs(page):
    titles = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert {"Start", "Change", "Secrets", "End", "What was tried"} <= set(titles)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_page_says_where_jobs_are_sent(page):
    exported = [c[1:] for c in commands_of(page.read_text(encoding="utf-8")) if c[0] == "export"]
    words = {word for words in exported for word in words}
    assert {"RAY_AUTH_MODE=token", "RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265"} <= words


@pytest.mark.parametrize("path", YAMLS, ids=relative)
def test_yaml_is_tidy(path):
    found = linter.run(path.read_text(encoding="utf-8"), YAML_STYLE)
    assert [str(problem) for problem in found] == []


def test_a_key_that_stands_twice_is_found():
    (found,) = linter.run("a: 1\na: 2\n", YAML_STYLE)
    assert found.rule == "key-duplicates"
