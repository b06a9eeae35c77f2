"""The error tree of the science.

GanError
  ConfigError       every problem of one configuration, each with its dotted path
  DatasetError      a data file is missing, altered, or not what it says
  DivergedError     a loss is no longer finite
  CheckpointError   a checkpoint is damaged, or could not be written
  ScoreError        a score cannot be taken of these samples
  ConditionError    what is asked for is no condition of this model
  ImageError        an image is not of the shape or the range that a model takes
"""

from collections.abc import Sequence


class GanError(Exception):
    """Something that the person who runs the program can act on; its text is one clear line."""


class ConfigError(GanError):
    """A configuration that cannot be run.

    Args:
        problems: one sentence each, beginning with the dotted path of the field.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way from a worker to the driver: the default replays the joined text."""
        return type(self), (self.problems,)


class DatasetError(GanError):
    """A data file is missing, altered, or not what it says."""


class CheckpointError(GanError):
    """A checkpoint is damaged, or could not be written."""


class ScoreError(GanError):
    """A score cannot be taken of these samples: too few, without labels, all the same."""


class ConditionError(GanError):
    """What is asked for is no condition of this model: no such class, a vector too short."""


class ImageError(GanError):
    """An image is not of the shape or the range that a model takes."""


class DivergedError(GanError):
    """A loss is no longer finite.

    Args:
        step: updates of G done when it was noticed.
        losses: name to value, as read at that step.
        learning_rate: of the generator's optimiser at that step.
    """

    def __init__(self, *, step: int, losses: dict[str, float], learning_rate: float) -> None:
        self.step, self.losses, self.learning_rate = step, losses, learning_rate
        values = ", ".join(f"{name} = {value}" for name, value in losses.items())
        super().__init__(
            f"losses must be finite, got {values} at step {step} "
            f"with learning rate {learning_rate:g}: lower train.learning_rate"
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way from a worker to the driver: the default replays `args` alone."""
        return _rebuild_diverged, (self.step, self.losses, self.learning_rate)


def _rebuild_diverged(step: int, losses: dict[str, float], learning_rate: float) -> DivergedError:
    return DivergedError(step=step, losses=losses, learning_rate=learning_rate)
