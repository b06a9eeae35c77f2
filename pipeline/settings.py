"""From the name of a preset, or a YAML file, to a configuration."""

import dataclasses
import difflib
import math
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from gan.config import NAMED, PipelineConfig, load_config, read_yaml
from gan.errors import ConfigError

DEFAULT_PRESET = "quick"
YAML_SUFFIXES = (".yaml", ".yml")


def presets() -> list[str]:
    """Names of the presets inside the package."""
    folder = files("pipeline.presets")
    names = [file.name for file in folder.iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def is_source(name: str) -> bool:
    """Whether `resolve` takes it: a preset, or what ends as a YAML file does."""
    return name in presets() or name.endswith(YAML_SUFFIXES)


def is_file(source: str) -> bool:
    """Whether `resolve` reads a file for it, rather than a preset."""
    return "/" in source or source.endswith(YAML_SUFFIXES)


def resolve(
    source: str, assignments: Sequence[str] = (), *, is_here: bool = True
) -> PipelineConfig:
    """The configuration of a preset or file, with `--set` assignments on top.

    Paths of images are made absolute: workers have other working folders.

    Args:
        source: name of a preset, or path of a YAML file.
        assignments: `a.b=value` each.
        is_here: whether it is run on this machine; else `~` is left to that which runs it.

    Raises:
        ConfigError: if there is no such preset or file, or with every problem of its content.
    """
    config = load_config(_read(source), assignments)
    data = config.base.data
    paths: dict[str, Any] = {"test_path": data.test_path, "root": data.root}
    if data.dataset not in NAMED:
        paths["dataset"] = data.dataset
    paths = {name: path and _absolute(path, is_here=is_here) for name, path in paths.items()}
    data = dataclasses.replace(data, **paths)
    return dataclasses.replace(config, base=dataclasses.replace(config.base, data=data))


def to_yaml(value: Any) -> str:
    """YAML of a value or of a tree, lists of plain values on one line."""
    text = yaml.safe_dump(value, default_flow_style=None, sort_keys=False, width=math.inf)
    return text.removesuffix("...\n").strip()


def assignments_of(settings: Mapping[str, Any]) -> list[str]:
    """Dotted path -> value, as `resolve` takes them: `a.b=value` each."""
    return [f"{path}={to_yaml(value)}" for path, value in settings.items()]


def set_options(assignments: Sequence[str]) -> str:
    """Assignments as options of a shell command."""
    return " ".join(f"--set {shlex.quote(assignment)}" for assignment in assignments)


def _absolute(path: str, *, is_here: bool) -> str:
    if path.startswith("~") and not is_here:
        return path
    return str(Path(path).expanduser().absolute())


def _read(source: str) -> dict[str, Any]:
    """The settings that a preset or file states."""
    try:
        settings = read_yaml(_text(source))
    except OSError as error:
        raise ConfigError([f"{source}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{source} is not YAML: it is no text"]) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: the date 2014-13-32, say
        raise ConfigError([f"{source} is not YAML: {_where(error)}"]) from error
    if not isinstance(settings, dict) or not settings:
        got = "none" if not settings else type(settings).__name__
        raise ConfigError([f"{source} must hold settings by name, got {got}"])
    return settings


def _text(source: str) -> str:
    if is_file(source):
        return Path(source).expanduser().read_text(encoding="utf-8")
    if source in presets():
        return files("pipeline.presets").joinpath(f"{source}.yaml").read_text(encoding="utf-8")
    close = difflib.get_close_matches(source, presets(), n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(presets())}"
    if Path(source).exists():
        hint = f"a file of settings ends in .yaml; presets are {', '.join(presets())}"
    raise ConfigError([f"there is no preset {source}; {hint}"])


def _where(error: Exception) -> str:
    """What is wrong with a YAML text, and where, in one line."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())
