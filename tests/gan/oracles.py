"""Slow, obvious NumPy versions of formulas, against which the tests compare."""

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def parzen_log_likelihood(x: Array, samples: Array, sigma: float, batch_size: int = 10) -> Array:
    """The released code's estimator, broadcast and all: [b, d] and [n, d] to [b] nats."""
    d = samples.shape[1]
    parts = []
    for start in range(0, len(x), batch_size):
        scaled = (x[start : start + batch_size, None, :] - samples[None, :, :]) / sigma
        exponent = -0.5 * (scaled**2).sum(2)
        top = exponent.max(1)
        log_mean_exp = top + np.log(np.exp(exponent - top[:, None]).mean(1))
        parts.append(log_mean_exp - d * np.log(sigma * np.sqrt(2 * np.pi)))
    return np.concatenate(parts)


def binary_rows(n: int) -> Array:
    """Every row of n units, [2^n, n]."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def layered_boltzmann(weights: list[Array], biases: list[Array]) -> tuple[Array, Array]:
    """Every state of layers of binary units, and the exponent -E of each.

    Args:
        weights: of each pair of layers, [units above, units below], from the bottom.
        biases: of each layer.

    Returns:
        [2^N, N], the layers side by side; [2^N].
    """
    ends = np.cumsum([len(bias) for bias in biases])
    rows = binary_rows(ends[-1])
    layers = np.split(rows, ends[:-1], axis=1)
    exponents = sum(layer @ bias for bias, layer in zip(biases, layers, strict=True))
    for weight, below, above in zip(weights, layers[:-1], layers[1:], strict=True):
        exponents = exponents + np.einsum("ni,ij,nj->n", above, weight, below)
    return rows, exponents


def finite_differences(f: Callable[[Array], float], at: Array, step: float = 1e-5) -> Array:
    """Gradient of f at a point, by central differences."""
    gradient = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[i] += step
        down[i] -= step
        gradient[i] = (f(up) - f(down)) / (2 * step)
    return gradient
