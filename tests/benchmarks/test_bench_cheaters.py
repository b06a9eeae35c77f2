"""The gate's checks of samples that cheat, on MNIST, as `bench_cheaters` prints them.

Kind: end to end.  Each cheater must be refused by the check that is meant for it; one of each
check is tried here, the benchmark tries them all.
"""

import pytest

from gan.evaluation.cheaters import CHEATERS
from tests.benchmarks.bench_cheaters import SIZES, half, images, judge

MEANT = {
    "blurred": "not_smoothed",
    "k_means_centres": "not_smoothed",
    "copied": "not_copied",
    "partly_copied": "not_copied",
    "copied_with_noise": "not_copied",
    "copied_with_shift": "not_copied",
    "class_missing": "all_classes",
    "class_starved": "all_classes",
    "few_distinct": "distinct",
    "binarised": "as_grey",
    "tenth_noise": "no_outliers",
    "tenth_faint_noise": "no_outliers",
    "other_data": "precise",
}

TRIED = (
    *("k_means_centres", "copied", "class_missing", "few_distinct", "binarised", "tenth_noise"),
    "other_data",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mnist():
    return images()


def test_every_cheater_has_a_check_that_is_meant_for_it():
    assert MEANT.keys() == CHEATERS.keys()
    assert {MEANT[name] for name in TRIED} == set(MEANT.values())


@pytest.mark.parametrize("name", TRIED)
def test_samples_that_cheat_are_refused(mnist, name):
    real, material = mnist
    samples = CHEATERS[name].make(material, n=SIZES.get(name, 10_000), seed=0)
    _, refused_by = judge(samples, real, seed=0)
    assert MEANT[name] in refused_by


@pytest.mark.parametrize("draw", range(2))
def test_fresh_real_images_pass(mnist, draw):
    real, material = mnist
    evaluation, refused_by = judge(half(material, draw=draw), real, seed=0)
    assert refused_by == []
    assert evaluation.unavailable == {}
