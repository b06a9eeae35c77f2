"""The nearest points of a set, exactly: what every score by distances stands on.

    near = nearest_neighbours(samples, train, k=3)
    own = nearest_neighbours(train, train, exclude=torch.arange(len(train)))

One matrix product finds the candidates, and the candidates' distances are then taken anew from
differences in float64.  A candidate is whatever the rounding of the product cannot rule out, so
no neighbour is missed and a copy is at distance 0, not at the square root of a rounding error.
On a CPU the product is float32, about two thirds of the time of float64 (one core, 10,000 points
against 50,000: 2.6 s for 3.5 s in 128 dimensions, 10 s for 16 s in 784).

`nearest_training_images` is the picture of Figure 2 of Goodfellow et al. (2014).  That it shows
other images than the samples proves nothing (Theis et al., 2016, section 3.2): a training image
moved by a pixel has other neighbours than itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

ELEMENTS_AT_ONCE = 2**23
"""Coordinates of candidates gathered at once: 64 MB in float64."""

NORM_SPREAD = 100
"""Largest norm over the median one up to which float32 products leave few candidates."""

NORM_RANGE = (1e-12, 1e12)
"""Norms whose squares float32 holds without loss."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """The k nearest points of a reference set to each of n points, nearest first."""

    distances: Tensor
    """Euclidean, [n, k], float64, ascending."""
    indices: Tensor
    """Rows of the reference set, [n, k], int64; of equally near ones the first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NearestImages:
    """Samples with the training image nearest to each, in the order of the samples."""

    samples: Tensor
    """[n, ...], as given."""
    nearest: Tensor
    """[n, ...]: of the training images."""
    distances: Tensor
    """Euclidean over all pixels, [n], float64; 0 is a copy."""
    indices: Tensor
    """Rows of the training images, [n], int64."""


def nearest_training_images(samples: Tensor, train: Tensor, *, chunk: int = 256) -> NearestImages:
    """The nearest training image to each of a grid of samples, in the space of pixels.

    Args:
        samples: the images of the grid, [n, c, h, w] or [n, d], floating point.
        train: training images of the same shape and scale.
        chunk: as `nearest_neighbours`.

    Raises:
        ValueError: as `nearest_neighbours`.

    Source: Figure 2 of Goodfellow et al. (2014), rightmost columns.
    """
    near = nearest_neighbours(samples, train, chunk=chunk)
    indices = near.indices[:, 0]
    return NearestImages(
        samples=samples,
        nearest=train[indices],
        distances=near.distances[:, 0],
        indices=indices,
    )


@torch.no_grad()
def nearest_neighbours(
    points: Tensor,
    reference: Tensor,
    *,
    k: int = 1,
    exclude: Tensor | None = None,
    chunk: int = 256,
) -> Neighbours:
    """The k points of `reference` nearest to each of `points`.

    Args:
        points: [n, d] or [n, c, h, w], floating point.
        reference: [m, d] or [m, c, h, w], on the device of `points`.
        k: neighbours of each point, from 1 to m.
        exclude: of each point the one row of `reference` that is no neighbour of it, [n], int64:
            `torch.arange(n)` where the sets are one.  Other rows with equal values stay.
        chunk: points a pass; bounds the memory at three matrices [chunk, m] and two sets of points
            in the type of the product, does not change the result.

    Returns:
        On the device of `points`.

    Raises:
        ValueError: a set is empty, not floating point, holds NaN or infinity, or the sets differ
            in the shape of one point; k or chunk is out of range, `exclude` is not as above.
        ArithmeticError: the device multiplies so inexactly that neighbours were lost.
    """
    _require_comparable(points, reference)
    _require_counts(points, reference, k, exclude, chunk)
    x, y = points.flatten(1), reference.flatten(1)
    product = _Product(x, y, n_rows=min(chunk, len(x)))
    passes = []
    for start in range(0, len(x), chunk):
        rows = slice(start, start + chunk)
        barred = None if exclude is None else exclude[rows]
        pairs = product.candidates(x[rows], k, barred)
        squares = _squared_distances(x[rows], y, *pairs)
        passes.append(_nearest_of(squares, *pairs, n_points=len(x[rows]), k=k))
    return Neighbours(
        distances=torch.cat([squares for squares, _ in passes]).sqrt(),
        indices=torch.cat([indices for _, indices in passes]),
    )


class _Product:
    """Half squared distances less what all of a row share, |y|^2 / 2 - x y, and their error."""

    def __init__(self, x: Tensor, y: Tensor, *, n_rows: int) -> None:
        wide = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        # Any origin serves, and one amid the points makes norms, and with them errors, small.
        self.origin = y.mean(0, dtype=torch.float64).to(wide)
        centred = y - self.origin
        norms = torch.linalg.vector_norm(centred, dim=1, dtype=torch.float64)
        self.largest = norms.max()
        self.type = _product_type(norms, farthest=x.abs().max().item())
        self.y = centred.to(self.type)
        self.half_squares = (norms.square() / 2).to(self.type)
        # One allocation for all passes: a fresh matrix of 50 MB a pass would be page faults.
        self.values = self.y.new_empty(n_rows, len(y))
        unit = torch.finfo(self.type).eps / 2
        n_roundings = (y.shape[1] + 4) * unit
        self.product_error = n_roundings / (1 - n_roundings)
        self.sum_error = 4 * unit

    def candidates(self, x: Tensor, k: int, exclude: Tensor | None) -> tuple[Tensor, Tensor]:
        """All pairs (row of x, row of y) that may be among the k nearest of their row.

        With e the bound on the error, the k-th nearest is at most e above the k-th smallest
        value, so none of the k has a value of more than 2 e above it.  The bound is that of
        any order of summation (Higham, 2002, section 3.1).
        """
        centred = x - self.origin
        norms = torch.linalg.vector_norm(centred, dim=1, dtype=torch.float64)
        # addmm adds in one pass what a product and a sum would write twice.
        values = self.values[: len(x)]
        torch.addmm(self.half_squares, centred.to(self.type), self.y.T, alpha=-1, out=values)
        if exclude is not None:
            values.scatter_(1, exclude[:, None], torch.inf)
        smallest = values.amin(1) if k == 1 else values.topk(k, largest=False).values[:, -1]
        error = self.largest * (
            self.product_error * norms + self.sum_error * (norms + self.largest)
        )
        limit = (smallest.double() + 2 * error).to(self.type)
        rows, columns = (values <= limit[:, None]).nonzero(as_tuple=True)
        return rows, columns


def _product_type(norms: Tensor, *, farthest: float) -> torch.dtype:
    """float32 where it is float32 indeed, holds all values and leaves few candidates."""
    # Elsewhere a product of float32 may be one of TF32 or bfloat16, whose error we do not bound.
    if norms.device.type != "cpu" or torch.get_float32_matmul_precision() != "highest":
        return torch.float64
    middle, largest = norms.median().item(), norms.max().item()
    low, high = NORM_RANGE
    is_even = low < middle and largest < NORM_SPREAD * middle
    is_held = largest < high and farthest < high
    return torch.float32 if is_even and is_held else torch.float64


def _squared_distances(x: Tensor, y: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """|x_row - y_column|^2 of each pair, float64."""
    at_once = max(1, ELEMENTS_AT_ONCE // x.shape[1])
    pieces = [
        (x[r].double() - y[c].double()).square().sum(1)
        for r, c in zip(torch.split(rows, at_once), torch.split(columns, at_once), strict=True)
    ]
    return torch.cat(pieces)


def _nearest_of(
    squares: Tensor, rows: Tensor, columns: Tensor, *, n_points: int, k: int
) -> tuple[Tensor, Tensor]:
    """Of pairs in the order of their rows the k nearest of each row: two of [n_points, k]."""
    by_distance = squares.argsort(stable=True)
    order = by_distance[rows[by_distance].argsort(stable=True)]
    n_pairs = rows.bincount(minlength=n_points)
    if bool((n_pairs < k).any()):
        raise ArithmeticError("products of matrices are less exact than their type allows")
    first = n_pairs.cumsum(0) - n_pairs
    best = order[first[:, None] + torch.arange(k, device=rows.device)]
    return squares[best], columns[best]


def _require_comparable(points: Tensor, reference: Tensor) -> None:
    for name, given in (("points", points), ("reference", reference)):
        if given.ndim < 2 or given.numel() == 0:
            shape = list(given.shape)
            raise ValueError(f"{name} must be [n, d] or [n, c, h, w] and not empty, got {shape}")
        if not given.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {given.dtype}")
        # Squares of larger values, summed, would leave the range of float64.
        if not bool(torch.stack(given.double().aminmax()).abs().max() < 1e150):
            raise ValueError(f"{name} must be finite and within 1e150, got NaN or larger values")
    if points.shape[1:] != reference.shape[1:]:
        raise ValueError(
            "points and reference must have the same shape but for their number, "
            f"got {list(points.shape)} and {list(reference.shape)}"
        )


def _require_counts(
    points: Tensor, reference: Tensor, k: int, exclude: Tensor | None, chunk: int
) -> None:
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    n_eligible = len(reference) - (exclude is not None)
    if not 1 <= k <= n_eligible:
        raise ValueError(f"k must be from 1 to {n_eligible:,}, the points to choose from, got {k}")
    if exclude is None:
        return
    if exclude.dtype != torch.int64 or exclude.shape != points.shape[:1]:
        raise ValueError(
            f"exclude must be int64 [{len(points)}], one row for each point, "
            f"got {exclude.dtype} {list(exclude.shape)}"
        )
    if not bool(((exclude >= 0) & (exclude < len(reference))).all()):
        raise ValueError(f"exclude must hold rows of reference, from 0 to {len(reference) - 1:,}")
