"""The parts of a run of the shared model, at step 0."""

import functools
import math

import torch

from gan.config import RunConfig
from gan.datasets.images import ImageSet, pixel_mean
from gan.extensions.conditional import ConditionalDiscriminator, Units, one_hot_labels
from gan.extensions.shared_conditional.nets import (
    SharedGenerator,
    build_shared_generator,
    settings,
)
from gan.extensions.shared_conditional.saved import SavedShared
from gan.extensions.shared_conditional.training import train
from gan.masks import training_masks
from gan.model import assemble_gan
from gan.nets import Player, build_discriminator
from gan.priors import build_prior
from gan.randomness import stream
from gan.run import Parts, image_minibatches

NEEDED_BY = "shared_conditional"


def players(config: RunConfig, images: ImageSet, device: torch.device | str) -> Parts:
    """Both players, the rows of the data, and the game.

    Raises:
        DatasetError: the images have no labels, or these are not numbered from 0 without a gap.
    """
    own = settings(config)
    labels = one_hot_labels(images, needed_by=NEEDED_BY)
    n_classes, n_pixels = labels.shape[1], math.prod(images.image_shape)
    rng = stream(config.seed, "init")
    G = build_shared_generator(
        config,
        torch.from_numpy(pixel_mean(images.images)),
        image_shape=images.image_shape,
        n_classes=n_classes,
        rng=rng,
    )
    # D's rows are [x, mask, y], so of the conditional GAN's D image and mask are the pixels.
    net = build_discriminator(config.discriminator, n_pixels=2 * n_pixels + 1 + n_classes, rng=rng)
    units = Units(torch.zeros(n_classes), torch.ones(n_classes))
    gan = assemble_gan(
        config,
        G=G,
        D=ConditionalDiscriminator(net, units, scale=own.scale),
        prior=build_prior(config.prior),
        device=device,
    )
    masks = training_masks(
        images.image_shape,
        everything=own.everything_share,
        blocks=own.blocks_share,
        rng=stream(config.seed, "blocks"),
        device=gan.device,
    )
    return Parts(
        gan=gan,
        minibatches=image_minibatches(config, images, gan, beside=labels.to(gan.device)),
        keep=lambda G: _saved(G, config, images),
        train=functools.partial(train, own=own, masks=masks),
    )


def require_labels(images: ImageSet, config: RunConfig) -> None:
    """Refuse images without labels from 0 without a gap.

    Raises:
        DatasetError: saying what they lack.
    """
    one_hot_labels(images, needed_by=NEEDED_BY)


def _saved(G: Player, config: RunConfig, images: ImageSet) -> SavedShared:
    assert isinstance(G, SharedGenerator)  # noqa: S101 (we made it)
    return SavedShared(G=G, config=config, image_shape=images.image_shape)
