"""What a run is scored by while it trains: the validation split alone."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gan.config import DataConfig, EvaluationConfig, RunConfig
from gan.datasets.images import ImageSet
from gan.datasets.splits import load_train_valid
from gan.evaluation.features import Extractor, build_extractor
from gan.evaluation.frechet import frechet_distance
from gan.evaluation.manifold import Balls, balls
from gan.metric_names import (
    FRECHET_DISTANCE_VALID,
    FRECHET_DISTANCE_VALID_SE,
    PARZEN_LL_VALID,
    PARZEN_LL_VALID_SE,
    PARZEN_SIGMA,
    TRAINING_COVERAGE_VALID,
    TRAINING_COVERAGE_VALID_SE,
)
from gan.run import score_samples, unit_pixels
from gan.saved_generator import SavedSampler

GRID_IMAGES = 100


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What the scores of a run need beside what is saved of it.

    Attributes:
        config: the run.
        metric: the score by which the best checkpoint is chosen.
        extractors: folder of the nets that give features, on storage that every node can reach.
        device: `cpu` or `cuda`.
    """

    config: RunConfig
    metric: str
    extractors: Path
    device: str

    def feature_space(self) -> tuple[Extractor, Tensor]:
        """The data set's extractor, and the features of its validation images, [n, d]."""
        config = self.config
        return _feature_space(config.data, config.evaluation, self.extractors, self.device)

    def balls(self) -> Balls:
        """Those of its validation images there, for the coverage of samples."""
        config = self.config
        return _balls(config.data, config.evaluation, self.extractors, self.device)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of a run at some step, and a picture to look at.

    Attributes:
        scores: by metric name.
        picture: [n, channels, height, width] in [0, 1], ten in a row.
    """

    scores: dict[str, float]
    picture: Tensor


def score_generator(saved: SavedSampler, validation: Validation) -> Scored:
    """Parzen score of samples, and their Fréchet distance where the best is chosen by it."""
    cfg = validation.config
    sampler = saved.sampler()
    samples = sampler.sample(cfg.evaluation.n_samples, seed=cfg.seed)
    scores = parzen_scores(samples, validation) | feature_scores(samples, validation)
    return Scored(scores=scores, picture=sampler.showcase(GRID_IMAGES, seed=cfg.seed))


def score_generator_with_coverage(saved: SavedSampler, validation: Validation) -> Scored:
    """As `score_generator`, and the coverage of the validation images, in the same features."""
    scored = score_generator(saved, validation)
    if validation.metric != FRECHET_DISTANCE_VALID:
        return scored
    cfg = validation.config
    samples = saved.sampler().sample(cfg.evaluation.n_samples, seed=cfg.seed)
    extractor, _ = validation.feature_space()
    coverage = validation.balls().coverage(extractor(samples.float()))
    scores = {
        TRAINING_COVERAGE_VALID: coverage.value,
        TRAINING_COVERAGE_VALID_SE: coverage.standard_error or 0.0,
    }
    return dataclasses.replace(scored, scores=scored.scores | scores)


def parzen_scores(samples: Tensor, validation: Validation) -> dict[str, float]:
    """By the protocol of the released code, in nats."""
    cfg = validation.config
    valid = _pixels(cfg.data, validation.device)
    score = score_samples(samples, valid, valid=valid, cfg=cfg.evaluation)
    return {
        PARZEN_LL_VALID: score.mean,
        PARZEN_LL_VALID_SE: score.standard_error,
        PARZEN_SIGMA: score.sigma,
    }


def feature_scores(samples: Tensor, validation: Validation) -> dict[str, float]:
    """In the data set's feature space; empty where the best is chosen by another score.

    There the net that gives features, whose training takes minutes, is not asked for.
    """
    if validation.metric != FRECHET_DISTANCE_VALID:
        return {}
    extractor, valid = validation.feature_space()
    points = extractor(samples.float())
    distance = frechet_distance(valid, points, seed=validation.config.seed).distance
    return {
        FRECHET_DISTANCE_VALID: distance.value,
        FRECHET_DISTANCE_VALID_SE: distance.standard_error or 0.0,
    }


@functools.lru_cache(maxsize=1)
def load_data(data: DataConfig) -> tuple[ImageSet, ImageSet]:
    """The training and validation images, read once in the life of a reused worker."""
    return load_train_valid(data)


@functools.lru_cache(maxsize=1)
def _pixels(data: DataConfig, device: str) -> Tensor:
    return unit_pixels(load_data(data)[1], device=device)


@functools.lru_cache(maxsize=1)
def _feature_space(
    data: DataConfig, cfg: EvaluationConfig, folder: Path, device: str
) -> tuple[Extractor, Tensor]:
    train, _ = load_data(data)
    extractor = build_extractor(cfg, data, train, folder=folder, device=device)
    return extractor, extractor(_pixels(data, device).float())


@functools.lru_cache(maxsize=1)
def _balls(data: DataConfig, cfg: EvaluationConfig, folder: Path, device: str) -> Balls:
    return balls(_feature_space(data, cfg, folder, device)[1])
