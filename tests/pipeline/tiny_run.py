"""A whole run that is as small as it can be: images of 8 x 8 pixels, nets of 16 units."""

from pathlib import Path

import numpy as np
import yaml

from gan.tasks import TASKS

LENIENT = {
    "max_frechet_ratio": 1e9,
    "min_precision": 0.0,
    "min_coverage": 0.0,
    "max_outliers": 1.0,
    "max_copies": 1.0,
    "max_near_repeats": 1.0,
    "min_authenticity": 0.0,
    "max_grey_ratio": 1e9,
    "min_condition_accuracy": 0.0,
    "min_class_accuracy": 0.0,
    "min_completion_gain": -1e9,
    "min_agreement_gain": -1.0,
    "max_classification_error": 1.0,
    "max_unexplained": 1e9,
    "allow_unavailable": True,
}
"""Limits of the gate that any samples pass."""

SETTINGS = {
    "name": "tiny",
    "base": {
        "data": {"dataset": "train.npz", "test_path": "test.npz", "n_valid": 100},
        "prior": {"dim": 8},
        "generator": {"hidden": [16], "init_range": None},
        "discriminator": {"hidden": [16], "pieces": 2, "init_range": None},
        "train": {
            "n_steps": 60,
            "report_every": 10,
            "optimizer": "adam",
            "learning_rate": 0.001,
            "decay_per_step": 1.0,
        },
        "evaluation": {
            "score_every": 20,
            "n_samples": 200,
            "n_sigma_images": 50,
            "extractor_steps": 20,
        },
    },
    "sweep": {
        "n_trials": 2,
        "scheduler": "fifo",
        "space": {
            "train.d_steps": {"choice": [1, 2]},
            "prior.kind": {"choice": ["uniform", "gaussian"]},
        },
    },
    # What 60 updates come to is no good, and 200 samples are too few for some scores.
    "promote": {"model": "tiny-generator", "limits": LENIENT},
}


N_EXTRACTOR_STEPS = 200
"""Minibatches until a classifier tells the two classes apart."""
N_VALID = 200
"""Validation images of a labelled set: so many, because a classifier's features are many."""


def bright_squares(n: int, seed: int) -> np.ndarray:
    """Images [n, 8, 8] uint8 of a bright square or a bright bar on dark noise."""
    images, _ = squares_and_bars(n, seed)
    return images


def squares_and_bars(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same with their classes [n] int64: 0 of a bar, 1 of a square."""
    rng = np.random.default_rng(seed)
    images = 60 * rng.random((n, 8, 8))
    is_square = rng.random(n) < 0.5
    images[is_square, 2:6, 2:6] += 150
    images[~is_square, :, 3:5] += 150
    return images.astype(np.uint8), is_square.astype(np.int64)


def write_images(folder: Path, *, has_test: bool = True) -> None:
    """Write train.npz and perhaps test.npz."""
    np.savez(folder / "train.npz", images=bright_squares(400, 1))
    if has_test:
        np.savez(folder / "test.npz", images=bright_squares(120, 2))


def write_labelled_images(folder: Path) -> None:
    """Write train.npz and test.npz with classes and, as a vector of conditions, these again."""
    for name, n, seed in (("train", 500, 1), ("test", 200, 2)):
        images, labels = squares_and_bars(n, seed)
        conditions = np.stack([labels, 1 - labels], 1).astype(np.float32)
        np.savez(folder / f"{name}.npz", images=images, labels=labels, conditions=conditions)


def write_extension(folder: Path, name: str, section: dict[str, object]) -> None:
    """Write NAME.yaml: a run as tiny.yaml has it, of an extension and one trial."""
    changes = {
        "data": SETTINGS["base"]["data"] | {"n_valid": N_VALID},
        # Long enough for both classes to be there.
        "train": SETTINGS["base"]["train"] | {"n_steps": 600, "learning_rate": 0.003},
        "evaluation": SETTINGS["base"]["evaluation"]
        | {"score_every": 300, "extractor_steps": N_EXTRACTOR_STEPS},
    }
    base = SETTINGS["base"] | changes | section
    (objective, *_) = next(TASKS[key].objectives for key in section if key in TASKS)
    sweep = {"n_trials": 1, "objective": objective}
    settings = SETTINGS | {"name": name, "base": base, "sweep": sweep}
    settings["promote"] = SETTINGS["promote"] | {"model": name}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings))


def write_settings(folder: Path) -> None:
    """Write tiny.yaml."""
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
