"""The evaluation suite on a data set, and what it leaves in a folder and in MLflow."""

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gan.config import DataConfig, EvaluationConfig, PipelineConfig
from gan.datasets.images import ImageSet
from gan.datasets.splits import load_test, load_train_valid
from gan.datasets.stacked_mnist import NAME as STACKED
from gan.evaluation.classifier import SHIPPED, cached_classifier, load_classifier
from gan.evaluation.feature_nets import FeatureNetSettings
from gan.evaluation.features import Extractor, build_extractor
from gan.evaluation.real_images import RealImages
from gan.evaluation.stacked_mnist import digits_of_stacks
from gan.evaluation.suite import Evaluation
from gan.metric_names import (
    FEW_LABELS_ACCURACY,
    FEW_LABELS_NATS,
    FRECHET_DISTANCE_TEST,
    FRECHET_DISTANCE_VALID,
    PARZEN_LL_TEST,
    PARZEN_LL_TEST_FINE,
    PARZEN_LL_VALID,
    PARZEN_LL_VALID_FINE,
)
from gan.run import unit_pixels
from pipeline.gate import Check

Split = Literal["valid", "test"]

HEADLINE = (
    FRECHET_DISTANCE_VALID,
    FRECHET_DISTANCE_TEST,
    PARZEN_LL_VALID,
    PARZEN_LL_TEST,
    PARZEN_LL_VALID_FINE,
    PARZEN_LL_TEST_FINE,
    "precision_valid",
    "recall_valid",
    "coverage_valid",
)
"""The winner's scores that are told wherever there is no room for forty, beside those of its
product."""

EVALUATION, PAIRED, PICTURES = "evaluation.json", "paired.npz", "pictures"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Samples with their scores and the verdict of each check.

    Attributes:
        evaluation: every score.
        checks: of the samples alone, without a champion.
        split: which images scored them.
        run_id: of MLflow's run that has all this; None if it was not told.
    """

    evaluation: Evaluation
    checks: tuple[Check, ...]
    split: Split
    run_id: str | None

    def summary(self) -> dict[str, Any]:
        """Every score by the name of its metric, and the verdicts, as JSON values."""
        refused_by = [check.name for check in self.checks if not check.passed]
        return {
            "n_samples": self.evaluation.n_samples,
            **by_metric_name(self.evaluation, self.split),
            "scores": self.evaluation.record()["scores"],
            "refused_by": refused_by,
            "checks": [asdict(check) for check in self.checks],
            "unavailable": self.evaluation.unavailable,
            "details": self.evaluation.details,
            "run_id": self.run_id,
        }


def extractors_folder(workspace: Path) -> Path:
    """Where the nets that give features are kept for all workspaces of a working folder."""
    return workspace.absolute().parent / ".extractors"


def prepare_extractor(config: PipelineConfig, extractors: Path) -> None:
    """Train the net that gives features once, before trials ask for it each on their own.

    Raises:
        CheckpointError: if the one in the folder is damaged.
        ConfigError: if the user's own extractor cannot be used.
        DatasetError: if the images cannot be read, or their labels have gaps.
    """
    if config.sweep.objective == FRECHET_DISTANCE_VALID:
        train, _ = load_train_valid(config.base.data)
        build_extractor(config.base.evaluation, config.base.data, train, folder=extractors)


def real_images(
    data: DataConfig, cfg: EvaluationConfig, *, split: Split, extractors: Path
) -> RealImages:
    """The real images that samples are scored against.

    Args:
        data: the images.
        cfg: settings of the scores.
        split: which images are scored; widths are chosen on validation images in any case.
        extractors: folder of the nets that give features; training one takes minutes.

    Raises:
        CheckpointError: if a net in the folder is damaged.
        ConfigError: if the user's own extractor cannot be used.
        DatasetError: if the images cannot be read.
    """
    train, valid = load_train_valid(data)
    scored = valid if split == "valid" else load_test(data)
    extractor = build_extractor(cfg, data, train, folder=extractors)
    log_probabilities, class_names, read_digits = None, [], None
    if train.labels is not None:
        settings = FeatureNetSettings(n_steps=cfg.extractor_steps)
        classifier = cached_classifier(train, folder=extractors, settings=settings)
        log_probabilities = classifier.log_probabilities
        class_names = [str(label) for label in range(classifier.n_classes)]
    if data.dataset == STACKED:
        classify = load_classifier(SHIPPED).classes
        read_digits = functools.partial(digits_of_stacks, classify=classify)
    return RealImages(
        train=_pixels(train),
        valid=_pixels(valid),
        scored=_pixels(scored),
        extractor=extractor,
        log_probabilities=log_probabilities,
        class_names=class_names,
        read_digits=read_digits,
        n_sigma_images=cfg.n_sigma_images,
        chunk=cfg.chunk,
    )


OF_NO_SPLIT = (FEW_LABELS_NATS, FEW_LABELS_ACCURACY)
"""Scores of the labelled training images, whatever split the others are of."""


def by_metric_name(evaluation: Evaluation, split: Split) -> dict[str, float]:
    """Every score and standard error by the name of its metric: `precision_valid`."""
    metrics: dict[str, float] = {}
    for name, score in evaluation.scores.items():
        metric = name if name in OF_NO_SPLIT else f"{name}_{split}"
        metrics[metric] = score.value
        if score.standard_error is not None:
            metrics[f"{metric}_se"] = score.standard_error
    return metrics


def paired_values(evaluation: Evaluation) -> dict[str, NDArray[np.float64]]:
    """By objective: what the same real images, or groups of them, say of these samples.

    Two sets of samples compare by the mean of the differences, paired, and its standard error.
    """
    values: dict[str, Tensor | None] = {
        PARZEN_LL_VALID: evaluation.parzen_ll,
        FRECHET_DISTANCE_VALID: evaluation.frechet_by_group,
    }
    return {name: value.numpy() for name, value in values.items() if value is not None}


def write_evaluation(folder: Path, evaluation: Evaluation, extractor: Extractor | None) -> None:
    """Write `evaluation.json`: every score with its interval, and the feature space, if any."""
    space = {"name": extractor.name, "digest": extractor.digest} if extractor else None
    record: dict[str, Any] = evaluation.record() | {"extractor": space}
    (folder / EVALUATION).write_text(json.dumps(record, indent=2) + "\n")


def read_evaluation(folder: Path) -> tuple[Evaluation, str]:
    """What `write_evaluation` wrote, and the digest of the extractor; empty without one."""
    record = json.loads((folder / EVALUATION).read_text())
    space = record["extractor"]
    return Evaluation.from_record(record), str(space["digest"]) if space else ""


def _pixels(images: ImageSet) -> Tensor:
    return unit_pixels(images).float()
