"""A classifier on fixed features, trained on a few labels.

Multinomial logistic regression on features in units of their spread over unlabelled images.  How
strongly its weights are held to 0 is chosen by cross-validation on the few labels alone.
"""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

from gan.extensions.semi_supervised.few_labels import FewLabels
from gan.layers import Linear

STRENGTHS = tuple(10.0**k for k in range(-4, 3))
"""Inverse weights of the penalty |W|^2 / 2 to choose from, weakest net first."""
N_UNLABELLED = 10_000
"""Unlabelled images by whose features all are standardised."""
CHUNK = 1000
"""Images whose features are computed at once."""
MAX_FOLDS = 5
MAX_ITERATIONS = 500


class Head(nn.Module):
    """Logits of K classes as a linear function of standardised features.

    Args:
        n_features: inputs.
        n_classes: K.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("spread", torch.ones(n_features))
        self.linear = Linear(n_features, n_classes)

    def forward(self, features: Tensor) -> Tensor:
        """[n, n_features] -> [n, K]."""
        logits: Tensor = self.linear((features - self.mean) / self.spread)
        return logits


def empty_head(weights: Mapping[str, Tensor]) -> Head:
    """A head of the shape of these weights, which are yet to be loaded.

    Raises:
        KeyError: if they are not a head's.
    """
    n_classes, n_features = weights["linear.weight"].shape
    return Head(n_features, n_classes)


def fit_head(labelled: Tensor, labels: Tensor, unlabelled: Tensor) -> Head:
    """The head trained on these features, the same for the same arguments.

    Args:
        labelled: features of the labelled images, [l, d].
        labels: their classes, [l] int64, as many of each of K.
        unlabelled: features by whose mean and spread all are standardised, [m, d].
    """
    head = untrained_head(labels, unlabelled)
    x, y = _as_arrays(head, labelled, labels)
    fitted = _fit(x, y, _choose_strength(x, y))
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:  # of two classes scikit-learn has the logit of the second alone
        weight, bias = (np.concatenate([0 * part, part]) for part in (weight, bias))
    with torch.no_grad():
        head.linear.weight.copy_(torch.from_numpy(weight))
        head.linear.bias.copy_(torch.from_numpy(bias))
    return head


@torch.no_grad()
def features_of_few(
    few: FewLabels, features: Callable[[Tensor], Tensor], *, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """What a head learns from, and what it is standardised by.

    Args:
        few: the images.
        features: rows [n, n_pixels] in [0, 1] to features [n, d].
        device: of the features.

    Returns:
        Features of the labelled images, [l, d], and of the first N_UNLABELLED others.
    """

    def of(rows: Tensor) -> Tensor:
        x = few.pixels[rows].to(device, torch.float32).div_(255)
        return torch.cat([features(part) for part in torch.split(x, CHUNK)])

    return of(few.labelled), of(few.unlabelled[:N_UNLABELLED])


def untrained_head(labels: Tensor, unlabelled: Tensor) -> Head:
    """A head that gives all classes one probability; arguments as of `fit_head`."""
    head = Head(unlabelled.shape[1], int(labels.max()) + 1)
    spread, mean = torch.std_mean(unlabelled.double(), 0, correction=0)
    # A feature that never varies says nothing, whatever its size.
    spread = torch.where(spread > 0, spread, 1.0)
    with torch.no_grad():
        head.mean.copy_(mean)
        # Times sqrt d, so that one strength means the same for any number of features.
        head.spread.copy_(spread * len(spread) ** 0.5)
        nn.init.zeros_(head.linear.weight)
        nn.init.zeros_(head.linear.bias)
    return head


def choose_strength(head: Head, labelled: Tensor, labels: Tensor) -> float:
    """The strength C of least cross-entropy on labels left out, by the head's standardisation."""
    return _choose_strength(*_as_arrays(head, labelled, labels))


def _as_arrays(
    head: Head, labelled: Tensor, labels: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    mean, spread = (part.to(labelled.device, torch.float64) for part in (head.mean, head.spread))
    x = ((labelled.double() - mean) / spread).cpu().numpy()
    return x, labels.cpu().numpy()


def _choose_strength(x: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """The strength of least cross-entropy on left-out labels; the smallest where all are one."""
    n_each = int(np.bincount(y).min())
    if n_each < 2:
        return STRENGTHS[len(STRENGTHS) // 2]
    folds = StratifiedKFold(min(MAX_FOLDS, n_each), shuffle=True, random_state=0)
    splits = list(folds.split(x, y))

    def nats(strength: float) -> float:
        total = 0.0
        for kept, left_out in splits:
            log_p = _fit(x[kept], y[kept], strength).predict_log_proba(x[left_out])
            total -= log_p[np.arange(len(left_out)), y[left_out]].sum()
        return total

    return min(STRENGTHS, key=nats)


def _fit(x: NDArray[np.float64], y: NDArray[np.int64], strength: float) -> LogisticRegression:
    with warnings.catch_warnings():
        # Of few labels many weights fit: where it stops, it is as good as where it would end.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=MAX_ITERATIONS).fit(x, y)
