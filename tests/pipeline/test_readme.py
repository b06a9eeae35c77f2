"""The README's commands are commands (contract)."""

import re
import shlex
from pathlib import Path

import pytest

from pipeline.settings import presets, resolve
from tests.pipeline.commands import parse

README = Path(__file__).parents[2] / "README.md"


def commands_of(text):
    """Every `gan ...` in a code block or between backticks, without shell comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [part for block in blocks for line in block.splitlines() for part in line.split("&&")]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", text))
    words = [shlex.split(line, comments=True) for line in (*lines, *inline) if "gan " in line]
    return sorted({shlex.join(line) for line in words if line[:1] == ["gan"]})


def benchmarks_of(text):
    """Every `python -m tests.benchmarks.NAME ...`, as its name and its options."""
    found = re.findall(r"python\s+-m\s+tests\.benchmarks\.(\w+)([^`|#\n]*)", text)
    return sorted({(name, *re.findall(r"(?<=\s)--[\w-]+", options)) for name, options in found})


TEXT = README.read_text(encoding="utf-8")
COMMANDS, BENCHMARKS = commands_of(TEXT), benchmarks_of(TEXT)


def test_commands_are_found_wherever_they_stand():
    text = "Run `gan ui` or\n```bash\ncd x && gan run  # all\n# gan no\n  gan train mnist\n```\n"
    assert commands_of(text) == ["gan run", "gan train mnist", "gan ui"]


def test_readme_has_commands():
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_readme_is_one_that_the_program_takes(command):
    _, parameters = parse(command)
    source = parameters.get("source")
    if source in presets():
        resolve(source, parameters["assignments"] or ())


def test_benchmarks_are_found_with_their_options():
    text = (
        "by `python -m\ntests.benchmarks.bench_a --one 1 --two-b`, `python -m tests.benchmarks.b`"
    )
    assert benchmarks_of(text) == [("b",), ("bench_a", "--one", "--two-b")]
    assert len(BENCHMARKS) >= 8


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=" ".join)
def test_benchmark_of_the_readme_takes_its_options(benchmark):
    name, *options = benchmark
    source = (README.parent / "tests" / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
    known = re.findall(r'add_argument\(\s*"(--[\w-]+)"', source)
    assert set(options) <= set(known)
