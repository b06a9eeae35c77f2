"""Scores and a picture that need a conditional generator itself: are its conditions followed?"""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from gan.config import EvaluationConfig
from gan.evaluation.condition_accuracy import NO_CLASSES, condition_accuracy
from gan.evaluation.real_images import RealImages
from gan.evaluation.suite import NO_LABELS, Evaluation
from gan.extensions.conditional import SavedConditional
from gan.metric_names import PARZEN_LL_TEST_BALANCED, PARZEN_LL_TEST_BALANCED_SE
from gan.run import score_samples
from gan.sampling import save_png, tile
from gan.saved_generator import SavedSampler

PART = "condition"
N_OF_EACH = 1_000
"""Samples of each class, as of Mirza and Osindero (2014)."""
MAX_CLASSES = 20
PICTURE = "conditions.png"
N_IN_PICTURE = 100


def with_condition_scores(
    evaluation: Evaluation, saved: SavedSampler, real: RealImages, *, seed: int
) -> Evaluation:
    """The evaluation with the accuracy of the classes asked for, where conditions are classes.

    Args:
        evaluation: of samples of all conditions.
        saved: any generator; one without conditions is passed over.
        real: the real images.
        seed: of z.
    """
    if not isinstance(saved, SavedConditional):
        return evaluation
    classify = real.log_probabilities
    if saved.n_classes is None or classify is None or saved.n_classes != len(real.class_names):
        unavailable = evaluation.unavailable | {PART: _why_not(saved, real)}
        return dataclasses.replace(evaluation, unavailable=unavailable)
    asked = torch.arange(saved.n_classes).repeat_interleave(N_OF_EACH)
    # A class at a time: all together they may be many.  Each has z of its own.
    answers = [
        classify(saved.draw([k], n=N_OF_EACH, seed=seed + k)).argmax(1)
        for k in range(saved.n_classes)
    ]
    found = condition_accuracy(asked, torch.cat(answers), names=real.class_names)
    scores = {score.name: score for score in (found.accuracy, found.lowest)}
    details = {
        "n_of_each": N_OF_EACH,
        "lowest_class": found.lowest_class,
        "by_class": {name: score.value for name, score in found.by_class.items()},
    }
    return dataclasses.replace(
        evaluation,
        scores=evaluation.scores | scores,
        details=evaluation.details | {PART: details},
    )


def _why_not(saved: SavedConditional, real: RealImages) -> str:
    if saved.n_classes is None:
        return NO_CLASSES
    if real.log_probabilities is None:
        return NO_LABELS
    return f"the generator knows {saved.n_classes} classes, the images {len(real.class_names)}"


def parzen_of_each_class(
    saved: SavedSampler, *, valid: Tensor, test: Tensor, cfg: EvaluationConfig, seed: int
) -> dict[str, float]:
    """The Parzen score of Mirza and Osindero (2014): of as many samples of each class, on test.

    Empty for a generator without classes, and for one of so many that the scores of others do not
    compare.
    """
    if not isinstance(saved, SavedConditional) or saved.n_classes not in range(MAX_CLASSES + 1):
        return {}
    rows = saved.G.conditions.rows.repeat_interleave(N_OF_EACH, 0)
    samples = saved.sampler().sample_given(rows, seed)
    score = score_samples(samples, test, valid=valid, cfg=cfg)
    return {PARZEN_LL_TEST_BALANCED: score.mean, PARZEN_LL_TEST_BALANCED_SE: score.standard_error}


def condition_picture(folder: Path, saved: SavedSampler, *, seed: int) -> None:
    """Write `conditions.png`, ten samples of a condition in each row, if there are conditions."""
    if isinstance(saved, SavedConditional):
        images = saved.sampler().showcase(N_IN_PICTURE, seed)
        save_png(tile(images, columns=10), folder / PICTURE, zoom=2)
