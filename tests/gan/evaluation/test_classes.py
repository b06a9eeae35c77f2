"""Class histograms: SciPy and a numerical likelihood as references, null distributions, errors."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import optimize, stats

from gan.errors import ScoreError
from gan.evaluation.classes import class_histogram, homogeneity, ratio_p_value

NAMES = [f"digit {i}" for i in range(10)]


def labels(counts):
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def draw(rng, n, shares):
    return torch.from_numpy(rng.choice(len(shares), n, p=shares))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# References


def test_statistic_is_scipys_on_the_table():
    a, b = [20, 30, 50, 10], [200, 310, 480, 150]
    expected = stats.chi2_contingency([a, b])
    statistic, degrees, p_value = homogeneity(a, b)
    assert_allclose([statistic, p_value, degrees], expected[:3], rtol=1e-12, atol=0)


def test_rare_classes_are_pooled_until_each_cell_expects_five():
    statistic, degrees, _ = homogeneity([50, 48, 2, 1, 0], [60, 45, 3, 2, 1])
    pooled = stats.chi2_contingency([[50, 48 + 3], [60, 45 + 6]], correction=False)
    expected = stats.chi2_contingency([[50, 48, 3], [60, 45, 6]]).expected_freq
    assert expected.min() < 5
    assert degrees == 1
    # SciPy corrects tables of two by two for continuity unless told not to.
    assert_allclose(statistic, pooled.statistic, rtol=1e-12, atol=0)


@pytest.mark.parametrize("counts", [(3, 100, 40, 300), (0, 500, 51, 480), (60, 900, 90, 1_000)])
def test_p_value_of_a_ratio_uses_the_constrained_maximum_of_the_likelihood(counts):
    x, n, y, m = counts
    f = 0.25

    def minus_log_likelihood(q):
        p = f * q
        return -(
            x * math.log(p) + (n - x) * math.log1p(-p) + y * math.log(q) + (m - y) * math.log1p(-q)
        )

    q = optimize.minimize_scalar(
        minus_log_likelihood, bounds=(1e-6, 1 - 1e-6), method="bounded", options={"xatol": 1e-12}
    ).x
    p = f * q
    z = (x / n - f * y / m) / math.sqrt(p * (1 - p) / n + f**2 * q * (1 - q) / m)
    assert_allclose(ratio_p_value(x, n, y, m, fraction=f), stats.norm.cdf(z), rtol=1e-5, atol=0)


def test_total_variation_and_its_error_are_those_of_the_bootstrap(rng):
    p, q = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]
    got = class_histogram(
        draw(rng, 2_000, p), draw(rng, 3_000, q), names=["a", "b", "c"]
    ).total_variation
    draws = (
        np.abs(
            rng.multinomial(2_000, p, 4_000) / 2_000 - rng.multinomial(3_000, q, 4_000) / 3_000
        ).sum(1)
        / 2
    )
    assert_allclose(got.value, 0.3, rtol=0, atol=4 * draws.std())
    # The class of equal shares adds a spread that the first order does not see.
    assert_allclose(got.standard_error, draws.std(), rtol=0.15, atol=0)


def test_mean_total_variation_of_halves_is_as_stated(rng):
    shares = np.arange(1, 11) / 55
    found = [
        class_histogram(draw(rng, 800, shares), draw(rng, 1_600, shares), names=NAMES)
        for _ in range(100)
    ]
    values = [f.total_variation.value for f in found]
    error = np.std(values) / 10
    assert_allclose(np.mean(values), found[0].null_total_variation, rtol=0, atol=4 * error)


def test_shares_have_the_interval_of_wilson():
    got = class_histogram(labels([30, 70]), labels([50, 50]), names=["a", "b"]).classes[0]
    expected = stats.binomtest(30, 100).proportion_ci(method="wilson")
    assert_allclose([got.share.low, got.share.high], expected, rtol=1e-9, atol=0)
    assert got.real_share.value == 0.5


# Null distribution and power


def test_halves_of_the_same_data_are_told_apart_at_the_nominal_rate(rng):
    shares = np.arange(1, 11) / 55
    found = [
        class_histogram(draw(rng, 1_000, shares), draw(rng, 1_000, shares), names=NAMES)
        for _ in range(200)
    ]
    n_rejected = sum(f.p_value < 0.05 for f in found)
    assert stats.binomtest(n_rejected, 200, 0.05).pvalue > 0.001
    assert not any(f.starved for f in found)


def test_a_share_at_the_limit_is_called_starved_at_the_nominal_rate(rng):
    x, y = rng.binomial(2_000, 0.025, 2_000), rng.binomial(2_000, 0.1, 2_000)
    rejected = [
        ratio_p_value(a, 2_000, b, 2_000, fraction=0.25) < 0.05 for a, b in zip(x, y, strict=True)
    ]
    assert_allclose(np.mean(rejected), 0.05, rtol=0, atol=0.02)


def test_a_class_at_a_tenth_is_starved_and_not_missing():
    real = labels([1_000] * 10)
    got = class_histogram(labels([1_000] * 7 + [100] + [1_000] * 2), real, names=NAMES)
    assert got.starved == ("digit 7",)
    assert got.missing == ()
    assert got.p_value < 1e-6


@pytest.mark.parametrize("n_errors", [0, 8])
def test_a_class_of_which_only_errors_are_seen_is_missing(n_errors):
    samples = labels([1_000, 1_000, n_errors] + [1_000] * 7)
    got = class_histogram(samples, labels([1_000] * 10), names=NAMES)
    assert got.missing == got.starved == ("digit 2",)


def test_the_level_is_shared_among_the_classes():
    real = labels([100] * 10)
    for count in range(25):
        got = class_histogram(labels([count] + [100] * 9), real, names=NAMES).classes[0]
        p_value = ratio_p_value(count, 900 + count, 100, 1_000, fraction=0.25)
        assert got.p_value == p_value
        assert got.is_starved == (p_value < 0.01 / 10)


def test_a_class_at_half_its_share_is_neither():
    got = class_histogram(labels([500] + [1_000] * 9), labels([1_000] * 10), names=NAMES)
    assert got.starved == ()
    assert got.p_value < 1e-6


def test_a_class_too_rare_for_the_samples_is_said_not_to_be_judged():
    real = labels([5_000, 4_990, 10])
    few = class_histogram(labels([100, 100, 0]), real, names=["a", "b", "c"])
    assert few.not_judged == ("c",)
    assert few.starved == ()
    needed = few.classes[2].samples_needed
    if needed is not None:
        half = needed // 2
        enough = class_histogram(labels([half, needed - half, 0]), real, names=["a", "b", "c"])
        short = class_histogram(labels([half, needed - half - 1, 0]), real, names=["a", "b", "c"])
        assert enough.missing == ("c",)
        assert short.missing == ()


def test_a_class_that_the_data_lack_is_neither_missing_nor_unjudged():
    got = class_histogram(labels([100, 100, 0]), labels([100, 100, 0]), names=["a", "b", "c"])
    assert got.missing == got.starved == got.not_judged == ()
    assert got.degrees == 1


def test_order_of_the_labels_does_not_matter(rng):
    samples, real = draw(rng, 500, [0.1] * 10), draw(rng, 500, [0.1] * 10)
    shuffled = samples[torch.from_numpy(rng.permutation(500))]
    assert class_histogram(samples, real, names=NAMES) == class_histogram(
        shuffled, real.flip(0), names=NAMES
    )


# Errors


def test_too_few_labels_are_refused_with_the_number_needed():
    with pytest.raises(ScoreError, match="needs about 10 labels of each set, got 4 samples"):
        class_histogram(labels([2, 2]), labels([50, 50]), names=["a", "b"])


def test_real_labels_of_one_class_are_refused():
    with pytest.raises(ScoreError, match="two classes or more, got one class"):
        class_histogram(labels([50, 0]), labels([50, 0]), names=["a", "b"])


def test_no_labels_are_refused():
    with pytest.raises(ScoreError, match="samples must hold labels, got none"):
        class_histogram(labels([0, 0]), labels([50, 50]), names=["a", "b"])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(5), "samples must be int64"),
        (torch.zeros(5, 1, dtype=torch.int64), r"got torch.int64 \[5, 1\]"),
        (torch.tensor([0, 2]), r"must lie in 0..1, got 0..2"),
        (torch.tensor([-1, 1]), r"must lie in 0..1, got -1..1"),
    ],
)
def test_what_is_no_label_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        class_histogram(bad, labels([50, 50]), names=["a", "b"])


def test_levels_out_of_range_are_refused():
    samples = labels([50, 50])
    with pytest.raises(ValueError, match=r"starved_fraction must lie in \(0.05, 1\], got 0.05"):
        class_histogram(samples, samples, names=["a", "b"], starved_fraction=0.05)
    with pytest.raises(ValueError, match=r"significance must lie in \(0, 1\), got 0"):
        class_histogram(samples, samples, names=["a", "b"], significance=0)
