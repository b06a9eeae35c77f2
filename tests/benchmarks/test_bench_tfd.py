"""The column TFD of Table 1, printed.  Kind: contract."""

import pytest

from gan.folds import FoldScore
from pipeline.paper.faces import recipe
from tests.benchmarks.bench_tfd import notices, record, table


def scored(fold, test, *, n_unlabeled=98_000):
    numbers = {"sigma": 0.1, "parzen_ll_valid": 2000.0, "parzen_ll_test_se": 40.0}
    counts = {"n_unlabeled": n_unlabeled, "n_valid": 400, "n_test": 800}
    return FoldScore(fold=fold, parzen_ll_test=test, **numbers, **counts)


@pytest.mark.parametrize(("is_small", "units"), [(False, 8_000), (True, 400)])
def test_both_stages_are_of_the_file_and_as_large_as_asked_for(is_small, units):
    first, second = recipe("faces.mat", is_small=is_small, settings={"seed": 3})
    assert {stage.data.dataset for stage in (first, second)} == {"faces.mat"}
    assert {stage.seed for stage in (first, second)} == {3}
    assert first.generator.hidden == (units, units)
    assert second.learned_prior.hidden == (units,)
    assert second.learned_prior.output == "sigmoid"


def test_table_and_record_have_the_mean_and_its_error_over_folds():
    scores = [scored(fold, test) for fold, test in enumerate([2000.0, 2100.0])]
    assert "| 1 | 0.100 | 2000.0 | 2100.0 ± 40.0 | 98,000, 400, 800 |" in table("x", scores)
    assert "**2050.0 ± 50.0**" in table("x", scores)
    facts = record(scores)
    assert (facts["mean"], facts["standard_error"]) == pytest.approx((2050, 50))
    assert [fold["parzen_ll_test"] for fold in facts["folds"]] == [2000, 2100]


def test_numbers_that_are_not_comparable_are_called_so():
    assert notices([scored(0, 1.0)], is_small=False) == []
    for scores, is_small in (([scored(0, 1.0, n_unlabeled=200)], False), ([scored(0, 1.0)], True)):
        (notice,) = notices(scores, is_small=is_small)
        assert "no score is comparable with the paper's" in notice
