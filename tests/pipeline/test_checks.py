"""The checks of samples.  Kinds: contract (each refusal names number and limit), algorithm."""

import re

import pytest

from gan.config import LimitsConfig
from gan.evaluation.score import Score, normal_score
from gan.evaluation.suite import NO_LABELS, Evaluation
from pipeline.checks import CHECKS, sample_checks

GOOD = {
    "parzen_ll": 200.0,
    "parzen_ll_real": 240.0,
    "frechet_distance": 9.0,
    "frechet_distance_real": 1.0,
    "precision": 0.7,
    "precision_real": 0.9,
    "coverage": 0.6,
    "coverage_real": 0.95,
    "outlier_share": 0.001,
    "repeat_share": 0.0,
    "near_repeat_share": 0.02,
    "copying_c_t": -4.0,
    "authenticity": 0.6,
    "authenticity_test": 0.65,
    "copying_z_pixels": -4.0,
    "authenticity_pixels": 0.8,
    "authenticity_test_pixels": 0.65,
    "copy_share": 0.01,
    "grey_share": 0.11,
    "grey_share_real": 0.1,
}


def scored(*, missing=(), starved=(), unavailable=(), **values):
    scores = {name: normal_score(name, value, 1.0) for name, value in (GOOD | values).items()}
    left_out = dict(unavailable)
    return Evaluation(
        scores={name: score for name, score in scores.items() if name not in left_out},
        unavailable=left_out,
        n_samples=100,
        missing_classes=tuple(missing),
        starved_classes=tuple(starved),
    )


def failed(evaluation, **limits):
    return [c.name for c in sample_checks(evaluation, LimitsConfig(**limits)) if not c.passed]


def test_samples_that_are_as_good_as_can_be_asked_pass_every_check():
    checks = sample_checks(scored(), LimitsConfig())
    assert [check.name for check in checks] == [check.__name__ for check in CHECKS]
    assert [check.reason for check in checks if not check.passed] == []


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("not_smoothed", {"parzen_ll": 319.7}, r"319\.7 nats, real images reach 240\.0 .* smooth"),
        ("all_classes", {"missing": ("2",), "starved": ("2", "7")}, "2 is missing, 7 is starved"),
        ("precise", {"precision": 0.44}, r"precision is 0\.440, real images reach 0\.900"),
        ("covers", {"coverage": 0.28}, r"coverage is 0\.280, real images reach 0\.950"),
        ("no_outliers", {"outlier_share": 0.1}, r"10\.00% of its samples .*limit 1\.00%"),
        ("distinct", {"repeat_share": 0.99}, r"99\.00% of its samples equal .*limit 1\.00%"),
        ("distinct", {"near_repeat_share": 3.0}, r"300\.00% .* nearly repeats \(limit 25\.00%"),
        (
            "not_copied",
            {"copying_c_t": -13.0, "authenticity": 0.13},
            r"by features is 0\.20 times .* \(limit 0\.75\).* 13\.0 .*\(limit 5\.0 nearer\)",
        ),
        (
            "not_copied",
            {"copying_z_pixels": -77.0, "authenticity_pixels": 0.0},
            r"by pixels is 0\.00 times .* \(limit 0\.75\).* 77\.0 .*\(limit 5\.0 nearer\)",
        ),
        ("not_copied", {"copy_share": 3.0}, r"300\.00% .* near to a training .*limit 5\.00%"),
        ("as_grey", {"grey_share": 0.0}, r"0\.00 times .* \(limits 0\.50 and 2\.00\)"),
        ("as_grey", {"grey_share": 0.21}, r"2\.10 times .* \(limits 0\.50 and 2\.00\)"),
    ],
)
def test_each_cheat_fails_its_own_check_alone_with_number_and_limit(name, values, reason):
    evaluation = scored(**values)
    (check,) = [c for c in sample_checks(evaluation, LimitsConfig()) if not c.passed]
    assert check.name == name
    assert check.value is not None
    assert check.limit is not None

    assert re.search(reason, check.reason)


def test_a_parzen_score_above_the_ceiling_is_no_smoothing_if_the_distance_agrees():
    assert failed(scored(parzen_ll=250.0, frechet_distance=1.9)) == []
    assert failed(scored(parzen_ll=250.0, frechet_distance=2.1)) == ["not_smoothed"]


def test_what_chance_explains_of_a_parzen_score_is_no_smoothing():
    within = 240 + 2 * 2**0.5 - 0.01
    assert failed(scored(parzen_ll=within)) == []
    assert failed(scored(parzen_ll=within + 0.02)) == ["not_smoothed"]


@pytest.mark.parametrize(
    ("part", "scores", "name"),
    [
        ("parzen", ["parzen_ll"], "not_smoothed"),
        ("frechet", ["frechet_distance"], "not_smoothed"),
        ("copying_pixels", ["outlier_share"], "no_outliers"),
        ("distinct", ["repeat_share"], "distinct"),
        ("copying", ["copying_c_t"], "not_copied"),
        ("grey", ["grey_share"], "as_grey"),
    ],
)
def test_a_score_that_could_not_be_taken_fails_its_check_unless_that_is_allowed(
    part, scores, name
):
    why = "samples must hold at least 999 points, got 100"
    evaluation = scored(unavailable=dict.fromkeys([part, *scores], why))
    assert failed(evaluation) == [name]
    assert failed(evaluation, allow_unavailable=True) == []
    (check,) = [c for c in sample_checks(evaluation, LimitsConfig()) if not c.passed]
    assert check.reason.startswith("not available: ")
    assert why in check.reason


def test_smooth_samples_near_to_everything_are_no_copies_and_nor_are_few_near_ones():
    assert failed(scored(copying_c_t=-20.0, authenticity=0.5)) == []
    assert failed(scored(copying_z_pixels=-20.0)) == []
    assert failed(scored(copying_c_t=-4.0, authenticity=0.01)) == []


def test_copies_are_refused_in_the_one_space_that_could_be_told():
    why = {"copying": "too few", "copying_c_t": ""}
    assert failed(scored(unavailable=why), allow_unavailable=True) == []
    copies = scored(unavailable=why, copying_z_pixels=-77.0, authenticity_pixels=0.0)
    assert failed(copies, allow_unavailable=True) == ["not_copied"]


def test_held_out_images_that_are_all_copies_leave_the_distances_to_decide():
    assert failed(scored(authenticity_test=0.0)) == []
    assert failed(scored(authenticity_test=0.0, copying_c_t=-6.0)) == ["not_copied"]


def test_classes_too_rare_to_judge_are_named():
    evaluation = scored()
    evaluation.details["classes"] = {"not_judged": ["8", "9"]}
    checks = {check.name: check for check in sample_checks(evaluation, LimitsConfig())}
    assert checks["all_classes"].passed
    assert checks["all_classes"].reason.endswith("too rare for so many samples to tell: 8, 9")


def test_data_without_labels_have_no_classes_to_check():
    assert failed(scored(unavailable={"classes": NO_LABELS})) == []
    assert failed(scored(unavailable={"classes": "too few labels"})) == ["all_classes"]


def test_an_evaluation_comes_back_from_its_record():
    evaluation = scored(missing=("2",), starved=("2",), unavailable={"bins": "too few"})
    again = Evaluation.from_record(evaluation.record())
    assert again.record() == evaluation.record()
    assert again.scores["precision"] == Score(
        name="precision",
        value=0.7,
        low=0.7 - 1.959963984540054,
        high=0.7 + 1.959963984540054,
        standard_error=1.0,
    )
