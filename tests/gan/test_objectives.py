"""What decides: the names are those of the configuration and of reports (contract)."""

from typing import get_args, get_type_hints

import pytest

from gan import metric_names
from gan.config import SweepConfig
from gan.errors import ScoreError
from gan.objectives import OBJECTIVES

DISTANCE, PARZEN = OBJECTIVES["frechet_distance_valid"], OBJECTIVES["parzen_ll_valid"]


def test_every_choice_of_the_configuration_is_an_objective_and_the_other_way_round():
    assert set(get_args(get_type_hints(SweepConfig)["objective"])) == OBJECTIVES.keys()
    assert len(OBJECTIVES) >= 3


@pytest.mark.parametrize("objective", OBJECTIVES.values())
def test_scores_that_decide_are_metrics_of_the_validation_split_or_the_few_labels(objective):
    names = vars(metric_names).values()
    assert objective.metric in names
    assert objective.metric_se in names
    assert "valid" in objective.metric or "few_labels" in objective.metric


def test_merit_is_larger_for_the_better_report():
    blurred = {DISTANCE.metric: 90.0, PARZEN.metric: 320.0}
    sharp = {DISTANCE.metric: 5.0, PARZEN.metric: 220.0}
    assert (DISTANCE.merit(sharp), DISTANCE.merit(blurred)) == (-5.0, -90.0)
    assert (PARZEN.merit(sharp), PARZEN.merit(blurred)) == (220.0, 320.0)


def test_merit_of_a_report_without_the_score_is_an_error():
    with pytest.raises(KeyError, match="frechet_distance_valid"):
        DISTANCE.merit({PARZEN.metric: 320.0})


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (
            {"parzen_ll_valid": 1.0, "parzen_sigma": 0.2},
            r"^sweep\.objective frechet_distance_valid needs the score frechet_distance_valid, "
            r"which was not taken; taken: parzen_ll_valid, parzen_sigma$",
        ),
        ({}, "taken: none"),
        ({"frechet_distance_valid": 5.0}, "needs the score frechet_distance_valid_se"),
        (
            {"frechet_distance_valid": float("nan"), "frechet_distance_valid_se": 1.0},
            "^frechet_distance_valid must be finite, got nan$",
        ),
        (
            {"frechet_distance_valid": 5.0, "frechet_distance_valid_se": float("inf")},
            "^frechet_distance_valid_se must be finite, got inf$",
        ),
    ],
)
def test_scores_by_which_nothing_can_be_decided_are_refused(scores, message):
    with pytest.raises(ScoreError, match=message):
        DISTANCE.require(scores)


def test_scores_with_the_objective_and_its_error_are_let_through():
    DISTANCE.require({"frechet_distance_valid": 5.0, "frechet_distance_valid_se": 0.0})


@pytest.mark.parametrize(
    ("objective", "score", "text"),
    [(DISTANCE, 12.3456, "12.35"), (DISTANCE, 0.0012344, "0.001234"), (PARZEN, -8.26, "-8.3")],
)
def test_scores_are_told_as_a_person_reads_them(objective, score, text):
    assert objective.text(score) == text


def test_an_objective_says_which_images_it_is_taken_of():
    assert DISTANCE.split == "the validation split"
    assert OBJECTIVES["few_labels_nats"].split == "the labelled images"
