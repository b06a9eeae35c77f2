"""The promotion gate: a paired t statistic against SciPy, and what a list of checks decides."""

import functools
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import ttest_rel

from gan.objectives import OBJECTIVES
from pipeline import gate
from pipeline.errors import PromotionRefused, StageError
from pipeline.gate import Check, finite_scores, run_gate

PARZEN, DISTANCE = OBJECTIVES["parzen_ll_valid"], OBJECTIVES["frechet_distance_valid"]
better_than_champion = functools.partial(gate.better_than_champion, objective=PARZEN)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def champion(rng):
    """Log-likelihoods of 200 images: the images differ far more than the generators do."""
    return rng.normal(200.0, 100.0, 200)


def check(name: str, *, passed: bool, is_champion: bool = False) -> Check:
    return Check(
        name=name,
        passed=passed,
        value=1.0,
        limit=2.0,
        reason=f"why {name}",
        is_champion=is_champion,
    )


def test_difference_in_standard_errors_is_the_paired_t_of_scipy(rng, champion):
    candidate = champion + rng.normal(1.0, 5.0, 200)
    result = better_than_champion(candidate, champion, min_standard_errors=3.0)
    expected = ttest_rel(candidate, champion).statistic
    assert_allclose(result.value / (result.limit / 3.0), expected, rtol=1e-10, atol=0)
    assert_allclose(result.value, (candidate - champion).mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("shift", [-3.0, 0.0, 0.5, 0.9, 1.5, 3.0])
@pytest.mark.parametrize("min_standard_errors", [0.0, 1.0, 2.0, 5.0])
def test_candidate_passes_exactly_if_t_exceeds_the_limit(
    rng, champion, shift, min_standard_errors
):
    candidate = champion + rng.normal(shift, 5.0, 200)
    result = better_than_champion(candidate, champion, min_standard_errors=min_standard_errors)
    assert result.passed == (ttest_rel(candidate, champion).statistic > min_standard_errors)


def test_pairing_sees_what_two_separate_means_would_hide(rng, champion):
    candidate = champion + rng.normal(3.0, 5.0, 200)
    separate = math.hypot(candidate.std() / math.sqrt(200), champion.std() / math.sqrt(200))
    assert candidate.mean() - champion.mean() < separate
    assert better_than_champion(candidate, champion, min_standard_errors=2.0).passed


def test_reason_states_difference_error_and_limit(champion):
    half = np.where(np.arange(200) % 2, 1.5, 0.5)  # mean 1, standard deviation 0.5013
    result = better_than_champion(champion + half, champion, min_standard_errors=2.0)
    assert result.reason == (
        "its Parzen log-likelihood is 1.000 nats better than the champion's, with standard error "
        "0.035: more than 2 standard errors (0.071 nats) better"
    )
    worse = better_than_champion(champion - half, champion, min_standard_errors=2.0)
    assert "is 1.000 nats worse than the champion's" in worse.reason
    assert "not more than 2 standard errors" in worse.reason


def test_smaller_distance_is_the_better_one(champion):
    half = np.where(np.arange(200) % 2, 1.5, 0.5)
    nearer = better_than_champion(
        champion - half, champion, objective=DISTANCE, min_standard_errors=2.0
    )
    assert nearer.passed
    assert_allclose(nearer.value, 1.0, rtol=1e-10, atol=0)
    assert nearer.reason == (
        "its Fréchet distance is 1.000 better than the champion's, with standard error 0.035: "
        "more than 2 standard errors (0.071) better"
    )
    farther = better_than_champion(
        champion + half, champion, objective=DISTANCE, min_standard_errors=2.0
    )
    assert not farther.passed
    assert "is 1.000 worse than" in farther.reason


@pytest.mark.parametrize("min_standard_errors", [0.0, 2.0])
def test_equal_scores_do_not_replace_the_champion(champion, min_standard_errors):
    result = better_than_champion(champion, champion, min_standard_errors=min_standard_errors)
    assert not result.passed


def test_score_that_is_not_a_number_does_not_replace_the_champion(champion):
    candidate = champion + 50.0
    candidate[7] = np.nan
    assert not better_than_champion(candidate, champion, min_standard_errors=2.0).passed


def test_log_likelihoods_may_be_tensors(champion):
    candidate = torch.from_numpy(champion + 1.0)
    result = better_than_champion(candidate, torch.from_numpy(champion), min_standard_errors=2.0)
    assert_allclose(result.value, 1.0, rtol=1e-10, atol=0)
    assert result.passed


def test_first_candidate_has_no_champion_to_beat(champion):
    result = better_than_champion(champion, None, min_standard_errors=2.0)
    assert result.passed
    assert result.reason == "there is no champion yet"
    assert run_gate([result]).outcome == "promote"


def test_champion_itself_changes_nothing(champion):
    result = better_than_champion(champion, champion, min_standard_errors=2.0, is_champion=True)
    assert result.reason == "the candidate has the champion's weights"
    assert run_gate([finite_scores({"a": 1.0}), result]).outcome == "unchanged"


@pytest.mark.parametrize("shape", [(199,), (200, 1), (0,)])
def test_other_images_cannot_be_compared(champion, shape):
    with pytest.raises(ValueError, match=r"same images, two or more, got shapes .* and \(200,\)"):
        better_than_champion(np.ones(shape), champion, min_standard_errors=2.0)


def test_one_image_has_no_standard_error():
    with pytest.raises(ValueError, match="two or more"):
        better_than_champion([1.0], [0.0], min_standard_errors=2.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_score_that_is_not_finite_is_named(value):
    result = finite_scores({"parzen_ll_valid": 1.0, "parzen_ll_test": value})
    assert not result.passed
    assert (result.value, result.limit) == (1, 0)
    assert result.reason == f"scores must be finite, got parzen_ll_test = {value}"


def test_finite_scores_pass_and_no_scores_do_not():
    assert finite_scores({"parzen_ll_valid": 1.0, "parzen_ll_test": -2.0}).passed
    assert not finite_scores({}).passed


def test_one_failed_check_refuses_and_gives_its_reason_alone():
    verdict = run_gate([check("a", passed=True), check("b", passed=False)])
    assert verdict.outcome == "refused"
    assert [failed.name for failed in verdict.failed] == ["b"]
    assert verdict.reason == "b: why b"


def test_failed_check_refuses_even_the_champion():
    champion = check("a", passed=True, is_champion=True)
    assert run_gate([champion, check("b", passed=False)]).outcome == "refused"


def test_gate_that_all_checks_pass_gives_all_reasons():
    verdict = run_gate([check("a", passed=True), check("b", passed=True)])
    assert verdict.outcome == "promote"
    assert verdict.reason == "a: why a; b: why b"


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_gate_without_checks_or_with_one_twice_is_a_mistake(names):
    with pytest.raises(ValueError, match="needs checks of different names"):
        run_gate([check(name, passed=True) for name in names])


def test_refusal_carries_the_checks_and_says_why():
    failed = run_gate([check("a", passed=False), check("b", passed=False)]).failed
    with pytest.raises(
        PromotionRefused, match=r"^promotion refused: a: why a; b: why b$"
    ) as caught:
        raise PromotionRefused(failed)
    assert caught.value.checks == failed


def test_stage_error_says_which_stage_and_which_input():
    with pytest.raises(StageError, match=r"^evaluate: winner\.json: is not there$") as caught:
        raise StageError("is not there", stage="evaluate", input="winner.json")
    assert (caught.value.stage, caught.value.input) == ("evaluate", "winner.json")
    assert str(StageError("no trial finished", stage="sweep")) == "sweep: no trial finished"
