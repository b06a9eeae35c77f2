"""Scores that need the generator.  Kinds: closed form, independent reference (SciPy), contract."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

from gan.config import load_config
from gan.errors import ScoreError
from gan.evaluation.ais import AisSettings
from gan.evaluation.real_images import RealImages
from gan.evaluation.suite import Evaluation
from gan.saved_generator import SavedGenerator
from pipeline.generator_scores import (
    N_STEPS,
    SIGMAS,
    draw_paths,
    require_log_likelihood,
    with_log_likelihood,
    with_path_scores,
)

SHAPE = (1, 3, 3)
KINDS = ("straight", "spherical")
PATH_SCORES = ("path_length_pixels", "path_length_features", "path_speed_features")
CONFIDENCES = ("path_confidence", "path_confidence_lowest", "path_class_changes")
QUICK = AisSettings(n_chains=4, n_temperatures=20, n_leapfrog=3)


class Halves:
    """Two features: the sums of the left column and of the right one."""

    name = "halves"
    digest = "0" * 64

    def __call__(self, images):
        return images.sum(2).flatten(1)[:, ::2]


def linear(kind="gaussian", dim=4, *, scale=0.2):
    """Images W z + 0.5 of 3 x 3 pixels, which are no probabilities, and need not be."""
    G = torch.nn.Linear(dim, 9)
    with torch.no_grad():
        rng = torch.Generator().manual_seed(1)
        G.weight.copy_(scale * torch.randn(9, dim, generator=rng))
        G.bias.fill_(0.5)
    G.pixels = torch.nn.Identity()
    config = load_config({}, [f"prior.kind={kind}", f"prior.dim={dim}"]).base
    return SavedGenerator(G=G.eval().requires_grad_(False), config=config, image_shape=SHAPE)


def real_images(saved, *, n=60, sigma=0.1, **changes):
    """Draws of the generator under noise of width sigma."""
    images = saved.sampler().sample(n, seed=5)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(6))
    images = images + sigma * noise
    fields = {"train": images, "valid": images, "scored": images, "extractor": Halves()}
    return RealImages(**fields | changes)


def nothing_yet():
    return Evaluation(scores={}, unavailable={"bins": "too few"}, n_samples=9)


def log_probabilities(images):
    left = 5 * (images[:, 0, :, 0].mean(1) - images[:, 0, :, 2].mean(1))
    return torch.stack([left, -left], 1).log_softmax(1)


# Paths


def test_images_of_a_linear_generator_lie_on_straight_lines():
    saved = linear()
    found = with_path_scores(nothing_yet(), saved.sampler(), real_images(saved), seed=0)
    assert found.scores.keys() == {f"{name}_{kind}" for name in PATH_SCORES for kind in KINDS}
    for space in ("pixels", "features"):
        straight, bent = (found.scores[f"path_length_{space}_{kind}"] for kind in KINDS)
        assert_allclose(straight.value, 1, rtol=1e-5, atol=0)
        assert bent.value > straight.high
    assert found.unavailable == {"bins": "too few"}


def test_speed_along_a_straight_path_is_the_squared_distance_of_its_ends():
    saved = linear()
    images = draw_paths("straight", saved.sampler(), n_paths=200, seed=3)
    assert images.shape == (200, N_STEPS, *SHAPE)
    first, last = (Halves()(images[:, i]).numpy() for i in (0, -1))
    expected = ((last - first) ** 2).sum(1).mean()
    found = with_path_scores(nothing_yet(), saved.sampler(), real_images(saved), seed=3)
    assert_allclose(
        found.scores["path_speed_features_straight"].value, expected, rtol=1e-4, atol=0
    )


def test_classifier_is_asked_along_the_paths_where_there_is_one():
    saved = linear()
    real = real_images(saved, log_probabilities=log_probabilities, class_names=["left", "right"])
    found = with_path_scores(nothing_yet(), saved.sampler(), real, seed=0).scores
    names = {f"{name}_{kind}" for name in PATH_SCORES + CONFIDENCES for kind in KINDS}
    assert found.keys() == names
    images = draw_paths("straight", saved.sampler(), n_paths=200, seed=0).numpy()
    gap = 10 * (images[..., 0, :, 0].mean(2) - images[..., 0, :, 2].mean(2))
    confidence = 1 / (1 + np.exp(-np.abs(gap)))
    expected = {
        "path_confidence_straight": confidence.mean(),
        "path_confidence_lowest_straight": confidence.min(1).mean(),
        "path_class_changes_straight": (np.diff(np.sign(gap), axis=1) != 0).sum(1).mean(),
    }
    for name, value in expected.items():
        assert_allclose(found[name].value, value, rtol=1e-4, atol=0)


def test_one_coordinate_has_no_spherical_path():
    saved = linear(dim=1)
    found = with_path_scores(nothing_yet(), saved.sampler(), real_images(saved), seed=0)
    assert found.scores.keys() == {f"{name}_straight" for name in PATH_SCORES}
    assert "not opposite" in found.unavailable["spherical_paths"]
    with pytest.raises(ScoreError, match="not opposite"):
        draw_paths("spherical", saved.sampler(), n_paths=20, seed=0)


def test_generator_of_one_image_has_no_paths():
    saved = linear(scale=0)
    found = with_path_scores(nothing_yet(), saved.sampler(), real_images(saved), seed=0)
    assert not found.scores
    assert found.unavailable.keys() == {"bins", "straight_paths", "spherical_paths"}


def test_seed_decides_the_paths():
    sampler = linear().sampler()
    first, same, other = (draw_paths("spherical", sampler, n_paths=3, seed=s) for s in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


# Log-likelihood


def test_log_likelihood_of_a_linear_generator_is_the_exact_one():
    saved = linear(dim=2)
    real = real_images(saved)
    settings = AisSettings(n_chains=8, n_temperatures=300, n_leapfrog=3)
    found = with_log_likelihood(nothing_yet(), saved, real, n_images=20, settings=settings)
    details = found.details["log_likelihood"]
    assert details["sigma"] == 0.1  # which made the images
    W, b = (p.double().numpy() for p in saved.G.parameters())
    exact = stats.multivariate_normal(b, W @ W.T + 0.1**2 * np.eye(9))
    expected = exact.logpdf(real.scored[-20:].flatten(1).double().numpy()).mean()
    assert_allclose(found.scores["ais_ll"].value, expected, rtol=0, atol=0.2)
    lower, upper, gap = (found.scores[f"ais_ll_{name}"] for name in ("lower", "upper", "gap"))
    assert lower.value <= upper.value
    assert_allclose(gap.value, upper.value - lower.value, rtol=0, atol=1e-9)
    assert all(map(math.isfinite, details.values()))
    assert (details["n_images"], details["n_temperatures"]) == (20, 300)
    assert found.unavailable == {"bins": "too few"}


def test_width_is_chosen_by_other_images_than_those_that_are_scored():
    saved = linear()
    real = real_images(saved)
    unlike = torch.cat([real.scored[:20], torch.full_like(real.scored[20:], 0.5)])
    changed = real_images(saved, valid=unlike)
    sigmas = [
        with_log_likelihood(nothing_yet(), saved, r, n_images=25, settings=QUICK).details[
            "log_likelihood"
        ]["sigma"]
        for r in (real, changed)
    ]
    assert sigmas[0] == sigmas[1]
    assert sigmas[0] in SIGMAS


def test_estimate_that_is_not_finite_is_not_available():
    saved = linear(scale=math.nan)
    real = real_images(linear())
    found = with_log_likelihood(nothing_yet(), saved, real, n_images=3, settings=QUICK)
    assert not found.scores
    assert "finite" in found.unavailable["log_likelihood"]


@pytest.mark.parametrize("n_images", [0, 1])
def test_one_image_is_too_few(n_images):
    with pytest.raises(ScoreError, match=f"at least 2 images, got {n_images}"):
        require_log_likelihood(linear(), n_images=n_images, n_scored=100)


def test_images_that_choose_the_width_are_not_scored():
    saved = linear()
    require_log_likelihood(saved, n_images=40, n_scored=60)
    with pytest.raises(ScoreError, match=r"41 images .* need 61 in the split, got 60"):
        with_log_likelihood(nothing_yet(), saved, real_images(saved), n_images=41, settings=QUICK)
    with pytest.raises(ScoreError, match=r"3 images .* need 6 in the split, got 5"):
        require_log_likelihood(saved, n_images=3, n_scored=5)


@pytest.mark.parametrize(("kind", "dim"), [("bernoulli", 3), ("spherical", 1)])
def test_prior_without_a_smooth_density_is_refused(kind, dim):
    with pytest.raises(ScoreError, match="needs a prior with a smooth density"):
        require_log_likelihood(linear(kind, dim), n_images=3, n_scored=60)
