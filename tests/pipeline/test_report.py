"""The report page: its claims, that it stands alone, what it survives (contract, invariance)."""

import base64
import dataclasses
import io
import math
import re
import shlex
from html.parser import HTMLParser
from itertools import pairwise

import matplotlib as mpl
import pytest
import yaml
from numpy.testing import assert_allclose
from PIL import Image

from gan import metric_names
from gan.config import load_config, to_dict, with_overrides
from gan.evaluation.score import Score
from gan.evaluation.suite import Evaluation
from gan.tasks import TASKS
from pipeline.checks import CHECKS
from pipeline.gate import better_than_champion
from pipeline.products import PRODUCTS
from pipeline.report_figures import (
    MAX_POINTS,
    ClassShare,
    Curve,
    Point,
    class_shares,
    learning_curves,
    score_by_setting,
    score_limits,
    setting_text,
)
from pipeline.report_page import render_report, varied_settings
from pipeline.report_scores import CHECKED_BY, GROUPS, score_tables
from tests.pipeline.chromium import CHROMIUM, QUIET

VOID = {"meta", "link", "br", "img", "wbr", "hr", "input"}
CONFIG = load_config(
    {
        "name": "tiny-sweep",
        "base": {
            "train": {"n_steps": 400, "report_every": 50, "learning_rate": 0.05},
            "evaluation": {"score_every": 100},
        },
        "sweep": {
            "n_trials": 4,
            "objective": "parzen_ll_valid",
            "space": {
                "train.d_steps": {"choice": [1, 2, 3]},
                "discriminator.dropout_hidden": {"uniform": [0.0, 0.6]},
                "prior.kind": {"choice": ["uniform", "gaussian"]},
            },
        },
    }
)
SCORES = {
    "parzen_ll_valid": 171.3,
    "parzen_ll_valid_se": 2.4,
    "parzen_sigma": 0.2154,
    "parzen_ll_valid_fine": 174.0,
    "parzen_sigma_fine": 0.2,
    "parzen_ll_test": 168.1,
    "parzen_ll_test_se": 2.2,
    "parzen_ll_test_fine": 171.2,
    "n_samples": 10_000,
    "sample_seed": 7,
}
DISTANCE_SCORES = {
    "frechet_distance_valid": 6.5,
    "frechet_distance_valid_se": 0.125,
    "frechet_distance_test": 6.25,
    "frechet_distance_test_se": 0.25,
}

ANCHORS = (
    "parzen_ll_real frechet_distance_real precision_real recall_real density_real coverage_real "
    "authenticity_test authenticity_test_pixels grey_share_real"
).split()
"""Scores of real images, which stand beside those of samples."""
NAMES = (
    "parzen_ll parzen_ll_centres parzen_ll_fine frechet_distance frechet_distance_extrapolated "
    "kernel_distance precision recall density coverage classifier_score conditional_entropy "
    "marginal_entropy confidence class_total_variation stacked_modes stacked_reverse_kl "
    "ndb_share ndb_js_divergence repeat_share near_repeat_share collision_probability copying_z "
    "copying_c_t authenticity outlier_share copying_z_pixels authenticity_pixels "
    "copy_share "
    "classifier_test_accuracy nearest_test_accuracy nearest_test_accuracy_real "
    "nearest_test_accuracy_samples grey_share "
    "ais_ll ais_ll_lower ais_ll_upper ais_ll_gap"
).split() + [
    f"path_{name}_{kind}"
    for kind in ("straight", "spherical")
    for name in (
        "length_pixels length_features speed_features confidence confidence_lowest class_changes"
    ).split()
]
"""Every score that there is."""


def a_score(name, value=0.5, half=0.02, **fields):
    settings = {"low": value - half, "high": value + half, "standard_error": half / 2} | fields
    return Score(name=name, value=value, **settings)


EVALUATION = Evaluation(
    scores={name: a_score(name) for name in (*NAMES, *ANCHORS)}
    | {
        "parzen_ll": a_score("parzen_ll", 171.25, 4.0, unit="nats"),
        "parzen_ll_real": a_score("parzen_ll_real", 246.0, 4.4, unit="nats"),
        "copying_c_t": a_score("copying_c_t", -3.5, 0.4),
    },
    unavailable={},
    n_samples=10_000,
    details={
        "classes": {
            "p_value": 0.031,
            "not_judged": [],
            "shares": {"0": [0.2, 0.4], "1": [0.75, 0.35], "2": [0.05, 0.25]},
        }
    },
    missing_classes=(),
    starved_classes=("2",),
)

PROMOTION = {
    "outcome": "promoted",
    "model": "mnist-generator",
    "version": "3",
    "previous_version": "2",
    "checks": [
        {
            "name": "beats_champion",
            "passed": True,
            "value": 14.2,
            "limit": 2.0,
            "reason": "14.2 standard errors above version 2",
        }
    ],
}
REFUSED = {
    "outcome": "refused",
    "version": "2",
    "previous_version": None,
    "checks": [
        {
            "name": "beats_champion",
            "passed": False,
            "value": 0.3,
            "limit": None,
            "reason": "0.3 standard errors above version 2, at least 2 needed.",
        }
    ],
}


def png(width=64, height=32):
    buffer = io.BytesIO()
    Image.new("L", (width, height), 128).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = {
    "samples.png": png(),
    "nearest.png": png(50),
    "straight.png": png(40),
    "spherical.png": png(30),
}


def a_trial(number, score, *, status="finished", n_steps=400, every=50, **fields):
    """A trial whose score grows linearly to `score` nats; None: never scored."""
    history = []
    for step in range(every, n_steps + 1, every):
        report = {
            "step": step,
            "d_loss": 1.3 - 0.1 * number,
            "g_loss": 0.9,
            "d_real_mean": 0.6,
            "d_fake_mean": 0.4,
            "images_seen": 100 * step,
            "images_per_second": 4000.0,
        }
        if score is not None and step % 100 == 0:
            report |= {
                "parzen_ll_valid": score * step / n_steps,
                "parzen_ll_valid_se": 2.0,
                "parzen_sigma": 0.2154,
            }
        history.append(report)
    best = {
        "step": n_steps,
        "parzen_ll_valid": score,
        "parzen_ll_valid_se": 2.0,
        "parzen_sigma": 0.2154,
    }
    return {
        "trial": number,
        "status": status,
        "cause": None,
        "overrides": {
            "prior.kind": "gaussian",
            "discriminator.dropout_hidden": 0.1 * number,
            "train.d_steps": 1 + number % 3,
        },
        "seed": number,
        "run_id": f"{number:032x}",
        "step": n_steps,
        "elapsed_seconds": 61.5,
        "best": None if score is None else best,
        "history": history,
    } | fields


TRIALS = [
    a_trial(0, 150.0),
    a_trial(1, 120.0, status="stopped", n_steps=200),
    a_trial(2, 171.3),
    a_trial(3, None, status="failed", n_steps=50, cause="losses must be finite, got nan"),
]
WITHOUT_FIGURES = [a_trial(2, 171.3, history=[], overrides={})]


DISTANCE = "frechet_distance_valid"
BY_DISTANCE = to_dict(CONFIG) | {"sweep": to_dict(CONFIG)["sweep"] | {"objective": DISTANCE}}


def a_blurring_trial(number, distance, parzen, **fields):
    """A trial whose distance shrinks to `distance` while its Parzen score grows to `parzen`."""
    trial = a_trial(number, parzen, **fields)
    for report in trial["history"]:
        if "parzen_ll_valid" in report:
            longer = trial["step"] / report["step"]
            report |= {DISTANCE: distance * longer, f"{DISTANCE}_se": 0.25}
    trial["best"] |= {DISTANCE: distance, f"{DISTANCE}_se": 0.25}
    return trial


BLURRING = [
    a_blurring_trial(0, 90.0, 320.0),
    a_blurring_trial(1, 30.0, 120.0, status="stopped", n_steps=200),
    a_blurring_trial(2, 5.0, 171.3),
    a_trial(3, None, status="failed", n_steps=50, cause="losses must be finite, got nan"),
]
"""The better the Parzen score of the finished ones, the worse their distance."""


def page(**changes):
    arguments = {
        "name": "tiny-sweep",
        "config": to_dict(CONFIG),
        "trials": TRIALS,
        "scores": SCORES,
        "evaluation": EVALUATION,
        "promotion": PROMOTION,
        "pictures": PICTURES,
        "best_trial": 2,
        "mlflow_hint": "mlflow ui --backend-store-uri sqlite:///mlflow.db",
    }
    return Page(render_report(**(arguments | changes)))


class Page(HTMLParser):
    """Elements, texts and tables of a page; an element that is not closed in order is an error."""

    def __init__(self, source):
        super().__init__()
        self.source, self.elements, self.open, self.words = source, [], [], []
        self.rows, self.code, self.headings = [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append(([], dict(attrs)))
        elif tag in {"td", "th"}:
            self.rows[-1][0].append("")
        elif tag == "code":
            self.code.append("")
        elif tag in {"h1", "h2", "h3"}:
            self.headings.append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open or "script" in self.open:
            return
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][0][-1] += data
        if "code" in self.open:
            self.code[-1] += data
        if {"h1", "h2", "h3"} & set(self.open):
            self.headings[-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def cells(self, first):
        """The cells of the row that begins with `first`."""
        rows = [[" ".join(cell.split()) for cell in cells] for cells, _ in self.rows]
        (found,) = [row for row in rows if row and row[0] == first]
        return found


@pytest.fixture(scope="module")
def full():
    return page()


@pytest.fixture(scope="module")
def by_distance():
    return page(config=BY_DISTANCE, trials=BLURRING)


# What the page claims


@pytest.mark.parametrize(
    ("changes", "best_trial", "verdict", "sentence"),
    [
        ({}, 2, "Trial 2 is the new champion", "version 3 and replaces version 2"),
        ({"previous_version": None}, 2, "Trial 2 is the champion", "3, the first of its name"),
        ({"outcome": "unchanged"}, 2, "Trial 2 is the champion already", "version 3"),
        (
            REFUSED,
            2,
            "Trial 2 was not promoted",
            "Refused for mnist-generator by 1 of 1 checks of the gate. Its champion stays "
            "version 2. beats_champion : 0.3 standard errors above version 2, at least 2 needed.",
        ),
        (REFUSED | {"version": None}, 2, "not promoted", "It has no champion yet."),
        (None, 2, "Trial 2 leads the sweep", "has not been asked"),
        (None, None, "No trial reached a score", "nothing to evaluate"),
    ],
)
def test_headline_gives_the_verdict(changes, best_trial, verdict, sentence):
    promotion = None if changes is None else PROMOTION | changes
    report = page(trials=WITHOUT_FIGURES, promotion=promotion, best_trial=best_trial, scores=None)
    assert verdict in report.headings[0]
    assert sentence in report.text


def test_scores_stand_with_their_standard_errors(full):
    assert full.cells("Validation") == ["Validation", "171.3 ± 2.4", "174.0"]
    assert full.cells("Test") == ["Test", "168.1 ± 2.2", "171.2"]
    assert "Below are its scores by 10,000 other samples (seed 7)" in full.text


def test_score_stands_beside_the_paper_and_real_images(full):
    assert "The paper reports a Parzen score of 225 ± 2 nats (Table 1" in full.text
    assert "reach 241.2 ± 2.1 on test images (measured)" in full.text
    assert "56.9 nats below the paper and 73.1 below real images" in full.text
    assert "Beside Table 1 of the paper" in full.headings


def test_other_numbers_of_samples_are_not_compared_with_the_paper():
    report = page(trials=WITHOUT_FIGURES, scores=SCORES | {"n_samples": 1_000})
    assert "does not compare with either" in report.text
    assert "below the paper" not in report.text
    assert "Beside Table 1 of the paper" not in report.headings


def with_dataset(dataset):
    base = {"data": {"dataset": dataset}}
    return load_config({"base": base, "sweep": {"objective": "parzen_ll_valid"}})


def test_another_data_set_is_not_compared_with_mnist():
    config = to_dict(with_dataset("faces.npz"))
    report = page(trials=WITHOUT_FIGURES, config=config)
    assert "Beside Table 1 of the paper" not in report.headings
    assert "The paper reports" not in report.text
    assert "319.7" not in report.text
    assert "It rewards smooth pictures." in report.text


@pytest.mark.parametrize(("score", "is_warned"), [(245.0, False), (246.0, True)])
def test_score_above_real_images_is_a_warning(score, is_warned):
    report = page(trials=WITHOUT_FIGURES, scores=SCORES | {"parzen_ll_test": score})
    assert ("is a warning" in report.text) == is_warned


def test_trials_are_ranked_by_score_and_those_without_one_come_last(full):
    start = next(i for i, (cells, _) in enumerate(full.rows) if cells and cells[0] == "Rank")
    rows = [[" ".join(c.split()) for c in cells] for cells, _ in full.rows[start + 1 : start + 5]]
    assert [row[:3] for row in rows] == [
        ["1", "2 ◆ winner", "171.3 ± 2.0"],
        ["2", "0", "150.0 ± 2.0"],
        ["3", "1", "120.0 ± 2.0"],
        ["–", "3", "–"],
    ]
    assert full.rows[start + 1][1] == {"class": "winner"}
    assert [row[7] for row in rows] == [
        "● finished",
        "● finished",
        "○ stopped early",
        "× failedlosses must be finite, got nan",
    ]


def ranked(report):
    """The cells of the table of trials."""
    start = next(i for i, (cells, _) in enumerate(report.rows) if cells and cells[0] == "Rank")
    return [[" ".join(c.split()) for c in cells] for cells, _ in report.rows[start : start + 5]]


def test_trials_of_a_sweep_by_distance_are_ranked_from_the_smallest_on(by_distance):
    assert [row[:5] for row in ranked(by_distance)] == [
        [
            "Rank",
            "Trial",
            "Best scoreFréchet distance",
            "At step",
            "Parzen log-likelihoodat that step, nats",
        ],
        ["1", "2 ◆ winner", "5.00 ± 0.25", "400", "171.3 ± 2.0"],
        ["2", "1", "30.00 ± 0.25", "200", "120.0 ± 2.0"],
        ["3", "0", "90.00 ± 0.25", "400", "320.0 ± 2.0"],
        ["–", "3", "–", "–", "–"],
    ]


def test_distance_stands_beside_the_parzen_score_that_decided():
    report = page(trials=BLURRING, best_trial=0)
    assert [row[:5] for row in ranked(report)[:2]] == [
        [
            "Rank",
            "Trial",
            "Best scoreParzen log-likelihood, nats",
            "At step",
            "Fréchet distanceat that step",
        ],
        ["1", "0 ◆ winner", "320.0 ± 2.0", "400", "90.00 ± 0.25"],
    ]


def test_words_about_a_distance_say_that_smaller_is_better(by_distance, full):
    claims = {
        "Trial 2 was chosen by Fréchet distance on the validation split, 5.00 ± 0.25 at step 400; "
        "smaller is better.": "Trial 2 was chosen by Parzen log-likelihood on the validation "
        "split, 171.3 ± 2.0 nats at step 400; larger is better.",
        "an upper bound on what its settings can do": "a lower bound on what its settings can do",
        "On the upper edge: no score, or one above the axis.": "On the lower edge: no score, or "
        "one below the axis.",
        "best Fréchet distance on the validation split (smaller is better)": "best Parzen "
        "log-likelihood on the validation split (larger is better)",
        "What the Parzen score cannot tell": "What this score cannot tell",
    }
    for of_distance, of_parzen in claims.items():
        assert of_distance in by_distance.text
        assert of_distance not in full.text
        assert of_parzen is None or of_parzen in full.text
        assert of_parzen is None or of_parzen not in by_distance.text


def tiles(report):
    """Title and number of each tile at the top, and its note."""
    words = [word for word in report.words if word.strip()]
    top = " ".join(" ".join(words).split())
    return top.partition("Trials ")[0]


def test_score_that_decides_stands_first_with_its_error_and_that_of_the_paper_beside_it():
    scores = SCORES | DISTANCE_SCORES
    by_distance = tiles(page(config=BY_DISTANCE, trials=BLURRING, scores=scores))
    distance = (
        "Fréchet distance, test 6.25 ± 0.25 ± standard error; by which trials compare, smaller is "
        "better; validation: 6.50 ± 0.12"
    )
    assert f"{distance} Parzen log-likelihood, test 168.1 ± 2.2 nats" in by_distance
    by_parzen = tiles(page(trials=BLURRING, best_trial=0, scores=scores))
    assert by_parzen.index("Parzen log-likelihood, test 168.1 ± 2.2") < by_parzen.index("6.25")
    assert "by which trials compare, larger is better; validation: 171.3 ± 2.4" in by_parzen


def test_score_that_was_not_taken_on_test_images_has_no_tile(full):
    assert "Fréchet distance, test" not in full.text
    assert "Parzen log-likelihood, test" in tiles(full)


def test_tile_of_a_winner_that_was_not_evaluated_is_its_validation_score():
    report = page(config=BY_DISTANCE, trials=BLURRING, scores=None, evaluation=None)
    assert "Fréchet distance, validation 5.00 ± 0.25 ± standard error; smaller" in tiles(report)
    assert "the test split has not been opened" in report.text


def test_both_scores_of_both_splits_share_a_table_with_the_real_images():
    scores = SCORES | DISTANCE_SCORES
    report = page(config=BY_DISTANCE, trials=BLURRING, scores=scores)
    assert report.cells("Validation") == ["Validation", "6.50 ± 0.12", "171.3 ± 2.4", "174.0"]
    assert report.cells("Test") == ["Test", "6.25 ± 0.25", "168.1 ± 2.2", "171.2"]
    real = report.cells("Training imagesas samples, by validation images")
    assert real[1:] == ["0.500 ± 0.010", "246.0 ± 2.2", "–"]


# Every score


def test_every_score_has_one_row_with_its_interval_and_that_of_real_images(full):
    rows = [cells[0].strip() for cells, _ in full.rows if cells and cells[0].strip() in NAMES]
    assert sorted(rows) == sorted(NAMES)
    assert [" ".join(cell.split()) for cell in full.cells("parzen_ll")] == [
        "parzen_ll",
        "171.2 nats",
        "167.2 to 175.2",
        "246.0",
        "more, up to real images",
        "not_smoothed",
    ]
    assert full.cells("copying_c_t")[1:3] == ["−3.50", "−3.90 to −3.10"]
    assert full.cells("kernel_distance")[3:] == ["–", "less", "–"]


def test_every_score_belongs_to_one_group():
    grouped = [name for group in GROUPS for name in group.good]
    assert sorted(grouped) == sorted(NAMES)
    assert set(CHECKED_BY) <= set(NAMES)


def test_scores_that_the_gate_judges_by_are_open_and_the_others_closed(full):
    for table in score_tables(EVALUATION):
        assert all(row.check for row in table.decisive)
        assert not any(row.check for row in table.others)
    closed = re.findall(
        r"<details>\s*<summary>\d+ (?:more )?scores?.*?</details>", full.source, re.S
    )
    assert len(closed) == len([group for group in GROUPS if set(group.good) - set(CHECKED_BY)])
    hidden = [name for name in NAMES if any(f"<code>{name}</code>" in part for part in closed)]
    assert sorted(hidden) == sorted(set(NAMES) - set(CHECKED_BY))


@pytest.mark.parametrize("task", PRODUCTS)
def test_scores_of_a_product_come_first_beside_the_checks_that_judge_them(task):
    groups = PRODUCTS[task].groups
    names = [name for group in groups for name in group.good]
    assert not set(names) & set(NAMES)
    scores = EVALUATION.scores | {name: a_score(name) for name in names}
    tables = score_tables(dataclasses.replace(EVALUATION, scores=scores), groups)
    assert [table.group for table in tables[: len(groups)]] == list(groups)
    checked = {row.score.name: row.check for t in tables for row in t.decisive}
    assert (
        checked.items() >= {k: v for group in groups for k, v in group.checked_by.items()}.items()
    )


def test_verdict_of_the_gate_stands_beside_the_score():
    checks = [
        PROMOTION["checks"][0] | {"name": "covers", "passed": False},
        PROMOTION["checks"][0] | {"name": "precise"},
    ]
    report = page(trials=WITHOUT_FIGURES, promotion=PROMOTION | {"checks": checks})
    assert report.cells("coverage")[5] == "covers × not passed"
    assert report.cells("precision")[5] == "precise ✓ passed"
    assert report.cells("grey_share")[5] == "as_grey"


def test_score_that_the_page_does_not_know_is_shown_all_the_same():
    evaluation = dataclasses.replace(EVALUATION, scores={"sharpness": a_score("sharpness")})
    report = page(trials=WITHOUT_FIGURES, evaluation=evaluation)
    assert report.cells("sharpness")[1] == "0.500"
    assert "Other scores" in report.headings
    assert "Distances and manifolds" not in report.headings


@pytest.mark.parametrize(
    ("score", "texts"),
    [
        (a_score("s", 0.0, 0.0), ("0", "0", "0")),
        (a_score("s", 7.7e-6, 2e-6), ("7.7 · 10⁻⁶", "5.7 · 10⁻⁶", "9.7 · 10⁻⁶")),
        (a_score("s", 0.0, 0.0, high=0.000384), ("0", "0", "0.00038")),
        (a_score("s", 1251.4, 108.0), ("1,251", "1,143", "1,359")),
        (a_score("s", -0.25, 0.5), ("−0.25", "−0.75", "0.25")),
    ],
)
def test_interval_says_how_many_digits_a_score_has(score, texts):
    (table,) = score_tables(Evaluation(scores={"s": score}, unavailable={}, n_samples=2))
    assert table.others[0].texts == (*texts, "")


def test_what_was_not_available_is_told_with_its_reason(full):
    assert "Every score could be taken." in full.text
    why = "samples must hold at least 1,000 points, got 200"
    unavailable = {"bins": why, "frechet": why, "classes": "the data set has no labels"}
    evaluation = dataclasses.replace(
        EVALUATION, scores={}, details={}, starved_classes=(), unavailable=unavailable
    )
    report = page(trials=WITHOUT_FIGURES, evaluation=evaluation)
    assert f"bins , frechet : {why} classes : the data set has no labels" in report.text
    assert "Share of each class" not in report.headings


def test_shares_of_classes_stand_beside_those_of_the_data(full):
    (label,) = [
        attrs["aria-label"]
        for attrs in full.all("div")
        if attrs.get("aria-label", "").startswith("Share of each class")
    ]
    assert "0 20.0% (40.0%), 1 75.0% (35.0%), 2 5.0% (25.0%)" in label
    assert "Starved: 2." in full.text
    assert "p = 0.031." in full.text
    evaluation = dataclasses.replace(
        EVALUATION, missing_classes=("2",), starved_classes=("2", "0")
    )
    report = page(trials=WITHOUT_FIGURES, evaluation=evaluation)
    assert "Missing: 2. Starved: 0. Both sets" in report.text


def test_bars_of_classes_are_as_high_as_their_shares():
    classes = [ClassShare("a", 0.2, 0.4), ClassShare("b", 0.6, 0.2), ClassShare("c", 0.2, 0.4)]
    svg = class_shares(classes, starved_fraction=0.25)
    paths = [
        [float(n) for n in re.findall(r"[ML] [\d.]+ ([\d.]+)", d)]
        for d in re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="fill: #0072b2', svg)
    ]
    heights = [max(path) - min(path) for path in paths]
    assert len(heights) == 3
    assert_allclose([heights[1], heights[2]], [3 * heights[0], heights[0]], rtol=1e-3, atol=0)


def test_winner_by_distance_that_was_not_evaluated_is_told():
    report = page(config=BY_DISTANCE, trials=BLURRING, scores=None, promotion=None)
    assert "Trial 2 has the best Fréchet distance of the sweep" in report.text
    assert "5.00 ± 0.25 at step 400; smaller is better. It has not been evaluated" in report.text


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
# Of playwright's own threads, when it is closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("shown", ["full", "by_distance"])
def test_table_of_trials_fits_a_window_of_1200_pixels(shown, request, tmp_path):
    from playwright.sync_api import sync_playwright

    file = tmp_path / "report.html"
    file.write_text(request.getfixturevalue(shown).source)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        window = browser.new_page(viewport={"width": 1200, "height": 900})
        window.goto(file.as_uri())
        hidden = window.locator("#trials .scroll").evaluate("e => e.scrollWidth - e.clientWidth")
        browser.close()
    assert hidden == 0


def test_table_1_stays_that_of_the_parzen_score(by_distance):
    assert "Beside Table 1 of the paper" in by_distance.headings
    assert by_distance.cells("Test") == ["Test", "168.1 ± 2.2", "171.2"]


@pytest.mark.parametrize(
    ("error", "text"),
    [(0.0, "123.5"), (0.0321, "123.456 ± 0.032"), (0.56, "123.46 ± 0.56"), (23.0, "123 ± 23")],
)
def test_error_of_a_distance_says_how_many_digits_it_has(error, text):
    trial = a_blurring_trial(2, 123.456, 150.0, history=[], overrides={})
    trial["best"][f"{DISTANCE}_se"] = error
    assert page(config=BY_DISTANCE, trials=[trial]).cells("1")[2] == text


def test_trial_that_failed_after_it_was_scored_keeps_its_rank():
    bare = {"history": [], "overrides": {}}
    trials = [a_trial(0, 150.0, **bare), a_trial(1, 160.0, status="failed", cause="out", **bare)]
    report = page(trials=trials, best_trial=1)
    assert report.cells("1")[1:3] == ["1 ◆ winner", "160.0 ± 2.0"]
    assert report.cells("2")[1:3] == ["0", "150.0 ± 2.0"]


def test_of_equal_scores_the_earlier_step_ranks_first():
    bare = {"history": [], "overrides": {}}
    trials = [a_trial(0, 150.0, **bare), a_trial(1, 150.0, n_steps=300, **bare)]
    assert page(trials=trials, best_trial=1).cells("1")[1] == "1 ◆ winner"


def test_trial_that_mlflow_never_knew_has_no_run():
    report = page(trials=[WITHOUT_FIGURES[0] | {"run_id": ""}])
    assert report.cells("1")[-1] == "–"
    assert "The winner is run" not in report.text


def test_settings_that_a_trial_does_not_override_come_from_the_base():
    trials = [a_trial(0, 150.0), a_trial(1, 140.0, overrides={"train.momentum": 0.9})]
    report = page(trials=trials, best_trial=0)
    assert report.cells("2")[4:8] == ["1", "0.5", "uniform", "0.9"]
    assert report.cells("1")[4:8] == ["1", "0", "gaussian", "0.5"]
    assert report.source.count("inherited") == 1 + 4  # the style, and one in each empty place


def test_settings_are_ordered_k_dropout_prior_rest():
    overrides = ["train.momentum", "prior.dim", "generator.dropout_hidden", "train.d_steps"]
    trials = [{"overrides": {key: 1}} for key in overrides]
    assert varied_settings(trials) == list(reversed(overrides))


def test_gate_checks_are_listed(full):
    row = ["beats_champion", "✓ passed", "14.2 standard errors above version 2", "14.2", "2"]
    assert full.cells("beats_champion") == row
    refused = page(trials=WITHOUT_FIGURES, promotion=PROMOTION | REFUSED).cells("beats_champion")
    assert (refused[1], refused[4]) == ("× not passed", "–")


def test_configuration_shows_what_the_winner_changed(full):
    assert full.cells("train.d_steps") == ["train.d_steps", "varied, else 1", "3"]
    assert full.cells("train.learning_rate") == ["train.learning_rate", "0.05", ""]
    assert full.cells("train.decay_per_step")[1] == "1.000004"
    assert full.cells("sweep.space.train.d_steps.choice")[1] == "[1, 2, 3]"


def test_preset_and_train_command_give_back_the_configuration(full):
    (preset,) = [code for code in full.code if code.startswith("name: ")]
    assert load_config(yaml.safe_load(preset)) == CONFIG
    assert "defaults" in full.text
    assert "n_valid" not in preset
    (command,) = [code for code in full.code if code.startswith("gan train ")]
    words = shlex.split(command)
    assert words[:3] == ["gan", "train", "tiny-sweep.yaml"]
    assert words[3::2] == ["--set"] * 4
    expected = with_overrides(CONFIG.base, {**TRIALS[2]["overrides"], "seed": 2})
    assert load_config(yaml.safe_load(preset), words[4::2]).base == expected


def test_train_command_quotes_lists_and_small_numbers():
    overrides = {"generator.hidden": [512, 512], "train.learning_rate": 1e-5}
    report = page(trials=[a_trial(2, 150.0, overrides=overrides)])
    (command,) = [code for code in report.code if code.startswith("gan train ")]
    config = load_config({}, shlex.split(command)[4::2])
    assert config.base.generator.hidden == (512, 512)
    assert_allclose(config.base.train.learning_rate, 1e-5, rtol=1e-12, atol=0)
    assert "[512, 512]" in report.cells("1")


def test_glossary_explains_every_metric(full):
    names = [value for key, value in vars(metric_names).items() if key.isupper()]
    assert len(names) >= 24
    names += [f"{name}_valid" for name in NAMES if not name.endswith("_spherical")]
    names += ["<score>_real_valid", "authenticity_test_valid", "authenticity_test_pixels_valid"]
    assert [name for name in names if name not in full.code] == []


def test_page_tells_how_to_open_mlflow_and_which_run_won(full):
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in full.code
    assert TRIALS[2]["run_id"] in full.code


@pytest.mark.parametrize(
    ("seconds", "text"), [(90.4, "90 s"), (526, "8 min 46 s"), (7_500, "2 h 5 min")]
)
def test_training_time_is_said_as_a_person_says_it(seconds, text):
    trials = [WITHOUT_FIGURES[0] | {"elapsed_seconds": seconds}]
    assert f" {text} summed" in page(trials=trials).text


def test_pictures_are_inside_the_page_at_a_whole_zoom(full):
    pictures = full.all("img")
    sources = [picture["src"].removeprefix("data:image/png;base64,") for picture in pictures]
    assert [base64.b64decode(source) for source in sources] == list(PICTURES.values())
    assert [(p["width"], p["height"]) for p in pictures] == [
        ("640", "320"),
        ("600", "384"),
        ("640", "512"),
        ("630", "672"),
    ]
    assert "trial 2" in pictures[0]["alt"]
    assert all(len(picture["alt"]) > 40 for picture in pictures)


@pytest.mark.parametrize("missing", PICTURES)
def test_each_picture_is_optional(missing):
    pictures = {name: png for name, png in PICTURES.items() if name != missing}
    report = page(trials=WITHOUT_FIGURES, pictures=pictures)
    assert len(report.all("img")) == 3
    titles = {
        "samples.png": "Samples",
        "nearest.png": "Nearest training images",
        "straight.png": "Straight paths in z",
        "spherical.png": "Spherical paths in z",
    }
    assert [name for name, title in titles.items() if title not in report.headings] == [missing]


@pytest.mark.parametrize(
    ("blind_spot", "check"),
    [
        ("Blur.", "not_smoothed"),
        ("Missing modes.", "covers"),
        ("Rubbish.", "no_outliers"),
        ("Copying.", "not_copied"),
        ("Luck.", "better_than_champion"),
    ],
)
def test_each_blind_spot_of_the_parzen_score_names_a_check_that_looks_for_it(
    full, blind_spot, check
):
    (item,) = [part for part in full.source.split("<li>") if f"<strong>{blind_spot}" in part]
    assert f"<code>{check}</code>" in item.partition("</li>")[0]
    names = {function.__name__ for function in CHECKS} | {better_than_champion.__name__}
    assert check in names


def test_refusal_names_each_check_that_was_not_passed():
    check = PROMOTION["checks"][0]
    refusals = [
        check | {"name": "covers", "passed": False, "reason": "its coverage is 0.1"},
        check,
        check | {"name": "distinct", "passed": False, "reason": "9 % of its samples repeat"},
    ]
    promotion = PROMOTION | {"outcome": "refused", "checks": refusals}
    report = page(trials=WITHOUT_FIGURES, promotion=promotion)
    top = report.text.partition("2 of 3 checks were not passed")[0]
    assert "by 2 of 3 checks of the gate" in top
    assert "covers : its coverage is 0.1 distinct : 9 % of its samples repeat" in top


# It stands alone, and all can read it


def test_page_refers_to_nothing_outside_itself(full):
    assert not re.search(r"https?:|@import|url\((?!#)", full.source)
    links = [a[key] for _, a in full.elements for key in ("src", "href") if key in a]
    assert len(links) > 20
    ids = [attrs["id"] for _, attrs in full.elements if "id" in attrs]
    for link in links:
        assert link.startswith("data:") or link.removeprefix("#") in ids
    assert len(set(ids)) == len(ids)
    (policy,) = [a["content"] for a in full.all("meta") if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'")


def test_figures_and_tables_are_described(full):
    assert len(full.all("svg")) == 1 + 1 + 4 + 3
    drawings = [a for a in full.all("div") if a.get("role") == "img"]
    assert len([a for a in drawings if len(a["aria-label"]) > 20]) == len(full.all("svg"))
    assert all("scope" in attrs for attrs in full.all("th"))
    assert full.all("html") == [{"lang": "en"}]
    assert {"log 4", "log 2", "1/2", "D(G(z)), samples", "prior.kind"} <= set(full.words)


def test_what_others_wrote_is_text_and_not_markup():
    evil = "<script>alert('1')</script> & $x_$ \" id="
    trials = [
        a_trial(2, 150.0, cause=evil, overrides={"data.test_path": evil}),
        a_trial(1, 150.0, overrides={"data.test_path": "$x_$<i>"}),
    ]
    check = PROMOTION["checks"][0] | {"reason": evil, "passed": False}
    promotion = PROMOTION | {"model": evil, "checks": [check], "outcome": "refused"}
    report = page(name=evil, trials=trials, promotion=promotion, mlflow_hint=evil)
    assert len(report.all("script")) == 1
    assert report.source.count("<script") == 1
    assert report.all("i") == []
    assert "$x_$<i>" in report.words
    assert evil in report.code
    assert evil in report.headings[0] + report.text


# Invariance


def test_same_data_give_the_same_bytes_whatever_the_style_in_use(full, monkeypatch):
    monkeypatch.setitem(mpl.rcParams, "font.size", 30.0)
    monkeypatch.setitem(mpl.rcParams, "axes.linewidth", 5.0)
    assert page().source == full.source
    assert mpl.rcParams["font.size"] == 30.0


# What it survives


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"trials": [a_trial(2, 150.0)], "scores": None}, "has not been evaluated"),
        ({"trials": [a_trial(2, 150.0, overrides={})]}, "No setting was varied."),
        ({"trials": [a_trial(2, 150.0), a_trial(1, None)]}, "leads"),
        ({"trials": [a_trial(1, math.nan), a_trial(2, 150.0)]}, "leads"),
        ({"trials": [a_trial(2, 150.0, history=[])]}, "No trial has reported a step."),
        (
            {"trials": [a_trial(0, None)], "best_trial": None, "scores": None},
            "No trial has a score",
        ),
        ({"trials": [], "best_trial": None, "scores": None}, "No trial reached a score"),
        ({"trials": WITHOUT_FIGURES, "pictures": {}}, "What this score cannot tell"),
    ],
)
def test_page_survives(changes, sentence):
    report = page(promotion=None, **changes)
    assert sentence in report.text
    assert " nan " not in report.text


def test_all_trials_failed_before_they_reported():
    trials = [a_trial(i, None, status="failed", history=[], cause="boom") for i in range(3)]
    report = page(
        trials=trials, best_trial=None, scores=None, evaluation=None, promotion=None, pictures={}
    )
    assert "0 finished, 0 stopped early, 3 failed" in report.text
    assert report.all("svg") == []


def test_sweep_of_64_long_trials_stays_under_a_megabyte_and_a_half():
    trials = [a_trial(i, 100.0 + i, n_steps=5_000, every=5) for i in range(64)]
    report = page(trials=trials, best_trial=63)
    assert len(report.source.encode()) < 1_500_000
    assert "Trial 63 is the new champion" in report.text


@pytest.mark.parametrize("best_trial", [3, 9])
def test_winner_must_have_a_score(best_trial):
    message = rf"best_trial must be one of the trials with a score \[0, 1, 2\], got {best_trial}"
    with pytest.raises(ValueError, match=message):
        page(best_trial=best_trial)


def test_pictures_must_be_png_files():
    with pytest.raises(ValueError, match=r"nearest.png must be a PNG file, got .* b'GIF89a'"):
        page(pictures={"nearest.png": b"GIF89a"})


# Figures


def limits_of(scores, *, is_larger_better=True, spreads=2, **settings):
    return score_limits(scores, spreads=spreads, is_larger_better=is_larger_better, **settings)


def by_setting(points, *, limits, is_larger_better=True):
    return score_by_setting(
        "f",
        points,
        xlabel="k",
        ylabel="score",
        limits=limits,
        is_larger_better=is_larger_better,
    )


def marks(svg):
    """Hint -> (x, y) of each mark, in units of the SVG, y downwards."""
    pattern = r'<title>([^<]*)</title>.*?<use href="[^"]*" x="([\d.]+)" y="([\d.]+)"'
    return {name: (float(x), float(y)) for name, x, y in re.findall(pattern, svg, re.DOTALL)}


def panel(source, name):
    """The SVG of one figure of a page, and the upper and lower edge of its axes."""
    svg = source[source.index(f'id="{name}-figure_1"') :].partition("</svg>")[0]
    frame = svg[svg.index(f'id="{name}-patch_2"') :].partition("/>")[0]
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", frame)]
    return svg, min(heights), max(heights)


def test_marks_lie_at_their_scores_and_those_below_the_axis_on_its_edge():
    scores = {"a": 100.0, "b": 150.0, "c": 200.0, "d": -900.0, "e": None}
    points = [Point(name, 1, score, 2.0) for name, score in scores.items()]
    found = marks(by_setting(points, limits=(100.0, 200.0)))
    heights = {name: y for name, (_, y) in found.items()}
    assert_allclose(heights["b"], (heights["a"] + heights["c"]) / 2, rtol=1e-6, atol=0)
    assert heights["c"] < heights["b"]
    assert_allclose([heights["d"], heights["e"]], heights["a"], rtol=1e-6, atol=0)


def test_distances_above_the_axis_lie_on_its_upper_edge():
    scores = {"a": 0.0, "b": 5.0, "c": 10.0, "d": 900.0, "e": None}
    points = [Point(name, 1, score, 0.1) for name, score in scores.items()]
    found = marks(by_setting(points, limits=(0.0, 10.0), is_larger_better=False))
    heights = {name: y for name, (_, y) in found.items()}
    assert heights["c"] < heights["b"] < heights["a"]
    assert_allclose([heights["d"], heights["e"]], heights["c"], rtol=1e-6, atol=0)


def test_curves_of_the_objective_come_first_and_those_of_the_other_score_after_it(by_distance):
    curves = [heading for heading in by_distance.headings if heading.endswith(", validation")]
    assert curves == ["Fréchet distance, validation", "Parzen log-likelihood, validation"]
    report = page(trials=BLURRING, best_trial=0)
    curves = [heading for heading in report.headings if heading.endswith(", validation")]
    assert curves == ["Parzen log-likelihood, validation", "Fréchet distance, validation"]
    assert len(report.all("svg")) == len(by_distance.all("svg")) == 1 + 1 + 5 + 3
    assert {"frechet_distance_valid", "parzen_ll_valid, nats"} <= set(by_distance.words)
    assert "best Fréchet distance" in by_distance.words
    assert "best Parzen log-likelihood, nats" in report.words


def test_settings_are_compared_by_the_distance_where_it_decides(by_distance):
    svg, top, bottom = panel(by_distance.source, "setting-train-d_steps")
    heights = {name: y for name, (_, y) in marks(svg).items()}
    best, worst = heights["trial 2, 5"], heights["trial 0, 90"]
    assert top < worst < heights["trial 1, 30"] < best < bottom
    assert_allclose(heights["trial 3, no score"], top, rtol=0, atol=0.02)
    (label,) = [
        attrs["aria-label"]
        for attrs in by_distance.all("div")
        if "against train.d_steps" in attrs.get("aria-label", "")
    ]
    assert label == "Best Fréchet distance of 4 trials against train.d_steps; the lowest lies at 3"


def test_curve_of_a_distance_that_wins_is_neither_cut_off_nor_flattened():
    others = [a_blurring_trial(i, 5.1, 150.0) for i in (0, 1, 3, 4)]
    for trial, distance in zip(others, (5.1, 5.1, 5.1, 5000.0), strict=True):
        for report in trial["history"]:
            report |= {DISTANCE: distance, f"{DISTANCE}_se": 0.1}
    source = page(config=BY_DISTANCE, trials=[*others, a_blurring_trial(2, 5.0, 100.0)]).source
    svg, top, bottom = panel(source, DISTANCE)
    (path,) = re.findall(r'<title>trial 2</title>\s*<path d="([^"]*)"', svg)
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)]
    assert top < heights[0] < heights[-1] < bottom
    assert heights[-1] - heights[0] > 0.7 * (bottom - top)


def test_hints_are_escaped():
    svg = by_setting([Point("a < b", 1, 1.0, 0.1)], limits=(0.0, 2.0))
    assert "<title>a &lt; b</title>" in svg


def test_few_numbers_and_words_get_strips_and_many_numbers_an_axis():
    def places(values):
        points = [Point(str(i), value, 1.0, 0.1) for i, value in enumerate(values)]
        found = marks(by_setting(points, limits=(0.0, 2.0)))
        return [found[str(i)][0] for i in range(len(values))]

    few = places([1, 100, 2])
    assert_allclose(few[1] - few[2], few[2] - few[0], rtol=1e-4, atol=0)
    many = places([0, 1, 2, 3, 4, 5, 100])
    assert_allclose(many[6] - many[0], 100 * (many[1] - many[0]), rtol=1e-3, atol=0)
    words = places(["b", "a", "b"])
    assert words[1] < words[0] < words[2]


def test_logarithmic_range_gets_a_logarithmic_axis():
    config = to_dict(CONFIG)
    config["sweep"]["space"] = {"train.learning_rate": {"loguniform": [1e-6, 1.0]}}
    settings = [{"train.learning_rate": 10.0**-i} for i in range(7)]
    trials = [a_trial(i, 150.0, overrides=settings[i], history=[]) for i in range(7)]
    found = marks(page(config=config, trials=trials).source)
    x = [found[f"trial {i}, 150.0 nats"][0] for i in range(7)]
    assert_allclose([a - b for a, b in pairwise(x)], x[0] - x[1], rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", ["non_saturating", "minimax"])
def test_equilibrium_line_of_g_lies_where_the_loss_is_at_equilibrium(kind):
    at_rest = {"non_saturating": math.log(2), "minimax": math.log(1 / 2)}[kind]
    trial = a_trial(2, 150.0, overrides={"train.generator_loss": kind})
    for report in trial["history"]:
        report |= {"g_loss": at_rest, "d_loss": math.log(4)}
    source = page(trials=[trial], scores=None, promotion=None).source
    for name in ("d_loss", "g_loss"):
        svg, _, _ = panel(source, name)
        (level,) = re.findall(r'd="M [\d.]+ ([\d.]+) \nL [\d.]+ \1 \n"[^>]*dasharray', svg)
        (curve,) = re.findall(r'<title>trial 2</title>\s*<path d="M [\d.]+ ([\d.]+)', svg)
        assert_allclose(float(level), float(curve), rtol=0, atol=0.02)


def test_losses_of_different_kinds_do_not_share_an_axis():
    other = a_trial(0, 100.0, overrides={"train.generator_loss": "minimax"})
    source = page(trials=[other, a_trial(2, 150.0)]).source
    panels = {name: panel(source, name)[0] for name in ("d_loss", "g_loss")}
    assert "<title>trial 0</title>" in panels["d_loss"]
    assert "<title>trial 0</title>" not in panels["g_loss"]
    assert "<title>trial 2</title>" in panels["g_loss"]


@pytest.mark.parametrize("n", [1, MAX_POINTS, MAX_POINTS + 1, 5_003])
def test_long_curves_are_thinned_and_keep_both_ends(n):
    # Values that jump, so that matplotlib itself drops no point as lying on a line.
    curve = Curve("c", range(1, n + 1), [i * i % 7 / 7 for i in range(n)], is_winner=True)
    ends = Curve("ends", [1, n], [0.0, 0.5])
    svg = learning_curves("f", [curve, ends], ylabel="y", limits=(-1.0, 2.0))
    paths = dict(re.findall(r'<title>(\w+)</title>\s*<path d="([^"]*)"', svg))
    places = {key: [float(x) for x in re.findall(r"[ML] ([\d.]+)", paths[key])] for key in paths}
    assert min(n, MAX_POINTS // 2) <= len(places["c"]) <= MAX_POINTS + 1
    assert places["c"] == sorted(places["c"])
    assert_allclose([places["c"][0], places["c"][-1]], places["ends"], rtol=0, atol=0.02)


def test_collapsed_trials_do_not_flatten_the_others():
    assert_allclose(limits_of([100.0, 90.0, 80.0]), (78.8, 101.2), rtol=1e-12, atol=0)
    low, high = limits_of([100.0, 90.0, 80.0, 95.0, -700.0])
    assert_allclose((low, high), (78.8, 101.2), rtol=1e-12, atol=0)
    assert limits_of([100.0, 90.0, -700.0], shown=[-700.0])[0] < -700
    assert limits_of([5.0]) == (4.0, 6.0)


def test_limits_of_a_distance_are_those_of_a_score_upside_down():
    scores = [100.0, 90.0, 80.0, 95.0, -700.0]
    low, high = limits_of([-score for score in scores], is_larger_better=False)
    assert_allclose((-high, -low), limits_of(scores), rtol=1e-12, atol=0)
    assert limits_of([1.0, 2.0, 900.0], is_larger_better=False, shown=[900.0])[1] > 900


def test_curve_of_the_winner_is_never_cut_off():
    others = [a_trial(i, 149.0) for i in range(2)]
    for report in others[0]["history"] + others[1]["history"]:
        report |= {"parzen_ll_valid": 149.0, "parzen_ll_valid_se": 2.0}
    winner = a_trial(2, 150.0)
    for report in winner["history"]:
        report |= {"parzen_ll_valid_se": 20.0}
    source = page(trials=[*others, winner]).source
    svg, top, bottom = panel(source, "parzen_ll_valid")
    (path,) = re.findall(r'<title>trial 2</title>\s*<path d="([^"]*)"', svg)
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)]
    assert top < heights[-1] < heights[0] < bottom
    band = svg[svg.index("PolyCollection_1") :]
    (origin,) = re.findall(r'<use [^>]*y="([\d.]+)"', band.partition("</g>")[0])
    shape = band.partition("/>")[0]
    edges = [float(origin) + float(y) for y in re.findall(r"[ML] [\d.]+ (-[\d.]+)", shape)]
    assert top < min(edges) < heights[-1]
    assert heights[0] < max(edges) < bottom


def test_lone_trial_shows_its_standard_error():
    source = page(trials=[a_trial(2, 150.0)]).source
    svg, top, bottom = panel(source, "setting-train-d_steps")
    bar = svg[svg.index("LineCollection_1") :].partition("/>")[0]
    ends = sorted(float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", bar))
    (_, middle) = marks(svg)["trial 2, 150.0 nats"]
    assert top < ends[0] < middle < ends[1] < bottom


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (3, "3"),
        (True, "true"),
        (None, "null"),
        ("gaussian", "gaussian"),
        ([512, 0.25], "[512, 0.25]"),
    ],
)
def test_settings_are_written_as_a_person_writes_them(value, text):
    assert setting_text(value) == text


# Extensions


def an_extension(**changes):
    check = {"name": "follows_condition", "value": 0.9, "limit": 0.97, "reason": "90.0% of them"}
    return {
        "task": "conditional",
        "name": "quick-conditional",
        "picture": "conditional.png",
        "scores": {"frechet_distance_test": 4.525, "frechet_distance_test_se": 0.235, "gain": 1.5},
        "generator_scores": {"frechet_distance_test": 39.8, "frechet_distance_test_se": 0.9},
        "report": "runs/quick-conditional/report/report.html",
        "outcome": "promoted",
        "model": "mnist-conditional",
        "version": "3",
        "reason": "",
        "checks": [check | {"passed": True}],
    } | changes


def test_extension_is_shown_with_its_picture_scores_and_model():
    picture = png(60, 40)
    shown = page(extensions=[an_extension()], extension_pictures={"conditional.png": picture})
    assert "Extensions" in shown.headings
    assert "Conditional GAN, p(x | c)" in shown.headings
    assert base64.b64encode(picture).decode() in shown.source
    assert "Promoted : it is mnist-conditional version 3" in " ".join(shown.text.split())
    row = [cell.split() for cell in shown.cells("frechet_distance_test")[1:]]
    assert row == [["4.525", "±", "0.23"], ["39.8", "±", "0.9"]]
    assert shown.cells("gain")[1:] == ["1.5", "–"]
    assert "runs/quick-conditional/report/report.html" in shown.code


def test_refused_extension_says_why():
    refused = an_extension(outcome="refused", version=None)
    refused["checks"][0]["passed"] = False
    shown = page(extensions=[refused], extension_pictures={"conditional.png": png()})
    assert "Refused for mnist-conditional : follows_condition , 90.0% of them" in " ".join(
        shown.text.split()
    )


def test_page_without_extensions_has_no_section_of_them(full):
    assert "Extensions" not in full.headings
    assert 'href="#extensions"' not in full.source


def test_every_task_has_its_words_on_the_page():
    assert PRODUCTS.keys() == TASKS.keys()


def test_a_classifier_is_shown_with_its_picture_its_errors_and_whose_labels_chose_it():
    nats = {"few_labels_nats": 0.016, "few_labels_nats_se": 0.001}
    history = [{"step": 400, "images_seen": 40_000, **nats}]
    trial = a_trial(2, None, history=history, overrides={}, best=history[0])
    errors = {"classification_error_test": 0.012, "supervised_error_test": 0.24}
    names = ("few_labels_nats", "few_labels_accuracy")
    sweep = {"n_trials": 1, "objective": "few_labels_nats"}
    config = load_config({"name": "few", "base": {"semi_supervised": {}}, "sweep": sweep})
    shown = page(
        config=to_dict(config),
        trials=[trial],
        pictures={"classified.png": png()},
        scores=errors | {f"{k}_se": 0.001 for k in errors} | nats | {"n_samples": 0},
        evaluation=Evaluation(
            scores={name: a_score(name) for name in names},
            unavailable={},
            n_samples=0,
            details={"few_labels": {"n": 100, "n_right": 100}},
        ),
    )
    text = " ".join(shown.text.split())
    assert "Classification with few labels" in shown.headings
    assert "A class in each row: left the labelled images" in text
    assert "With 100 labels it classifies 1.20 ± 0.10 % of the test images wrongly" in text
    assert "chosen by cross-entropy of the few labels on the labelled images, 0.0160" in text
    assert "on the validation split" not in text
    assert "By labelled images." in text
