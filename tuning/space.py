"""The search space: dotted config path -> dimension, checked against what it varies."""

import difflib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gan.config import RunConfig, flatten, to_dict, with_overrides
from gan.errors import ConfigError
from gan.randomness import stream_seed


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]

    def sample(self, rng: np.random.Generator) -> Any:
        """Each value with the same probability."""
        return self.values[int(rng.integers(len(self.values)))]

    def probes(self) -> tuple[Any, ...]:
        """Values whose validity implies that of all others."""
        return self.values


@dataclass(frozen=True)
class Interval:
    """A real number in [low, high], uniform in itself or in its logarithm."""

    low: float
    high: float
    is_log: bool

    def sample(self, rng: np.random.Generator) -> float:
        """A draw from the interval."""
        if self.is_log:
            return math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return float(rng.uniform(self.low, self.high))

    def probes(self) -> tuple[float, ...]:
        """Values whose validity implies that of all others, among them one with a fraction."""
        return self.low, self.low + (self.high - self.low) / math.pi, self.high


@dataclass(frozen=True)
class IntegerRange:
    """A whole number from low to high, both included."""

    low: int
    high: int

    def sample(self, rng: np.random.Generator) -> int:
        """Each number with the same probability."""
        return int(rng.integers(self.low, self.high + 1))

    def probes(self) -> tuple[int, ...]:
        """Values whose validity implies that of all others.

        Not the ends alone, since one setting may have to divide another.
        """
        return *range(self.low, self.high, 1 + (self.high - self.low) // 100), self.high


FIXED = ("data.", "evaluation.", "device")
"""Settings that every trial of a sweep shares."""

Dimension = Choice | Interval | IntegerRange
Space = dict[str, Dimension]


def parse_space(spec: Mapping[str, Mapping[str, list[Any]]], base: RunConfig) -> Space:
    """The dimensions of `sweep.space`, each path and each value checked against `base`.

    Raises:
        ConfigError: with every path that leads nowhere and every value that `base` refuses.
    """
    space: Space = {}
    problems: list[str] = []
    known = flatten(to_dict(base))
    for path, kinds in spec.items():
        if path not in known:
            close = difflib.get_close_matches(path, known, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]}?" if close else ""
            problems.append(f"sweep.space: there is no setting {path}{hint}")
            continue
        if path.startswith(FIXED):
            problems.append(f"sweep.space: {path}: trials that differ in it cannot be compared")
            continue
        try:
            dimension = _dimension(path, kinds)
            values = tuple(_accepted(base, path, value) for value in dimension.probes())
            space[path] = Choice(values) if isinstance(dimension, Choice) else dimension
        except ConfigError as error:
            problems.extend(f"sweep.space: {problem}" for problem in error.problems)
    if problems:
        raise ConfigError(problems)
    return space


def variants(
    spec: Mapping[str, Mapping[str, list[Any]]], base: RunConfig
) -> Iterator[tuple[str, RunConfig, Any]]:
    """Each path of `sweep.space`, `base` with one of the path's probes alone, and that value.

    Raises:
        ConfigError: as `parse_space`.
    """
    for path, dimension in parse_space(spec, base).items():
        for value in dimension.probes():
            own = with_overrides(base, {path: value})
            yield path, own, flatten(to_dict(own)).get(path)


def random_point(space: Space, *, seed: int, index: int) -> dict[str, Any]:
    """The settings of trial `index` of an independent random search.

    They depend on `seed` and `index` alone, so a resumed sweep goes on with the same trials.
    """
    rng = np.random.default_rng(stream_seed(seed, f"trial/{index}"))
    return {path: dimension.sample(rng) for path, dimension in space.items()}


def grid_points(space: Space) -> list[dict[str, Any]]:
    """Every combination; the path that is named last varies fastest.

    Raises:
        ConfigError: if a dimension is not a choice.
    """
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*_axes(space))]


def _axes(space: Space) -> Iterator[tuple[Any, ...]]:
    for path, dimension in space.items():
        if not isinstance(dimension, Choice):
            raise ConfigError([f"sweep.space: {path}: a grid takes {{choice: [...]}} alone"])
        yield dimension.values


def _accepted(base: RunConfig, path: str, value: Any) -> Any:
    """A value as the configuration takes it: YAML reads 1e-3 as a string, say."""
    return flatten(to_dict(with_overrides(base, {path: value})))[path]


def _dimension(path: str, kinds: Mapping[str, list[Any]]) -> Dimension:
    if len(kinds) != 1:
        raise ConfigError([f"{path}: takes one of choice, uniform, loguniform, randint"])
    ((kind, values),) = kinds.items()
    if kind == "choice":
        if not values:
            raise ConfigError([f"{path}: choice must list at least one value"])
        return Choice(tuple(values))
    if kind not in ("uniform", "loguniform", "randint"):
        raise ConfigError([f"{path}: takes choice, uniform, loguniform or randint, got {kind}"])
    return _range(path, kind, values)


def _range(path: str, kind: str, values: list[Any]) -> Dimension:
    numbers = [number for value in values if (number := _number(value)) is not None]
    if len(values) != 2 or len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise ConfigError([f"{path}: {kind} takes [low, high] with low < high, got {values}"])
    low, high = numbers
    if kind == "randint":
        if not (low.is_integer() and high.is_integer()):
            raise ConfigError([f"{path}: randint takes whole numbers, got {values}"])
        if max(abs(low), abs(high)) > 2**53:
            raise ConfigError([f"{path}: randint takes numbers up to 2^53, got {values}"])
        return IntegerRange(int(low), int(high))
    if kind == "loguniform" and low <= 0:
        raise ConfigError([f"{path}: loguniform takes low > 0, got {values}"])
    return Interval(low, high, is_log=kind == "loguniform")


def _number(value: Any) -> float | None:
    """A finite number, or None; YAML reads 1e-3 as a string."""
    if isinstance(value, bool | list | dict) or value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
