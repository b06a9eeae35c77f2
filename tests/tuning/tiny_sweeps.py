"""Sweeps that take seconds: 300 images of 8 by 8 pixels, nets of 16 units, 40 updates."""

from pathlib import Path
from typing import Any

import numpy as np

from gan.config import PipelineConfig, load_config
from tuning.ledger import TrialResult

SPACE = {
    "train.d_steps": {"choice": [1, 2]},
    "discriminator.dropout_hidden": {"uniform": [0.0, 0.6]},
}


def write_images(folder: Path) -> Path:
    """300 pictures of one bright quarter and noise, as a user's .npz; the last 100 validate."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (300, 8, 8), dtype=np.uint8)
    for image, quarter in zip(images, rng.integers(0, 4, 300), strict=True):
        top, left = 4 * (quarter // 2), 4 * (quarter % 2)
        image[top : top + 4, left : left + 4] += 150
    path = folder / "quarters.npz"
    np.savez(path, images=images)
    return path


def tiny_config(dataset: Path | str, *assignments: str, **sweep: Any) -> PipelineConfig:
    """A sweep of four trials, 40 updates each, reported every 5 and scored every 10."""
    base = {
        "data": {"dataset": str(dataset), "n_valid": 100},
        "prior": {"dim": 4},
        "generator": {"hidden": [16]},
        "discriminator": {"hidden": [16], "pieces": 2},
        # Batches of 30 from 200 images, so that no checkpoint falls on the end of an epoch.
        "train": {"n_steps": 40, "batch_size": 30, "report_every": 5, "learning_rate": 0.05},
        "evaluation": {"score_every": 10, "n_samples": 100, "n_sigma_images": 50},
    }
    # Of images this small no feature space has few enough dimensions without a net of its own.
    objective = {"objective": "parzen_ll_valid"}
    settings = {"n_trials": 4, "scheduler": "fifo", "space": SPACE} | objective | sweep
    return load_config({"name": "tiny", "base": base, "sweep": settings}, assignments)


def a_result(trial: int, **changes: Any) -> TrialResult:
    """A trial that finished with a score of `-trial` nats at step 10."""
    fields: dict[str, Any] = {
        "trial": trial,
        "status": "finished",
        "cause": None,
        "is_final": True,
        "overrides": {},
        "seed": trial,
        "run_id": f"run{trial}",
        "objective": "parzen_ll_valid",
        "elapsed_seconds": 1.5,
        "history": scores(10, [float(-trial)]),
    }
    return TrialResult(**fields | changes)


def scores(
    every: int, values: list[float], metric: str = "parzen_ll_valid"
) -> list[dict[str, float]]:
    """A history with a score every so many steps."""
    return [
        {"step": every * (i + 1), "d_loss": 1.0, metric: value} for i, value in enumerate(values)
    ]
