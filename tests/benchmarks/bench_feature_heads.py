"""Errors on MNIST test of a linear layer on features that saw no label, by number of labels.

    python -m tests.benchmarks.bench_feature_heads --seeds 3 [--inference DIR] --output heads.json

Of each seed a GAN is trained by Algorithm 1 on the training images without labels; its D's hidden
layers are the features, on which a head learns from 20, 50, ... labels, drawn by the seed
(`discriminator_features`).  With `--inference` the folder of a promoted inference net, the same
is done with its features (`inference_features`): there the seed changes the labels alone.  How
strongly a head's weights are held to 0 is chosen by cross-validation on the few; validation labels
are not read, and the number of steps is fixed.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan.config import RunConfig, with_overrides
from gan.datasets.images import ImageSet
from gan.datasets.splits import load_test, load_train_valid
from gan.extensions.inference.saved import SavedInference
from gan.extensions.semi_supervised.discriminator_features import (
    FeatureClassifier,
    discriminator_head,
)
from gan.extensions.semi_supervised.few_labels import draw_few, hide
from gan.extensions.semi_supervised.run import SemiSupervisedRun
from gan.nets import Discriminator
from gan.tasks import load

GAN_SETTINGS: dict[str, Any] = {
    "generator": {"hidden": [512, 512], "batch_norm": True, "init_range": None},
    "discriminator.init_range": None,
    "train.optimizer": "adam",
    "train.learning_rate": 0.001,
    "train.decay_per_step": 1.0,
}

HEAD_SETTINGS: dict[str, Any] = {
    "train.n_steps": 3_000,
    "train.optimizer": "adam",
    "train.learning_rate": 0.01,
    "train.decay_per_step": 1.0,
}

Errors = dict[str, dict[int, list[int]]]
"""Method -> number of labels -> wrong answers of each seed."""


def n_wrong(classify: Callable[[Tensor], Tensor], test: ImageSet) -> int:
    """Wrong answers of logits [n, K] of rows [n, n_pixels]."""
    assert test.labels is not None
    rows = torch.from_numpy(test.images).flatten(1).to(torch.float32).div_(255)
    with torch.no_grad():
        answers = torch.cat([classify(part).argmax(1) for part in torch.split(rows, 1000)])
    return int((answers != torch.from_numpy(test.labels)).sum())


def of_discriminator(
    config: RunConfig, images: ImageSet, test: ImageSet, labels: Sequence[int]
) -> dict[int, int]:
    """Errors by number of labels on the features of one D."""
    assert images.labels is not None
    overrides = {"semi_supervised": {"method": "discriminator_features"}}
    run = SemiSupervisedRun(with_overrides(config, overrides), images, device="cpu")
    list(run.train())
    D = run.method.core.gan.D  # type: ignore[union-attr]
    assert isinstance(D, Discriminator)
    found = {}
    for n in labels:
        few = hide(images, draw_few(images.labels, n, seed=config.seed))
        found[n] = n_wrong(FeatureClassifier(D, discriminator_head(D, few)), test)
    return found


def of_inference(
    net: SavedInference, images: ImageSet, test: ImageSet, labels: Sequence[int], *, seed: int
) -> dict[int, int]:
    """Errors by number of labels on the features of an inference net."""
    found = {}
    for n in labels:
        section = {"semi_supervised": {"method": "inference_features", "n_labels": n}}
        config = with_overrides(RunConfig(), HEAD_SETTINGS | section | {"seed": seed})
        run = SemiSupervisedRun(config, images, device="cpu", origin=net)
        list(run.train())
        found[n] = n_wrong(run.saved().classifier, test)
    return found


def table(errors: Errors) -> str:
    """Mean and standard deviation over seeds, and each seed's."""
    lines = ["| labels | method | errors of 10,000 | by seed |", "|---|---|---|---|"]
    for method, by_labels in errors.items():
        for n, own in by_labels.items():
            spread = f" ± {statistics.stdev(own):.0f}" if len(own) > 1 else ""
            each = ", ".join(map(str, own))
            lines.append(f"| {n} | {method} | {statistics.mean(own):.0f}{spread} | {each} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", default="20,50,100,200,1000", help="numbers of labels")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ...")
    parser.add_argument("--steps", type=int, default=4_000, help="updates of each GAN; 0: no GAN")
    parser.add_argument("--inference", type=Path, help="folder of a promoted inference net")
    parser.add_argument("--output", type=Path, help="JSON file, rewritten after each seed")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    labels = [int(n) for n in args.labels.split(",")]
    config = with_overrides(RunConfig(), GAN_SETTINGS)
    (images, _), test = load_train_valid(config.data), load_test(config.data)
    errors: Errors = {}
    for seed in range(args.seeds):
        found: dict[str, dict[int, int]] = {}
        if args.steps:
            own = with_overrides(config, {"seed": seed, "train.n_steps": args.steps})
            found["discriminator_features"] = of_discriminator(own, images, test, labels)
        if args.inference is not None:
            net = load(args.inference)
            assert isinstance(net, SavedInference)
            found["inference_features"] = of_inference(net, images, test, labels, seed=seed)
        for method, by_labels in found.items():
            for n, wrong in by_labels.items():
                errors.setdefault(method, {}).setdefault(n, []).append(wrong)
        print(table(errors), flush=True)
        if args.output is not None:
            args.output.write_text(json.dumps(errors, indent=1) + "\n")


if __name__ == "__main__":
    main()
