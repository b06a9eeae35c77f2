"""The score of samples that any program wrote to a file."""

from pathlib import Path
from typing import Any, Literal

import torch

from gan.config import DataConfig, EvaluationConfig
from gan.datasets.files import read_samples
from gan.datasets.splits import load_test, load_train_valid
from gan.errors import DatasetError
from gan.evaluation.parzen import FINE_GRID, PAPER_GRID, choose_sigma, parzen_scores
from gan.run import unit_pixels


def score_file(
    file: Path, *, data: DataConfig, split: Literal["valid", "test"] | str
) -> dict[str, Any]:
    """Parzen scores of samples by both grids, with their standard errors over images.

    Args:
        file: samples in [0, 1]; see `gan.datasets.files.read_samples`.
        data: the images.
        split: which images are scored; widths are chosen on validation images in any case.

    Raises:
        DatasetError: if a file cannot be read, or samples and images differ in shape.
    """
    cfg = EvaluationConfig()
    samples = torch.from_numpy(read_samples(file))
    _, valid_images = load_train_valid(data)
    valid = unit_pixels(valid_images)
    images = valid if split == "valid" else unit_pixels(load_test(data))
    if samples.shape[1:] != images.shape[1:]:
        raise DatasetError(
            f"{file}: samples must have the shape of the images of {data.dataset}, "
            f"{list(images.shape[1:])}, got {list(samples.shape[1:])}"
        )
    sigmas = [
        choose_sigma(valid[: cfg.n_sigma_images], samples, grid=grid, chunk=cfg.chunk)
        for grid in (PAPER_GRID, FINE_GRID)
    ]
    paper, fine = parzen_scores(images, samples, sigmas=sigmas, chunk=cfg.chunk)
    return {
        "n_samples": len(samples),
        f"parzen_ll_{split}": paper.mean,
        f"parzen_ll_{split}_se": paper.standard_error,
        "parzen_sigma": paper.sigma,
        f"parzen_ll_{split}_fine": fine.mean,
        "parzen_sigma_fine": fine.sigma,
    }
