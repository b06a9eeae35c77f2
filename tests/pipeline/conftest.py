"""The command `gan` in this process, and a working folder for it."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pipeline import cli
from tests.pipeline.commands import Answer
from tests.pipeline.tiny_run import write_images, write_settings

Gan = Callable[..., Answer]

LOGGERS = ("gan", "tuning", "pipeline", "urllib3", "ray.tune")
"""Those whose level the command sets."""


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """On nets this small two threads wait for each other longer than they work."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def gan(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Gan]:
    """Run the command in this process: `gan("data", "tiny.yaml")`."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    environment = dict(os.environ)

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["gan", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        out, err = capsys.readouterr()
        return Answer(exit_info.value.code or 0, out, err)

    yield run
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with train.npz, test.npz and tiny.yaml."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path)
    write_settings(tmp_path)
    return tmp_path
