"""Generators of 8 x 8 pixels that nobody trained, in each form that `gan evaluate` takes."""

from pathlib import Path

import torch

from gan.checkpoint import save_checkpoint
from gan.config import load_config
from gan.saved_generator import SavedGenerator, empty_generator
from gan.tasks import run_facts, save
from tests.pipeline.tiny_run import SETTINGS

SHAPE = (1, 8, 8)


def untrained(*assignments: str) -> SavedGenerator:
    """A generator as `tiny.yaml` has it, but for the assignments; its images differ visibly."""
    config = load_config(SETTINGS, assignments).base
    G = empty_generator(config, n_pixels=64)
    with torch.no_grad():
        for weights in G.parameters():
            weights.mul_(3)
    return SavedGenerator(G=G.eval().requires_grad_(False), config=config, image_shape=SHAPE)


def write_folder(folder: Path, saved: SavedGenerator) -> Path:
    """As `gan train` leaves it."""
    folder.mkdir()
    save(folder, saved)
    return folder


def write_checkpoint(folder: Path, saved: SavedGenerator, **meta: object) -> Path:
    """As a trial leaves it: the tensors of G under `G/`."""
    tensors = {f"G/{name}": tensor for name, tensor in saved.G.state_dict().items()}
    facts = run_facts(saved.config, saved.image_shape)
    return save_checkpoint(folder, step=7, tensors=tensors, meta=facts | meta)
