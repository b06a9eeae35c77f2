"""The client of a cluster's Jobs API, against one that is a few functions (contract)."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from gan.errors import ConfigError
from tuning import jobs
from tuning.errors import TuningError
from tuning.jobs import JobServer


class Client:
    """What Ray's has, with answers that a test lays out."""

    def __init__(self) -> None:
        self.refusals: list[Exception] = []
        self.submitted: list[dict[str, Any]] = []
        self.statuses = ["RUNNING", "SUCCEEDED"]
        self.connections: list[list[str | BaseException]] = []
        self.logs = ""

    def submit_job(self, **request: Any) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.submitted.append(request)

    def get_job_info(self, job: str) -> SimpleNamespace:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return SimpleNamespace(
            submission_id=job,
            status=SimpleNamespace(value=status),
            metadata={"gan.config": "quick"},
            start_time=1_000,
            end_time=None,
            driver_exit_code=None,
            entrypoint="python",
            message="first\nsecond",
        )

    def get_job_logs(self, job: str) -> str:
        return self.logs

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for piece in self.connections.pop(0):
            await asyncio.sleep(0)
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def stop_job(self, job: str) -> bool:
        return True


VERSION = json.dumps({"version": "4", "ray_version": "2.59.0", "ray_commit": "0"})


@contextmanager
def head(answers: dict[str, str], status: int = 200) -> Iterator[str]:
    """Address of a server that gives an answer by path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answers[self.path].encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_port}"
        listener.shutdown()


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def server(client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobServer]:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "before")
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda address: client)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    with head({"/api/version": VERSION}) as address:
        yield JobServer(f"{address}/")


def send(server: JobServer, name: str = "quick") -> str:
    return server.submit(
        "python run.py",
        name=name,
        files={"run.yaml": "a: 1"},
        packages=["gan"],
        environment={"MLFLOW_TRACKING_URI": "http://mlflow:5000"},
    )


@pytest.mark.parametrize(
    "address",
    [
        "head",
        "head:8265",
        "ray://head:10001",
        "http://",
        "http://head:port",
        "http://head:99999",
        "http://[head",
    ],
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ConfigError, match="--address takes http://HOST:8265"):
        JobServer(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://me:hidden@head:8265",
        "http://me:hid/den@head:8265",
        "http://me:1/hidden@head:8265",
        "http://me:hid@den@head:8265",
        "http://me:hid?den@head:8265",
        "http://me:hid#den@head:8265",
        "me:hidden@head:8265",
        "http://head:8265?token=hidden",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_told(address):
    with pytest.raises(ConfigError, match="without a password or query, got one with") as refused:
        JobServer(address)
    assert not any(part in str(refused.value) for part in ("hid", "den"))


def test_where_nobody_answers_it_says_so_at_once(monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "before")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TuningError, match=rf"^the cluster at http://127.0.0.1:{port}: Connection"):
        JobServer(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_never_answers_is_not_waited_for(scheme, monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "before")
    monkeypatch.setattr(jobs, "PATIENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(TuningError, match=rf"^the cluster at {address}: no answer within 0.2"):
            JobServer(address)
    assert time.monotonic() - start < 10


def told_of(ask: Callable[[], object], address: str) -> None:
    with pytest.raises(TuningError) as told:
        ask()
    assert str(told.value).startswith(f"{address} is no Ray cluster's Jobs API: it does not")
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("answer", ["null", "[]", "{}", '"x"', "1", "<html>\n</html>", ""])
def test_a_server_that_is_no_head_is_told(answer, monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "before")
    with head({"/api/version": answer}) as address:
        told_of(lambda: JobServer(address), address)


@pytest.mark.parametrize(
    "answer", ["null", "[{}]", "[null]", '["x"]', '"x"', "1", "<html>\n</html>", ""]
)
def test_a_list_that_is_none_of_jobs_is_told(answer, monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "before")
    with head({"/api/version": VERSION, "/api/jobs/": answer}) as address:
        told_of(JobServer(address).jobs, address)


@pytest.mark.parametrize("answer", ["null", "[]", "{}", '"x"', "<html>\n</html>"])
def test_a_job_that_is_none_is_told(answer, monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "before")
    answers = {"/api/version": VERSION, "/api/jobs/x": answer, "/api/jobs/x/logs": answer}
    with head(answers) as address:
        told_of(lambda: JobServer(address).job("x"), address)
        told_of(lambda: JobServer(address).log("x"), address)


@pytest.mark.parametrize(
    ("greeting", "problem"),
    [
        (b"220 mail\r\n", "^{} is no Ray cluster's Jobs API: it does not answer as one does"),
        (b"", "^the cluster at {}: Remote end closed connection"),
    ],
)
def test_a_server_that_speaks_no_http_is_told(greeting, problem, monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "before")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(greeting)

        Thread(target=greet, daemon=True).start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(TuningError, match=problem.format(address)):
            JobServer(address)


def test_an_error_of_the_head_is_one_line(monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "before")
    with (
        head({"/api/version": "<html>\n</html>"}, status=500) as address,
        pytest.raises(TuningError, match=rf"^the cluster at {address}: 500 Server Error"),
    ):
        JobServer(address)


@pytest.mark.parametrize("name", ["x" * 87, "x" * 300])
def test_a_job_of_any_name_has_an_id_that_can_be_asked_for(name, server):
    job = send(server, name)
    assert len(job) == 100
    assert server.job(job).id == job


def test_a_job_has_its_files_its_packages_and_its_own_id(server, client):
    job = send(server)
    (request,) = client.submitted
    assert request["submission_id"] == job
    assert job.startswith("gan-quick-")
    environment = request["runtime_env"]["env_vars"]
    assert environment == {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "GAN_JOB": job}
    (package,) = request["runtime_env"]["py_modules"]
    assert package.endswith("/gan")


def test_a_cluster_that_is_not_ready_is_asked_again(server, client):
    client.refusals = [
        RuntimeError("Request failed with status code 500: No available agent to submit job"),
        RuntimeError("Request failed with status code 503: starting"),
    ]
    send(server)
    assert len(client.submitted) == 1


def test_an_answer_that_was_lost_is_no_second_job(server, client):
    client.refusals = [
        RuntimeError("status code 503"),
        RuntimeError("Job with submission_id gan-quick-1 already exists"),
    ]
    assert send(server).startswith("gan-quick-")
    assert client.submitted == []


def test_a_connection_that_breaks_is_no_second_job_either(server, client):
    client.refusals = [ConnectionError("broken"), RuntimeError("submission_id already exists")]
    assert send(server).startswith("gan-quick-")
    assert client.submitted == []


def test_a_refusal_is_the_last_line_of_the_server_s_traceback(server, client):
    client.refusals = [
        RuntimeError(
            "Request failed with status code 500: Traceback (most recent call last):\\n"
            '  File "x.py", line 1\\nValueError: runtime_env is too large'
        )
    ]
    with pytest.raises(TuningError, match=r"^the cluster at \S+: ValueError: runtime_env is"):
        send(server)


def test_a_cluster_that_never_gets_ready_is_given_up(server, client, monkeypatch):
    monkeypatch.setattr(jobs, "SUBMIT_SECONDS", 0.05)
    client.refusals = [RuntimeError("No available agent to submit job")] * 1000
    with pytest.raises(TuningError, match="No available agent"):
        send(server)


@pytest.mark.parametrize("job", ["../jobs", "a/b", "", "-rf", "x" * 101])
def test_an_id_that_is_another_path_is_refused(job, server):
    for ask in (server.job, server.log, server.stop, lambda job: list(server.follow(job))):
        with pytest.raises(ConfigError, match="a job's id must match"):
            ask(job)


def test_what_a_broken_connection_has_shown_is_not_shown_again(server, client):
    client.statuses = ["RUNNING", "RUNNING", "SUCCEEDED"]
    client.connections = [["one\n", "tw", RuntimeError("closed")], ["one\ntwo\n"]]
    client.logs = "one\ntwo\nthree\n"
    assert "".join(server.follow("gan-quick-1")) == "one\ntwo\nthree\n"
    assert client.connections == []


def test_ctrl_c_while_it_waits_for_a_piece_is_ctrl_c(server, client):
    client.statuses = ["RUNNING"]
    client.connections = [["one\n", KeyboardInterrupt()]]
    with pytest.raises(KeyboardInterrupt):
        list(server.follow("gan-quick-1"))


def test_stopping_waits_until_the_job_is_over(server, client):
    client.statuses = ["RUNNING", "RUNNING", "STOPPED"]
    stopped = server.stop("gan-quick-1")
    assert (stopped.status, stopped.name, stopped.message) == ("STOPPED", "quick", "first")


def test_a_job_that_does_not_stop_is_told(server, client, monkeypatch):
    monkeypatch.setattr(jobs, "STOP_SECONDS", 0.05)
    client.statuses = ["RUNNING"]
    with pytest.raises(TuningError, match="gan-quick-1 has not stopped after"):
        server.stop("gan-quick-1")
