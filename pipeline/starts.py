"""What an extension starts from: a promoted model, pinned before anything is run.

A configuration names it by `start`.  `pin` lays it down, verified, in `runs/.starts/`, in a folder
named by the SHA-256 of its manifest, and puts that folder into the configuration: a sweep that is
resumed starts from the same weights, whoever is the champion by then.
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gan.config import PipelineConfig, RunConfig, flatten, to_dict
from gan.errors import CheckpointError, ConfigError
from gan.files import new_folder, sha256
from gan.tasks import load, require_origin, task_of
from pipeline.artifacts import MANIFEST, verify
from pipeline.errors import ArtifactError, ArtifactNotFound
from pipeline.registry import fetch
from tuning.ledger import START, Ledger
from tuning.space import variants
from tuning.tracking import tracking_uri

STARTS = Path("runs") / ".starts"


def pin(
    config: PipelineConfig,
    *,
    promoted: Path | None = None,
    accept: Callable[[PipelineConfig], None] = lambda pinned: None,
) -> PipelineConfig:
    """The configuration with the model that it starts from laid down, and its settings taken over.

    A configuration whose task starts from nothing stays as it is.

    Args:
        config: of an extension.
        promoted: folder of the artifact that a run has promoted which this one is a part of; it
            counts where `start` is not given and the task starts from a generator.
        accept: is handed the pinned configuration before anything is written, and may refuse it.

    Raises:
        ConfigError: there is no such model, it is of another task, trials would differ in what it
            decides, `start` is given to a task that starts from nothing, or trials would start
            from different tasks.
    """
    wanted = task_of(config.base).origin(config.base)
    _require_one_origin(config, wanted)
    if wanted is None:
        if config.base.start is not None:
            raise ConfigError(
                [f"start: {config.base.task} starts from nothing here, got {config.base.start}"]
            )
        accept(config)
        return config
    reference = config.base.start
    if reference is None and wanted == "generator" and promoted is not None:
        reference = str(promoted)
    if reference is None:
        reference = f"{_data_name(config)}-{wanted}"
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(_found(reference))
            origin = load(folder)
        except (ArtifactError, CheckpointError) as error:
            raise ConfigError([f"start: {_what(reference, error, wanted)}"]) from error
        require_origin(config.base, origin)
        base = adopted(config, origin.config)
        accept(_starting_from(config, base, folder))
        return _starting_from(config, base, _kept(folder))


def _starting_from(config: PipelineConfig, base: RunConfig, folder: Path) -> PipelineConfig:
    return dataclasses.replace(config, base=dataclasses.replace(base, start=str(folder)))


def resumed(ledger: Ledger) -> PipelineConfig:
    """The configuration of a sweep that is to go on, here or where nothing else of it is.

    Raises:
        TuningError: there is no sweep.
        StorageError: its storage does not answer.
    """
    config = ledger.config()
    start = config.base.start
    if start is None or Path(start).is_dir():
        return config
    here = STARTS / Path(start).name  # the working folder may have been moved
    folder = here.absolute() if here.is_dir() else ledger.provided(START, Path(start))
    return _starting_from(config, config.base, folder)


def adopted(config: PipelineConfig, origin: RunConfig) -> RunConfig:
    """The run with the settings that what it starts from decides.

    Args:
        config: of an extension.
        origin: the run that made what it starts from.

    Raises:
        ConfigError: that cannot be started from, or trials would differ in these settings.
    """
    adopt = task_of(config.base).adopt
    base = adopt(config.base, origin)
    problems = []
    for path, own, value in variants(config.sweep.space, config.base):
        try:
            theirs = flatten(to_dict(adopt(own, origin)))
        except ConfigError as error:
            problems += [f"sweep.space: {path}: {problem}" for problem in error.problems]
            continue
        if theirs.get(path) != value:
            problems.append(
                f"sweep.space: {path}: the model that trials start from has {theirs.get(path)}, "
                f"got {value}"
            )
    if problems:
        raise ConfigError(problems)
    return base


def data_of_start(config: PipelineConfig) -> str | None:
    """SHA-256 of the images behind the model that a pinned configuration starts from.

    None where it starts from nothing.
    """
    if config.base.start is None:
        return None
    return verify(Path(config.base.start)).lineage.data_digest


def _require_one_origin(config: PipelineConfig, wanted: str | None) -> None:
    """Refuse a search space in which a setting decides what a trial starts from."""
    problems = []
    for path, own, value in variants(config.sweep.space, config.base):
        found = task_of(own).origin(own)
        if found != wanted:
            problems.append(
                f"sweep.space: {path}: {value} starts from {_named(found)}, others from "
                f"{_named(wanted)}: a sweep has one start; make it a sweep of its own"
            )
    if problems:
        raise ConfigError(problems)


def _named(task: str | None) -> str:
    return "nothing" if task is None else f"a model of {task}"


@contextmanager
def _found(reference: str) -> Iterator[Path]:
    """The folder of a model, verified; one that was fetched is gone afterwards."""
    given = Path(reference).expanduser()
    if given.is_dir():
        verify(given)
        yield given
        return
    with tempfile.TemporaryDirectory() as scratch:
        fetched = Path(scratch) / "model"
        fetch(tracking_uri(), reference, fetched)
        yield fetched


def _kept(folder: Path) -> Path:
    """Its copy under `runs/.starts/`."""
    kept = (STARTS / sha256(folder / MANIFEST)).absolute()
    if kept.is_dir():
        verify(kept)
    else:
        with new_folder(kept) as scratch:
            shutil.copytree(folder, scratch, dirs_exist_ok=True)
    return kept


def _data_name(config: PipelineConfig) -> str:
    """What the models of a data set have in common: `mnist` of `mnist-inference`."""
    return config.promote.model.removesuffix(f"-{config.base.task.replace('_', '-')}")


def _maker(task: str) -> str:
    return "`gan run`" if task == "generator" else f"`gan extend {task}`"


def _what(reference: str, error: Exception, wanted: str) -> str:
    if isinstance(error, ArtifactNotFound):
        return f"there is no model {reference} to start from ({error}): {_maker(wanted)} makes one"
    return str(error)
