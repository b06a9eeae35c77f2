"""Scores of a classifier's answers: closed forms, SciPy, left-out samples, bad input."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import entropy

from gan.errors import ScoreError
from gan.evaluation.class_scores import class_scores

NAMES = ("classifier_score", "conditional_entropy", "marginal_entropy", "confidence")


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def answers(rng, n, n_classes, sharpness=2.0):
    logits = sharpness * torch.randn(n, n_classes, generator=rng, dtype=torch.float64)
    return logits.log_softmax(1)


def values(scores):
    return [getattr(scores, name).value for name in NAMES]


# Closed form


def test_certain_answers_over_all_classes_score_their_number():
    got = class_scores(torch.eye(10, dtype=torch.float64).repeat(30, 1).log())
    assert_allclose(values(got), [10, 0, math.log(10), 1], rtol=1e-14, atol=1e-14)
    assert got.classifier_score.unit == "classes"


def test_certain_answers_of_one_class_score_one():
    got = class_scores(torch.eye(10, dtype=torch.float64)[:1].repeat(30, 1).log())
    assert_allclose(values(got), [1, 0, 0, 1], rtol=1e-14, atol=1e-14)
    assert_allclose(got.classifier_score.standard_error, 0, rtol=0, atol=1e-12)


def test_answers_that_know_nothing_score_one():
    got = class_scores(torch.full((20, 4), -math.log(4), dtype=torch.float64))
    assert_allclose(values(got), [1, math.log(4), math.log(4), 0.25], rtol=1e-14, atol=1e-14)


# Independent reference


def by_scipy(p):
    marginal = p.mean(0)
    divergences = [entropy(row, marginal) for row in p]
    conditional = np.mean([entropy(row) for row in p])
    return [np.exp(np.mean(divergences)), conditional, entropy(marginal), p.max(1).mean()]


def test_values_agree_with_scipy(rng):
    log_p = answers(rng, 70, 6)
    assert_allclose(values(class_scores(log_p)), by_scipy(log_p.exp().numpy()), rtol=1e-12, atol=0)


def test_errors_agree_with_leaving_out_one_sample_at_a_time(rng):
    log_p = answers(rng, 40, 5)
    p = log_p.exp().numpy()
    left_out = np.array([by_scipy(np.delete(p, i, axis=0)) for i in range(40)])
    expected = np.sqrt(39 * left_out.var(0))
    got = class_scores(log_p)
    errors = [getattr(got, name).standard_error for name in NAMES]
    assert_allclose(errors, expected, rtol=1e-9, atol=0)


# Bias and error


def test_error_is_the_spread_over_draws_and_bias_is_within_its_bound(rng):
    # Classes 0 to 3 at shares 0.4, 0.3, 0.2, 0.1, each answered with the same doubt.
    shares = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    sure = (0.8 * torch.eye(4, dtype=torch.float64) + 0.05).log()
    exact = by_scipy(np.repeat(sure.exp().numpy(), [4, 3, 2, 1], axis=0))
    draws = [
        class_scores(sure[torch.multinomial(shares, 200, replacement=True, generator=rng)])
        for _ in range(1_600)
    ]
    for name, truth in (("classifier_score", exact[0]), ("marginal_entropy", exact[2])):
        got = np.array([getattr(draw, name).value for draw in draws])
        errors = np.array([getattr(draw, name).standard_error for draw in draws])
        assert_allclose(errors.mean(), got.std(ddof=1), rtol=0.1, atol=0)
        largest_bias = (4 - 1) / (2 * 200) * (truth if name == "classifier_score" else 1)
        noise = 4 * got.std(ddof=1) / 40
        assert -largest_bias - noise <= got.mean() - truth <= noise


# Invariance


def test_order_of_samples_and_classes_does_not_matter(rng):
    log_p = answers(rng, 70, 6)
    expected = class_scores(log_p)
    for got in (class_scores(log_p.flip(0)), class_scores(log_p.flip(1))):
        assert_allclose(values(got), values(expected), rtol=1e-13, atol=0)
        for name in NAMES:
            error = getattr(expected, name).standard_error
            assert_allclose(getattr(got, name).standard_error, error, rtol=1e-10, atol=0)


def test_float32_answers_are_normalised_anew(rng):
    log_p = answers(rng, 70, 6)
    assert_allclose(values(class_scores(log_p.float())), values(class_scores(log_p)), rtol=1e-6)
    assert_allclose(
        values(class_scores(log_p + 1e-4)), values(class_scores(log_p)), rtol=1e-12, atol=0
    )


# Bad input


def test_too_few_and_nan_are_refused(rng):
    log_p = answers(rng, 9, 3)
    with pytest.raises(ScoreError, match="must hold at least 2 samples, got 1"):
        class_scores(log_p[:1])
    log_p[2, 1] = math.nan
    with pytest.raises(ScoreError, match="must not be NaN"):
        class_scores(log_p)


def test_misuse_is_refused(rng):
    log_p = answers(rng, 9, 3)
    with pytest.raises(ValueError, match=r"must be floating point \[n, K\] with K >= 2"):
        class_scores(log_p[:, 0])
    with pytest.raises(ValueError, match=r"got torch.int64 \[9, 3\]"):
        class_scores(log_p.long())
    with pytest.raises(ValueError, match=r"must sum to 1, got .*: apply log_softmax"):
        class_scores(log_p.exp())
    with pytest.raises(ValueError, match="must sum to 1, got 0: apply log_softmax"):
        class_scores(torch.full((9, 3), -math.inf))
    with pytest.raises(ValueError, match="must sum to 1, got inf: apply log_softmax"):
        class_scores(torch.full((9, 3), math.inf))
