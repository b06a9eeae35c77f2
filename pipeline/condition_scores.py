"""Scores and a picture that need a conditional generator itself: are its conditions followed?"""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from gan.config import EvaluationConfig
from gan.errors import ScoreError
from gan.evaluation.condition_accuracy import NO_CLASSES, condition_accuracy
from gan.evaluation.real_images import RealImages
from gan.evaluation.suite import Evaluation
from gan.extensions.conditional import SavedConditional
from gan.metric_names import PARZEN_LL_TEST_BALANCED, PARZEN_LL_TEST_BALANCED_SE
from gan.run import score_samples
from gan.sampling import save_png, tile
from gan.saved_generator import SavedSampler

PART = "condition"
N_OF_EACH = 1_000
"""Samples of each class, as of Mirza and Osindero (2014)."""
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
    if saved.n_classes is None or real.log_probabilities is None:
        return dataclasses.replace(
            evaluation, unavailable=evaluation.unavailable | {PART: NO_CLASSES}
        )
    asked, samples = samples_of_each_class(saved, seed=seed)
    answers = real.log_probabilities(samples).argmax(1)
    try:
        found = condition_accuracy(asked, answers, names=real.class_names)
    except ScoreError as error:
        unavailable = evaluation.unavailable | {PART: str(error)}
        return dataclasses.replace(evaluation, unavailable=unavailable)
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


def parzen_of_each_class(
    saved: SavedSampler, *, valid: Tensor, test: Tensor, cfg: EvaluationConfig, seed: int
) -> dict[str, float]:
    """The Parzen score of Mirza and Osindero (2014): of as many samples of each class, on test.

    Empty for a generator without classes.
    """
    if not isinstance(saved, SavedConditional) or saved.n_classes is None:
        return {}
    _, samples = samples_of_each_class(saved, seed=seed)
    score = score_samples(samples, test, valid=valid, cfg=cfg)
    return {PARZEN_LL_TEST_BALANCED: score.mean, PARZEN_LL_TEST_BALANCED_SE: score.standard_error}


def samples_of_each_class(saved: SavedConditional, *, seed: int) -> tuple[Tensor, Tensor]:
    """`N_OF_EACH` samples of each class: the class of each, int64 [n], and the images."""
    rows = saved.G.conditions.rows
    asked = torch.arange(len(rows)).repeat_interleave(N_OF_EACH)
    return asked, saved.sampler().sample_given(rows[asked], seed)


def condition_picture(folder: Path, saved: SavedSampler, *, seed: int) -> None:
    """Write `conditions.png`, ten samples of a condition in each row, if there are conditions."""
    if isinstance(saved, SavedConditional):
        images = saved.sampler().showcase(N_IN_PICTURE, seed)
        save_png(tile(images, columns=10), folder / PICTURE, zoom=2)
