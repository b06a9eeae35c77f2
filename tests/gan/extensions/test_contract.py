"""What every extension and baseline promises as a run.  Kinds: contract, invariance (resume)."""

import itertools
import json
import math

import pytest
import torch
from torch.testing import assert_close

from gan.checkpoint import load_checkpoint, save_checkpoint
from gan.config import Task, run_config, to_dict
from gan.errors import CheckpointError
from gan.metric_names import IMAGES_SEEN
from gan.tasks import CONFIG, TASKS, from_checkpoint, from_state, load, run_facts, save, task_of
from tests.gan.small import EXTENSIONS, RIVALS, start_extension

ALL = pytest.mark.parametrize("name", EXTENSIONS)
AVERAGED = pytest.mark.parametrize(
    ("name", "average_decay"),
    [
        *((name, 0.0) for name in EXTENSIONS),
        *((name, 0.9) for name in EXTENSIONS if name not in RIVALS),
    ],
)
"""Each without and, but for baselines, which keep none, with an average of its nets."""


def test_every_task_but_the_generator_is_in_this_suite():
    assert set(TASKS) == set(Task.__args__)
    tested = {start_extension(name).saved().config.task for name in EXTENSIONS}
    assert tested == set(TASKS) - {"generator"}


@ALL
def test_configuration_survives_json(name):
    config = start_extension(name).saved().config
    assert run_config(json.loads(json.dumps(to_dict(config)))) == config


@ALL
def test_reports_are_finite_and_count_steps(name):
    reports = list(start_extension(name).train())
    assert [report.step for report in reports] == [1, 2, 3, 4]
    for report in reports:
        assert report.images_seen == 8 * report.step
        assert report.metrics()
        assert all(math.isfinite(value) for value in report.metrics().values())
        assert IMAGES_SEEN not in report.metrics()


@ALL
def test_same_seed_same_run_and_another_seed_another(name):
    runs = [start_extension(name, seed=seed) for seed in (0, 0, 1)]
    for run in runs:
        list(run.train())
    one, same, other = (run.saved().tensors() for run in runs)
    assert_close(one, same, rtol=0, atol=0)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@AVERAGED
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    name, optimizer, average_decay, tmp_path
):
    settings = {
        "train__optimizer": optimizer,
        "train__average_decay": average_decay,
        "generator__batch_norm": name not in RIVALS,
        "train__n_steps": 8,
        "train__report_every": 2,
        "evaluation__score_every": 8,
    }
    whole, half = start_extension(name, **settings), start_extension(name, **settings)
    expected = list(whole.train())
    reports = list(itertools.islice(half.train(), 2))
    path = save_checkpoint(tmp_path, step=half.step, tensors=half.state(), meta={})
    resumed = start_extension(name, **settings)
    resumed.set_state(load_checkpoint(path).tensors)
    assert resumed.step == 4
    reports += list(resumed.train())
    assert reports == expected
    assert_close(resumed.state(), whole.state(), rtol=0, atol=0)


@ALL
def test_what_is_saved_is_read_back_bit_for_bit(name, tmp_path):
    run = start_extension(name, train__average_decay=0.0 if name in RIVALS else 0.9)
    list(run.train())
    saved = run.saved()
    save(tmp_path, saved)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [CONFIG, task_of(saved.config).weights]
    )
    loaded = load(tmp_path)
    assert type(loaded) is type(saved)
    assert (loaded.config, loaded.image_shape) == (saved.config, (1, 4, 4))
    assert_close(loaded.tensors(), saved.tensors(), rtol=0, atol=0)


@AVERAGED
def test_a_checkpoint_gives_what_the_run_would_save(name, average_decay, tmp_path):
    run = start_extension(name, train__average_decay=average_decay)
    list(run.train())
    saved = run.saved()
    meta = run_facts(saved.config, saved.image_shape)
    path = save_checkpoint(tmp_path, step=4, tensors=run.state(), meta=meta)
    found = from_checkpoint(path)
    assert_close(found.tensors(), saved.tensors(), rtol=0, atol=0)
    state = load_checkpoint(path).tensors
    again = from_state(state, saved.config, image_shape=(1, 4, 4))
    assert_close(again.tensors(), saved.tensors(), rtol=0, atol=0)


PLAIN = ("learned_prior_top_k", "learned_prior_fixed")
"""What these leave is a generator of the paper's kind, and can be read as one."""


@pytest.mark.parametrize("name", [name for name in EXTENSIONS if name not in PLAIN])
def test_weights_of_another_task_are_refused(name, tmp_path):
    saved = start_extension(name).saved()
    save(tmp_path, saved)
    facts = json.loads((tmp_path / CONFIG).read_text())
    plain = facts | {"run": facts["run"] | {saved.config.task: None}}
    (tmp_path / CONFIG).write_text(json.dumps(plain))
    with pytest.raises(CheckpointError, match="holds no whole generator"):
        load(tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, "float32") for name in EXTENSIONS),
        *((name, "bfloat16") for name in EXTENSIONS if name not in RIVALS),
    ],
)
def test_a_run_on_a_gpu_reports_resumes_and_is_saved(name, precision, tmp_path):
    decay = 0.0 if name in RIVALS else 0.9
    settings = {"on": "cuda", "train__precision": precision, "train__average_decay": decay}
    run = start_extension(name, **settings)
    (first, *others) = run.train()
    assert all(math.isfinite(value) for value in first.metrics().values())
    path = save_checkpoint(tmp_path / "checkpoints", step=run.step, tensors=run.state(), meta={})
    again = start_extension(name, **settings)
    again.set_state(load_checkpoint(path).tensors)
    assert again.step == others[-1].step
    save(tmp_path, run.saved())
    images = load(tmp_path).sampler().sample(5, seed=0)
    assert images.shape == (5, 1, 4, 4)
    drawn = run.saved().sampler().sample(5, seed=0)
    assert bool(drawn.isfinite().all())
