"""What a sweep needs of the machines of a cluster, asked on real ones."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.services import Head, ray_head, ray_worker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process another /srv"),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Head]:
    """A head, and a second machine, at another address, that sees another /srv."""
    folder = tmp_path_factory.mktemp("nodes")
    with ExitStack() as stack:
        head = stack.enter_context(ray_head(folder / "head", cpus=1))
        worker = ray_worker(
            head,
            folder / "worker",
            environment={},
            address="127.0.0.2",
            # A namespace of mounts of its own, in which a folder is another one.
            around=[
                "unshare",
                "--mount",
                "sh",
                "-c",
                'mount -t tmpfs none /srv && exec "$@"',
                "sh",
            ],
        )
        stack.enter_context(worker)
        yield head


def on(head: Head, code: str, *arguments: str) -> str:
    """What a driver on that cluster prints."""
    answer = subprocess.run(
        [
            sys.executable,
            "-c",
            "from tuning import cluster\ncluster.connect()\n" + code,
            *arguments,
        ],
        cwd=ROOT,
        env=os.environ
        | head.environment()
        | {"RAY_ADDRESS": f"127.0.0.1:{head.service.port}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    return answer.stdout


FOLDER = """
import pathlib, sys
from tuning.errors import TuningError
try:
    cluster.require_shared_folder(pathlib.Path(sys.argv[1]), else_set="GAN_STORAGE_URI")
    print("shared")
except TuningError as error:
    print(error)
"""


def test_a_folder_that_a_machine_does_not_see_is_refused(head: Head, tmp_path: Path) -> None:
    assert on(head, FOLDER, str(tmp_path)) == "shared\n"
    refusal = on(head, FOLDER, "/srv")
    assert "127.0.0.2 does not see it: set GAN_STORAGE_URI to object storage" in refusal
    assert not list(Path("/srv").iterdir())


STORE = """
from tuning.errors import TuningError
try:
    cluster.require_shared_store("sqlite:///mlflow.db")
except TuningError as error:
    print(error)
cluster.require_shared_store("http://mlflow:5000")
"""


def test_a_store_in_a_file_is_refused_on_two_machines(head: Head) -> None:
    assert on(head, STORE).startswith("MLFLOW_TRACKING_URI must name a server that all 2 machines")


LEASE = """
import json, sys, time
from tuning.errors import TuningError
cluster.ANSWER_SECONDS = 3.0
try:
    lease = cluster.lease(sys.argv[1])
    print(json.dumps("mine"), flush=True)
    time.sleep(8)
except TuningError as error:
    print(json.dumps(str(error)), flush=True)
"""


def test_of_two_that_begin_at_once_one_wins_and_the_other_is_told(head: Head) -> None:
    told: list[str] = []
    two = [
        threading.Thread(target=lambda: told.append(json.loads(on(head, LEASE, "s3://a/one"))))
        for _ in range(2)
    ]
    for thread in two:
        thread.start()
    for thread in two:
        thread.join()
    assert sorted(told) == ["mine", "s3://a/one is being run by another process on this cluster"]
    # The winner is gone, and so is what it held.
    assert json.loads(on(head, LEASE, "s3://a/one")) == "mine"
