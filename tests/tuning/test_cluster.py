"""Addresses of clusters that are wrong, or where none answers (contract)."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest
import ray

from gan.errors import ConfigError
from tuning import cluster
from tuning.errors import TuningError


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """The environment as it was: `connect` adds to it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What accepts connections at RAY_ADDRESS, for a program without patience."""
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listener.getsockname()[1]}")
        yield listener


def answer(listener: socket.socket, reply: bytes) -> threading.Thread:
    """Let `listener` answer its first client so, and hang up."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray must not be asked: it would not come back for minutes."""
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked"))


@pytest.mark.parametrize(
    "address",
    [
        "gar bage",
        "head",
        "head:",
        ":6379",
        "head:0",
        "head:65536",
        "head:gcs",
        "::1:6379",
        "ray://head",
        "http://127.0.0.1:8265",
        "ray://head:10001/x",
        " ",
    ],
)
def test_what_is_no_address_is_refused_with_what_would_be_one(address, monkeypatch, no_ray):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=r"^RAY_ADDRESS must be HOST:PORT .* or local, got '"):
        cluster.connect()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_port_where_nobody_listens_is_told_in_one_line(scheme, monkeypatch, no_ray):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(
            TuningError, match=f"^the Ray cluster at {address} .*: Connection refused$"
        ):
            cluster.connect()


def test_host_without_an_address_is_told_in_one_line(monkeypatch, no_ray):
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:6379")
    with pytest.raises(
        TuningError, match=r"at nowhere:6379 .*reached: Name or service not known$"
    ):
        cluster.connect()


def test_port_that_accepts_and_never_answers_is_given_up(listener, no_ray):
    with pytest.raises(TuningError, match=r"could not be reached: timed out$"):
        cluster.connect()


@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\7\0\0\0\0\0"]
)
def test_server_of_something_else_is_told(listener, no_ray, reply):
    thread = answer(listener, reply)
    with pytest.raises(TuningError, match="what listens there is no Ray cluster"):
        cluster.connect()
    thread.join()


def test_encrypted_cluster_is_left_to_ray(listener, monkeypatch):
    asked = []
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options["address"]))
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert cluster.connect()
    assert len(asked) == 1


@pytest.mark.parametrize("address", ["auto", "local"])
def test_what_ray_finds_itself_is_left_to_it(address, monkeypatch):
    asked = []
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options["address"]))
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert cluster.connect()
    assert asked == [address]


def test_server_that_greets_as_those_of_grpc_do_is_left_to_ray(listener, monkeypatch):
    asked = []
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options["address"]))
    thread = answer(listener, b"\0\0\x12\4\0\0\0\0\0" + bytes(18))
    assert cluster.connect()
    thread.join()
    assert len(asked) == 1
