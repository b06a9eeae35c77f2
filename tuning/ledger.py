"""What a sweep leaves on disk, from which it can always go on.

    SWEEP/sweep.json                      configuration
    SWEEP/key                             its name in MLflow
    SWEEP/trials/0003/trial.json          index and settings, written when the trial is proposed
    SWEEP/trials/0003/checkpoints/        as gan.checkpoint writes them
    SWEEP/trials/0003/result.json         written once, when the trial has ended

Resuming reads these files alone, never the tuner's own snapshots: those lag behind by seconds, are
pickles, and call a trial finished that a time budget cut short.

Where machines share no disk the folder is a replica: its original lies in object storage, each
process has its own part of it, and what must outlive the process is written to both.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, Any, Final, Literal, TypeVar
from uuid import uuid4

from gan.checkpoint import META, TENSORS, checkpoint_path, list_checkpoints
from gan.config import (
    PipelineConfig,
    RunConfig,
    digest,
    load_config,
    to_dict,
    with_overrides,
)
from gan.errors import ConfigError
from gan.files import try_lock, write_atomically
from gan.objectives import OBJECTIVES, Objective
from tuning.errors import ReplacedError, TuningError
from tuning.replica import Replica

SentAlong = Literal["extractors", "start"]
"""Folders that go along with a sweep: nets that give features, and what its trials start from."""
EXTRACTORS: Final = "extractors"
START: Final = "start"

MARKS = ("interrupted", "expired", "begun")
"""Names of files that are there while the present run of a sweep is in some state."""

T = TypeVar("T")
TrialStatus = Literal["finished", "stopped", "failed"]
"""`finished`: all its steps; `stopped`: early, see `cause`; `failed`: see `cause`."""

_READ_SECONDS = 10.0
"""How long another process may take to read what storage has of a sweep."""

StopCause = Literal["interrupted", "time budget", "asha"]
"""Why a trial was stopped: by the user, by the clock, or by its scheduler."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        trial: index in the sweep.
        status: see `TrialStatus`.
        cause: why it failed or was stopped, one line.
        is_final: whether trying again would give the same: a divergence does, a lost worker not.
        overrides: dotted path -> value, as the search proposed them.
        seed: of the run.
        run_id: of its MLflow run; empty where MLflow never answered.
        objective: a key of `OBJECTIVES`, by which its best report is chosen.
        elapsed_seconds: time spent on training and scoring, over all attempts.
        history: every report, by step.
    """

    trial: int
    status: TrialStatus
    cause: str | None
    is_final: bool
    overrides: dict[str, Any]
    seed: int
    run_id: str
    objective: str
    elapsed_seconds: float
    history: list[dict[str, float]]

    @property
    def step(self) -> int:
        """Updates of G that were made and reported."""
        return int(self.history[-1]["step"]) if self.history else 0

    @property
    def is_reopened(self) -> bool:
        """Whether the next run of the sweep goes on with it: it was lost, or its time was over."""
        is_lost = self.status == "failed" and not self.is_final
        return is_lost or (self.status == "stopped" and self.cause == "time budget")

    @property
    def best(self) -> dict[str, float] | None:
        """The report that counts; see `best_report`."""
        return best_report(self.history, OBJECTIVES[self.objective])


def best_report(history: list[dict[str, float]], objective: Objective) -> dict[str, float] | None:
    """The report with the best score; of equals the first, None if none was scored.

    Of a run that is scored by what it learns from, the last: such a score chooses no early stop.
    """
    scored = [report for report in history if objective.metric in report]
    if objective.is_of_training:
        return scored[-1] if scored else None
    return max(scored, key=objective.merit, default=None)


class _TakenError(TuningError):
    """Another process holds a lock."""


class Ledger:
    """The folder of one sweep.

    Args:
        folder: where it lies, on storage that every node of the cluster can reach.
        original: what it is a replica of, on machines that share no such storage.
        driver: of a replica, the mark of the driver whose worker this process is.
    """

    def __init__(self, folder: Path, original: Replica | None = None, *, driver: str = "") -> None:
        self.folder, self._original, self.driver = folder, original, driver
        self._attempt, self._is_locked = "", False

    @property
    def name(self) -> str:
        """The sweep's name, by which it is resumed."""
        return self.folder.name

    def open(self, config: PipelineConfig) -> None:
        """Write the sweep's configuration, or check that the one there is the same.

        Raises:
            TuningError: if the folder belongs to a sweep with another configuration, or cannot
                be written.
        """
        is_new = not (self.folder / "sweep.json").exists()
        if is_new or digest(identity(self.config())) == digest(identity(config)):
            self._write("sweep.json", json.dumps(to_dict(config), indent=2) + "\n")
        else:
            raise TuningError(
                f"{self.folder} holds a sweep with another configuration: resume that one by "
                f"`gan sweep --resume {self.name}`, or choose another folder"
            )

    @property
    def is_replica(self) -> bool:
        """Whether its original lies elsewhere, so that no lock of a file keeps others out."""
        return self._original is not None

    @property
    def location(self) -> str:
        """Where every process finds the sweep: the folder, or the URI of its original."""
        return str(self.folder.absolute()) if self._original is None else self._original.uri

    def refresh(self) -> None:
        """Take over from the original, if there is one, all that the driver reads of a sweep.

        While another process on this machine runs the sweep, what is here is newer, and its own.
        """
        if self._original is None:
            return
        if self._is_locked:
            self._pull_records(self._original)
            return
        with contextlib.suppress(_TakenError), self._exclusively(patience_seconds=0):
            self._pull_records(self._original)

    def _pull_records(self, original: Replica) -> None:
        for name in MARKS:
            (self.folder / name).unlink(missing_ok=True)
        original.pull(wanted=_is_record)

    def reread(self, index: int) -> None:
        """Take over the result of a trial, which another process may have changed."""
        if self._original is not None:
            self._original.fetch(self._in_trial(index, "result.json"))

    def shared_folder(self) -> Path | None:
        """The folder that every machine must see; None where the original is no folder."""
        return self.folder if self._original is None else self._original.local_original

    def config(self) -> PipelineConfig:
        """The configuration the sweep was started with.

        Raises:
            TuningError: if there is no sweep in the folder.
        """
        try:
            return load_config(json.loads((self.folder / "sweep.json").read_text()))
        except (OSError, ValueError, ConfigError) as error:
            raise TuningError(f"{self.folder} holds no sweep: {error}") from error

    def key(self) -> str:
        """A name for MLflow that no other sweep has.

        The folder's name alone is also that of the sweep that lay there before, and of one with
        the same configuration that somebody else runs on the same server.

        Raises:
            TuningError: if the folder cannot be written.
        """
        if not self._has("key"):
            self._write("key", f"{self.name}-{uuid4().hex[:8]}")
        return (self.folder / "key").read_text()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process from running this sweep.

        Raises:
            TuningError: if one does already, or if the folder cannot be written.
        """
        # The lock of a replica is also held by one that only reads, for a moment.
        with self._exclusively(patience_seconds=_READ_SECONDS if self.is_replica else 0.0):
            yield

    @contextmanager
    def _exclusively(self, *, patience_seconds: float) -> Iterator[None]:
        what = f"sweep {self.name}"
        with _locked(self.folder / "lock", what=what, patience_seconds=patience_seconds):
            self._is_locked = True
            try:
                yield
            finally:
                self._is_locked = False

    @contextmanager
    def writing(self, index: int, *, patience_seconds: float = 120.0) -> Iterator[None]:
        """Keep every other process from writing trial `index`, and have what it has left.

        When a driver is killed, its workers on other nodes go on until the cluster notices.  No
        lock reaches those of a replica: `save` tells them that another driver has taken over.

        Args:
            index: of the trial.
            patience_seconds: how long to wait for such a worker to end.

        Raises:
            TuningError: if it does not, or if the folder cannot be written.
        """
        file = self.trial_folder(index) / "lock"
        what = f"trial {index} of {self.name}"
        with _locked(file, what=what, patience_seconds=patience_seconds):
            if self._original is None:
                yield
                return
            self._attempt = uuid4().hex
            self._require_driver()
            self._write(self._in_trial(index, "attempt"), self._attempt)
            self._original.fetch("key")  # that of a sweep which lay there before may be here
            self._original.pull(self._in_trial(index, ""), wanted=_is_of_worker)
            try:
                yield
            finally:
                # The original has what is worth keeping.
                for part in self.trial_folder(index).iterdir():
                    if part.is_dir():
                        shutil.rmtree(part, ignore_errors=True)

    def save(self, index: int) -> None:
        """Write what a trial needs to go on, and what it could not log, to the original.

        Before a checkpoint come the reports that lie before it, see `RunLog`.

        Raises:
            StorageError: if the storage does not answer for minutes.
            ReplacedError: if another driver has taken over the sweep, or another worker the trial.
        """
        if self._original is None:
            return
        self._require_driver()
        attempt = self._original.read(self._in_trial(index, "attempt"))
        if attempt != self._attempt.encode():
            raise ReplacedError(f"trial {index} of {self.name} is being run by another process")
        self._original.push(*(self._in_trial(index, part) for part in ("outbox", "checkpoints")))

    def take_over(self) -> None:
        """Tell the workers of an earlier driver, which may still run, that it is over."""
        if self._original is not None:
            self.driver = uuid4().hex
            self._write("driver", self.driver)

    def join(self) -> None:
        """Act for whichever driver runs the sweep, or ran it last."""
        if self._original is not None:
            self.driver = (self._original.read("driver") or b"").decode()

    def is_taken_over(self, *, is_patient: bool = True) -> bool:
        """Whether another driver runs the sweep by now; `is_patient` waits for the storage."""
        if self._original is None:
            return False
        return self._original.read("driver", is_patient=is_patient) != self.driver.encode()

    def _require_driver(self) -> None:
        if self.is_taken_over():
            raise ReplacedError(f"sweep {self.name} is being run by another process")

    @property
    def interruption(self) -> Path:
        """A file that exists while the sweep is being stopped by its user."""
        return self.folder / "interrupted"

    @property
    def expiry(self) -> Path:
        """A file that exists once the time budget of the sweep is spent; it says how much."""
        return self.folder / "expired"

    def expire(self, seconds: float) -> None:
        """Record that a time budget is spent."""
        self._write("expired", f"{seconds!r}\n")

    def interrupt(self) -> None:
        """Let the workers know, too, that the user stops the sweep."""
        self._write("interrupted", "")

    def spent_seconds(self) -> float | None:
        """The time budget that ended the last run of the sweep, or None if none did."""
        return float(self.expiry.read_text()) if self.expiry.exists() else None

    @property
    def beginning(self) -> Path:
        """A file that exists once a trial of the present run of the sweep has begun."""
        return self.folder / "begun"

    def begin(self) -> None:
        """Forget how an earlier run of the sweep went, and that it was ended."""
        for name in MARKS:
            if self._original is None:
                self._remove(name)
            else:
                self._original.remove_original(name)  # one that is here is of this process

    def mark_stopped(self, index: int) -> None:
        """Record that the scheduler stops trial `index`, before it does."""
        self._write(self._in_trial(index, "stopped"), "")

    def is_marked_stopped(self, index: int) -> bool:
        """Whether the scheduler has decided against trial `index`."""
        return (self.trial_folder(index) / "stopped").exists()

    def stop_cause(self, index: int) -> StopCause:
        """Why trial `index` is being stopped; without a reason on record, it is to be resumed."""
        # An NFS client believes for up to a minute that a file is still missing, unless it has
        # written to the folder.
        for folder in (self.folder, self.trial_folder(index)):
            with TemporaryFile(dir=folder):
                pass
        if self._has(self._in_trial(index, "stopped")):
            return "asha"
        if self._has("expired") and not self._has("interrupted"):
            return "time budget"
        return "interrupted"

    def trial_folder(self, index: int) -> Path:
        """Where trial `index` keeps its files."""
        return self.folder / "trials" / f"{index:04d}"

    def outbox(self, index: int) -> Path:
        """Where trial `index` keeps what it could not log."""
        return self.trial_folder(index) / "outbox"

    def has_waiting(self, index: int) -> bool:
        """Whether something of trial `index` waits to be logged."""
        name = self._in_trial(index, "outbox/records.jsonl")
        if self._original is None:
            return (self.folder / name).exists()
        return self._original.read(name) is not None

    def propose(self, index: int, overrides: Mapping[str, Any]) -> None:
        """Record the settings of a trial before it starts."""
        content = {"trial": index, "overrides": dict(overrides)}
        self._write(self._in_trial(index, "trial.json"), json.dumps(content))

    def proposals(self) -> dict[int, dict[str, Any]]:
        """Settings of every trial that was proposed, by index."""
        files = (self.folder / "trials").glob("[0-9]*/trial.json")
        contents: list[dict[str, Any]] = [_read_json(file, dict) for file in files]
        return dict(sorted((content["trial"], content["overrides"]) for content in contents))

    def result(self, index: int) -> TrialResult | None:
        """How trial `index` ended, or None while it has not."""
        name = self._in_trial(index, "result.json")
        if not self._has(name):
            return None
        return _read_json(self.folder / name, TrialResult)

    def results(self) -> list[TrialResult]:
        """How every trial that has ended did, by index."""
        results = (self.result(index) for index in self.proposals())
        return [result for result in results if result is not None]

    def write_result(self, result: TrialResult) -> None:
        """Record how a trial ended."""
        self._write(self._in_trial(result.trial, "result.json"), json.dumps(asdict(result)))

    def forget_result(self, index: int) -> None:
        """Let a trial go on from its newest checkpoint."""
        self._remove(self._in_trial(index, "result.json"))

    def history(self, index: int) -> list[dict[str, float]]:
        """Reports of trial `index` up to its end or its newest checkpoint."""
        result = self.result(index)
        if result is not None:
            return result.history
        return list(self.newest_meta(index).get("history", []))

    def newest_meta(self, index: int) -> dict[str, Any]:
        """What the newest readable checkpoint of trial `index` says beside its tensors."""
        if self._original is not None:
            self._original.pull(self._in_trial(index, "checkpoints"), wanted=_is_record)
        for path in reversed(list_checkpoints(self.trial_folder(index) / "checkpoints")):
            try:
                meta: dict[str, Any] = json.loads((path / META).read_text())
            except (OSError, ValueError):
                continue  # the trial itself verifies, warns and falls back when it resumes
            return {name: value for name, value in meta.items() if name != "step"}
        return {}

    def checkpoint_path(self, index: int, *, step: int) -> Path:
        """Where trial `index` has its checkpoint of a step; of an original it is copied here."""
        path = checkpoint_path(self.trial_folder(index) / "checkpoints", step=step)
        if self._original is not None:
            self._original.pull(path.relative_to(self.folder).as_posix())
        return path

    def provide(self, name: SentAlong, folder: Path) -> None:
        """Send a folder along with a sweep whose machines share no disk.

        Args:
            name: what it holds.
            folder: where it lies; of one that is not there, nothing is sent.
        """
        if self._original is not None and folder.is_dir():
            shutil.copytree(folder, self.folder / name, dirs_exist_ok=True)
            self._original.push(name)

    def provided(self, name: SentAlong, shared: Path) -> Path:
        """Where a folder that was sent along is found.

        Args:
            name: what it holds.
            shared: the folder, where machines share one.
        """
        if self._original is None:
            return shared
        folder = self.folder / name
        # Each file is there whole or not at all, and never changes: an extractor's name has its
        # digest, and the sweep's own that of what its trials start from.
        self._original.pull(name, wanted=lambda file: not (self.folder / file).exists())
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _in_trial(self, index: int, name: str) -> str:
        return f"trials/{index:04d}/{name}"

    def _has(self, name: str) -> bool:
        """Whether there is a file of that name, which is then here, too."""
        is_here = (self.folder / name).exists()
        if self._original is None or (is_here and name not in MARKS):
            return is_here
        return self._original.fetch(name)

    def _write(self, name: str, content: str) -> None:
        file = self.folder / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, content)
        except OSError as error:
            raise TuningError(f"{file} could not be written: {error.strerror or error}") from error
        if self._original is not None:
            self._original.push(name)

    def _remove(self, name: str) -> None:
        if self._original is None:
            (self.folder / name).unlink(missing_ok=True)
        else:
            self._original.remove(name)


def open_ledger(
    location: str, *, role: Literal["driver", "worker"] = "worker", driver: str = ""
) -> Ledger:
    """The ledger that lies at a location, as `Ledger.location` names it.

    Args:
        location: a folder, or the URI of an original, whose replica lies in the user's cache.
        role: of this process; a driver and the workers beside it have a replica each, since the
            one takes over from the original what the others are writing.
        driver: mark of a worker's driver; see `Ledger`.

    Raises:
        ConfigError: if the location is a URI of no known file system.
    """
    if "://" not in location:
        return Ledger(Path(location))
    name = PurePosixPath(location.partition("?")[0]).name
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(location.encode()).hexdigest()[:16]
    folder = cache / "adversarial-nets" / role / key / name
    return Ledger(folder, Replica(folder, location), driver=driver)


def _read_json(file: Path, kind: Callable[..., T]) -> T:
    """An object of JSON, by the name of its fields.

    Raises:
        TuningError: if the file is not what this program writes.
    """
    try:
        return kind(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise TuningError(f"{file} is damaged: {error}") from error


def _is_record(name: str) -> bool:
    """Whether a driver reads the file: all but tensors and what waits to be logged."""
    path = PurePosixPath(name)
    return "outbox" not in path.parts and path.name not in (TENSORS, "lock", *MARKS)


def _is_of_worker(name: str) -> bool:
    """Whether the file is one that the trial itself writes while it runs."""
    return not {"outbox", "checkpoints"}.isdisjoint(PurePosixPath(name).parts)


@contextmanager
def _locked(path: Path, *, what: str, patience_seconds: float) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise TuningError(f"{path} could not be written: {error.strerror or error}") from error
    with file:
        deadline = time.monotonic() + patience_seconds
        while not _try_lock(file):
            if time.monotonic() >= deadline:
                raise _TakenError(f"{what} is being run by another process")
            time.sleep(0.1)
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        return try_lock(file.fileno())
    except OSError as error:
        raise TuningError(f"{file.name} could not be locked: {error.strerror}") from error


def identity(config: PipelineConfig) -> dict[str, Any]:
    """What the results of a sweep depend on: a sweep that differs in it is another one.

    A time budget that was too small, say, can be raised, and the same sweep goes on, the trials
    that it cut short included.
    """
    tree = to_dict(config)
    base, sweep = tree["base"], tree["sweep"]
    if base["start"] is not None:  # a folder whose name has the digest of what lies in it
        base["start"] = PurePosixPath(base["start"]).name
    for group, name in (
        (sweep, "time_budget_seconds"),
        (sweep, "max_retries"),
        (base["evaluation"], "chunk"),
        (base["evaluation"], "keep_checkpoints"),
        (base["data"], "test_path"),
    ):
        del group[name]
    return {"base": base, "sweep": sweep}


def trial_run(config: PipelineConfig, index: int, overrides: Mapping[str, Any]) -> RunConfig:
    """The run of trial `index`: `base` with its own seed and the settings of the search."""
    return with_overrides(config.base, {"seed": config.base.seed + index, **overrides})
