"""From images to points.  Kinds: independent reference, invariance, closed form."""

import hashlib
import math
import re
import textwrap

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.testing import assert_close

from gan.config import DataConfig, EvaluationConfig
from gan.datasets.images import ImageSet
from gan.datasets.splits import load_train_valid
from gan.errors import CheckpointError, ConfigError, ScoreError
from gan.evaluation import autoencoder as autoencoder_module
from gan.evaluation import features as features_module
from gan.evaluation.autoencoder import (
    cached_autoencoder,
    load_autoencoder,
    save_autoencoder,
    train_autoencoder,
)
from gan.evaluation.classifier import (
    SHIPPED,
    load_classifier,
    save_classifier,
    train_classifier,
)
from gan.evaluation.feature_nets import FeatureNetSettings
from gan.evaluation.features import (
    NetExtractor,
    build_extractor,
    default_extractor,
    imported_extractor,
)

QUICK = FeatureNetSettings(n_steps=150, batch_size=64)
TINY = FeatureNetSettings(n_steps=2, batch_size=8)
SHAPE = (1, 8, 8)
N_TRAIN = 1_300


@pytest.fixture(scope="module")
def digits():
    return torch.from_numpy((load_digits().images * 15.9).astype(np.uint8))[:, None]


@pytest.fixture(scope="module")
def autoencoder(digits):
    return train_autoencoder(digits[:N_TRAIN], seed=0, settings=QUICK)


@pytest.fixture(scope="module")
def fresh(digits):
    return digits[N_TRAIN:] / 255


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a module of the user's; answers its import path."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(body, *, module="own_features"):
        monkeypatch.delitem(features_module.importlib.sys.modules, module, raising=False)
        source = f"import numpy as np\nimport torch\n\n{textwrap.dedent(body)}\n"
        (tmp_path / f"{module}.py").write_text(source)
        features_module.importlib.invalidate_caches()
        return f"{module}:extract"

    return write


def image_set(*, labelled):
    images = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), dtype=np.uint8)
    return ImageSet(images=images, labels=np.arange(20) % 2 if labelled else None, digest="5" * 64)


def test_autoencoder_reconstructs_fresh_images_far_better_than_their_mean(autoencoder, fresh):
    squared_error = (autoencoder.reconstructions(fresh) - fresh).square().mean()
    assert squared_error < 0.5 * fresh.var(dim=0, correction=0).mean()


def test_reconstructions_are_the_decoder_of_the_features(autoencoder, fresh):
    features = autoencoder.features(fresh)
    weights = [t.double() for t in autoencoder.net.decoder.state_dict().values()]
    hidden = (features.double() @ weights[0].T + weights[1]).clamp(min=0)
    expected = 1 / (1 + (-(hidden @ weights[2].T + weights[3])).exp())
    got = autoencoder.reconstructions(fresh)
    assert features.shape == (len(fresh), 64)
    assert_close(got.flatten(1).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 97, 10_000])
def test_bottleneck_does_not_depend_on_chunk_or_order(autoencoder, fresh, chunk):
    expected = autoencoder.features(fresh)
    got = autoencoder.features(fresh.flip(0), chunk=chunk).flip(0)
    assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_saved_autoencoder_comes_back_bit_for_bit(autoencoder, fresh, tmp_path):
    save_autoencoder(tmp_path / "saved", autoencoder)
    loaded = load_autoencoder(tmp_path / "saved")
    assert torch.equal(loaded.features(fresh), autoencoder.features(fresh))
    assert (loaded.digest, loaded.recipe) == (autoencoder.digest, autoencoder.recipe)


def test_damaged_autoencoder_is_refused(autoencoder, tmp_path):
    save_autoencoder(tmp_path / "saved", autoencoder)
    path = tmp_path / "saved" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"holds no whole net: .*SHA-256"):
        load_autoencoder(tmp_path / "saved")


def test_files_of_a_classifier_are_no_autoencoder(tmp_path):
    data = image_set(labelled=True)
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    classifier = train_classifier(images, labels, seed=0, settings=TINY)
    save_classifier(tmp_path / "saved", classifier)
    with pytest.raises(CheckpointError, match=r"holds no whole net: .*Missing key"):
        load_autoencoder(tmp_path / "saved")


def test_autoencoder_is_trained_once_for_a_split(tmp_path, monkeypatch):
    data = image_set(labelled=False)
    first = cached_autoencoder(data, folder=tmp_path, settings=TINY)
    monkeypatch.delattr(autoencoder_module, "train_autoencoder")
    assert cached_autoencoder(data, folder=tmp_path, settings=TINY).digest == first.digest
    with pytest.raises(NameError):
        cached_autoencoder(data, folder=tmp_path, settings=TINY, seed=1)


@pytest.mark.parametrize(
    ("labelled", "name", "d"), [(True, "classifier", 128), (False, "autoencoder", 64)]
)
def test_default_is_the_classifier_and_without_labels_the_autoencoder(
    tmp_path, caplog, labelled, name, d
):
    caplog.set_level("INFO")
    data = image_set(labelled=labelled)
    extractor = default_extractor(data, folder=tmp_path, n_steps=2)
    (told,) = caplog.messages
    assert re.match(rf"training the {name} whose features .*: 2 minibatches, once", told)
    points = extractor(torch.from_numpy(data.images) / 255)
    assert extractor.name == name
    assert extractor.digest == extractor.net.digest
    assert points.shape == (20, d)
    assert points.dtype == torch.float32


def test_extractor_of_a_net_gives_its_features(autoencoder, fresh):
    extractor = NetExtractor("autoencoder", autoencoder, chunk=50)
    assert torch.equal(extractor(fresh), autoencoder.features(fresh, chunk=50))


@pytest.mark.parametrize(
    "answer",
    ["x.flatten(1)", "x.flatten(1).numpy()", "x.flatten(1).double()", "x.flatten(1).tolist()"],
)
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_own_extractor_gives_its_answers(own, fresh, answer, chunk):
    path = own(f"def extract(x):\n    return {answer}")
    extractor = imported_extractor(path, image_shape=SHAPE, chunk=chunk)
    points = extractor(fresh.double())
    assert points.dtype == torch.float32
    assert torch.equal(points, fresh.flatten(1))


def test_own_extractor_keeps_no_gradient(own, fresh):
    path = own(
        "w = torch.ones(64, 2, requires_grad=True)\ndef extract(x): return x.flatten(1) @ w"
    )
    assert not imported_extractor(path, image_shape=SHAPE)(fresh).requires_grad


def test_digest_of_an_own_extractor_is_that_of_its_path_and_source(own, tmp_path):
    path = own("def extract(x): return x.flatten(1)")
    source = (tmp_path / "own_features.py").read_bytes()
    first = imported_extractor(path, image_shape=SHAPE).digest
    assert first == hashlib.sha256(b"own_features:extract\0" + source).hexdigest()
    own("def extract(x): return 2 * x.flatten(1)")
    assert imported_extractor(path, image_shape=SHAPE).digest != first


@pytest.mark.parametrize(
    "path", ["", "module", "a.b", ":f", "a:", ".a:f", "a..b:f", "a:b.c", "a b:f"]
)
def test_path_that_is_no_import_path_is_refused(path):
    with pytest.raises(ConfigError, match=r"extractor must be package\.module:function, got"):
        imported_extractor(path, image_shape=SHAPE)


@pytest.mark.parametrize("body", ["import there_is_no_such_module", "def ("])
def test_module_that_cannot_be_imported_is_refused(own, body):
    with pytest.raises(ConfigError, match=r"own_features cannot be imported: .*PYTHONPATH"):
        imported_extractor(own(body), image_shape=SHAPE)


def test_module_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"nowhere\.at_all cannot be imported: No module"):
        imported_extractor("nowhere.at_all:f", image_shape=SHAPE)


@pytest.mark.parametrize(("body", "found"), [("", "no such name"), ("extract = 3", "int")])
def test_what_is_not_callable_is_refused(own, body, found):
    with pytest.raises(
        ConfigError, match=f"extract of own_features must be a function, got {found}"
    ):
        imported_extractor(own(body), image_shape=SHAPE)


def test_function_built_into_python_is_refused_for_what_it_returns():
    with pytest.raises(ConfigError, match="sys:getrefcount must return"):
        imported_extractor("sys:getrefcount", image_shape=SHAPE)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("x", r"\[n, d\] of n images, got \[3, 1, 8, 8\] for 3 images"),
        ("x.flatten(1).T", r"\[n, d\] of n images, got \[64, 3\] for 3 images"),
        ("x.mean()", r"\[n, d\] of n images, got \[\] for 3 images"),
        ("x.new_zeros(3, 0)", r"\[n, d\] of n images, got \[3, 0\] for 3 images"),
        ("x.flatten(1).log() * 0 / 0", "finite features, got NaN or infinity"),
        ("1 / (0 * x.flatten(1))", "finite features, got NaN or infinity"),
        ("None", "a tensor or array, got NoneType"),
        ("'points'", "a tensor or array, got str"),
        ("[[1, 2], [3]]", "a tensor or array, got list"),
        ("np.array(['a'])", "a tensor or array, got ndarray"),
    ],
)
def test_wrong_answers_are_refused_at_once(own, answer, problem):
    path = own(f"def extract(x):\n    return {answer}")
    with pytest.raises(ConfigError, match=f"own_features:extract must return {problem}"):
        imported_extractor(path, image_shape=SHAPE)


def test_infinity_in_real_images_alone_is_refused(own, fresh):
    path = own("def extract(x): return 1 / x.flatten(1).sum(1, keepdim=True)")
    extractor = imported_extractor(path, image_shape=SHAPE)
    with pytest.raises(ConfigError, match="finite features"):
        extractor(torch.cat([fresh[:5], torch.zeros(1, *SHAPE)]))


def test_number_of_features_that_varies_is_refused(own, fresh):
    path = own("def extract(x): return x.flatten(1)[:, : len(x)]")
    extractor = imported_extractor(path, image_shape=SHAPE, chunk=4)
    with pytest.raises(ConfigError, match="as many features for all images, got 4 and then 2"):
        extractor(fresh[:6])


def test_own_extractor_refuses_bad_images_and_chunks(own, fresh):
    path = own("def extract(x): return x.flatten(1)")
    extractor = imported_extractor(path, image_shape=SHAPE)
    with pytest.raises(ScoreError, match=r"images must lie in \[0, 1\]"):
        extractor(fresh * math.nan)
    with pytest.raises(ValueError, match=r"images must be \[n, 1, 8, 8\]"):
        extractor(fresh[:, :, :7])
    with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
        imported_extractor(path, image_shape=SHAPE, chunk=0)


def test_channels_of_stacked_digits_are_seen_one_by_one(tmp_path):
    data = DataConfig(dataset="stacked_mnist")
    train, _ = load_train_valid(data)
    extractor = build_extractor(EvaluationConfig(), data, train, folder=tmp_path)
    images = torch.from_numpy(train.images[:4]) / 255
    digits = load_classifier(SHIPPED)
    expected = torch.cat([digits.features(images[:, [c]]) for c in range(3)], 1)
    assert_close(extractor(images), expected, rtol=1e-5, atol=1e-6)
    assert extractor.digest != digits.digest
    assert list(tmp_path.iterdir()) == []


# The settings


def test_settings_name_the_extractor(own, tmp_path):
    train = image_set(labelled=True)
    path = own("def extract(x): return x.flatten(1)")
    folder = tmp_path / "nets"
    imported = build_extractor(
        EvaluationConfig(extractor=path), DataConfig(dataset="a.npz"), train, folder=folder
    )
    assert (imported.name, imported.image_shape) == (path, SHAPE)
    assert not folder.exists()


def test_settings_say_how_long_the_net_is_trained(tmp_path, caplog):
    caplog.set_level("INFO")
    train, data = image_set(labelled=True), DataConfig(dataset="a.npz")
    built = build_extractor(EvaluationConfig(extractor_steps=3), data, train, folder=tmp_path)
    assert built.digest == default_extractor(train, folder=tmp_path, n_steps=3).digest
    (told,) = caplog.messages
    assert ": 3 minibatches, once" in told
