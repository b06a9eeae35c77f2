"""Images from a generator into a file (contract, invariance)."""

import errno
import json

import numpy as np
import pytest
from PIL import Image

from gan.errors import ConfigError
from gan.sampling import tile
from pipeline import sample_files
from pipeline.errors import ArtifactError, PipelineError
from pipeline.sample_files import write_samples
from tests.pipeline.tiny_artifacts import SHAPE, write_tiny


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """Folder of an artifact, and what its generator draws."""
    folder = tmp_path_factory.mktemp("artifact") / "generator"
    return str(folder), write_tiny(folder).sampler()


def test_array_holds_what_the_generator_draws(artifact, tmp_path):
    folder, sampler = artifact
    expected = sampler.sample(7, 3).numpy()
    write_samples(folder, n=7, seed=3, output=tmp_path / "a.npy")
    write_samples(folder, n=7, seed=3, output=tmp_path / "a.npz")
    for images in (np.load(tmp_path / "a.npy"), np.load(tmp_path / "a.npz")["images"]):
        assert (images.dtype, images.shape) == (np.float32, (7, *SHAPE))
        np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (4, 2), (7, 3)])
def test_picture_is_as_square_as_it_can_be(artifact, tmp_path, n, columns):
    folder, sampler = artifact
    write_samples(folder, n=n, seed=0, output=tmp_path / "a.png")
    expected = tile(sampler.sample(n, 0), columns=columns)
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    np.testing.assert_array_equal(picture[::2, ::2], expected)


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_same_seed_same_bytes_and_another_seed_others(artifact, tmp_path, suffix):
    folder, _ = artifact
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_samples(folder, n=4, seed=seed, output=tmp_path / f"{name}{suffix}")
    a, b, c = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("output", "error", "problem"),
    [
        ("a.gif", ConfigError, r"a\.gif must end in one of \.png, \.npy, \.npz"),
        ("a", ConfigError, r"a must end in one of"),
        (
            "nowhere/a.png",
            PipelineError,
            r"nowhere/a\.png could not be written: there is no folder .*nowhere",
        ),
        (
            "file/a.png",
            PipelineError,
            r"file/a\.png could not be written: there is no folder .*file",
        ),
        ("folder.png", PipelineError, r"folder\.png could not be written: Is a directory"),
    ],
)
def test_output_that_cannot_be_is_told_before_anything_is_written(
    artifact, tmp_path, output, error, problem
):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=problem):
        write_samples(artifact[0], n=1, seed=0, output=tmp_path / output)
    assert sorted(tmp_path.rglob("*")) == before


def test_full_disk_leaves_the_old_file(artifact, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    output = tmp_path / "a.npy"
    output.write_text("old")
    monkeypatch.setattr(sample_files, "write_atomically", full)
    with pytest.raises(PipelineError, match=r"a\.npy could not be written: No space left on dev"):
        write_samples(artifact[0], n=1, seed=0, output=output)
    assert output.read_text() == "old"


def test_folder_that_is_no_artifact_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="is not an artifact: it has no manifest"):
        write_samples(str(tmp_path), n=1, seed=0, output=tmp_path / "a.npy")


def test_altered_artifact_is_not_sampled(tmp_path):
    write_tiny(tmp_path / "generator")
    config = tmp_path / "generator" / "config.json"
    config.write_text(config.read_text().replace("gaussian", "uniform"))
    with pytest.raises(ArtifactError, match=r"was altered: config\.json"):
        write_samples(str(tmp_path / "generator"), n=1, seed=0, output=tmp_path / "a.npy")
    assert not (tmp_path / "a.npy").exists()


def test_command_says_what_it_wrote(gan, artifact, tmp_path):
    output = str(tmp_path / "a.png")
    answer = gan("sample", artifact[0], "-n", "4", "--seed", "9", "-o", output, "--json")
    assert answer.status == 0
    assert json.loads(answer.out) == {"images": 4, "seed": 9, "file": output}
