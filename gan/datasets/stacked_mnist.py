"""Stacked MNIST: images of three digits, one a colour channel, whose 1,000 triples are modes.

Each split is made of the digits of that split of MNIST alone, as many images as it has digits.

Source: Metz et al. (2017), Unrolled GAN; Srivastava et al. (2017), VEEGAN.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from gan.datasets.images import ImageSet

NAME = "stacked_mnist"
N_CHANNELS = 3
SEED = 0


def stack_digits(digits: ImageSet) -> ImageSet:
    """As many images of three digits each, drawn independently and with replacement.

    Args:
        digits: [n, 1, h, w].

    Returns:
        [n, 3, h, w], without labels: the modes are counted by `gan.evaluation.stacked_mnist`.
    """
    triples = draw_triples(len(digits))
    key = f"{digits.digest} stacked by seed {SEED}"
    return ImageSet(
        images=np.ascontiguousarray(digits.images[:, 0][triples]),
        labels=None,
        digest=hashlib.sha256(key.encode()).hexdigest(),
    )


def draw_triples(n: int) -> NDArray[np.int64]:
    """The rows of the three digits of each image: [n, 3] in 0 .. n - 1."""
    # NumPy promises the numbers of this bit generator across its versions.
    rng = np.random.Generator(np.random.PCG64(SEED))
    return (rng.random((n, N_CHANNELS)) * n).astype(np.int64)
