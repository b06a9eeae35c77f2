"""Stacked MNIST: counts by hand, SciPy's relative entropy, spread of draws, errors."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

from gan.errors import ScoreError
from gan.evaluation.stacked_mnist import digits_of_stacks, stacked_modes

ALL = torch.tensor(list(itertools.product(range(10), repeat=3)))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def drawn(rng, n, shares=None):
    return ALL[torch.from_numpy(rng.choice(1_000, n, p=shares))]


# Images


def test_digits_are_read_channel_by_channel_whatever_the_chunk():
    digits = torch.randint(10, (23, 3), generator=torch.Generator().manual_seed(0))
    samples = (digits / 10)[:, :, None, None].expand(23, 3, 4, 4)

    def classify(images):
        assert images.shape[1:] == (1, 4, 4)
        return (images.amax((1, 2, 3)) * 10).round().long()

    for chunk in (1, 7, 1_000):
        assert torch.equal(digits_of_stacks(samples, classify=classify, chunk=chunk), digits)


# References


def test_every_triple_once_for_ten_samples_is_1000_modes_and_no_divergence():
    got = stacked_modes(ALL.repeat(10, 1))
    assert (got.modes.value, got.modes.low, got.modes.high) == (1_000, 1_000, 1_000)
    assert_allclose(got.reverse_kl.value, 0, rtol=0, atol=1e-12)
    assert got.counts.tolist() == [10] * 1_000


def test_triple_a_b_c_is_counted_at_its_number():
    got = stacked_modes(torch.tensor([[4, 0, 7]]).repeat(10_000, 1))
    assert got.counts[407] == 10_000
    assert got.modes.value == 1
    assert_allclose(got.reverse_kl.value, np.log(1_000), rtol=1e-12, atol=0)


def test_reverse_kl_is_scipys_relative_entropy(rng):
    shares = rng.dirichlet(np.ones(10))
    data = np.einsum("a,b,c->abc", shares, shares, shares).ravel()
    digits = drawn(rng, 12_000, rng.dirichlet(np.ones(1_000)))
    counts = np.zeros(1_000)
    for a, b, c in digits.tolist():
        counts[100 * a + 10 * b + c] += 1
    uniform, product = stacked_modes(digits), stacked_modes(digits, digit_shares=shares.tolist())
    assert_allclose(uniform.reverse_kl.value, stats.entropy(counts, np.ones(1_000)), rtol=1e-12)
    assert_allclose(product.reverse_kl.value, stats.entropy(counts, data), rtol=1e-9, atol=0)
    assert uniform.modes.value == (counts > 0).sum()


def test_error_of_the_reverse_kl_is_the_spread_of_draws(rng):
    shares = rng.dirichlet(np.ones(1_000))
    draws = [stats.entropy(rng.multinomial(10_000, shares), np.ones(1_000)) for _ in range(500)]
    got = stacked_modes(drawn(rng, 10_000, shares)).reverse_kl
    assert_allclose(got.standard_error, np.std(draws), rtol=0.15, atol=0)


def test_reverse_kl_of_the_data_is_as_stated(rng):
    found = [stacked_modes(drawn(rng, 10_000)) for _ in range(30)]
    values = [f.reverse_kl.value for f in found]
    # The next term of the expansion, 1 / (12 n^2) sum of 1 / q, adds 1.7 %.
    assert_allclose(np.mean(values), found[0].null_reverse_kl, rtol=0.04, atol=0)
    assert_allclose(np.std(values), found[0].reverse_kl.standard_error, rtol=0.4, atol=0)
    assert min(f.modes.value for f in found) >= 998


def test_the_interval_of_the_modes_covers_those_that_the_samples_missed(rng):
    """800 triples, half of them rare: about 30 are not seen."""
    shares = np.r_[np.full(400, 1.0), np.full(400, 0.1), np.zeros(200)]
    shares /= shares.sum()
    covered = []
    for _ in range(40):
        modes = stacked_modes(drawn(rng, 10_000, shares)).modes
        covered.append(modes.low <= 800 <= modes.high)
        assert modes.value < 800
        assert modes.high < 900
    assert np.mean(covered) > 0.85


def test_order_of_the_samples_does_not_matter(rng):
    digits = drawn(rng, 10_000)
    one, other = stacked_modes(digits), stacked_modes(digits.flip(0))
    assert (one.modes, one.reverse_kl) == (other.modes, other.reverse_kl)


# Errors


def test_too_few_samples_are_refused_with_the_number_needed():
    with pytest.raises(ScoreError, match="at least 10,000 samples, got 9,000"):
        stacked_modes(ALL.repeat(9, 1))


@pytest.mark.parametrize(
    ("digits", "message"),
    [
        (torch.zeros(10_000, 3), r"digits must be int64 \[n, 3\], got torch.float32"),
        (torch.zeros(10_000, 2, dtype=torch.int64), r"got torch.int64 \[10000, 2\]"),
        (torch.full((10_000, 3), 10), r"digits must lie in 0..9, got 10..10"),
    ],
)
def test_what_is_no_digit_is_refused(digits, message):
    with pytest.raises(ValueError, match=message):
        stacked_modes(digits)


@pytest.mark.parametrize("shares", [[0.1] * 9, [0.2] * 10, [0.0, 0.2] + [0.1] * 8])
def test_what_are_no_shares_is_refused(shares):
    with pytest.raises(ValueError, match="digit_shares must be 10 numbers > 0 with sum 1"):
        stacked_modes(ALL.repeat(10, 1), digit_shares=shares)


def test_what_is_no_stack_is_refused():
    with pytest.raises(ValueError, match=r"samples must be \[n, 3, h, w\], got \[4, 1, 2, 2\]"):
        digits_of_stacks(torch.rand(4, 1, 2, 2), classify=torch.clone)
    with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
        digits_of_stacks(torch.rand(4, 3, 2, 2), classify=torch.clone, chunk=0)
