"""Every setting.  Kinds: closed form (defaults of the paper), algorithm, invariance."""

import ast
import dataclasses
import hashlib
import json
import operator
import pickle
from pathlib import Path
from types import NoneType
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from gan.config import (
    BASELINES,
    ConvolutionConfig,
    DataConfig,
    DiscriminatorConfig,
    EvaluationConfig,
    GeneratorConfig,
    LimitsConfig,
    PipelineConfig,
    PriorConfig,
    PromoteConfig,
    RunConfig,
    SweepConfig,
    TrainConfig,
    digest,
    field_names,
    flatten,
    load_config,
    read_yaml,
    run_config,
    set_path,
    to_dict,
    with_overrides,
)
from gan.config import SECTIONS as TASKS
from gan.errors import ConfigError

SECTIONS = {
    task: next(kind for kind in get_args(get_type_hints(RunConfig)[task]) if kind is not NoneType)
    for task in TASKS
}
"""Sections that are not there unless asked for, of which a run has one at the most."""

CLASSES = (
    DataConfig,
    PriorConfig,
    GeneratorConfig,
    DiscriminatorConfig,
    TrainConfig,
    EvaluationConfig,
    *SECTIONS.values(),
    RunConfig,
    SweepConfig,
    PromoteConfig,
    LimitsConfig,
    PipelineConfig,
)

REPOSITORY = Path(__file__).parents[2]


def problems(settings, *assignments):
    with pytest.raises(ConfigError) as caught:
        load_config(settings, assignments)
    assert "\n" not in str(caught.value)
    return list(caught.value.problems)


# Defaults: the released MNIST recipe


def test_defaults_are_those_of_the_released_mnist_recipe():
    cfg = RunConfig()
    assert (cfg.prior.kind, cfg.prior.dim) == ("uniform", 100)
    assert (cfg.generator.hidden, cfg.generator.init_range) == ((1200, 1200), 0.05)
    assert (cfg.generator.batch_norm, cfg.generator.dropout_hidden) == (False, 0.0)
    D = cfg.discriminator
    assert (D.hidden, D.activation, D.pieces, D.init_range) == ((240, 240), "maxout", 5, 0.005)
    assert (D.dropout_input, D.dropout_hidden) == (0.2, 0.5)
    train = cfg.train
    assert (train.optimizer, train.batch_size, train.d_steps) == ("sgd", 100, 1)
    assert (train.learning_rate, train.d_learning_rate) == (0.1, None)
    assert (train.decay_per_step, train.min_learning_rate) == (1.000004, 1e-6)
    assert (train.momentum, train.final_momentum, train.momentum_steps) == (0.5, 0.7, 250 * 500)
    assert (train.generator_loss, train.average_decay) == ("non_saturating", 0.0)
    assert (cfg.data.n_valid, cfg.evaluation.n_samples) == (10_000, 10_000)
    assert cfg.evaluation.n_sigma_images == 1_000


# What is refused


def test_every_problem_is_reported_at_once_by_its_dotted_path():
    found = problems(
        {
            "name": "a/b",
            "base": {
                "train": {"d_steps": 0, "learning_rate": "fast", "batch_sise": 3},
                "prior": {"kind": "cauchy"},
                "generator": {"hidden": [100, 0]},
            },
            "sweep": {"n_trials": 2.5},
        }
    )
    assert sorted(problem.split(": ")[0] for problem in found) == [
        "base.generator.hidden.1",
        "base.prior.kind",
        "base.train.batch_sise",
        "base.train.d_steps",
        "base.train.learning_rate",
        "name",
        "sweep.n_trials",
    ]


def test_k_of_0_is_refused_by_name():
    assert problems({}, "train.d_steps=0") == [
        "base.train.d_steps: input should be greater than or equal to 1, got 0"
    ]


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("train=3", "base.train: must be a mapping of settings, got 3"),
        ("sweep.space=[1]", "sweep.space: must be a mapping, got [1]"),
        ("train.d_steps=1.5", "base.train.d_steps: input should be a valid integer, got 1.5"),
    ],
)
def test_a_value_of_another_kind_is_told_in_words_of_the_settings(assignment, problem):
    assert problems({}, assignment) == [problem]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"base": {"train": {"lerning_rate": 1}}},
            "base.train.lerning_rate: unknown setting; did you mean learning_rate?",
        ),
        ({"base": {"trian": {}}}, "base.trian: unknown setting; did you mean train?"),
        ({"swep": {}}, "swep: unknown setting; did you mean sweep?"),
        ({"zzz": 1}, "zzz: unknown setting; known: name, base, sweep, promote, extensions"),
    ],
)
def test_a_misspelt_key_gets_the_nearest_name(settings, problem):
    assert problems(settings) == [problem]


@pytest.mark.parametrize(
    "assignment",
    [
        "train.d_steps=2.5",
        "train.learning_rate=.inf",
        "train.learning_rate=.nan",
        "train.learning_rate=-0.1",
        "train.momentum=1",
        "train.batch_size=1",
        "train.n_steps=many",
        "train.update_order=both",
        "generator.hidden=[0]",
        "generator.hidden=12",
        "discriminator.hidden=[24, 2.5]",
        "discriminator.dropout_hidden=1.0",
        "prior.truncation=1e-9",
        "prior.n_components=1",
        "data.n_valid=0",
        "data.dataset=2014-06-10",
        "seed=-1",
        "device=tpu",
        "train=3",
        "sweep.time_budget_seconds=0",
        "evaluation.extractor_steps=0",
        "promote.model=../other",
        "promote.limits.max_frechet_ratio=0.9",
        "promote.limits.min_precision=1.1",
        "promote.limits.max_outliers=-0.1",
        "promote.limits.min_copying_z=1",
        "promote.limits.max_grey_ratio=.inf",
        "promote.limits.allow_unavailable=perhaps",
        "name=..",
    ],
)
def test_a_value_out_of_range_or_kind_is_refused_by_its_path(assignment):
    path = assignment.split("=")[0]
    (problem,) = problems({}, assignment)
    expected = path if path.split(".")[0] in ("sweep", "promote", "name") else f"base.{path}"
    assert problem.startswith((f"{expected}: ", f"{expected}."))


@pytest.mark.parametrize("value", ["auto", "package.module:function", "größe._m:f2"])
def test_an_extractor_is_auto_or_an_import_path(value):
    config = load_config({}, [f"evaluation.extractor={value}"])
    assert config.base.evaluation.extractor == value


@pytest.mark.parametrize("value", ["classifier", "a.b", "a:b.c", "a b:f", "1a:f", "'a:f '"])
def test_an_extractor_of_another_form_is_refused(value):
    (problem,) = problems({}, f"evaluation.extractor={value}")
    assert problem.startswith("evaluation.extractor must be auto or package.module:function, got ")


def test_a_limit_is_set_by_its_path_and_leaves_the_others():
    limits = load_config({}, ["promote.limits.min_coverage=0.4"]).promote.limits
    assert limits == LimitsConfig(min_coverage=0.4)
    (problem,) = problems({}, "promote.limits.min_coverge=0.4")
    assert problem == "promote.limits.min_coverge: unknown setting; did you mean min_coverage?"


def test_scores_must_fall_on_reports():
    (problem,) = problems({"base": {"train": {"report_every": 300}}})
    assert problem == (
        "evaluation.score_every must be a multiple of train.report_every (300), got 5000"
    )


def test_configurations_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError, match="n_steps"):
        RunConfig().train.n_steps = 3


def test_a_replaced_value_is_checked():
    with pytest.raises(ValueError, match="d_steps"):
        dataclasses.replace(TrainConfig(), d_steps=0)


# What is taken


def test_numbers_of_numpy_become_numbers_of_python():
    cfg = with_overrides(
        RunConfig(),
        {
            "train.d_steps": np.int64(3),
            "train.learning_rate": np.float64(0.25),
            "discriminator.dropout_hidden": np.float32(0.5),
        },
    )
    assert (cfg.train.d_steps, cfg.train.learning_rate) == (3, 0.25)
    assert type(cfg.train.d_steps) is int
    assert type(cfg.train.learning_rate) is float
    assert digest(cfg) == digest(
        with_overrides(
            RunConfig(),
            {
                "train.d_steps": 3,
                "train.learning_rate": 0.25,
                "discriminator.dropout_hidden": 0.5,
            },
        )
    )


def test_preset_settings_may_hold_numbers_of_numpy():
    assert load_config({"base": {"train": {"d_steps": np.int64(2)}}}).base.train.d_steps == 2


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("train.learning_rate=1e-3", "base.train.learning_rate", 0.001),
        ("train.n_steps=2e3", "base.train.n_steps", 2_000),
        ("train.n_steps=3_000", "base.train.n_steps", 3_000),
        ("base.train.n_steps=7_000", "base.train.n_steps", 7_000),
        ("generator.hidden=[64, 32]", "base.generator.hidden", [64, 32]),
        ("generator.hidden=[]", "base.generator.hidden", []),
        ("generator.init_range=null", "base.generator.init_range", None),
        ("generator.batch_norm=true", "base.generator.batch_norm", True),
        ("data.dataset=a=b.npz", "base.data.dataset", "a=b.npz"),
        ("seed=5", "base.seed", 5),
        ("name=other", "name", "other"),
        ("sweep.n_trials=3", "sweep.n_trials", 3),
        ("promote.min_standard_errors=1", "promote.min_standard_errors", 1.0),
        ("sweep.space={prior.dim: {choice: [8]}}", "sweep.space.prior.dim.choice", [8]),
        ("sweep.space.prior.dim.choice=[4, 8]", "sweep.space.prior.dim.choice", [4, 8]),
    ],
)
def test_an_assignment_sets_its_path_and_nothing_else(assignment, path, value):
    cfg = flatten(to_dict(load_config({}, [assignment])))
    assert cfg.pop(path) == value
    default = flatten(to_dict(PipelineConfig()))
    default.pop(path, None)
    assert cfg == default


def test_assignments_come_on_top_of_the_preset_and_the_last_one_holds():
    preset = {"base": {"train": {"n_steps": 10, "d_steps": 2}}}
    cfg = load_config(preset, ["train.n_steps=20", "train.n_steps=30"])
    assert (cfg.base.train.n_steps, cfg.base.train.d_steps) == (30, 2)
    assert preset == {"base": {"train": {"n_steps": 10, "d_steps": 2}}}


def test_an_assigned_dimension_replaces_that_of_the_preset_alone():
    space = {"train.d_steps": {"choice": [1, 2]}, "prior.dim": {"choice": [5]}}
    preset = {"sweep": {"space": space}}
    cfg = load_config(preset, ["sweep.space.train.d_steps.randint=[1, 4]"])
    assert cfg.sweep.space == {"train.d_steps": {"randint": [1, 4]}, "prior.dim": {"choice": [5]}}


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("train.n_steps", "--set takes path=value, got 'train.n_steps'"),
        ("=3", "--set takes path=value, got '=3'"),
        ("train.n_steps=[1", "train.n_steps: not a YAML value: '[1'"),
        ("data.dataset=2014-13-32", "data.dataset: not a YAML value: '2014-13-32'"),
        (
            "seed.x=3",
            "base.seed.x: base.seed is a single value and has no settings below it",
        ),
        (
            "sweep.space.prior.dim.choice=[3]",
            "sweep.space.prior.dim: sweep.space is a single value and has no settings below it",
        ),
    ],
)
def test_an_assignment_that_cannot_be_made_is_refused(assignment, problem):
    preset = {"base": {"seed": 1}, "sweep": {"space": None}}
    assert problems(preset, assignment) == [problem]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("-2E5", -2e5), ("1.5e2", 150.0), ("12", 12), ("e3", "e3"), ("1e", "1e")],
)
def test_yaml_numbers_may_have_an_exponent_without_a_point(text, value):
    assert read_yaml(text) == value
    assert read_yaml(f"[{text}]") == [value]
    assert type(read_yaml(text)) is type(value)


def test_set_path_makes_what_is_missing_on_the_way():
    tree = {"a": {"b": 1}}
    set_path(tree, "a.c.d", 2)
    set_path(tree, "a.b", 3)
    assert tree == {"a": {"b": 3, "c": {"d": 2}}}


# Invariance


def another(kind, name, value):
    """A valid value of a field, other than `value`."""
    special = {
        "score_every": 10_000,
        "report_every": 250,
        "decay_per_step": 1.5,
        "test_path": "images.npz",
        "d_learning_rate": 0.05,
        "time_budget_seconds": 60.0,
        "space": {"prior.dim": {"choice": [3]}},
        "hidden": [30, 20],
        "extractor": "package.module:function",
        "encoder_channels": [7, 6],
        "encoder_hidden": [7, 6],
        "extensions": ["conditional"],
        "init_range": 0.03,
        "output_sparse_init": 100,
        "max_column_norm": 1.9365,
        "start": "mnist-generator@champion",
        "root": "images",
        "activations": ["relu", "sigmoid"],
        "deconv_channels": 12,
        "output_init_range": 0.5,
        "convolutions": [{"channels": 2}],
        "contrast_norm": 55.0,
    }
    hint = get_type_hints(kind)[name]
    if name in special:
        return special[name]
    if get_origin(hint) is Literal:
        return next(choice for choice in get_args(hint) if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{value}2"
    if isinstance(value, tuple):
        return [*value, 20]
    return value + 1 if isinstance(value, int) else value * 0.9 + 0.002


def tree_with(task=None):
    """All settings at their defaults, those of one extension among them."""
    tree = to_dict(PipelineConfig())
    if task is not None:
        tree["base"][task] = to_dict(SECTIONS[task]())
    return tree


LINEAR = {"base.generator.output_bias_from_data": False}
NEEDED_BY = {
    "base.data.download": {"base.data.root": "images"},
    "base.data.fold": {"base.data.dataset": "faces.mat"},
    "base.generator.output": LINEAR,
    "base.train.contrast_norm": LINEAR | {"base.generator.output": "linear"},
    "base.learned_prior.output": {"base.learned_prior.begin": "random"},
}
"""Settings without which another is refused."""


def leaves():
    """Dotted path in PipelineConfig and another value of each field."""
    prefixes = {
        PipelineConfig: "",
        RunConfig: "base.",
        SweepConfig: "sweep.",
        PromoteConfig: "promote.",
        LimitsConfig: "promote.limits.",
        **{kind: f"base.{task}." for task, kind in SECTIONS.items()},
    }
    found = {}
    for kind in CLASSES:
        section = kind.__name__.removesuffix("Config").lower()
        prefix = prefixes.get(kind, f"base.{section}.")
        for field in dataclasses.fields(kind):
            value = getattr(kind(), field.name)
            if dataclasses.is_dataclass(value) or field.name in SECTIONS:
                continue
            found[prefix + field.name] = another(kind, field.name, value)
    return found


def test_leaves_are_all_settings():
    known = set()
    for task in [None, *SECTIONS]:
        tree = tree_with(task)
        tree["sweep"]["space"] = None
        # A section that is not given is a leaf of the tree, and no setting.
        known |= {path for path in flatten(tree) if path.rpartition(".")[2] not in SECTIONS}
    assert leaves().keys() == known
    assert len(leaves()) >= 60


@pytest.mark.parametrize("path", leaves())
def test_every_field_changes_the_digest_and_survives_json(path):
    tree = tree_with(next((task for task in SECTIONS if path.startswith(f"base.{task}.")), None))
    for other, value in NEEDED_BY.get(path, {}).items():
        set_path(tree, other, value)
    before = load_config(tree)
    set_path(tree, path, leaves()[path])
    cfg = load_config(tree)
    assert digest(cfg) != digest(before)
    assert load_config(json.loads(json.dumps(to_dict(cfg)))) == cfg


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_that_is_given_makes_the_task(name):
    assert RunConfig().task == "generator"
    assert load_config({"base": {name: {}}}).base.task == name
    assert load_config({}, [f"{name}={{}}"]).base.task == name


def test_a_run_trains_one_extension_or_baseline_at_the_most(monkeypatch):
    monkeypatch.setattr("gan.config.SECTIONS", ("conditional", "data"))
    with pytest.raises(ConfigError, match="baseline at the most, got conditional, data"):
        run_config({"conditional": {}})


READ_BY_BASELINES = [
    *("train.n_steps", "train.batch_size", "train.report_every"),
    *("train.optimizer", "train.learning_rate", "train.decay_per_step", "train.min_learning_rate"),
    *("train.momentum", "train.final_momentum", "train.momentum_steps"),
    *("train.adam_beta1", "train.adam_beta2", "train.adam_epsilon"),
]
"""All that a baseline reads of the sections below."""

UNREAD_BY_BASELINES = [
    path
    for section in ("prior", "generator", "discriminator", "train")
    for name in field_names(type(getattr(RunConfig(), section)))
    if (path := f"{section}.{name}") not in READ_BY_BASELINES
]


def with_another(rival, path):
    """The settings of a baseline at their defaults, but for one."""
    tree = tree_with(rival)
    set_path(tree, f"base.{path}", leaves()[f"base.{path}"])
    if path == "generator.output":  # refused by its own section otherwise
        tree["base"]["generator"]["output_bias_from_data"] = False
    return tree


@pytest.mark.parametrize("rival", BASELINES)
@pytest.mark.parametrize("path", UNREAD_BY_BASELINES)
def test_a_setting_that_a_baseline_does_not_read_is_refused_by_its_path(rival, path):
    usual = operator.attrgetter(path)(RunConfig())
    (problem,) = problems(with_another(rival, path))
    assert problem.startswith(f"{path} has no part in {rival}: leave it at {usual}, got ")


@pytest.mark.parametrize("rival", BASELINES)
def test_a_baseline_takes_the_settings_that_it_reads_and_all_defaults(rival):
    assert load_config(tree_with(rival)).base.task == rival
    for path in READ_BY_BASELINES:
        read = operator.attrgetter(path)
        assert read(load_config(with_another(rival, path)).base) != read(RunConfig())


def test_overrides_are_left_as_they_are():
    section = {"on": "vectors"}
    config = with_overrides(RunConfig(), {"conditional": section, "conditional.scale": 2.0})
    assert (config.conditional.on, config.conditional.scale) == ("vectors", 2.0)
    assert section == {"on": "vectors"}


def test_digest_is_that_of_the_values_not_of_their_order_or_type():
    cfg = load_config({"base": {"train": {"n_steps": 10, "d_steps": 2}}})
    same = load_config({"base": {"train": {"d_steps": "2", "n_steps": 10.0}}})
    assert digest(cfg) == digest(same) == digest(to_dict(cfg))
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})


def test_digest_is_the_same_in_every_process_and_version():
    expected = hashlib.sha256(b'{"a":[1,0.5,null,"x"],"b":{"c":true}}').hexdigest()
    assert digest({"b": {"c": True}, "a": [1, 0.5, None, "x"]}) == expected


def test_overrides_go_back_and_forth():
    overrides = {"train.d_steps": 3, "prior.kind": "gaussian", "generator.hidden": [9]}
    cfg = with_overrides(RunConfig(), overrides)
    flat = flatten(to_dict(cfg))
    assert {path: flat[path] for path in overrides} == overrides
    assert with_overrides(cfg, {p: flatten(to_dict(RunConfig()))[p] for p in overrides}) == (
        RunConfig()
    )
    assert run_config(to_dict(cfg)) == cfg
    assert with_overrides(cfg, {}) == cfg


def test_overrides_are_checked_as_a_whole():
    with pytest.raises(ConfigError, match=r"train.n_step: unknown setting; did you mean n_steps"):
        with_overrides(RunConfig(), {"train.n_step": 3})
    with pytest.raises(ConfigError, match=r"must be a multiple of train\.report_every"):
        with_overrides(RunConfig(), {"train.report_every": 7})


def test_a_config_error_survives_the_way_to_another_process():
    error = ConfigError(["a.b: wrong", "c: worse"])
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert copy.problems == error.problems
    assert str(copy) == str(error) == "a.b: wrong; c: worse"


# Every field is read

CONFIG_NAMES = {
    "own",
    *(
        "layer",
        "cfg",
        "_cfg",
        "config",
        "base",
        "run",
        "train",
        "prior",
        "generator",
        "discriminator",
    ),
    *("evaluation", "data", "sweep", "promote", "limits"),
}


def attributes_read_from_configurations():
    """Names read as `cfg.name`, `config.train.name`, ... anywhere outside gan/config.py."""
    sources = [
        path
        for package in ("gan", "tuning", "pipeline")
        for path in sorted((REPOSITORY / package).rglob("*.py"))
        if path != REPOSITORY / "gan" / "config.py"
    ]
    assert len(sources) > 40
    names = set()
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = node.value
                owner_name = getattr(owner, "id", None) or getattr(owner, "attr", None)
                if owner_name in CONFIG_NAMES:
                    names.add(node.attr)
    return names


def test_every_field_is_read():
    read = attributes_read_from_configurations()
    kinds = (*CLASSES, ConvolutionConfig)
    hints = {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    # A field with a single choice says what the others mean; there is nothing to read.
    fields = {name for name, hint in hints.items() if len(choices_of(hint)) != 1}
    assert len(fields) >= 60
    assert sorted(fields - read) == []


def choices_of(hint):
    return get_args(hint) if get_origin(hint) is Literal else ()
