"""The score by which runs compare: no label beside the few has a part in it."""

import math

from torch import Tensor
from torch.nn.functional import cross_entropy

from gan.extensions.semi_supervised.saved import SavedSemiSupervised
from gan.metric_names import (
    FEW_LABELS_NATS,
    FEW_LABELS_NATS_SE,
)
from gan.validation import GRID_IMAGES, Scored, Validation


def few_labels_losses(saved: SavedSemiSupervised) -> Tensor:
    """-log p(label) of each labelled image, without noise, nats: [l] float32."""
    logits = saved.log_probabilities(saved.few_images())
    return cross_entropy(logits, saved.few_labels, reduction="none")


def score_few_labels(saved: SavedSemiSupervised, validation: Validation) -> Scored:
    """Cross-entropy on the labelled images; validation images have no part in it."""
    losses = few_labels_losses(saved).double()
    return Scored(
        scores={
            FEW_LABELS_NATS: float(losses.mean()),
            FEW_LABELS_NATS_SE: float(losses.std() / math.sqrt(len(losses))),
        },
        picture=saved.sampler().showcase(GRID_IMAGES, seed=validation.config.seed),
    )
