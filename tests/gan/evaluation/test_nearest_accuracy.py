"""1-NN accuracy.  Kinds: independent reference (scikit-learn), closed form."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from gan.evaluation.nearest_accuracy import nearest_accuracy, nearest_is_right


def test_it_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    reference, points = rng.normal(size=(200, 5)), rng.normal(size=(90, 5))
    reference_labels, labels = rng.integers(0, 3, 200), rng.integers(0, 3, 90)
    classifier = KNeighborsClassifier(n_neighbors=1).fit(reference, reference_labels)
    right = nearest_is_right(
        *(torch.from_numpy(a) for a in (points, labels, reference, reference_labels))
    )
    assert right.tolist() == (classifier.predict(points) == labels).tolist()
    score = nearest_accuracy(right)
    assert score.name == "nearest_accuracy"
    assert score.value == pytest.approx(classifier.score(points, labels))
    share = score.value
    assert score.standard_error == pytest.approx((share * (1 - share) / 90) ** 0.5)


@pytest.mark.parametrize(
    ("labels", "reference_labels", "message"),
    [
        (torch.zeros(3), torch.zeros(4), r"^labels must be \[2\], got \[3\]"),
        (torch.zeros(2), torch.zeros(4, 1), r"^reference_labels must be \[4\], got \[4, 1\]"),
    ],
)
def test_labels_of_other_points_are_refused(labels, reference_labels, message):
    with pytest.raises(ValueError, match=message):
        nearest_is_right(torch.zeros(2, 3), labels, torch.zeros(4, 3), reference_labels)
