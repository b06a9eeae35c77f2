"""Published data sets from where torchvision finds them, for a user who asks for that.

Its functions are called that fetch a file and check it; not its classes, of which that of CIFAR-10
unpickles what was fetched.
"""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gan.datasets.cifar10 import PICKLED
from gan.errors import DatasetError
from gan.files import new_folder


def fetch_mnist(root: Path) -> None:
    """The four files of MNIST, as torchvision lays them.

    Raises:
        DatasetError: if it cannot be done.
    """
    # Only now: importing torchvision takes a second.
    from torchvision.datasets import MNIST

    _fetch_idx(root / "MNIST" / "raw", MNIST.mirrors, MNIST.resources)


def fetch_fashion_mnist(root: Path) -> None:
    """The four files of Fashion-MNIST, likewise."""
    from torchvision.datasets import FashionMNIST

    _fetch_idx(root / "FashionMNIST" / "raw", FashionMNIST.mirrors, FashionMNIST.resources)


def fetch_cifar10(root: Path) -> None:
    """The folder `cifar-10-batches-py`, likewise."""
    from torchvision.datasets import CIFAR10

    with _telling(root), new_folder(root / PICKLED) as folder:
        _download([CIFAR10.url], folder, CIFAR10.filename, CIFAR10.tgz_md5)
        archive = folder / CIFAR10.filename
        with tarfile.open(archive) as members:
            members.extractall(folder, filter="data")
        archive.unlink()
        # The archive has the folder within it.
        for file in (folder / PICKLED).iterdir():
            file.rename(folder / file.name)
        (folder / PICKLED).rmdir()


def _fetch_idx(folder: Path, mirrors: list[str], resources: list[tuple[str, str]]) -> None:
    with _telling(folder), new_folder(folder) as scratch:
        for name, md5 in resources:
            _download([f"{mirror}{name}" for mirror in mirrors], scratch, name, md5)


def _download(urls: list[str], folder: Path, name: str, md5: str) -> None:
    """A file from the first of these addresses that has it."""
    from torchvision.datasets.utils import download_url

    for url in urls:
        try:
            download_url(url, folder, filename=name, md5=md5)
        except (OSError, RuntimeError):
            if url == urls[-1]:
                raise
        else:
            return


@contextmanager
def _telling(folder: Path) -> Iterator[None]:
    """One line for whatever goes wrong on the way."""
    try:
        yield
    except (OSError, RuntimeError, tarfile.TarError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(
            f"data.download: nothing could be put into {folder}: {reason}: put the files there "
            "yourself, and leave data.download out"
        ) from error
