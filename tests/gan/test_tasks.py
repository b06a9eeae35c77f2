"""What a run starts from, and a generator on disk.  Kinds: invariance, contract."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from torch.testing import assert_close

from gan.checkpoint import load_checkpoint, save_checkpoint
from gan.errors import CheckpointError, ConfigError
from gan.saved_generator import empty_generator
from gan.tasks import (
    CONFIG,
    TASKS,
    from_checkpoint,
    from_state,
    load,
    run_facts,
    save,
    start_run,
    task_of,
)
from tests.gan.small import small_config, small_images, small_run

WEIGHTS = task_of(small_config()).weights


@pytest.fixture
def run():
    """A run after its last step, with batch norm and an average of G."""
    run = small_run(generator__batch_norm=True, train__average_decay=0.9)
    list(run.train())
    return run


@pytest.fixture
def folder(run, tmp_path):
    save(tmp_path, run.saved())
    return tmp_path


def test_a_generator_is_read_back_bit_for_bit(run, folder):
    loaded, expected = load(folder), run.saved()
    assert loaded.config == run.cfg
    assert loaded.image_shape == (1, 4, 4)
    assert_close(loaded.G.state_dict(), expected.G.state_dict(), rtol=0, atol=0)
    assert torch.equal(loaded.sampler().sample(20, seed=1), expected.sampler().sample(20, seed=1))


def test_a_loaded_generator_is_frozen_and_in_evaluation_mode(folder):
    G = load(folder).G
    assert not G.training
    assert not any(p.requires_grad for p in G.parameters())


def test_the_files_are_weights_and_json(folder):
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    settings = json.loads((folder / CONFIG).read_text())
    assert settings["image_shape"] == [1, 4, 4]
    assert settings["run"]["generator"]["hidden"] == [7, 6]
    assert len(safetensors.torch.load_file(folder / WEIGHTS)) == 6 + 2 * 5


@pytest.mark.parametrize("average_decay", [0.0, 0.9])
def test_a_checkpoint_gives_the_generator_that_the_run_would_sample(average_decay, tmp_path):
    run = small_run(generator__batch_norm=True, train__average_decay=average_decay)
    list(run.train())
    path = save_checkpoint(tmp_path, step=4, tensors=run.state(), meta={})
    state = load_checkpoint(path).tensors
    saved = from_state(state, run.cfg, image_shape=(1, 4, 4))
    assert_close(saved.G.state_dict(), run.saved().G.state_dict(), rtol=0, atol=0)
    assert not saved.G.training


def test_an_empty_generator_has_the_shape_of_its_configuration():
    G = empty_generator(small_config(), n_pixels=16)
    assert [tuple(p.shape) for p in G.parameters()] == [(7, 5), (7,), (6, 7), (6,), (16, 6), (16,)]


# Damage


def refuse(folder, reason):
    with pytest.raises(CheckpointError, match=f"holds no whole generator: .*{reason}") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    refuse(folder, name)


def test_weights_cut_short_are_refused(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-8])
    refuse(folder, "")


def test_a_configuration_cut_short_is_refused(folder):
    content = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(content[: len(content) // 2])
    refuse(folder, "")


def edit(folder, change):
    settings = json.loads((folder / CONFIG).read_text())
    change(settings)
    (folder / CONFIG).write_text(json.dumps(settings))


def test_weights_of_another_shape_are_refused_on_one_line(folder):
    edit(folder, lambda settings: settings["run"]["generator"].update(hidden=[8, 6]))
    refuse(folder, "size mismatch for linears.0.weight")


def test_a_setting_that_is_not_ours_is_named(folder):
    edit(folder, lambda settings: settings["run"]["generator"].update(layers=3))
    refuse(folder, "generator.layers: unknown setting")


def test_a_configuration_without_a_shape_is_refused(folder):
    edit(folder, lambda settings: settings.pop("image_shape"))
    refuse(folder, "image_shape")


# A checkpoint


@pytest.fixture
def checkpoint(run, tmp_path):
    """The run's checkpoint, with what a trial keeps beside the tensors."""

    def write(**meta):
        facts = run_facts(run.cfg, (1, 4, 4)) | meta
        facts = {name: value for name, value in facts.items() if value is not None}
        return save_checkpoint(tmp_path / "checkpoints", step=4, tensors=run.state(), meta=facts)

    return write


def test_a_checkpoint_says_by_itself_whose_it_is(run, checkpoint):
    found, expected = from_checkpoint(checkpoint(best={"step": 3})), run.saved()
    assert (found.config, found.image_shape) == (run.cfg, (1, 4, 4))
    assert_close(found.G.state_dict(), expected.G.state_dict(), rtol=0, atol=0)
    assert not any(p.requires_grad for p in found.G.parameters())
    assert not found.G.training


def test_facts_are_json_and_those_of_a_saved_generator(run, folder):
    facts = run_facts(run.cfg, (1, 4, 4))
    assert json.loads((folder / CONFIG).read_text()) == json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("name", ["run", "image_shape"])
def test_a_checkpoint_that_does_not_say_whose_it_is_is_refused(checkpoint, name):
    with pytest.raises(CheckpointError, match=f"does not say whose it is: no '{name}'"):
        from_checkpoint(checkpoint(**{name: None}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_shape": [16]}, "not enough values to unpack"),
        ({"image_shape": [1, 4, 5]}, "size mismatch"),
        ({"run": 3}, "not iterable"),
        ({"run": {"generator": {"layers": 3}}}, "generator.layers: unknown setting"),
        ({"run": {"generator": {"hidden": [8, 6]}}}, "size mismatch"),
    ],
)
def test_a_checkpoint_that_does_not_fit_its_facts_is_refused_on_one_line(
    checkpoint, change, reason
):
    with pytest.raises(CheckpointError, match="holds no whole generator: ") as caught:
        from_checkpoint(checkpoint(**change))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_refused(checkpoint):
    path = checkpoint()
    weights = path / "state.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"is damaged: state\.safetensors has another SHA"):
        from_checkpoint(path)


@pytest.fixture
def needs_a_generator(monkeypatch):
    """A task that starts from a promoted generator, and tells which it was given."""

    def start(config, images, *, device, origin):
        return origin

    needy = dataclasses.replace(TASKS["conditional"], start=start, origin=lambda c: "generator")
    monkeypatch.setitem(TASKS, "conditional", needy)
    return small_config(conditional={})


def test_a_run_starts_from_the_folder_that_its_configuration_names(needs_a_generator, tmp_path):
    saved = small_run().saved()
    save(tmp_path, saved)
    config = dataclasses.replace(needs_a_generator, start=str(tmp_path))
    found = start_run(config, small_images(), device="cpu")
    assert_close(found.tensors(), saved.tensors(), rtol=0, atol=0)


def test_a_run_without_what_it_starts_from_is_refused(needs_a_generator):
    with pytest.raises(ConfigError, match="conditional starts from a promoted generator, got no"):
        start_run(needs_a_generator, small_images(), device="cpu")


def test_a_run_is_refused_what_is_of_another_task(needs_a_generator):
    origin = SimpleNamespace(config=small_config(conditional={}))
    with pytest.raises(ConfigError, match="got one of the task conditional"):
        start_run(needs_a_generator, small_images(), device="cpu", origin=origin)
