"""What a run of the shared model is scored by while it trains: completions of held-out images."""

import functools
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gan.config import DataConfig
from gan.datasets.images import ImageSet
from gan.errors import DatasetError
from gan.evaluation.completion import (
    N_DRAWS,
    Answer,
    Questions,
    log_likelihoods,
    questions,
)
from gan.extensions.shared_conditional.saved import SavedShared, SharedSampler
from gan.metric_names import (
    CLASSIFICATION_ERROR_VALID,
    CLASSIFICATION_ERROR_VALID_SE,
    COMPLETION_LL_VALID,
    COMPLETION_LL_VALID_SE,
)
from gan.run import unit_pixels
from gan.validation import Scored, Validation, load_data

QUESTION_SEED = 0
"""The same questions in every run, so that two runs compare image by image."""
N_QUESTIONS = 750
"""Images; a third of them chooses the width of the observation model, the others are scored."""
Z_SCALES = (0.5, 0.75, 1.0)
"""What z is multiplied by for the likelihood: the best on the images that choose the width, as
fewer or more neighbours are for completions by training images."""
GREY = 0.5
"""How a hidden pixel is shown."""
SHOWN_IN_ROW = 10


def score_shared(saved: SavedShared, validation: Validation) -> Scored:
    """Log-likelihood of hidden pixels, and classification error; a picture of completions."""
    data, seed = validation.config.data, validation.config.seed
    sampler = saved.sampler()
    asked = _validation_questions(data)
    third = len(asked["half"]) // 3
    pairs = {
        group: (one.part(0, third), one.part(third, len(one))) for group, one in asked.items()
    }
    found = completion_log_likelihoods(sampler, pairs, seed=seed)
    images, labels = labelled(load_data(data)[1])
    wrong = classification_errors(sampler, images, labels)
    return Scored(
        scores={
            COMPLETION_LL_VALID: found.mean().item(),
            COMPLETION_LL_VALID_SE: _standard_error(found),
            CLASSIFICATION_ERROR_VALID: wrong.mean().item(),
            CLASSIFICATION_ERROR_VALID_SE: _standard_error(wrong),
        },
        picture=completions_picture(sampler, asked, seed=seed),
    )


def completion_log_likelihoods(
    sampler: SharedSampler, asked: Mapping[str, tuple[Questions, Questions]], *, seed: int
) -> Tensor:
    """Of each scored image, the mean over all groups of masks, nats a hidden pixel: [n] float64.

    Args:
        sampler: completes them.
        asked: by group, questions that choose and those that are scored; the same images in each.
        seed: of the noise.
    """
    ways = ways_of(sampler, seed=seed)
    by_group = [log_likelihoods(*pair, ways=ways) for pair in asked.values()]
    return torch.stack(by_group).mean(0)


def ways_of(sampler: SharedSampler, *, seed: int) -> dict[float, Answer]:
    """Completions by z as it is drawn, at 1, and nearer to its mean."""
    return {scale: answer_by(sampler, seed=seed, z_scale=scale) for scale in Z_SCALES}


def answer_by(
    sampler: SharedSampler, *, seed: int, draws: int = N_DRAWS, z_scale: float = 1.0
) -> Answer:
    """The completions of a shared model; each part of the questions has noise of its own.

    Args:
        sampler: completes.
        seed: of the noise.
        draws: completions of each image.
        z_scale: what z is multiplied by.
    """

    def answer(asked: Questions, start: int) -> Tensor:
        labels = asked.labels if asked.is_label_visible else None
        found = sampler.complete(
            asked.images,
            asked.mask,
            labels=labels,
            draws=draws,
            seed=seed + start,
            z_scale=z_scale,
        )
        return found.images.cpu()

    return answer


def best_answer(sampler: SharedSampler) -> Answer:
    """One completion of each: of the most probable class, and with z at its mean."""

    def answer(asked: Questions, start: int) -> Tensor:
        labels = asked.labels if asked.is_label_visible else None
        found = sampler.complete(
            asked.images,
            asked.mask,
            labels=labels,
            draws=1,
            seed=0,  # nothing of it is left
            is_label_drawn=False,
            z_scale=0.0,
        )
        return found.images.cpu()

    return answer


def classification_errors(sampler: SharedSampler, images: Tensor, labels: Tensor) -> Tensor:
    """1 where the most probable class given all pixels is not that of the image, else 0, [n].

    Args:
        sampler: knows the classes.
        images: [n, channels, height, width] in [0, 1].
        labels: int64 [n].
    """
    found = sampler.log_probabilities(images, torch.ones_like(images)).argmax(1)
    return (found.cpu() != labels).double()


def completions_picture(
    sampler: SharedSampler, asked: Mapping[str, Questions], *, seed: int
) -> Tensor:
    """Ten images in a row: an image, what is visible of it, and eight completions.

    Two rows for each group of masks, of other images in each: [20 * groups, c, h, w].
    """
    rows = []
    for i, one in enumerate(asked.values()):
        part = one.part(2 * i, 2 * i + 2)
        found = sampler.complete(
            part.images,
            part.mask,
            labels=part.labels if part.is_label_visible else None,
            draws=SHOWN_IN_ROW - 2,
            seed=seed,
        ).images.cpu()
        visible = torch.where(part.mask > 0, part.images, GREY)
        rows.append(torch.cat([part.images[:, None], visible[:, None], found], 1))
    return torch.cat(rows).flatten(0, 1)


def labelled(images: ImageSet) -> tuple[Tensor, Tensor]:
    """Pixels in [0, 1], float32 [n, channels, height, width], and labels, int64 [n].

    Raises:
        DatasetError: there are no labels.
    """
    if images.labels is None:
        raise DatasetError("the classes of completions need images with labels")
    return unit_pixels(images).float(), torch.from_numpy(images.labels)


@functools.lru_cache(maxsize=1)
def _validation_questions(data: DataConfig) -> dict[str, Questions]:
    images, labels = labelled(load_data(data)[1])
    return questions(images, labels, n=N_QUESTIONS, seed=QUESTION_SEED)


def _standard_error(values: Tensor) -> float:
    return values.std().item() / math.sqrt(len(values))
