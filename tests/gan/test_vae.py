"""The variational autoencoder.  Kinds: reference, invariant, behaviour."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from gan.baselines.vae import gaussian_kl
from gan.config import RunConfig, with_overrides
from gan.datasets.images import ImageSet
from gan.randomness import stream
from gan.sampling import Sampler
from gan.tasks import start_run
from tests.gan.small import EXTENSIONS, OF_ALL, start_extension


def test_kl_is_that_of_torch_s_distributions():
    rng = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, 7, 5, generator=rng, dtype=torch.float64)
    std = (0.5 * log_variance).exp()
    expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected, rtol=1e-12, atol=1e-12)


def test_kl_of_the_prior_itself_is_nothing():
    assert gaussian_kl(torch.zeros(3, 4), torch.zeros(3, 4)).tolist() == [0, 0, 0]


def test_the_bound_lies_below_the_log_likelihood_by_quadrature():
    """Of a model with one z, whose p(x) is an integral over a line."""
    run = start_extension("vae", vae__dim=1)
    model = run.model
    x = torch.rand(6, 16, generator=torch.Generator().manual_seed(1)).round()
    with torch.no_grad():
        z = torch.linspace(-8, 8, 4001)[:, None]
        logits = model.decode(z)
        log_joint = x @ logits.T - torch.nn.functional.softplus(logits).sum(1)
        log_joint += Normal(0.0, 1.0).log_prob(z).T
        exact = torch.logsumexp(log_joint, 1) + math.log(16 / 4000)
        bounds = [sum(model.bound(x, stream(s, "noise"))) for s in range(400)]
    bound = -torch.stack(bounds).mean()
    assert bound < exact.mean()
    assert exact.mean() - bound < 0.5  # the encoder is untrained, and near to the prior


def test_of_two_pictures_it_learns_which_is_meant():
    """To know which costs log 2 nats; without z each of 16 grey pixels would cost as much."""
    pictures = np.zeros((2, 1, 4, 4), dtype=np.uint8)
    pictures[0, 0, :2], pictures[1, 0, 2:] = 255, 255
    images = ImageSet(images=pictures.repeat(20, 0), labels=None, digest="0" * 64)
    settings = {"train.n_steps": 300, "train.optimizer": "adam", "train.learning_rate": 0.02}
    settings |= {"train.report_every": 20, "evaluation.score_every": 300}
    config = with_overrides(RunConfig(), OF_ALL | EXTENSIONS["vae"] | settings)
    run = start_run(config, images, device="cpu")
    last = list(run.train())[-1].metrics()
    assert math.log(2) < last["kl_nats"] + last["reconstruction_nats"] < 4 * math.log(2)
    drawn = run.saved().sampler().sample(500, seed=0)
    nearest = torch.cdist(drawn.flatten(1), torch.from_numpy(pictures / 255).float().flatten(1))
    counts = nearest.argmin(1).bincount(minlength=2)
    assert counts.min() > 150


def test_samples_of_a_seed_do_not_depend_on_how_many_are_drawn():
    sampler: Sampler = start_extension("vae").saved().sampler()
    many = sampler.sample(1203, seed=3)
    assert many.shape == (1203, 1, 4, 4)
    assert 0 <= many.min() <= many.max() <= 1
    assert torch.equal(sampler.sample(5, seed=3), many[:5])
    assert not torch.equal(sampler.sample(5, seed=4), many[:5])


def test_none_is_drawn_of_no_number():
    with pytest.raises(ValueError, match="n must be >= 1"):
        start_extension("vae").saved().sampler().sample(0, seed=0)
