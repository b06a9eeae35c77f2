"""Scores that need the generator itself: paths between two z, and its log-likelihood."""

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.ais import (
    AisSettings,
    ais_score,
    bidirectional_gap,
    choose_sigma,
)
from gan.evaluation.interpolation import (
    path_confidence,
    relative_path_length,
    spherical_path,
    squared_path_speed,
    straight_path,
)
from gan.evaluation.real_images import RealImages
from gan.evaluation.score import Score
from gan.evaluation.smooth_priors import smooth_prior
from gan.evaluation.suite import Evaluation
from gan.randomness import stream
from gan.sampling import PathSampler
from gan.saved_generator import SavedGenerator, SavedSampler

PATHS: dict[str, Callable[..., Tensor]] = {"straight": straight_path, "spherical": spherical_path}
N_PATHS, N_STEPS = 200, 11

SIGMAS = (0.05, 0.1, 0.15, 0.2, 0.3)
"""Widths of the observation model to choose from; each costs a whole estimate."""
N_CHOOSING = 20
"""Most images by which the width is chosen."""
MIN_LIKELIHOOD_IMAGES = 2


def with_path_scores(
    evaluation: Evaluation, sampler: PathSampler, real: RealImages, *, seed: int
) -> Evaluation:
    """The evaluation with the lengths, speeds and confidence of straight and spherical paths."""
    scores, unavailable = dict(evaluation.scores), dict(evaluation.unavailable)
    for kind in PATHS:
        try:
            found = _path_scores(kind, sampler, real, seed=seed)
        except ScoreError as error:
            unavailable[f"{kind}_paths"] = str(error)
            continue
        scores |= {score.name: score for score in found}
    return dataclasses.replace(evaluation, scores=scores, unavailable=unavailable)


def draw_paths(kind: str, sampler: PathSampler, *, n_paths: int, seed: int) -> Tensor:
    """Images along paths between independent z: [n_paths, N_STEPS, c, h, w].

    Raises:
        ScoreError: the ends of a spherical path are opposite, as they are where dim = 1, or 0.
    """
    ends = sampler.prior.sample(2 * n_paths, stream(seed, "interpolation"))
    try:
        z = PATHS[kind](*ends.chunk(2), n_steps=N_STEPS)
    except ValueError as error:
        raise ScoreError(str(error)) from error
    return sampler.decode_paths(z, seed=seed)


def _path_scores(kind: str, sampler: PathSampler, real: RealImages, *, seed: int) -> list[Score]:
    images = draw_paths(kind, sampler, n_paths=N_PATHS, seed=seed)
    shape = images.shape[:2]
    features = real.extractor(images.flatten(0, 1)).view(*shape, -1)
    scores = [
        relative_path_length(images, space="pixels"),
        relative_path_length(features, space="features"),
        squared_path_speed(features, space="features"),
    ]
    if real.log_probabilities is not None:
        log_probabilities = real.log_probabilities(images.flatten(0, 1))
        answers = path_confidence(log_probabilities.view(*shape, -1))
        scores += [answers.mean, answers.lowest, answers.class_changes]
    return [dataclasses.replace(score, name=f"{score.name}_{kind}") for score in scores]


def require_log_likelihood(saved: SavedSampler, *, n_images: int, n_scored: int) -> SavedGenerator:
    """Refuse what `with_log_likelihood` cannot do, before minutes are spent on other scores.

    Args:
        saved: the generator.
        n_images: as `with_log_likelihood`.
        n_scored: images of the scored split.

    Returns:
        The generator.

    Raises:
        ScoreError: too few images, a prior without a smooth density, or a generator that takes
            more than z.
    """
    if not isinstance(saved, SavedGenerator):
        raise ScoreError(
            f"the log-likelihood is that of a generator of z alone, got one of the task "
            f"{saved.config.task}"
        )
    if n_images < MIN_LIKELIHOOD_IMAGES:
        raise ScoreError(
            f"a log-likelihood needs at least {MIN_LIKELIHOOD_IMAGES} images, got {n_images}"
        )
    needed = n_images + min(n_images, N_CHOOSING)
    if n_scored < needed:
        raise ScoreError(
            f"{n_images:,} images for the log-likelihood need {needed:,} in the split, "
            f"got {n_scored:,}"
        )
    smooth_prior(saved.sampler().prior)
    return saved


def with_log_likelihood(
    evaluation: Evaluation,
    saved: SavedSampler,
    real: RealImages,
    *,
    n_images: int,
    settings: AisSettings,
) -> Evaluation:
    """The evaluation with the log-likelihood by annealed importance sampling, and its gap.

    Where an estimate is not finite, with the reason why there is none.

    The first validation images choose the width of the noise, by a tenth of the temperatures,
    which leans to wide noise where these are few; the last of the scored split are scored, which
    are others, also where the splits are one.

    Args:
        evaluation: of the generator's samples.
        saved: the generator.
        real: the real images.
        n_images: images that are scored, and that are simulated for the gap, >= 2.
        settings: of the chains.

    Raises:
        ScoreError: as `require_log_likelihood`.
    """
    generator = require_log_likelihood(saved, n_images=n_images, n_scored=len(real.scored))
    try:
        found, details = _log_likelihood(generator, real, n_images=n_images, settings=settings)
    except ScoreError as error:
        unavailable = evaluation.unavailable | {"log_likelihood": str(error)}
        return dataclasses.replace(evaluation, unavailable=unavailable)
    return dataclasses.replace(
        evaluation,
        scores=evaluation.scores | {score.name: score for score in found},
        details=evaluation.details | {"log_likelihood": details},
    )


def _log_likelihood(
    saved: SavedGenerator, real: RealImages, *, n_images: int, settings: AisSettings
) -> tuple[list[Score], dict[str, Any]]:
    prior, shape = smooth_prior(saved.sampler().prior), saved.image_shape

    def decode(z: Tensor) -> Tensor:
        images: Tensor = saved.G.pixels(saved.G(z))
        return images.view(len(z), *shape)

    fewer = max(1, settings.n_temperatures // 10)
    sigma = choose_sigma(
        decode,
        prior,
        real.valid[: min(n_images, N_CHOOSING)],
        grid=SIGMAS,
        settings=dataclasses.replace(settings, n_temperatures=fewer),
    )
    likelihood = ais_score(decode, prior, real.scored[-n_images:], sigma=sigma, settings=settings)
    gap = bidirectional_gap(decode, prior, n_points=n_images, sigma=sigma, settings=settings)
    details = {
        "sigma": sigma,
        "n_images": n_images,
        "n_chains": settings.n_chains,
        "n_temperatures": settings.n_temperatures,
        "acceptance": likelihood.acceptance.mean().item(),
        "effective_chains": likelihood.effective_chains.mean().item(),
    }
    return [likelihood.score, gap.lower, gap.upper, gap.gap], details
