"""The command `gan` as tests call it: in this process, in one of its own, or parsed alone."""

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.main

from pipeline.cli import app


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    status: int
    out: str
    err: str


def spawn(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """The command in a process group of its own, so that a Ctrl-C can be sent to all of it."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def gan_process(*arguments: str, cwd: Path, timeout: float = 240) -> Answer:
    """The command to its end; whatever it started is gone then."""
    process = spawn(*arguments, cwd=cwd)
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Answer(process.returncode, out, err)


def parse(line: str) -> tuple[str, dict[str, Any]]:
    """Name and parameters of a command line, by the parser of the program itself.

    Raises an error of Typer's if the program would not take it.
    """
    program, name, *words = shlex.split(line)
    assert program == "gan", line
    group: Any = typer.main.get_command(app)
    return name, group.commands[name].make_context(name, words).params


def command_names() -> list[str]:
    """Every command of the program."""
    group: Any = typer.main.get_command(app)
    return sorted(group.commands)


def command_help(name: str) -> str:
    """What the program says of one of its commands."""
    group: Any = typer.main.get_command(app)
    return str(group.commands[name].help)
