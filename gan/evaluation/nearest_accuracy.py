"""1-NN accuracy: how often the nearest image, in some space, is of the same class.

    right = nearest_is_right(points, labels, reference, reference_labels)

No classifier is trained, so the number is of the space alone: Donahue et al. (2017), "Adversarial
Feature Learning", table 1, compare inference nets by it on MNIST, with the training images as
reference.
"""

import torch
from torch import Tensor

from gan.evaluation.neighbours import nearest_neighbours
from gan.evaluation.score import Score, proportion_score


def nearest_is_right(
    points: Tensor, labels: Tensor, reference: Tensor, reference_labels: Tensor
) -> Tensor:
    """Whether the nearest of the reference points has the label of each point, [n] bool.

    Args:
        points: [n, d], floating point.
        labels: of these, [n].
        reference: [m, d].
        reference_labels: of these, [m].

    Raises:
        ValueError: as `nearest_neighbours`; or there are more or fewer labels than points.
    """
    for name, rows, given in (
        ("labels", points, labels),
        ("reference_labels", reference, reference_labels),
    ):
        if given.shape != rows.shape[:1]:
            raise ValueError(f"{name} must be [{len(rows)}], got {list(given.shape)}")
    nearest = nearest_neighbours(points, reference).indices[:, 0]
    return torch.eq(reference_labels[nearest], labels)


def nearest_accuracy(right: Tensor, *, name: str = "nearest_accuracy") -> Score:
    """The share of points whose nearest one is right, with Wilson's interval.

    Args:
        right: as from `nearest_is_right`, [n] bool.
        name: of the score.
    """
    return proportion_score(name, int(right.sum()), len(right))
