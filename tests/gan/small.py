"""Runs small enough for a test: pictures of 4 x 4 pixels and nets of a few units."""

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from gan.config import BASELINES, RunConfig, with_overrides
from gan.datasets.images import ImageSet
from gan.run import Run, TrainingRun
from gan.saved_generator import Saved
from gan.tasks import start_run, task_of

N_PIXELS = 16

OF_ALL = {
    "device": "cpu",
    "train.n_steps": 4,
    "train.batch_size": 8,
    "train.report_every": 1,
    "train.momentum_steps": 10,
    "evaluation.score_every": 4,
}
"""What every task reads."""

SETTINGS = OF_ALL | {
    "prior.dim": 5,
    "generator.hidden": [7, 6],
    "generator.init_range": None,
    "discriminator.hidden": [6, 5],
    "discriminator.pieces": 3,
    "discriminator.init_range": None,
}
"""Those of the players, too, which a baseline has none of."""


def small_config(**overrides: object) -> RunConfig:
    """A small run; `train__d_steps=3` sets `train.d_steps`."""
    paths = {name.replace("__", "."): value for name, value in overrides.items()}
    return with_overrides(RunConfig(), SETTINGS | paths)


def small_images(n: int = 30, *, seed: int = 0) -> ImageSet:
    """Pictures of noise, one pixel of which is always black and one always white."""
    images = np.random.default_rng(seed).integers(0, 256, (n, 1, 4, 4), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 3, 3] = 0, 255
    return ImageSet(images=images, labels=None, digest="0" * 64)


def write_faces(path: Path, *, times: int = 1, is_shared: bool = True) -> str:
    """Write `times` sixteen images in the layout of the Toronto Face Database; the path.

    The first half trains in every fold, or the last half in fold 1.
    """
    rng = np.random.default_rng(0)
    labelled = np.repeat([1, 2, 2, 2, 3, 3, 3, 3], times)
    n = 2 * len(labelled)
    folds = np.zeros((n, 5), np.uint8)
    for fold in range(5):
        folds[n // 2 :, fold] = np.roll(labelled, fold)
    if not is_shared:
        folds[:, 1] = folds[::-1, 1]
    images = rng.integers(60, 160, (n, 48, 48), dtype=np.uint8)
    savemat(path, {"images": images, "folds": folds, "labs_ex": np.full((n, 1), -1)})
    return str(path)


def two_pictures() -> tuple[ImageSet, NDArray[np.float64]]:
    """Black and white pictures of which half are mostly white above, half below; and their pixels.

    A pixel differs from its half of the picture in one picture of five, whatever the others do.
    """
    above = np.array([0.8, 0.2]).repeat(8)
    rng = np.random.default_rng(0)
    pixels = np.concatenate([rng.random((500, 16)) < above, rng.random((500, 16)) < 1 - above])
    pictures = (255 * pixels).astype(np.uint8).reshape(-1, 1, 4, 4)
    return ImageSet(images=pictures, labels=None, digest="0" * 64), pixels.astype(np.float64)


INDEPENDENT_NATS = 16 * np.log(2)
"""-log p of such a picture, in the mean, where no pixel tells of another."""
TRUE_NATS = np.log(2) - 16 * (0.8 * np.log(0.8) + 0.2 * np.log(0.2))
"""The same under the distribution they are drawn from, but for the few of which one cannot tell
whether they are white above or below: 8.7."""


def small_run(**overrides: object) -> Run:
    """A small run at step 0, on the CPU."""
    return Run(small_config(**overrides), small_images(), device="cpu")


EXTENSIONS = {
    "conditional": {"conditional": {}},
    "conditional_vectors": {"conditional": {"on": "vectors", "scale": 0.5}},
    "inference": {"inference": {"hidden": [6, 5]}},
    "inference_of_layers": {
        "train.learning_rate": 0.01,
        "inference": {
            "hidden": [6],
            "layers": [0, 2],
            "reconstruction": 1.0,
            "dropout_input": 0.2,
            "rotation": 20.0,
            "zoom": 0.1,
            "shear": 0.1,
            "shift": 1.0,
            "noise": 0.1,
            "distort_images": True,
        },
    },
    "inference_joint": {"inference": {"hidden": [6], "layers": [1], "generator": "joint"}},
    "inference_joint_fresh": {
        "inference": {
            "hidden": [6],
            "generator": "joint",
            "joint_z": "fresh",
            "reconstruction": 0.5,
        }
    },
    "shared_conditional": {
        "shared_conditional": {"encoder_channels": [2, 3], "encoder_hidden": [6, 5]}
    },
    "shared_conditional_dense": {
        "shared_conditional": {"encoder_channels": [], "encoder_hidden": [6, 5]}
    },
    **{
        f"learned_prior_{method}": {"learned_prior": {"method": method, "n_components": 3}}
        for method in ("stacked", "mixture", "importance", "top_k", "fixed")
    },
    "semi_supervised": {
        "semi_supervised": {"n_labels": 6, "hidden": [9, 8], "generator_hidden": [7, 6]}
    },
    "semi_supervised_consistent": {
        "semi_supervised": {
            "n_labels": 6,
            "hidden": [9, 8],
            "generator_hidden": [7, 6],
            "consistency_weight": 0.5,
            "consistency_power": 2.0,
            "consistency_balance": True,
            "rotation": 10.0,
            "shift": 1.0,
        }
    },
    "semi_supervised_discriminator_features": {
        "semi_supervised": {"method": "discriminator_features", "n_labels": 6}
    },
    "semi_supervised_inference_features": {
        "semi_supervised": {"method": "inference_features", "n_labels": 6}
    },
    "vae": {"vae": {"dim": 3, "hidden": [6, 5]}},
    "stacked_cae": {"stacked_cae": {"hidden": [6, 5], "burn_in": 3, "samples_per_chain": 3}},
    "gsn": {"gsn": {"hidden": [6, 5], "hidden_noise": 0.5, "burn_in": 3}},
    "gsn_of_three_layers": {"gsn": {"hidden": [6, 5, 4], "burn_in": 3, "samples_per_chain": 3}},
    "dbn": {"dbn": {"hidden": [6, 5], "sample_burn_in": 3, "sample_thin": 2}},
    "dbn_of_fresh_chains": {
        "dbn": {
            "hidden": [6, 5, 4],
            "persistent": False,
            "gibbs_steps": 2,
            "sample_burn_in": 3,
            "sample_thin": 2,
        }
    },
    "dbm": {"dbm": {"hidden": [6, 5], "sample_burn_in": 3, "sample_thin": 2}},
}
"""Every extension and baseline, and every kind of it, as settings."""

RIVALS = tuple(name for name, section in EXTENSIONS.items() if section.keys() & set(BASELINES))
"""Those that are of a baseline."""


def labelled_images(n: int = 30, *, seed: int = 0) -> ImageSet:
    """The same pictures, of three classes, with two numbers beside each."""
    plain = small_images(n, seed=seed)
    numbers = np.random.default_rng(seed).random((n, 2), dtype=np.float32)
    labels = np.arange(n, dtype=np.int64) % 3
    return dataclasses.replace(plain, labels=labels, conditions=numbers)


def origin_of(config: RunConfig) -> Saved | None:
    """What a small run of an extension starts from, untrained; None where it needs nothing."""
    task = task_of(config).origin(config)
    if task is None:
        return None
    config = with_overrides(RunConfig(), SETTINGS | EXTENSIONS.get(task, {}))
    return start_run(config, labelled_images(), device="cpu", origin=origin_of(config)).saved()


def start_extension(name: str, *, on: str = "cpu", **overrides: object) -> TrainingRun:
    """A small run of an extension at step 0, on a device."""
    paths = {key.replace("__", "."): value for key, value in overrides.items()}
    shared = OF_ALL if name in RIVALS else SETTINGS
    config = with_overrides(RunConfig(), shared | EXTENSIONS[name] | paths)
    return start_run(config, labelled_images(), device=on, origin=origin_of(config))
