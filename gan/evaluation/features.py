"""From images to the points that scores are taken of.

    extractor = default_extractor(train, folder=cache)
    points = extractor(images)  # [n, d]

The features of a data set's own classifier; without labels, an autoencoder's bottleneck; or a
function of the user's, named as `package.module:function`.  Scores compare only where the digest
of the extractor is the same.
"""

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

from gan.config import IMPORT_PATH, DataConfig, EvaluationConfig
from gan.datasets.images import ImageSet
from gan.datasets.stacked_mnist import NAME as STACKED
from gan.errors import ConfigError
from gan.evaluation.autoencoder import Autoencoder, cached_autoencoder
from gan.evaluation.classifier import SHIPPED, Classifier, cached_classifier, load_classifier
from gan.evaluation.feature_nets import FeatureNetSettings, require_images

FIELD = "evaluation.extractor"
"""The setting that names a user's own extractor, for errors."""
N_PROBES = 3


class Extractor(Protocol):
    """Whatever turns images into points.

    Attributes:
        name: for people: `classifier`, `autoencoder`, an import path.
        digest: SHA-256, 64 hexadecimal digits, which changes with the features.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102

    def __call__(self, images: Tensor) -> Tensor:
        """[n, d] float32, finite, of images [n, c, h, w] in [0, 1]; where the images lie."""
        ...


@dataclass(frozen=True, eq=False)
class NetExtractor:
    """The features of a trained classifier or autoencoder.

    Attributes:
        name: `classifier` or `autoencoder`.
        net: its features are the points.
        chunk: images of one pass.
    """

    name: str
    net: Classifier | Autoencoder
    chunk: int = 500

    @property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        return self.net.digest

    def __call__(self, images: Tensor) -> Tensor:
        """[n, d] float32; errors as `Classifier`."""
        return self.net.features(images, chunk=self.chunk)


@dataclass(frozen=True, eq=False)
class ImportedExtractor:
    """A function of the user's, whose every answer is checked.

    Attributes:
        name: its import path.
        digest: SHA-256 of that path and of the source of the module; it does not see weights
            that the function reads from elsewhere.
        function: float32 [m, c, h, w] in [0, 1] -> [m, d], a tensor or array.  Each image's
            features must not depend on the others of its chunk.
        image_shape: (channels, height, width).
        chunk: images of one call.
    """

    name: str
    digest: str
    function: Callable[[Tensor], Any]
    image_shape: tuple[int, int, int]
    chunk: int = 500

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """[n, d] float32, where the images lie.

        Raises:
            ConfigError: the function answers another shape, no numbers, NaN or infinity.
            ScoreError: a pixel is NaN or out of range.
            ValueError: images of another shape or type.
        """
        require_images(images, image_shape=self.image_shape)
        parts: list[Tensor] = []
        for chunk in torch.split(images.float(), self.chunk):
            points = self._points(chunk)
            if parts and points.shape[1] != parts[0].shape[1]:
                raise self._refused(
                    f"as many features for all images, got {parts[0].shape[1]} and then "
                    f"{points.shape[1]}"
                )
            parts.append(points)
        return torch.cat(parts).to(images.device)

    def _points(self, chunk: Tensor) -> Tensor:
        answer = self.function(chunk)
        try:
            points = torch.as_tensor(answer).float()
        except (TypeError, ValueError, RuntimeError) as error:
            raise self._refused(f"a tensor or array, got {type(answer).__name__}") from error
        if points.ndim != 2 or len(points) != len(chunk) or points.shape[1] == 0:
            raise self._refused(
                f"[n, d] of n images, got {list(points.shape)} for {len(chunk)} images"
            )
        if not bool(points.isfinite().all()):
            raise self._refused("finite features, got NaN or infinity")
        return points

    def _refused(self, problem: str) -> ConfigError:
        return ConfigError([f"{FIELD}: {self.name} must return {problem}"])


@dataclass(frozen=True, eq=False)
class StackedExtractor:
    """The features of each colour channel by a classifier of digits, one after the other.

    Attributes:
        classifier: of images of one channel.
    """

    classifier: Classifier
    name: str = "classifier of each channel"

    @property
    def digest(self) -> str:
        """SHA-256 of the weights and of what is done by them."""
        return hashlib.sha256(f"{self.name} {self.classifier.digest}".encode()).hexdigest()

    def __call__(self, images: Tensor) -> Tensor:
        """[n, channels * d] float32, of images [n, channels, h, w]; errors as `Classifier`."""
        channels = images.flatten(0, 1)[:, None]
        return self.classifier.features(channels).view(len(images), -1)


def build_extractor(
    cfg: EvaluationConfig,
    data: DataConfig,
    train: ImageSet,
    *,
    folder: Path,
    device: torch.device | str = "cpu",
) -> Extractor:
    """The extractor that `evaluation.extractor` names.

    Args:
        cfg: settings of the evaluation.
        data: which images they are.
        train: their training split, never another.
        folder: where trained nets are kept.
        device: where it computes, if it is not the user's own.

    Raises:
        CheckpointError, ConfigError, DatasetError: as `default_extractor`, `imported_extractor`.
    """
    if cfg.extractor != "auto":
        return imported_extractor(cfg.extractor, image_shape=train.image_shape)
    if data.dataset == STACKED:
        return StackedExtractor(load_classifier(SHIPPED, device=device))
    return default_extractor(train, folder=folder, n_steps=cfg.extractor_steps, device=device)


def default_extractor(
    train: ImageSet,
    *,
    folder: Path,
    n_steps: int = FeatureNetSettings.n_steps,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> NetExtractor:
    """The extractor of a data set's own: of its classifier; without labels, of an autoencoder.

    It is trained if neither the package nor `folder` holds it, which takes minutes.

    Args:
        train: the training split, never another.
        folder: where trained nets are kept.
        n_steps: minibatches of the training.
        seed: of the training.
        device: where it computes.

    Raises:
        CheckpointError: if the one that was kept is damaged.
        DatasetError: the labels have gaps, or there is one class only.
    """
    settings = FeatureNetSettings(n_steps=n_steps)
    if train.labels is None:
        autoencoder = cached_autoencoder(
            train, folder=folder, seed=seed, settings=settings, device=device
        )
        return NetExtractor("autoencoder", autoencoder)
    classifier = cached_classifier(
        train, folder=folder, seed=seed, settings=settings, device=device
    )
    return NetExtractor("classifier", classifier)


def imported_extractor(
    import_path: str, *, image_shape: tuple[int, int, int], chunk: int = 500
) -> ImportedExtractor:
    """A user's own extractor, after a first call on images of noise.

    Args:
        import_path: `package.module:function`; the code is run, so name none but your own.
        image_shape: (channels, height, width) of the images that it will get.
        chunk: images of one call, >= 1.

    Raises:
        ConfigError: it cannot be imported, is not callable, or does not return finite [n, d].
        ValueError: chunk < 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    if not IMPORT_PATH.fullmatch(import_path):
        raise ConfigError([f"{FIELD} must be package.module:function, got {import_path!r}"])
    module_name, _, function_name = import_path.partition(":")
    module = _import(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        found = "no such name" if function is None else type(function).__name__
        raise ConfigError(
            [f"{FIELD}: {function_name} of {module_name} must be a function, got {found}"]
        )
    extractor = ImportedExtractor(
        name=import_path,
        digest=_source_digest(import_path, module),
        function=function,
        image_shape=image_shape,
        chunk=chunk,
    )
    rng = torch.Generator().manual_seed(0)
    extractor(torch.rand(N_PROBES, *image_shape, generator=rng))
    return extractor


def _import(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise ConfigError(
            [
                f"{FIELD}: {module_name} cannot be imported: {error}: install it, or put its "
                "folder on PYTHONPATH"
            ]
        ) from error


def _source_digest(import_path: str, module: ModuleType) -> str:
    file = getattr(module, "__file__", None)  # a module built into Python has none
    source = b"" if file is None else Path(file).read_bytes()
    return hashlib.sha256(import_path.encode() + b"\0" + source).hexdigest()
