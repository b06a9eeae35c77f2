"""Nearest neighbours: the broadcast and scikit-learn as references, invariances, ties, errors."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.neighbors import NearestNeighbors
from torch.testing import assert_close

from gan.evaluation import neighbours
from gan.evaluation.neighbours import nearest_neighbours, nearest_training_images


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def points(rng):
    return torch.from_numpy(rng.standard_normal((57, 12)))


@pytest.fixture
def reference(rng):
    return torch.from_numpy(rng.standard_normal((203, 12)))


def by_broadcast(points, reference, k):
    """Squared distances one by one; of equal ones the first."""
    x, y = points.double().numpy(), reference.double().numpy()
    squares = ((x[:, None] - y[None]) ** 2).sum(2)
    indices = squares.argsort(1, kind="stable")[:, :k]
    return np.sqrt(np.take_along_axis(squares, indices, 1)), indices


# Independent reference


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("k", [1, 4, 203])
def test_neighbours_are_those_of_the_broadcast(points, reference, k, dtype):
    points, reference = points.to(dtype), reference.to(dtype)
    distances, indices = by_broadcast(points, reference, k)
    got = nearest_neighbours(points, reference, k=k)
    assert_allclose(got.distances.numpy(), distances, rtol=1e-12, atol=0)
    assert (got.indices.numpy() == indices).all()


def test_neighbours_are_those_of_scikit_learn(points, reference):
    distances, indices = NearestNeighbors(algorithm="kd_tree").fit(reference).kneighbors(points)
    got = nearest_neighbours(points, reference, k=5)
    assert_allclose(got.distances.numpy(), distances, rtol=1e-12, atol=0)
    assert (got.indices.numpy() == indices).all()


@pytest.mark.parametrize("offset", [0, 1e4, 1e8])
def test_far_from_the_origin_float32_products_miss_no_neighbour(points, reference, offset):
    points, reference = points + offset, reference + offset
    distances, indices = by_broadcast(points, reference, 3)
    got = nearest_neighbours(points, reference, k=3)
    assert_allclose(got.distances.numpy(), distances, rtol=1e-12, atol=0)
    assert (got.indices.numpy() == indices).all()


def test_neighbours_nearer_than_the_rounding_of_the_product_are_told_apart(rng):
    steps = torch.from_numpy(rng.permutation(300))[:, None] * 1e-9
    reference = torch.cat([steps, torch.from_numpy(rng.standard_normal((300, 1)))])
    got = nearest_neighbours(torch.zeros(1, 1, dtype=torch.float64) - 1e-9, reference, k=300)
    expected = by_broadcast(torch.zeros(1, 1) - 1e-9, reference, 300)[1]
    assert (got.indices.numpy() == expected).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-16, 1e20, 1e100])
def test_neighbours_do_not_depend_on_the_scale(points, reference, scale):
    expected = nearest_neighbours(points, reference, k=3)
    got = nearest_neighbours(points * scale, reference * scale, k=3)
    assert_close(got.indices, expected.indices)
    assert_close(got.distances / scale, expected.distances, rtol=1e-12, atol=0)


def test_one_point_far_away_changes_no_other_neighbour(points, reference):
    expected = nearest_neighbours(points, reference, k=3)
    far = torch.full([1, 12], 1e9, dtype=torch.float64)
    got = nearest_neighbours(points, torch.cat([reference, far]), k=3)
    assert_close(got.indices, expected.indices)
    assert_close(got.distances, expected.distances, rtol=1e-12, atol=0)


@pytest.mark.parametrize("distance", [1e6, 1e40, 1e149])
def test_a_point_far_away_has_its_neighbours_too(reference, distance):
    x = torch.zeros(2, 12, dtype=torch.float64)
    x[0, 0] = distance
    got = nearest_neighbours(x, reference, k=203)
    assert sorted(got.indices[0].tolist()) == list(range(203))
    assert_close(got.indices[1], nearest_neighbours(x[1:], reference, k=203).indices[0])
    assert_allclose(got.distances[0].numpy(), distance, rtol=1e-5, atol=0)


# Which product


def test_even_norms_on_a_cpu_take_float32_and_all_else_float64():
    even, uneven = torch.ones(9).double(), torch.tensor([1.0, 1.0, 200.0]).double()
    assert neighbours._product_type(even, farthest=1) == torch.float32
    assert neighbours._product_type(uneven, farthest=1) == torch.float64
    assert neighbours._product_type(even * 1e-13, farthest=1) == torch.float64
    assert neighbours._product_type(even * 1e13, farthest=1) == torch.float64
    assert neighbours._product_type(even, farthest=1e13) == torch.float64


def test_where_float32_products_are_allowed_to_be_coarse_float64_is_taken(monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert neighbours._product_type(torch.ones(9).double(), farthest=1) == torch.float64


# Ties and copies


def test_a_copy_is_at_distance_zero(points, reference):
    reference = reference.float() + 100
    got = nearest_neighbours(reference[[7, 150]], reference)
    assert got.indices[:, 0].tolist() == [7, 150]
    assert got.distances[:, 0].tolist() == [0, 0]


def test_of_equally_near_points_the_first_are_taken(rng):
    few = torch.from_numpy(rng.integers(0, 2, (400, 4))).double()
    distances, indices = by_broadcast(few[:50], few, 9)
    got = nearest_neighbours(few[:50], few, k=9)
    assert (got.indices.numpy() == indices).all()
    assert_allclose(got.distances.numpy(), distances, rtol=1e-12, atol=0)


def test_an_excluded_row_is_no_neighbour_but_its_copy_is(reference):
    reference = torch.cat([reference, reference[:1]])
    itself = torch.arange(len(reference))
    got = nearest_neighbours(reference, reference, exclude=itself)
    squares = ((reference[:, None] - reference[None]) ** 2).sum(2).fill_diagonal_(torch.inf)
    assert_close(got.indices[:, 0], squares.argmin(1))
    assert got.indices[0, 0] == 203
    assert got.distances[0, 0] == 0


# Invariance


@pytest.mark.parametrize("chunk", [1, 10, 57, 1_000])
def test_neighbours_do_not_depend_on_the_chunk(points, reference, chunk):
    exclude = torch.arange(57)
    expected = nearest_neighbours(points, reference, k=3, exclude=exclude)
    got = nearest_neighbours(points, reference, k=3, exclude=exclude, chunk=chunk)
    assert_close(got.indices, expected.indices)
    assert_close(got.distances, expected.distances, rtol=1e-12, atol=0)


def test_neighbours_do_not_depend_on_how_many_candidates_are_gathered_at_once(
    points, reference, monkeypatch
):
    expected = nearest_neighbours(points, reference, k=3)
    monkeypatch.setattr(neighbours, "ELEMENTS_AT_ONCE", 1)
    got = nearest_neighbours(points, reference, k=3)
    assert_close(got.distances, expected.distances, rtol=1e-12, atol=0)


def test_neighbours_move_with_the_order_of_the_points(points, reference, rng):
    x_order, y_order = (torch.from_numpy(rng.permutation(n)) for n in (57, 203))
    expected = nearest_neighbours(points, reference, k=3)
    got = nearest_neighbours(points[x_order], reference[y_order], k=3)
    assert_close(y_order[got.indices], expected.indices[x_order])
    assert_close(got.distances, expected.distances[x_order], rtol=1e-12, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_neighbours_do_not_depend_on_the_device(points, reference, precision, monkeypatch):
    torch.set_float32_matmul_precision(precision)
    points, reference = points.float(), reference.float()
    expected = nearest_neighbours(points, reference, k=3)
    got = nearest_neighbours(points.cuda(), reference.cuda(), k=3)
    torch.set_float32_matmul_precision("highest")
    assert_close(got.indices.cpu(), expected.indices)
    assert_close(got.distances.cpu(), expected.distances, rtol=1e-12, atol=0)


# The picture


def test_the_picture_holds_the_nearest_training_image_of_each_sample(rng):
    train = torch.from_numpy(rng.random((30, 1, 4, 5))).float()
    samples = train[[3, 3, 17]].clone()
    samples[1, 0, 0, 0] += 0.01
    got = nearest_training_images(samples, train)
    assert got.indices.tolist() == [3, 3, 17]
    assert_close(got.nearest, train[[3, 3, 17]])
    assert_close(got.samples, samples)
    assert_close(got.distances, torch.tensor([0, 0.01, 0]).double(), rtol=1e-4, atol=0)


# Errors


@pytest.mark.parametrize("k", [0, 204])
def test_k_out_of_range_is_refused(points, reference, k):
    with pytest.raises(ValueError, match=f"k must be from 1 to 203, .* got {k}"):
        nearest_neighbours(points, reference, k=k)


def test_an_excluded_row_cannot_be_chosen_as_the_last(points):
    with pytest.raises(ValueError, match=r"k must be from 1 to 56, .* got 57"):
        nearest_neighbours(points, points, k=57, exclude=torch.arange(57))


def test_no_chunk_is_refused(points, reference):
    with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
        nearest_neighbours(points, reference, chunk=0)


@pytest.mark.parametrize("exclude", [torch.arange(56), torch.zeros(57)])
def test_exclude_must_hold_one_row_for_each_point(points, reference, exclude):
    with pytest.raises(ValueError, match=r"exclude must be int64 \[57\], one row for each point"):
        nearest_neighbours(points, reference, exclude=exclude)


@pytest.mark.parametrize("row", [-1, 203])
def test_exclude_must_hold_rows_of_the_reference(points, reference, row):
    with pytest.raises(ValueError, match="exclude must hold rows of reference, from 0 to 202"):
        nearest_neighbours(points, reference, exclude=torch.full([57], row))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -1e151])
def test_values_without_distances_are_refused(points, reference, bad):
    reference[3, 4] = bad
    with pytest.raises(ValueError, match="reference must be finite and within 1e150"):
        nearest_neighbours(points, reference)


def test_bytes_are_refused(points, reference):
    with pytest.raises(ValueError, match=r"points must be floating point, got torch\.uint8"):
        nearest_neighbours(points.byte(), reference)


@pytest.mark.parametrize("shape", [(0, 12), (5, 0), (12,)])
def test_no_points_are_refused(reference, shape):
    with pytest.raises(
        ValueError, match=r"points must be \[n, d\] or \[n, c, h, w\] and not empty"
    ):
        nearest_neighbours(torch.zeros(shape), reference)


def test_points_of_another_shape_are_refused(points, reference):
    with pytest.raises(ValueError, match=r"must have the same shape .* got \[57, 11\] and"):
        nearest_neighbours(points[:, :11], reference)


def test_too_coarse_a_product_is_noticed(points, reference, monkeypatch):
    def coarse(*_, out, **__):
        return out.fill_(torch.nan)

    monkeypatch.setattr(torch, "addmm", coarse)
    with pytest.raises(ArithmeticError, match="less exact than their type allows"):
        nearest_neighbours(points, reference)
