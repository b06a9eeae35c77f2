"""A head on an inference net.  Kinds: independent reference, algorithm, bad input."""

import pytest
import torch
from torch.testing import assert_close

from gan.errors import DivergedError
from gan.extensions.semi_supervised.heads import choose_strength, fit_head
from gan.extensions.semi_supervised.inference_features import features
from tests.gan.small import labelled_images, origin_of, small_config, start_extension

NAME = "semi_supervised_inference_features"


def test_features_are_the_last_hidden_layer_and_the_code():
    run = start_extension(NAME)
    E = run.saved().classifier.E
    x = torch.from_numpy(labelled_images().images).flatten(1) / 255
    found = features(E, x)
    assert_close(found[:, 5:], E(x), rtol=0, atol=0)
    assert_close(found[:, :5], E.features(x), rtol=0, atol=0)


def test_both_nets_stay_those_that_the_run_started_from():
    run = start_extension(NAME)
    origin = origin_of(run.config)
    list(run.train())
    saved = run.saved()
    assert_close(saved.classifier.E.state_dict(), origin.E.state_dict(), rtol=0, atol=0)
    assert_close(saved.G.state_dict(), origin.G.state_dict(), rtol=0, atol=0)
    assert saved.config.prior == origin.config.prior
    assert saved.config.semi_supervised.inference == origin.config.inference


def test_training_ends_where_the_penalised_likelihood_is_greatest():
    """By full descent of the same function, as scikit-learn has it."""
    run = start_extension(
        NAME,
        train__n_steps=4_000,
        train__report_every=4_000,
        train__optimizer="adam",
        train__learning_rate=0.05,
        train__decay_per_step=1.001,
        train__batch_size=60,
        evaluation__score_every=4_000,
    )
    list(run.train())
    method, saved = run.method, run.saved()
    few = method.few
    with torch.no_grad():
        x = few.pixels.to(torch.float32).div(255)
        every = features(saved.classifier.E, x)
    expected = fit_head(every[few.labelled], few.labels, every[few.unlabelled])
    assert choose_strength(method.head, every[few.labelled], few.labels) > 0
    found = method.head(every[few.labelled]).softmax(1)
    reference = expected(every[few.labelled]).softmax(1)
    assert_close(found, reference, rtol=0, atol=0.05)


def test_a_loss_that_is_not_finite_stops_the_run():
    run = start_extension(NAME)
    with torch.no_grad():
        run.method.head.linear.bias.fill_(float("nan"))
    with pytest.raises(DivergedError, match="losses must be finite, got labelled_loss = nan"):
        list(run.train())


def test_the_small_origin_is_an_inference_net():
    config = small_config(semi_supervised={"method": "inference_features", "n_labels": 6})
    assert origin_of(config).config.task == "inference"
