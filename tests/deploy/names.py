"""Names that the files and pages use, and who knows them."""

import re
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.deploy.deploy_files import DOCKER, ROOT

VARIABLE = re.compile(
    r"\b(?:(?:AWS|GAN|GIT|MLFLOW|POSTGRES|RAY|TORCH|UV)_[A-Z0-9_]*[A-Z0-9]|PGDATA|PGPASSFILE)\b"
)

READERS: dict[str, tuple[str, str]] = {
    # variable: the package and the file in it that reads the variable
    "AWS_DEFAULT_REGION": ("pyarrow", "libarrow.so*"),
    "AWS_EC2_METADATA_DISABLED": ("pyarrow", "libarrow.so*"),
    "AWS_SHARED_CREDENTIALS_FILE": ("pyarrow", "libarrow.so*"),
    "GIT_PYTHON_REFRESH": ("git", "cmd.py"),
    "MLFLOW_AUTH_CONFIG_PATH": ("mlflow", "environment_variables.py"),
    "MLFLOW_BACKEND_STORE_URI": ("mlflow", "server/__init__.py"),
    "MLFLOW_DISABLE_TELEMETRY": ("mlflow", "environment_variables.py"),
    "MLFLOW_FLASK_SERVER_SECRET_KEY": ("mlflow", "environment_variables.py"),
    "MLFLOW_S3_ENDPOINT_URL": ("mlflow", "environment_variables.py"),
    "MLFLOW_SERVER_ALLOWED_HOSTS": ("mlflow", "environment_variables.py"),
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": ("mlflow", "environment_variables.py"),
    "MLFLOW_TRACKING_URI": ("mlflow", "environment_variables.py"),
    "RAY_API_SERVER_ADDRESS": ("ray", "dashboard/modules/job/sdk.py"),
    "RAY_AUTH_MODE": ("ray", "_private/authentication/authentication_token_setup.py"),
    "RAY_AUTH_TOKEN_PATH": ("ray", "exceptions.py"),
    "RAY_JOB_STOP_WAIT_TIME_S": ("ray", "dashboard/modules/job/job_supervisor.py"),
    "RAY_HEAD_IP": ("ray", "autoscaler/_private/util.py"),
    "RAY_USAGE_STATS_ENABLED": ("ray", "_common/usage/usage_constants.py"),
}

OURS: dict[str, Path] = {
    "GAN_GID": DOCKER / "make-secrets",
    "GAN_STORAGE_URI": ROOT / "tuning" / "replica.py",
    "GAN_UID": DOCKER / "make-secrets",
    "GAN_WORKER_CPUS": DOCKER / "compose.yaml",
    "GAN_WORKER_MEMORY": DOCKER / "compose.yaml",
    "MLFLOW_FLASK_SERVER_SECRET_KEY_FILE": DOCKER / "tracker-entrypoint",
    "TORCH_BACKEND": DOCKER / "trainer.Dockerfile",
}

# Read by images whose programs are not installed here: PostgreSQL, and its client library.
ELSEWHERE = frozenset({"PGDATA", "PGPASSFILE"}) | {
    f"POSTGRES_{name}" for name in ("DB", "PASSWORD_FILE", "USER")
}


@cache
def is_read(variable: str) -> bool:
    """Whether the program that we say reads a variable does know its name."""
    if variable in ELSEWHERE:
        return True
    if variable in OURS:
        return variable in OURS[variable].read_text(encoding="utf-8")
    if variable not in READERS:
        return False
    return any(variable.encode() in file.read_bytes() for file in _reader(*READERS[variable]))


@cache
def ports() -> dict[int, str]:
    """Every port that the files may name."""
    from ray._private import ray_constants

    server = mlflow_cli().commands["server"]
    (mlflow,) = (p.default for p in server.params if "--port" in p.opts)
    return {
        5432: "PostgreSQL",
        8333: "SeaweedFS, S3",
        10001: "Ray, client",
        int(mlflow): "MLflow",
        ray_constants.DEFAULT_PORT: "Ray, head",
        ray_constants.DEFAULT_DASHBOARD_PORT: "Ray, dashboard and Jobs API",
        ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT: "Ray, health of a node",
    }


def ports_in(text: str) -> set[int]:
    """The ports that a text names."""
    found = re.findall(r"(?::|port=|containerPort: )(\d{4,5})\b", text)
    return {int(port) for port in found}


def paths_in(text: str) -> set[str]:
    """The paths of this repository below deploy/ that a text names, without a final slash."""
    return set(re.findall(r"(?<![\w/~.-])deploy/[\w./-]*[\w-]", text))


@cache
def mlflow_cli() -> Any:
    """The command `mlflow`, whose import warns of what concerns MLflow alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.cli import cli
    return cli


def _reader(package: str, file: str) -> list[Path]:
    spec = find_spec(package)
    assert spec is not None, package
    assert spec.submodule_search_locations, package
    return sorted(Path(spec.submodule_search_locations[0]).glob(file))
