"""The cluster launcher's file: Ray's schema and preparation, and its commands (contract)."""

from copy import deepcopy

import pytest
from jsonschema import ValidationError

from tests.deploy import secrecy
from tests.deploy.command_lines import problem, split
from tests.deploy.deploy_files import RAY, ROOT, load

CONFIG = load(RAY / "cluster.yaml")
START = {
    "head": CONFIG["head_start_ray_commands"],
    "worker": CONFIG["worker_start_ray_commands"],
}


def validate(config):
    """As `ray up` does before it connects to anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_takes_the_file():
    prepared = validate(CONFIG)
    (node,) = prepared["available_node_types"].values()
    assert node["min_workers"] == node["max_workers"] == len(CONFIG["provider"]["worker_ips"])


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("workers", 2, "Additional properties are not allowed"),
        ("max_workers", "2", "'2' is not of type 'integer'"),
        ("auth", {"user": "gan"}, "Additional properties are not allowed"),
        ("setup_commands", ["x", 1], "1 is not of type 'string'"),
    ],
)
def test_ray_refuses_a_fault(key, value, expected):
    from ray.autoscaler._private.util import validate_config

    prepared = validate(CONFIG)
    with pytest.raises(ValidationError, match=expected):
        validate_config(prepared | {key: value})


@pytest.mark.parametrize("node", START)
def test_every_start_asks_for_a_token(node):
    *_, start = START[node]
    assert " RAY_AUTH_MODE=token " in start
    assert " ray " not in start  # but that of the environment that has our packages
    assert "~/.ray/auth_token" in CONFIG["file_mounts"]


@pytest.mark.parametrize("node", START)
def test_start_commands_are_those_of_ray(node):
    commands = [command for line in START[node] for command in split(line)]
    assert ["ray", "start"] in [[c[0].rpartition("/")[2], c[1]] for c in commands]
    assert [problem(command) for command in commands] == [None] * len(commands)


def test_the_dashboard_is_on_loopback():
    assert "--dashboard-host=127.0.0.1" in START["head"][-1]


def test_nodes_have_the_same_settings():
    settings = [
        {word for word in start[-1].split() if word.partition("=")[0].isupper()}
        for start in START.values()
    ]
    assert settings[0] == settings[1]
    assert len(settings[0]) == 5


def test_no_command_has_a_secret():
    lines = [*CONFIG["setup_commands"], *START["head"], *START["worker"]]
    assert [found for line in lines for found in secrecy.of_text("", line)] == []


def test_files_are_of_the_user_or_made_by_the_page():
    page = (RAY / "README.md").read_text(encoding="utf-8")
    for local in CONFIG["file_mounts"].values():
        if local.startswith("~/"):
            assert local in page
        else:
            assert f"--wheel-dir {local.rstrip('/')} " in page
            assert f"/{local}" in (ROOT / ".gitignore").read_text(encoding="utf-8")
