"""The evaluation suite on a data set: where its real images, features and classes come from."""

from pathlib import Path
from typing import Literal

from torch import Tensor

from gan.config import DataConfig
from gan.datasets.images import ImageSet
from gan.datasets.splits import load_test, load_train_valid
from gan.evaluation.classifier import Classifier
from gan.evaluation.features import default_extractor
from gan.evaluation.suite import RealImages
from gan.run import unit_pixels


def real_images(data: DataConfig, *, split: Literal["valid", "test"], cache: Path) -> RealImages:
    """The real images that samples are scored against.

    Args:
        data: the images.
        split: which of them are scored; widths are chosen on validation images in any case.
        cache: folder of the nets that give features; training one takes minutes.

    Raises:
        CheckpointError: if a net in the folder is damaged.
        DatasetError: if the images cannot be read.
    """
    train, valid = load_train_valid(data)
    scored = valid if split == "valid" else load_test(data)
    log_probabilities, class_names = None, []
    extractor = default_extractor(train, folder=cache)
    if isinstance(extractor.net, Classifier):
        log_probabilities = extractor.net.log_probabilities
        class_names = [str(label) for label in range(extractor.net.n_classes)]
    return RealImages(
        train=_pixels(train),
        valid=_pixels(valid),
        scored=_pixels(scored),
        extractor=extractor,
        log_probabilities=log_probabilities,
        class_names=class_names,
    )


def _pixels(images: ImageSet) -> Tensor:
    return unit_pixels(images).float()
