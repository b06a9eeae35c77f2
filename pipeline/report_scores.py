"""Scores as a person reads them: those at the top, and all of an evaluation in groups."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gan.evaluation.score import Score
from gan.evaluation.suite import Evaluation
from gan.metric_names import PARZEN_LL_VALID
from gan.objectives import OBJECTIVES, Objective
from pipeline.evaluation_table import rows
from pipeline.score_groups import AS_REAL, HALF, LESS, MORE, NONE, Group

CHECKED_BY = {
    "parzen_ll": "not_smoothed",
    "frechet_distance": "not_smoothed",
    "precision": "precise",
    "coverage": "covers",
    "class_total_variation": "all_classes",
    "outlier_share": "no_outliers",
    "repeat_share": "distinct",
    "near_repeat_share": "distinct",
    "copying_c_t": "not_copied",
    "copying_z_pixels": "not_copied",
    "authenticity": "not_copied",
    "authenticity_pixels": "not_copied",
    "copy_share": "not_copied",
    "grey_share": "as_grey",
}
"""Score -> the check of the gate that judges by it, or by what it sums up."""

MANY_DECIMALS = 5
"""A number that needs more is written as a power of ten."""


GROUPS = (
    Group(
        title="Distances and manifolds",
        reading="How far the samples lie from the data among the features: a distance sums up "
        "quality and variety, precision and density tell of quality alone, recall and coverage of "
        "variety.",
        good={
            "frechet_distance": LESS,
            "precision": MORE,
            "coverage": MORE,
            "recall": MORE,
            "density": MORE,
            "frechet_distance_extrapolated": LESS,
            "kernel_distance": LESS,
            "outlier_share": LESS,
        },
    ),
    Group(
        title="Classes and modes",
        reading="Whether each sample is clearly of one class, and whether all classes and cells "
        "of the data are there in their shares.",
        good={
            "class_total_variation": LESS,
            "classifier_score": MORE,
            "confidence": MORE,
            "conditional_entropy": LESS,
            "marginal_entropy": MORE,
            "ndb_share": LESS,
            "ndb_js_divergence": LESS,
            "stacked_modes": MORE,
            "stacked_reverse_kl": LESS,
        },
    ),
    Group(
        title="Copies and repeats",
        reading="Copies of training images lie nearer to these than held-out images do: Z and "
        "C_T far below 0, and few authentic ones; far above 0 the samples lie apart from the "
        "data. Repeats are samples that equal other samples.",
        good={
            "copying_c_t": "near 0",
            "authenticity": AS_REAL,
            "copying_z_pixels": "near 0",
            "authenticity_pixels": AS_REAL,
            "copy_share": "near 0.01",
            "repeat_share": LESS,
            "near_repeat_share": "near 0.01",
            "copying_z": "near 0",
            "collision_probability": LESS,
        },
    ),
    Group(
        title="The paper's Parzen window",
        reading="The score of Table 1 has a ceiling: above that of real images it tells of "
        "smoothing, as it does of the centres of k-means, which are no model at all; strokes "
        "softer than the data's have more grey pixels.",
        good={
            "parzen_ll": "more, up to real images",
            "grey_share": AS_REAL,
            "parzen_ll_fine": MORE,
            "parzen_ll_centres": NONE,
        },
    ),
    Group(
        title="Two-sample tests",
        reading="How often real images and samples can be told apart: 1/2 is a guess, 1 is "
        "always; they see what the distances see, and every other difference as well.",
        good={
            "classifier_test_accuracy": HALF,
            "nearest_test_accuracy": HALF,
            "nearest_test_accuracy_real": HALF,
            "nearest_test_accuracy_samples": HALF,
        },
    ),
    Group(
        title="Paths between samples",
        reading="Images along straight and spherical paths between two z: a path that is little "
        "longer than the way between its ends, and along which the classifier stays sure, "
        "changes one image into the other without a detour.",
        good={
            f"{name}_{kind}": good
            for kind in ("straight", "spherical")
            for name, good in {
                "path_length_pixels": "near 1",
                "path_length_features": "near 1",
                "path_speed_features": NONE,
                "path_confidence": MORE,
                "path_confidence_lowest": MORE,
                "path_class_changes": NONE,
            }.items()
        },
    ),
    Group(
        title="Log-likelihood",
        reading="By annealed importance sampling, with noise of one width on every pixel: a lower "
        "bound, low by about the gap.",
        good={
            "ais_ll": MORE,
            "ais_ll_gap": LESS,
            "ais_ll_lower": NONE,
            "ais_ll_upper": NONE,
        },
    ),
)

OTHERS = Group(title="Other scores", reading="Scores that this page does not know.", good={})


class Texts(NamedTuple):
    """The numbers of a row as a person reads them; `real` is empty where there is none."""

    value: str
    low: str
    high: str
    real: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One score in the table of its group.

    Attributes:
        score: of the samples.
        real: that of real images; None if it was not taken.
        good: which direction is good.
        check: of the gate, which judges by it; None if none does.
    """

    score: Score
    real: Score | None
    good: str
    check: str | None

    @property
    def texts(self) -> Texts:
        """With as many digits as the width of the interval leaves sense to."""
        score, real, decimals = self.score, self.real, _decimals(self.score)
        return Texts(
            value=_text(score.value, decimals),
            low=_text(score.low, decimals),
            high=_text(score.high, decimals),
            real="" if real is None else _text(real.value, _decimals(real)),
        )


@dataclass(frozen=True, kw_only=True)
class Table:
    """A group with those of its scores that were taken: by the gate's checks, and the others."""

    group: Group
    decisive: tuple[Row, ...]
    others: tuple[Row, ...]


def score_tables(evaluation: Evaluation, own: Sequence[Group] = ()) -> list[Table]:
    """Every score once, in groups; those without a score are left out.

    Args:
        evaluation: of the suite, and of the task.
        own: groups of the task's own scores, which come first.
    """
    pairs = {score.name: (score, real) for score, real in rows(evaluation)}
    groups = (*own, *GROUPS)
    known = {name for group in groups for name in group.good}
    tables = []
    for group in (*groups, OTHERS):
        names = (
            group.good if group is not OTHERS else [name for name in pairs if name not in known]
        )
        found = [_row(group, *pairs[name]) for name in names if name in pairs]
        if found:
            tables.append(
                Table(
                    group=group,
                    decisive=tuple(row for row in found if row.check),
                    others=tuple(row for row in found if not row.check),
                )
            )
    return tables


def score_tiles(
    scores: Mapping[str, float] | None, winner: Mapping[str, Any] | None, objective: Objective
) -> list[tuple[str, str, str, str]]:
    """Title, number, unit and note of each score at the top: the objective's first.

    Those of an evaluated winner are of samples drawn after it was chosen, on test images.
    """
    better = "larger" if objective.is_larger_better else "smaller"
    if scores is None:
        if winner is None:
            return []
        note = f"{better} is better; the test split has not been opened"
        number = measured(winner["best"], objective)
        return [(f"{objective.title}, {objective.of}", number, objective.unit, note)]
    tiles = []
    for score in sorted(OBJECTIVES.values(), key=lambda score: score is not objective):
        metric = f"{score.metric.removesuffix('_valid')}_test"
        if metric not in scores:
            continue
        number = number_text(scores[metric], scores[f"{metric}_se"], score)
        note = "the paper's score" if score.metric == PARZEN_LL_VALID else ""
        if score is objective:
            note = f"by which trials compare, {better} is better"
        if score.metric in scores:
            on_valid = number_text(scores[score.metric], scores[score.metric_se], score)
            note = f"{note}; validation: {on_valid}".removeprefix("; ")
        tiles.append((f"{score.title}, test", number, score.unit, note))
    if objective.of != "validation" and objective.metric in scores:
        number = number_text(scores[objective.metric], scores[objective.metric_se], objective)
        note = f"by which trials compare, {better} is better"
        tiles.append((f"{objective.title}, {objective.of}", number, objective.unit, note))
    return tiles


def measured(report: Mapping[str, float], score: Objective) -> str:
    """A score of a report with its standard error, which tells how many digits it has."""
    return number_text(report[score.metric], report[score.metric_se], score)


def number_text(value: float, error: float, score: Objective) -> str:
    """A score with its standard error; one that is 0 is not shown."""
    if error <= 0:
        return score.text(value)
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}".replace("-", "−")


def _row(group: Group, score: Score, real: Score | None) -> Row:
    good = group.good.get(score.name, NONE)
    check = group.checked_by.get(score.name) or CHECKED_BY.get(score.name)
    return Row(score=score, real=real, good=good, check=check)


def _decimals(score: Score) -> int:
    """Digits behind the point, such that a quarter of the interval has one or two."""
    spread = (score.high - score.low) / 4
    return max(0, 1 - math.floor(math.log10(spread))) if spread > 0 else 4


def _text(number: float, decimals: int) -> str:
    if number == 0:
        return "0"
    if decimals <= MANY_DECIMALS or abs(number) >= 10 ** (1 - MANY_DECIMALS):
        return f"{number:,.{min(decimals, MANY_DECIMALS)}f}".replace("-", "−")
    mantissa, _, exponent = f"{number:.1e}".partition("e")
    superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa} · 10{superscript}".replace("-", "−")
