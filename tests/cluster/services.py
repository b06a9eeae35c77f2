"""The parts of a real installation, each in processes of its own: start, use, break, stop.

PostgreSQL from the system's package, MLflow's own server with basic authentication, an
S3-compatible server, and Ray started as an operator starts it, with its token.
"""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import requests

START_SECONDS = 90.0
BUCKET = "gan"
S3_KEYS = {"AWS_ACCESS_KEY_ID": "gan-test", "AWS_SECRET_ACCESS_KEY": "gan-test-secret"}
ADMIN = "admin"


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Service:
    """A server in a process group of its own.

    Attributes:
        command, environment, folder: how it is started, also again.
        port: where it listens.
        is_ready: whether it answers.
        user: whose process it is; None for that of the tests.
    """

    command: list[str]
    port: int
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    is_ready: Callable[[], bool] = lambda: True
    user: str | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.user,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                log_text = (self.folder / "log").read_text()[-3000:]
                self.kill()
                raise RuntimeError(f"{self.command[:3]} did not start:\n{log_text}")
            time.sleep(0.2)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def stop(self) -> None:
        """End it as an operator does."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


def _answers(url: str, **options: object) -> bool:
    try:
        return requests.get(url, timeout=5, **options).ok  # type: ignore[arg-type]
    except requests.RequestException:
        return False


def postgres_folder() -> Path | None:
    """Where the system's package has PostgreSQL's programs, if it is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def missing_parts() -> list[str]:
    """What an installation needs and this machine has not."""
    modules = ("boto3", "moto", "psycopg2", "flask_wtf", "aiohttp", "opencensus")
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return missing if postgres_folder() else [*missing, "postgresql"]


@contextmanager
def postgres() -> Iterator[tuple[Service, str]]:
    """A PostgreSQL server, and the URI of an empty database in it."""
    programs = postgres_folder()
    assert programs is not None
    # It refuses to be root, and must reach its folder as somebody else.
    user = "nobody" if os.geteuid() == 0 else None
    home = Path(mkdtemp(prefix="gan-postgres-"))
    password, port = secrets.token_hex(16), free_port()
    try:
        (home / "password").write_text(password)
        if user:
            shutil.chown(home, user)
            shutil.chown(home / "password", user)
        initdb = [str(programs / "initdb"), "-D", str(home / "data"), "-U", "gan", "-A"]
        subprocess.run(
            [*initdb, "scram-sha-256", "--pwfile", str(home / "password"), "--no-sync"],
            check=True,
            capture_output=True,
            user=user,
            cwd=home,
        )
        settings = {"port": port, "listen_addresses": "127.0.0.1", "fsync": "off"}
        settings |= {"unix_socket_directories": str(home)}
        options = [word for k, v in settings.items() for word in ("-c", f"{k}={v}")]
        ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
        service = Service(
            [str(programs / "postgres"), "-D", str(home / "data"), *options],
            port,
            home,
            is_ready=lambda: (
                subprocess.run(ready, capture_output=True, check=False).returncode == 0
            ),
            user=user,
        )
        service.start()
        try:
            yield service, f"postgresql+psycopg2://gan:{password}@127.0.0.1:{port}/postgres"
        finally:
            service.kill()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def object_storage(folder: Path) -> Iterator[Service]:
    """An S3-compatible server with an empty bucket."""
    import boto3

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    service = Service(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        port,
        folder,
        is_ready=lambda: _answers(f"{url}/moto-api/"),
    )
    service.start()
    try:
        boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=S3_KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=S3_KEYS["AWS_SECRET_ACCESS_KEY"],
        ).create_bucket(Bucket=BUCKET)
        yield service
    finally:
        service.kill()


def storage_uri(port: int, path: str = "sweeps") -> str:
    """Where sweeps are kept in an object storage at that port."""
    return f"s3://{BUCKET}/{path}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


@dataclass(frozen=True)
class Tracker:
    """MLflow's server, and what a client needs for it."""

    service: Service
    password: str

    def environment(self, port: int | None = None) -> dict[str, str]:
        """The variables of a client; by another port where a proxy stands between."""
        return {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port or self.service.port}",
            "MLFLOW_TRACKING_USERNAME": ADMIN,
            "MLFLOW_TRACKING_PASSWORD": self.password,
        }


@contextmanager
def tracker(folder: Path, *, database: str, s3_port: int) -> Iterator[Tracker]:
    """MLflow's server on PostgreSQL, its artifacts in the bucket, with basic authentication."""
    port, password = free_port(), secrets.token_hex(16)
    folder.mkdir(parents=True, exist_ok=True)
    # As deploy/docker/make-secrets writes it.
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {database}\n"
        f"admin_username = {ADMIN}\nadmin_password = {password}\nauth_cache_ttl_seconds = 60\n"
    )
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", f"s3://{BUCKET}/mlflow"]
    service = Service(
        command,
        port,
        folder,
        environment=S3_KEYS
        | {
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_BACKEND_STORE_URI": database,
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        is_ready=lambda: _answers(f"http://127.0.0.1:{port}/health"),
    )
    service.start()
    try:
        yield Tracker(service, password)
    finally:
        service.kill()


@dataclass(frozen=True)
class Servers:
    """Where runs, sweeps and artifacts are kept, running."""

    database: Service
    database_uri: str
    storage: Service
    tracker: Tracker


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Start PostgreSQL, the object storage, and MLflow on both, and end them."""
    with ExitStack() as stack:
        database, database_uri = stack.enter_context(postgres())
        storage = stack.enter_context(object_storage(folder / "s3"))
        tracking = stack.enter_context(
            tracker(folder / "mlflow", database=database_uri, s3_port=storage.port)
        )
        yield Servers(database, database_uri, storage, tracking)


@dataclass(frozen=True)
class Head:
    """The head of a Ray cluster with a token."""

    service: Service
    dashboard_port: int
    token_file: Path

    @property
    def jobs_address(self) -> str:
        """Of its Jobs API."""
        return f"http://127.0.0.1:{self.dashboard_port}"

    def environment(self) -> dict[str, str]:
        """The variables of whoever may use the cluster."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file)}


@contextmanager
def ray_head(
    folder: Path, *, cpus: int = 2, environment: Mapping[str, str] | None = None
) -> Iterator[Head]:
    """A Ray head as an operator starts it; `environment` is what its machine has."""
    port, dashboard = free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    token_file = folder / "token"
    token_file.write_text(secrets.token_hex(32))
    token_file.chmod(0o600)
    # A short path: Ray's sockets lie below it, and their names may have 107 bytes.
    session = Path(mkdtemp(prefix="gan-ray-"))
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    command += [f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    command += [f"--ray-client-server-port={free_port()}", "--node-ip-address=127.0.0.1"]
    command += [f"--num-cpus={cpus}", f"--temp-dir={session}"]
    head = Head(
        Service(
            command,
            port,
            folder,
            environment={
                **(environment or {}),
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(token_file),
                "RAY_JOB_STOP_WAIT_TIME_S": "20",
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            is_ready=lambda: _answers(
                f"http://127.0.0.1:{dashboard}/api/version",
                headers={"Authorization": f"Bearer {token_file.read_text()}"},
            ),
        ),
        dashboard,
        token_file,
    )
    head.service.start()
    try:
        yield head
    finally:
        head.service.stop()
        head.service.kill()
        shutil.rmtree(session, ignore_errors=True)


@contextmanager
def ray_worker(
    head: Head,
    folder: Path,
    *,
    environment: Mapping[str, str],
    address: str = "127.0.0.1",
    around: Sequence[str] = (),
) -> Iterator[Service]:
    """Another node of the cluster, with one CPU, as its own machine would join it.

    Args:
        head: what it joins.
        folder: for its log.
        environment: what its machine has.
        address: of its machine; any of the loopback is one.
        around: a command that is to run it.
    """
    command = [
        *around,
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--block",
        "--num-cpus=1",
    ]
    command += [f"--address=127.0.0.1:{head.service.port}", f"--node-ip-address={address}"]
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    worker = Service(
        command,
        head.service.port,
        folder,
        environment={
            **environment,
            **head.environment(),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        is_ready=lambda: "Ray runtime started" in (folder / "log").read_text(),
    )
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()
        worker.kill()


@dataclass(frozen=True)
class Installation:
    """All of it, running: secrets of storage and tracking lie with the servers alone."""

    head: Head
    tracker: Tracker
    storage: Service
    database: Service
    database_uri: str

    def user(self) -> dict[str, str]:
        """The variables of a person who sends runs to it, browses them, and fetches models."""
        return {
            **self.head.environment(),
            **self.tracker.environment(),
            "RAY_API_SERVER_ADDRESS": self.head.jobs_address,
            "GAN_STORAGE_URI": storage_uri(self.storage.port),
        }


@contextmanager
def installation(folder: Path) -> Iterator[Installation]:
    """Start all of it, and end it."""
    with servers(folder) as kept:
        secrets_of_machine = S3_KEYS | {
            name: value
            for name, value in kept.tracker.environment().items()
            if name != "MLFLOW_TRACKING_URI"
        }
        with ray_head(folder / "ray", environment=secrets_of_machine) as head:
            yield Installation(head, kept.tracker, kept.storage, kept.database, kept.database_uri)
