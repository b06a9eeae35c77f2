"""Heads on fixed features.  Kinds: independent reference, invariance, algorithm."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch.testing import assert_close

from gan.extensions.semi_supervised.discriminator_features import features
from gan.extensions.semi_supervised.heads import STRENGTHS, Head, empty_head, fit_head
from gan.nets import Discriminator
from gan.randomness import stream
from tests.gan.small import start_extension


def clusters(n, *, classes=3, d=5, spread=0.5, name="x"):
    """n points of each class around corners of their own."""
    rng = stream(0, name)
    centres = 3 * torch.eye(d)[:classes].repeat_interleave(n, 0)
    x = centres + spread * torch.randn(n * classes, d, generator=rng)
    return x, torch.arange(classes).repeat_interleave(n)


def standardised(x, unlabelled):
    """In units of the spread over unlabelled points times sqrt d, float64."""
    x, u = x.double().numpy(), unlabelled.double().numpy()
    return (x - u.mean(0)) / (u.std(0) * np.sqrt(x.shape[1]))


def test_a_head_is_the_penalised_maximum_of_the_likelihood(monkeypatch):
    monkeypatch.setattr("gan.extensions.semi_supervised.heads.STRENGTHS", (0.7,))
    x, y = clusters(6, spread=2.0)
    unlabelled, _ = clusters(50, name="u")
    head = fit_head(x, y, unlabelled)
    z = standardised(x, unlabelled)

    def loss(flat):
        W, b = flat[:15].reshape(3, 5), flat[15:]
        log_p = log_softmax(z @ W.T + b, axis=1)
        return -0.7 * log_p[np.arange(18), y].sum() + (W**2).sum() / 2

    best = minimize(loss, np.zeros(18), tol=1e-10)
    W, b = best.x[:15].reshape(3, 5), best.x[15:]
    expected = log_softmax(z @ W.T + b, axis=1)
    assert_allclose(head(x).log_softmax(1).detach(), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_points_of_separate_classes_are_told_apart(classes):
    x, y = clusters(4, classes=classes)
    new, labels = clusters(100, classes=classes, name="new")
    head = fit_head(x, y, new)
    assert (head(new).argmax(1) == labels).double().mean() > 0.99


def test_a_head_does_not_depend_on_the_units_of_the_features():
    x, y = clusters(4)
    unlabelled, _ = clusters(50, name="u")
    units, shift = torch.tensor([1.0, 100.0, 0.01, 3.0, 7.0]), torch.arange(5.0)
    plain = fit_head(x, y, unlabelled)(x)
    scaled = fit_head(x * units + shift, y, unlabelled * units + shift)(x * units + shift)
    assert_close(scaled, plain, rtol=1e-2, atol=1e-2)


def test_a_feature_that_never_varies_changes_no_answer():
    x, y = clusters(4)
    unlabelled, _ = clusters(50, name="u")
    wide = [torch.cat([part, torch.full((len(part), 1), 7.0)], 1) for part in (x, unlabelled)]
    answers = fit_head(wide[0], y, wide[1])(wide[0])
    assert answers.isfinite().all()
    assert (answers.argmax(1) == y).all()


def test_the_strength_is_chosen_on_labels_left_out(monkeypatch):
    """Where features say nothing the strongest penalty is best, where they do it is not."""
    found = []

    def spy(x, y, strength):
        found.append(strength)
        return fit(x, y, strength)

    from gan.extensions.semi_supervised import heads as feature_heads

    fit = feature_heads._fit
    monkeypatch.setattr(feature_heads, "_fit", spy)
    x, y = clusters(10)
    fit_head(x, y, x)
    assert found[-1] > STRENGTHS[0]
    noise = torch.randn(30, 5, generator=stream(0, "noise"))
    fit_head(noise, y, noise)
    assert found[-1] <= 0.1


def test_one_label_of_each_class_is_enough():
    x, y = clusters(1)
    assert (fit_head(x, y, x)(x).argmax(1) == y).all()


def test_a_head_is_read_back():
    x, y = clusters(4)
    head = fit_head(x, y, x)
    again = empty_head(head.state_dict())
    again.load_state_dict(head.state_dict())
    assert isinstance(again, Head)
    assert_close(again(x), head(x), rtol=0, atol=0)


def test_features_are_all_hidden_layers_without_dropout():
    D = Discriminator(6, hidden=[5, 4], pieces=2, dropout_input=0.5, dropout_hidden=0.5)
    x = torch.randn(3, 6, generator=stream(0, "x"))
    first = D.layers[0](x)
    expected = torch.cat([first, D.layers[1](first)], 1)
    assert_close(features(D, x), expected, rtol=0, atol=0)
    assert_close(D.features(x), expected[:, 5:], rtol=0, atol=0)


def test_d_is_trained_as_without_labels():
    """By Algorithm 1: the run of the same seed without the extension."""
    with_labels = start_extension("semi_supervised_discriminator_features")
    plain = start_extension("semi_supervised_discriminator_features")
    list(with_labels.train())
    list(plain.method.core.train())
    assert_close(with_labels.method.core.state(), plain.method.core.state(), rtol=0, atol=0)
