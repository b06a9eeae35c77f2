"""Writing all or nothing.  Kind: algorithm."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from gan.files import new_folder, sha256, write_atomically
from tests.full_disk import room_for


@pytest.fixture
def fsync_fails(monkeypatch):
    def fail(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def permissions(path):
    return path.stat().st_mode & 0o777


# SHA-256


@pytest.mark.parametrize("content", [b"", b"abc", bytes(range(256)) * 5_000])
def test_sha256_is_that_of_the_bytes(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


# Files


@pytest.mark.parametrize("content", [b"\x00new", "new \N{GREEK SMALL LETTER SIGMA}"])
def test_a_file_is_written_and_replaced(tmp_path, content):
    path = tmp_path / "file"
    for _ in range(2):
        write_atomically(path, content)
        assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert names(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "file", "old")
    with room_for(4_096), pytest.raises(OSError, match="File too large"):
        write_atomically(tmp_path / "file", b"x" * 10_000)
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_failed_flush_leaves_the_old_file_and_nothing_else(tmp_path, fsync_fails):
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_what_is_written_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "usual").touch()
    (tmp_path / "usual_folder").mkdir()
    write_atomically(tmp_path / "file", "")
    with new_folder(tmp_path / "folder"):
        pass
    assert permissions(tmp_path / "file") == permissions(tmp_path / "usual")
    assert permissions(tmp_path / "folder") == permissions(tmp_path / "usual_folder")


# Folders


def test_a_folder_appears_when_its_block_ends(tmp_path):
    path = tmp_path / "runs" / "folder"
    with new_folder(path) as scratch:
        (scratch / "inner").mkdir()
        (scratch / "inner" / "file").write_text("content")
        assert not path.exists()
    assert (path / "inner" / "file").read_text() == "content"
    assert names(tmp_path / "runs") == ["folder"]


def test_a_folder_that_stood_there_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "folder"
    for name in ("first", "second"):
        with new_folder(path) as scratch:
            (scratch / name).touch()
    assert names(path) == ["second"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_the_old_folder_and_nothing_else(tmp_path, error):
    path = tmp_path / "folder"
    with new_folder(path) as scratch:
        (scratch / "old").touch()

    def interrupted():
        with new_folder(path) as scratch:
            (scratch / "new").touch()
            raise error("in the block")

    with pytest.raises(error, match="in the block"):
        interrupted()
    assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_a_failed_flush_leaves_the_old_folder_and_nothing_else(tmp_path, fsync_fails):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(OSError, match="No space left"), new_folder(path) as scratch:
        (scratch / "new").touch()
    assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_a_folder_that_was_moved_aside_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path, monkeypatch
):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    rename = Path.rename

    def fail_for_the_new_one(source, target):
        if (source / "new").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(OSError, match="Input/output error"), new_folder(path) as scratch:
        (scratch / "new").touch()
    assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_every_file_of_a_folder_is_flushed_before_it_appears(tmp_path, monkeypatch):
    path, flushed = tmp_path / "folder", set()
    fsync = os.fsync

    def spy(handle):
        assert not path.exists() or os.path.samestat(os.fstat(handle), tmp_path.stat())
        flushed.add(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    with new_folder(path) as scratch:
        (scratch / "inner").mkdir()
        (scratch / "inner" / "file").write_text("content")
    written = [path, path / "inner", path / "inner" / "file", tmp_path]
    assert flushed == {written_path.stat().st_ino for written_path in written}
