"""The MNIST database, which lies inside the package; see mnist_data/NOTICE."""

import hashlib
from pathlib import Path
from typing import Literal

import pyarrow as pa

from gan.datasets.arrays import as_labels, as_uint8, channels_first
from gan.datasets.images import ImageSet
from gan.datasets.parquet import read_parquet
from gan.errors import DatasetError

FOLDER = Path(__file__).parent / "mnist_data"

SHA256 = {
    "train": "de112b8ca88f1b7e8956c0b1c69f49f31934fb49dccb3599ba0a42922514b144",
    "test": "b34db035636084d66fb04c45d6d71296865b4918e527759e7952ce46be4a8e40",
}
"""Digests of the two Parquet files, as `gan.datasets.build_mnist` last wrote them."""


def read_mnist(split: Literal["train", "test"], *, folder: Path = FOLDER) -> ImageSet:
    """MNIST as it was published: 60,000 training or 10,000 test images, uint8 [n, 1, 28, 28].

    Args:
        split: which of the two; `gan.datasets.splits` says who may ask for `test`.
        folder: where train.parquet and test.parquet lie.

    Returns:
        Images, labels 0..9, and the SHA-256 of the file as digest.

    Raises:
        DatasetError: if the file is missing, altered or cut short.
    """
    path = folder / f"{split}.parquet"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read: {error.strerror}: install the package again"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[split]:
        raise DatasetError(
            f"{path}: must have the SHA-256 {SHA256[split]}, got {digest}: it is altered or cut "
            "short; install the package again"
        )
    images, labels, _ = read_parquet(pa.BufferReader(content))
    return ImageSet(
        images=as_uint8(channels_first(images)),
        labels=None if labels is None else as_labels(labels),
        digest=digest,
    )
