"""The deep Boltzmann machine.  Kinds: reference (by enumeration), invariant, behaviour."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import logsumexp, xlogy

from gan.baselines.dbm import Dbm
from gan.baselines.rbm import draw
from gan.config import DbmConfig, RunConfig, with_overrides
from gan.tasks import start_run
from tests.gan.oracles import binary_rows, finite_differences, layered_boltzmann
from tests.gan.small import (
    EXTENSIONS,
    INDEPENDENT_NATS,
    OF_ALL,
    TRUE_NATS,
    start_extension,
    two_pictures,
)

N_PIXELS = 4
N_CHAINS = 20_000
DEEP = pytest.mark.parametrize("hidden", [(3, 2), (3, 2, 2)])


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def random_dbm(hidden, rng, *, n_chains=N_CHAINS):
    dbm = Dbm(
        (1, 1, N_PIXELS),
        cfg=DbmConfig(hidden=hidden),
        n_chains=n_chains,
        pixel_mean=torch.full((N_PIXELS,), 0.5),
        rng=rng,
    ).double()
    with torch.no_grad():
        for parameter in dbm.parameters():
            parameter.normal_(generator=rng)
    return dbm.eval().requires_grad_(False)


def enumerated(dbm):
    """Every state of all layers, and its log probability."""
    weights = [rbm.weight.numpy() for rbm in dbm.rbms]
    biases = [dbm.bias(i).numpy() for i in range(len(weights) + 1)]
    rows, exponents = layered_boltzmann(weights, biases)
    return rows, exponents - logsumexp(exponents)


def log_p_v(dbm):
    """Of every v."""
    _, log_p = enumerated(dbm)
    return logsumexp(log_p.reshape(2**N_PIXELS, -1), 1)


def bound(dbm, n_steps):
    """Mean-field bound on log p of every v, nats."""
    dbm.cfg = dataclasses.replace(dbm.cfg, mean_field_steps=n_steps)
    v, *mu = dbm.mean_field(torch.from_numpy(binary_rows(N_PIXELS)))
    q = torch.cat(mu, 1).numpy()
    entropy = -(xlogy(q, q) + xlogy(1 - q, 1 - q)).sum(1)
    rows, log_p = enumerated(dbm)
    layers = torch.from_numpy(rows).split(dbm.widths, 1)
    log_z = -dbm.energy(layers).numpy()[0] - log_p[0]
    return -dbm.energy([v, *mu]).numpy() + entropy - log_z


@DEEP
def test_energy_is_that_of_the_sum_over_units(hidden, rng):
    dbm = random_dbm(hidden, rng)
    rows, log_p = enumerated(dbm)
    energy = dbm.energy(torch.from_numpy(rows).split(dbm.widths, 1)).numpy()
    assert_allclose(-energy - logsumexp(-energy), log_p, rtol=1e-10, atol=1e-10)


@DEEP
def test_the_chain_s_distribution_is_that_of_the_machine(hidden, rng):
    dbm = random_dbm(hidden, rng)
    chain = dbm.chain
    for _ in range(100):
        chain = dbm.gibbs(chain, rng)
    _, log_p = enumerated(dbm)
    n_units = sum(dbm.widths)
    codes = (chain.numpy() @ 2 ** np.arange(n_units)[::-1]).astype(int)
    shares = np.bincount(codes, minlength=2**n_units) / N_CHAINS
    # 20,000 independent draws of 2,048 states: 0.13 or less in the mean; here most are rare.
    assert 0.5 * np.abs(shares - np.exp(log_p)).sum() < 0.1


@DEEP
def test_the_mean_field_bound_lies_below_the_likelihood_and_rises(hidden, rng):
    dbm = random_dbm(hidden, rng)
    exact = log_p_v(dbm)
    bounds = [bound(dbm, n_steps) for n_steps in (1, 2, 20)]
    for lower, higher in zip(bounds, [*bounds[1:], exact], strict=True):
        assert np.all(lower <= higher + 1e-9)
    assert np.all(exact - bounds[-1] > 1e-4)
    assert (exact - bounds[-1]).mean() < 0.5


@DEEP
def test_contrast_is_the_gradient_of_the_energies(hidden, rng):
    dbm = random_dbm(hidden, rng)
    mu = [torch.rand(5, width, generator=rng, dtype=torch.float64) for width in dbm.widths]
    states = [draw(torch.full_like(m, 0.5), rng) for m in mu]
    gradients = dbm.contrast(mu, states)
    dbm.requires_grad_(True)
    gap = dbm.energy(mu).mean() - dbm.energy(states).mean()
    weights = [rbm.weight for rbm in dbm.rbms]
    biases = [dbm.rbms[0].vbias, *(rbm.hbias for rbm in dbm.rbms)]
    expected = torch.autograd.grad(gap, [*weights, *biases])
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-12)


@DEEP
def test_chains_in_equilibrium_give_the_gradient_of_the_partition_function(hidden, rng):
    dbm = random_dbm(hidden, rng)
    rows, log_p = enumerated(dbm)
    p = torch.from_numpy(np.exp(log_p))
    at = torch.multinomial(p, N_CHAINS, replacement=True, generator=rng)
    smooth = dbm.smooth(dbm.gibbs(torch.from_numpy(rows)[at], rng))
    nothing = [torch.zeros(1, width, dtype=torch.float64) for width in dbm.widths]
    gradients = dbm.contrast(nothing, smooth)
    weights = [rbm.weight.numpy() for rbm in dbm.rbms]
    biases = [dbm.bias(i).numpy() for i in range(len(weights) + 1)]
    given = [*weights, *biases]
    for i, gradient in enumerate(gradients):

        def log_z(parameter, i=i):
            changed = [*given[:i], parameter, *given[i + 1 :]]
            _, exponents = layered_boltzmann(changed[: len(weights)], changed[len(weights) :])
            return logsumexp(exponents)

        # Four standard errors of a mean of 20,000 in [0, 1] are 0.014 at the most.
        assert_allclose(gradient, finite_differences(log_z, given[i]), rtol=0, atol=0.015)


def test_smoothed_layers_are_means_given_the_others(rng):
    dbm = random_dbm((3, 2), rng, n_chains=6)
    rows, log_p = enumerated(dbm)
    chain = torch.from_numpy(rows[::85])
    v, h1, h2 = (part.numpy() for part in dbm.smooth(chain))
    assert_allclose(np.concatenate([v, h2], 1), chain[:, [0, 1, 2, 3, 7, 8]], rtol=0, atol=0)
    for row, means in zip(chain.numpy(), h1, strict=True):
        alike = (rows[:, [0, 1, 2, 3, 7, 8]] == row[[0, 1, 2, 3, 7, 8]]).all(1)
        p = np.exp(log_p[alike])
        assert_allclose(means, p @ rows[alike][:, 4:7] / p.sum(), rtol=1e-10, atol=0)


def test_images_are_means_of_pixels_given_h1_and_as_frequent_as_it(rng):
    dbm = random_dbm((3, 2), rng, n_chains=500)
    dbm.cfg = dataclasses.replace(dbm.cfg, sample_burn_in=50, sample_thin=5)
    images = dbm.sample(20_000, seed=0).flatten(1).numpy()
    bottom = dbm.rbms[0]
    means = 1 / (1 + np.exp(-(binary_rows(3) @ bottom.weight.numpy() + bottom.vbias.numpy())))
    distances = np.abs(images[:, None] - means).max(2)
    assert distances.min(1).max() < 1e-6
    shares = np.bincount(distances.argmin(1), minlength=8) / len(images)
    _, log_p = enumerated(dbm)
    p_h1 = np.exp(log_p).reshape(2**N_PIXELS, 8, 4).sum((0, 2))
    # 20,000 independent draws of 8 states: 0.008 or less in the mean; the chains' are not quite.
    assert 0.5 * np.abs(shares - p_h1).sum() < 0.02


def test_pairs_of_layers_are_trained_first_and_all_together_then():
    run = start_extension("dbm", train__n_steps=5, dbm__hidden=[6, 5], dbm__joint_share=0.6)
    rbms = run.model.rbms
    names, changed = [], []
    before = [rbm.weight.clone() for rbm in rbms]
    for report in run.train():
        after = [rbm.weight.clone() for rbm in rbms]
        changed.append([not torch.equal(a, b) for a, b in zip(before, after, strict=True)])
        names += report.means
        before = after
    assert changed == [[True, False], [False, True], *[[True, True]] * 3]
    assert names == ["free_energy_gap_nats"] * 2 + ["energy_gap_nats"] * 3


@pytest.mark.parametrize("joint_share", [0.01, 0.99])
def test_each_phase_has_a_step_however_the_steps_are_shared(joint_share):
    run = start_extension("dbm", train__n_steps=3, dbm__joint_share=joint_share)
    names = [name for report in run.train() for name in report.means]
    assert names == ["free_energy_gap_nats"] * 2 + ["energy_gap_nats"]


def test_what_comes_from_one_side_is_doubled_where_it_will_come_from_two():
    factors = [
        (rbm.up, rbm.down) for rbm in start_extension("dbm", dbm__hidden=[6, 5, 4]).model.rbms
    ]
    assert factors == [(2, 1), (2, 2), (1, 2)]


def test_of_two_pictures_it_learns_which_pixels_go_together():
    """By the exact likelihood, more than half of what there is to learn of that."""
    images, pixels = two_pictures()
    settings = {"dbm.hidden": [4, 3], "train.n_steps": 900, "train.learning_rate": 0.1}
    settings |= {"dbm.joint_learning_rate": 0.05}
    settings |= {"train.report_every": 100, "evaluation.score_every": 900}
    config = with_overrides(RunConfig(), OF_ALL | EXTENSIONS["dbm"] | settings)
    run = start_run(config, images, device="cpu")
    list(run.train())
    model = run.saved().model
    # The pixels are summed over by the closed form, the hidden units by enumeration.
    rows, exponents = layered_boltzmann(
        [model.rbms[1].weight.double().numpy()],
        [model.bias(i).double().numpy() for i in (1, 2)],
    )
    received = rows[:, :4] @ model.rbms[0].weight.numpy() + model.bias(0).numpy()
    log_z = logsumexp(exponents + np.logaddexp(0, received).sum(1))
    log_joint = exponents + pixels @ received.T
    nats = log_z - logsumexp(log_joint, 1).mean()
    assert TRUE_NATS - 0.2 < nats < 0.5 * (TRUE_NATS + INDEPENDENT_NATS)
