"""Writing so that a crash, a full disk or a second reader never meets half a file."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path


def sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace `path` by `content` in one step; on failure the old file stays as it was."""
    data = content.encode() if isinstance(content, str) else content
    scratch = _hidden_beside(path)
    try:
        with scratch.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        _flush_to_disk(path.parent)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def try_lock(handle: int) -> bool:
    """Lock an open file unless another process has it locked; closing the file unlocks it.

    Raises:
        OSError: if the file system has no locks.
    """
    try:
        flock(handle, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A scratch folder that becomes `path` in one step when the block ends without an error.

    A folder that stood at `path` is replaced: moved aside, then removed.  On an error the scratch
    folder is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch, retired = _hidden_beside(path), _hidden_beside(path)
    scratch.mkdir()
    try:
        yield scratch
        for written in [*scratch.rglob("*"), scratch]:
            _flush_to_disk(written)
        if path.exists():
            path.rename(retired)
        scratch.rename(path)
        _flush_to_disk(path.parent)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        if retired.exists() and not path.exists():
            retired.rename(path)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _hidden_beside(path: Path) -> Path:
    """A free name; unlike `tempfile`'s, what is made there has a new file's usual permissions."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
