"""Parquet columns -> arrays of images, labels and conditions."""

import math
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gan.datasets.arrays import RawSet
from gan.datasets.pictures import stack_pictures
from gan.errors import DatasetError

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMN, CONDITION_COLUMN = "label", "condition"

SHAPE_KEY = b"image_shape"
"""Schema metadata that gives the shape of a fixed-size binary image, as in `28x28`."""


def read_parquet(source: BinaryIO | pa.NativeFile) -> RawSet:
    """The images as they are stored, with labels and conditions if there are columns of them.

    The column `image` or `img` holds pixels (fixed-size binary, or nested lists of numbers) or
    PNG or JPEG pictures (binary, or the struct {bytes, path} that Hugging Face writes); `label`
    integers, `condition` numbers or lists of numbers.

    Args:
        source: an open Parquet file.

    Raises:
        DatasetError: if there is no such column, or its rows are not images of one size.
        pyarrow.ArrowException, OSError: if it is not a readable Parquet file.
    """
    file = pq.ParquetFile(source, page_checksum_verification=True)
    names = file.schema_arrow.names
    image_column = next((name for name in IMAGE_COLUMNS if name in names), None)
    if image_column is None:
        raise DatasetError(f"must have a column image or img, got {names}")
    others = [name for name in (LABEL_COLUMN, CONDITION_COLUMN) if name in names]
    table = file.read(columns=[image_column, *others])
    return RawSet(
        images=_read_images(table[image_column], table.schema.metadata or {}),
        labels=_read_numbers(table[LABEL_COLUMN]) if LABEL_COLUMN in others else None,
        conditions=_read_vectors(table[CONDITION_COLUMN]) if CONDITION_COLUMN in others else None,
    )


def _read_images(column: pa.ChunkedArray, metadata: dict[bytes, bytes]) -> NDArray[Any]:
    _require_values(column)
    kind = column.type
    if pa.types.is_fixed_size_binary(kind):
        return _read_raw(column, metadata.get(SHAPE_KEY, str(kind.byte_width).encode()))
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")
        kind = column.type
        _require_values(column)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return stack_pictures((f"row {row}", cell.as_py()) for row, cell in enumerate(column))
    kinds = "fixed-size binary, lists of numbers, or encoded pictures"
    return _read_lists(column, of="images", kinds=kinds)


def _read_raw(column: pa.ChunkedArray, shape_text: bytes) -> NDArray[np.uint8]:
    """Fixed-size binary -> uint8 [n, *shape]."""
    width = column.type.byte_width
    array = column.combine_chunks()
    shape = tuple(int(size) for size in shape_text.split(b"x"))
    if math.prod(shape) != width:
        raise DatasetError(
            f"image_shape must name {width} pixels, as many as an image has bytes, got {shape}"
        )
    pixels = np.frombuffer(array.buffers()[1], np.uint8, len(array) * width, array.offset * width)
    return pixels.reshape(len(array), *shape)


def _read_lists(column: pa.ChunkedArray, *, of: str, kinds: str) -> NDArray[Any]:
    """Nested lists of numbers -> [n, ...].

    Args:
        column: any.
        of: what it holds, for people.
        kinds: which kinds of column may hold that.
    """
    array = column.combine_chunks()
    shape = [len(array)]
    while _is_list(array.type):
        _require_values(array)
        lengths = pc.unique(pc.list_value_length(array)).to_pylist()
        if len(lengths) != 1:
            raise DatasetError(
                f"{of}: lists must all be of one length, got {min(lengths)} to {max(lengths)}"
            )
        shape += lengths
        array = array.flatten()
        _require_values(array)
    if len(shape) == 1 or not (
        pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
    ):
        raise DatasetError(f"{of} must be {kinds}, got {column.type}")
    return np.asarray(array.to_numpy(zero_copy_only=False)).reshape(shape)


def _read_vectors(column: pa.ChunkedArray) -> NDArray[Any]:
    if not _is_list(column.type):
        return _read_numbers(column)
    return _read_lists(column, of="conditions", kinds="numbers or lists of numbers")


def _read_numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    _require_values(column)
    return np.asarray(column.to_numpy())


def _is_list(kind: pa.DataType) -> bool:
    is_kind = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in is_kind)


def _require_values(column: pa.Array | pa.ChunkedArray) -> None:
    if len(column) == 0:
        raise DatasetError("must hold at least one image of at least one pixel, got none")
    if column.null_count:
        raise DatasetError(f"nothing in a column may be null, got {column.null_count}")
