"""Stacked MNIST: three digits in three colour channels, 1,000 modes that can be counted.

A sample's mode is the triple of digits that a classifier reads in its channels.

* `modes`: distinct triples among n samples, the published count.  It grows with n and misses what
  n samples did not happen to hold; its interval runs from there to the upper end of Chao's
  estimate of all modes that the sampler has.  A classifier's slips add modes: with 0.7 % errors a
  channel, one sample of 50 counts under a wrong triple.
* `reverse_kl`: KL(samples || data) = sum_k p_k log(p_k / q_k), in nats, from the plain shares p
  of the samples.  Biased upwards, by (1,000 - 1) / 2n if nothing differs (`null_reverse_kl`);
  interval by the delta method, less the share that the noise of the counts has in it, and at
  least that of samples of the data.

Source: Metz et al. (2017), Unrolled GAN, and Srivastava et al. (2017), VEEGAN, who count among
25,600 and 26,000 samples; Chao (1987), equations 10 and 11, bias-corrected.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gan.datasets.stacked_mnist import N_CHANNELS
from gan.errors import ScoreError
from gan.evaluation.score import Z_95, Score, normal_score

N_DIGITS = 10
N_MODES = N_DIGITS**N_CHANNELS

LEAST_SAMPLES = 10_000
"""Of which a perfect sampler misses 0.05 of the 1,000 modes on average."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StackedModes:
    """Modes of a set of stacked digits.

    Attributes:
        modes: distinct triples; low is the count itself, high that of Chao's interval.
        reverse_kl: KL(samples || data), nats.
        null_reverse_kl: of it, expected from samples of the data.
        counts: int64 [1000], samples of each triple; triple (a, b, c) at 100 a + 10 b + c.
    """

    modes: Score
    reverse_kl: Score
    null_reverse_kl: float
    counts: Tensor


def digits_of_stacks(
    samples: Tensor, *, classify: Callable[[Tensor], Tensor], chunk: int = 1_000
) -> Tensor:
    """The digit in each channel: int64 [n, 3].

    Args:
        samples: [n, 3, h, w].
        classify: [m, 1, h, w] -> int64 [m]; it must treat each image by itself.
        chunk: samples a pass; bounds memory, does not change the result.

    Raises:
        ValueError: another shape, or chunk < 1.
    """
    if samples.ndim != 4 or samples.shape[1] != N_CHANNELS:
        raise ValueError(f"samples must be [n, {N_CHANNELS}, h, w], got {list(samples.shape)}")
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    read = [classify(rows.flatten(0, 1)[:, None]) for rows in torch.split(samples, chunk)]
    return torch.cat(read).view(-1, N_CHANNELS)


def stacked_modes(digits: Tensor, *, digit_shares: Sequence[float] | None = None) -> StackedModes:
    """Modes of 1,000 and reverse KL of samples whose digits were read.

    Args:
        digits: int64 [n, 3] in 0..9, as of `digits_of_stacks`.
        digit_shares: of the ten digits in the data, whose triples then have products of these;
            uniform, as in the literature, where not given.

    Raises:
        ScoreError: fewer than `LEAST_SAMPLES` samples.
        ValueError: not int64 [n, 3] in 0..9, or the shares are not ten that are > 0 and sum to 1.
    """
    _require_digits(digits)
    shares = _digit_shares(digit_shares)
    data = (shares[:, None, None] * shares[:, None] * shares).flatten()
    weights = torch.tensor([N_DIGITS**2, N_DIGITS, 1], device=digits.device)
    counts = torch.bincount((digits * weights).sum(1), minlength=N_MODES).cpu()
    return StackedModes(
        modes=_mode_score(counts),
        reverse_kl=_reverse_kl(counts, data),
        null_reverse_kl=(N_MODES - 1) / (2 * len(digits)),
        counts=counts,
    )


def _mode_score(counts: Tensor) -> Score:
    seen = int((counts > 0).sum())
    once, twice = (int((counts == times).sum()) for times in (1, 2))
    unseen = once * (once - 1) / (2 * (twice + 1))
    high = float(seen)
    if unseen > 0:
        ratio = once / (twice + 1)
        variance = (
            unseen
            + once * (2 * once - 1) ** 2 / (4 * (twice + 1) ** 2)
            + ratio**2 * twice * (once - 1) ** 2 / (4 * (twice + 1) ** 2)
        )
        # The number of unseen modes is taken as log-normal, so that it stays above 0.
        high += unseen * math.exp(Z_95 * math.sqrt(math.log1p(variance / unseen**2)))
    return Score(
        name="stacked_modes",
        value=float(seen),
        low=float(seen),
        high=min(float(N_MODES), high),
        unit="modes",
    )


def _reverse_kl(counts: Tensor, data: Tensor) -> Score:
    n = int(counts.sum())
    shares = counts.double() / n
    held = shares > 0
    log_ratio = (shares[held] / data[held]).log()
    value = float((shares[held] * log_ratio).sum())
    variance = float((shares[held] * (log_ratio - value).square()).sum()) / n
    null = (N_MODES - 1) / (2 * n * n)
    standard_error = math.sqrt(max(null, variance - null))
    score = normal_score("stacked_reverse_kl", value, standard_error, unit="nats")
    return replace(score, low=max(0.0, score.low))


def _digit_shares(digit_shares: Sequence[float] | None) -> Tensor:
    if digit_shares is None:
        return torch.full([N_DIGITS], 1 / N_DIGITS, dtype=torch.float64)
    shares = torch.tensor(digit_shares, dtype=torch.float64)
    is_right = shares.shape == (N_DIGITS,) and bool((shares > 0).all())
    if not is_right or abs(float(shares.sum()) - 1) > 1e-6:
        raise ValueError(
            f"digit_shares must be {N_DIGITS} numbers > 0 with sum 1, got {list(digit_shares)}"
        )
    return shares


def _require_digits(digits: Tensor) -> None:
    if digits.dtype != torch.int64 or digits.ndim != 2 or digits.shape[1] != N_CHANNELS:
        raise ValueError(
            f"digits must be int64 [n, {N_CHANNELS}], got {digits.dtype} {list(digits.shape)}"
        )
    if len(digits) < LEAST_SAMPLES:
        raise ScoreError(
            f"{N_MODES:,} modes are counted among at least {LEAST_SAMPLES:,} samples, "
            f"got {len(digits):,}"
        )
    low, high = (int(bound) for bound in digits.aminmax())
    if low < 0 or high >= N_DIGITS:
        raise ValueError(f"digits must lie in 0..{N_DIGITS - 1}, got {low}..{high}")
