"""IDX files, in which MNIST and its like are published."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gan.errors import DatasetError

UNSIGNED_BYTE = 8
"""Of the types that a header can name, the one that images and labels have."""


def packed(path: Path) -> Path:
    """What a file is called when it is packed."""
    return path.with_name(f"{path.name}.gz")


def read_idx(path: Path, *, n_axes: int) -> tuple[bytes, NDArray[np.uint8]]:
    """The bytes of an IDX file, unpacked, and the array in them.

    Args:
        path: of the unpacked file; if it is not there, the packed one beside it is read.
        n_axes: axes that the array must have.

    Raises:
        DatasetError: naming the file, if it is missing, damaged or of another kind.
    """
    is_packed = not path.is_file()
    found = packed(path) if is_packed else path
    try:
        content = found.read_bytes()
        content = gzip.decompress(content) if is_packed else content
        array = parse_idx(content)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such file, nor one that ends in .gz") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DatasetError(f"{found}: cannot be read: {reason}") from error
    except DatasetError as error:
        raise DatasetError(f"{found}: {error}") from error
    if array.ndim != n_axes:
        raise DatasetError(f"{found}: must have {n_axes} axes, got {array.ndim}")
    return content, array


def parse_idx(content: bytes) -> NDArray[np.uint8]:
    """The array of unsigned bytes in the content of an IDX file.

    Raises:
        DatasetError: if it begins otherwise, or its header names another size than it has.
    """
    # Two zero bytes, the type, the number of axes, then their lengths, the highest byte first.
    if content[:3] != bytes([0, 0, UNSIGNED_BYTE]) or len(content) < 4 + 4 * content[3]:
        raise DatasetError("must begin as an IDX file of unsigned bytes does")
    n_axes = content[3]
    start = 4 + 4 * n_axes
    shape = np.frombuffer(content, ">u4", n_axes, offset=4).tolist()
    if len(content) - start != math.prod(shape):
        raise DatasetError(
            f"must hold {' x '.join(map(str, shape))} bytes behind its header, "
            f"got {len(content) - start}: it is cut short or altered"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
