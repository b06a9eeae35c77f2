"""A folder here and its original on another file system (contract)."""

import errno
import logging
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from gan.errors import ConfigError
from tuning import replica as replica_module
from tuning.errors import StorageError
from tuning.replica import STORAGE_URI, Replica, joined, shown, storage_uri, subfolders


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return tmp_path / "original"


def new_replica(folder: Path, original: Path, **options: float) -> Replica:
    return Replica(folder, f"file://{original}", **options)


def files(folder: Path) -> dict[str, str]:
    """Content by name of all below a folder."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def write(folder: Path, **contents: str) -> None:
    for name, content in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_what_is_pushed_is_what_another_pulls(tmp_path, original):
    here, there = new_replica(tmp_path / "a", original), new_replica(tmp_path / "b", original)
    write(here.folder, sweep="1", trials__0__checkpoints__step_1__state="2")
    here.push("sweep", "trials/0/checkpoints")
    there.pull()
    assert files(there.folder) == files(here.folder) == files(original)


def test_what_is_gone_here_goes_there_and_nothing_else_does(tmp_path, original):
    write(original, trials__1__outbox__x="of another")
    here = new_replica(tmp_path / "a", original)
    write(here.folder, trials__0__outbox__a="1", trials__0__outbox__b="2")
    here.push("trials/0/outbox")
    (here.folder / "trials/0/outbox/a").unlink()
    here.push("trials/0/outbox")
    assert files(original) == {"trials/0/outbox/b": "2", "trials/1/outbox/x": "of another"}


def test_a_file_that_did_not_change_is_not_pushed_twice(tmp_path, original):
    here = new_replica(tmp_path / "a", original)
    write(here.folder, weights="1")
    here.push("weights")
    (original / "weights").write_text("seen if it were overwritten")
    here.push("weights")
    assert files(original)["weights"] == "seen if it were overwritten"
    write(here.folder, weights="two")
    here.push("weights")
    assert files(original)["weights"] == "two"


def test_a_manifest_comes_after_what_it_vouches_for(tmp_path, original, monkeypatch):
    here = new_replica(tmp_path / "a", original)
    write(here.folder, step_1__manifest="", step_1__state="", step_1__a="")
    (here.folder / "step_1/manifest").rename(here.folder / "step_1/manifest.json")
    order: list[str] = []
    keep = Replica._write
    monkeypatch.setattr(
        Replica, "_write", lambda self, name, data: (order.append(name), keep(self, name, data))
    )
    here.push("step_1")
    assert order == ["step_1/a", "step_1/state", "step_1/manifest.json"]


def test_a_pull_removes_what_the_original_has_not_but_leaves_the_unwanted(tmp_path, original):
    write(original, keep="1", unwanted="original")
    here = new_replica(tmp_path / "a", original)
    write(here.folder, gone="2", unwanted="mine")
    here.pull(wanted=lambda name: name != "unwanted")
    assert files(here.folder) == {"keep": "1", "unwanted": "mine"}


def test_what_is_being_written_is_not_pushed(tmp_path, original):
    here = new_replica(tmp_path / "a", original)
    write(here.folder / ".step_2.1a2b", state="half")
    write(here.folder, whole="1")
    here.push("")
    assert files(original) == {"whole": "1"}


def test_reading_and_removing(tmp_path, original):
    here = new_replica(tmp_path / "a", original)
    write(here.folder, mark="1")
    here.push("mark")
    assert here.read("mark") == b"1"
    assert here.read("nothing") is None
    assert not here.fetch("nothing")
    here.remove("mark")
    assert here.read("mark") is None
    assert not (here.folder / "mark").exists()
    here.remove("mark")


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/etc/passwd"])
def test_a_name_that_climbs_out_is_refused(name, tmp_path, original):
    with pytest.raises(StorageError, match="is no name of a file within"):
        new_replica(tmp_path / "a", original).fetch(name)


def test_an_outage_is_waited_for_and_told_of(tmp_path, original, monkeypatch, caplog):
    here = new_replica(tmp_path / "a", original)
    write(here.folder, mark="1")
    keep, failures = Replica._write, [OSError("no answer")] * 2

    def fail_twice(self: Replica, name: str, content: bytes) -> None:
        if failures:
            raise failures.pop()
        keep(self, name, content)

    monkeypatch.setattr(Replica, "_write", fail_twice)
    monkeypatch.setattr(replica_module, "_PAUSE_SECONDS", (0.01, 0.01))
    with caplog.at_level(logging.WARNING):
        here.push("mark")
    assert files(original) == {"mark": "1"}
    assert len(caplog.messages) == 2
    assert "does not answer: no answer; trying again" in caplog.messages[0]


def test_an_outage_that_does_not_end_is_one_clear_line(tmp_path, original):
    original.write_text("a file, where a folder must be")
    here = new_replica(tmp_path / "a", original, patience_seconds=0)
    write(here.folder, mark="1")
    with pytest.raises(StorageError, match=r"^file://\S+original does not answer: File exists$"):
        here.push("mark")


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOTDIR, errno.EROFS])
def test_what_no_time_mends_is_told_at_once(tmp_path, original, monkeypatch, number):
    def refuse(self: Replica, name: str, content: bytes) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Replica, "_write", refuse)
    monkeypatch.setattr(replica_module, "_PAUSE_SECONDS", (60.0, 60.0))
    here = new_replica(tmp_path / "a", original)
    write(here.folder, mark="1")
    with pytest.raises(StorageError, match=os.strerror(number)):
        here.push("mark")


class Store(BaseHTTPRequestHandler):
    """Object storage that leaves checksums unread and keeps nothing of the first file it gets."""

    protocol_version = "HTTP/1.1"
    requests: ClassVar[list[str]] = []
    objects: ClassVar[dict[str, bytes]] = {}

    def do_PUT(self) -> None:
        self.requests.append(f"PUT {self.path}")
        frames = b""
        while not frames.endswith(b"\r\n\r\n0\r\n\r\n"):  # HTTP's chunks around S3's
            frames += self.rfile.readline()
        content = re.search(rb"\{.*\}", frames)
        assert content is not None
        self.objects[self.path] = content[0] if self.objects else b""
        self.answer(200)

    def do_HEAD(self) -> None:
        found = self.objects.get(self.path)
        self.answer(404 if found is None else 200, len(found or b""))

    def answer(self, status: int, length: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


def test_object_storage_that_did_not_get_the_whole_file_gets_it_again(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(replica_module, "_PAUSE_SECONDS", (0.01, 0.01))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_port
    uri = f"s3://bucket/sweep?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    try:
        here = Replica(tmp_path, uri, patience_seconds=60)
        (tmp_path / "trial.json").write_text('{"index": 0}')
        here.push("trial.json")
    finally:
        server.shutdown()
        server.server_close()
    assert Store.objects == {"/bucket/sweep/trial.json": b'{"index": 0}'}
    # Whole by one request each time: a half that another process could read is never there.
    assert Store.requests == ["PUT /bucket/sweep/trial.json"] * 2
    assert "of trial.json, 12 bytes, it has 0; trying again" in caplog.text


def test_storage_is_where_the_environment_says(monkeypatch):
    monkeypatch.delenv(STORAGE_URI, raising=False)
    assert storage_uri() is None
    monkeypatch.setenv(STORAGE_URI, "file:///mnt/sweeps")
    assert storage_uri() == "file:///mnt/sweeps"


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("sweeps", "must be s3://BUCKET/PATH, say, or file:///PATH, got 'sweeps'"),
        ("ftp://host/sweeps", "Unrecognized filesystem type"),
        ("s3://key:hidden@bucket/a?unknown=1", "unknown"),
    ],
)
def test_what_is_no_storage_is_refused_without_telling_its_secrets(uri, problem, monkeypatch):
    monkeypatch.setenv(STORAGE_URI, uri)
    with pytest.raises(ConfigError) as refused:
        storage_uri()
    (text,) = refused.value.problems
    assert text.startswith(STORAGE_URI)
    assert problem in text
    assert "hidden" not in text


def test_uris_of_folders_within(tmp_path):
    assert joined("s3://b/sweeps?region=x", "a-1") == "s3://b/sweeps/a-1?region=x"
    assert shown("s3://key:secret@b/sweeps?x=y") == "s3://***@b/sweeps"
    for name in ("two", "one"):
        (tmp_path / name).mkdir()
    assert subfolders(f"file://{tmp_path}") == ["one", "two"]
    assert subfolders(f"file://{tmp_path}/none") == []
