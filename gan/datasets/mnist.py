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

IDX_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Digests of the files in which MNIST was published, unpacked."""

STEMS = {"train": "train", "test": "t10k"}
"""Split -> how the names of its IDX files begin."""


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
