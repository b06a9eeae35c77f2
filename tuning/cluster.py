"""Where trials run: the cluster named by RAY_ADDRESS, else one on this machine."""

import logging
import os

from tuning.errors import TuningError

logger = logging.getLogger(__name__)

_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    # Reports go to MLflow and to the ledger; the tuner's own CSV, JSON and TensorBoard files are
    # a third copy that costs a file system call per report.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Only scored reports hold the objective.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # A stopped trial may have records to send before its worker is used again.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "30",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Snapshots of the tuner are never read: the ledger is what a sweep resumes from.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def connect() -> None:
    """Join the cluster of RAY_ADDRESS, or start one on this machine; do nothing if connected.

    Raises:
        TuningError: if the cluster does not answer.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    workers = {name: os.environ[name] for name in _ENVIRONMENT}
    try:
        if address:
            ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": workers})
        else:
            # What its workers need, they inherit.
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"the Ray cluster at {address}" if address else "a local Ray cluster"
        raise TuningError(f"{where} could not be reached: {_first_line(error)}") from error


def disconnect() -> None:
    """Leave the cluster; one that `connect` started ends with all its workers."""
    import ray

    ray.shutdown()


def require_resources(*, cpus: float, gpus: float) -> None:
    """Refuse a trial that no node could ever hold; the tuner would wait for it without end.

    Raises:
        TuningError: naming the resource.
    """
    import ray

    total = ray.cluster_resources()
    for name, wanted in (("CPU", cpus), ("GPU", gpus)):
        if wanted > total.get(name, 0):
            raise TuningError(
                f"sweep.{name.lower()}s_per_trial is {wanted:g}, but the cluster has "
                f"{total.get(name, 0):g} in all"
            )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
