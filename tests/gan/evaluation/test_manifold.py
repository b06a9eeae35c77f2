"""Precision, recall, density, coverage: by hand, by loops, null values, ties, bad input."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.neighbors import NearestNeighbors

from gan.errors import ScoreError
from gan.evaluation.manifold import balls, expected_coverage, manifold_scores


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def normal(rng, n, d, scale=1.0):
    return scale * torch.randn(n, d, generator=rng, dtype=torch.float64)


def line(*places):
    return torch.tensor(places, dtype=torch.float64)[:, None]


def values(scores):
    return [getattr(scores, n).value for n in ("precision", "recall", "density", "coverage")]


# Counted by hand


def test_shapes_on_a_line_are_counted_as_by_hand():
    # Balls with k = 1: real [0 +- 1], [1 +- 1], [10 +- 2], [12 +- 2];
    # samples [0.5 +- 1], [1.5 +- 1], [20 +- 2.5], [22.5 +- 2.5].
    real, samples = line(0, 1, 10, 12), line(0.5, 1.5, 20, 22.5)
    got = manifold_scores(real, samples, k_precision=1, k_coverage=1)
    assert got.is_precise.tolist() == [True, True, False, False]
    assert got.is_recalled.tolist() == [True, True, False, False]
    assert got.n_balls.tolist() == [2, 1, 0, 0]
    assert got.is_covered.tolist() == [True, True, False, False]
    assert_allclose(values(got), [0.5, 0.5, 0.75, 0.5], rtol=1e-15, atol=0)


def test_second_neighbours_reach_farther():
    # Balls with k = 2: real [0 +- 10], [1 +- 9], [10 +- 9], [12 +- 11].
    got = manifold_scores(line(0, 1, 10, 12), line(-9, 9.5, 22, 24), k_precision=2, k_coverage=2)
    assert got.n_balls.tolist() == [1, 4, 1, 0]
    assert_allclose(got.density.value, (1 + 4 + 1) / (2 * 4), rtol=1e-15, atol=0)


def test_one_mode_of_two_is_precise_and_half_recalled_and_half_covered(rng):
    mode, other = normal(rng, 200, 3), normal(rng, 200, 3) + 100
    got = manifold_scores(torch.cat([mode, other]), mode.flip(0))
    assert_allclose(values(got)[:2], [1.0, 0.5], rtol=0, atol=0)
    assert_allclose(got.coverage.value, 0.5, rtol=0, atol=0)
    assert_array_equal(got.is_covered.numpy(), np.arange(400) < 200)


def test_one_outlier_deceives_precision_but_not_density(rng):
    real = torch.cat([normal(rng, 200, 2), torch.full((1, 2), 50.0, dtype=torch.float64)])
    got = manifold_scores(real, normal(rng, 200, 2) + 30)
    assert got.precision.value == 1
    assert_allclose(got.density.value, 1 / 5, rtol=1e-12, atol=0)
    assert got.coverage.value <= 1 / 201


# Ties


def test_the_kth_neighbour_copied_is_on_the_edge_and_within(rng):
    # Only the edge of the ball of each third neighbour holds it.
    real = normal(rng, 300, 40, 1e3) + 1e4
    neighbours = NearestNeighbors(n_neighbors=4).fit(real.numpy()).kneighbors(real.numpy())[1]
    got = manifold_scores(real, real[neighbours[:, 3]], k_precision=3, k_coverage=3)
    assert got.coverage.value == 1
    assert got.precision.value == 1


def test_on_a_grid_every_neighbour_is_at_one_distance():
    # Four neighbours at 0.1, which no float holds; so k = 1 to 4 have one and the same ball.
    axis = torch.arange(20, dtype=torch.float64) * 0.1
    grid = torch.cartesian_prod(axis, axis) + 7
    inner = ((grid > 7.05) & (grid < 8.85)).all(1)
    for k in (1, 2):
        got = manifold_scores(grid, grid, k_precision=k, k_coverage=k)
        # A point's own ball and those of its four neighbours.
        assert (got.n_balls[inner] == 5).all()


def test_repeated_points_have_balls_of_radius_zero():
    real, samples = line(0, 0, 0, 0, 5, 6), line(0, 1e-6, 1, 2, 3, 4)
    got = manifold_scores(real, samples, k_precision=2, k_coverage=2)
    # Beyond the four equal points only [5 +- 5] and [6 +- 6], which hold all of the line.
    assert got.n_balls.tolist() == [6, 2, 2, 2, 2, 2]


# Independent reference


def by_loops(x, y, k, k_wide):
    def radius(points, i, k):
        return sorted(np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i)[k - 1]

    def within(a, points, i, k):
        return np.linalg.norm(a - points[i]) <= radius(points, i, k)

    X, Y = range(len(x)), range(len(y))
    held = np.array([[within(b, x, i, k_wide) for i in X] for b in y])
    precision = np.mean([any(within(b, x, i, k) for i in X) for b in y])
    recall = np.mean([any(within(a, y, j, k) for j in Y) for a in x])
    return [precision, recall, held.sum() / (k_wide * len(y)), held.any(0).mean()]


@pytest.mark.parametrize(("k", "k_wide"), [(3, 5), (4, 1), (2, 2)])
def test_scores_agree_with_loops(rng, k, k_wide):
    x, y = normal(rng, 21, 2), normal(rng, 17, 2, 1.3) + 0.4
    got = values(manifold_scores(x, y, k_precision=k, k_coverage=k_wide))
    assert_allclose(got, by_loops(x.numpy(), y.numpy(), k, k_wide), rtol=1e-12, atol=0)


def test_scores_agree_with_sklearn_in_many_dimensions(rng):
    x, y = normal(rng, 400, 50).float(), normal(rng, 300, 50, 0.95).float()
    a, b = x.double().numpy(), y.double().numpy()
    x_radii = NearestNeighbors().fit(a).kneighbors(n_neighbors=5)[0]
    y_radii = NearestNeighbors().fit(b).kneighbors(n_neighbors=3)[0]
    distances = np.linalg.norm(a[:, None] - b, axis=2)
    got = manifold_scores(x, y)
    held = distances <= x_radii[:, [4]]
    assert_array_equal(got.is_precise.numpy(), (distances <= x_radii[:, [2]]).any(0))
    assert_array_equal(got.is_recalled.numpy(), (distances <= y_radii[:, 2]).any(1))
    assert_array_equal(got.n_balls.numpy(), held.sum(0))
    assert_array_equal(got.is_covered.numpy(), held.any(1))


# Null values and errors


@pytest.mark.parametrize(("n", "m", "d"), [(200, 200, 2), (150, 300, 20)])
def test_density_and_coverage_of_one_distribution_are_as_stated(rng, n, m, d):
    draws = [manifold_scores(normal(rng, n, d), normal(rng, m, d)) for _ in range(100)]
    density, coverage = (
        np.array([getattr(draw, name).value for draw in draws]) for name in ("density", "coverage")
    )
    expected = expected_coverage(n_real=n, n_samples=m)
    assert_allclose(density.mean(), 1, rtol=0, atol=4 * density.std() / 10)
    assert_allclose(coverage.mean(), expected, rtol=0, atol=4 * coverage.std() / 10)


def test_expected_coverage_of_equal_large_sets_halves_its_gap_with_each_neighbour():
    got = [expected_coverage(n_real=10**9, n_samples=10**9, k=k) for k in (1, 2, 5)]
    assert_allclose(got, [1 / 2, 3 / 4, 31 / 32], rtol=1e-8, atol=0)


def test_density_error_is_the_spread_over_draws_of_both_sets(rng):
    draws = [manifold_scores(normal(rng, 200, 4), normal(rng, 300, 4)).density for _ in range(150)]
    spread = np.std([draw.value for draw in draws], ddof=1)
    assert_allclose(np.mean([draw.standard_error for draw in draws]), spread, rtol=0.28, atol=0)


# Invariance


@pytest.mark.parametrize("chunk", [1, 7, 64, 10_000])
def test_chunk_does_not_matter(rng, chunk):
    x, y = normal(rng, 130, 6), normal(rng, 90, 6)
    y[:20] = x[:20]
    got, expected = manifold_scores(x, y, chunk=chunk), manifold_scores(x, y)
    assert_array_equal(got.n_balls.numpy(), expected.n_balls.numpy())
    assert_array_equal(got.is_recalled.numpy(), expected.is_recalled.numpy())
    assert values(got) == values(expected)
    assert got.density == expected.density


def test_order_shift_scale_and_shape_do_not_matter(rng):
    x, y = normal(rng, 130, 12), normal(rng, 90, 12)
    expected = values(manifold_scores(x, y))
    assert values(manifold_scores(x.flip(0), y.flip(0))) == expected
    assert values(manifold_scores(8 * x + 100, 8 * y + 100)) == expected
    images = x.reshape(130, 3, 2, 2), y.reshape(90, 3, 2, 2)
    assert values(manifold_scores(*images)) == expected


def test_one_far_sample_moves_no_other(rng):
    x, y = normal(rng, 130, 6), normal(rng, 90, 6)
    far = torch.cat([y, torch.full((1, 6), 1e12, dtype=torch.float64)])
    before, after = manifold_scores(x, y), manifold_scores(x, far)
    assert_array_equal(after.n_balls.numpy(), [*before.n_balls.tolist(), 0])
    assert_array_equal(after.is_covered.numpy(), before.is_covered.numpy())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_answers_as_the_cpu(rng):
    x, y = normal(rng, 130, 6), normal(rng, 90, 6)
    on_gpu, on_cpu = (values(manifold_scores(*two)) for two in ((x.cuda(), y.cuda()), (x, y)))
    assert on_gpu == pytest.approx(on_cpu, rel=1e-12)


# Bad input


def test_bad_points_are_refused(rng):
    x, y = normal(rng, 20, 2), normal(rng, 20, 2)
    with pytest.raises(ScoreError, match="samples must hold at least 6 points, got 5"):
        manifold_scores(x, y[:5])
    with pytest.raises(ScoreError, match="real must hold at least 8 points, got 7"):
        manifold_scores(x[:7], y, k_precision=7)
    with pytest.raises(ScoreError, match="samples must hold distinct points"):
        manifold_scores(x, torch.ones_like(x))
    with pytest.raises(ScoreError, match="finite squares, got an overflow"):
        manifold_scores(x, 1e200 * y)
    x[0, 0] = math.nan
    with pytest.raises(ScoreError, match="real must be finite"):
        manifold_scores(x, y)


@pytest.mark.parametrize("name", ["k_precision", "k_coverage", "chunk"])
def test_misuse_is_refused(rng, name):
    x = normal(rng, 20, 2)
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        manifold_scores(x, x, **{name: 0})
    with pytest.raises(ValueError, match="points of one shape"):
        manifold_scores(x, x[:, :1])


# Balls that are kept


@pytest.mark.parametrize("chunk", [7, 200])
def test_kept_balls_give_the_coverage_of_all_four_scores(rng, chunk):
    real, samples = normal(rng, 120, 6), normal(rng, 90, 6) * 0.8
    kept = balls(real, chunk=chunk)
    assert kept.coverage(samples, chunk=chunk) == manifold_scores(real, samples).coverage
    assert kept.coverage(real[:50]) == manifold_scores(real, real[:50]).coverage
    pictures = balls(real.float().view(120, 1, 2, 3), k=3)
    expected = manifold_scores(real.float(), samples.float(), k_coverage=3).coverage
    assert pictures.coverage(samples.float().view(90, 1, 2, 3)) == expected


def test_balls_without_neighbours_are_refused(rng):
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        balls(normal(rng, 9, 2), k=0)
    with pytest.raises(ScoreError, match="real must hold at least 6 points, got 5"):
        balls(normal(rng, 5, 2))


def test_points_that_overflow_have_no_balls_and_cover_none(rng):
    with pytest.raises(ScoreError, match="must have finite squares, got an overflow"):
        balls(normal(rng, 9, 2) * 1e200)
    with pytest.raises(ScoreError, match="must have finite squares, got an overflow"):
        balls(normal(rng, 9, 2)).coverage(normal(rng, 9, 2) * 1e200)
