"""The gate between a candidate and the registry: a list of named checks.

A check is a pure function that returns a `Check`.  A new condition of promotion is one more
function here and one more entry in the list that a stage hands to `run_gate`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from gan.objectives import Objective

Outcome = Literal["promote", "unchanged", "refused"]
"""`unchanged`: the candidate is the champion already, so there is nothing to do."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition of promotion, and how it came out."""

    name: str
    passed: bool
    value: float | None
    """What was measured; None where there was nothing to measure."""
    limit: float | None
    """What `value` was held against."""
    reason: str
    """One sentence with numbers, for a person."""
    is_champion: bool = False
    """Passed because the candidate is the champion already."""


@dataclass(frozen=True)
class Verdict:
    """What the gate decided.  Made by `run_gate`.

    Attributes:
        checks: every check, in the order given.
    """

    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that were not passed."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def outcome(self) -> Outcome:
        """Refused if any check failed."""
        if self.failed:
            return "refused"
        return "unchanged" if any(check.is_champion for check in self.checks) else "promote"

    @property
    def reason(self) -> str:
        """One line: the failed checks if there are any, else all of them."""
        decisive = self.failed or self.checks
        return "; ".join(f"{check.name}: {check.reason}" for check in decisive)


def run_gate(checks: Sequence[Check]) -> Verdict:
    """The verdict of a list of checks, all of which must pass.

    Raises:
        ValueError: if the list is empty, which would promote anything, or names a check twice.
    """
    names = [check.name for check in checks]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"the gate needs checks of different names, got {names}")
    return Verdict(tuple(checks))


def finite_scores(scores: Mapping[str, float]) -> Check:
    """Every score of the candidate is a finite number, and there is at least one."""
    bad = [f"{name} = {value}" for name, value in scores.items() if not math.isfinite(value)]
    if bad:
        reason = f"scores must be finite, got {', '.join(bad)}"
    else:
        reason = f"{len(scores)} scores are finite" if scores else "there is no score"
    return Check(
        name="finite_scores",
        passed=bool(scores) and not bad,
        value=len(bad),
        limit=0,
        reason=reason,
    )


def same_data(candidate: str, champion: str | None) -> Check:
    """Candidate and champion were trained on the same images; otherwise no score compares them.

    Args:
        candidate: SHA-256 of its training images.
        champion: SHA-256 of the champion's; None if there is no champion.
    """
    passed = champion in (None, candidate)
    reason = "there is no champion yet" if champion is None else "they are those of the champion"
    if not passed:
        reason = "they are not the champion's: name a model of their own by promote.model"
    return Check(name="same_data", passed=passed, value=None, limit=None, reason=reason)


def better_than_champion(
    candidate: ArrayLike,
    champion: ArrayLike | None,
    *,
    objective: Objective,
    min_standard_errors: float,
    is_champion: bool = False,
) -> Check:
    """The candidate's mean score beats the champion's by more than chance explains.

        mean(d) > min_standard_errors * std(d) / sqrt(b)

    with d_i = candidate_i - champion_i, or the reverse where a smaller score is better.

    The difference is paired: most of a score's spread is that of the images, which both share, so
    that the same margin is seen with far fewer images than from two standard errors.  Both must
    be drawn with one seed.

    Args:
        candidate: its score by each validation image, or by each group of the jackknife: [b],
            b >= 2.  Log-likelihoods know nothing of the spread between draws of samples; the
            values by group of a Fréchet distance do.
        champion: of the same images or groups in the same order; None if there is no champion.
        objective: which score, for its direction and unit.
        min_standard_errors: how many standard errors of the mean difference, >= 0.
        is_champion: the two have the same weights, and nothing is to be promoted; then
            `champion` is not looked at.

    Returns:
        `value`: by how much it is better, `limit`: what that must exceed.

    Raises:
        ValueError: if the two are not of one length >= 2.

    Source: Student's paired test; the divisor of std is b - 1.
    """
    name = "better_than_champion"
    if is_champion:
        reason = "the candidate has the champion's weights"
        return Check(
            name=name, passed=True, value=None, limit=None, reason=reason, is_champion=True
        )
    if champion is None:
        reason = "there is no champion yet"
        return Check(name=name, passed=True, value=None, limit=None, reason=reason)
    mean, error = _paired_difference(candidate, champion)
    mean = mean if objective.is_larger_better else -mean
    limit = min_standard_errors * error
    passed = mean > limit
    unit, side = f" {objective.unit}".rstrip(), "better" if mean > 0 else "worse"
    return Check(
        name=name,
        passed=passed,
        value=mean,
        limit=limit,
        reason=f"its {objective.title} is {abs(mean):.3f}{unit} {side} than the champion's, with "
        f"standard error {error:.3f}: {'more' if passed else 'not more'} than "
        f"{min_standard_errors:g} standard errors ({limit:.3f}{unit}) better",
    )


def _paired_difference(candidate: ArrayLike, champion: ArrayLike) -> tuple[float, float]:
    """Mean of the differences, and its standard error."""
    ours = np.asarray(candidate, dtype=np.float64)
    theirs = np.asarray(champion, dtype=np.float64)
    if ours.shape != theirs.shape or ours.ndim != 1 or len(ours) < 2:
        raise ValueError(
            "candidate and champion must be scored on the same images, two or more, "
            f"got shapes {ours.shape} and {theirs.shape}"
        )
    d = ours - theirs
    return float(d.mean()), float(d.std(ddof=1) / math.sqrt(len(d)))
