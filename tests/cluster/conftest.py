"""One installation for the tests of this folder: it takes a quarter of a minute to start."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.services import Installation, installation, missing_parts


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Installation]:
    """Ray with a token, MLflow with passwords on PostgreSQL, object storage: all of it runs."""
    missing = missing_parts()
    if missing and not os.environ.get("CI"):
        pytest.skip(f"not installed: {', '.join(missing)}")
    with installation(tmp_path_factory.mktemp("installation")) as running:
        yield running
