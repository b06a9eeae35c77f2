"""What `gan submit` sends to a cluster: configuration, packages, and where things are kept."""

import dataclasses
import importlib.util
import os
import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from gan.config import PipelineConfig, to_dict
from gan.errors import ConfigError
from pipeline.extensions import GENERATOR, checked_extensions, require_objective
from pipeline.settings import is_file, resolve
from tuning.jobs import JobServer
from tuning.replica import STORAGE_URI
from tuning.sweep import check_sweep

PACKAGES = ("gan", "tuning", "pipeline")
CONFIG = "run.yaml"
COMMAND = f"python -m pipeline.cli run {CONFIG}"
TRACKING_URI = "MLFLOW_TRACKING_URI"
QUERIES: dict[str, tuple[str, ...]] = {
    TRACKING_URI: (),
    STORAGE_URI: (
        "allow_bucket_creation",
        "allow_bucket_deletion",
        "endpoint_override",
        "project_id",
        "region",
        "retry_limit_seconds",
        "scheme",
        "tls_ca_file_path",
        "tls_verify_certificates",
    ),
}
"""By variable: what its URI may say behind the `?`, of pyarrow's S3 and GCS none of it secret."""


def submit(source: str, assignments: Sequence[str], address: str) -> str:
    """Send the run of a preset or file to a cluster; returns the job's id.

    The configuration is checked here, but for the images and models that only the cluster has.
    Paths of images in it are paths of the cluster's machines: `~` is left for them to read, and a
    relative one begins at the working folder here, for a volume that all machines have.

    Args:
        source: name of a preset, or path of a YAML file.
        assignments: `a.b=value` each.
        address: of the cluster's Jobs API.

    Raises:
        ConfigError: if the configuration, the address, or a variable that is passed on is wrong.
        TuningError: if the cluster does not take the job.
    """
    config = resolve(source, assignments, is_here=False)
    check_sweep(config)
    require_objective(config)
    for extension in checked_extensions(config):
        _require_start(extension, config)
    _require_start(config)
    _require_extractor(config.base.evaluation.extractor)
    environment = job_environment()
    config, files = _with_its_files(config)
    files[CONFIG] = yaml.safe_dump(to_dict(config), sort_keys=False)
    return JobServer(address).submit(
        COMMAND, name=config.name, files=files, packages=PACKAGES, environment=environment
    )


def job_environment() -> dict[str, str]:
    """The variables that a job takes over from here; one that is not set is the cluster's own.

    Raises:
        ConfigError: if one names what the cluster cannot reach, or may hold a secret.
    """
    passed = {name: os.environ[name] for name in (TRACKING_URI, STORAGE_URI) if name in os.environ}
    problems = []
    for name, uri in passed.items():
        scheme = urlsplit(uri).scheme
        # A file's path may be that of a volume which every machine has; that of a database not.
        if name == TRACKING_URI and scheme not in ("http", "https"):
            problems.append(
                f"{name} must be the http:// or https:// address of a server that the cluster "
                f"reaches, got one of scheme {scheme or 'none'!r}"
            )
        elif "@" in uri:  # a token alone is a secret, too
            problems.append(
                f"{name} holds a password, which everybody who may list the cluster's jobs would "
                f"see: give it to the cluster's containers, as deploy/ does"
            )
        elif unknown := [one for one in _query_names(uri) if one not in QUERIES[name]]:
            problems.append(
                f"{name} may have {', '.join(QUERIES[name]) or 'nothing'} behind its ?, which "
                f"everybody who may list the cluster's jobs would see, got {', '.join(unknown)}"
            )
    if problems:
        raise ConfigError(problems)
    return passed


def _query_names(uri: str) -> list[str]:
    """Names of what stands behind a URI's `?` or `#`; a value without a name is not told."""
    _, *items = re.split("[?#&;]", uri)
    pairs = [item.partition("=") for item in items if item]
    return [name if equals else "a value without a name" for name, equals, _ in pairs]


def _require_start(config: PipelineConfig, parent: PipelineConfig | None = None) -> None:
    """Refuse to start from a folder of this machine, or where there is nothing to start from.

    Args:
        config: of any task.
        parent: the run that it is a part of, if it is.

    Raises:
        ConfigError: if it does, or does not fit what it starts from.
    """
    task, start = config.base.task, config.base.start
    if task == GENERATOR and start is None:
        return  # without the second that importing torch takes
    from gan.tasks import task_of
    from pipeline.starts import adopted, pin

    wanted = task_of(config.base).origin(config.base)
    if wanted is None:
        pin(config)
    elif start is not None and Path(start).expanduser().is_dir():
        raise ConfigError(
            [
                f"start must name a registered model, as NAME@champion: the cluster does not have "
                f"this machine's folder, got {start}"
            ]
        )
    elif start is None and parent is not None and wanted == parent.base.task:
        adopted(config, parent.base)


def _require_extractor(name: str) -> None:
    """Refuse an extractor whose source lies here and is not sent; one unknown here may be there.

    Raises:
        ConfigError: if it is not from an installed package.
    """
    package = name.partition(":")[0].partition(".")[0]  # its module may not be run to find it
    spec = None if name == "auto" else importlib.util.find_spec(package)
    if spec is None or package in PACKAGES:
        return
    folders = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    installed = [Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")]
    for folder in folders:
        if not any(Path(folder).is_relative_to(root) for root in installed):
            raise ConfigError(
                [
                    f"evaluation.extractor must be of a package that is installed, here and on "
                    f"the cluster's machines, got {name} of {folder}, which is not sent"
                ]
            )


def _with_its_files(config: PipelineConfig) -> tuple[PipelineConfig, dict[str, str]]:
    """The configuration beside which the YAML files of its extensions lie, and their content."""
    names, files = [], {}
    for number, extension in enumerate(config.extensions):
        if not is_file(extension):
            names.append(extension)
            continue
        name = f"extension-{number}.yaml"
        files[name] = Path(extension).expanduser().read_text(encoding="utf-8")
        names.append(name)
    return dataclasses.replace(config, extensions=tuple(names)), files
