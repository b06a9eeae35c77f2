"""Arrays of numbers in the .mat files that MATLAB's versions 5 to 7 save.

SciPy's `loadmat` reads these files, too, but a damaged tag that it looks up unchecked ends the
process by a segmentation fault (in 1.17, the type of an array's data).  Here nothing but real
numbers is read, and every length is checked before it is used.

Source: MathWorks, "MAT-File Format", R2023b, chapter 1 (level 5).
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan.errors import DatasetError

HEADER_BYTES = 128
HDF5_HEADS = (b"MATLAB 7.3", b"\x89HDF")
BYTE_ORDERS = {b"IM": "<", b"MI": ">"}
"""Last bytes of the header -> byte order of all that follows."""

INT32, UINT32, MATRIX, COMPRESSED = 5, 6, 14, 15
"""Types of elements."""
NUMBERS = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
"""Type of an element that holds numbers -> theirs."""
CLASSES = {
    **{1: "cells", 2: "a structure", 3: "an object", 4: "text", 5: "a sparse matrix"},
    **{16: "a function", 17: "an object"},
}
"""Class of a variable that is no full array of numbers -> what it is."""
COMPLEX = 0x800
"""Among the flags of a variable."""


class _Element(NamedTuple):
    kind: int
    content: memoryview


def read_arrays(content: bytes, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """The variables of these names that a file has, each as it is stored.

    Args:
        content: of the file.
        names: of full arrays of real numbers; variables of other names are passed over.

    Returns:
        Arrays in the shape that MATLAB gives them, [1, 1] at the least; not to be written to.

    Raises:
        DatasetError: the file is of another kind or damaged, or a variable holds something else.
    """
    if content.startswith(HDF5_HEADS):
        raise DatasetError(
            "must be a MATLAB file of version 5 to 7, got 7.3, which is HDF5: "
            "save it anew by save(FILE, '-v7')"
        )
    order = BYTE_ORDERS.get(content[HEADER_BYTES - 2 : HEADER_BYTES])
    if order is None:
        is_cut = len(content) < HEADER_BYTES
        what = "truncated" if is_cut else "no MATLAB file of version 5 to 7"
        raise DatasetError(f"cannot be read: it is {what}")
    found = {}
    for element in _elements(memoryview(content)[HEADER_BYTES:], order):
        variable = _inflated(element, order) if element.kind == COMPRESSED else element
        if variable.kind == MATRIX:
            name, array = _variable(variable.content, order, names)
            if array is not None:
                found[name] = array
    return found


def _elements(content: memoryview, order: str) -> Iterator[_Element]:
    """One element after the other; each but a compressed one is filled up to eight bytes."""
    start = 0
    while start < len(content):
        head = content[start : start + 8]
        if len(head) < 8:
            raise DatasetError("cannot be read: it is truncated")
        kind, size = (int(word) for word in np.frombuffer(head, f"{order}u4"))
        is_small = kind >> 16 > 0  # four bytes at the most, in the tag itself
        if is_small:
            kind, size = kind & 0xFFFF, kind >> 16
        begin = start + (4 if is_small else 8)
        if size > (4 if is_small else len(content) - begin):
            raise DatasetError("cannot be read: it is truncated")
        yield _Element(kind, content[begin : begin + size])
        start = begin + size
        if is_small:
            start = begin + 4
        elif kind != COMPRESSED:
            start += -size % 8


def _inflated(element: _Element, order: str) -> _Element:
    try:
        inner = zlib.decompress(element.content)
    except zlib.error as error:
        raise DatasetError(f"cannot be read: {error}") from error
    return next(_elements(memoryview(inner), order), _Element(0, memoryview(b"")))


def _variable(
    content: memoryview, order: str, names: Sequence[str]
) -> tuple[str, NDArray[np.generic] | None]:
    """Name and array of a variable; no array if the name is not among `names`."""
    parts = _elements(content, order)
    flags, shape, name_part = (next(parts, None) for _ in range(3))
    if flags is None or shape is None or name_part is None:
        raise DatasetError("cannot be read: a variable lacks its class, shape or name")
    name = bytes(name_part.content).decode("latin-1")
    if name not in names:
        return name, None
    if flags.kind != UINT32 or len(flags.content) != 8:
        raise DatasetError(f"cannot be read: {name} lacks its class")
    flag = int(np.frombuffer(flags.content, f"{order}u4")[0])
    if (of := flag & 0xFF) in CLASSES or flag & COMPLEX:
        what = CLASSES.get(of, "complex ones")
        raise DatasetError(f"{name} must be an array of real numbers, got {what}")
    return name, _array(name, shape, next(parts, None), order)


def _array(
    name: str, shape: _Element, numbers: _Element | None, order: str
) -> NDArray[np.generic]:
    if numbers is None or numbers.kind not in NUMBERS:
        raise DatasetError(f"cannot be read: {name} has no numbers")
    if shape.kind != INT32 or len(shape.content) % 4:
        raise DatasetError(f"cannot be read: {name} has no shape")
    sizes = np.frombuffer(shape.content, f"{order}i4").tolist()
    kind = np.dtype(f"{order}{NUMBERS[numbers.kind]}")
    n_bytes = len(numbers.content)
    if min(sizes, default=-1) < 0 or math.prod(sizes) * kind.itemsize != n_bytes:
        raise DatasetError(
            f"cannot be read: {name} must be of {sizes} numbers, got {n_bytes} bytes"
        )
    return np.frombuffer(numbers.content, kind).reshape(sizes, order="F")
