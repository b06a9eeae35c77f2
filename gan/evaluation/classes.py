"""Which classes the samples hold, and how often, against the data.

Both label vectors come from one classifier: its confusions then stand on both sides and cancel,
where the true labels of the data would make a perfect sampler differ.

    statistic = sum_ik (c_ik - e_ik)^2 / e_ik        over the two sets i and the classes k

is Pearson's, with e_ik = c_i. c_.k / c_.. expected if both have the same shares; under that
hypothesis it is chi-square distributed with (classes - 1) degrees of freedom.  With 10,000 labels
the test sees differences that nobody minds, hence two measures of size beside it:

* the total variation distance, 1/2 sum_k |p_k - q_k|: biased upwards, by `null_total_variation`
  when nothing differs; interval by the delta method, too narrow near that value;
* starved classes, whose share is significantly below a stated fraction of the data's.

A class is starved if the score test of "share >= fraction x share in the data" rejects, and
missing if it rejects even at `MISSING_FRACTION`, or no sample is of the class: a classifier that
errs on 0.7 % of the images sees a few of a class that is not there.

Sources: Pearson (1900); Miettinen and Nurminen (1985), equation 10, for the ratio of two shares;
Cochran (1954) for the pooling of rare classes; Bonferroni's correction over the classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy import stats
from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.score import Score, normal_score, proportion_score

STARVED_FRACTION = 0.25
"""Of the data's share of a class; below it a class is starved."""

MISSING_FRACTION = 0.05
"""Of the data's share of a class; below it a class is missing."""

LEAST_EXPECTED = 5
"""Count per cell that Pearson's statistic needs to be near its limit (Cochran, 1954)."""


@dataclass(frozen=True, kw_only=True)
class ClassShare:
    """One class among the samples and in the data.

    Attributes:
        name: of the class.
        share: among the samples, with Wilson's interval.
        real_share: among the real labels, with Wilson's interval.
        p_value: that its share is so far below the starved fraction of the data's by chance.
        is_starved: by the test at the family-wise level.
        is_missing: starved, and none, or too few even for the missing fraction.
        samples_needed: smallest number of samples of which none being of this class would show
            that it is starved; None where the data have none of it either.
        is_judged: whether there were so many samples; if not, `is_starved` says nothing.
    """

    name: str
    share: Score
    real_share: Score
    p_value: float
    is_starved: bool
    is_missing: bool
    samples_needed: int | None
    is_judged: bool


@dataclass(frozen=True, kw_only=True)
class ClassHistogram:
    """The classes of a set of samples against those of the data.

    Attributes:
        classes: one entry a class, in the order of the labels.
        statistic: Pearson's, of homogeneity.
        degrees: of freedom, after pooling.
        p_value: of that statistic if both sets have the same shares.
        total_variation: between both histograms, in [0, 1].
        null_total_variation: its approximate mean if both sets have the same shares.
    """

    classes: tuple[ClassShare, ...]
    statistic: float
    degrees: int
    p_value: float
    total_variation: Score
    null_total_variation: float

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the classes that the samples lack."""
        return tuple(c.name for c in self.classes if c.is_missing)

    @property
    def starved(self) -> tuple[str, ...]:
        """Names of the classes that the samples hold too little of; the missing are among them."""
        return tuple(c.name for c in self.classes if c.is_starved)

    @property
    def not_judged(self) -> tuple[str, ...]:
        """Names of the classes of the data that are too rare for this number of samples."""
        return tuple(
            c.name for c in self.classes if c.samples_needed is not None and not c.is_judged
        )


def class_histogram(
    samples: Tensor,
    real: Tensor,
    *,
    names: Sequence[str],
    starved_fraction: float = STARVED_FRACTION,
    significance: float = 0.01,
) -> ClassHistogram:
    """Shares, test of homogeneity, missing and starved classes.

    Args:
        samples: labels that a classifier gives the samples, int64 [n], each in 0..len(names) - 1.
        real: labels that the same classifier gives real images, int64 [m].
        names: of the classes, in the order of the labels.
        starved_fraction: of the data's share, in (`MISSING_FRACTION`, 1].
        significance: chance that any class of an honest sampler is called starved, in (0, 1).

    Raises:
        ScoreError: too few labels for the test, or the real labels are all of one class.
        ValueError: not int64 [n], a label without a name, or a fraction out of range.
    """
    if not MISSING_FRACTION < starved_fraction <= 1:
        raise ValueError(
            f"starved_fraction must lie in ({MISSING_FRACTION}, 1], got {starved_fraction}"
        )
    if not 0 < significance < 1:
        raise ValueError(f"significance must lie in (0, 1), got {significance}")
    counts = _counts("samples", samples, n_classes=len(names))
    real_counts = _counts("real", real, n_classes=len(names))
    statistic, degrees, p_value = homogeneity(counts, real_counts)
    level = significance / sum(count > 0 for count in real_counts)
    return ClassHistogram(
        classes=tuple(
            _class_share(name, (count, len(samples)), (n_real, len(real)), starved_fraction, level)
            for name, count, n_real in zip(names, counts, real_counts, strict=True)
        ),
        statistic=statistic,
        degrees=degrees,
        p_value=p_value,
        total_variation=_total_variation(counts, real_counts),
        null_total_variation=_null_total_variation(counts, real_counts),
    )


def homogeneity(counts: Sequence[int], real_counts: Sequence[int]) -> tuple[float, int, float]:
    """Pearson's statistic, degrees of freedom and p-value that two histograms share their shares.

    The rarest classes are pooled until each cell expects `LEAST_EXPECTED` at least.

    Raises:
        ScoreError: fewer than two classes are left.
    """
    n, m = sum(counts), sum(real_counts)
    # Of the smaller set; the larger one expects more of every class.
    needed = LEAST_EXPECTED * (n + m) / min(n, m)
    columns = sorted(zip(counts, real_counts, strict=True), key=sum)
    while len(columns) > 1 and sum(columns[0]) < needed:
        (a, b), (c, d) = columns[:2]
        columns = sorted([(a + c, b + d), *columns[2:]], key=sum)
    if len(columns) < 2:
        _refuse_one_class(n, real_counts)
    statistic, p_value, degrees, _ = stats.chi2_contingency(
        list(zip(*columns, strict=True)), correction=False
    )
    return float(statistic), int(degrees), float(p_value)


def ratio_p_value(count: int, n: int, real_count: int, m: int, *, fraction: float) -> float:
    """Chance of so small a share if it were `fraction` of the data's, by the score test.

    z = (p - f q) / sqrt(p'(1 - p') / n + f^2 q'(1 - q') / m), with p' = f q' the maximum of the
    likelihood under that hypothesis, the smaller root of a quadratic; unlike Wald's test it is
    right for a count of 0.

    Args:
        count: samples of the class, of n.
        n: samples.
        real_count: real images of the class, >= 1, of m.
        m: real images.
        fraction: f, in (0, 1].
    """
    a = (n + m) * fraction
    b = -(n * fraction + count + m + real_count * fraction)
    c = count + real_count
    q = (-b - math.sqrt(b * b - 4 * a * c)) / (2 * a)
    p = fraction * q
    variance = p * (1 - p) / n + fraction**2 * q * (1 - q) / m
    excess = count / n - fraction * real_count / m
    if variance == 0:
        return 1.0
    return math.erfc(-excess / math.sqrt(2 * variance)) / 2


def _class_share(
    name: str, counted: tuple[int, int], real: tuple[int, int], fraction: float, level: float
) -> ClassShare:
    (count, n), (real_count, m) = counted, real
    in_data = real_count > 0
    p_value = ratio_p_value(count, n, real_count, m, fraction=fraction) if in_data else 1.0
    is_starved = p_value < level
    needed = _samples_needed(real_count, m, fraction, level) if in_data else None
    return ClassShare(
        name=name,
        share=proportion_score(f"class_share_{name}", count, n),
        real_share=proportion_score(f"class_share_real_{name}", real_count, m),
        p_value=p_value,
        is_starved=is_starved,
        is_missing=is_starved
        and (
            count == 0 or ratio_p_value(count, n, real_count, m, fraction=MISSING_FRACTION) < level
        ),
        samples_needed=needed,
        is_judged=needed is not None and n >= needed,
    )


def _samples_needed(real_count: int, m: int, fraction: float, level: float) -> int | None:
    """Fewest samples for which a count of 0 is significant; None if no number of them is."""
    low, high = 0, 1
    while ratio_p_value(0, high, real_count, m, fraction=fraction) >= level:
        low, high = high, 2 * high
        if high > 1 << 40:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if ratio_p_value(0, middle, real_count, m, fraction=fraction) < level:
            high = middle
        else:
            low = middle
    return high


def _total_variation(counts: Sequence[int], real_counts: Sequence[int]) -> Score:
    n, m = sum(counts), sum(real_counts)
    p, q = ([c / sum(row) for c in row] for row in (counts, real_counts))
    value = sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
    signs = [math.copysign(1, a - b) if a != b else 0.0 for a, b in zip(p, q, strict=True)]
    variance = 0.0
    for shares, size in ((p, n), (q, m)):
        mean = sum(s * share for s, share in zip(signs, shares, strict=True))
        square = sum(s * s * share for s, share in zip(signs, shares, strict=True))
        variance += (square - mean**2) / (4 * size)
    score = normal_score(
        "class_total_variation", value, math.sqrt(max(0.0, variance)), unit="probability"
    )
    return replace(score, low=max(0.0, score.low), high=min(1.0, score.high))


def _null_total_variation(counts: Sequence[int], real_counts: Sequence[int]) -> float:
    """Mean of half the sum of |differences|, each normal with the pooled share's variance."""
    n, m = sum(counts), sum(real_counts)
    pooled = [(a + b) / (n + m) for a, b in zip(counts, real_counts, strict=True)]
    scale = math.sqrt(2 / math.pi * (1 / n + 1 / m)) / 2
    return scale * sum(math.sqrt(share * (1 - share)) for share in pooled)


def _counts(name: str, labels: Tensor, *, n_classes: int) -> list[int]:
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise ValueError(f"{name} must be int64 [n], got {labels.dtype} {list(labels.shape)}")
    if len(labels) == 0:
        raise ScoreError(f"{name} must hold labels, got none")
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= n_classes:
        raise ValueError(f"{name} must lie in 0..{n_classes - 1}, got {low}..{high}")
    return [int(count) for count in torch.bincount(labels, minlength=n_classes)]


def _refuse_one_class(n: int, real_counts: Sequence[int]) -> None:
    m = sum(real_counts)
    others = m - max(real_counts)
    if others == 0:
        raise ScoreError("real must hold labels of two classes or more, got one class")
    needed = math.ceil(LEAST_EXPECTED * m / min(others, max(real_counts)))
    raise ScoreError(
        f"a test of the classes needs about {needed:,} labels of each set, "
        f"got {n:,} samples and {m:,} real"
    )
