"""The whole evaluation: every score of one set of samples, and the reason for each it lacks.

    real = RealImages(train=..., valid=..., scored=..., extractor=...)
    evaluation = evaluate(samples, real, seed=0)
    evaluation.scores["frechet_distance"]

A score is taken of samples and of real images, never of a model.  What real images themselves
score, in place of samples, stands beside it as the anchor: training images for the distances and
the Parzen window, as nothing honest comes nearer to the scored split than they do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.bins import bin_score
from gan.evaluation.class_scores import class_scores
from gan.evaluation.classes import ClassHistogram, class_histogram
from gan.evaluation.copying import copying_scores
from gan.evaluation.distinct import distinct_score
from gan.evaluation.features import Extractor
from gan.evaluation.frechet import FrechetScores, frechet_distance
from gan.evaluation.kernel_distance import kernel_distance
from gan.evaluation.manifold import ManifoldScores, manifold_scores
from gan.evaluation.neighbours import nearest_neighbours
from gan.evaluation.parzen import FINE_GRID, PAPER_GRID, choose_sigma
from gan.evaluation.parzen_anchors import ParzenWithErrors, parzen_with_errors, real_anchor
from gan.evaluation.pixel_levels import grey_share
from gan.evaluation.score import Score, proportion_score
from gan.evaluation.two_sample import classifier_two_sample_test, nearest_neighbour_test
from gan.randomness import stream

Part = TypeVar("Part")

NO_LABELS = "the data set has no labels"

N_SIGMA_IMAGES = 1_000
"""Validation images that choose a window's width, as in the released code."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RealImages:
    """Real images in every form that the scores ask for, each made once and kept.

    Attributes:
        train: what the generator was trained on, [n, c, h, w] float32 in [0, 1].
        valid: validation images, which choose widths.
        scored: images of the split on which samples are scored; may be `valid`.
        extractor: the feature space.
        log_probabilities: images -> log p(class | image), [n, K]; None without labels.
        class_names: of its classes, in their order.
    """

    train: Tensor
    valid: Tensor
    scored: Tensor
    extractor: Extractor
    log_probabilities: Callable[[Tensor], Tensor] | None = None
    class_names: Sequence[str] = ()
    _anchors: dict[int, ParzenWithErrors] = field(default_factory=dict, init=False)

    @cached_property
    def train_features(self) -> Tensor:
        """[n, d]."""
        return self.extractor(self.train)

    @cached_property
    def scored_features(self) -> Tensor:
        """[n, d]."""
        return self.extractor(self.scored)

    @cached_property
    def scored_labels(self) -> Tensor | None:
        """What the classifier calls the scored images, int64 [n]."""
        if self.log_probabilities is None:
            return None
        return self.log_probabilities(self.scored).argmax(1)

    @cached_property
    def stand_ins(self) -> Tensor:
        """Rows of as many training images as are scored, which stand in for samples."""
        rng = stream(0, "anchors")
        return torch.randperm(len(self.train), generator=rng)[: len(self.scored)]

    @cached_property
    def frechet(self) -> FrechetScores:
        """Of training images in place of samples."""
        points = self.train_features[self.stand_ins]
        return frechet_distance(self.scored_features, points, seed=0)

    @cached_property
    def manifold(self) -> ManifoldScores:
        """Of training images in place of samples."""
        return manifold_scores(self.scored_features, self.train_features[self.stand_ins])

    @cached_property
    def grey(self) -> Score:
        """Of the scored images."""
        return grey_share(self.scored)

    @cached_property
    def reach(self) -> float:
        """Largest distance, in pixels, of a scored image to its nearest training image."""
        return nearest_pixels(self.scored, self.train).max().item()

    def parzen(self, n_samples: int) -> ParzenWithErrors:
        """The ceiling: the score of as many training images in place of samples."""
        n_samples = min(n_samples, len(self.train))
        if n_samples not in self._anchors:
            self._anchors[n_samples] = real_anchor(
                self.scored,
                self.valid[:N_SIGMA_IMAGES],
                self.train,
                n_samples=n_samples,
                grid=PAPER_GRID,
                seed=0,
            )
        return self._anchors[n_samples]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What came out.

    Attributes:
        scores: by name, in the order in which they are taken.
        unavailable: name of a part -> why its scores could not be taken.
        n_samples: how many samples were scored.
        missing_classes: names of the classes that the samples lack.
        starved_classes: names of those that they hold too little of, the missing among them.
        parzen_ll: log-likelihood of each scored image, [b] float64, nats; None if unavailable.
        frechet_pseudo_values: of the jackknife over groups, by which two sets of samples compare;
            None if unavailable.
    """

    scores: dict[str, Score]
    unavailable: dict[str, str]
    n_samples: int
    missing_classes: tuple[str, ...] = ()
    starved_classes: tuple[str, ...] = ()
    parzen_ll: Tensor | None = None
    frechet_pseudo_values: Tensor | None = None

    def record(self) -> dict[str, Any]:
        """All but the tensors, as JSON values."""
        return {
            "n_samples": self.n_samples,
            "scores": {name: asdict(score) for name, score in self.scores.items()},
            "unavailable": self.unavailable,
            "missing_classes": list(self.missing_classes),
            "starved_classes": list(self.starved_classes),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Evaluation":
        """The inverse of `record`."""
        return cls(
            scores={name: Score(**score) for name, score in record["scores"].items()},
            unavailable=dict(record["unavailable"]),
            n_samples=record["n_samples"],
            missing_classes=tuple(record["missing_classes"]),
            starved_classes=tuple(record["starved_classes"]),
        )


def evaluate(samples: Tensor, real: RealImages, *, seed: int) -> Evaluation:
    """Take every score of `samples` that can be taken of them.

    Args:
        samples: [n, c, h, w] in [0, 1], of the shape of the real images.
        real: the real images; keeps what it works out for the next set of samples.
        seed: of the groups and halves into which some scores divide their points.

    Raises:
        ScoreError: the samples are of another shape, not all in [0, 1], or all the same.
    """
    _require_pixels(samples, like=real.scored)
    scorer = _Scorer()
    samples = samples.to(real.scored)
    parzen = scorer.take("parzen", lambda: _parzen(samples, real, seed=seed))
    if parzen is not None:
        scorer.keep(parzen.score, _renamed(real.parzen(len(samples)).score, "parzen_ll_real"))
        scorer.take("parzen_fine", lambda: scorer.keep(_parzen_fine(samples, real, seed=seed)))

    points = real.extractor(samples)
    frechet = scorer.take(
        "frechet", lambda: frechet_distance(real.scored_features, points, seed=seed)
    )
    if frechet is not None:
        scorer.keep(frechet.distance, frechet.extrapolated)
        scorer.keep(_renamed(real.frechet.distance, "frechet_distance_real"))
    scorer.take("kernel", lambda: scorer.keep(kernel_distance(real.scored_features, points)))
    manifold = scorer.take("manifold", lambda: manifold_scores(real.scored_features, points))
    if manifold is not None:
        scorer.keep(manifold.precision, manifold.recall, manifold.density, manifold.coverage)
        scorer.keep(_renamed(real.manifold.precision, "precision_real"))
        scorer.keep(_renamed(real.manifold.coverage, "coverage_real"))

    classes = scorer.take("classes", lambda: _classes(samples, real, scorer))
    scorer.take("bins", lambda: _bins(points, real, scorer, seed=seed))
    distinct = scorer.take(
        "distinct",
        lambda: distinct_score(
            samples.flatten(1).double(), real.scored.flatten(1).double(), seed=seed
        ),
    )
    if distinct is not None:
        scorer.keep(distinct.repeats, distinct.near_repeats, distinct.birthday.collision)
    copying = scorer.take(
        "copying",
        lambda: copying_scores(
            train=real.train_features, test=real.scored_features, samples=points, seed=seed
        ),
    )
    if copying is not None:
        scorer.keep(copying.z, copying.c_t, copying.authenticity, copying.authenticity_test)
    scorer.take("two_sample", lambda: _two_sample(points, real, scorer, seed=seed))
    scorer.take("outliers", lambda: scorer.keep(_outliers(samples, real)))
    scorer.take("grey", lambda: scorer.keep(grey_share(samples)))
    scorer.take("grey", lambda: scorer.keep(_renamed(real.grey, "grey_share_real")))
    return Evaluation(
        scores=scorer.scores,
        unavailable=scorer.unavailable,
        n_samples=len(samples),
        missing_classes=classes.missing if classes else (),
        starved_classes=classes.starved if classes else (),
        parzen_ll=parzen.log_likelihood if parzen else None,
        frechet_pseudo_values=frechet.pseudo_values if frechet else None,
    )


def _require_pixels(samples: Tensor, *, like: Tensor) -> None:
    if samples.ndim != 4 or samples.shape[1:] != like.shape[1:] or not len(samples):
        wanted = ", ".join(map(str, like.shape[1:]))
        raise ScoreError(f"samples must be [n, {wanted}], got {list(samples.shape)}")
    if not bool(((samples >= 0) & (samples <= 1)).all()):  # NaN is neither
        low, high = samples.min().item(), samples.max().item()
        raise ScoreError(f"pixels must lie in [0, 1], got {low:g} to {high:g}")
    if bool((samples == samples[:1]).all()):
        raise ScoreError(f"samples must be distinct images, got one {len(samples):,} times")


class _Scorer:
    """Takes the parts one after the other, and notes what cannot be taken."""

    def __init__(self) -> None:
        self.scores: dict[str, Score] = {}
        self.unavailable: dict[str, str] = {}

    def take(self, part: str, measure: Callable[[], Part]) -> Part | None:
        try:
            return measure()
        except ScoreError as error:
            self.unavailable[part] = str(error)
            return None

    def keep(self, *scores: Score) -> None:
        self.scores |= {score.name: score for score in scores}


def _renamed(score: Score, name: str) -> Score:
    return replace(score, name=name)


def _parzen(samples: Tensor, real: RealImages, *, seed: int) -> ParzenWithErrors:
    sigma = choose_sigma(real.valid[:N_SIGMA_IMAGES], samples, grid=PAPER_GRID)
    return parzen_with_errors(real.scored, samples, sigma=sigma, seed=seed)


def _parzen_fine(samples: Tensor, real: RealImages, *, seed: int) -> Score:
    sigma = choose_sigma(real.valid[:N_SIGMA_IMAGES], samples, grid=FINE_GRID)
    name = "parzen_ll_fine"
    return parzen_with_errors(real.scored, samples, sigma=sigma, seed=seed, name=name).score


def _classes(samples: Tensor, real: RealImages, scorer: "_Scorer") -> ClassHistogram:
    if real.log_probabilities is None or real.scored_labels is None:
        raise ScoreError(NO_LABELS)
    log_probabilities = real.log_probabilities(samples)
    answers = class_scores(log_probabilities)
    scorer.keep(
        answers.classifier_score,
        answers.conditional_entropy,
        answers.marginal_entropy,
        answers.confidence,
    )
    histogram = class_histogram(
        log_probabilities.argmax(1), real.scored_labels, names=real.class_names
    )
    scorer.keep(histogram.total_variation)
    return histogram


def _bins(points: Tensor, real: RealImages, scorer: "_Scorer", *, seed: int) -> None:
    bins = bin_score(real.train_features, real.scored_features, points, seed=seed)
    scorer.keep(bins.share, bins.divergence)


def _two_sample(points: Tensor, real: RealImages, scorer: "_Scorer", *, seed: int) -> None:
    scorer.keep(classifier_two_sample_test(real.scored_features, points, seed=seed).accuracy)
    neighbours = nearest_neighbour_test(real.scored_features, points, seed=seed)
    scorer.keep(neighbours.accuracy, neighbours.accuracy_real, neighbours.accuracy_samples)


def _outliers(samples: Tensor, real: RealImages) -> Score:
    """Share of samples farther from every training image than any scored real image is."""
    is_far = nearest_pixels(samples, real.train) > real.reach
    return proportion_score("outlier_share", int(is_far.sum()), len(is_far))


def nearest_pixels(images: Tensor, train: Tensor) -> Tensor:
    """Distance in pixels of each image to its nearest training image: [n], float64."""
    return nearest_neighbours(images.flatten(1), train.flatten(1)).distances[:, 0]
