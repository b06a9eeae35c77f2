"""The artifact's folder: round trip, independent readers, and every way it can be damaged."""

import errno
import hashlib
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from torch.testing import assert_close

import gan.tasks
from gan.config import GeneratorConfig, PriorConfig, RunConfig, digest
from gan.contrast import Brightness
from gan.nets import build_generator
from gan.sampling import tile
from gan.saved_generator import SavedGenerator
from pipeline import artifacts
from pipeline.artifacts import load_artifact, verify, write_artifact
from pipeline.errors import ArtifactError, ArtifactNotFound
from pipeline.products.generator import numpy_draw
from tests.gan.bombs import pickled_weights
from tests.pipeline.tiny_artifacts import LINEAGE, SCORES, SHAPE, tiny_generator, write_tiny

FILES = ("README.md", "config.json", "generator.onnx", "generator.safetensors", "samples.png")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """An artifact to read from."""
    folder = tmp_path_factory.mktemp("written") / "artifact"
    write_tiny(folder)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """An artifact to damage."""
    return shutil.copytree(written, tmp_path / "artifact")


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def code_blocks(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)


def test_weights_survive_bit_for_bit(written):
    saved, loaded = tiny_generator(), load_artifact(written)
    assert loaded.config == saved.config
    assert loaded.image_shape == SHAPE
    before, after = saved.G.state_dict(), loaded.G.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert_close(after[name], tensor, rtol=0, atol=0)


def test_loaded_generator_draws_the_same_images(written):
    expected = tiny_generator().sampler().sample(7, seed=5)
    assert_close(load_artifact(written).sampler().sample(7, seed=5), expected, rtol=0, atol=0)


def test_manifest_says_what_the_artifact_is(written):
    manifest = verify(written)
    assert manifest.scores == SCORES
    assert manifest.lineage == LINEAGE
    assert manifest.config_digest == digest(tiny_generator().config)
    assert tuple(sorted(manifest.files)) == FILES
    weights = (written / "generator.safetensors").read_bytes()
    assert manifest.weights_sha256 == hashlib.sha256(weights).hexdigest()
    assert manifest.versions["torch"] == version("torch")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", manifest.created_at)


def test_names_of_files_are_those_of_the_saved_generator():
    names = [task.weights for task in gan.tasks.TASKS.values()]
    assert all(name.endswith(artifacts.WEIGHTS_SUFFIX) for name in names)
    assert artifacts.CONFIG == gan.tasks.CONFIG


def test_picture_shows_the_first_hundred_samples_of_seed_0(written):
    images = tiny_generator().sampler().sample(100, seed=0)
    expected = tile(images, columns=10).repeat(2, axis=0).repeat(2, axis=1)
    picture = np.asarray(Image.open(written / "samples.png"))
    assert_allclose(picture, expected, rtol=0, atol=0)


@pytest.mark.parametrize("n", [1, 2, 33])
def test_onnx_agrees_with_torch_for_any_number_of_images(written, n):
    session = onnxruntime.InferenceSession(written / "generator.onnx")
    z = torch.randn(n, 3, generator=torch.Generator().manual_seed(1))
    (images,) = session.run(["images"], {"z": z.numpy()})
    expected = tiny_generator().G(z).view(n, *SHAPE).detach().numpy()
    assert images.dtype == np.float32
    assert_allclose(images, expected, rtol=0, atol=1e-5)
    assert images.std() > 0.01


def test_artifact_of_a_generator_that_convolves_draws_the_same_pixels_everywhere(tmp_path):
    config = RunConfig(
        prior=PriorConfig(kind="gaussian", dim=3),
        generator=GeneratorConfig(
            hidden=(5, 18),
            activations=("relu", "sigmoid"),
            deconv_channels=2,
            deconv_kernel=2,
            output="linear",
            output_bias_from_data=False,
            init_range=1.0,
        ),
    )
    shape = (3, 8, 8)
    G = build_generator(
        config.generator,
        dim=3,
        pixel_mean=torch.zeros(192),
        rng=torch.Generator().manual_seed(0),
        image_shape=shape,
        brightness=Brightness(shift=0.4, scale=3.0),
    )
    saved = SavedGenerator(G=G.eval(), config=config, image_shape=shape)
    write_artifact(tmp_path / "artifact", saved=saved, scores=SCORES, lineage=LINEAGE)
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    expected = (0.4 + 3 * G(z)).clamp(0, 1).view(5, *shape).detach()
    assert (expected.min(), expected.max()) == (0, 1)
    loaded = load_artifact(tmp_path / "artifact").sampler()
    assert_close(loaded.decode(z), expected, rtol=1e-6, atol=1e-6)
    session = onnxruntime.InferenceSession(tmp_path / "artifact" / "generator.onnx")
    (images,) = session.run(["images"], {"z": z.numpy()})
    assert_allclose(images, expected, rtol=1e-5, atol=1e-6)
    assert "a transposed convolution" in (tmp_path / "artifact" / "README.md").read_text()


def test_onnx_file_is_valid_and_quotes_no_source(written):
    onnx.checker.check_model(written / "generator.onnx", full_check=True)
    content = (written / "generator.onnx").read_bytes()
    assert b".py" not in content
    assert b"stack_trace" not in content


def test_generator_that_is_handed_in_stays_as_it_was(tmp_path):
    saved = tiny_generator()
    before = {name: tensor.clone() for name, tensor in saved.G.state_dict().items()}
    write_artifact(tmp_path / "artifact", saved=saved, scores=SCORES, lineage=LINEAGE)
    for name, tensor in saved.G.state_dict().items():
        assert_close(tensor, before[name], rtol=0, atol=0)


def test_scores_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must be finite, got parzen_ll_valid = nan"):
        write_tiny(tmp_path / "artifact", scores={"parzen_ll_valid": float("nan")})
    assert not any(tmp_path.iterdir())


def test_full_disk_leaves_the_old_artifact_as_it_was(folder, monkeypatch):
    before = verify(folder)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(artifacts, "to_onnx", full)
    with pytest.raises(ArtifactError, match=r"could not be written: No space left on device$"):
        write_tiny(folder, seed=1)
    assert verify(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["artifact"]


def test_new_artifact_replaces_an_old_one(folder):
    saved = write_tiny(folder, seed=1)
    expected = saved.sampler().sample(2, seed=0)
    assert_close(load_artifact(folder).sampler().sample(2, seed=0), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", FILES)
def test_altered_file_is_found(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"was altered: {name} has another SHA-256"):
        load_artifact(folder)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_found(folder, name):
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"is incomplete: {name} is missing"):
        verify(folder)


def test_file_that_the_manifest_does_not_name_is_found(folder):
    (folder / "weights.pkl").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"holds weights\.pkl, which its manifest does not"):
        verify(folder)


def test_pickled_weights_are_refused_and_not_opened_though_their_digest_is_right(folder, tmp_path):
    content = pickled_weights(tmp_path / "trace")
    (folder / "generator.safetensors").write_bytes(content)
    files = dict(verify_without("generator.safetensors", folder))
    digest = hashlib.sha256(content).hexdigest()
    edit_manifest(folder, files=files | {"generator.safetensors": digest})
    with pytest.raises(ArtifactError, match="artifact"):
        load_artifact(folder)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["weights.pkl", "weights.pt", "loader.py", "safetensors"])
def test_a_file_that_could_hold_code_is_refused_though_the_manifest_names_it(folder, name):
    (folder / name).write_bytes(b"")
    files = dict(verify_without("", folder))
    edit_manifest(folder, files=files | {name: hashlib.sha256(b"").hexdigest()})
    with pytest.raises(ArtifactError, match=rf"{name} is refused: an artifact has files of the"):
        verify(folder)


@pytest.mark.parametrize("name", ["generator.safetensors", "manifest.json"])
def test_link_out_of_the_folder_is_refused(folder, name):
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(ArtifactError, match=f"{name} must be a file of its own"):
        verify(folder)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "C:x", ".hidden", "x\n"]
)
def test_name_that_leaves_the_folder_is_refused(folder, name):
    files = dict(verify(folder).files)
    edit_manifest(folder, files=files | {name: "0" * 64})
    with pytest.raises(ArtifactError, match="must have a plain name, got ") as caught:
        verify(folder)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "malformed: format_version: Input should be 1"),
        ({"files": {"config.json": "zz"}}, r"malformed: files: config\.json: String should match"),
        ({"surprise": 1}, "malformed: surprise: Unexpected keyword argument"),
        ({"files": {"config.json": "0" * 64}}, r"must name config\.json and one file of"),
    ],
)
def test_malformed_manifest_is_refused(folder, changes, message):
    edit_manifest(folder, **changes)
    with pytest.raises(ArtifactError, match=message):
        verify(folder)


def test_manifest_that_is_cut_short_is_refused(folder):
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text()[:100])
    with pytest.raises(
        ArtifactError, match=r"manifest\.json is malformed: Invalid JSON: EOF"
    ) as caught:
        verify(folder)
    assert "\n" not in str(caught.value)


def test_folder_without_manifest_is_not_an_artifact(tmp_path):
    with pytest.raises(ArtifactNotFound, match=r"is not an artifact: it has no manifest\.json"):
        load_artifact(tmp_path)


def test_weights_that_do_not_fit_their_config_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["run"]["generator"]["hidden"] = [9]
    content = json.dumps(config).encode()
    (folder / "config.json").write_bytes(content)
    files = dict(verify_without("config.json", folder))
    edit_manifest(folder, files=files | {"config.json": hashlib.sha256(content).hexdigest()})
    with pytest.raises(ArtifactError, match="holds no whole generator"):
        load_artifact(folder)


def verify_without(name: str, folder: Path) -> dict[str, str]:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    return {other: sha for other, sha in files.items() if other != name}


def test_card_states_scores_with_errors_and_origin(written):
    card = (written / "README.md").read_text()
    assert "| `parzen_ll_valid` | 201.250 | 1.500 |" in card
    assert "| `parzen_sigma` | 0.250 | – |" in card
    assert "rewards blur" in card
    for origin in (LINEAGE.run_id, LINEAGE.sweep, LINEAGE.data_digest, LINEAGE.git_commit):
        assert f"`{origin}`" in card


def test_card_explains_the_scores_that_it_states(tmp_path):
    shares = ("precision", "recall", "coverage", "authenticity")
    scores = {"frechet_distance_valid": 42.5, "frechet_distance_valid_se": 0.75} | SCORES
    scores |= {f"{name}_valid": 0.5 for name in shares}
    write_tiny(tmp_path / "artifact", scores=scores)
    card = (tmp_path / "artifact" / "README.md").read_text()
    assert "| `frechet_distance_valid` | 42.500 | 0.750 |" in card
    for name in ("frechet_distance", *shares, "parzen_ll"):
        assert re.search(rf"^`{name}` is |\. `{name}` is |`{name}` the share", card, re.MULTILINE)
    assert "look for lost kinds of images" in card
    assert "Neither score nor picture" not in card
    rows = re.findall(r"^\| `(\w+)` \| [\d.]+ \|", card, flags=re.MULTILINE)
    assert rows == sorted(rows)
    assert len(rows) == 7


def test_card_without_scores_of_features_says_nothing_of_them(written):
    card = (written / "README.md").read_text()
    assert "frechet_distance" not in card
    assert "coverage" not in card
    assert "Neither score nor picture shows whether kinds of images are missing" in card


def test_code_in_the_card_runs(written, monkeypatch):
    monkeypatch.chdir(written)
    blocks = code_blocks((written / "README.md").read_text())
    assert len(blocks) == 2
    for block in blocks:
        names: dict[str, object] = {}
        exec(block, names)  # noqa: S102 (our own text)
        assert names["images"].shape == (64, *SHAPE)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("prior", "variance", "largest"),
    [
        (PriorConfig(kind="uniform", dim=5), 1, 3**0.5),
        (PriorConfig(kind="gaussian", dim=5), 1, np.inf),
        (PriorConfig(kind="spherical", dim=5), 1 / 5, 1),
        (PriorConfig(kind="spherical", dim=5, spherical_radius="sqrt_dim"), 1, 5**0.5),
        (PriorConfig(kind="bernoulli", dim=5), 1, 1),
        (PriorConfig(kind="truncated_normal", dim=5), 1, 2 / 0.8796),
        (PriorConfig(kind="truncated_normal", dim=5, truncation=0.5), 1, 0.5 / 0.2839),
    ],
)
def test_card_draws_the_prior_with_numpy(prior, variance, largest):
    names = {"np": np, "rng": np.random.default_rng(0), "n": 40_000, "dim": prior.dim}
    exec(numpy_draw(prior), names)  # noqa: S102 (our own text)
    z = names["z"]
    assert z.shape == (40_000, 5)
    assert_allclose(z.mean(0), np.zeros(5), rtol=0, atol=0.025)
    assert_allclose(z.var(0), np.full(5, variance), rtol=0.03, atol=0)
    assert abs(z).max() <= largest * 1.001


def test_card_draws_a_mixture_through_the_package(written, monkeypatch):
    monkeypatch.chdir(written)
    names = {"generator": load_artifact(written), "n": 8}
    exec(numpy_draw(PriorConfig(kind="mixture", dim=3)), names)  # noqa: S102 (our own text)
    assert names["z"].shape == (8, 3)


def test_importing_the_module_loads_neither_torch_nor_mlflow():
    code = (
        "import sys, pipeline.artifacts; print(sorted({'torch', 'mlflow'} & sys.modules.keys()))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(artifacts.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "[]"
