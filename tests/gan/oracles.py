"""Slow, obvious NumPy versions of formulas, against which the tests compare."""

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
