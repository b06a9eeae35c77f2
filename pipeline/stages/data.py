"""Read the images, and record which they are."""

import json

import torch

from gan.datasets.splits import load_train_valid
from gan.sampling import save_png, tile
from pipeline.graph import Work

FACTS = "data.json"
PREVIEW_IMAGES = 100


def run(work: Work) -> None:
    """Write `data.json` (digests, counts, shape) and `preview.png` (the first training images).

    Raises:
        DatasetError: if the images cannot be read.
    """
    train, valid = load_train_valid(work.config.base.data)
    facts = {
        "dataset": work.config.base.data.dataset,
        "train_digest": train.digest,
        "valid_digest": valid.digest,
        "n_train": len(train),
        "n_valid": len(valid),
        "image_shape": list(train.image_shape),
    }
    (work.out / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    images = torch.from_numpy(train.images[:PREVIEW_IMAGES]).float().div_(255)
    save_png(tile(images, columns=10), work.out / "preview.png", zoom=2)
