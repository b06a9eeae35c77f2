"""What is printed beside a Parzen score: its whole error, and what it should be compared with.

Two errors, of different things:

    image error    standard deviation over the scored images / sqrt(b).  What the paper prints.
                   Covers: another draw of test images, same samples, same sigma.
    sample error   delete-group jackknife over groups of the samples.  Covers: another draw of n
                   samples from the same model, same test images, same sigma.

Their squares add up to that of the whole error, which the interval of the score has.  None covers
another choice of sigma or another training run.

The jackknife needs log p_g(x_i) under the window on each group g alone, [groups, images], which
together cost one score; the score without a group, and the score itself, follow by a logsumexp:

    log p(x_i) = logsumexp_g( log n_g + log p_g(x_i) ) - log n
    se^2       = (G - 1)/G  sum_g (theta_-g - mean theta_-.)^2,   theta_-g the score without g

Bias of the jackknife: fewer samples score lower, but that shift is common to all groups and drops
out; the rest is a little on the large side, as is usual (Efron and Stein, 1981).

Two anchors, by the same estimator with a sigma chosen for each:

    real      as many training images in place of samples: the ceiling of an honest sampler.  A
              score above it, beyond its error, means smoothing.  About 241 to 244 nats on MNIST.
    centres   k-means centres: not a generative model, yet about 90 nats above the ceiling.  They
              are no draw, so they have no sample error; their interval is of the images alone.

Source: the estimator and its image error, section 5 of Goodfellow et al. (2014); the jackknife,
Efron and Tibshirani (1993), section 11.5; the anchors, Theis, van den Oord and Bethge (2016).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.parzen import choose_sigma, parzen_log_likelihood
from gan.evaluation.score import Score, normal_score, require_points
from gan.randomness import stream

N_GROUPS = 20
"""Groups of the jackknife: its standard error is then itself known to about 16 %."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ParzenWithErrors:
    """A Parzen score with the error of the images and of the samples."""

    score: Score
    """In nats; its standard error and interval cover images and, where known, samples."""
    image_standard_error: float
    sample_standard_error: float | None
    """None where the centres of the window are no random draw."""
    sigma: float
    n_samples: int
    log_likelihood: Tensor
    """Of each image: [b], float64, on the CPU."""


def parzen_with_errors(
    x: Tensor,
    samples: Tensor,
    *,
    sigma: float,
    seed: int,
    name: str = "parzen_ll",
    n_groups: int = N_GROUPS,
    chunk: int = 500,
) -> ParzenWithErrors:
    """The Parzen score of `samples` on the images `x`, with both of its errors.

    Args:
        x: images in [0, 1], [b, d] or [b, c, h, w].
        samples: independent draws of the model, [n, d] or [n, c, h, w], n >= 2 * n_groups.
        sigma: window width, > 0; from `choose_sigma` on validation images, never on `x`.
        seed: of the split into groups, so that sorted samples do as well; the score itself does
            not depend on it.
        name: of the score.
        n_groups: groups of the jackknife, >= 2; more cost more memory traffic, not more products.
        chunk: images a pass; bounds memory, does not change the result.

    Raises:
        ScoreError: too few images or samples, NaN, or all images the same.
        ValueError: n_groups < 2, or as `parzen_log_likelihoods`.
    """
    if n_groups < 2:
        raise ValueError(f"n_groups must be >= 2, got {n_groups}")
    _require_images(x)
    if len(samples) < 2 * n_groups:
        raise ScoreError(
            f"samples must hold at least {2 * n_groups:,} for the error of {n_groups} groups, "
            f"got {len(samples):,}"
        )
    order = torch.randperm(len(samples), generator=stream(seed, "parzen/groups"))
    groups = torch.tensor_split(order.to(samples.device), n_groups)
    # log of n_g p_g(x), [groups, images].
    log_sums = torch.stack(
        [
            parzen_log_likelihood(x, samples[group], sigma=sigma, chunk=chunk).cpu()
            + math.log(len(group))
            for group in groups
        ]
    )
    log_likelihood = torch.logsumexp(log_sums, 0) - math.log(len(samples))
    without = torch.stack([_mean_without(g, log_sums, groups) for g in range(n_groups)])
    spread = (without - without.mean()).square().sum().item()
    return _assemble(
        name,
        log_likelihood,
        sigma=sigma,
        n_samples=len(samples),
        sample_standard_error=math.sqrt((n_groups - 1) / n_groups * spread),
    )


def real_anchor(
    x: Tensor,
    valid: Tensor,
    train: Tensor,
    *,
    n_samples: int,
    grid: Sequence[float],
    seed: int,
    n_groups: int = N_GROUPS,
    chunk: int = 500,
) -> ParzenWithErrors:
    """The ceiling: the score of real training images in place of samples.

    Args:
        x: the images that the model is scored on.
        valid: validation images that choose sigma, as for the model.
        train: training images, at least n_samples.
        n_samples: as many as the model has samples; scores of different counts do not compare.
        grid: widths to choose from, as for the model.
        seed: of the draw without replacement.  The sample error takes it for a draw from the
            distribution of images, not from this training set.
        n_groups: as for `parzen_with_errors`.
        chunk: as for `parzen_with_errors`.

    Raises:
        ScoreError: train holds fewer than n_samples; as `parzen_with_errors`.
        ValueError: as `parzen_with_errors` and `choose_sigma`.
    """
    if len(train) < n_samples:
        raise ScoreError(
            f"train must hold at least {n_samples:,} images, as many as the model has samples, "
            f"got {len(train):,}"
        )
    order = torch.randperm(len(train), generator=stream(seed, "parzen/real_anchor"))
    drawn = train[order[:n_samples].to(train.device)]
    sigma = choose_sigma(valid, drawn, grid=grid, chunk=chunk)
    return parzen_with_errors(
        x, drawn, sigma=sigma, seed=seed, name="parzen_ll_real", n_groups=n_groups, chunk=chunk
    )


def centres_anchor(
    x: Tensor, valid: Tensor, centres: Tensor, *, grid: Sequence[float], chunk: int = 500
) -> ParzenWithErrors:
    """What smoothing wins: the score of k-means centres in place of samples.

    Args:
        x: the images that the model is scored on.
        valid: validation images that choose sigma, as for the model.
        centres: of k-means on training images, as many as the model has samples.
        grid: widths to choose from, as for the model.
        chunk: as for `parzen_with_errors`.

    Raises:
        ScoreError: fewer than 2 images, NaN, or all the same.
        ValueError: as `choose_sigma`.
    """
    _require_images(x)
    sigma = choose_sigma(valid, centres, grid=grid, chunk=chunk)
    return _assemble(
        "parzen_ll_centres",
        parzen_log_likelihood(x, centres, sigma=sigma, chunk=chunk).cpu(),
        sigma=sigma,
        n_samples=len(centres),
        sample_standard_error=None,
    )


def _mean_without(left_out: int, log_sums: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """The score of all groups but one, from [groups, images] of log n_g p_g(x)."""
    kept = [g for g in range(len(groups)) if g != left_out]
    n_kept = sum(len(groups[g]) for g in kept)
    return torch.logsumexp(log_sums[kept], 0).mean() - math.log(n_kept)


def _assemble(
    name: str,
    log_likelihood: Tensor,
    *,
    sigma: float,
    n_samples: int,
    sample_standard_error: float | None,
) -> ParzenWithErrors:
    # Divisor b, as in the released code and in parzen.py.
    image_error = log_likelihood.std(correction=0).item() / math.sqrt(len(log_likelihood))
    whole = math.hypot(image_error, sample_standard_error or 0.0)
    return ParzenWithErrors(
        score=normal_score(name, log_likelihood.mean().item(), whole, unit="nats"),
        image_standard_error=image_error,
        sample_standard_error=sample_standard_error,
        sigma=sigma,
        n_samples=n_samples,
        log_likelihood=log_likelihood,
    )


def _require_images(x: Tensor) -> None:
    require_points(at_least=2, x=x)
