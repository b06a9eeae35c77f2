"""A small autoencoder: the space of the scores for data without labels.

    autoencoder = cached_autoencoder(train, folder=cache)
    points = autoencoder.features(images)  # [n, 64]

As the classifier, it is trained on the training split alone, for a fixed number of steps.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from gan.datasets.images import ImageSet
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

ARCHITECTURE = "autoencoder 1"
"""Part of every recipe; counts up when a change makes other weights of the same settings."""
DEFAULTS = FeatureNetSettings()


class AutoencoderNet(nn.Module):
    """Convolutions to a bottleneck of 64 linear units, and one hidden layer back to the pixels.

    Args:
        image_shape: (channels, height, width).
    """

    N_FEATURES = 64
    N_HIDDEN = 512

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.features = nn.Sequential(
            convolutions(image_shape), nn.Linear(N_CONVOLVED, self.N_FEATURES)
        )
        self.decoder = nn.Sequential(
            nn.Linear(self.N_FEATURES, self.N_HIDDEN),
            nn.ReLU(),
            nn.Linear(self.N_HIDDEN, math.prod(image_shape)),
            nn.Sigmoid(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """The images again, flattened: [n, c * h * w] in [0, 1]."""
        pixels: Tensor = self.decoder(self.features(images))
        return pixels


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """A trained autoencoder; images, devices and `chunk` as in `Classifier`.

    Attributes:
        net: in evaluation mode, without gradients.
        image_shape: (channels, height, width).
        recipe: what decided the weights: data digest, architecture, settings, seed.
    """

    net: AutoencoderNet
    image_shape: tuple[int, int, int]
    recipe: Config

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights: scores in the features of two digests do not compare."""
        return weights_digest(self.net)

    def features(self, images: Tensor, *, chunk: int = 500) -> Tensor:
        """Of the bottleneck: [n, 64]."""
        return self._apply(self.net.features, images, chunk=chunk)

    def reconstructions(self, images: Tensor, *, chunk: int = 500) -> Tensor:
        """What the decoder makes of the features: [n, c, h, w] in [0, 1]."""
        return self._apply(self.net, images, chunk=chunk).reshape(images.shape)

    def _apply(self, part: nn.Module, images: Tensor, *, chunk: int) -> Tensor:
        require_images(images, image_shape=self.image_shape)
        device = next(self.net.parameters()).device
        return in_chunks(part, images, chunk=chunk, device=device)


def train_autoencoder(
    images: Tensor,
    *,
    seed: int,
    settings: FeatureNetSettings = DEFAULTS,
    data_digest: str = "",
    device: torch.device | str = "cpu",
) -> Autoencoder:
    """An autoencoder of least squared error on these images, turned, scaled and shifted a little.

    Args:
        images: uint8 [n, c, h, w], n >= 2, sides >= 4; the training split, never another.
        seed: of initial weights, minibatches and moves.
        settings: of the training.
        data_digest: names the images in the recipe.
        device: where it is trained, and stays.

    Raises:
        ScoreError: training diverged.
        ValueError: images of another shape or type.
    """
    image_shape = require_uint8(images)
    device = torch.device(device)
    init, batches, moves = training_streams(seed, "autoencoder")
    net = AutoencoderNet(image_shape)
    draw_weights(net, init)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batch_loss(chosen: Tensor) -> Tensor:
        x = moved(as_minibatch(images[chosen], device), settings, moves)
        return nn.functional.mse_loss(net(x), x.flatten(1))

    net.load_state_dict(fit(net, batch_loss, n=len(images), settings=settings, rng=batches))
    recipe = recipe_of(ARCHITECTURE, data_digest, seed=seed, settings=settings)
    return Autoencoder(net.eval().requires_grad_(False), image_shape, recipe)


def save_autoencoder(folder: Path, autoencoder: Autoencoder) -> None:
    """Write `weights.safetensors` and `config.json`."""
    config = {"image_shape": list(autoencoder.image_shape), "recipe": autoencoder.recipe}
    save_net(folder, autoencoder.net, config)


def load_autoencoder(folder: Path, *, device: torch.device | str = "cpu") -> Autoencoder:
    """Read what `save_autoencoder` wrote.

    Raises:
        CheckpointError: if a file is missing, altered or cut short, or the two do not fit.
    """
    config, weights = load_config(folder), load_weights(folder)
    try:
        channels, height, width = config["image_shape"]
        net = AutoencoderNet((channels, height, width))
        net.load_state_dict(weights)
        recipe = config["recipe"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise broken(folder, error) from error
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Autoencoder(net.eval().requires_grad_(False), (channels, height, width), recipe)


def cached_autoencoder(
    train: ImageSet,
    *,
    folder: Path,
    seed: int = 0,
    settings: FeatureNetSettings = DEFAULTS,
    device: torch.device | str = "cpu",
) -> Autoencoder:
    """The autoencoder of a training split: one of an earlier call, or a new one.

    Arguments and errors as `cached_classifier`, but no labels are needed.
    """
    recipe = recipe_of(ARCHITECTURE, train.digest, seed=seed, settings=settings)
    kept = folder / f"autoencoder-{json_digest(recipe)[:16]}"
    if not kept.exists():
        announce("autoencoder", kept, settings)
        autoencoder = train_autoencoder(
            torch.from_numpy(train.images),
            seed=seed,
            settings=settings,
            data_digest=train.digest,
            device=device,
        )
        save_autoencoder(kept, autoencoder)
    return load_autoencoder(kept, device=device)
