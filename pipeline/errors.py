"""The error tree of the pipeline.

PipelineError
  StageError            which stage, which input
  ArtifactError         an artifact is altered, incomplete, or cannot be written
    ArtifactNotFound    no such folder, model, alias or version
  PromotionRefused      the checks that a candidate did not pass
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.gate import Check


class PipelineError(Exception):
    """Something that the person who runs the program can act on; its text is one clear line."""


class StageError(PipelineError):
    """A stage that cannot run or did not finish.

    Args:
        problem: what must hold, what was got, what to do.
        stage: name of the stage.
        input: name of the input that is at fault; None if none is.
    """

    def __init__(self, problem: str, *, stage: str, input: str | None = None) -> None:
        self.stage, self.input = stage, input
        where = stage if input is None else f"{stage}: {input}"
        super().__init__(f"{where}: {problem}")


class ArtifactError(PipelineError):
    """An artifact is altered, incomplete, or cannot be written."""


class ArtifactNotFound(ArtifactError):  # noqa: N818 (the name is the message)
    """There is no such folder, model, alias or version."""


class PromotionRefused(PipelineError):  # noqa: N818 (an answer rather than a fault: exit status 3)
    """The gate keeps a candidate out of the registry.

    Args:
        checks: those that were not passed.
    """

    def __init__(self, checks: Sequence["Check"]) -> None:
        self.checks = tuple(checks)
        reasons = "; ".join(f"{check.name}: {check.reason}" for check in checks)
        super().__init__(f"promotion refused: {reasons}")
