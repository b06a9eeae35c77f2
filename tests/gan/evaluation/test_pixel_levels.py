"""Shares of grey pixels counted by hand; distances of patterns against NumPy's correlation.

Kind: closed form, independent reference, invariance.
"""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from gan.errors import ScoreError
from gan.evaluation.pixel_levels import grey_share, standardised


def test_grey_pixels_are_those_between_the_bounds():
    images = torch.tensor([[0.0, 0.05, 0.5, 1.0], [0.2, 0.3, 0.95, 0.89]]).view(2, 1, 2, 2)
    score = grey_share(images)
    assert score.value == pytest.approx(np.mean([1 / 4, 3 / 4]), abs=1e-15)
    # Of two shares: their difference over 2.
    assert score.standard_error == pytest.approx(1 / 4, abs=1e-15)


def test_one_image_has_no_spread():
    with pytest.raises(ScoreError, match="images"):
        grey_share(torch.rand(1, 1, 2, 2))


def test_squared_distance_of_patterns_is_that_of_correlation():
    images = np.random.default_rng(0).random((2, 3, 5, 4))
    one, other = standardised(torch.from_numpy(images))
    correlation = np.corrcoef(images[0].ravel(), images[1].ravel())[0, 1]
    assert_allclose((one - other).square().sum(), 2 - 2 * correlation, rtol=1e-12, atol=0)


def test_a_pattern_knows_neither_brightness_nor_contrast():
    images = torch.from_numpy(np.random.default_rng(0).random((4, 1, 6, 6)))
    assert_allclose(standardised(0.1 * images + 0.3), standardised(images), rtol=0, atol=1e-12)


@pytest.mark.parametrize("level", [0.0, 0.1, 1 / 3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_image_has_no_pattern(level, dtype):
    images = torch.full((2, 1, 28, 28), level, dtype=dtype)
    assert standardised(images).abs().max() == 0
