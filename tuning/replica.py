"""A folder on this machine, and its original in object storage or on another file system.

On a cluster without shared disks a sweep is kept in object storage.  Each process works in a
folder of its own, takes from the original what it needs, and writes back what must outlive it.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from errno import EROFS
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from gan.errors import ConfigError
from gan.files import write_atomically
from tuning.errors import StorageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

logger = logging.getLogger(__name__)

STORAGE_URI = "GAN_STORAGE_URI"
"""Variable that says where sweeps are kept; without it they lie in the working folder."""
PATIENCE_SECONDS = 300.0
"""How long what must be written is tried again while the storage does not answer."""
INDEXES = ("manifest.json", "records.jsonl")
"""Names of files that tell what other files there are; the last tells of the others, too."""
# What S3's servers say of keys and buckets: waiting is of no use.
_REFUSALS = ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "NO_SUCH_BUCKET")
# A small file is then sent when it is closed, by one request instead of three, and whole: without
# it, a process that is stopped between opening and writing leaves an empty file.
_ONE_REQUEST = "allow_delayed_open"
_PAUSE_SECONDS = (1.0, 30.0)  # first, longest; doubled in between

T = TypeVar("T")
Stamp = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds: by them a file is known as pushed."""


def storage_uri() -> str | None:
    """Where sweeps are kept by the environment, checked; None for the working folder.

    Raises:
        ConfigError: if it is no URI of a file system that pyarrow knows.
    """
    uri = os.environ.get(STORAGE_URI)
    if not uri:
        return None
    _file_system(uri)
    return uri


class Replica:
    """What a process has of a folder whose original lies at `uri`.

    Names are relative to the folder, with slashes.  What cannot be read or written is tried again
    for a while, and then raises StorageError.

    Args:
        folder: on this machine; need not exist.
        uri: of pyarrow's file systems: `s3://BUCKET/PATH?endpoint_override=HOST:PORT`, `gs://`,
            `file:///PATH`.
        patience_seconds: how long to try again.

    Raises:
        ConfigError: if `uri` is none of these.
    """

    def __init__(
        self, folder: Path, uri: str, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self.folder, self.uri, self._patience = folder, uri, patience_seconds
        self._fs, self._root = _file_system(uri)
        self._pushed: dict[str, Stamp] = {}

    def read(self, name: str, *, is_patient: bool = True) -> bytes | None:
        """A file of the original, or None where there is none; `is_patient` tries for a while."""
        return self._patiently(lambda: self._read(name), is_patient=is_patient)

    def pull(self, under: str = "", *, wanted: Callable[[str], bool] = lambda _: True) -> None:
        """Make the files under a folder those of the original, and remove all others there.

        Args:
            under: the folder.
            wanted: which files, by name; others are left as they are, here and there.
        """
        originals = self._patiently(lambda: dict(self._list(under)))
        for name, size in originals.items():
            if wanted(name) and not self._is_here(name, size):
                self.fetch(name)
        for path in _files(self.folder / under):
            name = path.relative_to(self.folder).as_posix()
            if name not in originals and wanted(name):
                path.unlink()
                self._pushed.pop(name, None)

    def fetch(self, name: str) -> bool:
        """Copy one file of the original here; returns whether there is one."""
        content = self.read(name)
        if content is None:
            return False
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        self._pushed[name] = _stamp(path)
        return True

    def push(self, *names: str) -> None:
        """Make files or folders of the original as they are here; tries again for a while.

        A process that dies in between leaves nothing that names what is not there: new files come
        first, in the order given and within a folder by name, but `INDEXES` after the others;
        what is gone here is removed at the end, and of that `INDEXES` before the others.
        """
        for name in names:
            self._push(name)
        for name in names:
            self._remove_gone(name)

    def remove(self, name: str) -> None:
        """Remove a file here and from the original; nothing happens where it is not."""
        (self.folder / name).unlink(missing_ok=True)
        self.remove_original(name)

    def remove_original(self, name: str) -> None:
        """Remove a file from the original alone."""
        self._patiently(lambda: self._delete(name))

    def _push(self, name: str) -> None:
        path = self.folder / name
        files = sorted(_files(path), key=lambda file: (_rank(file.name), file))
        for file in [path] if path.is_file() else files:
            relative = file.relative_to(self.folder).as_posix()
            stamp = _stamp(file)
            if self._pushed.get(relative) != stamp:
                self._patiently(partial(self._write, relative, file.read_bytes()))
                self._pushed[relative] = stamp

    def _remove_gone(self, name: str) -> None:
        within = f"{name}/"
        pushed = [p for p in self._pushed if p == name or p.startswith(within)]
        gone = [p for p in pushed if not (self.folder / p).exists()]
        for one in sorted(gone, key=lambda p: -_rank(PurePosixPath(p).name)):
            self._patiently(partial(self._delete, one))

    def _delete(self, name: str) -> None:
        from pyarrow.fs import FileType

        if self._fs.get_file_info(self._at(name)).type == FileType.File:
            self._fs.delete_file(self._at(name))
        self._pushed.pop(name, None)

    def _write(self, name: str, content: bytes) -> None:
        target = self._at(name)
        if self._fs.type_name == "local":  # a network volume, say: no half file may be seen
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(Path(target), content)
            return
        with self._fs.open_output_stream(target) as stream:  # appears when it is closed
            stream.write(content)
        # A store that leaves checksums unread takes a broken transmission for the whole.
        stored = self._fs.get_file_info(target).size
        if stored != len(content):
            raise OSError(f"of {name}, {len(content)} bytes, it has {stored}")

    def _read(self, name: str) -> bytes | None:
        try:
            with self._fs.open_input_stream(self._at(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def _list(self, under: str) -> Iterator[tuple[str, int]]:
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._at(under), allow_not_found=True, recursive=True)
        root = PurePosixPath(self._root)
        for info in self._fs.get_file_info(selector):
            if info.type == FileType.File:
                yield PurePosixPath(info.path).relative_to(root).as_posix(), int(info.size)

    def _is_here(self, name: str, size: int) -> bool:
        """Whether a file of a checkpoint, which never changes, was pulled or pushed before."""
        path = self.folder / name
        return (
            path.exists()
            and self._pushed.get(name) == _stamp(path)
            and path.stat().st_size == size
            and "/step_" in name
        )

    def _at(self, name: str) -> str:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise StorageError(f"{name!r} is no name of a file within {self.shown_uri}")
        return str(PurePosixPath(self._root) / parts)

    @property
    def local_original(self) -> Path | None:
        """The folder of the original, where that is one on a file system of this machine."""
        return Path(self._root) if self._fs.type_name == "local" else None

    @property
    def shown_uri(self) -> str:
        """The URI without what may be secret in it."""
        return shown(self.uri)

    def _patiently(self, action: Callable[[], T], *, is_patient: bool = True) -> T:
        deadline = time.monotonic() + (self._patience if is_patient else 0.0)
        pause, longest = _PAUSE_SECONDS
        while True:
            try:
                return action()
            except OSError as error:
                left = deadline - time.monotonic()
                if left <= 0 or _is_refusal(error):
                    raise StorageError(
                        f"{self.shown_uri} does not answer: {_reason(error)}"
                    ) from error
                logger.warning(
                    "%s does not answer: %s; trying again for %.0f s",
                    self.shown_uri,
                    _reason(error),
                    left,
                )
                time.sleep(min(pause, left))
                pause = min(2 * pause, longest)


def subfolders(uri: str) -> list[str]:
    """Names of the folders in that of `uri`.

    Raises:
        StorageError: if the storage does not answer.
    """
    from pyarrow.fs import FileSelector, FileType

    file_system, root = _file_system(uri)
    try:
        infos = file_system.get_file_info(FileSelector(root, allow_not_found=True))
    except OSError as error:
        raise StorageError(f"{shown(uri)} does not answer: {_reason(error)}") from error
    return sorted(info.base_name for info in infos if info.type == FileType.Directory)


def joined(uri: str, name: str) -> str:
    """The URI of a folder within that of `uri`."""
    head, mark, query = uri.partition("?")
    return f"{head.rstrip('/')}/{name}{mark}{query}"


def shown(uri: str) -> str:
    """A URI without user, password and query, which may hold secrets."""
    # A secret of S3 may have slashes in it.
    return re.sub(r"//.*@", "//***@", uri.partition("?")[0])


def _file_system(uri: str) -> tuple["FileSystem", str]:
    from pyarrow import ArrowInvalid, ArrowNotImplementedError
    from pyarrow.fs import FileSystem

    if not urlsplit(uri).scheme:
        raise ConfigError(
            [f"{STORAGE_URI} must be s3://BUCKET/PATH, say, or file:///PATH, got {shown(uri)!r}"]
        )
    address = uri
    if urlsplit(uri).scheme == "s3" and _ONE_REQUEST not in uri:
        address += f"{'&' if '?' in uri else '?'}{_ONE_REQUEST}=true"
    try:
        found: tuple[Any, str] = FileSystem.from_uri(address)
    except (ArrowInvalid, ArrowNotImplementedError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0].replace(address, shown(uri)).replace(uri, shown(uri))
        raise ConfigError([f"{STORAGE_URI} {shown(uri)!r}: {reason}"]) from error
    return found


def _files(folder: Path) -> list[Path]:
    """Every file below a folder but those that are being written."""
    found = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return [
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _is_refusal(error: OSError) -> bool:
    """Whether waiting is of no use."""
    is_refused = isinstance(error, PermissionError | NotADirectoryError)
    return is_refused or error.errno == EROFS or any(word in str(error) for word in _REFUSALS)


def _rank(name: str) -> int:
    return INDEXES.index(name) + 1 if name in INDEXES else 0


def _stamp(path: Path) -> Stamp:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _reason(error: OSError) -> str:
    return error.strerror or next(iter(str(error).splitlines()), type(error).__name__)[:200]
