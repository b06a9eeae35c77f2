"""Paths between pairs of z, and scores of the images along them (Figure 3 of the paper).

    z = straight_path(z_from, z_to, n_steps=11)                        # [n_paths, 11, dim]
    images = G(z.flatten(0, 1)).unflatten(0, z.shape[:2])              # [n_paths, 11, c, h, w]

A path's images are points p_0 ... p_S in pixel or feature space, S = n_steps - 1:

    relative length   sum_t |p_t+1 - p_t| / |p_S - p_0|                >= 1; 1 on a straight line
    squared speed     mean_t |p_t+1 - p_t|^2 S^2                       per unit of the path

Squared speed is the perceptual path length of Karras et al. (2019), section 4.1, with the
caller's features and steps of 1/S, theirs being 1e-4: it is also large for a generator that is
diverse, so compare it at equal diversity; the relative length has the distance of the ends divided
out.  Confidence is the largest class probability: a mean that falls along the path tells of images
between the classes.

Bias: length is summed over S chords, so it is too short by what bends between the steps and grows
with n_steps: compare paths of equal n_steps alone.  Squared speed has the same bias.
Error: standard error of the mean over paths, which must be independent pairs; it does not know
the spread over trained generators.
"""

import dataclasses
import itertools
import math

import torch
from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.score import Score, normal_score, require_points

MIN_PATHS = 2
"""Paths that a standard error needs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathConfidence:
    """What a classifier says along paths."""

    mean: Score
    """Confidence over the whole path, ends included."""
    lowest: Score
    """Confidence at the step of each path where it is least."""
    class_changes: Score
    """Steps of a path at which the most probable class is another than at the step before."""


def straight_path(z_from: Tensor, z_to: Tensor, *, n_steps: int) -> Tensor:
    """Points on the line from z_from to z_to, at equal distances, ends included.

    Stays within every convex support (uniform, gaussian), but leaves a sphere, and passes nearer
    to 0 than draws of a high-dimensional gaussian ever are.

    Args:
        z_from: [n_paths, dim].
        z_to: [n_paths, dim].
        n_steps: points of a path, >= 2.

    Returns:
        [n_paths, n_steps, dim].

    Raises:
        ValueError: the shapes differ, or n_steps < 2.

    Source: Figure 3 of Goodfellow et al. (2014).
    """
    t = _times(z_from, z_to, n_steps)
    return z_from[:, None] * (1 - t) + z_to[:, None] * t


def spherical_path(z_from: Tensor, z_to: Tensor, *, n_steps: int) -> Tensor:
    """Points on the arc from z_from to z_to: the direction turns evenly, the norm goes linearly.

    Stays on a sphere, and at the distances from 0 where a gaussian is; may leave the box of a
    uniform prior.

    Args:
        z_from: [n_paths, dim], none of them 0.
        z_to: [n_paths, dim], none 0 or opposite to its z_from.
        n_steps: points of a path, >= 2.

    Returns:
        [n_paths, n_steps, dim].

    Raises:
        ValueError: the shapes differ, n_steps < 2, or an end is 0 or opposite to the other.

    Source: Shoemake (1985); White (2016), arXiv:1609.04468.
    Differs: White weighs the ends themselves, so that unequal norms also bend the turn.
    """
    t = _times(z_from, z_to, n_steps)
    norm_from, norm_to = _norm(z_from)[:, None, None], _norm(z_to)[:, None, None]
    if not bool((norm_from > 0).all() and (norm_to > 0).all()):
        raise ValueError("a spherical path needs ends other than 0, got 0")
    unit_from, unit_to = z_from[:, None] / norm_from, z_to[:, None] / norm_to
    # Half the angle from the chord: exact where the arc cosine of a product loses half its digits.
    angle = 2 * torch.atan2(_norm(unit_to - unit_from), _norm(unit_to + unit_from))[..., None]
    if bool((angle > math.pi - 1e-3).any()):
        raise ValueError("a spherical path needs ends that are not opposite, got an opposite pair")
    # sin(t a) / sin(a), and its limit t as a -> 0.
    share_from = (1 - t) * _sinc((1 - t) * angle) / _sinc(angle)
    share_to = t * _sinc(t * angle) / _sinc(angle)
    norm = norm_from * (1 - t) + norm_to * t
    return (unit_from * share_from + unit_to * share_to) * norm


def relative_path_length(points: Tensor, *, space: str) -> Score:
    """Mean over paths of the length of a path over the distance of its ends, >= 1.

    Args:
        points: pixels or features along each path, [n_paths, n_steps, d] or
            [n_paths, n_steps, c, h, w], floating point.
        space: where the points lie, for the score's name: `pixels`, `features`.

    Raises:
        ScoreError: fewer than 2 paths, NaN, all points the same, or a path whose ends are one
            point.
        ValueError: not floating point, of another shape, or fewer than 2 steps.
    """
    steps, ends = _distances(points)
    n_closed = int((ends == 0).sum())
    if n_closed:
        raise ScoreError(
            f"a path must end elsewhere than it starts, got {n_closed} of {len(ends)} that "
            "come back: draw other ends, or the generator gives one image for all z"
        )
    return _mean_over_paths(f"path_length_{space}", steps.sum(1) / ends)


def squared_path_speed(points: Tensor, *, space: str) -> Score:
    """Mean over paths and steps of the squared distance of neighbours over the squared step.

    Args:
        points: as for `relative_path_length`.
        space: as for `relative_path_length`.

    Raises:
        ScoreError: fewer than 2 paths, NaN, or all points the same.
        ValueError: not floating point, of another shape, or fewer than 2 steps.

    Source: perceptual path length of Karras et al. (2019), arXiv:1812.04948, section 4.1.
    """
    steps, _ = _distances(points)
    speeds = steps.square().mean(1) * steps.shape[1] ** 2
    return _mean_over_paths(f"path_speed_{space}", speeds)


def path_confidence(log_probabilities: Tensor) -> PathConfidence:
    """The classifier's confidence along the paths, and how often its answer changes.

    Args:
        log_probabilities: of the classes at each step, [n_paths, n_steps, K], natural logarithm.

    Raises:
        ScoreError: fewer than 2 paths, or NaN.
        ValueError: of another shape, fewer than 2 steps, or a step's probabilities do not sum
            to 1.
    """
    if log_probabilities.ndim != 3 or log_probabilities.shape[1] < 2:
        got = list(log_probabilities.shape)
        raise ValueError(f"log_probabilities must be [n_paths, n_steps >= 2, K], got {got}")
    _require_paths(log_probabilities)
    if bool(log_probabilities.isnan().any()):
        raise ScoreError("log_probabilities must be numbers, got NaN")
    totals = log_probabilities.double().exp().sum(2)
    if not bool(((totals - 1).abs() < 1e-3).all()):
        worst = totals.flatten()[(totals - 1).abs().argmax()].item()
        raise ValueError(
            f"log_probabilities must be of probabilities that sum to 1, got a sum of {worst:.4g}: "
            "take log_softmax of logits"
        )
    top, answers = log_probabilities.double().max(2)
    confidence = top.exp()
    changes = (answers[:, 1:] != answers[:, :-1]).sum(1).double()
    return PathConfidence(
        mean=_share_over_paths("path_confidence", confidence.mean(1)),
        lowest=_share_over_paths("path_confidence_lowest", confidence.amin(1)),
        class_changes=_mean_over_paths("path_class_changes", changes),
    )


def _times(z_from: Tensor, z_to: Tensor, n_steps: int) -> Tensor:
    """0 to 1 in equal steps, [1, n_steps, 1]."""
    if z_from.ndim != 2 or z_from.shape != z_to.shape:
        got = f"{list(z_from.shape)} and {list(z_to.shape)}"
        raise ValueError(f"z_from and z_to must both be [n_paths, dim], got {got}")
    if n_steps < 2:
        raise ValueError(f"n_steps must be >= 2, got {n_steps}")
    return torch.linspace(0, 1, n_steps, dtype=z_from.dtype, device=z_from.device)[None, :, None]


def _sinc(angle: Tensor) -> Tensor:
    """The quotient sin(angle) / angle, 1 at 0."""
    return torch.sinc(angle / math.pi)


def _distances(points: Tensor) -> tuple[Tensor, Tensor]:
    """Of neighbours, [n_paths, n_steps - 1], and of the ends, [n_paths]; float64."""
    if points.ndim not in {3, 5} or points.shape[1] < 2:
        raise ValueError(
            "points must be [n_paths, n_steps >= 2, d] or [n_paths, n_steps >= 2, c, h, w], "
            f"got {list(points.shape)}"
        )
    _require_paths(points)
    require_points(at_least=2, points=points.flatten(0, 1))
    flat = points.flatten(2)
    # A step at a time: float64 copies of two steps, not of all images.
    pairs = itertools.pairwise(flat.unbind(1))
    steps = [_norm(after.double() - before.double()) for before, after in pairs]
    return torch.stack(steps, 1), _norm(flat[:, -1].double() - flat[:, 0].double())


def _norm(vectors: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return norm


def _require_paths(paths: Tensor) -> None:
    if len(paths) < MIN_PATHS:
        raise ScoreError(f"path scores need at least {MIN_PATHS} paths, got {len(paths)}")


def _mean_over_paths(name: str, of_paths: Tensor) -> Score:
    standard_error = of_paths.std().item() / math.sqrt(len(of_paths))
    return normal_score(name, of_paths.mean().item(), standard_error)


def _share_over_paths(name: str, of_paths: Tensor) -> Score:
    score = _mean_over_paths(name, of_paths)
    low, high = max(0.0, score.low), min(1.0, score.high)
    return dataclasses.replace(score, low=low, high=high, unit="probability")
