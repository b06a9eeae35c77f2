"""The checks of the gate that look at the samples alone: one function each, scores to verdict.

What else a task is judged by stands with its product (`pipeline.products`).

A check whose score could not be taken (too few samples, say) is not passed, unless the limits
allow it; but a data set without labels has no classes to check.  Each refusal names the number
and the limit.
"""

from collections.abc import Callable
from typing import NamedTuple

from gan.config import LimitsConfig
from gan.evaluation.suite import NO_LABELS, Evaluation
from pipeline.gate import Check


def sample_checks(evaluation: Evaluation, limits: LimitsConfig) -> list[Check]:
    """Every check of samples, by name: all must be passed."""
    return [check(evaluation, limits) for check in CHECKS]


def not_smoothed(evaluation: Evaluation, limits: LimitsConfig) -> Check:
    """A Parzen score above the real images' own, while the Fréchet distance says otherwise.

    Blurred images and the centres of k-means score far above real ones; a model that truly scored
    there would also be about as near to the data as real images are.
    """
    names = ("parzen_ll", "parzen_ll_real", "frechet_distance", "frechet_distance_real")
    scores = [evaluation.scores.get(name) for name in names]
    ours, real, distance, real_distance = scores
    if ours is None or real is None or distance is None or real_distance is None:
        return not_available("not_smoothed", evaluation, limits, "parzen", "frechet")
    error = ((ours.standard_error or 0) ** 2 + (real.standard_error or 0) ** 2) ** 0.5
    ceiling = real.value + 2 * error
    is_far = distance.value > limits.max_frechet_ratio * real_distance.value
    passed = not (ours.value > ceiling and is_far)
    reason = f"its Parzen score is {ours.value:.1f} nats, real images reach {real.value:.1f}"
    if not passed:
        reason += (
            f" and chance explains {ceiling:.1f}, while its Fréchet distance of "
            f"{distance.value:.3g} is more than {limits.max_frechet_ratio:g} times theirs of "
            f"{real_distance.value:.3g}: it is smooth, not good"
        )
    return verdict("not_smoothed", passed, ours.value, ceiling, reason)


def all_classes(evaluation: Evaluation, limits: LimitsConfig) -> Check:
    """No class is missing, or starved to less than a quarter of its share."""
    if evaluation.unavailable.get("classes") == NO_LABELS:
        return verdict("all_classes", True, None, None, NO_LABELS)
    if "classes" in evaluation.unavailable:
        return not_available("all_classes", evaluation, limits, "classes")
    missing, starved = evaluation.missing_classes, evaluation.starved_classes
    told = [f"{name} is missing" for name in missing]
    told += [f"{name} is starved" for name in starved if name not in missing]
    reason = f"class {', '.join(told)}" if told else "no class is missing or starved"
    if not_judged := evaluation.details.get("classes", {}).get("not_judged"):
        reason += f"; too rare for so many samples to tell: {', '.join(not_judged)}"
    return verdict("all_classes", not told, len(starved), 0, reason)


def precise(evaluation: Evaluation, limits: LimitsConfig) -> Check:
    """Samples lie where data lies."""
    return _at_least(evaluation, limits, "precise", "precision", limits.min_precision)


def covers(evaluation: Evaluation, limits: LimitsConfig) -> Check:
    """Samples lie everywhere where data lies."""
    return _at_least(evaluation, limits, "covers", "coverage", limits.min_coverage)


def no_outliers(evaluation: Evaluation, limits: LimitsConfig) -> Check:
    """Hardly a sample is farther from all training images than any real image is."""
    share = evaluation.scores.get("outlier_share")
    if share is None:
        return not_available("no_outliers", evaluation, limits, "copying_pixels")
    limit = limits.max_outliers
    reason = f"{share.value:.2%} of its samples are farther from every training image than any "
    reason += f"real image is (limit {limit:.2%})"
    return verdict("no_outliers", share.value <= limit, share.value, limit, reason)


def distinct(evaluation: Evaluation, limits: LimitsConfig) -> Check:
    """Hardly a sample equals another one, and few are as near to one as real images seldom are."""
    repeats, near = (evaluation.scores.get(n) for n in ("repeat_share", "near_repeat_share"))
    if repeats is None or near is None:
        return not_available("distinct", evaluation, limits, "distinct")
    if repeats.value > limits.max_repeats:
        reason = f"{repeats.value:.2%} of its samples equal an earlier one "
        reason += f"(limit {limits.max_repeats:.2%})"
        return verdict("distinct", False, repeats.value, limits.max_repeats, reason)
    limit = limits.max_near_repeats
    reason = f"{near.value:.2%} of its samples are nearly repeats (limit {limit:.2%})"
    return verdict("distinct", near.low <= limit, near.value, limit, reason)


def not_copied(evaluation: Evaluation, limits: LimitsConfig) -> Check:
    """Samples lie no nearer to the training images than held-out images do.

    All together, both among the features, where an image that was moved stays near itself, and
    among the pixels, where one under noise does.  Smooth images lie near to everything, so that
    the test of distances alone does not tell; copies have the training images' own neighbours
    besides.  And one by one: hardly any is as near, in pixels, as the nearest held-out ones are.
    """
    copies = evaluation.scores.get("copy_share")
    if copies is not None and copies.low > limits.max_copies:
        reason = f"{copies.value:.2%} of its samples are as near to a training image as the "
        reason += f"nearest 1 % of held-out images are (limit {limits.max_copies:.2%})"
        return verdict("not_copied", False, copies.value, limits.max_copies, reason)
    told = [_nearness(evaluation, space) for space in SPACES]
    found = [nearness for nearness in told if nearness is not None]
    copied = [nearness for nearness in found if nearness.is_copied(limits)]
    is_whole = copies is not None and len(found) == len(told)
    if not copied and not is_whole:
        return not_available("not_copied", evaluation, limits, "copying", "copying_pixels")
    nearest = min(copied or found, key=lambda nearness: nearness.share)
    limit, is_far = limits.min_authenticity, nearest.deviations >= 0
    reason = f"its authenticity by {nearest.space} is {nearest.share:.2f} times that of held-out "
    reason += f"images (limit {limit:.2f}), and it lies {abs(nearest.deviations):.1f} standard "
    reason += f"errors {'farther' if is_far else 'nearer'} than they do"
    reason += f" (limit {-limits.min_copying_z:.1f} nearer)" if copied else ""
    return verdict("not_copied", not copied, nearest.share, limit, reason)


SPACES = {
    "features": ("copying_c_t", "authenticity", "authenticity_test"),
    "pixels": ("copying_z_pixels", "authenticity_pixels", "authenticity_test_pixels"),
}
"""Space -> the scores of nearness to training images in it."""


class _Nearness(NamedTuple):
    space: str
    deviations: float
    """Below 0: nearer to the training images than held-out ones are, in standard errors."""
    share: float
    """Authenticity over that of held-out images."""

    def is_copied(self, limits: LimitsConfig) -> bool:
        return self.deviations < limits.min_copying_z and self.share < limits.min_authenticity


def _nearness(evaluation: Evaluation, space: str) -> _Nearness | None:
    z, ours, held_out = (evaluation.scores.get(name) for name in SPACES[space])
    if z is None or ours is None or held_out is None or not z.standard_error:
        return None
    share = ours.value / held_out.value if held_out.value else 0.0
    return _Nearness(space, z.value / z.standard_error, share)


def as_grey(evaluation: Evaluation, limits: LimitsConfig) -> Check:
    """Strokes are about as soft as in the data: neither binarised nor blurred."""
    ours, real = (evaluation.scores.get(name) for name in ("grey_share", "grey_share_real"))
    if ours is None or real is None or not real.value:
        return not_available("as_grey", evaluation, limits, "grey")
    ratio, limit = ours.value / real.value, limits.max_grey_ratio
    passed = 1 / limit <= ratio <= limit
    reason = f"it has {ratio:.2f} times the grey pixels of real images "
    reason += f"(limits {1 / limit:.2f} and {limit:.2f})"
    return verdict("as_grey", passed, ratio, limit, reason)


CHECKS: tuple[Callable[[Evaluation, LimitsConfig], Check], ...] = (
    not_smoothed,
    all_classes,
    precise,
    covers,
    no_outliers,
    distinct,
    not_copied,
    as_grey,
)


def _at_least(
    evaluation: Evaluation, limits: LimitsConfig, name: str, score: str, share: float
) -> Check:
    ours, real = (evaluation.scores.get(key) for key in (score, f"{score}_real"))
    if ours is None or real is None:
        return not_available(name, evaluation, limits, "manifold")
    limit = share * real.value
    passed = ours.value >= limit
    reason = f"its {score} is {ours.value:.3f}, real images reach {real.value:.3f}"
    reason += "" if passed else f", less than {share:g} of which is refused"
    return verdict(name, passed, ours.value, limit, reason)


def not_available(name: str, evaluation: Evaluation, limits: LimitsConfig, *parts: str) -> Check:
    """The check whose scores, those of `parts`, could not be taken."""
    whys = [evaluation.unavailable[part] for part in parts if part in evaluation.unavailable]
    reason = f"not available: {'; '.join(whys)}"
    return verdict(name, limits.allow_unavailable, None, None, reason)


def verdict(
    name: str, passed: bool, value: float | None, limit: float | None, reason: str
) -> Check:
    """How a check came out; see `pipeline.gate.Check`."""
    return Check(name=name, passed=passed, value=value, limit=limit, reason=reason)
