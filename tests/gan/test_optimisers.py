"""SGD and Adam with their schedules.  Kinds: closed form, independent reference, invariance."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.testing import assert_close

from gan.config import TrainConfig
from gan.optimisers import build_descent, build_descents

RELEASED = TrainConfig()  # schedules of mnist.yaml


def descent(cfg=RELEASED, *, values=(1.0, -2.0, 0.5)):
    parameter = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    return build_descent([parameter], cfg, learning_rate=cfg.learning_rate), parameter


@pytest.fixture
def gradients():
    return np.random.default_rng(0).normal(size=(12, 3))


def follow(optimiser, gradients):
    for gradient in gradients:
        optimiser.update((torch.from_numpy(gradient.copy()),))


# Closed form


@pytest.mark.parametrize(("epoch", "rate"), [(50, 0.0905), (250, 0.0607), (500, 0.0368)])
def test_learning_rate_at_an_epoch_is_that_of_the_released_code(epoch, rate):
    optimiser, _ = descent()
    optimiser.n_updates = 500 * epoch
    assert_allclose(optimiser.learning_rate, rate, rtol=0, atol=5e-5)


@pytest.mark.parametrize("t", [0, 1, 7, 1_000, 10**6, 10**7])
def test_learning_rate_decays_geometrically_down_to_its_floor(t):
    optimiser, _ = descent()
    optimiser.n_updates = t
    expected = max(1e-6, 0.1 * np.exp(-t * np.log(1.000004)))
    assert_allclose(optimiser.learning_rate, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("floor", [0.0, 1e-6])
@pytest.mark.parametrize("t", [71_000, 71_400, 10**6])
def test_learning_rate_decays_on_where_its_divisor_is_too_large_for_a_float(t, floor):
    cfg = TrainConfig(learning_rate=0.1, decay_per_step=1.01, min_learning_rate=floor)
    optimiser, _ = descent(cfg)
    optimiser.n_updates = t  # 1.01^t overflows from 71,333 on
    expected = max(floor, 0.1 * np.exp(-t * np.log(1.01)))
    assert_allclose(optimiser.learning_rate, expected, rtol=1e-9, atol=1e-308)


def test_floor_is_reached_after_5756_epochs():
    optimiser, _ = descent()
    optimiser.n_updates = 500 * 5_756
    assert optimiser.learning_rate > 1e-6
    optimiser.n_updates = 500 * 5_757
    assert optimiser.learning_rate == 1e-6


@pytest.mark.parametrize(
    ("t", "momentum"), [(0, 0.5), (31_250, 0.55), (62_500, 0.6), (125_000, 0.7), (10**7, 0.7)]
)
def test_momentum_grows_linearly_for_250_epochs(t, momentum):
    optimiser, _ = descent()
    optimiser.n_updates = t
    assert_allclose(optimiser.momentum, momentum, rtol=1e-12, atol=0)


# Independent reference


def test_sgd_follows_velocity_and_both_schedules(gradients):
    cfg = TrainConfig(
        learning_rate=0.3,
        decay_per_step=1.1,
        min_learning_rate=0.15,
        momentum=0.2,
        final_momentum=0.9,
        momentum_steps=5,
    )
    optimiser, parameter = descent(cfg)
    expected, velocity = parameter.detach().numpy().copy(), np.zeros(3)
    for t, gradient in enumerate(gradients):
        momentum = 0.2 + min(1.0, t / 5) * (0.9 - 0.2)
        velocity = momentum * velocity + gradient
        expected = expected - max(0.15, 0.3 / 1.1**t) * velocity
    follow(optimiser, gradients)
    assert_allclose(parameter.detach().numpy(), expected, rtol=1e-10, atol=1e-12)
    assert optimiser.n_updates == 12


def test_sgd_keeps_within_1e_5_of_the_released_codes_velocity_on_a_steady_slope():
    optimiser, parameter = descent(values=(0.0, 0.0, 0.0))
    slope = np.array([1.0, -2.0, 0.1])
    expected, velocity = np.zeros(3), np.zeros(3)
    for t in range(200):
        velocity = (0.5 + 0.2 * t / 125_000) * velocity - 0.1 / 1.000004**t * slope
        expected += velocity
    follow(optimiser, [slope] * 200)
    assert_allclose(parameter.detach().numpy(), expected, rtol=1e-5, atol=0)


def test_adam_follows_its_two_moments(gradients):
    cfg = TrainConfig(
        optimizer="adam",
        learning_rate=0.02,
        decay_per_step=1.05,
        adam_beta1=0.6,
        adam_beta2=0.95,
    )
    optimiser, parameter = descent(cfg)
    expected, m, v = parameter.detach().numpy().copy(), np.zeros(3), np.zeros(3)
    for t, gradient in enumerate(gradients):
        m = 0.6 * m + 0.4 * gradient
        v = 0.95 * v + 0.05 * gradient**2
        m_hat, v_hat = m / (1 - 0.6 ** (t + 1)), v / (1 - 0.95 ** (t + 1))
        expected = expected - 0.02 / 1.05**t * m_hat / (np.sqrt(v_hat) + 1e-8)
    follow(optimiser, gradients)
    assert_allclose(parameter.detach().numpy(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_columns_are_scaled_back_after_each_update_and_the_velocity_is_not(kind):
    rng = np.random.default_rng(0)
    cfg = TrainConfig(optimizer=kind, learning_rate=0.3, momentum=0.6, momentum_steps=4)
    start = rng.normal(size=(4, 3))
    free, _ = parameters = [nn.Parameter(torch.tensor(start)) for _ in range(2)]
    weight = parameters[1]
    limited = build_descent([weight], cfg, learning_rate=0.3)
    limited.limit_columns([weight], 1.2)
    # The same optimiser without a limit, whose weights are put where the limit leaves them.
    plain = build_descent([free], cfg, learning_rate=0.3)
    n_scaled = 0
    for _ in range(8):
        gradient = rng.normal(size=(4, 3))
        plain.update((torch.tensor(gradient),))
        columns = free.detach().numpy().copy()
        for unit in range(4):
            norm = np.sqrt(np.sum(columns[unit] ** 2))
            if norm > 1.2:
                columns[unit] *= 1.2 / norm
                n_scaled += 1
        limited.update((torch.tensor(gradient),))
        # torch divides by |w| + 1e-7.
        assert_allclose(weight.detach().numpy(), columns, rtol=1e-5, atol=1e-7)
        with torch.no_grad():
            free.copy_(torch.from_numpy(columns))
    assert 0 < n_scaled < 32
    for name, kept in plain.state().items():
        assert_close(limited.state()[name], kept, rtol=1e-5, atol=1e-7)


def test_filters_of_a_convolution_are_limited_over_all_their_inputs():
    weight = nn.Parameter(torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0)))
    optimiser = build_descent([weight], RELEASED, learning_rate=0.1)
    optimiser.limit_columns([weight], 2.0)
    before = weight.detach().clone()
    optimiser.update((torch.zeros_like(weight),))
    norms = before.flatten(1).norm(dim=1)
    expected = before * (2.0 / norms).clamp(max=1)[:, None, None, None]
    assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)


# Algorithm


def test_gradients_are_those_of_this_players_parameters_and_touch_no_others():
    G, D = nn.Linear(2, 3), nn.Linear(3, 1)
    g_descent, _ = build_descents(G, D, RELEASED)
    x = torch.ones(4, 2)
    got = g_descent.gradients(D(G(x)).sum())
    assert all(p.grad is None for p in (*G.parameters(), *D.parameters()))
    D(G(x)).sum().backward()
    assert_close(list(got), [p.grad for p in G.parameters()], rtol=1e-6, atol=1e-7)


def test_d_has_the_learning_rate_of_g_unless_it_has_its_own():
    G, D = nn.Linear(2, 3), nn.Linear(3, 1)
    g_descent, d_descent = build_descents(G, D, RELEASED)
    assert (g_descent.learning_rate, d_descent.learning_rate) == (0.1, 0.1)
    cfg = dataclasses.replace(RELEASED, d_learning_rate=0.02)
    g_descent, d_descent = build_descents(G, D, cfg)
    assert (g_descent.learning_rate, d_descent.learning_rate) == (0.1, 0.02)


# Invariance: resume


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_an_optimiser_goes_on_bit_for_bit_from_its_state(kind, gradients):
    cfg = TrainConfig(optimizer=kind, momentum_steps=5, decay_per_step=1.1)
    optimiser, parameter = descent(cfg)
    follow(optimiser, gradients[:6])
    state = {name: value.clone() for name, value in optimiser.state().items()}
    resumed, its_parameter = descent(cfg, values=parameter.tolist())
    resumed.set_state(state)
    follow(optimiser, gradients[6:])
    follow(resumed, gradients[6:])
    assert resumed.n_updates == 12
    assert torch.equal(its_parameter, parameter)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_an_optimiser_shares_nothing_with_the_state_it_was_given(kind, gradients):
    cfg = TrainConfig(optimizer=kind)
    optimiser, _ = descent(cfg)
    follow(optimiser, gradients[:2])
    state = optimiser.state()
    before = {name: value.clone() for name, value in state.items()}
    assert len(before) >= 2
    resumed, _ = descent(cfg)
    resumed.set_state(state)
    follow(resumed, gradients[2:])
    assert_close(state, before, rtol=0, atol=0)


def test_a_fresh_optimiser_can_be_saved_and_restored(gradients):
    fresh, _ = descent()
    resumed, parameter = descent()
    resumed.set_state(fresh.state())
    follow(resumed, gradients)
    other, expected = descent()
    follow(other, gradients)
    assert torch.equal(parameter, expected)


def test_a_gradient_is_laid_out_in_memory_as_its_parameter():
    """As cuDNN's are not, of a convolution whose maps have their channels last."""
    weight = nn.Parameter(torch.randn(4, 3, 2, 2))
    optimiser = build_descent([weight], RELEASED, learning_rate=0.1)
    factor = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    (gradient,) = optimiser.gradients((weight * factor).sum())
    assert_close(gradient, factor)
    assert gradient.stride() == weight.stride() != factor.stride()
