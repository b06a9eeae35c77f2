"""MLflow: a sweep is a parent run, a trial a child run, and each run has one writer.

The driver prepares the store, opens and closes the parent run, and closes what processes that
died left open.  A trial's own process writes its run (`tuning.run_log`).  Tags tell runs apart:
`gan.kind` (sweep, trial or evaluation), `gan.sweep` and `gan.trial`; `gan.cause` says why a run
failed.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from gan.metric_names import IMAGES_SEEN
from tuning.errors import StoreUnavailableError, TrackingError
from tuning.outbox import (
    Finish,
    Record,
    Report,
    RunIdentity,
    RunStatus,
    Upload,
)
from tuning.provenance import JOB_TAG
from tuning.replica import shown

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from PIL.Image import Image

KIND_TAG = "gan.kind"
SWEEP_TAG = "gan.sweep"
TRIAL_TAG = "gan.trial"
DATA_TAG = "gan.data_digest"
"""SHA-256 of the training images."""
CAUSE_TAG = "gan.cause"
"""Why a run is FAILED or KILLED, in one sentence."""
STOPPED_EARLY_TAG = "gan.stopped_early"
"""Which scheduler stopped a FINISHED run before its last step."""
EXPERIMENT_KIND_TAG = "mlflow.experimentKind"
PARENT_TAG = "mlflow.parentRunId"

BEST_CHECKPOINT = "checkpoints/best"
"""Where a trial's run has the checkpoint of its best score."""
GRID_KEY = "samples"
"""Name under which a run's sample grids lie on the step slider of MLflow's UI."""

_ENVIRONMENT = {
    # MLflow's own patience (7 retries of 120 s each) would hold up training for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # Standard output belongs to `gan --json`.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_VALUE_LENGTH = 5_000  # of a param or tag; MLflow's limits are 6,000 and 8,000 characters
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
_TRY_LATER = (401, 403, 404, 408, 409, 425, 429)  # mended by a login, a proxy, or time


def tracking_uri() -> str:
    """The store in use: `MLFLOW_TRACKING_URI`, or MLflow's own default in the working folder.

    A SQLite path is made absolute, since workers have other working folders.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if not uri.startswith("sqlite:///"):
        return uri
    here = Path(str(Path.cwd()).replace("%", "%25"))  # in a URI % begins a code
    return f"sqlite:///{here / uri.removeprefix('sqlite:///')}"


def prepare_store(uri: str, experiment: str) -> str:
    """The id of an experiment, made if need be, in a store that is known to take writes.

    Call it once before any worker starts: a new database needs seconds for its tables, and two
    processes must not make them at once.

    Raises:
        TrackingError: the store or its artifact folder cannot be reached or written, or the
            experiment was deleted.
    """
    with store(uri) as client:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            found = client.get_experiment(client.create_experiment(experiment))
        if found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"experiment {experiment!r} was deleted: bring it back with `mlflow experiments "
                f"restore --experiment-id {found.experiment_id}`, or choose another name"
            )
        # A write, since an experiment that was there already has only been read so far.
        # This one makes the UI open on training runs rather than on traces.
        kind = "custom_model_development"
        client.set_experiment_tag(found.experiment_id, EXPERIMENT_KIND_TAG, kind)
    _require_id(found.experiment_id, "experiment", uri)
    _require_writable(found.artifact_location)
    return str(found.experiment_id)


def open_sweep(
    uri: str,
    experiment_id: str,
    *,
    sweep: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
) -> str:
    """The id of the sweep's parent run, RUNNING: the one it has already, or a new one.

    Raises:
        TrackingError: the store does not answer.
    """
    with store(uri) as client:
        run, _ = _open_run(
            client,
            experiment_id,
            identity={KIND_TAG: "sweep", SWEEP_TAG: sweep},
            name=sweep,
            params=params,
            tags=tags,
        )
    _require_id(run.info.run_id, "run", uri)
    return str(run.info.run_id)


def close_run(uri: str, run_id: str, status: RunStatus, *, tags: Mapping[str, str]) -> None:
    """Give a run its final status and tags.

    Raises:
        TrackingError: the store does not answer.
    """
    with store(uri) as client:
        _close(client, run_id, status, tags, _now_ms())


def log_scores(uri: str, run_id: str, scores: Mapping[str, float], *, step: int) -> None:
    """Add scores that were taken after a trial's end to its run, each value once.

    Args:
        uri: MLflow store.
        run_id: a run whose own process is over.
        scores: finite values by metric name.
        step: updates of G behind the samples.

    Raises:
        TrackingError: the store does not answer.
    """
    from mlflow.entities import Metric

    with store(uri) as client:
        logged = client.get_run(run_id).data.metrics
        new = {name: value for name, value in scores.items() if logged.get(name) != value}
        metrics = [Metric(name, value, _now_ms(), step) for name, value in new.items()]
        client.log_batch(run_id, metrics=metrics)


def log_folder(uri: str, run_id: str, folder: Path, artifact_path: str) -> None:
    """Add what a folder holds to a run whose own process is over; files of one name are replaced.

    Raises:
        TrackingError: the store does not answer.
    """
    with store(uri) as client:
        client.log_artifacts(run_id, str(folder), artifact_path)


def log_evaluation(
    uri: str,
    experiment: str,
    *,
    name: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    folder: Path,
) -> str:
    """A run of its own for an evaluation, finished, with the files of `folder`; returns its id.

    Raises:
        TrackingError: the store cannot be reached or written; the run is then FAILED, if it is.
    """
    from mlflow.entities import Metric, Param

    experiment_id = prepare_store(uri, experiment)
    with store(uri) as client:
        tags = {KIND_TAG: "evaluation"}
        run_id = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
        try:
            client.log_batch(
                run_id,
                metrics=[Metric(key, value, _now_ms(), 0) for key, value in metrics.items()],
                params=[Param(key, str(value)[:_VALUE_LENGTH]) for key, value in params.items()],
            )
            client.log_artifacts(run_id, str(folder))
            client.set_terminated(run_id, "FINISHED")
        except BaseException as error:
            _close(client, run_id, "FAILED", {CAUSE_TAG: _reason(error)}, _now_ms())
            raise
    return str(run_id)


def download_checkpoint(uri: str, run_id: str, dest: Path) -> None:
    """Lay the best checkpoint of a trial's run down as the folder `dest`, as it was uploaded.

    Raises:
        TrackingError: the store does not answer, or has no such run, or that has no checkpoint.
    """
    with store(uri) as client, TemporaryDirectory() as scratch:
        client.get_run(run_id)
        if not client.list_artifacts(run_id, BEST_CHECKPOINT):
            raise TrackingError(f"run {run_id} has no checkpoint in {BEST_CHECKPOINT}")
        folder = client.download_artifacts(run_id, BEST_CHECKPOINT, scratch)
        shutil.copytree(folder, dest)


def close_stragglers(uri: str, parent_run_id: str, status: RunStatus, *, cause: str) -> int:
    """Close every child run that is still RUNNING; returns how many there were.

    For trials whose process died.  `tuning.run_log.deliver` comes first: an outbox may hold the
    true end of its trial.

    Raises:
        TrackingError: the store does not answer.
    """
    with store(uri) as client:
        experiment = client.get_run(parent_run_id).info.experiment_id
        return _close_running(client, [experiment], {PARENT_TAG: parent_run_id}, status, cause)


def close_job_runs(uri: str, job: str) -> int:
    """Close every run that a job on a cluster has left RUNNING; returns how many there were.

    Raises:
        TrackingError: the store does not answer.
    """
    with store(uri) as client:
        everywhere = _experiment_ids(client)
        return _close_running(client, everywhere, {JOB_TAG: job}, "KILLED", "its job was stopped")


def close_sweep_runs(uri: str, sweep: str, *, cause: str) -> int:
    """Close every run, its own included, that a sweep has left RUNNING; returns how many.

    Args:
        uri: MLflow store.
        sweep: its name in MLflow; no process runs it.
        cause: why they were left.

    Raises:
        TrackingError: the store does not answer.
    """
    with store(uri) as client:
        everywhere = _experiment_ids(client)
        return _close_running(client, everywhere, {SWEEP_TAG: sweep}, "KILLED", cause)


def require_store_of(uri: str, run: RunIdentity) -> None:
    """Refuse to write a run into a store that is not the one of its sweep.

    Ids of experiments are small numbers, which another store has as well.

    Raises:
        StoreUnavailableError: the store does not answer.
        TrackingError: it is another one.
    """
    from mlflow.exceptions import MlflowException

    with store(uri) as client:
        try:
            name = client.get_experiment(run.experiment_id).name
            if run.parent_run_id:
                client.get_run(run.parent_run_id)
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            name = None
    if name is None or run.experiment not in ("", name):
        raise TrackingError(
            f"MLflow at {shown(uri)} is not the store that {run.sweep} was run with: "
            f"set MLFLOW_TRACKING_URI to that one"
        )


def _experiment_ids(client: "MlflowClient") -> list[str]:
    page = client.search_experiments()
    experiments = list(page)
    while page.token:
        page = client.search_experiments(page_token=page.token)
        experiments += page
    return [str(experiment.experiment_id) for experiment in experiments]


def _close_running(
    client: "MlflowClient",
    experiments: list[str],
    tags: Mapping[str, str],
    status: RunStatus,
    cause: str,
) -> int:
    marked = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    condition = " and ".join([*marked, "attributes.status = 'RUNNING'"])
    page = client.search_runs(experiments, condition)
    running = list(page)
    while page.token:
        page = client.search_runs(experiments, condition, page_token=page.token)
        running += page
    for run in running:
        _close(client, run.info.run_id, status, {CAUSE_TAG: cause}, _now_ms())
    return len(running)


class TrialRun:
    """A trial's run in a store that answers: found by its tags, or made, and RUNNING.

    Args:
        uri: a store that `prepare_store` has prepared.
        identity: which run.

    Raises:
        StoreUnavailableError: the store does not answer.
        TrackingError: it refuses the request.

    Attributes:
        run_id: MLflow's id of the run.
    """

    def __init__(self, uri: str, identity: RunIdentity) -> None:
        parent = identity.parent_run_id
        with store(uri) as client:
            run, is_new = _open_run(
                client,
                identity.experiment_id,
                identity={
                    KIND_TAG: "trial",
                    SWEEP_TAG: identity.sweep,
                    TRIAL_TAG: identity.trial,
                },
                name=identity.run_name,
                params=identity.params,
                tags=identity.tags | ({PARENT_TAG: parent} if parent else {}),
            )
            self.run_id = str(run.info.run_id)
            _require_id(self.run_id, "run", uri)
            self._logged_step = -1 if is_new else _last_step(client, self.run_id)
        self._uri, self._client, self._run = uri, client, run
        self._may_have_grid = not is_new

    def send(self, records: Sequence[Record]) -> None:
        """Log reports without grids, or one record; steps in the run's history are passed over.

        Raises:
            StoreUnavailableError: the store does not answer.
            TrackingError: it refuses the record.
        """
        first = records[0]
        # Before the store is asked: a damaged picture is no outage.
        grid = _read_image(first.file) if isinstance(first, Report) and first.file else None
        with store(self._uri, self._client) as client:
            match first:
                case Report():
                    self._send_reports([r for r in records if isinstance(r, Report)], grid)
                case Upload():
                    _upload(client, self._run, first.file, first.artifact_path)
                case Finish():
                    _close(client, self.run_id, first.status, first.tags, first.time_ms)

    def _send_reports(self, reports: Sequence[Report], grid: "Image | None") -> None:
        """Send the grid first and the metrics, one transaction, last: they mark the step as done.

        A process that died between the two leaves a grid without metrics; as steps are sent in
        order, only the first report that is new to the run can meet one.

        Args:
            reports: one, or several of which none has a grid.
            grid: of the one.
        """
        from mlflow.entities import Metric

        new = [report for report in reports if report.step > self._logged_step]
        if not new:
            return
        step, time_ms = new[0].step, new[0].time_ms
        if grid and not (self._may_have_grid and _has_grid(self._client, self.run_id, step)):
            self._client.log_image(
                self.run_id, grid, key=GRID_KEY, step=step, timestamp=time_ms, synchronous=True
            )
        metrics = [
            Metric(name, value, report.time_ms, report.step)
            for report in new
            for name, value in report.metrics.items()
        ]
        self._client.log_batch(self.run_id, metrics=metrics)
        self._logged_step, self._may_have_grid = new[-1].step, False


@contextmanager
def store(uri: str, client: "MlflowClient | None" = None) -> Iterator["MlflowClient"]:
    """A client of the store; whatever it raises becomes a TrackingError of one line."""
    try:
        yield client or _connect(uri)
    except _store_errors() as error:
        kind = TrackingError if _is_refusal(error) else StoreUnavailableError
        raise kind(f"MLflow at {shown(uri)} cannot be used: {_reason(error)}") from error


def _connect(uri: str) -> "MlflowClient":
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    # It reports every failed statement with a traceback; ours is one line an outage.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if urlsplit(uri).scheme.partition("+")[0] in _DATABASES:
        _knock(uri)
    return MlflowClient(tracking_uri=uri)


def _knock(uri: str) -> None:
    """Raise at once if a database does not let us in; MLflow would try ten times, for minutes."""
    from sqlalchemy import NullPool, create_engine, make_url

    url = make_url(uri)
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    with create_engine(url, poolclass=NullPool).connect() as connection:
        if is_sqlite:
            connection.exec_driver_sql("PRAGMA schema_version")  # opens the file


def _store_errors() -> tuple[type[Exception], ...]:
    """What MLflow raises when it fails; OSError has those of requests and of the file system."""
    from google.protobuf.json_format import Error as MalformedAnswer
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, MalformedAnswer, OSError, ModuleNotFoundError


def _reason(error: BaseException) -> str:
    """The first line of an error; of urllib3's errors within errors, the innermost."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    _, nested, innermost = line.rpartition("Caused by ")
    if not nested:
        return line[:300]
    quoted = re.findall(r"""["']([^"']+)["']""", innermost)
    return (quoted[-1] if quoted else innermost).rpartition(": ")[2].rstrip("\"')")


def _is_refusal(error: Exception) -> bool:
    """Whether the same request would fail again, so that waiting is of no use."""
    from requests import HTTPError

    if isinstance(error, HTTPError) and error.response is not None:
        status = int(error.response.status_code)
        return 400 <= status < 500 and status not in _TRY_LATER
    if isinstance(error, ModuleNotFoundError):  # a database's driver
        return True
    return getattr(error, "error_code", None) in _REFUSALS


def find_run(
    client: "MlflowClient", experiment_id: str, identity: Mapping[str, str]
) -> "Run | None":
    """The run that these tags mark; of several the oldest, None if there is none."""
    condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
    oldest_first = ["attributes.start_time ASC"]
    found = client.search_runs([experiment_id], condition, max_results=1, order_by=oldest_first)
    return found[0] if found else None


def _open_run(
    client: "MlflowClient",
    experiment_id: str,
    *,
    identity: Mapping[str, str],
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
) -> tuple["Run", bool]:
    """The run that `identity` marks, RUNNING, with its params and tags; and whether it is new."""
    from mlflow.entities import Param, RunTag

    wanted = {key: value[:_VALUE_LENGTH] for key, value in {**tags, **identity}.items()}
    found = find_run(client, experiment_id, identity)
    run = found or client.create_run(experiment_id, tags=wanted, run_name=name)
    run_id = run.info.run_id
    # Of the job that ran it before: to stop that one is no longer to stop this run.  And of how it
    # ended before, also where its process died between the tags of an end and the end.
    outdated = {JOB_TAG, CAUSE_TAG, STOPPED_EARLY_TAG} - wanted.keys()
    if run.info.status != "RUNNING":
        client.update_run(run_id, status="RUNNING")
    for tag in outdated & run.data.tags.keys():
        client.delete_tag(run_id, tag)
    # A process may have died after it made the run, so neither params nor tags are taken as read.
    new_params = [
        Param(key, str(value)[:_VALUE_LENGTH])
        for key, value in params.items()
        if key not in run.data.params
    ]
    new_tags = [RunTag(k, v) for k, v in wanted.items() if run.data.tags.get(k) != v]
    client.log_batch(run_id, params=new_params, tags=new_tags)
    return run, found is None


def _close(
    client: "MlflowClient", run_id: str, status: RunStatus, tags: Mapping[str, str], time_ms: int
) -> None:
    from mlflow.entities import RunTag

    values = [RunTag(key, value[:_VALUE_LENGTH]) for key, value in tags.items()]
    client.log_batch(run_id, tags=values)
    # Of an end that did not last, told by a request that came late.
    if status == "FINISHED" and CAUSE_TAG in client.get_run(run_id).data.tags.keys() - tags.keys():
        client.delete_tag(run_id, CAUSE_TAG)
    client.set_terminated(run_id, status, end_time=time_ms)


def _last_step(client: "MlflowClient", run_id: str) -> int:
    """The last step in a run's history, or -1."""
    return max((int(m.step) for m in client.get_metric_history(run_id, IMAGES_SEEN)), default=-1)


def _has_grid(client: "MlflowClient", run_id: str, step: int) -> bool:
    # MLflow writes the preview last: without it the picture is not complete.
    name = re.compile(rf"images/{GRID_KEY}\+step\+{step}\+.*\+compressed\.webp")
    return any(name.fullmatch(info.path) for info in client.list_artifacts(run_id, "images"))


def _upload(client: "MlflowClient", run: "Run", source: Path, target: str) -> None:
    """Upload first and remove what is left over afterwards, so that there is always something."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    run_id = run.info.run_id
    if not source.is_dir():
        client.log_artifact(run_id, str(source), target)
        return
    client.log_artifacts(run_id, str(source), target)
    artifacts = get_artifact_repository(run.info.artifact_uri, tracking_uri=client.tracking_uri)
    for left_over in list(_left_over(client, run_id, target, source)):
        artifacts.delete_artifacts(left_over)


def _left_over(client: "MlflowClient", run_id: str, path: str, source: Path) -> Iterator[str]:
    for info in client.list_artifacts(run_id, path):
        twin = source / Path(info.path).name
        if info.is_dir and twin.is_dir():
            yield from _left_over(client, run_id, info.path, twin)
        elif not twin.exists():
            yield info.path


def _require_id(given: str, what: str, uri: str) -> None:
    """Refuse an answer that MLflow's client takes for one, though it names nothing."""
    if not given:
        raise StoreUnavailableError(f"MLflow at {shown(uri)} cannot be used: it names no {what}")


def _require_writable(location: str) -> None:
    """Refuse an artifact folder on this machine that cannot be written; any other is remote."""
    parts = urlsplit(location)
    if parts.scheme not in ("", "file"):
        return
    folder = Path(url2pathname(parts.path) if parts.scheme else location)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # ValueError: a zero byte, which no folder's name has
        raise TrackingError(f"artifact folder {folder} must be writable: {error}") from error


def _read_image(path: Path) -> "Image":
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        return image


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
