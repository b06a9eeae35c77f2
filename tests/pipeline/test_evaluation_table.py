"""The tables of an evaluation.  Kind: contract (what a person can read, at any width)."""

import io

import pytest
from rich.console import Console

from gan.evaluation.score import Score
from gan.evaluation.suite import Evaluation
from pipeline.evaluation_table import ANCHORS, print_evaluation, rows
from pipeline.gate import Check

LONG = "path_confidence_lowest_spherical"


def score(name, value, half=0.25, unit=""):
    return Score(name=name, value=value, low=value - half, high=value + half, unit=unit)


SCORES = (
    score("parzen_ll", -1234.5678, unit="nats"),
    score("parzen_ll_real", -987.654),
    score("precision", 0.5, unit="probability"),
    score("frechet_distance", 12.5),
    score("frechet_distance_real", 0.01234567),
    score("kernel_distance", -123_456.7),
    score(LONG, 0.75),
)
CHECKS = (
    Check(name="precise", passed=True, value=1.0, limit=2.0, reason="it is [bold]good[/bold]"),
    Check(name="better_than_champion", passed=False, value=1.0, limit=2.0, reason="word " * 40),
)
REASON = "samples must hold at least 1,000 points, got 12"


def evaluation(scores=SCORES, **changes):
    fields = {"unavailable": {"bins": REASON, "classes": "no labels", "copying": REASON}}
    return Evaluation(scores={s.name: s for s in scores}, n_samples=12, **fields | changes)


def printed(width, **changes):
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False)
    print_evaluation(evaluation(**changes), CHECKS, title="12 [samples]", console=console)
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 200])
def test_every_number_is_whole_with_its_interval(width):
    text = printed(width)
    lines = text.splitlines()
    assert "…" not in text
    assert max(map(len, lines)) <= width
    cells = [
        ("parzen_ll, nats", "-1,234.6", "-1,234.8 to -1,234.3", "-987.7"),
        ("precision", "0.5", "0.25 to 0.75"),
        ("frechet_distance", "12.5", "12.25 to 12.75", "0.01235"),
        ("kernel_distance", "-123,456.7", "-123,456.9 to -123,456.4"),
    ]
    for name, *numbers in cells:
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        places = [line.index(number) for number in numbers]
        assert places == sorted(places)
    assert lines[0].rstrip() == "12 [samples]"


def test_wide_table_has_each_name_on_one_line():
    assert any(line.startswith(f"{LONG} ") for line in printed(200).splitlines())


def test_narrow_table_gives_up_neither_number_nor_letter():
    text = printed(60)
    assert "…" not in text
    assert "-123,456.9 to -123,456.4" in text
    lines = text.splitlines()
    (start,) = (i for i, line in enumerate(lines) if line.startswith("path_conf"))
    end = next(i for i in range(start, len(lines)) if not lines[i].strip())
    assert "".join(line.split()[0] for line in lines[start:end]) == LONG


@pytest.mark.parametrize("width", [80, 200])
def test_every_check_has_its_verdict_and_its_reason_as_it_is(width):
    text = printed(width)
    (passed,) = (line for line in text.splitlines() if line.startswith("precise "))
    assert passed.split() == ["precise", "passed", "it", "is", "[bold]good[/bold]"]
    (refused,) = (line for line in text.splitlines() if line.startswith("better_than_champion"))
    assert "not passed" in refused
    assert text.count("word") == 40


def test_parts_that_lack_the_same_share_a_line():
    lines = [line for line in printed(200).splitlines() if line.startswith("not available")]
    assert [line.rstrip() for line in lines] == [
        "not available: classes: no labels",
        f"not available: bins, copying: {REASON}",
    ]


def test_nothing_is_said_of_parts_where_all_are_there():
    assert "not available" not in printed(80, unavailable={})


def test_real_images_stand_beside_their_score_and_have_no_row():
    found = {ours.name: real and real.name for ours, real in rows(evaluation())}
    assert found == {
        "parzen_ll": "parzen_ll_real",
        "precision": None,
        "frechet_distance": "frechet_distance_real",
        "kernel_distance": None,
        LONG: None,
    }
    assert not ANCHORS.keys() & ANCHORS.values()
