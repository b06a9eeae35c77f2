"""`gan similar`.  Kinds: independent reference, contract, bad input."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from gan.config import DataConfig
from gan.errors import ConfigError
from gan.run import unit_pixels
from pipeline.artifacts import write_artifact
from pipeline.errors import PipelineError
from pipeline.similar import find_similar
from tests.gan.small import labelled_images, small_images, start_extension
from tests.pipeline.tiny_artifacts import LINEAGE, write_tiny


@pytest.fixture(scope="module")
def saved():
    return start_extension("inference_of_layers").saved()


@pytest.fixture
def folder(saved, tmp_path, monkeypatch):
    """The working folder, with an inference net and data sets of 40 and 12 images."""
    monkeypatch.chdir(tmp_path)
    write_artifact(tmp_path / "net", saved=saved, scores={}, lineage=LINEAGE)
    for name, n, seed in (("train", 40, 1), ("test", 12, 2)):
        images = labelled_images(n, seed=seed)
        np.savez(tmp_path / f"{name}.npz", images=images.images, labels=images.labels)
    np.savez(tmp_path / "plain.npz", images=small_images(20, seed=3).images)
    np.savez(tmp_path / "wide.npz", images=np.zeros((5, 1, 4, 5), np.uint8))
    return tmp_path


DATA = DataConfig(dataset="train.npz", test_path="test.npz", n_valid=1)
TO = ("--to", "train.npz", "--test-path", "test.npz", "--model", "net")


def by_loop(saved, query, images):
    """Rows and distances, nearest first."""
    point = saved.points(query)[0].numpy().astype(float)
    others = saved.points(unit_pixels(images).float()).numpy().astype(float)
    distances = [float(np.sqrt(((point - other) ** 2).sum())) for other in others]
    order = sorted(range(len(distances)), key=distances.__getitem__)
    return order, [distances[i] for i in order]


def test_neighbours_are_those_of_a_loop_over_all_images(folder, saved):
    query = unit_pixels(labelled_images(12, seed=2)).float()[[7]]
    order, distances = by_loop(saved, query, labelled_images(40, seed=1))
    found = find_similar("test:7", data=DATA, model="net", k=5, output=None)
    assert found.indices == order[:5]
    assert found.distances == pytest.approx(distances[:5], rel=1e-5)
    assert found.labels == [i % 3 for i in order[:5]]


def test_an_image_is_no_neighbour_of_its_own(folder, saved):
    images = labelled_images(40, seed=1)
    order, _ = by_loop(saved, unit_pixels(images).float()[[3]], images)
    assert order[0] == 3
    found = find_similar("train:3", data=DATA, model="net", k=39, output=None)
    assert found.indices == order[1:]


@pytest.mark.parametrize("name", ["x.png", "x.npy"])
def test_an_image_in_a_file_is_that_of_the_data_set(folder, name):
    image = labelled_images(12, seed=2).images[7]
    if name == "x.png":
        Image.fromarray(image[0]).save(folder / name)
    else:
        np.save(folder / name, image)
    expected = find_similar("test:7", data=DATA, model="net", k=4, output=None)
    assert find_similar(name, data=DATA, model="net", k=4, output=None) == expected


def test_images_without_classes_have_none(folder):
    data = DataConfig(dataset="plain.npz", n_valid=1)
    found = find_similar("train:0", data=data, model="net", k=2, output=None)
    assert found.labels is None
    assert [row.keys() for row in found.rows()] == [{"index", "distance"}] * 2


def test_the_picture_has_the_query_its_reconstruction_and_the_images_found(folder, saved):
    output = folder / "similar.png"
    found = find_similar("test:7", data=DATA, model="net", k=10, output=output)
    picture = np.asarray(Image.open(output))[::4, ::4]
    assert picture.shape == (8, 12 * 6 + 2)
    tiles = [picture[2:6, 2 + 6 * i : 6 + 6 * i] for i in range(12)]
    query = labelled_images(12, seed=2).images[[7]]
    assert np.array_equal(tiles[0], query[0, 0])
    again = saved.reconstruct(torch.from_numpy(query).float() / 255)[0, 0]
    assert_close(torch.tensor(tiles[1]).float() / 255, again, rtol=0, atol=0.003)
    for drawn, index in zip(tiles[2:], found.indices, strict=True):
        assert np.array_equal(drawn, labelled_images(40, seed=1).images[index, 0])


def test_the_command_tells_rows_classes_and_distances(folder, gan):
    answer = gan("similar", "test:7", *TO, "-k", "3", "-o", "x.png", "--json")
    assert answer.status == 0, answer.err
    told = json.loads(answer.out)
    found = find_similar("test:7", data=DATA, model="net", k=3, output=None)
    assert told["neighbours"] == found.rows()
    assert told["picture"] == "x.png"
    for row in found.rows():
        assert f"train:{row['index']}" in answer.err
        assert f"class {row['class']}  distance {row['distance']:.3f}" in answer.err


@pytest.mark.parametrize(
    ("image", "arguments", "problem"),
    [
        ("none.png", (), "none.png is no file: IMAGE is a picture, a .npy file, train:INDEX or"),
        ("test:12", (), "test:12: the index must be from 0 to 11, got '12'"),
        ("train:-1", (), "train:-1: the index must be from 0 to 39, got '-1'"),
        ("wide.png", (), "an image must be of the data set's size"),
        ("bright.npy", (), "bright.npy"),
        ("train:0", ("-k", "40"), "-k must be at most the 39 images searched, got 40"),
        ("train:0", ("--to", "wide.npz"), "--model net is of images of shape [1, 4, 4], those of"),
        ("train:0", ("--to", "none.npz"), "none.npz"),
        ("train:0", ("--model", "generator"), "--model generator is no inference net: it is of"),
        ("train:0", ("-o", "x.gif"), "x.gif must end in .png"),
    ],
)
def test_what_is_no_image_or_no_model_is_one_line_and_nothing_is_written(
    folder, gan, image, arguments, problem
):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(folder / "wide.png")
    np.save(folder / "bright.npy", np.full((4, 4), 2.0, np.float32))
    write_tiny(folder / "generator")
    before = sorted(folder.rglob("*"))
    answer = gan("similar", image, *TO, "-o", "x.png", *arguments)
    assert answer.status == 2, answer.err
    assert problem in answer.err
    assert len(answer.err.splitlines()) == 1
    assert sorted(folder.rglob("*")) == before


def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_read(folder):
    with pytest.raises(PipelineError, match="there is no folder"):
        find_similar(
            "train:0", data=DATA, model="no net", k=1, output=folder / "nowhere" / "x.png"
        )


def test_the_model_must_be_an_inference_net(folder):
    write_tiny(folder / "generator")
    with pytest.raises(ConfigError, match="of the task generator"):
        find_similar("train:0", data=DATA, model="generator", k=1, output=None)
