"""The table of `bench_priors`, from runs that are written by hand.  Kind: by hand."""

from typing import get_args, get_type_hints

import pytest
from PIL import Image

from gan.config import LearnedPriorConfig, PriorKind
from tests.benchmarks.bench_priors import (
    BASELINE,
    CONTESTANTS,
    columns,
    configuration,
    difference,
    is_better,
    paired,
    phases,
    picture,
    report,
)


def made(name, seed, *, frechet, coverage=0.5):
    """A run whose Fréchet distance falls by 20 in every 1,000 steps of 10 seconds."""
    steps = (1_000, 2_000, 3_000)
    curve = [
        {"step": s, "seconds": s / 100, "frechet": frechet + 0.02 * (3_000 - s), "coverage": 0.35}
        for s in steps
    ]
    last = {"frechet": frechet, "coverage": coverage, "seconds": 30.0}
    return {"name": name, "seed": seed, "steps": 3_000, "device": "cpu", "curve": curve} | last


def column(title):
    return next(column for column in columns() if column.title == title)


def test_steps_and_seconds_are_where_the_curve_meets_the_threshold():
    run = made("x", 0, frechet=20.0)
    assert column("steps to Fréchet ≤ 50").of(run) == pytest.approx(1_500)
    assert column("seconds to Fréchet ≤ 25").of(run) == pytest.approx(27.5)
    assert column("steps to coverage ≥ 0.3").of(run) == 1_000
    assert column("steps to coverage ≥ 0.4").of(run) is None


def test_each_is_compared_with_the_baseline_s_runs_of_the_same_seeds():
    runs = [made(BASELINE, s, frechet=9.0) for s in (2, 0, 1)]
    runs += [made("a", s, frechet=9.0) for s in (1, 2, 3)] + [made("b", 0, frechet=9.0)]
    pairs = paired(runs, [BASELINE, "a", "b"])
    seeds = {name: [[r["seed"] for r in side] for side in sides] for name, sides in pairs.items()}
    assert seeds == {BASELINE: [[0, 1, 2]] * 2, "a": [[1, 2]] * 2}


def test_better_is_an_interval_that_lies_wholly_on_the_good_side():
    theirs = [made("b", seed, frechet=9.0 + seed) for seed in range(5)]
    ours = [made("a", seed, frechet=8.0 + 1.01 * seed, coverage=0.4) for seed in range(5)]
    frechet, coverage = column("Fréchet"), column("coverage")
    assert is_better(frechet, difference(frechet, ours, theirs))
    assert not is_better(frechet, difference(frechet, theirs, ours))
    assert not is_better(coverage, difference(coverage, ours, theirs))
    assert is_better(coverage, difference(coverage, theirs, ours))


def test_the_table_says_who_is_better_and_who_never_got_there():
    runs = [made(BASELINE, seed, frechet=9.0 + seed) for seed in range(3)]
    runs += [made("a", seed, frechet=7.0 + seed) for seed in range(3)]
    text = report(runs, [BASELINE, "a"])
    assert "| a | 3 | " in text
    assert "| 0 of 3 |" in text
    assert "**-2.00 ± 0.00**" in text
    assert "a (Fréchet)" in text.splitlines()[-1]
    assert report(runs[:4], [BASELINE, "a"]).splitlines()[-1].endswith("error: none.")
    assert report(runs[:1], [BASELINE]) == "fewer than two seeds are complete: no interval"


@pytest.mark.parametrize("name", CONTESTANTS)
def test_every_contestant_makes_as_many_updates_of_d(name):
    parts = phases(configuration(name, seed=3, steps=2_000, device="cpu"))
    assert sum(part.train.n_steps * part.train.d_steps for part in parts) == 2_000
    assert {part.seed for part in parts} == {3}
    kind = name if name in get_args(PriorKind) else BASELINE
    assert {part.prior.kind for part in parts} == {kind}


def test_every_fixed_prior_and_every_method_takes_part():
    parts = [phases(configuration(name, 0, 2_000, "cpu"))[-1] for name in CONTESTANTS]
    assert {part.prior.kind for part in parts} == set(get_args(PriorKind))
    methods = get_type_hints(LearnedPriorConfig)["method"]
    assert {part.learned_prior.method for part in parts} == set(get_args(methods))


def test_the_picture_has_a_curve_of_every_contestant(tmp_path):
    runs = [made(name, seed, frechet=9.0) for name in (BASELINE, "a") for seed in range(2)]
    picture(runs, [BASELINE, "a"], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1320, 880)
        assert len(image.convert("RGB").getcolors(2**20)) > 20
