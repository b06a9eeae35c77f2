"""Make the Parquet files of MNIST: `python -m gan.datasets.build_mnist IDX_FOLDER`.

IDX_FOLDER holds the four files of the MNIST database, unpacked.  The same release of pyarrow
writes the same bytes again; another one may not, and then the new digests, which are written to
SHA256SUMS, go into `gan.datasets.mnist.SHA256`.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gan.datasets.idx import parse_idx
from gan.datasets.mnist import FOLDER, IDX_SHA256, STEMS
from gan.datasets.parquet import IMAGE_COLUMNS, LABEL_COLUMN, SHAPE_KEY
from gan.errors import DatasetError


def build_mnist(idx_folder: Path, destination: Path = FOLDER) -> None:
    """Write train.parquet, test.parquet and SHA256SUMS.

    Args:
        idx_folder: where the four IDX files lie.
        destination: an existing folder.

    Raises:
        DatasetError: if an IDX file is not, byte for byte, the published one.
        OSError: if a file is missing, or cannot be written.
    """
    sums = ""
    for split, stem in STEMS.items():
        path = destination / f"{split}.parquet"
        write_parquet(
            path,
            images=read_idx(idx_folder / f"{stem}-images-idx3-ubyte"),
            labels=read_idx(idx_folder / f"{stem}-labels-idx1-ubyte"),
        )
        sums += f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
    (destination / "SHA256SUMS").write_text(sums)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of unsigned bytes in one of the four IDX files of MNIST.

    Raises:
        DatasetError: if the file is not, byte for byte, the published one.
    """
    content = path.read_bytes()
    digest, expected = hashlib.sha256(content).hexdigest(), IDX_SHA256[path.name]
    if digest != expected:
        raise DatasetError(f"{path}: must have the SHA-256 {expected}, got {digest}")
    return parse_idx(content)


def write_parquet(path: Path, *, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """Write grey images as a small file: fixed-size binary, zstd.

    Args:
        path: the file; it is replaced in one move.
        images: [n, height, width].
        labels: [n].
    """
    n, height, width = images.shape
    cells = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(height * width), n, [None, pa.py_buffer(images.tobytes())]
    )
    table = pa.table(
        {IMAGE_COLUMNS[0]: cells, LABEL_COLUMN: pa.array(labels)},
        metadata={SHAPE_KEY: f"{height}x{width}"},
    )
    unfinished = path.with_suffix(".unfinished")
    # One page for all images: zstd then finds likenesses between distant digits, which makes the
    # file 3 % smaller than pages of 1 MB do.
    pq.write_table(
        table,
        unfinished,
        compression="zstd",
        compression_level=22,
        use_dictionary=False,
        write_statistics=False,
        row_group_size=n,
        data_page_size=images.size + 1,
    )
    unfinished.replace(path)


def main() -> None:
    """Read the command line and build; one line on stderr if it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m gan.datasets.build_mnist")
    parser.add_argument("idx_folder", type=Path, help="folder with the four unpacked IDX files")
    try:
        build_mnist(parser.parse_args().idx_folder)
    except (DatasetError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
