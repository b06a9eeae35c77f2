"""The secrets that the deploying user would have."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.deploy_files import DOCKER


def make_secrets(folder: Path) -> str:
    """Run a copy of the script in `folder`; what it says."""
    shutil.copy(DOCKER / "make-secrets", folder)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SUDO_")}
    done = subprocess.run(
        [folder / "make-secrets"],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of secrets that `make-secrets` makes."""
    folder = tmp_path_factory.mktemp("docker")
    make_secrets(folder)
    return folder / "secrets"
