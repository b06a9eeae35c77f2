"""Where trials run: the cluster named by RAY_ADDRESS, else one on this machine."""

import hashlib
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from gan.errors import ConfigError
from tuning.errors import TuningError
from tuning.provenance import JOB_ID
from tuning.replica import STORAGE_URI, shown

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""How long a cluster may take to accept a connection, and then to answer."""

ANSWER_SECONDS = 30.0
"""How long a machine of the cluster may take to run a first task, or to forget a dead driver."""
NAMESPACE = "adversarial-nets"
"""In which all drivers on a cluster find each other's actors."""

_ADDRESS = re.compile(
    r"auto|local|(ray://)?(?P<host>[^\s:/\[\]]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})"
)
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""How a client of HTTP/2, and so of gRPC, begins: the preface and empty settings (RFC 9113)."""
_SETTINGS_FRAME = 4

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
    # A tuner that is left behind when its cluster ends must not start one of its own.
    "TUNE_DISABLE_AUTO_INIT": "1",
    # Snapshots of the tuner are never read: the ledger is what a sweep resumes from.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # What raylets say of dead workers would go to stdout; a trial's end says it in a line.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    # A data set may be named by a relative path.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Each trial of a reused worker is a new thread, and each thread a new arena of malloc, whose
    # freed memory the others never get: 0.1 GB more after four trials of MNIST.
    "MALLOC_ARENA_MAX": "2",
}


class Lease:
    """An actor that does nothing: its name is taken as long as the driver that made it lives."""


def connect() -> bool:
    """Join the cluster of RAY_ADDRESS, or start one on this machine; do nothing if connected.

    Returns:
        Whether this process was not connected before: then it is to disconnect.

    Raises:
        ConfigError: if RAY_ADDRESS is no address of a cluster.
        TuningError: if the cluster does not answer.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return False
    address = os.environ.get("RAY_ADDRESS")
    workers = {name: os.environ[name] for name in _ENVIRONMENT}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        options |= {"address": address, "runtime_env": {"env_vars": workers}}
    else:
        # Not one that `ray start` has left here, whose workers inherit nothing from this process.
        options |= {"address": "local", "include_dashboard": False}
    try:
        if address:
            _knock(address)
        with _keeping_sigterm():
            ray.init(**options)
    except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = f"the Ray cluster at {address}" if address else "a local Ray cluster"
        raise TuningError(f"{where} could not be reached: {_reason(error)}") from error
    return True


def disconnect() -> None:
    """Leave the cluster; one that `connect` started ends with all its workers."""
    import ray

    ray.shutdown()


def trial_slots(*, cpus: float, gpus: float) -> int:
    """How many trials the nodes of the cluster hold at once; waits a while for a first one.

    Args:
        cpus: of one trial.
        gpus: of one trial.

    Raises:
        TuningError: if no node holds one: the tuner would wait for it without end.
    """
    wanted = {"CPU": cpus, "GPU": gpus}
    # Machines of a cluster that was just started may still be joining it.
    deadline = time.monotonic() + (ANSWER_SECONDS if os.environ.get("RAY_ADDRESS") else 0.0)
    while True:
        nodes = [node["Resources"] for node in _nodes()]
        slots = sum(
            min(int(node.get(name, 0) / n + 1e-6) for name, n in wanted.items() if n)
            for node in nodes
        )
        if slots or time.monotonic() >= deadline:
            break
        time.sleep(1.0)
    if slots == 0:
        found = "; ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes)
        raise TuningError(
            f"no node of the cluster has the {cpus:g} CPUs and {gpus:g} GPUs of one trial "
            f"(sweep.cpus_per_trial, sweep.gpus_per_trial): they have {found}"
        )
    return slots


def require_lasting(uri: str, *, is_in_storage: bool) -> None:
    """Refuse a job that would keep its runs or its sweep in the folder that Ray gave it.

    Args:
        uri: MLflow store.
        is_in_storage: whether the sweep is kept in object storage, or on another file system.

    Raises:
        TuningError: naming the variable that is missing.
    """
    if os.environ.get(JOB_ID) is None:
        return
    missing = [] if is_in_storage else [STORAGE_URI]
    if uri.startswith("sqlite:"):
        missing.append("MLFLOW_TRACKING_URI")
    if missing:
        raise TuningError(
            f"a job's own folder is Ray's, which removes it: set {' and '.join(missing)} on the "
            f"cluster's machines, or where `gan submit` is called"
        )


def require_shared_store(uri: str) -> None:
    """Refuse an MLflow store in a file if trials run on more than one machine.

    Raises:
        TuningError: naming the store.
    """
    machines = {node["NodeManagerAddress"] for node in _nodes()}
    if os.environ.get("RAY_ADDRESS", "").startswith("ray://"):
        machines.add("this one")  # whose driver is no node of the cluster
    if len(machines) > 1 and uri.startswith("sqlite:"):
        raise TuningError(
            f"MLFLOW_TRACKING_URI must name a server that all {len(machines)} machines of the "
            f"cluster reach, got {uri}"
        )


def require_shared_folder(folder: Path, *, else_set: str) -> None:
    """Refuse a folder that some machine of the cluster does not see.

    Args:
        folder: exists here.
        else_set: the variable that names another place.

    Raises:
        TuningError: naming the machine.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.util.get_node_ip_address()
    machines = {node["NodeManagerAddress"]: node["NodeID"] for node in _nodes()}
    others = {name: node for name, node in machines.items() if name != here}
    if not others:
        return
    with NamedTemporaryFile(dir=folder, prefix=".seen-by-all-") as probe:
        sees = ray.remote(num_cpus=0, max_retries=0)(os.path.exists)
        for name, node in others.items():
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            try:
                seen = sees.options(scheduling_strategy=there).remote(probe.name)
                is_shared = ray.get(seen, timeout=ANSWER_SECONDS)
            except ray.exceptions.RayError as error:
                raise TuningError(f"machine {name} of the cluster: {_reason(error)}") from error
            if not is_shared:
                raise TuningError(
                    f"{folder} must lie on storage that every machine of the cluster reaches, "
                    f"but {name} does not see it: set {else_set} to object storage, or to "
                    f"file:///PATH of a volume that all of them have"
                )


def lease(name: str) -> Lease:
    """Keep every other driver on this cluster from what `name` names while this process lives.

    Args:
        name: of a folder, or its URI, whose query does not count.

    Raises:
        TuningError: if one has it, or the cluster does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    key = f"lease-{hashlib.sha256(shown(name).encode()).hexdigest()[:32]}"
    # Here, so that it is not lost with another machine.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    holder = ray.remote(num_cpus=0)(Lease).options(
        name=key, namespace=NAMESPACE, scheduling_strategy=here
    )
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            held: Lease = holder.remote()
            ray.get(held.__ray_ready__.remote(), timeout=ANSWER_SECONDS)  # type: ignore[attr-defined]
            return held
        except ValueError as error:  # the name is taken, maybe by a driver that has just died
            if time.monotonic() >= deadline:
                raise TuningError(
                    f"{shown(name)} is being run by another process on this cluster"
                ) from error
            time.sleep(1)
        except ray.exceptions.RayError as error:
            raise TuningError(f"the cluster does not answer: {_reason(error)}") from error


def release(held: Lease) -> None:
    """Let others have what a lease names; a driver that ends does so anyway."""
    import ray

    ray.kill(held)


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _knock(address: str) -> None:
    """Raise OSError at once if no cluster answers: Ray would try for five minutes.

    Raises:
        ConfigError: if `address` is none.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"] or 1) < 2**16:
        raise ConfigError(
            [
                "RAY_ADDRESS must be HOST:PORT (6379 is usual) or ray://HOST:PORT (10001) of the "
                f"cluster's head, auto or local, got {address!r}"
            ]
        )
    if match["host"] is None:  # Ray itself says at once whether it found one on this machine
        return
    host, port = match["host"].strip("[]"), int(match["port"])
    with socket.create_connection((host, port), timeout=PATIENCE_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") != "1":
            _require_grpc(connection)


def _require_grpc(connection: socket.socket) -> None:
    """Raise OSError unless a server of gRPC, as Ray's are, is at the other end."""
    connection.sendall(_HELLO)
    frame = connection.recv(9, socket.MSG_WAITALL)
    if len(frame) < 9 or frame[3] != _SETTINGS_FRAME:
        raise ConnectionError("what listens there is no Ray cluster")


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Give SIGTERM back its handler, which `ray.init` replaces."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
