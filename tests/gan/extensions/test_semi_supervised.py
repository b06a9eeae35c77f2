"""What is kept of a classifier, and its score.  Kinds: independent reference, contract."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import log_softmax

from gan.extensions.semi_supervised.scores import few_labels_losses, score_few_labels
from gan.metric_names import FEW_LABELS_NATS, FEW_LABELS_NATS_SE
from gan.validation import Validation
from tests.gan.small import EXTENSIONS, labelled_images, start_extension

METHODS = pytest.mark.parametrize("name", [name for name in EXTENSIONS if "semi_sup" in name])


def trained(name):
    run = start_extension(name)
    list(run.train())
    return run.saved()


@METHODS
def test_the_few_images_are_kept_with_their_labels(name):
    images, saved = labelled_images(), trained(name)
    pixels = torch.from_numpy(images.images).flatten(1)
    which = torch.cdist(saved.few_pixels.float(), pixels.float()).argmin(1)
    assert saved.few_labels.tolist() == images.labels[which].tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(saved.few_images(), torch.from_numpy(images.images)[which] / 255)
    assert saved.n_classes == 3


@METHODS
def test_probabilities_are_the_softmax_of_the_logits_whatever_the_chunk(name):
    saved = trained(name)
    images = torch.from_numpy(labelled_images().images) / 255
    expected = log_softmax(saved.classifier(images.flatten(1)).numpy(), axis=1)
    for chunk in (7, 1000):
        found = saved.log_probabilities(images, chunk=chunk)
        assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@METHODS
def test_the_score_is_the_mean_cross_entropy_on_the_few_labels(name, tmp_path):
    saved = trained(name)
    log_p = saved.log_probabilities(saved.few_images()).double().numpy()
    losses = -log_p[np.arange(6), saved.few_labels]
    assert_allclose(few_labels_losses(saved), losses, rtol=1e-5, atol=1e-6)
    validation = Validation(
        config=saved.config, metric=FEW_LABELS_NATS, extractors=tmp_path, device="cpu"
    )
    scored = score_few_labels(saved, validation)
    assert scored.scores.keys() == {FEW_LABELS_NATS, FEW_LABELS_NATS_SE}
    assert_allclose(scored.scores[FEW_LABELS_NATS], losses.mean(), rtol=1e-5, atol=0)
    expected = losses.std(ddof=1) / np.sqrt(6)
    assert_allclose(scored.scores[FEW_LABELS_NATS_SE], expected, rtol=1e-4, atol=0)
    assert scored.picture.shape == (100, 1, 4, 4)
