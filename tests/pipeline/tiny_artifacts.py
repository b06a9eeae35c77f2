"""Artifacts of generators that are too small to be any good, but whole."""

from collections.abc import Mapping
from pathlib import Path

import torch

from gan.config import GeneratorConfig, PriorConfig, RunConfig
from gan.saved_generator import SavedGenerator, empty_generator
from pipeline.artifacts import Lineage, write_artifact

SHAPE = (1, 4, 4)
SCORES = {"parzen_ll_valid": 201.25, "parzen_ll_valid_se": 1.5, "parzen_sigma": 0.25}
LINEAGE = Lineage(
    run_id="0123abcd", sweep="tiny", trial="3", step=40, data_digest="d" * 64, git_commit="c" * 40
)


def tiny_generator(seed: int = 0) -> SavedGenerator:
    """Images of 4 x 4 pixels from 3 coordinates, with batch norm that has seen some z."""
    config = RunConfig(
        seed=seed,
        prior=PriorConfig(kind="gaussian", dim=3),
        generator=GeneratorConfig(hidden=(8,), batch_norm=True, init_range=None),
    )
    G = empty_generator(config, n_pixels=16)
    G(torch.randn(50, 3, generator=torch.Generator().manual_seed(seed)))
    return SavedGenerator(G=G.eval(), config=config, image_shape=SHAPE)


def write_tiny(
    folder: Path, *, seed: int = 0, scores: Mapping[str, float] | None = None
) -> SavedGenerator:
    """The artifact of `tiny_generator(seed)`, at `folder`."""
    saved = tiny_generator(seed)
    write_artifact(folder, saved=saved, scores=scores or SCORES, lineage=LINEAGE)
    return saved
