"""How fast a score gets somewhere.  Kinds: by hand, independent reference, bad input."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from gan.evaluation.learning_curves import first_reached, mean_over_seeds, paired_difference


def test_a_threshold_between_two_points_is_found_on_the_line():
    assert first_reached([100, 200, 300], [50.0, 30.0, 10.0], at_most=25) == 225
    assert first_reached([1.5, 2.5], [-0.2, -0.6], at_most=-0.4) == pytest.approx(2.0)


def test_it_is_the_first_time_even_if_the_curve_rises_again():
    assert first_reached([1, 2, 3, 4], [9.0, 4.0, 9.0, 4.0], at_most=4) == 2


def test_a_curve_that_begins_below_was_there_at_its_first_point():
    assert first_reached([100, 200], [3.0, 9.0], at_most=4) == 100


def test_a_threshold_that_is_never_reached_is_none():
    assert first_reached([100, 200], [9.0, 5.0], at_most=4) is None
    assert first_reached([], [], at_most=4) is None


def test_the_interval_is_that_of_the_t_test():
    values = np.random.default_rng(0).normal(3, 2, 5)
    score = mean_over_seeds("x", values.tolist(), unit="steps")
    reference = stats.ttest_1samp(values, 0).confidence_interval()
    assert_allclose([score.low, score.high], reference, rtol=1e-10)
    assert_allclose(score.standard_error, stats.sem(values), rtol=1e-10)
    assert (score.name, score.unit) == ("x", "steps")


def test_a_difference_is_paired():
    rng = np.random.default_rng(0)
    ours = rng.normal(3, 2, 6)
    theirs = ours + rng.normal(0.1, 0.01, 6)
    score = paired_difference("x", ours.tolist(), theirs.tolist())
    reference = stats.ttest_rel(ours, theirs).confidence_interval()
    assert_allclose([score.low, score.high], reference, rtol=1e-6)
    assert score.high < 0


def test_one_seed_has_no_interval():
    with pytest.raises(ValueError, match="at least 2 seeds, got 1"):
        mean_over_seeds("x", [1.0])


def test_other_seeds_are_not_paired():
    with pytest.raises(ValueError, match="must be of the same seeds, got 2 and 3"):
        paired_difference("x", [1.0, 2.0], [1.0, 2.0, 3.0])
