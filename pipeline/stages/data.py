"""Read the images, and record which they are."""

import json
import logging

import torch

from gan.datasets.splits import load_train_valid
from gan.datasets.tfd import stand_in_notice
from gan.errors import DatasetError
from gan.run import unit_pixels
from gan.sampling import save_png, tile
from pipeline.graph import Work

logger = logging.getLogger(__name__)

FACTS = "data.json"
PREVIEW_IMAGES = 100


def run(work: Work) -> None:
    """Write `data.json` (digests, counts, shape) and `preview.png` (the first training images).

    Raises:
        DatasetError: if the images cannot be read.
    """
    data = work.config.base.data
    train, valid = load_train_valid(data)
    facts = {
        "dataset": data.dataset,
        "train_digest": train.digest,
        "valid_digest": valid.digest,
        "n_train": len(train),
        "n_valid": len(valid),
        "image_shape": list(train.image_shape),
    }
    if data.is_folded and (notice := stand_in_notice(len(train))) is not None:
        logger.warning("%s: %s", data.dataset, notice)
        facts["notice"] = notice
    (work.out / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    images = torch.from_numpy(train.images[:PREVIEW_IMAGES]).float().div_(255)
    save_png(tile(images, columns=10), work.out / "preview.png", zoom=2)


def load_valid(work: Work) -> torch.Tensor:
    """The validation images for a stage after `data`, [n, channels, height, width] in [0, 1].

    Raises:
        DatasetError: if the images cannot be read, or are no longer those that `data` recorded.
    """
    data = work.config.base.data
    facts = json.loads((work.inputs["data"] / FACTS).read_text())
    train, valid = load_train_valid(data)
    if [train.digest, valid.digest] != [facts["train_digest"], facts["valid_digest"]]:
        raise DatasetError(
            f"{data.dataset} must have the images that the sweep was run with, got others: "
            f"bring the file back, or run all stages by `gan run`"
        )
    return unit_pixels(valid)
