"""A disk that is full, for as long as a block lasts."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def room_for(n_bytes: int) -> Iterator[None]:
    """No file of this process can grow beyond `n_bytes`: writes fail as on a full disk.

    The limit holds for every file, pytest's own output too where that goes to one, so the
    block must end within the test: a fixture's would last until after its result is printed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
