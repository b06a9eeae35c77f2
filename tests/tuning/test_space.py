"""The search space: what it refuses, and what it draws.

Kinds of tests: contract of the configuration, closed form of the distributions.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.testing import assert_allclose

from gan.config import RunConfig, flatten, load_config, run_config, to_dict, with_overrides
from gan.errors import ConfigError
from tuning.space import (
    FIXED,
    Choice,
    IntegerRange,
    Interval,
    grid_points,
    parse_space,
    random_point,
)

ROOT = Path(__file__).parents[2]
BASE = RunConfig()

SPEC = {
    "train.d_steps": {"choice": [1, 2, 3]},
    "discriminator.dropout_hidden": {"uniform": [0.1, 0.6]},
    "train.learning_rate": {"loguniform": [1e-4, 1e-1]},
    "prior.dim": {"randint": [2, 5]},
    "generator.hidden": {"choice": [[1200, 1200], [240]]},
    "generator.init_range": {"choice": [None, 0.05]},
}


def test_each_dimension_is_what_the_file_says():
    assert parse_space(SPEC, BASE) == {
        "train.d_steps": Choice((1, 2, 3)),
        "discriminator.dropout_hidden": Interval(0.1, 0.6, is_log=False),
        "train.learning_rate": Interval(1e-4, 1e-1, is_log=True),
        "prior.dim": IntegerRange(2, 5),
        "generator.hidden": Choice(([1200, 1200], [240])),
        "generator.init_range": Choice((None, 0.05)),
    }


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("train.d_step", "train.d_steps"),
        ("discriminator.dropout_hiden", "discriminator.dropout_hidden"),
        ("base.train.d_steps", "train.d_steps"),
        ("dropout_input", "discriminator.dropout_input"),
    ],
)
def test_an_unknown_path_is_refused_with_the_nearest_right_one(path, nearest):
    problem = rf"there is no setting {path}; did you mean {nearest}\?"
    with pytest.raises(ConfigError, match=f"^sweep.space: {problem}$"):
        parse_space({path: {"choice": [1]}}, BASE)


def test_a_path_like_none_that_exists_is_refused_without_a_guess():
    with pytest.raises(ConfigError, match=r"^sweep.space: there is no setting zzz$"):
        parse_space({"zzz": {"choice": [1]}}, BASE)


@pytest.mark.parametrize(
    ("path", "kinds", "problem"),
    [
        (
            "train.d_steps",
            {"choice": [1, 0]},
            "train.d_steps: .*greater than or equal to 1, got 0",
        ),
        ("train.d_steps", {"randint": [0, 9]}, "train.d_steps: .*or equal to 1, got 0"),
        ("discriminator.dropout_hidden", {"uniform": [0.0, 1.0]}, "less than 1, got 1.0"),
        ("discriminator.dropout_hidden", {"uniform": [-0.1, 0.5]}, "equal to 0, got -0.1"),
        ("prior.kind", {"choice": ["uniform", "guassian"]}, "prior.kind: .*got 'guassian'"),
        ("generator.hidden", {"choice": [[1], 7]}, "generator.hidden: .*got 7"),
        ("train.report_every", {"randint": [500, 1000]}, "multiple of train.report_every"),
    ],
)
def test_a_value_that_the_field_refuses_is_refused_by_its_path(path, kinds, problem):
    with pytest.raises(ConfigError, match=f"^sweep.space: .*{problem}"):
        parse_space({path: kinds}, BASE)


@pytest.mark.parametrize("ends", [[1, 3], [1, 4], [10, 1000]])
def test_a_fraction_for_a_whole_number_is_refused_though_both_ends_are_whole(ends):
    with pytest.raises(ConfigError, match=r"train.d_steps: .*valid integer.*got \d+\.\d+"):
        parse_space({"train.d_steps": {"uniform": ends}}, BASE)


@pytest.mark.parametrize(
    ("kinds", "problem"),
    [
        ({}, "takes one of choice, uniform, loguniform, randint"),
        ({"uniform": [0, 1], "choice": [1]}, "takes one of choice"),
        ({"choise": [1]}, "takes choice, uniform, loguniform or randint, got choise"),
        ({"choice": []}, "choice must list at least one value"),
        ({"uniform": [1.0]}, r"uniform takes \[low, high\] with low < high, got \[1.0\]"),
        ({"uniform": [2.0, 1.0]}, "with low < high"),
        ({"uniform": [1.0, 1.0]}, "with low < high"),
        ({"uniform": [0.0, math.inf]}, "with low < high"),
        ({"uniform": [math.nan, 1.0]}, "with low < high"),
        ({"uniform": [False, True]}, "with low < high"),
        ({"uniform": [None, 1.0]}, "with low < high"),
        ({"uniform": ["low", "high"]}, "with low < high"),
        ({"loguniform": [0, 1]}, "loguniform takes low > 0"),
        ({"randint": [1, 2.5]}, "randint takes whole numbers"),
    ],
)
def test_a_dimension_that_makes_no_sense_is_refused(kinds, problem):
    with pytest.raises(ConfigError, match=f"^sweep.space: train.learning_rate: .*{problem}"):
        parse_space({"train.learning_rate": kinds}, BASE)


def test_every_problem_is_named_at_once():
    spec = {
        "train.k": {"choice": [1]},
        "train.d_steps": {"choice": [0]},
        "prior.dim": {"randint": [3, 1]},
    }
    with pytest.raises(ConfigError, match=r"train\.k") as caught:
        parse_space(spec, BASE)
    assert len(caught.value.problems) == 3


def test_numbers_that_yaml_reads_as_strings_are_numbers():
    spec = yaml.safe_load(
        "train.learning_rate: {loguniform: [1e-4, 1e-1]}\ntrain.momentum: {choice: [1e-1, 5e-1]}"
    )
    assert spec["train.learning_rate"]["loguniform"] == ["1e-4", "1e-1"]  # YAML 1.1
    space = parse_space(spec, BASE)
    assert space["train.learning_rate"] == Interval(1e-4, 1e-1, is_log=True)
    assert space["train.momentum"] == Choice((0.1, 0.5))


def test_no_space_at_all_repeats_the_base_configuration():
    assert parse_space({}, BASE) == {}
    assert random_point({}, seed=0, index=3) == {}
    assert grid_points({}) == [{}]


def test_a_random_point_depends_on_seed_and_index_alone():
    space = parse_space(SPEC, BASE)
    forwards = [random_point(space, seed=7, index=i) for i in range(20)]
    np.random.default_rng(0).random(5)
    backwards = [random_point(space, seed=7, index=i) for i in reversed(range(20))]
    assert forwards == backwards[::-1]
    assert random_point(space, seed=8, index=0) != forwards[0]
    assert len({json.dumps(point) for point in forwards}) == 20


def test_a_point_survives_json_and_the_configuration_takes_it():
    space = parse_space(SPEC, BASE)
    for index in range(50):
        point = random_point(space, seed=0, index=index)
        assert json.loads(json.dumps(point)) == point
        flat = flatten(to_dict(with_overrides(BASE, point)))
        assert {path: flat[path] for path in point} == point


def test_draws_have_the_moments_of_their_distributions():
    space = parse_space(SPEC, BASE)
    n = 4000
    points = [random_point(space, seed=1, index=i) for i in range(n)]

    def column(path: str) -> np.ndarray:
        return np.array([point[path] for point in points], dtype=float)

    def check(values: np.ndarray, *, mean: float, variance: float) -> None:
        assert_allclose(values.mean(), mean, rtol=0, atol=4 * math.sqrt(variance / n))
        assert_allclose(values.var(), variance, rtol=0.1, atol=0)

    check(column("discriminator.dropout_hidden"), mean=0.35, variance=0.5**2 / 12)
    check(np.log10(column("train.learning_rate")), mean=-2.5, variance=3**2 / 12)
    check(column("prior.dim"), mean=3.5, variance=(4**2 - 1) / 12)
    check(column("train.d_steps"), mean=2, variance=(3**2 - 1) / 12)
    assert set(column("prior.dim")) == {2, 3, 4, 5}


def test_a_grid_is_every_combination_and_the_last_path_varies_fastest():
    space = parse_space(
        {"train.d_steps": {"choice": [1, 2]}, "prior.kind": {"choice": ["uniform", "gaussian"]}},
        BASE,
    )
    assert [tuple(point.values()) for point in grid_points(space)] == [
        (1, "uniform"),
        (1, "gaussian"),
        (2, "uniform"),
        (2, "gaussian"),
    ]


@pytest.mark.parametrize("kinds", [{"uniform": [0.1, 0.6]}, {"loguniform": [0.1, 0.6]}])
def test_a_grid_refuses_what_is_no_choice(kinds):
    space = parse_space({"discriminator.dropout_hidden": kinds}, BASE)
    with pytest.raises(ConfigError, match=r"dropout_hidden: a grid takes \{choice: \[...\]\}"):
        grid_points(space)


def presets() -> list[Path]:
    return sorted((ROOT / "pipeline" / "presets").glob("*.yaml"))


def test_every_key_of_every_preset_reaches_a_field_and_changes_the_run():
    assert len(presets()) >= 1
    for preset in presets():
        config = load_config(yaml.safe_load(preset.read_text()))
        space = parse_space(config.sweep.space, config.base)
        assert space or config.sweep.n_trials == 1, preset.name
        for path, dimension in space.items():
            runs = [with_overrides(config.base, {path: value}) for value in dimension.probes()]
            assert len({json.dumps(to_dict(run)) for run in runs}) > 1, path
            for run in runs:
                changed = flatten(to_dict(run)).items() ^ flatten(to_dict(config.base)).items()
                assert {key for key, _ in changed} <= {path}


def test_every_setting_can_be_varied_but_those_that_make_scores_comparable():
    settings = flatten(to_dict(BASE))
    fixed = [path for path in settings if path.startswith(FIXED)]
    assert len(fixed) == 14
    for path in fixed:
        with pytest.raises(ConfigError, match=f"{path}: trials that differ in it cannot"):
            parse_space({path: {"choice": [settings[path]]}}, BASE)
    flat = {path: value for path, value in settings.items() if path not in fixed}
    assert len(flat) > 30
    space = parse_space({path: {"choice": [value]} for path, value in flat.items()}, BASE)
    (point,) = grid_points(space)
    assert with_overrides(run_config({"seed": 5}), point) == BASE


def test_whole_numbers_that_a_float_cannot_tell_apart_are_refused():
    assert parse_space({"seed": {"randint": [0, 2**53]}}, BASE)["seed"] == IntegerRange(0, 2**53)
    with pytest.raises(ConfigError, match=r"seed: randint takes numbers up to 2\^53"):
        parse_space({"seed": {"randint": [0, 2**54]}}, BASE)
