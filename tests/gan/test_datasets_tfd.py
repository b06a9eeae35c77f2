"""The Toronto Face Database.  Kinds: independent reference (SciPy's writer), invariance, errors.

Files are made by `scipy.io.savemat` in the layout of TFD_48x48.mat; the database itself is given
out on request alone.
"""

import io
import re
import zlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.io import savemat

from gan.config import DataConfig, load_config
from gan.datasets.matlab import read_arrays
from gan.datasets.splits import load_test, load_train_valid
from gan.datasets.tfd import CODES, read_faces, stand_in_notice
from gan.errors import ConfigError, DatasetError

N = 20


@pytest.fixture
def fields():
    """Twenty faces: the first ten without a label; each fold shifts who trains and who tests."""
    rng = np.random.default_rng(0)
    folds = np.zeros((N, 5), np.uint8)
    for fold in range(5):
        folds[10:, fold] = np.roll([1, 1, 1, 1, 2, 2, 2, 3, 3, 3], 2 * fold)
    return {
        "images": rng.integers(0, 256, (N, 48, 48), dtype=np.uint8),
        "folds": folds,
        "labs_ex": np.array([-1] * 10 + [1, 2, 3, 4, 5, 6, 7, 1, 2, 3], np.int16)[:, None],
        "labs_id": np.arange(N, dtype=np.int32)[:, None],
    }


@pytest.fixture
def save(tmp_path):
    def write(fields, **how):
        savemat(tmp_path / "TFD_48x48.mat", fields, **how)
        return tmp_path / "TFD_48x48.mat"

    return write


def bytes_of(fields, **how):
    content = io.BytesIO()
    savemat(content, fields, **how)
    return content.getvalue()


# What is read


@pytest.mark.parametrize("fold", range(5))
def test_each_set_has_the_images_of_its_code_in_the_column_of_the_fold(save, fields, fold):
    path = str(save(fields))
    data = DataConfig(dataset=path, fold=fold)
    train, valid = load_train_valid(data)
    for got, code in ((train, 0), (valid, 2), (load_test(data), 3)):
        rows = fields["folds"][:, fold] == code
        assert_array_equal(got.images[:, 0], fields["images"][rows])
        assert got.images.flags.c_contiguous
        assert got.images.flags.writeable


def test_labels_are_expressions_from_0_where_all_images_have_one(save, fields):
    faces = read_faces(save(fields))
    for name, code in CODES.items():
        rows = fields["folds"][:, 1] == code
        labels = faces.part(1, name).labels
        if name == "unlabeled":
            assert labels is None
        else:
            assert_array_equal(labels, fields["labs_ex"][rows, 0] - 1)


def test_digest_is_that_of_the_file_and_of_the_images(save, fields):
    faces = read_faces(save(fields))
    parts = {(fold, name): faces.part(fold, name).digest for fold in range(5) for name in CODES}
    assert len({parts[fold, "unlabeled"] for fold in range(5)}) == 1
    assert len({parts[fold, "test"] for fold in range(5)}) == 5
    fields["labs_id"] += 1
    assert read_faces(save(fields)).part(0, "unlabeled").digest != parts[0, "unlabeled"]


def test_larger_faces_and_doubles_are_taken(save, fields):
    fields["images"] = np.repeat(np.repeat(fields["images"], 2, 1), 2, 2)
    fields["folds"], fields["labs_ex"] = (fields[n].astype(float) for n in ("folds", "labs_ex"))
    train, _ = load_train_valid(DataConfig(dataset=str(save(fields))))
    assert_array_equal(train.images[:, 0], fields["images"][:10])


@pytest.mark.parametrize("how", [{}, {"do_compression": True}])
@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_arrays_are_those_that_scipy_wrote(kind, how):
    rng = np.random.default_rng(0)
    wrote = {
        "a": rng.integers(0, 100, (3, 4, 5)).astype(kind),
        "a_longer_name": rng.integers(0, 100, (2, 3)).astype(kind),
        "one": np.array([[7]], kind),
        "none": np.zeros((0, 3), kind),
    }
    others = {"text": "abc", "cells": np.array([1, "a"], object), "record": {"x": 1.0}}
    found = read_arrays(bytes_of(wrote | others, **how), [*wrote, "absent"])
    assert found.keys() == wrote.keys()
    for name, array in wrote.items():
        assert found[name].dtype == array.dtype
        assert_array_equal(found[name], array)


def test_both_byte_orders_are_read():
    header = b"MATLAB 5.0".ljust(124) + b"\x01\x00MI"
    words = np.array([14, 56, 6, 8, 9, 0, 5, 8, 2, 1], ">u4").tobytes()
    name = b"\x00\x01\x00\x01x\x00\x00\x00"  # four bytes at the most lie in the tag
    numbers = np.array([3, 4], ">u4").tobytes() + np.array([258, 772], ">u2").tobytes() + b"\0" * 4
    found = read_arrays(header + words + name + numbers, ["x"])
    assert_array_equal(found["x"], [[258], [772]])


def test_file_with_few_unlabelled_images_stands_in_for_the_database():
    assert "no score is comparable with the paper's" in stand_in_notice(200)
    assert stand_in_notice(98_000) is None


# What is refused, in one line each


@pytest.mark.parametrize("name", ["images", "folds", "labs_ex"])
def test_missing_field_is_named(save, fields, name):
    del fields[name]
    message = rf"TFD_48x48\.mat: must hold images, folds, labs_ex, got no {name}$"
    with pytest.raises(DatasetError, match=message):
        read_faces(save(fields))


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("images", np.zeros((N, 48, 47), np.uint8), r"images must be \[n, 48, 48\] or .*48, 47\]"),
        ("images", np.zeros((48, 48, N), np.uint8), r"images must be .*, got \[48, 48, 20\]"),
        ("images", np.zeros((N, 2304), np.uint8), r"images must be .*, got \[20, 2304\]"),
        ("images", np.full((N, 48, 48), 254.5), r".*floats must lie in \[0, 1\], got 254\.5"),
        ("folds", np.zeros((N, 4), np.uint8), r"folds must be \[20, 5\], .*, got \[20, 4\]"),
        ("folds", np.full((N, 5), 4), r"folds must be of 0 \(unlabeled\), 1 .*, got 4"),
        ("folds", np.full((N, 5), 0.5), r"folds must be of 0 .*, got 0\.5"),
        ("folds", np.full((N, 5), np.nan), r"folds must be of 0 .*, got nan"),
        ("labs_ex", np.zeros((3, 1)), r"labs_ex must be \[20, 1\], .*, got \[3, 1\]"),
        ("labs_ex", np.full((N, 1), 8), r"labs_ex must be of 1 \.\. 7, or -1 .*, got 8"),
        ("images", np.zeros((N, 48, 48), complex), r"images must be .* real .*, got complex ones"),
        ("images", "text", r"images must be an array of real numbers, got text"),
        ("folds", np.array([1, "a"], object), r"folds must be .*, got cells"),
        ("folds", {"x": 1.0}, r"folds must be an array of real numbers, got a structure"),
    ],
)
def test_field_of_another_form_is_refused(save, fields, name, bad, message):
    with pytest.raises(DatasetError, match=rf"^[^\n]*TFD_48x48\.mat: {message}[^\n]*$"):
        read_faces(save(fields | {name: bad}))


@pytest.mark.parametrize(("code", "name"), [(0, "unlabeled"), (2, "valid"), (3, "test")])
def test_fold_without_images_of_a_set_is_refused(save, fields, code, name):
    column = fields["folds"][:, 2]
    column[column == code] = 1
    data = DataConfig(dataset=str(save(fields)), fold=2)
    message = rf"TFD_48x48\.mat: fold 2 must have {name} images, which have {code} in its column"
    with pytest.raises(DatasetError, match=message):
        (load_test if name == "test" else load_train_valid)(data)


@pytest.mark.parametrize("head", [b"MATLAB 7.3 MAT-file, Platform: GLNXA64", b"\x89HDF\r\n\x1a\n"])
def test_hdf5_is_refused_with_what_to_do(tmp_path, head):
    path = tmp_path / "new.mat"
    path.write_bytes(head.ljust(2_000))
    message = r"new\.mat: .*, got 7\.3, which is HDF5: save it anew by save\(FILE, '-v7'\)$"
    with pytest.raises(DatasetError, match=message):
        read_faces(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"hello" * 100])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.mat"
    path.write_bytes(content)
    with pytest.raises(
        DatasetError, match=r"other\.mat: cannot be read: it is (truncated|no MAT)"
    ):
        read_faces(path)


def test_missing_or_unreadable_file_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"data\.dataset must be .*nowhere\.mat': no such file"):
        load_train_valid(DataConfig(dataset=str(tmp_path / "nowhere.mat")))
    with pytest.raises(DatasetError, match=r"cannot be read: Is a directory"):
        read_faces(tmp_path)


@pytest.mark.parametrize("how", [{}, {"do_compression": True}])
def test_damaged_file_is_read_or_refused_in_one_line(tmp_path, fields, how):
    rng = np.random.default_rng(0)
    fields = {name: array[:2] for name, array in fields.items()}
    whole, path = bytes_of(fields, **how), tmp_path / "damaged.mat"
    cuts = [whole[: rng.integers(len(whole))] for _ in range(100)]
    flips = []
    for _ in range(400):
        flipped = bytearray(whole)
        flipped[rng.integers(128, 400)] = rng.integers(256)
        flips.append(bytes(flipped))
    said = []
    for content in cuts + flips:
        path.write_bytes(content)
        try:
            read_faces(path)
        except DatasetError as error:
            said.append(str(error))
    assert len(said) > 100
    assert all(re.fullmatch(r"[^\n]*damaged\.mat: [^\n]+", line) for line in said)


def test_altered_pixels_of_a_compressed_file_are_noticed(fields):
    content = bytes_of({"images": fields["images"]}, do_compression=True)
    with pytest.raises(DatasetError, match=r"cannot be read: Error -3"):
        read_arrays(content[:-1] + bytes([content[-1] ^ 1]), ["images"])
    # Of a whole file with the wrong inside nothing is believed, either.
    inner = zlib.compress(b"\x00" * 3)
    tag = np.array([15, len(inner)], "<u4").tobytes()
    with pytest.raises(DatasetError, match="it is truncated"):
        read_arrays(content[:128] + tag + inner, ["images"])


# Settings


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["data.dataset=a.mat", "data.fold=5"], r"data\.fold: .* less than or equal to 4, got 5"),
        (["data.dataset=a.mat", "data.fold=-1"], r"data\.fold: .* greater .* equal to 0, got -1"),
        (["data.fold=1"], r"data\.fold belongs to a \.mat file .* with mnist, got 1"),
        (["data.dataset=a.mat", "data.n_valid=9"], r"data\.n_valid has no part in a\.mat.*got 9"),
        (["data.dataset=a.mat", "data.test_path=b"], r"data\.test_path has no part in a\.mat.*b$"),
    ],
)
def test_settings_that_have_no_part_are_refused(assignments, message):
    with pytest.raises(ConfigError, match=message):
        load_config({}, assignments)
