"""What a trial could not log waits here, on disk and in order."""

import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from gan.files import write_atomically
from tuning.errors import StoreUnavailableError, TrackingError, TuningError

logger = logging.getLogger(__name__)

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run can end, in MLflow's words."""


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """Which run a trial writes, and what it is created with if it is not there yet."""

    experiment_id: str
    experiment: str = ""
    """Its name, by which the store is known that has it; empty where that is not known."""
    sweep: str
    trial: str
    """Key of the trial: the same whenever and wherever it is started again."""
    run_name: str
    parent_run_id: str | None = None
    """The sweep's run; null for a run that belongs to no sweep."""
    params: dict[str, Any]
    """The flattened configuration."""
    tags: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The metrics of one step."""

    step: int
    """Updates of G."""
    time_ms: int
    """When they were read, in milliseconds since 1970 (UTC)."""
    metrics: dict[str, float]
    file: Path | None = None
    """A PNG of samples drawn at that step."""
    kind: Literal["report"] = "report"


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file, or the content of a folder, to be kept under `artifact_path`."""

    file: Path
    artifact_path: str
    kind: Literal["upload"] = "upload"


@dataclass(frozen=True, kw_only=True)
class Finish:
    """The end of a run."""

    status: RunStatus
    time_ms: int
    tags: dict[str, str]
    file: None = None
    kind: Literal["finish"] = "finish"


Record = Report | Upload | Finish

BATCH = 40
"""Reports in one request, which may have 1,000 metrics: a report of ours has up to 20."""
_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])
_IDENTITY = TypeAdapter(RunIdentity)
_COPY = re.compile(r"[0-9a-f]{32}")
"""Names of the folders in which files wait."""


class _OutsideError(Exception):
    """A record names a file that is not the outbox's."""


class Outbox:
    """Sends records in order; what cannot be sent waits in a folder and is sent first later.

    The folder exists only while something waits.  `run.json` says whose records they are;
    `records.jsonl` holds one a line; files that records refer to are copied beside it, because
    the trial may overwrite its own before they are sent.

    While the folder cannot be written (a full disk, say), reports wait in memory, and pictures and
    checkpoints, which the trial may overwrite, are left out.  One warning says so; the first
    record that finds room again takes those in memory to disk.

    After an attempt that failed no other is made for `retry_seconds`, or for ten times as long
    as it took if that is longer.

    In the background, sending is a thread's: `submit` puts the record into the folder and is done,
    so that a store which answers slowly, or not, costs training nothing.  `close` ends the thread.

    Args:
        folder: in the trial's own folder, so that it goes where the trial's checkpoints go.
        run: the run that the records belong to.
        send: hands records to the store in one request: reports without files, or one record of
            any kind; or raises StoreUnavailableError.
        retry_seconds: shortest pause after an attempt that failed.
        in_background: whether a thread sends.

    Attributes:
        records: what waits, oldest first; the `file` of a record is an absolute path.
    """

    def __init__(
        self,
        folder: Path,
        run: RunIdentity,
        send: Callable[[Sequence[Record]], None],
        *,
        retry_seconds: float = 30.0,
        in_background: bool = False,
    ) -> None:
        self._folder = folder.absolute()
        self._lines = self._folder / "records.jsonl"
        self._run, self._send, self._retry_seconds = run, send, retry_seconds
        self._is_down = False
        self._is_saved = True  # the folder holds just what `records` does
        self._next_attempt = 0.0
        self.records: tuple[Record, ...] = ()
        # Records and folder are changed by both threads; nothing is sent while it is held.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._in_flight: Sequence[Record] = ()
        self._is_closing = False
        self._refusal: BaseException | None = None
        if self._lines.exists():
            self._load()
        self._thread: threading.Thread | None = None
        if in_background:
            self._thread = threading.Thread(target=self._send_on, name="outbox", daemon=True)
            self._thread.start()

    def submit(self, record: Record, *, at_once: bool = False) -> None:
        """Send what waits and then `record`, or let it wait, too.

        Args:
            record: is kept, with a copy of its file, if the store does not answer.
            at_once: make an attempt even soon after one that failed.

        Raises:
            TrackingError: the store refuses a record; in the background, one of those before.
        """
        if self._thread is None:
            if not (self.flush(at_once=at_once) and self._attempt([record])):
                self._keep(record)
            return
        with self._changed:
            self._raise_refusal()
            self._keep(record)
            if at_once:
                self._next_attempt = 0.0
            self._changed.notify_all()

    def flush(self, *, at_once: bool = False) -> bool:
        """Send what waits; returns whether nothing waits any more.

        Raises:
            TrackingError: the store refuses a record.
        """
        if at_once:
            self._next_attempt = 0.0
        sent: list[Record] = []
        limit = BATCH
        try:
            while batch := self._next(len(sent), limit):
                try:
                    if not self._attempt(batch):
                        break
                except TrackingError:
                    if len(batch) == 1:
                        raise
                    limit = 1  # so that those before the one that is refused go out
                else:
                    sent += batch
        finally:
            with self._lock:
                self._in_flight = ()
                self._discard(sent)
        return not self.records

    def wait(self, seconds: float) -> None:
        """Give the thread so long to send what waits.

        Raises:
            TrackingError: the store refuses a record.
        """
        if self._thread is None:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._refusal or not self.records, seconds)
            self._raise_refusal()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the thread from changing the folder; it may go on sending."""
        with self._lock:
            yield

    def close(self) -> None:
        """End the thread, after the attempt that it is making; what waits stays on disk."""
        if self._thread is None:
            return
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        self._thread = None

    def _next(self, n_sent: int, limit: int) -> Sequence[Record]:
        """What one request takes of the oldest records but the first `n_sent`: `limit` or less."""
        with self._lock:
            waiting = () if self._is_closing else self.records[n_sent:]
            n_reports = next((i for i, r in enumerate(waiting) if not _is_bare(r)), len(waiting))
            batch = waiting[: min(max(1, n_reports), limit)]
            # `_keep` must not take one of those from under the sender.
            self._in_flight = self.records[: n_sent + len(batch)]
            return batch

    def _send_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_to_do, self._pause())
                if self._is_closing or self._refusal:
                    return
            try:
                self.flush()
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that trains
                with self._lock:
                    self._refusal = error
            with self._changed:
                self._changed.notify_all()

    def _has_to_do(self) -> bool:
        is_due = bool(self.records) and time.monotonic() >= self._next_attempt
        return is_due or self._is_closing

    def _pause(self) -> float | None:
        """Seconds until the next attempt; None while there is nothing to send."""
        return max(0.0, self._next_attempt - time.monotonic()) if self.records else None

    def _raise_refusal(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    def _attempt(self, batch: Sequence[Record]) -> bool:
        started = time.monotonic()
        if started < self._next_attempt:
            return False
        try:
            self._send(batch)
        except StoreUnavailableError as error:
            ended = time.monotonic()
            self._next_attempt = ended + max(self._retry_seconds, 10 * (ended - started))
            if not self._is_down:
                logger.warning("%s; the run goes on, its log waits in %s", error, self._folder)
            self._is_down = True
            return False
        if self._is_down:
            logger.info("MLflow answers again; what waits in %s is being sent", self._folder)
        self._is_down = False
        return True

    def _keep(self, record: Record) -> None:
        with self._writing():
            record = self._save(record)
        if not self._is_saved:
            if isinstance(record, Upload):
                return  # of no use without its file
            record = replace(record, file=None)
        older, self.records = self.records, (*self.records, record)
        kept = len(self._in_flight)  # the oldest ones
        self._discard(r for r in older[kept:] if _is_replaced(r, record))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Make `_is_saved` say whether the block could write the folder, and log a change."""
        was_saved = self._is_saved
        try:
            yield
        except OSError as error:
            self._is_saved = False
            if was_saved:
                logger.warning(
                    "%s cannot be written: %s; the run goes on, its reports wait in memory until "
                    "its process ends, and MLflow will lack pictures and checkpoints",
                    self._folder,
                    _reason(error),
                )
            return
        self._is_saved = True
        if self.records and not was_saved:
            logger.info("%s can be written again; what waited in memory is there", self._folder)

    def _save(self, record: Record) -> Record:
        """`record` as it is on disk now, with a copy of its file; on failure nothing of it is."""
        saved = record
        try:
            if not isinstance(record, Finish) and record.file is not None:
                saved = replace(record, file=self._copy(record.file))
            if self._is_saved and self.records:
                self._append(self._encode(saved))
            else:
                self._rewrite((*self.records, saved))
        except OSError:
            if saved.file is not None and saved is not record:
                shutil.rmtree(saved.file.parent, ignore_errors=True)
            if not self._lines.exists():
                shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return saved

    def _append(self, line: bytes) -> None:
        size = self._lines.stat().st_size
        try:
            with self._lines.open("ab") as lines:
                lines.write(line)
                lines.flush()
                os.fsync(lines.fileno())
        except OSError:
            os.truncate(self._lines, size)  # else the next line would be part of half a line
            raise

    def _discard(self, records: Iterable[Record]) -> None:
        gone = list(records)
        if not gone:
            return
        ids = {id(record) for record in gone}
        self.records = tuple(record for record in self.records if id(record) not in ids)
        # Lines before files: a line never names a file that is gone.
        with self._writing():
            if not self.records:
                self._lines.unlink(missing_ok=True)
                if self._folder.exists():
                    shutil.rmtree(self._folder)
                return
            self._rewrite(self.records)
            for record in gone:
                if record.file is not None:
                    shutil.rmtree(record.file.parent)

    def _load(self) -> None:
        lines = self._lines.read_bytes().splitlines()
        for line in lines:
            try:
                record = self._decode(line)
                if isinstance(record, Finish) or record.file is None or record.file.exists():
                    self.records = (*self.records, record)
                elif isinstance(record, Report):
                    self.records = (*self.records, replace(record, file=None))
            except ValidationError:
                # A process that died while it wrote; the report it wrote is computed again.
                logger.warning("%s: dropped a line that is cut short", self._lines)
            except _OutsideError as error:
                logger.warning("%s: dropped a record: %s", self._lines, error)
        if len(self.records) < len(lines):
            with self._writing():
                self._rewrite(self.records)

    def _rewrite(self, records: Iterable[Record]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._folder / "run.json", _IDENTITY.dump_json(self._run))
        write_atomically(self._lines, b"".join(self._encode(record) for record in records))

    def _encode(self, record: Record) -> bytes:
        # Relative, because the folder may be opened on another machine.
        if not isinstance(record, Finish) and record.file is not None:
            record = replace(record, file=record.file.relative_to(self._folder))
        return _RECORD.dump_json(record) + b"\n"

    def _decode(self, line: bytes) -> Record:
        record = _RECORD.validate_json(line)
        if isinstance(record, Finish) or record.file is None:
            return record
        return replace(record, file=self._inside(record.file))

    def _inside(self, file: Path) -> Path:
        """Where `_copy` puts a file; whoever wrote the folder may have named any other."""
        path = self._folder / file
        is_copy = len(file.parts) == 2 and _COPY.fullmatch(file.parts[0]) and file.name != ".."
        if not is_copy or path.parent.is_symlink() or path.is_symlink():
            raise _OutsideError(f"{str(file)!r} is no file of its own folder")
        return path

    def _copy(self, source: Path) -> Path:
        # In a folder of its own, so that the name, which the artifact keeps, cannot clash.
        folder = self._folder / uuid4().hex
        folder.mkdir(parents=True)
        copy = folder / source.name
        try:
            if source.is_dir():
                shutil.copytree(source, copy)
            else:
                write_atomically(copy, source.read_bytes())
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return copy


def waiting_run(folder: Path) -> RunIdentity | None:
    """The run whose records wait in `folder`, or None if nothing waits there.

    Raises:
        TuningError: if the folder does not say which.
    """
    if not (folder / "records.jsonl").exists():
        return None
    file = folder / "run.json"
    try:
        return _IDENTITY.validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = ": ".join([*map(str, first["loc"]), first["msg"]])
        raise TuningError(f"{file} is damaged: {problem}") from error
    except OSError as error:
        raise TuningError(f"{file} cannot be read: {error.strerror or error}") from error


def _is_bare(record: Record) -> bool:
    """Whether it is a report without a picture."""
    return isinstance(record, Report) and record.file is None


def _is_replaced(older: Record, newer: Record) -> bool:
    """Whether both are uploads to one place, of which only the newer one is of use."""
    return (
        isinstance(older, Upload)
        and isinstance(newer, Upload)
        and older.artifact_path == newer.artifact_path
    )


def _reason(error: OSError) -> str:
    if isinstance(error, shutil.Error):  # of all the files of a folder that was copied: the first
        return str(error.args[0][0][2])
    return error.strerror or str(error)
