"""Published data sets in a folder: every layout that is read, one line for each fault.

Kinds: independent reference (files written by their published descriptions), invariance.
"""

import dataclasses
import gzip
import hashlib
import io
import tarfile
import urllib.error

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from torchvision import datasets

from gan.config import DataConfig, run_config
from gan.datasets import cifar10, mnist, published
from gan.datasets.mnist import read_mnist
from gan.datasets.published import files_of, read_published
from gan.datasets.splits import load_test, load_train_valid
from gan.errors import ConfigError, DatasetError

STEMS = {"train": "train", "test": "t10k"}
N = {"train": 7, "test": 3}


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def digits(rng):
    """Images and labels of a set like MNIST, by split."""
    return {
        split: (rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), rng.integers(0, 10, n, "u1"))
        for split, n in N.items()
    }


@pytest.fixture
def colours(rng):
    """Pixels and labels of batches like CIFAR-10's, by name of the batch."""
    return {
        name: (rng.integers(0, 256, (4, 3072), dtype=np.uint8), rng.integers(0, 10, 4, "u1"))
        for names in cifar10.BATCHES.values()
        for name in names
    }


def write_idx(folder, digits, *, is_packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in digits.items():
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path, content = folder / f"{STEMS[split]}-{kind}-ubyte", idx(array)
            if is_packed:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("place", ["FashionMNIST/raw", "."])
def test_fashion_mnist_is_read_wherever_it_lies(tmp_path, digits, place, is_packed):
    write_idx(tmp_path / place, digits, is_packed=is_packed)
    for split, (images, labels) in digits.items():
        found = read_published("fashion_mnist", split, root=tmp_path)
        assert_array_equal(found.images, images[:, None])
        assert found.labels.tolist() == labels.tolist()
        assert found.digest == hashlib.sha256(idx(images) + idx(labels)).hexdigest()


def test_splits_are_the_last_training_images_and_the_test_file(tmp_path, digits):
    write_idx(tmp_path, digits)
    data = DataConfig(dataset="fashion_mnist", root=str(tmp_path), n_valid=2)
    train, valid = load_train_valid(data)
    images = digits["train"][0][:, None]
    assert_array_equal(train.images, images[:5])
    assert_array_equal(valid.images, images[5:])
    assert_array_equal(load_test(data).images, digits["test"][0][:, None])


def test_training_does_not_need_the_test_files(tmp_path, digits):
    write_idx(tmp_path, {"train": digits["train"]})
    data = DataConfig(dataset="fashion_mnist", root=str(tmp_path), n_valid=2)
    assert len(load_train_valid(data)[0]) == 5
    with pytest.raises(DatasetError, match=r"t10k-images-idx3-ubyte: no such file, nor one .*gz"):
        load_test(data)


def test_mnist_of_a_folder_has_the_images_of_the_package(tmp_path):
    inside = read_mnist("test")
    write_idx(tmp_path, {"test": (inside.images[:, 0], inside.labels.astype(np.uint8))})
    found = read_published("mnist", "test", root=tmp_path)
    assert_array_equal(found.images, inside.images)
    assert_array_equal(found.labels, inside.labels)


def test_mnist_and_its_like_are_told_apart(tmp_path, digits, monkeypatch):
    write_idx(tmp_path, digits)
    with pytest.raises(DatasetError, match=r"ubyte: must have, unpacked, the SHA-256 ba89.*got"):
        read_published("mnist", "train", root=tmp_path)
    name = "train-images-idx3-ubyte"
    content = (tmp_path / name).read_bytes()
    monkeypatch.setitem(mnist.IDX_SHA256, name, hashlib.sha256(content).hexdigest())
    with pytest.raises(DatasetError, match=r"ubyte: must be of Fashion-MNIST, got that of MNIST"):
        read_published("fashion_mnist", "train", root=tmp_path)


FAULTS = {
    "cut short": (
        lambda raw: raw[:-1],
        r"must hold 7 x 28 x 28 bytes behind .*, got 5487",
    ),
    "empty": (lambda raw: b"", r"must begin as an IDX file of unsigned bytes does"),
    "header alone": (lambda raw: raw[:9], r"must begin as an IDX file of unsigned bytes does"),
    "floats": (lambda raw: b"\0\0\x0d\x03" + raw[4:], r"must begin as an IDX file"),
    "labels": (lambda raw: idx(np.zeros(7, np.uint8)), r"must have 3 axes, got 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_idx_file_is_named(tmp_path, digits, fault):
    damage, message = FAULTS[fault]
    write_idx(tmp_path, digits)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=rf"train-images-idx3-ubyte: {message}"):
        read_published("fashion_mnist", "train", root=tmp_path)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda raw: raw[:40] + b"no" + raw[42:]])
def test_damaged_packed_file_is_named(tmp_path, digits, damage):
    write_idx(tmp_path, digits, is_packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=r"idx3-ubyte\.gz: cannot be read: \S"):
        read_published("fashion_mnist", "train", root=tmp_path)


def test_labels_must_be_as_many_as_images(tmp_path, digits):
    images, labels = digits["train"]
    write_idx(tmp_path, {"train": (images, labels[:-1])})
    with pytest.raises(DatasetError, match=r"a label for each of 7 images, got 6"):
        read_published("fashion_mnist", "train", root=tmp_path)


def test_images_of_another_size_are_another_set(tmp_path, digits):
    write_idx(tmp_path, {"train": (digits["train"][0][:, :20], digits["train"][1])})
    with pytest.raises(DatasetError, match=r"fashion_mnist must have .* \[1, 28, 28\], got"):
        read_published("fashion_mnist", "train", root=tmp_path)


def python_2_pickle(pixels, labels):
    """A batch by the opcodes that Python 2 wrote, by their description in `pickletools`."""

    def short(text):
        return b"U" + bytes([len(text)]) + text

    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    # BINSTRING, of a four-byte length, holds the array's bytes; K\x09 is a number like a label.
    raw = b"T" + pixels.size.to_bytes(4, "little") + pixels.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\n(K\x00tR(K\x09" + raw + b"tb"
    names = b"](" + short(b"a_s_1.png") + short(b"a_s_2.png") + b"e"
    return (
        b"\x80\x02}("
        + (short(b"batch_label") + short(b"training batch 1 of 5"))
        + (short(b"labels") + b"](" + numbers + b"e")
        + (short(b"data") + array)
        + (short(b"filenames") + names)
        + b"u."
    )


@pytest.fixture
def pickled(tmp_path, colours, monkeypatch):
    folder = tmp_path / cifar10.PICKLED
    folder.mkdir()
    for name, (pixels, labels) in colours.items():
        content = python_2_pickle(pixels, labels)
        (folder / name).write_bytes(content)
        monkeypatch.setitem(cifar10.MD5, name, hashlib.md5(content).hexdigest())  # noqa: S324
    return folder


@pytest.fixture
def raw(tmp_path, colours, monkeypatch):
    folder = tmp_path / cifar10.RAW
    folder.mkdir()
    for name, (pixels, labels) in colours.items():
        rows = np.concatenate([labels[:, None], pixels], 1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    monkeypatch.setattr(cifar10, "N_IMAGES", 4)
    return folder


@pytest.fixture
def parquet(tmp_path, colours):
    folder = tmp_path / "parquet"
    folder.mkdir()
    for split, names in cifar10.BATCHES.items():
        cells, labels = [], []
        for name in names:
            for pixels in colours[name][0]:
                png = io.BytesIO()
                Image.fromarray(pixels.reshape(3, 32, 32).transpose(1, 2, 0)).save(png, "PNG")
                cells.append({"bytes": png.getvalue(), "path": "a.png"})
            labels += colours[name][1].tolist()
        pq.write_table(pa.table({"img": cells, "label": labels}), folder / f"{split}.parquet")
    return folder


@pytest.mark.parametrize("layout", ["pickled", "raw", "parquet"])
@pytest.mark.parametrize("is_root", [True, False])
def test_cifar10_is_the_same_in_every_layout(request, colours, layout, is_root):
    folder = request.getfixturevalue(layout)
    root = folder if is_root or layout == "parquet" else folder.parent
    for split, names in cifar10.BATCHES.items():
        found = read_published("cifar10", split, root=root)
        pixels = np.concatenate([colours[name][0] for name in names])
        labels = np.concatenate([colours[name][1] for name in names])
        assert_array_equal(found.images.reshape(-1, 3072), pixels)
        assert found.images.shape[1:] == (3, 32, 32)
        assert_array_equal(found.labels, labels)


def test_digest_of_batches_covers_their_bytes_in_order(raw):
    contents = [(raw / f"{name}.bin").read_bytes() for name in cifar10.BATCHES["train"]]
    found = read_published("cifar10", "train", root=raw)
    assert found.digest == hashlib.sha256(b"".join(contents)).hexdigest()


def test_batches_are_parsed_and_never_unpickled(pickled, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("unpickled")

    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.Unpickler", refuse)
    assert len(read_published("cifar10", "train", root=pickled).images) == 20


def test_checksums_of_batches_are_those_of_torchvision():
    listed = datasets.CIFAR10.train_list + datasets.CIFAR10.test_list
    assert dict(listed) == cifar10.MD5


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: b"cos\nsystem\n" + raw])
def test_altered_batch_is_refused_before_it_is_parsed(pickled, damage, monkeypatch):
    path = pickled / "data_batch_2"
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setattr(cifar10, "parse_pickled", None)
    with pytest.raises(DatasetError, match=r"data_batch_2: must have the MD5 \w+, got \w+: it is"):
        read_published("cifar10", "train", root=pickled)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no pickle", "must be a batch of CIFAR-10: "), (b"\x80\x02}.", r"3072 pixels .*got 0")],
)
def test_pickle_of_another_form_is_refused(content, message):
    with pytest.raises(DatasetError, match=message):
        cifar10.parse_pickled(content)


def test_faults_of_raw_batches_are_named(raw):
    path = raw / "data_batch_4.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DatasetError, match=r"data_batch_4\.bin: must have 12292 bytes, got 12291"):
        read_published("cifar10", "train", root=raw)
    path.write_bytes(b"\x0a" + content[1:])
    with pytest.raises(DatasetError, match=r"data_batch_4\.bin: labels must be 0 to 9, got 10"):
        read_published("cifar10", "train", root=raw)
    path.unlink()
    with pytest.raises(DatasetError, match=r"data_batch_4\.bin: cannot be read: No such file"):
        read_published("cifar10", "train", root=raw)


@pytest.mark.parametrize("name", published.SETS)
def test_folder_without_the_files_is_refused(tmp_path, name):
    with pytest.raises(DatasetError, match=rf"data\.root must .* of {name} .*none of them is"):
        read_published(name, "train", root=tmp_path)
    with pytest.raises(DatasetError, match=r"no such folder; data\.download=true would download"):
        read_published(name, "train", root=tmp_path / "absent")


def test_set_that_is_not_in_the_package_asks_for_its_folder():
    with pytest.raises(DatasetError, match=r"cifar10 is not inside the package: set data\.root"):
        load_train_valid(DataConfig(dataset="cifar10"))


def test_settings_of_the_folder_are_checked_together():
    with pytest.raises(ConfigError, match=r"data\.root belongs to mnist, fashion_mnist, cifar10"):
        run_config({"data": {"dataset": "mine.npz", "root": "x"}})
    with pytest.raises(ConfigError, match=r"data\.root must name the folder that data\.download"):
        run_config({"data": {"dataset": "cifar10", "download": True}})


def test_test_path_beside_a_published_set_is_refused(tmp_path):
    data = DataConfig(dataset="cifar10", root=str(tmp_path), test_path="mine.npz")
    with pytest.raises(DatasetError, match=r"data\.test_path belongs to .*, got mine\.npz"):
        load_test(data)


def test_files_of_a_split_are_those_that_are_there(tmp_path, digits):
    assert files_of("fashion_mnist", "test", root=tmp_path) == ()
    write_idx(tmp_path, digits, is_packed=True)
    names = [path.name for path in files_of("fashion_mnist", "test", root=tmp_path)]
    assert names == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]


@pytest.fixture
def mirror(digits, colours, monkeypatch, tmp_path):
    """What torchvision's `download_url` would fetch, and a list of the addresses asked for."""
    source = tmp_path / "mirror"
    write_idx(source, digits, is_packed=True)
    batches = tmp_path / "batches" / cifar10.PICKLED
    batches.mkdir(parents=True)
    for name, (pixels, labels) in colours.items():
        content = python_2_pickle(pixels, labels)
        (batches / name).write_bytes(content)
        monkeypatch.setitem(cifar10.MD5, name, hashlib.md5(content).hexdigest())  # noqa: S324
    with tarfile.open(source / datasets.CIFAR10.filename, "w:gz") as archive:
        archive.add(batches, cifar10.PICKLED)
    asked = []

    def fetch(url, root, filename, md5):
        asked.append(url)
        (root / filename).write_bytes((source / filename).read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    return asked


@pytest.mark.parametrize(("name", "n_files"), [("fashion_mnist", 4), ("cifar10", 1)])
def test_download_happens_once_and_only_if_asked_for(tmp_path, mirror, name, n_files):
    data = DataConfig(dataset=name, root=str(tmp_path / "root"), n_valid=2)
    with pytest.raises(DatasetError, match="no such folder"):
        load_train_valid(data)
    assert mirror == []
    for _ in range(2):
        train, _ = load_train_valid(dataclasses.replace(data, download=True))
    assert len(train) in (5, 18)
    assert len(mirror) == n_files
    load_test(data)


@pytest.mark.parametrize("name", published.SETS)
def test_failed_download_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, name):
    def fail(url, *_args, **_options):
        raise urllib.error.URLError("no route\nto host")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fail)
    root = tmp_path / "root"
    with pytest.raises(DatasetError, match=r"data\.download: nothing .*no route to host>: put"):
        read_published(name, "train", root=root, download=True)
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_next_mirror_is_asked_where_the_first_has_nothing(tmp_path, mirror, monkeypatch):
    mirrors = ["http://one.invalid/", "http://two.invalid/"]
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", mirrors)
    working = datasets.utils.download_url

    def fetch(url, *args, **options):
        if "one" in url:
            raise RuntimeError("File not found or corrupted.")
        working(url, *args, **options)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    read_published("fashion_mnist", "train", root=tmp_path / "root", download=True)
    assert all(url.startswith("http://two.invalid/") for url in mirror)
