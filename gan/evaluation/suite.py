"""The whole evaluation: every score of one set of samples, and the reason for each it lacks.

    real = RealImages(train=..., valid=..., scored=..., extractor=...)
    evaluation = evaluate(samples, real, seed=0)
    evaluation.scores["frechet_distance"]

A score is taken of samples and of real images, never of a model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.bins import bin_score
from gan.evaluation.class_scores import class_scores
from gan.evaluation.classes import ClassHistogram, class_histogram
from gan.evaluation.copying import CopyingScores, copying_scores, nearness_scores
from gan.evaluation.distinct import distinct_score
from gan.evaluation.frechet import FrechetScores, frechet_distance
from gan.evaluation.kernel_distance import kernel_distance
from gan.evaluation.manifold import manifold_scores
from gan.evaluation.neighbours import nearest_neighbours
from gan.evaluation.parzen import FINE_GRID, PAPER_GRID, choose_sigma
from gan.evaluation.parzen_anchors import ParzenWithErrors, parzen_with_errors
from gan.evaluation.pixel_levels import grey_share
from gan.evaluation.real_images import RealImages
from gan.evaluation.score import Score, proportion_score, require_points
from gan.evaluation.stacked_mnist import stacked_modes
from gan.evaluation.two_sample import classifier_two_sample_test, nearest_neighbour_test

Part = TypeVar("Part")

NEAREST = 0.01
"""Share of held-out images so near to a training image, in pixels, that samples as near count as
copies: what honest samples have of them on average."""

NO_LABELS = "the data set has no labels"


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What came out.

    Attributes:
        scores: by name, in the order in which they are taken.
        unavailable: name of a part -> why its scores could not be taken.
        n_samples: how many samples were scored.
        missing_classes: names of the classes that the samples lack.
        starved_classes: names of those that they hold too little of, the missing among them.
        details: by part, JSON values behind its scores: p-values, shares of each class.
        parzen_ll: log-likelihood of each scored image, [b] float64, nats; None if unavailable.
        frechet_by_group: what each group of the jackknife says of the Fréchet distance, by which
            two sets of samples compare, [groups] float64; None if unavailable.
    """

    scores: dict[str, Score]
    unavailable: dict[str, str]
    n_samples: int
    missing_classes: tuple[str, ...] = ()
    starved_classes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    parzen_ll: Tensor | None = None
    frechet_by_group: Tensor | None = None

    def record(self) -> dict[str, Any]:
        """All but the tensors, as JSON values."""
        return {
            "n_samples": self.n_samples,
            "scores": {name: asdict(score) for name, score in self.scores.items()},
            "unavailable": self.unavailable,
            "missing_classes": list(self.missing_classes),
            "starved_classes": list(self.starved_classes),
            "details": self.details,
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
            details=dict(record["details"]),
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
    _, *image_shape = real.scored.shape
    require_pixels(samples, image_shape=image_shape)
    scorer = _Scorer(samples.to(real.scored), real, seed=seed)
    take = scorer.take
    parzen = take("parzen", scorer.parzen)
    take("parzen_centres", scorer.parzen_centres)
    take("parzen_fine", scorer.parzen_fine)
    frechet = take("frechet", scorer.frechet)
    take("kernel", scorer.kernel)
    take("manifold", scorer.manifold)
    classes = take("classes", scorer.classes)
    if (read_digits := real.read_digits) is not None:
        take("modes", lambda: scorer.modes(read_digits))
    take("bins", scorer.bins)
    take("distinct", scorer.distinct)
    take("copying", scorer.copying)
    take("copying_pixels", scorer.copying_pixels)
    take("two_sample", scorer.two_sample)
    take("grey", scorer.grey)
    return Evaluation(
        scores=scorer.scores,
        unavailable=scorer.unavailable,
        n_samples=len(samples),
        missing_classes=classes.missing if classes else (),
        starved_classes=classes.starved if classes else (),
        details=scorer.details,
        parzen_ll=parzen.log_likelihood if parzen else None,
        frechet_by_group=frechet.by_group if frechet else None,
    )


def require_pixels(samples: Tensor, *, image_shape: Sequence[int]) -> None:
    """Refuse what no score can be taken of.

    Raises:
        ScoreError: the samples are not [n, *image_shape], not all in [0, 1], or all the same.
    """
    if samples.ndim != 4 or list(samples.shape[1:]) != list(image_shape) or not len(samples):
        wanted = ", ".join(map(str, image_shape))
        raise ScoreError(f"samples must be [n, {wanted}], got {list(samples.shape)}")
    if not bool(((samples >= 0) & (samples <= 1)).all()):  # NaN is neither
        low, high = samples.min().item(), samples.max().item()
        raise ScoreError(f"pixels must lie in [0, 1], got {low:g} to {high:g}")
    if bool((samples == samples[:1]).all()):
        times = f"{len(samples):,} times" if len(samples) > 1 else "only"
        raise ScoreError(f"samples must be distinct images, got one {times}")


class _Scorer:
    """Takes the parts one after the other, and notes what cannot be taken."""

    def __init__(self, samples: Tensor, real: RealImages, *, seed: int) -> None:
        self.samples, self.real, self.seed = samples, real, seed
        self.points = real.extractor(samples)
        self.scores: dict[str, Score] = {}
        self.unavailable: dict[str, str] = {}
        self.details: dict[str, Any] = {}

    def take(self, part: str, measure: Callable[[], Part]) -> Part | None:
        try:
            return measure()
        except ScoreError as error:
            self.unavailable[part] = str(error)
            return None

    def keep(self, *scores: Score) -> None:
        self.scores |= {score.name: score for score in scores}

    def parzen(self) -> ParzenWithErrors:
        parzen = self._parzen(PAPER_GRID, "parzen_ll")
        self.keep(parzen.score, _renamed(self.real.ceiling(len(self.samples)).score, "_real"))
        self.details["parzen"] = {
            "sigma": parzen.sigma,
            "standard_error_of_images": parzen.image_standard_error,
            "standard_error_of_samples": parzen.sample_standard_error,
        }
        return parzen

    def parzen_centres(self) -> None:
        self.keep(self.real.centres(len(self.samples)).score)

    def parzen_fine(self) -> None:
        self.keep(self._parzen(FINE_GRID, "parzen_ll_fine").score)

    def _parzen(self, grid: tuple[float, ...], name: str) -> ParzenWithErrors:
        real, chunk = self.real, self.real.chunk
        sigma = choose_sigma(real.for_sigma, self.samples, grid=grid, chunk=chunk)
        return parzen_with_errors(
            real.scored, self.samples, sigma=sigma, seed=self.seed, name=name, chunk=chunk
        )

    def frechet(self) -> FrechetScores:
        frechet = frechet_distance(self.real.scored_features, self.points, seed=self.seed)
        anchor = self.real.frechet(len(self.samples))
        self.keep(frechet.distance, frechet.extrapolated, _renamed(anchor.distance, "_real"))
        return frechet

    def kernel(self) -> None:
        self.keep(kernel_distance(self.real.scored_features, self.points))

    def manifold(self) -> None:
        ours = manifold_scores(self.real.scored_features, self.points)
        real = self.real.manifold(len(self.samples))
        for score in ("precision", "recall", "density", "coverage"):
            self.keep(getattr(ours, score), _renamed(getattr(real, score), "_real"))

    def classes(self) -> ClassHistogram:
        real = self.real
        if real.log_probabilities is None or real.scored_labels is None:
            raise ScoreError(NO_LABELS)
        log_probabilities = real.log_probabilities(self.samples)
        answers = class_scores(log_probabilities)
        self.keep(
            answers.classifier_score,
            answers.conditional_entropy,
            answers.marginal_entropy,
            answers.confidence,
        )
        histogram = class_histogram(
            log_probabilities.argmax(1), real.scored_labels, names=real.class_names
        )
        self.keep(histogram.total_variation)
        self.details["classes"] = {
            "p_value": histogram.p_value,
            "not_judged": list(histogram.not_judged),
            "shares": {c.name: [c.share.value, c.real_share.value] for c in histogram.classes},
        }
        return histogram

    def modes(self, read_digits: Callable[[Tensor], Tensor]) -> None:
        modes = stacked_modes(read_digits(self.samples))
        self.keep(modes.modes, modes.reverse_kl)

    def bins(self) -> None:
        real = self.real
        bins = bin_score(real.train_features, real.scored_features, self.points, seed=self.seed)
        self.keep(bins.share, bins.divergence)
        self.details["bins"] = {
            "n_different": bins.n_different,
            "n_different_by_holm": int(bins.different_by_holm.sum()),
            "n_bins": len(bins.z),
            "p_value": bins.p_value,
        }

    def distinct(self) -> None:
        ours, real = (x.flatten(1).double() for x in (self.samples, self.real.scored))
        distinct = distinct_score(ours, real, seed=self.seed)
        self.keep(distinct.repeats, distinct.near_repeats, distinct.birthday.collision)
        self.details["distinct"] = {
            "n_distinct": distinct.n_distinct,
            "n_collisions": distinct.birthday.n_collisions,
            "n_collisions_real": distinct.real_birthday.n_collisions,
        }

    def copying(self) -> CopyingScores:
        copying = copying_scores(
            train=self.real.train_features,
            test=self.real.scored_features,
            samples=self.points,
            seed=self.seed,
        )
        near, cells = copying.nearness, copying.cells
        self.keep(near.z, copying.c_t, near.authenticity, near.authenticity_test)
        self.details["copying"] = {
            "lowest_cell_z": cells.lowest_z,
            "lowest_cell_p_value": cells.lowest_p_value,
            "n_cells": int(cells.is_scored.sum()),
        }
        return copying

    def copying_pixels(self) -> None:
        """Copies that noise moves far among the features, and what is near nothing at all."""
        require_points(at_least=2, samples=self.samples)
        real = self.real
        near, held_out = nearest_neighbours(self.samples, real.train), real.nearest
        nearness = nearness_scores(
            real.train, near_test=held_out, near_samples=near, suffix="_pixels"
        )
        n = len(near.distances)
        is_far = near.distances > held_out.distances.max()
        # Faint noise lies near to an empty image.
        is_far |= real.nearest_patterns(self.samples).distances > real.farthest_pattern
        n_near = int((near.distances < held_out.distances.quantile(NEAREST)).sum())
        self.keep(proportion_score("outlier_share", int(is_far.sum()), n))
        self.keep(nearness.z, nearness.authenticity, nearness.authenticity_test)
        self.keep(proportion_score("copy_share", n_near, n))

    def two_sample(self) -> None:
        real = self.real.scored_features
        classifier = classifier_two_sample_test(real, self.points, seed=self.seed)
        neighbours = nearest_neighbour_test(real, self.points, seed=self.seed)
        self.keep(classifier.accuracy)
        self.keep(neighbours.accuracy, neighbours.accuracy_real, neighbours.accuracy_samples)
        self.details["two_sample"] = {
            "classifier_p_value": classifier.p_value,
            "nearest_p_value": neighbours.p_value,
        }

    def grey(self) -> None:
        self.keep(grey_share(self.samples), _renamed(self.real.grey, "_real"))


def _renamed(score: Score, suffix: str) -> Score:
    """The score of real images under the name of the samples' own, and `_real`."""
    return replace(score, name=f"{score.name.removesuffix(suffix)}{suffix}")
