"""Scores of a classifier's answers to samples: is each one clear, and are they of all classes?

With p_i the classifier's probabilities of sample i, [K], and p their mean over samples:

    classifier score      exp( mean_i KL(p_i || p) ) = exp( H(p) - mean_i H(p_i) ), in [1, K]
    conditional entropy   mean_i H(p_i), low where each sample is clearly of one class
    marginal entropy      H(p), log K where all classes are equally frequent
    confidence            mean_i max_k p_i

The score sees neither copies nor one image a class: ten images can score K.  It is a score of the
classifier as well: scores of different classifiers do not compare.

Bias: the marginal entropy is too small by (K - 1) / 2n at most, the classifier score by that times
itself; the two means have none.  Standard errors: of a mean, and for the classifier score and the
marginal entropy the jackknife that leaves out one sample at a time, in closed form.

Source: Salimans et al. (2016), section 4 ("Inception score").
Differs: one estimate over all samples with the jackknife's error, where the released code averages
ten splits in file order: these have ten times the bias, and depend on the order.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.score import Score, normal_score


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """What a classifier's answers say about a set of samples."""

    classifier_score: Score
    """In [1, K], "effective classes"."""
    conditional_entropy: Score
    marginal_entropy: Score
    confidence: Score


@torch.no_grad()
def class_scores(log_probabilities: Tensor) -> ClassScores:
    """The four scores, float64.

    Args:
        log_probabilities: log p(class | sample), [n, K], n >= 2, K >= 2; -inf is probability 0.

    Raises:
        ScoreError: fewer than 2 samples, or NaN.
        ValueError: not [n, K] floating point, or a row's probabilities do not sum to 1.
    """
    _require_log_probabilities(log_probabilities)
    # The rounding of a float32 softmax goes: its rows sum to 1 within 1e-6 only.
    log_p = log_probabilities.double().log_softmax(1)
    p = log_p.exp()
    entropies = torch.special.entr(p).sum(1)
    n = len(p)
    marginal = p.mean(0)
    # Without sample i; the clamp is for -1e-17, the rounding of a class that only i has.
    marginals = ((n * marginal - p) / (n - 1)).clamp(min=0)

    marginal_entropy = torch.special.entr(marginal).sum()
    marginal_entropies = torch.special.entr(marginals).sum(1)
    conditional = entropies.mean()
    conditionals = (n * conditional - entropies) / (n - 1)
    return ClassScores(
        classifier_score=_jackknife_score(
            "classifier_score",
            (marginal_entropy - conditional).exp(),
            (marginal_entropies - conditionals).exp(),
            unit="classes",
        ),
        conditional_entropy=_mean_score("conditional_entropy", entropies, unit="nats"),
        marginal_entropy=_jackknife_score(
            "marginal_entropy", marginal_entropy, marginal_entropies, unit="nats"
        ),
        confidence=_mean_score("confidence", p.amax(1), unit="probability"),
    )


def _mean_score(name: str, values: Tensor, *, unit: str) -> Score:
    error = values.std().item() / math.sqrt(len(values))
    return normal_score(name, values.mean().item(), error, unit=unit)


def _jackknife_score(name: str, value: Tensor, left_out: Tensor, *, unit: str) -> Score:
    """Source: Efron (1982), equation 3.2."""
    n = len(left_out)
    error = left_out.std(correction=0).item() * math.sqrt(n - 1)
    return normal_score(name, value.item(), error, unit=unit)


def _require_log_probabilities(log_probabilities: Tensor) -> None:
    shape = list(log_probabilities.shape)
    if log_probabilities.ndim != 2 or shape[1] < 2 or not log_probabilities.is_floating_point():
        raise ValueError(
            "log_probabilities must be floating point [n, K] with K >= 2, "
            f"got {log_probabilities.dtype} {shape}"
        )
    if shape[0] < 2:
        raise ScoreError(f"log_probabilities must hold at least 2 samples, got {shape[0]}")
    if bool(log_probabilities.isnan().any()):
        raise ScoreError("log_probabilities must not be NaN")
    sums = log_probabilities.double().logsumexp(1).exp()
    worst = sums[(sums - 1).abs().argmax()].item()
    # Not `> 1e-3`: a row of +inf sums to NaN.
    if not abs(worst - 1) <= 1e-3:
        raise ValueError(
            f"each row's probabilities must sum to 1, got {worst:g}: apply log_softmax"
        )
