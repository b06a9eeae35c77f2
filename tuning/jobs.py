"""Jobs on a Ray cluster: send one, watch it, stop it, through the Jobs API of its head.

A job is the very command that a person would type, run on the cluster with the packages of the
sender, so that nothing has to be installed there but what the packages need.  No secret is sent:
whoever may list the jobs of a cluster can read their environments.
"""

import asyncio
import importlib.util
import json
import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection, RemoteDisconnected
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from pydantic import ValidationError

from gan.errors import ConfigError
from tuning.errors import TuningError
from tuning.provenance import JOB_ID

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

PATIENCE_SECONDS = 5.0
"""How long a head may take to accept a connection, and then to say which it is."""
SUBMIT_SECONDS = 60.0
"""How long a cluster that has just been started may take to be ready for a first job."""
STOP_SECONDS = 60.0
"""How long a job that was told to stop may take; the cluster kills it much sooner."""
POLL_SECONDS = 0.5

NAME = "gan.config"
"""Key of a job's metadata: the name of its configuration."""

_CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Ray's loggers that tell of every package and connection."""
_SETTLED = ("SUCCEEDED", "FAILED", "STOPPED")
_SUBMISSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NAME_IN_ID = 87
"""Characters of a configuration's name in an id; with all else in it the id has 100."""
# What Ray's client raises of an answer that a head would not give; it looks at none.
_NO_ANSWER_OF_A_HEAD = (
    AttributeError,
    HTTPException,
    KeyError,
    TypeError,
    ValidationError,
    json.JSONDecodeError,
)
# The head of a cluster answers before the agent that runs jobs does (ray 2.60).
_NOT_READY = ("No available agent", "status code 503", "status code 502")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a cluster knows of a job.

    Attributes:
        id: its submission id.
        name: of its configuration; empty if it was not sent by `submit`.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        started, ended: UTC; None if it has not.
        exit_status: of its command; None if it has none.
        entrypoint: its command.
        message: the cluster's own words on it, one line.
    """

    id: str
    name: str
    status: str
    started: datetime | None
    ended: datetime | None
    exit_status: int | None
    entrypoint: str
    message: str

    @property
    def is_over(self) -> bool:
        """Whether its status will not change any more."""
        return self.status in _SETTLED


class JobServer:
    """The Jobs API of a cluster.

    Args:
        address: `http://HEAD:8265`, as `ray job submit` takes it.

    Raises:
        ConfigError: if that is no address.
        TuningError: if no cluster answers there, or it refuses the token.
    """

    def __init__(self, address: str) -> None:
        _require_address(address)
        self.address = address.rstrip("/")
        # Ray lets these two override the address that it is given.
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address
        if _has_token():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        with self._speaking():
            _knock(self.address)
            from ray.job_submission import JobSubmissionClient

            for module in _CHATTY:
                logging.getLogger(module).setLevel(logging.WARNING)
            self._client: JobSubmissionClient = JobSubmissionClient(self.address)

    def submit(
        self,
        command: str,
        *,
        name: str,
        files: Mapping[str, str],
        packages: Sequence[str],
        environment: Mapping[str, str],
    ) -> str:
        """Send a job; returns its id.

        Args:
            command: of a shell, run beside `files`.
            name: of its configuration.
            files: content of the files in the job's working folder, by name.
            packages: importable packages of this process that are sent along.
            environment: variables of the job and of its workers; no secrets.

        Raises:
            TuningError: if the cluster does not take it.
        """
        job = f"gan-{name[:_NAME_IN_ID]}-{uuid4().hex[:8]}"
        with TemporaryDirectory() as folder, self._speaking():
            for file, content in files.items():
                (Path(folder) / file).write_text(content)
            runtime_env = {
                "working_dir": folder,
                # As folders: Ray knows them by their content, whereas a wheel it knows by its
                # name, and would install that with all its dependencies (ray#27624).
                "py_modules": [str(_package_folder(package)) for package in packages],
                "excludes": ["**/__pycache__"],
                "env_vars": {**environment, JOB_ID: job},
            }
            self._submit(job, command, runtime_env, {NAME: name})
        return job

    def _submit(
        self, job: str, command: str, runtime_env: dict[str, Any], metadata: dict[str, str]
    ) -> None:
        deadline = time.monotonic() + SUBMIT_SECONDS
        is_retry = False
        while True:
            try:
                self._client.submit_job(
                    entrypoint=command,
                    submission_id=job,
                    runtime_env=runtime_env,
                    metadata=metadata,
                )
            except (RuntimeError, OSError) as error:  # OSError: the connection broke
                if is_retry and "already exists" in str(error):
                    return  # the answer to an earlier attempt was lost
                is_lost = isinstance(error, OSError)
                is_refusal = not is_lost and not any(words in str(error) for words in _NOT_READY)
                if is_refusal or time.monotonic() >= deadline:
                    raise
                is_retry = True
                time.sleep(POLL_SECONDS)
            else:
                return

    def jobs(self) -> list[Job]:
        """Every job that the cluster remembers and that was submitted, the oldest first."""
        with self._speaking():
            found = [_job(details) for details in self._client.list_jobs() if _id(details)]
        return sorted(found, key=lambda job: job.started or datetime.max.replace(tzinfo=UTC))

    def job(self, job: str) -> Job:
        """What the cluster knows of one job.

        Raises:
            TuningError: if it knows none of that id.
        """
        _require_id(job)
        with self._speaking():
            return _job(self._client.get_job_info(job))

    def log(self, job: str) -> str:
        """What a job has printed so far.

        Raises:
            TuningError: if the cluster knows no such job.
        """
        _require_id(job)
        with self._speaking():
            return str(self._client.get_job_logs(job))

    def follow(self, job: str) -> Iterator[str]:
        """What a job prints, from its beginning on, piece by piece, until it is over.

        A connection that breaks is made anew, and nothing is given twice.

        Raises:
            TuningError: if the cluster knows no such job, or is gone.
        """
        self.job(job)
        n_given = 0
        while True:
            n_passed = 0
            for piece in self._tail(job):
                new = piece[max(0, n_given - n_passed) :]
                n_passed += len(piece)
                if new:
                    n_given += len(new)
                    yield new
            if self.job(job).is_over:
                break
            time.sleep(POLL_SECONDS)
        yield self.log(job)[n_given:]  # what came between the end of the connection and of the job

    def _tail(self, job: str) -> Iterator[str]:
        pieces = self._client.tail_job_logs(job)
        loop = asyncio.new_event_loop()
        try:
            with self._speaking(until=_is_broken):
                while True:
                    yield loop.run_until_complete(anext(pieces))
        except StopAsyncIteration:
            return
        finally:
            # Ctrl-C leaves the task that waits for the next piece, and with it the connection.
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks))
            loop.run_until_complete(pieces.aclose())
            loop.close()

    def stop(self, job: str) -> Job:
        """Stop a job and wait until it is over; one that is over stays as it is.

        Raises:
            TuningError: if the cluster knows no such job, or it does not stop.
        """
        _require_id(job)
        with self._speaking():
            self._client.stop_job(job)
        deadline = time.monotonic() + STOP_SECONDS
        while not (stopped := self.job(job)).is_over:
            if time.monotonic() >= deadline:
                raise TuningError(f"job {job} has not stopped after {STOP_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        return stopped

    @contextmanager
    def _speaking(self, until: Callable[[Exception], bool] = lambda _: False) -> Iterator[None]:
        """Turn what Ray and the network raise into a TuningError of one line.

        Args:
            until: which errors only end the block.
        """
        from aiohttp import ClientError
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise TuningError(
                f"the cluster at {self.address} wants its token: set RAY_AUTH_TOKEN_PATH to the "
                f"file that holds it, or RAY_AUTH_TOKEN ({_first_line(error)})"
            ) from error
        except _NO_ANSWER_OF_A_HEAD as error:
            raise TuningError(
                f"{self.address} is no Ray cluster's Jobs API: it does not answer as one does "
                f"({type(error).__name__}: {_first_line(error)})"
            ) from error
        except (RuntimeError, OSError, ValueError, ClientError) as error:  # requests': OSError
            if not until(error):
                raise TuningError(
                    f"the cluster at {self.address}: {_first_line(error)}"
                ) from error


def _require_address(address: str) -> None:
    """Refuse what is no address of a head, and one with a secret in it, which is not told.

    Raises:
        ConfigError: if it is either.
    """
    wanted = "--address takes http://HOST:8265 of the cluster's head, without a password or query"
    # A password may have any character in it, so that only an address without these has none.
    if found := [mark for mark in "@?#" if mark in address]:
        raise ConfigError([f"{wanted}, got one with {' and '.join(found)} in it"])
    try:
        parts = urlsplit(address)
        is_one = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:  # a port or a host that is none
        is_one = False
    if not is_one:
        raise ConfigError([f"{wanted}, got {address!r}"])


def _require_id(job: str) -> None:
    """Refuse what would be another path on the server.

    Raises:
        ConfigError: if `job` is no id.
    """
    if not _SUBMISSION_ID.fullmatch(job):
        raise ConfigError([f"a job's id must match {_SUBMISSION_ID.pattern}, got {job!r}"])


def _knock(address: str) -> None:
    """Raise OSError soon if nobody answers: Ray's client has no time-out.

    Any answer will do, that the token is missing, too: the token is not sent.
    """
    parts = urlsplit(address)
    host = parts.hostname or ""
    connection = HTTPConnection(host, parts.port, timeout=PATIENCE_SECONDS)
    if parts.scheme == "https":
        # Ray's client verifies the certificate, by authorities of its own.
        anybody = ssl.create_default_context()
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        connection = HTTPSConnection(host, parts.port, timeout=PATIENCE_SECONDS, context=anybody)
    try:
        connection.request("GET", f"{parts.path}/api/version")
        connection.getresponse().read()
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {PATIENCE_SECONDS:g} s") from error
    except RemoteDisconnected as error:  # an HTTPException, too, but it says nothing of the server
        raise ConnectionError(str(error)) from error
    finally:
        connection.close()


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").exists()


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise TuningError(f"package {package} cannot be sent: it has no files here")
    return Path(spec.origin).parent


def _job(details: "JobDetails") -> Job:
    return Job(
        id=_id(details),
        name=(details.metadata or {}).get(NAME, ""),
        status=str(details.status.value),
        started=_time(details.start_time),
        ended=_time(details.end_time),
        exit_status=details.driver_exit_code,
        entrypoint=details.entrypoint,
        message=next(iter((details.message or "").splitlines()), ""),
    )


def _id(details: "JobDetails") -> str:
    return details.submission_id or ""


def _time(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, tz=UTC)


def _is_broken(error: Exception) -> bool:
    return not isinstance(error, ValueError)


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip()
    # Ray wraps the server's answer, often a traceback, whose last line has the reason.
    lines = [line for line in re.sub(r"\\n", "\n", text).splitlines() if line.strip()]
    if len(lines) > 1 and "Traceback" in text:
        return lines[-1].strip()[:300]
    return (lines or [type(error).__name__])[0].strip()[:300]
