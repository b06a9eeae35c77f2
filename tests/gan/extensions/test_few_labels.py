"""The few labels.  Kinds: invariance (nothing else is read), algorithm, bad input."""

import dataclasses
import re
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from gan.config import SemiSupervisedConfig
from gan.errors import ConfigError, DatasetError
from gan.extensions.semi_supervised.few_labels import draw_few, hide
from gan.extensions.semi_supervised.run import SemiSupervisedRun, require_few_labels
from gan.tasks import start_run
from tests.gan.small import EXTENSIONS, labelled_images, origin_of, small_config

LABELS = np.random.default_rng(0).integers(0, 3, 300)


def test_labels_are_balanced_and_class_by_class():
    rows = draw_few(LABELS, 12, seed=0)
    assert LABELS[rows].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert len(rows.unique()) == 12


def test_the_draw_depends_on_the_seed_alone():
    torch.manual_seed(1)
    first = draw_few(LABELS, 12, seed=0)
    torch.manual_seed(2)
    assert torch.equal(draw_few(LABELS, 12, seed=0), first)
    assert not torch.equal(draw_few(LABELS, 12, seed=1), first)


def test_fewer_labels_are_among_more():
    fewer, more = (set(draw_few(LABELS, n, seed=0).tolist()) for n in (6, 30))
    assert fewer < more


def test_any_image_may_be_drawn():
    drawn = torch.cat([draw_few(LABELS, 30, seed=seed) for seed in range(100)])
    assert len(drawn.unique()) == len(LABELS)


def test_labelled_and_unlabelled_images_are_all_images():
    images = labelled_images()
    rows = draw_few(images.labels, 6, seed=0)
    few = hide(images, rows)
    assert sorted([*few.labelled.tolist(), *few.unlabelled.tolist()]) == list(range(30))
    assert few.labels.tolist() == images.labels[rows].tolist()
    assert few.n_classes == 3
    assert torch.equal(few.pixels, torch.from_numpy(images.images).flatten(1))


def test_what_trains_holds_no_other_label():
    """Of all integers in it only those of the few can be labels."""
    images = labelled_images()
    few = hide(images, draw_few(images.labels, 6, seed=0))
    tensors = [v for v in vars(few).values() if isinstance(v, torch.Tensor)]
    assert len(vars(few)) == 5
    assert sorted(len(t) for t in tensors) == [6, 6, 24, 30]
    assert next(t for t in tensors if len(t) == 30) is few.pixels


METHODS = [name for name in EXTENSIONS if "semi_supervised" in name]


@pytest.mark.parametrize("name", METHODS)
def test_garbage_in_place_of_all_other_labels_changes_nothing(name, monkeypatch):
    config = small_config(**EXTENSIONS[name])
    images = labelled_images()
    rows = draw_few(images.labels, 6, seed=config.seed)
    garbage = np.random.default_rng(1).integers(-99, 99, len(images.labels))
    garbage[rows] = images.labels[rows]
    tensors = []
    for labels in (images.labels, garbage):
        given = dataclasses.replace(images, labels=labels)
        monkeypatch.setattr(
            "gan.extensions.semi_supervised.run.few_of",
            lambda images, config, rows=rows: hide(images, rows),
        )
        run = start_run(config, given, device="cpu", origin=origin_of(config))
        list(run.train())
        tensors.append(run.saved().tensors() | run.state())
    assert not np.array_equal(garbage, images.labels)
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])


def test_the_suite_of_garbage_has_every_method():
    tested = {small_config(**EXTENSIONS[name]).semi_supervised.method for name in METHODS}
    assert tested == set(get_args(get_type_hints(SemiSupervisedConfig)["method"]))


# Bad input


@pytest.mark.parametrize(
    ("n", "problem"),
    [
        (2, "semi_supervised.n_labels: must be at least one label for each of 3 classes, got 2"),
        (30, "semi_supervised.n_labels: must be less than the 30 training images, got 30"),
        (31, "semi_supervised.n_labels: must be less than the 30 training images, got 31"),
        (7, "semi_supervised.n_labels: must be a multiple of the 3 classes, got 7"),
    ],
)
def test_a_number_of_labels_that_cannot_be_drawn_is_refused(n, problem):
    config = small_config(semi_supervised={"n_labels": n})
    with pytest.raises(ConfigError, match=f"^{re.escape(problem)}$"):
        SemiSupervisedRun(config, labelled_images(), device="cpu")


def test_more_labels_of_a_class_than_it_has_images_are_refused():
    labels = np.repeat([0, 1, 2], [14, 13, 3])
    with pytest.raises(ConfigError, match=r"must be 4 images of each class, the smallest has 3$"):
        draw_few(labels, 12, seed=0)


@pytest.mark.parametrize(
    ("labels", "got"),
    [([0, 2, 2], "2 from 0 to 2"), ([-1, 0, 1], "3 from -1 to 1"), ([0, 10**13], "2 from 0 to 1")],
)
def test_classes_that_are_not_numbered_from_0_are_refused(labels, got):
    with pytest.raises(DatasetError, match=f"without a gap, got {got}"):
        draw_few(np.array(labels), 3, seed=0)


def test_one_class_is_refused():
    with pytest.raises(ConfigError, match=r"a classifier needs two classes or more, got 1$"):
        draw_few(np.zeros(5, np.int64), 2, seed=0)


def test_a_minibatch_that_the_unlabelled_images_do_not_fill_is_refused():
    config = small_config(semi_supervised={"n_labels": 6}, train__batch_size=25)
    message = r"train.batch_size: must be at most the 24 unlabelled images, got 25"
    with pytest.raises(ConfigError, match=message):
        require_few_labels(labelled_images(), config)


def test_images_without_labels_are_refused():
    images = dataclasses.replace(labelled_images(), labels=None)
    with pytest.raises(DatasetError, match="semi_supervised needs a data set with labels"):
        SemiSupervisedRun(small_config(semi_supervised={}), images, device="cpu")
    with pytest.raises(DatasetError, match="semi_supervised needs a data set with labels"):
        hide(images, torch.arange(3))


def test_fewer_unlabelled_images_than_a_minibatch_are_refused():
    config = small_config(semi_supervised={"n_labels": 24})
    with pytest.raises(ConfigError, match=r"train\.batch_size: must be at most the 6 unlabelled"):
        SemiSupervisedRun(config, labelled_images(), device="cpu")
