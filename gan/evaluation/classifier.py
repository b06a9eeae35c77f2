"""A small classifier of a labelled data set: scores take its classes and its features.

    classifier = cached_classifier(train, folder=cache)
    points = classifier.features(images)  # [n, 128]

It is trained on the training split alone, for a fixed number of steps: nothing is chosen, so
neither validation nor test images have a part in it.  For MNIST, train[:50000], its weights ship
in mnist_classifier/; `python -m gan.evaluation.build_mnist_classifier` makes them again.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from gan.datasets.images import ImageSet
from gan.errors import DatasetError
from gan.evaluation.feature_nets import (
    N_CONVOLVED,
    FeatureNetSettings,
    announce,
    as_minibatch,
    convolutions,
    draw_weights,
    fit,
    in_chunks,
    moved,
    recipe_of,
    require_images,
    require_uint8,
    training_streams,
)
from gan.evaluation.stored_nets import (
    Config,
    broken,
    json_digest,
    load_config,
    load_weights,
    save_net,
    weights_digest,
)

SHIPPED = Path(__file__).parent / "mnist_classifier"
ARCHITECTURE = "classifier 1"
"""Part of every recipe; counts up when a change makes other weights of the same settings."""
DEFAULTS = FeatureNetSettings()


class ClassifierNet(nn.Module):
    """Convolutions, a layer of 128 rectified units, and a linear layer to the logits.

    Args:
        image_shape: (channels, height, width).
        n_classes: logits.
    """

    N_FEATURES = 128

    def __init__(self, image_shape: tuple[int, int, int], *, n_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            convolutions(image_shape), nn.Linear(N_CONVOLVED, self.N_FEATURES), nn.ReLU()
        )
        self.head = nn.Linear(self.N_FEATURES, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [n, n_classes]."""
        logits: Tensor = self.head(self.features(images))
        return logits


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier.

    Its methods take images [n, c, h, w] in [0, 1] on any device, compute on that of the net, and
    answer float32 where the images lie.  `chunk` bounds the memory; another one changes the result
    by no more than the rounding of float32.  Images of another shape or type raise ValueError,
    NaN or pixels out of range ScoreError.

    Attributes:
        net: in evaluation mode, without gradients.
        image_shape: (channels, height, width).
        n_classes: classes are 0 .. n_classes - 1.
        recipe: what decided the weights: data digest, architecture, settings, seed.
    """

    net: ClassifierNet
    image_shape: tuple[int, int, int]
    n_classes: int
    recipe: Config

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights: scores in the features of two digests do not compare."""
        return weights_digest(self.net)

    def logits(self, images: Tensor, *, chunk: int = 500) -> Tensor:
        """[n, n_classes]."""
        require_images(images, image_shape=self.image_shape)
        return in_chunks(self.net, images, chunk=chunk, device=self.net.head.weight.device)

    def log_probabilities(self, images: Tensor, *, chunk: int = 500) -> Tensor:
        """Of each class, in nats: [n, n_classes]."""
        return self.logits(images, chunk=chunk).log_softmax(1)

    def features(self, images: Tensor, *, chunk: int = 500) -> Tensor:
        """Of the layer before the logits, >= 0: [n, 128]."""
        require_images(images, image_shape=self.image_shape)
        device = self.net.head.weight.device
        return in_chunks(self.net.features, images, chunk=chunk, device=device)

    def classes(self, images: Tensor, *, chunk: int = 500) -> Tensor:
        """The most probable class of each image: int64 [n]."""
        return self.logits(images, chunk=chunk).argmax(1)


def train_classifier(
    images: Tensor,
    labels: Tensor,
    *,
    seed: int,
    settings: FeatureNetSettings = DEFAULTS,
    data_digest: str = "",
    device: torch.device | str = "cpu",
) -> Classifier:
    """A classifier trained on these images, turned, scaled and shifted a little.

    Args:
        images: uint8 [n, c, h, w], n >= 2, sides >= 4; the training split, never another.
        labels: int64 [n] in 0 .. n_classes - 1, each with an image.
        seed: of initial weights, minibatches and moves.
        settings: of the training.
        data_digest: names the images in the recipe.
        device: where it is trained, and stays.

    Raises:
        DatasetError: a class has no image, or there is only one.
        ScoreError: training diverged.
        ValueError: images or labels of another shape or type.
    """
    image_shape = require_uint8(images)
    n_classes = _count_classes(labels, n=len(images))
    device = torch.device(device)
    init, batches, moves = training_streams(seed, "classifier")
    net = ClassifierNet(image_shape, n_classes=n_classes)
    draw_weights(net, init)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batch_loss(chosen: Tensor) -> Tensor:
        x = moved(as_minibatch(images[chosen], device), settings, moves)
        return nn.functional.cross_entropy(net(x), labels[chosen].to(device))

    net.load_state_dict(fit(net, batch_loss, n=len(images), settings=settings, rng=batches))
    recipe = recipe_of(ARCHITECTURE, data_digest, seed=seed, settings=settings)
    return Classifier(net.eval().requires_grad_(False), image_shape, n_classes, recipe)


def save_classifier(folder: Path, classifier: Classifier, **facts: object) -> None:
    """Write `weights.safetensors` and `config.json`; `facts` go into the latter."""
    config = {
        "image_shape": list(classifier.image_shape),
        "n_classes": classifier.n_classes,
        "recipe": classifier.recipe,
        **facts,
    }
    save_net(folder, classifier.net, config)


def load_classifier(folder: Path, *, device: torch.device | str = "cpu") -> Classifier:
    """Read what `save_classifier` wrote.

    Raises:
        CheckpointError: if a file is missing, altered or cut short, or the two do not fit.
    """
    config, weights = load_config(folder), load_weights(folder)
    try:
        channels, height, width = config["image_shape"]
        net = ClassifierNet((channels, height, width), n_classes=config["n_classes"])
        net.load_state_dict(weights)
        recipe = config["recipe"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise broken(folder, error) from error
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.eval().requires_grad_(False)
    return Classifier(net, (channels, height, width), config["n_classes"], recipe)


def cached_classifier(
    train: ImageSet,
    *,
    folder: Path,
    seed: int = 0,
    settings: FeatureNetSettings = DEFAULTS,
    device: torch.device | str = "cpu",
) -> Classifier:
    """The classifier of a training split: the shipped one, one of an earlier call, or a new one.

    Args:
        train: the training split, with labels.
        folder: where classifiers are kept, one folder each.
        seed: as `train_classifier`.
        settings: as `train_classifier`; another seed, setting or split is another classifier.
        device: where it is trained, if it has to be, and stays.

    Raises:
        CheckpointError: if the one that was kept is damaged.
        DatasetError: if `train` has no labels, or as `train_classifier`.
        ScoreError: training diverged.
    """
    if train.labels is None:
        raise DatasetError("a classifier needs training images with labels, got none")
    recipe = recipe_of(ARCHITECTURE, train.digest, seed=seed, settings=settings)
    if load_config(SHIPPED).get("recipe") == recipe:
        return load_classifier(SHIPPED, device=device)
    kept = folder / f"classifier-{json_digest(recipe)[:16]}"
    if not kept.exists():
        announce("classifier", kept, settings)
        classifier = train_classifier(
            torch.from_numpy(train.images),
            torch.from_numpy(train.labels),
            seed=seed,
            settings=settings,
            data_digest=train.digest,
            device=device,
        )
        save_classifier(kept, classifier)
    return load_classifier(kept, device=device)


def _count_classes(labels: Tensor, *, n: int) -> int:
    if labels.dtype != torch.int64 or list(labels.shape) != [n]:
        raise ValueError(f"labels must be int64 [{n}], got {labels.dtype} {list(labels.shape)}")
    found = torch.unique(labels)
    n_classes = len(found)
    if n_classes < 2 or not torch.equal(found.cpu(), torch.arange(n_classes)):
        raise DatasetError(
            "labels must be 0, 1, ... without a gap, at least two of them, got "
            f"{n_classes} from {int(found.min())} to {int(found.max())}"
        )
    return n_classes
