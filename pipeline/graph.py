"""Which stage is run when: each reads the folders of earlier ones and writes one of its own.

A stage is skipped when its settings, the content of its inputs and the version of the code are
those of the last time, and its own files are as it left them.  One process at a time works on a
folder of stages.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gan.config import PipelineConfig, digest
from gan.files import new_folder, sha256, try_lock
from gan.version import __version__
from pipeline.errors import PipelineError, StageError

logger = logging.getLogger(__name__)

RECORD, LOCK = "stage.json", ".lock"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        reads: files outside of the workspace whose content is an input, too.
    """

    name: str
    needs: tuple[str, ...]
    settings: Callable[[PipelineConfig], Mapping[str, Any]]
    run: Callable[[Work], None]
    is_settled: Callable[[Path], bool] = lambda folder: True
    reads: Callable[[PipelineConfig], tuple[Path, ...]] = lambda config: ()


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

    def run(
        self,
        *,
        first: str | None = None,
        last: str | None = None,
        on_start: Callable[[str], None] = lambda name: None,
    ) -> Iterator[Outcome]:
        """Run what is not up to date, one stage for each value that is asked for.

        Args:
            first: stage to begin with, which is run again in any case; earlier ones are used as
                they are.
            last: stage to end with.
            on_start: told the name of each stage before it is looked at.

        Raises:
            StageError: if a stage before `first` has not been run, or the disk is full.
            PipelineError: if another process is at work on the workspace.
        """
        selected = self.selected(first=first, last=last)
        self._require_inputs(selected)
        with locked(self.workspace, else_use="--set name=NAME"):
            self._remove_leftovers()
            for stage in selected:
                on_start(stage.name)
                is_skipped = stage.name != first and self.is_current(stage)
                if not is_skipped:
                    self._run_stage(stage)
                yield Outcome(stage.name, is_skipped=is_skipped, folder=self.folder(stage.name))

    def plan(self, *, first: str | None = None, last: str | None = None) -> dict[str, bool]:
        """Whether `run` would run each stage, as far as that is known before any is run.

        A stage that is run on what may come out the same (`data`, a refused promotion) has no
        part in what follows: only its result tells.

        Raises:
            StageError: if a stage before `first` has not been run.
        """
        selected = self.selected(first=first, last=last)
        self._require_inputs(selected)
        changing: set[str] = set()
        plan: dict[str, bool] = {}
        for stage in selected:
            if stage.name == first or changing.intersection(stage.needs) or self._differs(stage):
                changing.add(stage.name)
            plan[stage.name] = stage.name in changing or not self.is_current(stage)
        return plan

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
        return not self._differs(stage) and stage.is_settled(self.folder(stage.name))

    def folder(self, name: str) -> Path:
        """Where a stage keeps its files."""
        return self.workspace / name

    def _remove_leftovers(self) -> None:
        """Remove what killed processes had not finished; whoever holds the lock may."""
        for stage in self.stages:
            # As `gan.files.new_folder` names them.
            for left_over in self.workspace.glob(f".{stage.name}.{'[0-9a-f]' * 8}"):
                shutil.rmtree(left_over, ignore_errors=True)

    def _run_stage(self, stage: Stage) -> None:
        inputs = {name: self.folder(name) for name in stage.needs}
        key = self._key(stage)
        folder = self.folder(stage.name)
        try:
            with new_folder(folder) as out:
                work = Work(config=self.config, inputs=inputs, out=out, workspace=self.workspace)
                stage.run(work)
                record = {
                    "key": key,
                    "settings": self._settings(stage),
                    "files": _contents(out),
                }
                (out / RECORD).write_text(json.dumps(record))
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            # The file it names was in a scratch folder, which is gone by now.
            raise StageError(
                f"{folder} could not be written: {error.strerror}", stage=stage.name
            ) from error

    def _require_inputs(self, selected: tuple[Stage, ...]) -> None:
        """Refuse to begin behind a stage that is missing; warn of one with other settings."""
        ours = {stage.name for stage in selected}
        needed = {name for stage in selected for name in stage.needs} - ours
        earlier = [stage for stage in self.stages if stage.name in needed]
        records = {stage.name: self._record(stage.name) for stage in earlier}
        if missing := [name for name, record in records.items() if record is None]:
            raise StageError(
                f"it has not been run: begin with `gan run --to {missing[-1]}` and the same "
                f"settings",
                stage=selected[0].name,
                input=missing[-1],
            )
        for stage in earlier:
            record = records[stage.name]
            if record is not None and record["settings"] != self._settings(stage):
                folder = self.folder(stage.name)
                logger.warning("%s is used as it is, and was made with other settings", folder)

    def _settings(self, stage: Stage) -> str:
        return digest(dict(stage.settings(self.config)))

    def _differs(self, stage: Stage) -> bool:
        """Whether the stage has not been run, or not with these settings, inputs and files."""
        record = self._record(stage.name)
        if record is None or any(self._record(name) is None for name in stage.needs):
            return True
        return bool(
            record["key"] != self._key(stage)
            or record["files"] != _contents(self.folder(stage.name))
        )

    def _key(self, stage: Stage) -> str:
        return digest(
            {
                "settings": self._settings(stage),
                "inputs": {n: digest((self._record(n) or {})["files"]) for n in stage.needs},
                # One that is missing is for the stage to tell of.
                "reads": [sha256(f) if f.is_file() else None for f in stage.reads(self.config)],
                "version": __version__,
            }
        )

    def _record(self, name: str) -> dict[str, Any] | None:
        """What a stage recorded; None where it has not been run, or another version ran it."""
        try:
            record: dict[str, Any] = json.loads((self.folder(name) / RECORD).read_text())
        except (OSError, ValueError):
            return None
        return record if record.keys() == {"key", "settings", "files"} else None


@contextmanager
def locked(workspace: Path, *, else_use: str) -> Iterator[None]:
    """Keep other processes from a workspace; the lock of a process that is killed goes with it.

    Args:
        workspace: made where it is not there.
        else_use: the option that gives a run a folder of its own.

    Raises:
        OSError: it cannot be made.
        PipelineError: another process has it, or its file system has no locks.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    path = workspace / LOCK
    while True:
        with path.open("a") as file:
            _lock(file.fileno(), workspace, else_use)
            if not _is_same(file.fileno(), path):
                continue  # its holder removed it between our two calls: it keeps nobody out
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _lock(handle: int, workspace: Path, else_use: str) -> None:
    try:
        is_ours = try_lock(handle)
    except OSError as error:
        raise PipelineError(f"{workspace / LOCK} could not be locked: {error.strerror}") from error
    if not is_ours:
        raise PipelineError(
            f"another process is at work on {workspace}: wait for its end, or give this run a "
            f"folder of its own by {else_use}"
        )


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path there."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != RECORD)
    return {str(path.relative_to(folder)): sha256(path) for path in files}
