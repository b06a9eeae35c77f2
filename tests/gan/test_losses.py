"""The two players' losses.  Kinds: closed form, independent reference."""

import math
from typing import get_type_hints

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

from gan.config import TrainConfig
from gan.losses import (
    GENERATOR_LOSSES,
    discriminator_loss,
    minimax_generator_loss,
    non_saturating_generator_loss,
)


def logits(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


# Closed form


def test_loss_of_an_undecided_discriminator_is_log_4():
    loss = discriminator_loss(torch.zeros(5), torch.zeros(3))
    assert_close(loss.item(), math.log(4), rtol=1e-6, atol=0)


def test_gradients_of_an_undecided_discriminator_push_each_logit_by_half_its_share():
    real, fake = logits(0, 0, 0, 0), logits(0, 0)
    discriminator_loss(real, fake).backward()
    assert_close(real.grad, torch.full((4,), -1 / 8, dtype=torch.float64), rtol=1e-12, atol=0)
    assert_close(fake.grad, torch.full((2,), 1 / 4, dtype=torch.float64), rtol=1e-12, atol=0)


def test_loss_of_the_optimal_discriminator_is_log_4_minus_twice_the_jensen_shannon_divergence():
    n_real, n_fake = np.array([1, 2, 5]), np.array([4, 3, 1])  # times each of three points is seen
    p, q = n_real / 8, n_fake / 8
    m = (p + q) / 2
    divergence = (p * np.log(p / m)).sum() / 2 + (q * np.log(q / m)).sum() / 2
    best = torch.from_numpy(np.log(p / q))  # logit of D* = p / (p + q), Proposition 1
    loss = discriminator_loss(
        best.repeat_interleave(torch.from_numpy(n_real)),
        best.repeat_interleave(torch.from_numpy(n_fake)),
    )
    assert_close(loss.item(), math.log(4) - 2 * divergence, rtol=1e-12, atol=0)


@pytest.mark.parametrize("logit", [-30.0, -10.0, -1.0, 0.0, 2.0])
def test_non_saturating_gradient_is_the_minimax_gradient_times_the_odds_of_rejection(logit):
    minimax, non_saturating = logits(logit, logit), logits(logit, logit)
    minimax_generator_loss(minimax).backward()
    non_saturating_generator_loss(non_saturating).backward()
    d = 1 / (1 + math.exp(-logit))
    assert_close(minimax.grad, torch.full_like(minimax, -d / 2), rtol=1e-12, atol=0)
    odds = math.exp(-logit)  # (1 - D) / D
    assert_close(non_saturating.grad, minimax.grad * odds, rtol=1e-9, atol=0)


def test_minimax_gradient_vanishes_where_samples_are_rejected_and_the_other_does_not():
    rejected = logits(-40.0)
    (saturated,) = torch.autograd.grad(minimax_generator_loss(rejected), rejected)
    (strong,) = torch.autograd.grad(non_saturating_generator_loss(rejected), rejected)
    assert_close(saturated.item(), -math.exp(-40), rtol=1e-9, atol=0)
    assert_close(strong.item(), -1.0, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_are_linear_in_the_logit_where_a_sigmoid_has_saturated(dtype):
    far = torch.tensor([1000.0], dtype=dtype)
    assert_close(discriminator_loss(-far, far).item(), 2000.0, rtol=1e-7, atol=0)
    assert_close(minimax_generator_loss(far).item(), -1000.0, rtol=1e-7, atol=0)
    assert_close(non_saturating_generator_loss(-far).item(), 1000.0, rtol=1e-7, atol=0)


# Independent reference


def test_losses_agree_with_equation_1_written_out(numpy_logits):
    real, fake = numpy_logits
    d_real, d_fake = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-fake))
    value = np.log(d_real).mean() + np.log(1 - d_fake).mean()
    real, fake = torch.from_numpy(real), torch.from_numpy(fake)
    assert_allclose(discriminator_loss(real, fake).item(), -value, rtol=1e-12, atol=0)
    minimax = minimax_generator_loss(fake).item()
    assert_allclose(minimax, np.log(1 - d_fake).mean(), rtol=1e-12, atol=0)
    non_saturating = non_saturating_generator_loss(fake).item()
    assert_allclose(non_saturating, -np.log(d_fake).mean(), rtol=1e-12, atol=0)


@pytest.fixture
def numpy_logits():
    rng = np.random.default_rng(0)
    return rng.normal(size=11), rng.normal(size=7)


def test_every_generator_loss_of_the_configuration_exists():
    choices = get_type_hints(TrainConfig)["generator_loss"].__args__
    assert len(choices) == 2
    assert set(choices) == set(GENERATOR_LOSSES)
    assert GENERATOR_LOSSES["minimax"] is minimax_generator_loss
    assert GENERATOR_LOSSES["non_saturating"] is non_saturating_generator_loss
