"""The checks of the gate that look at the samples alone: one function each, scores to verdict.

A check whose score could not be taken (too few samples, say) is not passed, unless the limits
allow it; but a data set without labels has no classes to check.  Each refusal names the number
and the limit.
"""

from collections.abc import Callable
from dataclasses import dataclass

from gan.evaluation.suite import NO_LABELS, Evaluation
from pipeline.gate import Check


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What samples must reach before they are compared with the champion's.

    Attributes:
        min_precision: least precision, as a share of what training images reach as samples.
        min_coverage: least coverage, as such a share.
        max_outliers: largest share of samples farther, in pixels, from all training images than
            any real image is.
        max_repeats: largest share of samples that equal an earlier one.
        min_copying_z: least C_T of the three-sample test in its standard errors, beyond which
            samples are copies if they are unlike held-out images in authenticity too.
        min_authenticity: least authenticity, as a share of held-out images' own.
        max_grey_ratio: largest ratio of the share of grey pixels to the real images', or of
            theirs to it.
        max_frechet_ratio: multiple of the real images' Fréchet distance beyond which a Parzen
            score above theirs is taken for smoothing.
        allow_unavailable: whether a check is passed whose score could not be taken.
    """

    min_precision: float = 0.5
    min_coverage: float = 0.3
    max_outliers: float = 0.01
    max_repeats: float = 0.01
    min_copying_z: float = -5.0
    min_authenticity: float = 0.5
    max_grey_ratio: float = 2.0
    max_frechet_ratio: float = 2.0
    allow_unavailable: bool = False


def quality_checks(evaluation: Evaluation, limits: Limits) -> list[Check]:
    """Every check of samples, by name: all must be passed."""
    return [check(evaluation, limits) for check in CHECKS]


def not_smoothed(evaluation: Evaluation, limits: Limits) -> Check:
    """A Parzen score above the real images' own, while the Fréchet distance says otherwise.

    Blurred images and the centres of k-means score far above real ones; a model that truly scored
    there would also be about as near to the data as real images are.
    """
    names = ("parzen_ll", "parzen_ll_real", "frechet_distance", "frechet_distance_real")
    scores = [evaluation.scores.get(name) for name in names]
    ours, real, distance, real_distance = scores
    if ours is None or real is None or distance is None or real_distance is None:
        return _not_available("not_smoothed", evaluation, limits, "parzen", "frechet")
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
    return _check("not_smoothed", passed, ours.value, ceiling, reason)


def all_classes(evaluation: Evaluation, limits: Limits) -> Check:
    """No class is missing, or starved to less than a quarter of its share."""
    if evaluation.unavailable.get("classes") == NO_LABELS:
        return _check("all_classes", True, None, None, NO_LABELS)
    if "classes" in evaluation.unavailable:
        return _not_available("all_classes", evaluation, limits, "classes")
    missing, starved = evaluation.missing_classes, evaluation.starved_classes
    told = [f"{name} is missing" for name in missing]
    told += [f"{name} is starved" for name in starved if name not in missing]
    reason = f"class {', '.join(told)}" if told else "no class is missing or starved"
    return _check("all_classes", not told, len(starved), 0, reason)


def precise(evaluation: Evaluation, limits: Limits) -> Check:
    """Samples lie where data lies."""
    return _at_least(evaluation, limits, "precise", "precision", limits.min_precision)


def covers(evaluation: Evaluation, limits: Limits) -> Check:
    """Samples lie everywhere where data lies."""
    return _at_least(evaluation, limits, "covers", "coverage", limits.min_coverage)


def no_outliers(evaluation: Evaluation, limits: Limits) -> Check:
    """Hardly a sample is farther from all training images than any real image is."""
    share = evaluation.scores.get("outlier_share")
    if share is None:
        return _not_available("no_outliers", evaluation, limits, "outliers")
    limit = limits.max_outliers
    reason = f"{share.value:.2%} of its samples are farther from every training image than any "
    reason += f"real image is (limit {limit:.2%})"
    return _check("no_outliers", share.value <= limit, share.value, limit, reason)


def distinct(evaluation: Evaluation, limits: Limits) -> Check:
    """Hardly a sample equals another one."""
    share = evaluation.scores.get("repeat_share")
    if share is None:
        return _not_available("distinct", evaluation, limits, "distinct")
    limit = limits.max_repeats
    reason = f"{share.value:.2%} of its samples equal an earlier one (limit {limit:.2%})"
    return _check("distinct", share.value <= limit, share.value, limit, reason)


def not_copied(evaluation: Evaluation, limits: Limits) -> Check:
    """Samples lie no nearer to the training images than held-out images do.

    Smooth images lie near to everything, so a low C_T alone does not tell; copies have the
    training images' own neighbours besides.
    """
    names = ("copying_c_t", "authenticity", "authenticity_test")
    c_t, ours, held_out = (evaluation.scores.get(name) for name in names)
    if c_t is None or ours is None or held_out is None or not c_t.standard_error:
        return _not_available("not_copied", evaluation, limits, "copying")
    z = c_t.value / c_t.standard_error
    limit = limits.min_authenticity * held_out.value
    passed = z >= limits.min_copying_z or ours.value >= limit
    reason = (
        f"its authenticity is {ours.value:.3f}, that of held-out images {held_out.value:.3f}; "
        f"C_T of the copying test is {z:+.1f} standard errors"
    )
    reason += "" if passed else ": it lies nearer to the training images than real images do"
    return _check("not_copied", passed, ours.value, limit, reason)


def as_grey(evaluation: Evaluation, limits: Limits) -> Check:
    """Strokes are about as soft as in the data: neither binarised nor blurred."""
    ours, real = (evaluation.scores.get(name) for name in ("grey_share", "grey_share_real"))
    if ours is None or real is None or not real.value:
        return _not_available("as_grey", evaluation, limits, "grey")
    ratio, limit = ours.value / real.value, limits.max_grey_ratio
    passed = 1 / limit <= ratio <= limit
    reason = f"it has {ratio:.2f} times the grey pixels of real images"
    return _check("as_grey", passed, ratio, limit, reason)


CHECKS: tuple[Callable[[Evaluation, Limits], Check], ...] = (
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
    evaluation: Evaluation, limits: Limits, name: str, score: str, share: float
) -> Check:
    ours, real = (evaluation.scores.get(key) for key in (score, f"{score}_real"))
    if ours is None or real is None:
        return _not_available(name, evaluation, limits, "manifold")
    limit = share * real.value
    passed = ours.value >= limit
    reason = f"its {score} is {ours.value:.3f}, real images reach {real.value:.3f}"
    reason += "" if passed else f", less than {share:g} of which is refused"
    return _check(name, passed, ours.value, limit, reason)


def _not_available(name: str, evaluation: Evaluation, limits: Limits, *parts: str) -> Check:
    whys = [evaluation.unavailable[part] for part in parts if part in evaluation.unavailable]
    reason = f"not available: {'; '.join(whys)}"
    return _check(name, limits.allow_unavailable, None, None, reason)


def _check(
    name: str, passed: bool, value: float | None, limit: float | None, reason: str
) -> Check:
    return Check(name=name, passed=passed, value=value, limit=limit, reason=reason)
