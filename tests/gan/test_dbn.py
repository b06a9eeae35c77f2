"""The deep belief net.  Kinds: reference (by enumeration), invariant, behaviour."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import logsumexp

from gan.baselines.dbn import Dbn
from gan.config import DbnConfig, RunConfig, with_overrides
from gan.errors import ConfigError
from gan.sampling import Sampler
from gan.tasks import start_run
from tests.gan.oracles import binary_rows, layered_boltzmann
from tests.gan.small import (
    EXTENSIONS,
    INDEPENDENT_NATS,
    OF_ALL,
    TRUE_NATS,
    start_extension,
    two_pictures,
)

N_PIXELS = 3


def random_dbn(*hidden):
    rng = torch.Generator().manual_seed(0)
    dbn = Dbn(
        (1, 1, N_PIXELS),
        cfg=DbnConfig(hidden=hidden, sample_burn_in=50, sample_thin=5),
        n_chains=500,
        pixel_mean=torch.full((N_PIXELS,), 0.5),
        rng=rng,
    )
    with torch.no_grad():
        for parameter in dbn.parameters():
            parameter.normal_(generator=rng)
    dbn.depth.fill_(len(hidden))
    return dbn.eval().requires_grad_(False)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def log_p_h1(dbn):
    """Of every state of the lowest hidden layer: the top RBM by enumeration, then downwards."""
    weights, vbiases, hbiases = (
        [getattr(rbm, name).double().numpy() for rbm in dbn.rbms]
        for name in ("weight", "vbias", "hbias")
    )
    states = binary_rows(len(vbiases[-1]))
    _, exponents = layered_boltzmann([weights[-1]], [vbiases[-1], hbiases[-1]])
    log_p = logsumexp(exponents.reshape(len(states), -1), 1) - logsumexp(exponents)
    for weight, vbias in reversed([*zip(weights[1:-1], vbiases[1:-1], strict=True)]):
        below = binary_rows(len(vbias))
        p = sigmoid(states @ weight + vbias)
        log_below = np.log(p) @ below.T + np.log(1 - p) @ (1 - below.T)
        log_p = logsumexp(log_p[:, None] + log_below, 0)
        states = below
    return log_p


def log_p_v(dbn, x):
    """Of binary rows x, [n, n_pixels]."""
    bottom = dbn.rbms[0]
    h1 = binary_rows(len(bottom.hbias))
    p = sigmoid(h1 @ bottom.weight.double().numpy() + bottom.vbias.double().numpy())
    log_conditional = x @ np.log(p).T + (1 - x) @ np.log(1 - p).T
    return logsumexp(log_conditional + log_p_h1(dbn), 1)


@pytest.mark.parametrize("hidden", [(3, 2), (3, 4, 2)])
def test_images_are_the_means_of_pixels_given_h1_and_as_frequent_as_it(hidden):
    dbn = random_dbn(*hidden)
    images = dbn.sample(20_000, seed=0).flatten(1).double().numpy()
    bottom = dbn.rbms[0]
    h1 = binary_rows(hidden[0])
    means = sigmoid(h1 @ bottom.weight.numpy() + bottom.vbias.numpy())
    distances = np.abs(images[:, None] - means).max(2)
    assert distances.min(1).max() < 1e-6
    shares = np.bincount(distances.argmin(1), minlength=len(h1)) / len(images)
    # 20,000 independent draws of 8 states: 0.008 or less in the mean; the chains' are not quite.
    assert 0.5 * np.abs(shares - np.exp(log_p_h1(dbn))).sum() < 0.02


def test_probabilities_by_enumeration_sum_to_one():
    """So that the test below can be believed."""
    for hidden in ((3, 2), (3, 4, 2)):
        log_p = log_p_v(random_dbn(*hidden), binary_rows(N_PIXELS))
        assert_allclose(logsumexp(log_p), 0, rtol=0, atol=1e-12)


def test_layers_are_trained_in_turn_and_stay_as_they_are():
    run = start_extension("dbn_of_fresh_chains", train__n_steps=6)
    changed, depths = [], []
    before = [rbm.weight.clone() for rbm in run.model.rbms]
    for _ in run.train():
        after = [rbm.weight.clone() for rbm in run.model.rbms]
        changed.append([not torch.equal(a, b) for a, b in zip(before, after, strict=True)])
        depths.append(int(run.model.depth))
        before = after
    assert depths == [1, 1, 2, 2, 3, 3]
    one, two, three = np.eye(3, dtype=bool).tolist()
    assert changed == [one, one, two, two, three, three]


def test_each_layer_s_step_size_falls_to_nothing():
    run = start_extension("dbn", train__decay_per_step=1.0, train__learning_rate=0.1)
    rates = [run.model.learning_rate, *(report.learning_rate for report in run.train())]
    assert_allclose(rates, [0.1, 0.05, 0.1, 0.05, 0.0], rtol=1e-12, atol=0)


def test_of_two_pictures_it_learns_which_pixels_go_together():
    """By the exact likelihood, more than half of what there is to learn of that."""
    images, pixels = two_pictures()
    settings = {"dbn.hidden": [6, 4], "train.n_steps": 800, "train.learning_rate": 0.1}
    settings |= {"train.report_every": 100, "evaluation.score_every": 800}
    config = with_overrides(RunConfig(), OF_ALL | EXTENSIONS["dbn"] | settings)
    run = start_run(config, images, device="cpu")
    list(run.train())
    model = run.saved().model
    nats = -log_p_v(model, pixels).mean()
    assert TRUE_NATS - 0.2 < nats < 0.5 * (TRUE_NATS + INDEPENDENT_NATS)


@pytest.mark.parametrize("name", ["dbn", "dbn_of_fresh_chains", "dbm"])
def test_samples_of_a_seed_do_not_depend_on_how_many_are_drawn(name):
    run = start_extension(name)
    list(run.train())
    sampler: Sampler = run.saved().sampler()
    many = sampler.sample(1203, seed=3)
    assert many.shape == (1203, 1, 4, 4)
    assert 0 <= many.min() <= many.max() <= 1
    assert torch.equal(sampler.sample(5, seed=3), many[:5])
    assert not torch.equal(sampler.sample(5, seed=4), many[:5])
    with pytest.raises(ValueError, match="n must be >= 1"):
        sampler.sample(0, seed=0)


@pytest.mark.parametrize("name", ["dbn", "dbn_of_fresh_chains", "dbm"])
def test_the_decoder_is_the_last_map_of_a_sample(name):
    model = start_extension(name).saved().sampler()
    decoder, n_hidden = model.decoder()
    h = torch.randint(2, (9, n_hidden), generator=torch.Generator().manual_seed(0)).float()
    torch.testing.assert_close(decoder(h), model.rbms[0].propdown(h), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "n_phases"), [("dbn_of_fresh_chains", 3), ("dbm", 3)])
def test_fewer_steps_than_phases_are_refused(name, n_phases):
    match = rf"train.n_steps must be {n_phases} or more, .* got 2"
    with pytest.raises(ConfigError, match=match):
        start_extension(name, train__n_steps=2)


def test_before_any_training_samples_are_of_the_lowest_machine():
    model = start_extension("dbn").saved().sampler()
    assert int(model.depth) == 1
    means = model.sample(200, seed=0).flatten(1).mean(0)
    by_bias = torch.sigmoid(model.rbms[0].vbias)
    assert_allclose(means, by_bias, rtol=0, atol=0.05)
