"""A run with its images and scores.  Kinds: closed form, invariance."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.testing import assert_close

from gan.config import EvaluationConfig
from gan.evaluation.parzen import PAPER_GRID, choose_sigma, parzen_log_likelihood
from gan.run import is_scored_at, score_samples, unit_pixels
from tests.gan.small import small_images, small_run


def test_output_bias_starts_at_the_marginals_of_the_training_images():
    mean = small_images().images.reshape(30, 16).mean(0) / 255
    clipped = np.clip(mean, 1e-7, 1 - 1e-7)
    bias = small_run().gan.G.output_bias.detach().numpy()
    assert_allclose(bias, np.log(clipped / (1 - clipped)), rtol=1e-5, atol=1e-5)


def test_a_run_shows_d_its_own_images():
    run = small_run()
    shown = next(run.minibatches)
    images = torch.from_numpy(small_images().images).flatten(1) / 255
    nearest = torch.cdist(shown, images).min(1).values
    assert_close(nearest, torch.zeros(8), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("step", "is_due"), [(1, False), (4, True), (8, True), (10, True)])
def test_scores_are_due_every_so_many_steps_and_at_the_end(step, is_due):
    run = small_run(train__n_steps=10)
    assert is_scored_at(run.cfg, step) is is_due


def test_the_generator_of_a_run_draws_images_of_its_data():
    saved = small_run().saved()
    assert saved.image_shape == (1, 4, 4)
    assert saved.sampler().sample(3, seed=0).shape == (3, 1, 4, 4)
    assert saved.config == small_run().cfg


def test_pixels_are_float64_in_the_unit_interval():
    images = small_images()
    got = unit_pixels(images)
    assert got.dtype == torch.float64
    assert_allclose(got.numpy(), images.images / 255.0, rtol=1e-15, atol=0)


def test_window_is_chosen_on_the_first_validation_images_alone():
    rng = torch.Generator().manual_seed(0)
    samples = torch.rand(200, 1, 2, 2, generator=rng)
    test, valid = (torch.rand(50, 1, 2, 2, generator=rng, dtype=torch.float64) for _ in range(2))
    valid[:20] = samples[:20]  # they ask for a narrow window; all others for wide ones
    valid[20:] += 0.5
    test += 0.5
    cfg = EvaluationConfig(n_sigma_images=20, chunk=7)
    score = score_samples(samples, test, valid=valid, cfg=cfg)
    widths = [choose_sigma(x, samples, grid=PAPER_GRID) for x in (valid[:20], valid, test)]
    assert score.sigma == widths[0] < min(widths[1:])
    expected = parzen_log_likelihood(test, samples, sigma=score.sigma)
    assert_allclose(score.log_likelihood.numpy(), expected.numpy(), rtol=1e-9, atol=1e-9)
    assert score.n_samples == 200


def test_scoring_does_not_shift_what_training_draws():
    scored, plain = small_run(), small_run()
    for _ in scored.train():
        scored.saved().sampler().sample(10, seed=0)
    list(plain.train())
    for name, tensor in plain.state().items():
        assert_array_equal(scored.state()[name], tensor)
