"""What `gan submit` sends to a cluster: configuration, packages, and where things are kept."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from gan.config import PipelineConfig, to_dict
from gan.errors import ConfigError
from pipeline.extensions import require_objective
from pipeline.settings import YAML_SUFFIXES, resolve
from tuning.jobs import JobServer
from tuning.replica import STORAGE_URI
from tuning.sweep import check_sweep

PACKAGES = ("gan", "tuning", "pipeline")
CONFIG = "run.yaml"
COMMAND = f"python -m pipeline.cli run {CONFIG}"
TRACKING_URI = "MLFLOW_TRACKING_URI"


def submit(source: str, assignments: Sequence[str], address: str) -> str:
    """Send the run of a preset or file to a cluster; returns the job's id.

    The configuration is checked here.  Paths of images in it are paths of the cluster's machines.

    Args:
        source: name of a preset, or path of a YAML file.
        assignments: `a.b=value` each.
        address: of the cluster's Jobs API.

    Raises:
        ConfigError: if the configuration, the address, or a variable that is passed on is wrong.
        TuningError: if the cluster does not take the job.
    """
    config = resolve(source, assignments)
    check_sweep(config)
    require_objective(config)
    environment = job_environment()
    config, files = _with_its_files(config)
    files[CONFIG] = yaml.safe_dump(to_dict(config), sort_keys=False)
    return JobServer(address).submit(
        COMMAND, name=config.name, files=files, packages=PACKAGES, environment=environment
    )


def job_environment() -> dict[str, str]:
    """The variables that a job takes over from here; one that is not set is the cluster's own.

    Raises:
        ConfigError: if one names what the cluster cannot reach, or holds a password.
    """
    passed = {name: os.environ[name] for name in (TRACKING_URI, STORAGE_URI) if name in os.environ}
    problems = []
    for name, uri in passed.items():
        parts = urlsplit(uri)
        # A file's path may be that of a volume which every machine has; that of a database not.
        if name == TRACKING_URI and parts.scheme not in ("http", "https"):
            problems.append(
                f"{name} must be the http:// or https:// address of a server that the cluster "
                f"reaches, got one of scheme {parts.scheme or 'none'!r}"
            )
        elif "@" in uri.partition("?")[0]:  # a token alone is a secret, too
            problems.append(
                f"{name} holds a password, which everybody who may list the cluster's jobs would "
                f"see: give it to the cluster's containers, as deploy/ does"
            )
    if problems:
        raise ConfigError(problems)
    return passed


def _with_its_files(config: PipelineConfig) -> tuple[PipelineConfig, dict[str, str]]:
    """The configuration beside which the YAML files of its extensions lie, and their content."""
    names, files = [], {}
    for number, extension in enumerate(config.extensions):
        if not extension.endswith(YAML_SUFFIXES):
            names.append(extension)
            continue
        name = f"extension-{number}.yaml"
        files[name] = Path(extension).expanduser().read_text(encoding="utf-8")
        names.append(name)
    return dataclasses.replace(config, extensions=tuple(names)), files
