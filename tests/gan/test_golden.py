"""The loss sequence of two small runs.  Kind: golden; see tests/golden/regenerate.py."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.golden.regenerate import FILE, SETTINGS, losses


@pytest.mark.parametrize("order", SETTINGS)
def test_twenty_steps_have_the_losses_that_they_had(order):
    expected = np.array(json.loads(FILE.read_text())[order])
    assert expected.shape == (20, 4)
    # Other instruction sets and numbers of threads change these steps by 1e-6 of their values.
    assert_allclose(np.array(losses(order)), expected, rtol=1e-4, atol=1e-5)


def test_golden_runs_cover_both_update_orders():
    golden = json.loads(FILE.read_text())
    assert golden.keys() == SETTINGS.keys() == {"alternating", "simultaneous"}
