"""The Fréchet distance: closed forms, SciPy and torchmetrics, its bias and error, bad input."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.linalg import sqrtm
from torchmetrics.image.fid import FrechetInceptionDistance

from gan.errors import ScoreError
from gan.evaluation.frechet import frechet_distance, gaussian_frechet_distance
from gan.randomness import stream


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def normal(rng, n, d, scale=1.0):
    return scale * torch.randn(n, d, generator=rng, dtype=torch.float64)


def random_covariance(rng, d, rank):
    root = normal(rng, d, rank)
    return root @ root.T / rank


# Closed form


def test_gaussians_along_the_axes_are_as_far_as_their_means_and_deviations():
    mean, other_mean = torch.tensor([[0.0, 1, 2], [3, 1, 0]], dtype=torch.float64)
    deviation, other_deviation = torch.tensor([[1.0, 2, 0], [4, 2, 0.5]], dtype=torch.float64)
    got = gaussian_frechet_distance(
        mean, deviation.square().diag(), other_mean, other_deviation.square().diag()
    )
    assert_allclose(got, (9 + 0 + 4) + (9 + 0 + 0.25), rtol=1e-14, atol=0)


def test_points_and_their_image_under_a_positive_map_are_as_far_as_the_map_moves_them(rng):
    # The map T = A x + b with A positive is optimal, so the distance is mean |T x - x|^2.
    x = normal(rng, 300, 4) @ random_covariance(rng, 4, 9)
    A, b = random_covariance(rng, 4, 6), torch.tensor([1.0, 0, -2, 0.5], dtype=torch.float64)
    y = x @ A + b
    centred = x - x.mean(0)
    spread = (centred @ A - centred).square().sum().item() / (len(x) - 1)
    shift = (y.mean(0) - x.mean(0)).square().sum().item()
    got = frechet_distance(x, y, seed=0).distance.value
    assert_allclose(got, spread + shift, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rank", [3, 12])
def test_a_set_is_no_distance_from_itself(rng, rank):
    x = 100 + normal(rng, 200, rank) @ normal(rng, rank, 12)
    got = frechet_distance(x, x.flip(0), seed=0).distance.value
    assert_allclose(got, 0, rtol=0, atol=1e-12 * x.var(0).sum().item())


# Independent reference


def scipy_distance(x, y):
    difference = x.mean(0) - y.mean(0)
    a, b = np.cov(x.T), np.cov(y.T)
    return difference @ difference + np.trace(a + b - 2 * sqrtm(a @ b).real)


def torchmetrics_distance(x, y):
    extractor = torch.nn.Identity()
    extractor.num_features = x.shape[1]
    metric = FrechetInceptionDistance(feature=extractor)
    metric.update(x, real=True)
    metric.update(y, real=False)
    return metric.compute().item()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_value_agrees_with_scipy_and_torchmetrics(rng):
    x, y = normal(rng, 150, 10) @ normal(rng, 10, 10) + 1, normal(rng, 90, 10, scale=2.0)
    got = frechet_distance(x, y, seed=0).distance.value
    assert_allclose(got, scipy_distance(x.numpy(), y.numpy()), rtol=1e-8, atol=0)
    assert_allclose(got, torchmetrics_distance(x, y), rtol=1e-8, atol=0)


def test_singular_covariances_cost_no_digits_where_eigenvalues_cost_half(rng):
    x = normal(rng, 200, 5) @ normal(rng, 5, 30)
    y = 2 * x - x.mean(0)
    exact = x.var(0).sum().item()
    assert_allclose(frechet_distance(x, y, seed=0).distance.value, exact, rtol=1e-12, atol=0)
    assert abs(torchmetrics_distance(x, y) / exact - 1) > 1e-10


def test_left_out_groups_agree_with_recomputing_them(rng):
    x, y = normal(rng, 40, 2), normal(rng, 60, 2, scale=1.5)
    got = frechet_distance(x, y, seed=3, groups=20)
    # Recomputed from the points, with the module's own draw of groups.
    draw = stream(3, "frechet groups")
    parts = [torch.randperm(len(p), generator=draw).tensor_split(20) for p in (x, y)]
    left_out = []
    for i, j in zip(*parts, strict=True):
        rest_x, rest_y = np.delete(x.numpy(), i, axis=0), np.delete(y.numpy(), j, axis=0)
        left_out.append(scipy_distance(rest_x, rest_y))
    whole = scipy_distance(x.numpy(), y.numpy())
    error = math.sqrt(19 / 20 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2))
    assert_allclose(got.distance.standard_error, error, rtol=1e-8, atol=0)
    pseudo_values = 20 * whole - 19 * np.array(left_out)
    assert_allclose(got.pseudo_values.numpy(), pseudo_values, rtol=1e-7, atol=1e-9)
    assert_allclose(got.extrapolated.value, pseudo_values.mean(), rtol=1e-8, atol=0)
    assert_allclose(got.by_group.mean().item(), got.distance.value, rtol=1e-12, atol=0)
    assert_allclose(got.by_group.std(), got.pseudo_values.std(), rtol=1e-12, atol=0)
    assert (got.n_real, got.n_samples) == (40, 60)


# Bias and error


def test_bias_is_as_stated_and_extrapolation_takes_it_away(rng):
    d, n, m = 6, 300, 200
    draws = [
        frechet_distance(normal(rng, n, d, 2.0), normal(rng, m, d, 2.0), seed=i) for i in range(60)
    ]
    stated = 4 * d * (d + 5) / 4 * (1 / n + 1 / m)
    values, extrapolated = (
        np.array([getattr(draw, name).value for draw in draws])
        for name in ("distance", "extrapolated")
    )
    assert_allclose(values.mean(), stated, rtol=0.1, atol=0)
    assert_allclose(extrapolated.mean(), 0, rtol=0, atol=0.1 * stated)


def test_standard_error_is_the_spread_over_draws(rng):
    draws = [
        frechet_distance(normal(rng, 300, 4), normal(rng, 300, 4, 1.5) + 0.5, seed=i).distance
        for i in range(150)
    ]
    spread = np.std([draw.value for draw in draws], ddof=1)
    # The spread of 150 draws is known to 6 %; four of these, and 5 % for the jackknife's own.
    assert_allclose(np.mean([draw.standard_error for draw in draws]), spread, rtol=0.28, atol=0)


# Invariance


def test_value_depends_neither_on_order_nor_seed_nor_shift_nor_shape(rng):
    x, y = normal(rng, 80, 12), normal(rng, 90, 12, 2.0)
    expected = frechet_distance(x, y, seed=0).distance.value
    others = [
        frechet_distance(x.flip(0), y.flip(0), seed=1),
        frechet_distance(x + 1e3, y + 1e3, seed=0),
        frechet_distance(x.reshape(80, 3, 2, 2), y.reshape(90, 3, 2, 2), seed=0),
        frechet_distance(y, x, seed=0),
    ]
    assert_allclose([o.distance.value for o in others], expected, rtol=1e-10, atol=0)


def test_same_seed_same_error(rng):
    x, y = normal(rng, 80, 3), normal(rng, 90, 3)
    once, again, other = (frechet_distance(x, y, seed=seed).distance for seed in (0, 0, 1))
    assert once == again
    assert once != other


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_answers_as_the_cpu(rng):
    x, y = normal(rng, 80, 3), normal(rng, 90, 3)
    cpu, gpu = frechet_distance(x, y, seed=0), frechet_distance(x.cuda(), y.cuda(), seed=0)
    assert_allclose(gpu.distance.value, cpu.distance.value, rtol=1e-10, atol=0)
    assert_allclose(gpu.distance.standard_error, cpu.distance.standard_error, rtol=1e-8, atol=0)


# Bad input


def test_too_few_points_says_how_many(rng):
    with pytest.raises(ScoreError, match="samples must hold at least 51 points, got 50"):
        frechet_distance(normal(rng, 60, 50), normal(rng, 50, 50), seed=0)
    with pytest.raises(ScoreError, match="real must hold at least 40 points, got 39"):
        frechet_distance(normal(rng, 39, 2), normal(rng, 60, 2), seed=0)


def test_nan_and_constant_points_are_refused(rng):
    x, y = normal(rng, 60, 2), normal(rng, 60, 2)
    x[3, 1] = math.nan
    with pytest.raises(ScoreError, match="real must be finite"):
        frechet_distance(x, y, seed=0)
    with pytest.raises(ScoreError, match="samples must hold distinct points"):
        frechet_distance(y, torch.ones(60, 2, dtype=torch.float64), seed=0)


def test_overflow_is_refused(rng):
    with pytest.raises(ScoreError, match="finite squares, got an overflow"):
        frechet_distance(normal(rng, 60, 2), normal(rng, 60, 2, 1e200), seed=0)


def test_misuse_is_refused(rng):
    x = normal(rng, 60, 2)
    with pytest.raises(ValueError, match="groups must be >= 2, got 1"):
        frechet_distance(x, x, seed=0, groups=1)
    with pytest.raises(ValueError, match="points of one shape"):
        frechet_distance(x, x[:, :1], seed=0)
