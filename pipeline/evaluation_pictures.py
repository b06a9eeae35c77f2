"""Pictures of an evaluation: the paper's Figures 2 and 3.

* `samples.png`: a hundred samples, in the order in which they came
* `nearest.png`, Figure 2: samples, and to the right of each the training image nearest to it
* `straight.png`, Figure 3: images along straight paths between two z, one a row
* `spherical.png`: the same along arcs
"""

import contextlib
from pathlib import Path

import torch
from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.neighbours import nearest_training_images
from gan.sampling import PathSampler, save_png, tile
from pipeline.generator_scores import N_STEPS, PATHS, draw_paths

N_SAMPLES = 100
N_PAIRS, PAIRS_IN_ROW = 30, 5
N_PATHS = 8


def sample_pictures(folder: Path, samples: Tensor, *, train: Tensor) -> None:
    """Write `samples.png` and `nearest.png`.

    Args:
        folder: an existing one.
        samples: [n, c, h, w] in [0, 1].
        train: training images of that shape.
    """
    save_png(tile(samples[:N_SAMPLES], columns=10), folder / "samples.png", zoom=2)
    found = nearest_training_images(samples[:N_PAIRS], train)
    between = torch.ones_like(found.samples[..., :1])
    pairs = torch.cat([found.samples, between, found.nearest], 3)
    save_png(tile(pairs, columns=PAIRS_IN_ROW, gap=6), folder / "nearest.png", zoom=2)


def interpolation_pictures(folder: Path, sampler: PathSampler, *, seed: int) -> None:
    """Write `straight.png` and, where z has more than one coordinate, `spherical.png`."""
    for kind in PATHS:
        # A sphere in one dimension is two points, without a path between them.
        with contextlib.suppress(ScoreError):
            images = draw_paths(kind, sampler, n_paths=N_PATHS, seed=seed).flatten(0, 1)
            save_png(tile(images, columns=N_STEPS), folder / f"{kind}.png", zoom=2)
