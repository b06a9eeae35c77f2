"""Which stage is run when: each reads the folders of earlier ones and writes one of its own.

A stage is skipped when its settings, the content of its inputs and the version of the code are
those of the last time, and its own files are as it left them.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gan.config import PipelineConfig, digest
from gan.files import new_folder, sha256
from gan.version import __version__
from pipeline.errors import StageError

logger = logging.getLogger(__name__)

RECORD = "stage.json"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage is given.

    Attributes:
        config: the whole configuration.
        inputs: folder of each stage that it needs, by name.
        out: an empty folder for its files.
        workspace: folder of this configuration's name, for what must outlive a failed attempt.
    """

    config: PipelineConfig
    inputs: Mapping[str, Path]
    out: Path
    workspace: Path


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        name: also that of its folder and of its command.
        needs: stages whose folders it reads.
        settings: what of the configuration its files depend on.
        run: does the work.
        is_settled: whether the files of an earlier time may stand; asked only if nothing changed.
    """

    name: str
    needs: tuple[str, ...]
    settings: Callable[[PipelineConfig], Mapping[str, Any]]
    run: Callable[[Work], None]
    is_settled: Callable[[Path], bool] = lambda folder: True


@dataclass(frozen=True)
class Outcome:
    """What became of a stage: `ran` or `skipped`."""

    stage: str
    is_skipped: bool
    folder: Path


class Graph:
    """The stages of one configuration in one workspace.

    Args:
        stages: in the order in which they are run.
        config: the whole configuration.
        workspace: where each stage has its folder.
    """

    def __init__(self, stages: tuple[Stage, ...], config: PipelineConfig, workspace: Path) -> None:
        self.stages, self.config, self.workspace = stages, config, workspace

    def run(self, *, first: str | None = None, last: str | None = None) -> Iterator[Outcome]:
        """Run what is not up to date, one stage for each value that is asked for.

        Args:
            first: stage to begin with, which is run again in any case; earlier ones are used as
                they are.
            last: stage to end with.

        Raises:
            StageError: if a stage before `first` has not been run.
        """
        for stage in self.selected(first=first, last=last):
            if stage.name != first and self.is_current(stage):
                yield Outcome(stage.name, is_skipped=True, folder=self.folder(stage.name))
                continue
            inputs = {name: self._finished(name, wanted_by=stage.name) for name in stage.needs}
            key = self._key(stage)
            logger.info("stage %s", stage.name)
            with new_folder(self.folder(stage.name)) as out:
                stage.run(
                    Work(config=self.config, inputs=inputs, out=out, workspace=self.workspace)
                )
                (out / RECORD).write_text(json.dumps({"key": key, "files": _contents(out)}))
            yield Outcome(stage.name, is_skipped=False, folder=self.folder(stage.name))

    def selected(self, *, first: str | None, last: str | None) -> tuple[Stage, ...]:
        """The stages from `first` to `last`, both included.

        Raises:
            ValueError: if there is no such stage, or `last` comes before `first`.
        """
        names = [stage.name for stage in self.stages]
        start = names.index(first) if first else 0
        stop = names.index(last) if last else len(names) - 1
        if stop < start:
            raise ValueError(f"stage {last} comes before {first}")
        return self.stages[start : stop + 1]

    def is_current(self, stage: Stage) -> bool:
        """Whether running the stage again would change nothing."""
        record = self._record(stage.name)
        if record is None or any(self._record(name) is None for name in stage.needs):
            return False
        folder = self.folder(stage.name)
        return (
            record["key"] == self._key(stage)
            and record["files"] == _contents(folder)
            and stage.is_settled(folder)
        )

    def folder(self, name: str) -> Path:
        """Where a stage keeps its files."""
        return self.workspace / name

    def _finished(self, name: str, *, wanted_by: str) -> Path:
        if self._record(name) is None:
            raise StageError(f"run `gan {name}` first", stage=wanted_by, input=name)
        return self.folder(name)

    def _key(self, stage: Stage) -> str:
        inputs = {name: digest((self._record(name) or {})["files"]) for name in stage.needs}
        settings = dict(stage.settings(self.config))
        return digest({"settings": settings, "inputs": inputs, "version": __version__})

    def _record(self, name: str) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = json.loads((self.folder(name) / RECORD).read_text())
        except (OSError, ValueError):
            return None
        return record


def _contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path there."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != RECORD)
    return {str(path.relative_to(folder)): sha256(path) for path in files}
