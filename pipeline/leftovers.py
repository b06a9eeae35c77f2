"""Sweeps and runs that lie in the working folder, or in storage, with what they have left."""

import logging
from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline.errors import PipelineError
from pipeline.main_line import WORKSPACES
from tuning.errors import StorageError, TrackingError, TuningError
from tuning.ledger import Ledger, open_ledger
from tuning.replica import joined, storage_uri, subfolders
from tuning.sync import Synced, sync
from tuning.tracking import tracking_uri

logger = logging.getLogger(__name__)


def sync_all(names: Sequence[str]) -> tuple[list[Synced], list[str]]:
    """Send what waits of every sweep and run, or of those named; see `tuning.sync`.

    Returns:
        What came of each, and the names of those that were passed over with a warning: a process
        runs them, or a file of theirs is damaged.

    Raises:
        PipelineError: if there is none of a name.
        TrackingError: if MLflow does not answer.
        StorageError: if the storage does not.
    """
    found = ledgers()
    if unknown := [name for name in names if name not in found]:
        known = f"there are {', '.join(found)}" if found else "there is none"
        raise PipelineError(f"there is no sweep or run {unknown[0]}; {known}")
    synced, passed_over = [], []
    for name in names or found:
        try:
            synced.append(sync(found[name], tracking_uri()))
        except (TrackingError, StorageError):
            raise
        except TuningError as error:
            logger.warning("%s: passed over: %s", name, error)
            passed_over.append(name)
    return synced, passed_over


def ledgers() -> dict[str, Ledger]:
    """Every sweep and run of `gan train` under the working folder or in storage, by name."""
    folders = [*WORKSPACES.glob("*/sweeps/*"), *WORKSPACES.glob("*/runs/train-*")]
    found = {path.name: Ledger(path) for path in sorted(folders) if path.is_dir()}
    uri = storage_uri()
    if uri is not None:
        for name in subfolders(uri):
            found[PurePosixPath(name).name] = open_ledger(joined(uri, name), role="driver")
    return found
