"""Where a run comes from: who, which commit, which versions."""

import getpass
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import gan
from gan.version import __version__

JOB_ID = "GAN_JOB"
"""Variable in which a job on a cluster finds its own id."""
JOB_TAG = "gan.job"
"""Which job on a cluster made a run."""

_PACKAGES = ("torch", "ray", "mlflow")


def provenance() -> dict[str, str]:
    """Tags that say where a run comes from.

    Returns:
        `mlflow.source.name` and `.type`, `mlflow.user`, `version.gan`, `version.python` and the
        version of each package that the run depends on; in a source checkout
        `mlflow.source.git.commit`: 40 hexadecimal digits, and `-dirty` if a tracked file
        differs.  The names with `mlflow.` are those that
        MLflow's UI has columns for.
    """
    tags = {
        "mlflow.source.name": "gan",
        "mlflow.source.type": "LOCAL",
        "version.gan": __version__,
        "version.python": platform.python_version(),
    }
    if job := os.environ.get(JOB_ID):
        tags[JOB_TAG] = job
    for package in _PACKAGES:
        try:
            tags[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    commit = _git_commit(Path(gan.__file__).resolve().parents[1])
    if commit is not None:
        tags["mlflow.source.git.commit"] = commit
    user = _user()
    if user is not None:
        tags["mlflow.user"] = user
    return tags


def _git_commit(checkout: Path) -> str | None:
    # An installed package may lie in a virtual environment inside another project's repository.
    if not (checkout / ".git").exists():
        return None
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(  # noqa: S603 (fixed words, no shell)
            ["git", "--no-optional-locks", "-C", str(checkout), *describe],  # noqa: S607
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user id has no name
        return None
