"""Whether conditions are followed.  Kinds: independent reference, closed form."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from gan.errors import ScoreError
from gan.evaluation.condition_accuracy import condition_accuracy

NAMES = ["zero", "one", "two"]


def drawn(n=300):
    rng = np.random.default_rng(0)
    asked, answers = rng.integers(0, 3, n), rng.integers(0, 3, n)
    answers[::2] = asked[::2]
    return torch.from_numpy(asked), torch.from_numpy(answers)


def test_shares_are_those_of_scikit_learn():
    asked, answers = drawn()
    found = condition_accuracy(asked, answers, names=NAMES)
    recalls = confusion_matrix(asked, answers, normalize="true").diagonal()
    assert [s.value for s in found.by_class.values()] == pytest.approx(recalls, abs=1e-15)
    assert found.accuracy.value == pytest.approx(recalls.mean(), abs=1e-15)
    assert found.lowest.value == pytest.approx(recalls.min(), abs=1e-15)
    assert found.lowest_class == NAMES[recalls.argmin()]


def test_the_error_is_that_of_independent_answers_within_each_class():
    """Against the spread of 2,000 draws of the answers."""
    rng = np.random.default_rng(1)
    asked = torch.arange(3).repeat_interleave(50)
    right = np.array([0.9, 0.5, 0.7])

    def one():
        is_right = torch.from_numpy(rng.random(150) < right.repeat(50))
        return condition_accuracy(
            asked, torch.where(is_right, asked, (asked + 1) % 3), names=NAMES
        )

    draws = [one() for _ in range(2_000)]
    spread = np.std([d.accuracy.value for d in draws])
    errors = np.mean([d.accuracy.standard_error for d in draws])
    # The spread of 2,000 draws is known to 1.6 %.
    assert errors == pytest.approx(spread, rel=0.06)


def test_the_order_of_samples_does_not_matter():
    asked, answers = drawn()
    order = torch.randperm(len(asked), generator=torch.Generator().manual_seed(0))
    found = condition_accuracy(asked[order], answers[order], names=NAMES)
    assert found == condition_accuracy(asked, answers, names=NAMES)


def test_a_class_that_was_not_asked_for_is_named():
    with pytest.raises(ScoreError, match="got none of two"):
        condition_accuracy(torch.tensor([0, 1]), torch.tensor([0, 1]), names=NAMES)


@pytest.mark.parametrize(
    ("asked", "answers", "problem"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), "asked must be int64"),
        (torch.tensor([0, 1]), torch.tensor([0]), r"answers must be int64 \[n\]"),
        (torch.tensor([0, 3]), torch.tensor([0, 1]), "asked must hold classes from 0 to 2"),
        (torch.tensor([0, 1]), torch.tensor([0, -1]), "answers must hold classes from 0 to 2"),
    ],
)
def test_what_are_no_classes_is_refused(asked, answers, problem):
    with pytest.raises(ValueError, match=problem):
        condition_accuracy(asked, answers, names=NAMES)
