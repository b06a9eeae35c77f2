"""The restricted Boltzmann machine.  Kinds: reference (by enumeration), closed form, behaviour."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import logsumexp

from gan.baselines.rbm import GibbsChains, Rbm, annealed, draw, outer_mean, phase_at
from gan.sampling import NOISE_BLOCK, draw_in_blocks
from tests.gan.oracles import binary_rows, finite_differences, layered_boltzmann

N_VISIBLE, N_HIDDEN = 5, 4
N_CHAINS = 20_000


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def random_rbm(rng, *, n_chains=N_CHAINS, **factors):
    rbm = Rbm(N_VISIBLE, N_HIDDEN, n_chains=n_chains, rng=rng, **factors).double()
    with torch.no_grad():
        for parameter in rbm.parameters():
            parameter.normal_(generator=rng)
    return rbm.requires_grad_(False)


def parameters(rbm):
    return [p.numpy() for p in (rbm.weight, rbm.vbias, rbm.hbias)]


def enumerated(weight, vbias, hbias):
    """Every v; every h; the exponents -E, [2^n_visible, 2^n_hidden]."""
    _, exponents = layered_boltzmann([weight], [vbias, hbias])
    v, h = binary_rows(len(vbias)), binary_rows(len(hbias))
    return v, h, exponents.reshape(len(v), len(h))


def log_p_v(weight, vbias, hbias):
    """Of every v."""
    _, _, exponents = enumerated(weight, vbias, hbias)
    return logsumexp(exponents, 1) - logsumexp(exponents)


def test_free_energy_is_the_sum_over_hidden_states(rng):
    rbm = random_rbm(rng)
    v, _, exponents = enumerated(*parameters(rbm))
    free_energy = rbm.free_energy(torch.from_numpy(v)).numpy()
    assert_allclose(free_energy, -logsumexp(exponents, 1), rtol=1e-12, atol=1e-12)
    p = np.exp(-free_energy - logsumexp(exponents))
    assert_allclose(p.sum(), 1, rtol=1e-12, atol=0)


def test_conditionals_are_those_of_the_joint_distribution(rng):
    rbm = random_rbm(rng)
    v, h, exponents = enumerated(*parameters(rbm))
    p = np.exp(exponents - logsumexp(exponents))
    h_given_v = p @ h / p.sum(1)[:, None]
    v_given_h = p.T @ v / p.sum(0)[:, None]
    assert_allclose(rbm.propup(torch.from_numpy(v)), h_given_v, rtol=1e-10, atol=0)
    assert_allclose(rbm.propdown(torch.from_numpy(h)), v_given_h, rtol=1e-10, atol=0)


def test_factors_multiply_what_is_received(rng):
    rbm = random_rbm(rng, up=2.0, down=3.0)
    weight, vbias, hbias = parameters(rbm)
    v, h = binary_rows(N_VISIBLE), binary_rows(N_HIDDEN)
    h_given_v = 1 / (1 + np.exp(-2 * (v @ weight.T + hbias)))
    v_given_h = 1 / (1 + np.exp(-3 * (h @ weight + vbias)))
    assert_allclose(rbm.propup(torch.from_numpy(v)), h_given_v, rtol=1e-10, atol=0)
    assert_allclose(rbm.propdown(torch.from_numpy(h)), v_given_h, rtol=1e-10, atol=0)


def test_a_draw_is_one_as_often_as_its_probability(rng):
    p = torch.tensor([0.0, 0.1, 0.5, 1.0]).expand(N_CHAINS, 4)
    drawn = draw(p, rng)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    # Four standard errors of a mean of 20,000 are 0.014 at the most.
    assert_allclose(drawn.mean(0), p[0], rtol=0, atol=0.015)
    assert drawn[:, 0].sum() == 0
    assert drawn[:, 3].sum() == N_CHAINS


def test_the_mean_outer_product_is_that_of_numpy(rng):
    h, v = torch.rand(7, 3, generator=rng), torch.rand(7, 4, generator=rng)
    expected = np.einsum("ni,nj->ij", h.numpy(), v.numpy()) / 7
    assert_allclose(outer_mean(h, v), expected, rtol=1e-5, atol=0)


def test_the_chain_s_distribution_is_that_of_the_machine(rng):
    rbm = random_rbm(rng)
    states = torch.zeros(N_CHAINS, N_VISIBLE, dtype=torch.float64)
    for _ in range(100):
        states = rbm.gibbs_vhv(states, rng)
    counts = np.bincount((states.numpy() @ 2 ** np.arange(N_VISIBLE)[::-1]).astype(int))
    distance = 0.5 * np.abs(counts / N_CHAINS - np.exp(log_p_v(*parameters(rbm)))).sum()
    assert distance < 0.03  # 20,000 independent draws of 32 states: 0.016 or less in the mean


@pytest.mark.parametrize("up", [1.0, 2.0])
@pytest.mark.parametrize("persistent", [False, True])
def test_gradients_are_those_of_the_gap(persistent, up, rng):
    rbm = random_rbm(rng, n_chains=6, up=up)
    v = draw(torch.full((6, N_VISIBLE), 0.5, dtype=torch.float64), rng)
    gradients, gap = rbm.contrast(v, k=3, persistent=persistent, rng=rng)
    rbm.requires_grad_(True)
    expected = rbm.free_energy(v).mean() - rbm.free_energy(rbm.chain).mean()
    torch.testing.assert_close(gap, expected.detach(), rtol=1e-12, atol=1e-12)
    by_autograd = torch.autograd.grad(expected, list(rbm.parameters()))
    torch.testing.assert_close(gradients, by_autograd, rtol=1e-12, atol=1e-12)


def test_chains_in_equilibrium_give_the_gradient_of_the_likelihood(rng):
    rbm = random_rbm(rng)
    weight, vbias, hbias = parameters(rbm)
    rows = torch.from_numpy(binary_rows(N_VISIBLE))
    at = torch.multinomial(
        torch.from_numpy(np.exp(log_p_v(weight, vbias, hbias))),
        N_CHAINS,
        replacement=True,
        generator=rng,
    )
    rbm.begin_at(rows[at])
    seen = np.array([3, 3, 10, 31])  # of the 32 images
    minibatch = rows[seen].repeat(N_CHAINS // 4, 1)
    gradients, _ = rbm.contrast(minibatch, k=1, persistent=True, rng=rng)
    expected = (
        finite_differences(lambda W: -log_p_v(W, vbias, hbias)[seen].mean(), weight),
        finite_differences(lambda b: -log_p_v(weight, b, hbias)[seen].mean(), vbias),
        finite_differences(lambda c: -log_p_v(weight, vbias, c)[seen].mean(), hbias),
    )
    for gradient, exact in zip(gradients, expected, strict=True):
        # Four standard errors of a mean of 20,000 in [0, 1] are 0.014 at the most.
        assert_allclose(gradient, exact, rtol=0, atol=0.015)


@pytest.mark.parametrize("persistent", [False, True])
def test_chains_start_at_the_minibatch_or_where_they_were(persistent, rng):
    rbm = random_rbm(rng, n_chains=8)
    v = torch.ones(8, N_VISIBLE, dtype=torch.float64)
    expected = rbm.chain.clone() if persistent else v
    other = torch.Generator().set_state(rng.get_state())
    rbm.contrast(v, k=2, persistent=persistent, rng=rng)
    for _ in range(2):
        expected = rbm.gibbs_vhv(expected, other)
    assert torch.equal(rbm.chain, expected)


@pytest.mark.parametrize("persistent", [False, True])
def test_learning_raises_the_likelihood_of_what_is_seen(persistent, rng):
    """Two pictures: the best mean of log p is -log 2; at the start all 32 are alike."""
    rbm = Rbm(N_VISIBLE, N_HIDDEN, n_chains=100, rng=rng).double().requires_grad_(False)
    minibatch = torch.tensor([[1.0, 1, 0, 0, 1], [0, 0, 1, 1, 0]]).double().repeat(50, 1)
    rbm.begin_at(minibatch)
    seen = [0b11001, 0b00110]
    before = log_p_v(*parameters(rbm))[seen].mean()
    assert_allclose(before, -np.log(32), rtol=0, atol=0.05)
    for _ in range(300):
        gradients, _ = rbm.contrast(minibatch, k=1, persistent=persistent, rng=rng)
        for parameter, gradient in zip(rbm.parameters(), gradients, strict=True):
            parameter.sub_(0.1 * gradient)
    assert log_p_v(*parameters(rbm))[seen].mean() > -np.log(2) - 1


def test_rows_of_chains_are_thinned_and_do_not_depend_on_how_many_are_asked_for():
    def chains():
        return GibbsChains(
            lambda states, rng: states + 1,
            torch.tensor([[0.0], [100.0]]),
            read=lambda states, rng: 10 * states,
            burn_in=5,
            thin=2,
        )

    rng = torch.Generator()
    assert chains().sample(5, rng).flatten().tolist() == [50, 1050, 70, 1070, 90]
    few, many = draw_in_blocks(chains(), 3, rng), draw_in_blocks(chains(), NOISE_BLOCK + 4, rng)
    assert torch.equal(few, many[:3])
    assert many[NOISE_BLOCK].item() == many[NOISE_BLOCK - 2].item() + 20


def test_phases_follow_one_another():
    steps = [phase_at(step, [4, 6, 10]) for step in (0, 3, 4, 5, 6, 9, 10)]
    assert steps == [(0, 0.0), (0, 0.75), (1, 0.0), (1, 0.5), (2, 0.0), (2, 0.75), (2, 1.0)]


def test_the_step_size_falls_linearly_from_a_share_on():
    assert [annealed(done, anneal_from=0.5) for done in (0.0, 0.5, 0.75, 1.0)] == [1, 1, 0.5, 0]
    assert annealed(1.0, anneal_from=1.0) == 1.0
    assert annealed(0.25, anneal_from=0.0) == 0.75
