"""Scores of a conditional generator, without training one.  Kinds: closed form, bad input."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from gan.config import LimitsConfig, load_config
from gan.evaluation.condition_accuracy import NO_CLASSES
from gan.evaluation.score import Score
from gan.evaluation.suite import NO_LABELS, Evaluation
from gan.extensions.conditional import ConditionalGenerator, Conditions, SavedConditional, Units
from gan.nets import Player
from pipeline.product import quality_checks
from pipeline.products.conditional import CONDITIONAL, N_OF_EACH, measure

NOTHING = Evaluation(scores={}, unavailable={}, n_samples=100)


class Brightness(Player):
    """A net whose images are as bright as the first coordinate of the condition says."""

    def draw_masks(self, n, rng):
        return []

    def forward(self, row, masks=None):
        return row[:, 8:9].expand(-1, 64)


def saved(on="labels", n_classes=2):
    config = load_config({"base": {"prior": {"dim": 8}, "conditional": {"on": on}}}).base
    conditions = Conditions(torch.eye(n_classes), torch.full((n_classes,), 1 / n_classes))
    units = Units(torch.zeros(n_classes), torch.ones(n_classes))
    G = ConditionalGenerator(Brightness(), conditions, units, scale=1.0).eval()
    return SavedConditional(G=G, config=config, image_shape=(1, 8, 8))


@dataclasses.dataclass
class Real:
    """As much of real images as is asked for: a classifier that calls bright images class 0."""

    n_classes: int = 2
    share_right: float = 1.0

    @property
    def class_names(self):
        return [str(k) for k in range(self.n_classes)]

    def log_probabilities(self, images):
        is_first = images.mean((1, 2, 3)) > 0.5
        is_first[: round((1 - self.share_right) * len(is_first))] ^= True
        rows = torch.zeros(len(images), self.n_classes)
        rows[:, 0], rows[:, 1] = is_first, ~is_first
        return rows


def measured(saved, real):
    """An evaluation of nothing but the conditions."""
    return measure(SimpleNamespace(saved=saved, real=real, seed=0)).added_to(NOTHING)


def test_a_generator_that_follows_its_condition_is_right_everywhere():
    evaluation = measured(saved(), Real())
    assert evaluation.scores["condition_accuracy"].value == 1
    assert evaluation.details["condition"]["n_of_each"] == N_OF_EACH
    assert evaluation.unavailable == {}


def test_what_the_classifier_gets_wrong_is_counted():
    evaluation = measured(saved(), Real(share_right=0.75))
    assert evaluation.scores["condition_accuracy"].value == pytest.approx(0.75, abs=1e-12)
    assert evaluation.details["condition"]["by_class"] == {"0": 0.75, "1": 0.75}


def without_labels():
    real = Real()
    real.log_probabilities = None
    return real


@pytest.mark.parametrize(
    ("generator", "real", "why"),
    [
        (saved(), without_labels(), NO_LABELS),
        (saved(), Real(n_classes=3), "the generator knows 2 classes, the images 3"),
        (saved(n_classes=3), Real(), "the generator knows 3 classes, the images 2"),
        (saved(on="vectors"), Real(), NO_CLASSES),
    ],
)
def test_without_its_classes_the_scores_are_named_as_missing(generator, real, why):
    evaluation = measured(generator, real)
    assert (evaluation.scores, evaluation.unavailable) == ({}, {"condition": why})
    (check,) = [
        check
        for check in quality_checks(CONDITIONAL, evaluation, LimitsConfig())
        if check.name == "follows_condition"
    ]
    assert check.passed is (why == NO_CLASSES)
    assert why in check.reason


# The check


def scored(mean, lowest):
    scores = {
        name: Score(name=name, value=value, low=value, high=value, standard_error=0.0)
        for name, value in (
            ("condition_accuracy", mean),
            ("condition_accuracy_lowest", lowest),
        )
    }
    return dataclasses.replace(
        NOTHING, scores=scores, details={"condition": {"lowest_class": "8"}}
    )


@pytest.mark.parametrize(
    ("mean", "lowest", "is_passed", "value", "limit"),
    [
        (0.98, 0.92, True, 0.98, 0.97),
        (0.96, 0.92, False, 0.96, 0.97),
        (0.98, 0.89, False, 0.89, 0.9),
        (0.96, 0.5, False, 0.96, 0.97),
    ],
)
def test_both_limits_must_be_reached(mean, lowest, is_passed, value, limit):
    checks = quality_checks(CONDITIONAL, scored(mean, lowest), LimitsConfig())
    (check,) = [check for check in checks if check.name == "follows_condition"]
    assert (check.passed, check.value, check.limit) == (is_passed, value, limit)
    assert f"{mean:.1%} of its samples are of the class that was asked for" in check.reason
    assert f"of class 8 {lowest:.1%} (limit 90%)" in check.reason
