"""Runs small enough for a test: pictures of 4 x 4 pixels and nets of a few units."""

import numpy as np

from gan.config import RunConfig, with_overrides
from gan.datasets.images import ImageSet
from gan.run import Run

N_PIXELS = 16

SETTINGS = {
    "device": "cpu",
    "prior.dim": 5,
    "generator.hidden": [7, 6],
    "generator.init_range": None,
    "discriminator.hidden": [6, 5],
    "discriminator.pieces": 3,
    "discriminator.init_range": None,
    "train.n_steps": 4,
    "train.batch_size": 8,
    "train.report_every": 1,
    "train.momentum_steps": 10,
    "evaluation.score_every": 4,
}


def small_config(**overrides: object) -> RunConfig:
    """A small run; `train__d_steps=3` sets `train.d_steps`."""
    paths = {name.replace("__", "."): value for name, value in overrides.items()}
    return with_overrides(RunConfig(), SETTINGS | paths)


def small_images(n: int = 30, *, seed: int = 0) -> ImageSet:
    """Pictures of noise, one pixel of which is always black and one always white."""
    images = np.random.default_rng(seed).integers(0, 256, (n, 1, 4, 4), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 3, 3] = 0, 255
    return ImageSet(images=images, labels=None, digest="0" * 64)


def small_run(**overrides: object) -> Run:
    """A small run at step 0, on the CPU."""
    return Run(small_config(**overrides), small_images(), device="cpu")
