"""Every preset: what it says of itself, and that it says no more than it must (contract)."""

import json
import shlex
from importlib.resources import files

import pytest

from gan.config import PipelineConfig, flatten, read_yaml, to_dict
from pipeline.extensions import extensions
from pipeline.settings import presets, resolve
from tests.pipeline.commands import parse
from tuning.sweep import check_sweep

PRESETS = presets()


def text_of(preset):
    return files("pipeline.presets").joinpath(f"{preset}.yaml").read_text(encoding="utf-8")


def test_presets_are_those_that_are_known():
    assert PRESETS == [
        *("cifar10", "cifar10_conv", "cifar10_conv_quick", "cifar10_quick", "conditional"),
        *("dbm", "dbn", "fashion_mnist", "gsn", "inference", "learned_prior", "mnist"),
        *("priors", "quick", "semi_supervised", "shared_conditional", "stacked_cae"),
        *("table1", "tfd", "tfd_prior", "vae"),
    ]


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_can_be_run(preset):
    config = resolve(preset)
    assert config.name == preset
    check_sweep(config)


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_opens_with_what_it_is_what_it_costs_and_its_command(preset):
    what, cost, command, *rest = text_of(preset).splitlines()
    assert all(line.startswith("# ") for line in (what, cost, command))
    assert not rest[0].startswith("#")
    assert "minute" in cost
    name, parameters = parse(command.removeprefix("# "))
    assert (name, parameters["source"]) == ("run", preset)
    assert shlex.join(["gan", name, preset]) == command.removeprefix("# ")


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_states_differences_alone(preset):
    defaults = flatten(to_dict(PipelineConfig()))
    stated = flatten(read_yaml(text_of(preset)))
    assert stated
    same = [path for path, value in stated.items() if defaults.get(path, ...) == value]
    assert same == []


@pytest.mark.parametrize("preset", ["mnist", "quick"])
def test_preset_varies_k_dropout_and_the_prior(preset):
    assert resolve(preset).sweep.space.keys() >= {
        "train.d_steps",
        "discriminator.dropout_hidden",
        "prior.kind",
    }


def test_both_stages_of_tfd_have_the_nets_of_the_released_code():
    first, second = resolve("tfd").base, resolve("tfd_prior").base
    G, D, stack = first.generator, first.discriminator, second.learned_prior
    assert (G.hidden, G.activations, G.sigmoid_bias) == ((8000, 8000), ("relu", "sigmoid"), -2)
    assert (G.output_sparse_init, G.init_range, G.output_bias_from_data) == (100, 0.05, True)
    assert (D.hidden, D.pieces, D.init_range, second.discriminator) == ((1200,) * 2, 5, 0.005, D)
    assert (G.max_column_norm, D.max_column_norm) == (1.9365, 1.9365)
    assert (stack.method, stack.hidden, stack.begin) == ("stacked", (8000,), "random")
    assert (stack.output, stack.output_bias, stack.init_range) == ("sigmoid", -2, 0.05)
    assert (first.prior.kind, first.prior.dim) == ("gaussian", 100)
    for stage, n_epochs in ((first, 50), (second, 22)):
        assert stage.train.n_steps == n_epochs * 1_000  # an epoch has some 1,000 minibatches
        assert (stage.train.batch_size, stage.train.learning_rate) == (100, 0.05)


@pytest.mark.parametrize("name", extensions())
def test_settings_of_an_extension_can_be_swept(name):
    task = resolve(name).base.task
    section = to_dict(getattr(resolve(name).base, task))
    assert section
    for setting, value in section.items():
        space = f"sweep.space.{task}.{setting}.choice=[{json.dumps(value)}]"
        assert f"{task}.{setting}" in check_sweep(resolve(name, [space]))
