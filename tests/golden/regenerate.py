"""The losses of 20 steps of two small runs on MNIST, pinned in `losses.json`.

A change of these numbers means that every run with the same settings and seed trains differently:
it is performance-impacting, and says so.  `python -m tests.golden.regenerate` rewrites the file.
"""

import dataclasses
import json
from pathlib import Path

import torch

from gan.config import RunConfig, with_overrides
from gan.datasets.images import ImageSet
from gan.datasets.mnist import read_mnist
from gan.run import Run

FILE = Path(__file__).with_name("losses.json")

SHARED = {
    "device": "cpu",
    "train.n_steps": 20,
    "train.report_every": 1,
    "train.batch_size": 50,
    "generator.hidden": [64, 64],
    "discriminator.hidden": [32, 32],
    # The paper's narrow range leaves D undecided for longer than 20 steps.
    "generator.init_range": None,
    "discriminator.init_range": None,
}
SETTINGS = {
    "alternating": SHARED
    | {
        "train.d_steps": 2,
        "train.optimizer": "adam",
        "train.learning_rate": 0.001,
        "prior.kind": "gaussian",
        "generator.batch_norm": True,
        "generator.dropout_hidden": 0.1,
    },
    "simultaneous": SHARED | {"train.update_order": "simultaneous", "train.d_loss_scale": 0.5},
}


def losses(order: str) -> list[list[float]]:
    """d_loss, g_loss, d_real_mean and d_fake_mean of each step."""
    whole = read_mnist("train")
    images = ImageSet(images=whole.images[:1_000], labels=None, digest=whole.digest)
    run = Run(with_overrides(RunConfig(), SETTINGS[order]), images, device="cpu")
    reports = [dataclasses.asdict(progress) for progress in run.train()]
    names = ("d_loss", "g_loss", "d_real_mean", "d_fake_mean")
    return [[report[name] for name in names] for report in reports]


def main() -> None:
    """Write the losses of both orders."""
    torch.set_num_threads(1)
    rows = {order: [[round(x, 7) for x in row] for row in losses(order)] for order in SETTINGS}
    text = json.dumps(rows, indent=1)
    FILE.write_text(text.replace("\n   ", " ").replace("\n  ]", "]") + "\n")


if __name__ == "__main__":
    main()
