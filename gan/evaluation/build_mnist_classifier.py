"""Make the weights of MNIST's classifier: `python -m gan.evaluation.build_mnist_classifier`.

Trained on train[:50000], some 200 seconds of one CPU core.  Another processor or release of torch
rounds otherwise and makes other weights, near the same test accuracy, which is measured once, when
all is done.  Scores in the features of other weights do not compare with earlier ones.
"""

import argparse
import sys
from pathlib import Path

import torch

from gan.config import DataConfig
from gan.datasets.splits import load_test, load_train_valid
from gan.errors import GanError
from gan.evaluation.classifier import DEFAULTS, SHIPPED, save_classifier, train_classifier
from gan.evaluation.feature_nets import FeatureNetSettings


def build_mnist_classifier(
    destination: Path = SHIPPED, *, settings: FeatureNetSettings = DEFAULTS
) -> float:
    """Train, measure and write it; the share of test images that it names rightly.

    Args:
        destination: the folder; it is replaced in one step.
        settings: of the training; with others than the defaults the package does not use it.

    Raises:
        DatasetError: if the package's MNIST is damaged.
        OSError: if the folder cannot be written.
    """
    data = DataConfig()
    train, _ = load_train_valid(data)
    if train.labels is None:
        raise AssertionError("MNIST has labels")
    classifier = train_classifier(
        torch.from_numpy(train.images),
        torch.from_numpy(train.labels),
        seed=0,
        settings=settings,
        data_digest=train.digest,
    )
    test = load_test(data)
    answers = classifier.classes(torch.from_numpy(test.images) / 255)
    accuracy = float((answers.numpy() == test.labels).mean())
    save_classifier(destination, classifier, test_accuracy=accuracy, test_data=test.digest)
    return accuracy


def main() -> None:
    """Read the command line and build; one line on stderr if it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m gan.evaluation.build_mnist_classifier")
    parser.add_argument(
        "destination", type=Path, nargs="?", default=SHIPPED, help="default: inside the package"
    )
    try:
        accuracy = build_mnist_classifier(parser.parse_args().destination)
    except (GanError, OSError) as error:
        sys.exit(str(error))
    sys.stderr.write(f"test accuracy {accuracy:.4f}\n")


if __name__ == "__main__":
    main()
