"""MNIST inside the package.  Kinds: independent reference (published facts), invariance."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose

from gan.datasets import build_mnist
from gan.datasets.images import pixel_mean
from gan.datasets.mnist import FOLDER, SHA256, read_mnist
from gan.errors import DatasetError


@pytest.fixture(scope="module")
def train():
    return read_mnist("train")


@pytest.fixture(scope="module")
def test():
    return read_mnist("test")


def idx_bytes(array):
    """An array of unsigned bytes in the IDX format, by its published description."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def test_train_has_the_published_counts_of_digits(train):
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert train.images.shape == (60_000, 1, 28, 28)
    assert np.bincount(train.labels).tolist() == counts
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]


def test_test_has_the_published_counts_of_digits(test):
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert test.images.shape == (10_000, 1, 28, 28)
    assert np.bincount(test.labels).tolist() == counts
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_mean_of_train_is_the_published_one(train):
    assert_allclose(pixel_mean(train.images).mean(), 0.1306604762738429, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("split", "stem"), [("train", "train"), ("test", "t10k")])
def test_package_holds_every_byte_of_the_published_files(split, stem):
    mnist = read_mnist(split)
    images = hashlib.sha256(idx_bytes(mnist.images[:, 0])).hexdigest()
    labels = hashlib.sha256(idx_bytes(mnist.labels.astype(np.uint8))).hexdigest()
    assert images == build_mnist.IDX_SHA256[f"{stem}-images-idx3-ubyte"]
    assert labels == build_mnist.IDX_SHA256[f"{stem}-labels-idx1-ubyte"]


def test_digest_is_that_of_the_file(train):
    content = (FOLDER / "train.parquet").read_bytes()
    assert train.digest == hashlib.sha256(content).hexdigest()


def test_images_are_writable_so_that_torch_takes_them_without_a_warning(train):
    assert train.images.flags.writeable
    assert train.images.flags.c_contiguous


def test_package_stays_near_ten_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 10_000_000


def test_shipped_sums_are_those_that_the_loader_checks():
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    assert lines == [f"{SHA256[split]}  {split}.parquet" for split in ("train", "test")]


def test_parquet_names_its_columns_and_the_shape():
    schema = pq.read_schema(FOLDER / "test.parquet")
    assert schema.equals(pa.schema({"image": pa.binary(784), "label": pa.uint8()}))
    assert schema.metadata == {b"image_shape": b"28x28"}


def test_notice_states_holders_licence_and_change():
    notice = (FOLDER / "NOTICE").read_text()
    for part in (
        "Yann LeCun",
        "Corinna Cortes",
        "ShareAlike 3.0",
        "Changes: the file format only",
    ):
        assert part in notice


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"train\.parquet: cannot be read: No such file"):
        read_mnist("train", folder=tmp_path)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: b"p" + raw[1:]])
def test_altered_or_truncated_file_is_refused(tmp_path, damage):
    raw = (FOLDER / "test.parquet").read_bytes()
    (tmp_path / "test.parquet").write_bytes(damage(raw))
    with pytest.raises(DatasetError, match=r"test\.parquet: must have the SHA-256 b34db0.*, got"):
        read_mnist("test", folder=tmp_path)


WATCHED_LOAD = """
import json, sys
opened, sockets = [], []
def watch(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".parquet"):
        opened.append(str(arguments[0]).rpartition("/")[2])
    if event.startswith("socket."):
        sockets.append(event)
sys.addaudithook(watch)
from gan.config import DataConfig
from gan.datasets.splits import load_train_valid
load_train_valid(DataConfig())
print(json.dumps([opened, sockets, "torch" in sys.modules]))
"""


def test_loading_opens_neither_the_test_file_nor_the_network_nor_torch():
    command = [sys.executable, "-c", WATCHED_LOAD]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [["train.parquet"], [], False]


@pytest.fixture
def idx_folder(tmp_path, monkeypatch):
    """Four small IDX files, which the builder takes for the published ones."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "idx"
    folder.mkdir()
    for n, stem in ((7, "train"), (5, "t10k")):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, n, dtype=np.uint8)
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr(build_mnist, "IDX_SHA256", sums)
    return folder


def test_builder_writes_the_same_bytes_again_and_their_sums(idx_folder, tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        build_mnist.build_mnist(idx_folder, folder)
    first, second = ({path.name: path.read_bytes() for path in f.iterdir()} for f in folders)
    assert first == second
    assert first["SHA256SUMS"].decode() == "".join(
        f"{hashlib.sha256(first[name]).hexdigest()}  {name}\n"
        for name in ("train.parquet", "test.parquet")
    )


def test_builder_keeps_pixels_labels_and_order(idx_folder, tmp_path):
    build_mnist.build_mnist(idx_folder, tmp_path)
    table = pq.read_table(tmp_path / "train.parquet")
    pixels = b"".join(table["image"].to_pylist())
    assert pixels == (idx_folder / "train-images-idx3-ubyte").read_bytes()[16:]
    assert (
        bytes(table["label"].to_pylist())
        == ((idx_folder / "train-labels-idx1-ubyte").read_bytes()[8:])
    )


def test_builder_refuses_an_altered_idx_file(idx_folder, tmp_path):
    path = idx_folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1-ubyte: must have the SHA-256"):
        build_mnist.build_mnist(idx_folder, tmp_path)


def test_builder_ends_with_one_line_where_files_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["build_mnist", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"No such file .*train-images-idx3-ubyte"):
        build_mnist.main()


@pytest.mark.slow
def test_rebuilt_test_file_is_the_shipped_one_byte_for_byte(test, tmp_path):
    shipped = FOLDER / "test.parquet"
    if not pq.read_metadata(shipped).created_by.endswith(f" {pa.__version__}"):
        pytest.skip(f"the shipped file was written by another pyarrow than {pa.__version__}")
    rebuilt = tmp_path / "test.parquet"
    build_mnist.write_parquet(
        rebuilt, images=test.images[:, 0], labels=test.labels.astype(np.uint8)
    )
    assert rebuilt.read_bytes() == shipped.read_bytes()
