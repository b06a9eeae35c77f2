"""Images in Parquet: every column that is taken, and one line for each that is not.

Kind: independent reference (pixels written by Arrow and Pillow).
"""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from gan.datasets.files import read_images, read_samples
from gan.errors import DatasetError

N, HEIGHT, WIDTH = 4, 6, 5


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def grey(rng):
    return rng.integers(0, 256, (N, 1, HEIGHT, WIDTH), dtype=np.uint8)


@pytest.fixture
def colour(rng):
    return rng.integers(0, 256, (N, 3, HEIGHT, WIDTH), dtype=np.uint8)


@pytest.fixture
def save_parquet(tmp_path):
    def save(columns, metadata=None):
        """Two row groups, as soon as there are more than three images."""
        table = pa.table(columns).replace_schema_metadata(metadata)
        pq.write_table(table, tmp_path / "set.parquet", row_group_size=3)
        return tmp_path / "set.parquet"

    return save


def encode(pixels, file_format="PNG", mode=None):
    """One picture, uint8 [channels, height, width], as the bytes of a file."""
    last = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    picture = Image.fromarray(last)
    buffer = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(buffer, file_format)
    return buffer.getvalue()


def test_parquet_takes_fixed_size_binary_as_a_square(save_parquet, grey):
    square = grey[:, :, :5]
    column = pa.array([image.tobytes() for image in square], pa.binary(25))
    read = read_images(save_parquet({"image": column, "label": [3, 1, 2, 0]}))
    assert_array_equal(read.images, square)
    assert read.labels.dtype == np.int64
    assert read.labels.tolist() == [3, 1, 2, 0]
    assert read.images.flags.writeable


def test_parquet_metadata_names_the_shape_of_fixed_size_binary(save_parquet, colour):
    column = pa.array([image.tobytes() for image in colour], pa.binary(3 * HEIGHT * WIDTH))
    path = save_parquet({"img": column}, {"image_shape": f"3x{HEIGHT}x{WIDTH}"})
    assert_array_equal(read_images(path).images, colour)


def test_parquet_shape_that_does_not_fit_is_refused(save_parquet):
    column = pa.array([bytes(9)], pa.binary(9))
    with pytest.raises(DatasetError, match=r"image_shape must name 9 pixels.*, got \(2, 5\)"):
        read_images(save_parquet({"image": column}, {"image_shape": "2x5"}))


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.list_(pa.uint8())),
        pa.large_list(pa.list_(pa.int64())),
        pa.list_(pa.list_(pa.uint8(), WIDTH), HEIGHT),
    ],
)
def test_parquet_takes_nested_lists(save_parquet, grey, kind):
    column = pa.array(grey[:, 0].tolist(), kind)
    images = read_images(save_parquet({"image": column})).images
    assert_array_equal(images, grey)
    assert images.flags.writeable


def test_parquet_takes_flat_lists_of_floats(save_parquet):
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    column = pa.array((every / 255).reshape(1, 256).tolist(), pa.list_(pa.float32()))
    assert_array_equal(read_images(save_parquet({"image": column})).images, every)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_parquet_takes_encoded_pictures(save_parquet, colour, kind):
    column = pa.array([encode(image) for image in colour], kind)
    assert_array_equal(read_images(save_parquet({"image": column})).images, colour)


def test_parquet_takes_the_pictures_that_hugging_face_writes(save_parquet, grey):
    cells = [{"bytes": encode(image), "path": f"{row}.png"} for row, image in enumerate(grey)]
    path = save_parquet({"img": cells, "label": [3, 1, 2, 0], "note": ["a"] * N})
    assert_array_equal(read_images(path).images, grey)


def test_arrays_are_writable_so_that_torch_takes_them_without_a_warning(tmp_path, grey):
    columns = {
        "image": pa.array([image.tobytes() for image in grey], pa.binary(HEIGHT * WIDTH)),
        "label": pa.array(range(N), pa.int64()),
        "condition": pa.array(np.arange(N, dtype=np.float32)),
    }
    # One row group: Arrow then hands out its own memory.
    table = pa.table(columns).replace_schema_metadata({"image_shape": f"{HEIGHT}x{WIDTH}"})
    pq.write_table(table, tmp_path / "set.parquet")
    read = read_images(tmp_path / "set.parquet")
    assert all(a.flags.writeable for a in (read.images, read.labels, read.conditions))


def test_flat_jpeg_keeps_its_grey(save_parquet):
    flat = np.full((1, 8, 8), 77, np.uint8)
    assert_array_equal(
        read_images(save_parquet({"image": [encode(flat, "JPEG")]})).images[0], flat
    )


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)]
)
def test_pictures_of_every_8_bit_mode_are_read(save_parquet, mode, channels):
    white = np.full((1, 8, 8), 255, np.uint8)
    images = read_images(save_parquet({"image": [encode(white, mode=mode)]})).images
    assert_array_equal(images, np.full((1, channels, 8, 8), 255))


def test_16_bit_pictures_are_refused(save_parquet):
    deep = np.full((1, 8, 8), 60_000, np.uint16)
    with pytest.raises(DatasetError, match=r"8-bit grey or RGB, got mode I;16 in row 0"):
        read_images(save_parquet({"image": [encode(deep)]}))


def test_pictures_of_two_sizes_are_refused(save_parquet, grey):
    column = [encode(grey[0]), encode(grey[1, :, :4])]
    with pytest.raises(DatasetError, match=r"got \[1, 4, 5\] in row 1 after \[1, 6, 5\]"):
        read_images(save_parquet({"image": column}))


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"not a picture"]
)
def test_damaged_pictures_are_refused(save_parquet, grey, damage):
    column = [encode(grey[0]), damage(encode(grey[1]))]
    with pytest.raises(DatasetError, match=r"set\.parquet: row 1 is not a whole PNG or JPEG"):
        read_images(save_parquet({"image": column}))


def test_picture_of_another_format_is_refused(save_parquet, grey):
    with pytest.raises(DatasetError, match=r"row 0 is not a whole PNG or JPEG picture"):
        read_images(save_parquet({"image": [encode(grey[0], "BMP")]}))


def test_parquet_without_an_image_column_is_refused(save_parquet):
    with pytest.raises(
        DatasetError, match=r"must have a column image or img, got \['a', 'label'\]"
    ):
        read_images(save_parquet({"a": [1], "label": [1]}))


@pytest.mark.parametrize(
    "column",
    [[1, 2], ["a", "b"], [["a"], ["b"]], [{"path": "a.png"}, {"path": "b.png"}]],
    ids=["numbers", "text", "lists of text", "paths"],
)
def test_parquet_column_that_holds_no_images_is_refused(save_parquet, column):
    with pytest.raises(DatasetError, match=r"images must be fixed-size binary, lists of numbers"):
        read_images(save_parquet({"image": column}))


def test_parquet_lists_of_different_length_are_refused(save_parquet):
    with pytest.raises(DatasetError, match=r"must all be of one length, got 2 to 3"):
        read_images(save_parquet({"image": [[[1, 2], [3, 4]], [[1, 2], [3, 4, 5]]]}))


@pytest.mark.parametrize(
    "columns",
    [
        {"image": [[[1, 2]], None]},
        {"image": [[[1, 2]], [[1, None]]]},
        {"image": [{"bytes": None, "path": "a.png"}]},
        {"image": [[[1, 2]], [[3, 4]]], "label": [1, None]},
    ],
    ids=["image", "pixel", "picture", "label"],
)
def test_parquet_nulls_are_refused(save_parquet, columns):
    with pytest.raises(DatasetError, match=r"nothing in a column may be null, got 1"):
        read_images(save_parquet(columns))


@pytest.mark.parametrize(
    "column", [pa.array([], pa.binary(9)), pa.array([[], []], pa.list_(pa.uint8()))]
)
def test_parquet_without_pixels_is_refused(save_parquet, column):
    with pytest.raises(DatasetError, match=r"at least one image of at least one pixel, got none"):
        read_images(save_parquet({"image": column}))


def test_samples_in_a_parquet_keep_their_floats(save_parquet, rng):
    floats = rng.random((N, HEIGHT * HEIGHT), dtype=np.float32)
    column = pa.array(floats.tolist(), pa.list_(pa.float32()))
    samples = read_samples(save_parquet({"image": column}))
    assert_array_equal(samples, floats.reshape(N, 1, HEIGHT, HEIGHT))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_parquet_is_refused_in_one_line(save_parquet, grey, share):
    path = save_parquet({"image": grey.tolist()})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DatasetError, match=r"^[^\n]*set\.parquet: cannot be read: [^\n]+$"):
        read_images(path)


def test_altered_pages_of_a_parquet_with_checksums_are_noticed(tmp_path, grey):
    path = tmp_path / "set.parquet"
    cells = pa.array([grey.tobytes()], pa.binary(grey.size))
    pq.write_table(
        pa.table({"image": cells}),
        path,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    path.write_bytes(path.read_bytes().replace(grey.tobytes(), (255 - grey).tobytes()))
    with pytest.raises(DatasetError, match=r"set\.parquet: cannot be read: .*CRC"):
        read_images(path)
