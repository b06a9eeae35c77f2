"""One seed, many streams.  Kind: invariance."""

import hashlib
import itertools

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from gan.errors import CheckpointError
from gan.randomness import Streams, stream, stream_seed

NAMES = ("init", "data", "noise", "dropout", "samples")


def draws(seed, name, n=2_000):
    return torch.rand(n, generator=stream(seed, name)).numpy()


def test_a_stream_is_given_by_seed_and_name():
    assert_array_equal(draws(0, "noise"), draws(0, "noise"))


@pytest.mark.parametrize(
    ("first", "second"),
    list(itertools.combinations([(seed, name) for seed in (0, 1) for name in NAMES], 2)),
)
def test_streams_of_two_names_or_seeds_are_independent(first, second):
    correlation = stats.pearsonr(draws(*first), draws(*second)).statistic
    assert_allclose(correlation, 0, rtol=0, atol=5 / 2_000**0.5)


def test_seed_of_a_stream_is_the_same_on_every_machine():
    digest = hashlib.sha256(b"7/noise").hexdigest()
    assert stream_seed(7, "noise") == int(digest[:16], 16) // 2
    assert 0 <= stream_seed(7, "noise") < 2**63


def test_training_has_its_three_streams():
    streams = Streams(4)
    for name in Streams.NAMES:
        assert_array_equal(
            torch.rand(5, generator=getattr(streams, name)),
            torch.rand(5, generator=stream(4, name)),
        )
    assert Streams.NAMES == ("data", "noise", "dropout")


def test_streams_go_on_from_their_state():
    streams, resumed = Streams(0), Streams(1)
    torch.rand(3, generator=streams.noise)
    resumed.set_state(streams.state())
    for name in Streams.NAMES:
        assert_array_equal(
            torch.rand(5, generator=getattr(resumed, name)),
            torch.rand(5, generator=getattr(streams, name)),
        )


def test_a_state_of_another_kind_of_device_is_refused():
    of_a_gpu = {name: torch.zeros(16, dtype=torch.uint8) for name in Streams.NAMES}
    with pytest.raises(CheckpointError, match=r"stream 'data' of another kind than cpu"):
        Streams(0).set_state(of_a_gpu)
