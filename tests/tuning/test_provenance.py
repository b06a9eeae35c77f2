"""Commit, versions and user, in and out of a source checkout."""

import subprocess
import sys
from pathlib import Path

import pytest

import gan
from gan.version import __version__
from tuning.provenance import provenance

COMMIT = "mlflow.source.git.commit"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, in which the package `gan` lies."""
    package = tmp_path / "gan"
    package.mkdir()
    (package / "__init__.py").touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    author = ["-c", "user.name=n", "-c", "user.email=e"]
    git(tmp_path, *author, "commit", "-qm", "first")
    monkeypatch.setattr(gan, "__file__", str(package / "__init__.py"))
    return tmp_path


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_versions_are_those_that_are_imported():
    import mlflow
    import torch

    tags = provenance()
    assert tags["version.gan"] == __version__
    assert tags["version.python"] == sys.version.split()[0]
    assert tags["version.torch"] == torch.__version__.partition("+")[0]
    assert tags["version.mlflow"] == mlflow.__version__
    assert tags["version.ray"]
    assert all(isinstance(value, str) for value in tags.values())


def test_nothing_heavy_is_imported_for_it():
    program = (
        "import sys; from tuning.provenance import provenance; provenance();"
        "assert not {'torch', 'ray', 'mlflow'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_a_checkout_gives_its_commit(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert len(commit) == 40
    assert provenance()[COMMIT] == commit
    git(checkout, "-c", "user.name=n", "-c", "user.email=e", "tag", "-am", "tag", "v1")
    assert provenance()[COMMIT] == commit


def test_a_changed_checkout_says_so(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "gan" / "__init__.py").write_text("changed = 1\n")
    assert provenance()[COMMIT] == f"{commit}-dirty"


def test_a_package_inside_a_foreign_repository_has_no_commit(checkout, monkeypatch):
    package = checkout / "venv" / "site-packages" / "gan"
    package.mkdir(parents=True)
    monkeypatch.setattr(gan, "__file__", str(package / "__init__.py"))
    assert COMMIT not in provenance()


def test_a_machine_without_git_has_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert COMMIT not in provenance()


def test_a_damaged_repository_has_no_commit(checkout):
    (checkout / ".git" / "HEAD").write_text("?")
    assert COMMIT not in provenance()


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr("tuning.provenance._PACKAGES", ("torch", "no-such-package"))
    tags = provenance()
    assert "version.torch" in tags
    assert "version.no-such-package" not in tags


def test_the_user_is_named_if_there_is_a_name(monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    assert provenance()["mlflow.user"] == "ada"

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert "mlflow.user" not in provenance()
