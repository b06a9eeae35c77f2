"""A sweep of twelve trials under thirty faults ends as it does without any.

    pytest -m cluster tests/cluster/test_faults.py -s

prints what was broken when, and what came out.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from mlflow import MlflowClient

from gan.checkpoint import list_checkpoints, load_checkpoint
from tests.cluster.proxy import Proxy
from tests.cluster.services import (
    S3_KEYS,
    Head,
    Service,
    Tracker,
    missing_parts,
    ray_head,
    ray_worker,
    servers,
    storage_uri,
)
from tests.pipeline.tiny_run import SETTINGS, write_images
from tuning.replica import Replica

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(2400)]
ROOT = Path(__file__).parents[2]
SEED = 2014
N_TRIALS, N_STEPS = 12, 9_000
REPORT_EVERY = N_STEPS // 20
N_FAULTS = 30
MARK = "GAN_TEST_MARK"

SWEEP = SETTINGS | {
    "base": SETTINGS["base"]
    | {
        "train": SETTINGS["base"]["train"] | {"n_steps": N_STEPS, "report_every": REPORT_EVERY},
        "evaluation": SETTINGS["base"]["evaluation"] | {"score_every": N_STEPS // 4},
    },
    "sweep": SETTINGS["sweep"] | {"n_trials": N_TRIALS, "max_retries": 20},
}


def processes(mark: str, words: str = "") -> list[int]:
    """Processes whose environment holds the mark, and whose command line those words."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            is_zombie = ") Z " in (folder / "stat").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        if mark.encode() in environment and words in command and not is_zombie:
            found.append(int(folder.name))
    return found


@dataclass
class Cluster:
    """A head, nodes that may be lost, and what stands between them and the servers."""

    folder: Path
    head: Head
    tracking: Tracker
    database: Service
    to_mlflow: Proxy
    to_storage: Proxy
    mark: str
    has_small_disk: bool
    stack: ExitStack
    nodes: list[Service] = field(default_factory=list)
    driver: subprocess.Popen[bytes] | None = None
    told: list[str] = field(default_factory=list)

    def marked(self) -> dict[str, str]:
        """The variables by which its processes are found, find this code, and miss a lost head."""
        patience = {"RAY_gcs_rpc_server_reconnect_timeout_s": "20"}  # by default a minute
        return {MARK: self.mark, "PYTHONPATH": str(ROOT), **patience}

    def machine(self) -> dict[str, str]:
        """The variables of a machine of the cluster."""
        return {
            **S3_KEYS,
            **self.marked(),
            **self.tracking.environment(self.to_mlflow.port),
            "GAN_STORAGE_URI": storage_uri(self.to_storage.port),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
        }

    def join(self) -> None:
        """Give the cluster another node."""
        folder = self.folder / f"node-{len(self.nodes)}"
        node = ray_worker(self.head, folder, environment=self.machine())
        self.nodes.append(self.stack.enter_context(node))

    def start_driver(self, *arguments: str) -> None:
        """Start the sweep, or go on with it, by the same command."""
        environment = self.machine() | self.head.environment()
        environment["RAY_ADDRESS"] = f"127.0.0.1:{self.head.service.port}"
        with (
            (self.folder / "driver.log").open("ab") as log,
            (self.folder / "driver.out").open("ab") as out,
        ):
            self.driver = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", "sweep", "tiny.yaml", *arguments],
                cwd=self.folder,
                env=os.environ | environment,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )

    def is_over(self) -> bool:
        """Whether the driver has ended by itself and well; one that has not is started again."""
        assert self.driver is not None
        status = self.driver.poll()
        if status == 0:
            return True
        if status is not None:
            self.told.append(f"the driver ended with {status}, started again")
            self.start_driver()
        return False

    def finish(self, seconds: float) -> None:
        """Wait for the end of the sweep."""
        deadline = time.monotonic() + seconds
        while not self.is_over():
            assert time.monotonic() < deadline, (self.folder / "driver.log").read_text()[-4000:]
            time.sleep(0.5)


@pytest.fixture
def cluster(tmp_path: Path, home: Path) -> Iterator[Cluster]:
    """A head without CPUs and two nodes of one; MLflow and the storage behind proxies."""
    missing = missing_parts()
    if missing and not os.environ.get("CI"):
        pytest.skip(f"not installed: {', '.join(missing)}")
    mark = uuid4().hex
    with ExitStack() as stack:
        has_small_disk = stack.enter_context(small_disk(tmp_path / "cache"))
        kept = stack.enter_context(servers(tmp_path))
        to_mlflow = Proxy(kept.tracker.service.port)
        to_storage = Proxy(kept.storage.port)
        stack.callback(to_mlflow.close)
        stack.callback(to_storage.close)
        environment = {MARK: mark, "PYTHONPATH": str(ROOT)}
        head = stack.enter_context(ray_head(tmp_path / "ray", cpus=0, environment=environment))
        running = Cluster(
            tmp_path,
            head,
            kept.tracker,
            kept.database,
            to_mlflow,
            to_storage,
            mark,
            has_small_disk,
            stack,
        )
        write_images(tmp_path)
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SWEEP))
        for _ in range(2):
            running.join()
        yield running
        if running.driver is not None and running.driver.poll() is None:
            os.killpg(running.driver.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while left := processes(mark):
        if time.monotonic() > deadline:
            pytest.fail(f"processes are left: {left}")
        time.sleep(0.5)


class Faults:
    """What can go wrong, by name; each returns once it is over: False if it hit nothing."""

    def __init__(self, cluster: Cluster, draw: random.Random) -> None:
        self.cluster, self.draw = cluster, draw

    def schedule(self) -> list[tuple[str, Callable[[], bool | None]]]:
        """More than thirty of them in a drawn order, each kind at least once."""
        kinds: list[tuple[str, int, Callable[[], bool | None]]] = [
            ("SIGKILL of a worker", 9, self.kill_worker),
            ("SIGSTOP of a worker for 20 s", 2, self.stop_worker),
            ("SIGKILL of a raylet", 2, self.kill_raylet),
            ("SIGKILL of the driver", 4, self.kill_driver),
            ("SIGTERM of the driver", 2, self.terminate_driver),
            ("MLflow killed and restarted", 2, self.restart_mlflow),
            ("MLflow cut off", 3, lambda: self.mlflow("cut")),
            ("MLflow delayed by 5 s", 2, lambda: self.mlflow("delay")),
            ("MLflow answers 500", 2, lambda: self.mlflow("error")),
            ("PostgreSQL restarted", 2, self.restart_database),
            ("object storage gone", 2, self.storage_gone),
            ("disk full", 2 * self.cluster.has_small_disk, self.disk_full),
        ]
        faults = [(name, fault) for name, n, fault in kinds for _ in range(n)]
        self.draw.shuffle(faults)
        return faults

    def kill_worker(self) -> bool:
        return self._signal_worker(signal.SIGKILL) is not None

    def stop_worker(self) -> bool:
        pid = self._signal_worker(signal.SIGSTOP)
        if pid is not None:
            time.sleep(20)
            os.kill(pid, signal.SIGCONT)
        return pid is not None

    def _signal_worker(self, number: signal.Signals) -> int | None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not self.cluster.is_over():
            if workers := processes(self.cluster.mark, "ray::ImplicitFunc"):
                pid = self.draw.choice(workers)
                os.kill(pid, number)
                return pid
            time.sleep(0.2)
        return None

    def kill_raylet(self) -> None:
        raylets = [
            p for p in processes(self.cluster.mark, "/raylet/raylet ") if self._is_worker(p)
        ]
        os.kill(self.draw.choice(raylets), signal.SIGKILL)
        self.cluster.join()

    def _is_worker(self, raylet: int) -> bool:
        command = Path(f"/proc/{raylet}/cmdline").read_bytes()
        return b"--head" not in command

    def kill_driver(self) -> None:
        assert self.cluster.driver is not None
        os.killpg(self.cluster.driver.pid, signal.SIGKILL)
        self.cluster.driver.wait()

    def terminate_driver(self) -> None:
        assert self.cluster.driver is not None
        os.killpg(self.cluster.driver.pid, signal.SIGTERM)
        self.cluster.driver.wait(60)

    def restart_mlflow(self) -> None:
        self.cluster.tracking.service.kill()
        time.sleep(3)
        self.cluster.tracking.service.start()

    def mlflow(self, mode: str) -> None:
        with self.cluster.to_mlflow.being(mode):  # type: ignore[arg-type]
            time.sleep(6)

    def restart_database(self) -> None:
        self.cluster.database.signal(signal.SIGQUIT)  # its fastest way to end, as in a crash
        assert self.cluster.database.process is not None
        self.cluster.database.process.wait(20)
        self.cluster.database.start()

    def storage_gone(self) -> None:
        with self.cluster.to_storage.being("cut"):
            time.sleep(6)

    def disk_full(self) -> None:
        filler = self.cluster.folder / "cache" / "filler"
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        time.sleep(6)
        filler.unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A folder on a file system of its own of 48 MB; only root can have that, and is told so."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    is_small = os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0
    try:
        yield is_small
    finally:
        if is_small:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass(frozen=True)
class Outcome:
    """What a sweep has left in MLflow and in storage."""

    winner: tuple[str, str]
    statuses: Counter[tuple[str, str]]
    causes: Counter[str | None]
    histories: dict[str, dict[str, list[tuple[int, float]]]]


def outcome(cluster: Cluster, experiment: str) -> Outcome:
    """Read by the servers themselves, past the proxies."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.tracking.environment().items():
            patch.setenv(name, value)
        client = MlflowClient()
        found = client.get_experiment_by_name(experiment)
        assert found is not None
        runs = client.search_runs([found.experiment_id])
        (sweep,) = [run for run in runs if run.data.tags["gan.kind"] == "sweep"]
        winner = {k: v for k, v in sweep.data.tags.items() if k.startswith("gan.best_")}
        histories = {}
        for run in runs:
            if run.data.tags["gan.kind"] != "trial":
                continue
            histories[run.data.tags["gan.trial"]] = {
                name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            }
    return Outcome(
        winner=tuple(sorted(winner.values())),  # type: ignore[arg-type]
        statuses=Counter((run.data.tags["gan.kind"], run.info.status) for run in runs),
        causes=Counter(run.data.tags.get("gan.cause") for run in runs),
        histories=histories,
    )


def scores(history: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    """What does not depend on the clock."""
    return {name: values for name, values in history.items() if "second" not in name}


def test_thirty_faults_change_nothing(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_driver("--set", "name=calm")
    cluster.finish(900)
    calm = outcome(cluster, "calm")

    draw = random.Random(SEED)
    began = time.monotonic()
    arguments = ("--set", "name=broken")
    start = cluster.start_driver
    cluster.start_driver = lambda *_: start(*arguments)  # type: ignore[method-assign]
    cluster.start_driver()
    happened: Counter[str] = Counter()
    for name, fault in Faults(cluster, draw).schedule():
        time.sleep(draw.uniform(0.2, 1))
        if cluster.is_over():
            break
        cluster.told.append(f"{time.monotonic() - began:6.1f} s  {name}")
        happened[name] += fault() is not False
    cluster.finish(900)
    seconds = time.monotonic() - began
    broken = outcome(cluster, "broken")
    print(*cluster.told, sep="\n")
    hit = {"MLflow": cluster.to_mlflow.n_hit, "object storage": cluster.to_storage.n_hit}
    figures = {"faults": happened, "requests that met one": hit, "seconds": round(seconds, 1)}
    print(json.dumps(figures, indent=2))

    assert happened.total() >= N_FAULTS
    assert min(happened.values()) > 0
    assert min(hit.values()) > 0
    assert broken.statuses == calm.statuses
    assert broken.statuses == {("sweep", "FINISHED"): 1, ("trial", "FINISHED"): N_TRIALS}
    assert broken.causes == {None: N_TRIALS + 1}  # none of what was overcome
    assert broken.winner == calm.winner
    assert broken.histories.keys() == calm.histories.keys()
    for trial, history in calm.histories.items():
        assert scores(broken.histories[trial]) == scores(history), trial
        for name, values in broken.histories[trial].items():  # those of the clock as well
            assert [step for step, _ in values] == [step for step, _ in history[name]], name
        steps = [step for step, _ in broken.histories[trial]["images_seen"]]
        assert steps == list(range(REPORT_EVERY, N_STEPS + 1, REPORT_EVERY))
    require_nothing_runs(cluster)
    require_whole_checkpoints(cluster, tmp_path / "kept")
    # Where JSON would be: nothing of what Ray has to say of its dead.
    assert (tmp_path / "driver.out").read_text() == ""


def test_a_lost_head_costs_nothing_that_was_kept(cluster: Cluster, tmp_path: Path) -> None:
    """A new cluster and the same command, in another folder: the trials go on in their runs."""
    four = ("--set", "name=headless", "--set", "sweep.n_trials=4")
    cluster.start_driver(*four)
    wait_for_checkpoint(cluster)
    cluster.head.service.kill()
    assert cluster.driver is not None
    assert cluster.driver.wait(180) != 0
    for node in cluster.nodes:
        node.kill()

    cluster.head = cluster.stack.enter_context(
        ray_head(tmp_path / "ray-2", cpus=0, environment=cluster.marked())
    )
    cluster.join()
    other = tmp_path / "other"
    other.mkdir()
    for name in ("tiny.yaml", "train.npz", "test.npz"):
        (other / name).write_bytes((tmp_path / name).read_bytes())
    cluster.folder = other
    cluster.start_driver(*four, "--set", f"data.dataset={tmp_path}/train.npz")
    cluster.finish(600)
    came = outcome(cluster, "headless")
    assert came.statuses == {("sweep", "FINISHED"): 1, ("trial", "FINISHED"): 4}
    for history in came.histories.values():
        steps = [step for step, _ in history["images_seen"]]
        assert steps == list(range(REPORT_EVERY, N_STEPS + 1, REPORT_EVERY))


def wait_for_checkpoint(cluster: Cluster) -> None:
    """Until some trial has a score."""
    deadline = time.monotonic() + 120
    while "frechet_distance_valid" not in (cluster.folder / "driver.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def require_nothing_runs(cluster: Cluster) -> None:
    """Of the sweep neither driver nor worker is left, while its cluster goes on."""
    deadline = time.monotonic() + 30
    while left := processes(cluster.mark, "pipeline.cli") + processes(
        cluster.mark, "ImplicitFunc"
    ):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
    assert processes(cluster.mark, "raylet")


def require_whole_checkpoints(cluster: Cluster, folder: Path) -> None:
    """Every checkpoint in storage is whole, and nothing waits to be logged any more."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in S3_KEYS.items():
            patch.setenv(name, value)
        replica = Replica(folder, storage_uri(cluster.to_storage.port))
        replica.pull()
    checkpoints = [
        c for trial in folder.glob("*/trials/*/checkpoints") for c in list_checkpoints(trial)
    ]
    assert len(checkpoints) >= 2 * N_TRIALS
    for checkpoint in checkpoints:
        load_checkpoint(checkpoint)
    assert not list(folder.glob("*/trials/*/outbox/*"))
    assert len(list(folder.glob("broken-*/trials/*/result.json"))) == N_TRIALS
