"""What the pipeline does with a classifier with few labels.  Kinds: contract, closed form."""

import dataclasses

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from torch.testing import assert_close

from gan.config import LimitsConfig
from gan.errors import ConditionError
from gan.evaluation.suite import Evaluation
from gan.extensions.semi_supervised.feature_matching import train_supervised
from gan.extensions.semi_supervised.run import few_of
from gan.sampling import tile
from pipeline.artifacts import to_onnx
from pipeline.evaluation import by_metric_name
from pipeline.product import Candidate, quality_checks
from pipeline.products.semi_supervised import METHODS, SEMI_SUPERVISED, values
from tests.gan.small import EXTENSIONS, labelled_images, start_extension

NAMES = pytest.mark.parametrize("name", [name for name in EXTENSIONS if "semi_sup" in name])
NOTHING = Evaluation(scores={}, unavailable={}, n_samples=0)


def trained(name="semi_supervised", **settings):
    run = start_extension(name, semi_supervised__supervised_steps=5, **settings)
    list(run.train())
    return run.saved()


@pytest.fixture
def candidate(tmp_path, monkeypatch):
    """A function: what was saved -> it with the images that it was trained and is tested on."""
    splits = {"train": labelled_images(), "test": labelled_images(40, seed=2)}
    monkeypatch.setattr(
        "pipeline.product.load_train_valid", lambda data: (splits["train"], splits["train"])
    )
    monkeypatch.setattr("pipeline.product.load_test", lambda data: splits["test"])

    def make(saved):
        return Candidate(
            saved=saved, config=saved.config, split="valid", extractors=tmp_path, seed=3
        )

    return make


def evaluated(asked):
    return SEMI_SUPERVISED.measure(asked).added_to(NOTHING)


def test_every_method_is_told_on_the_card():
    asked = {trained(name).config.semi_supervised.method for name in EXTENSIONS if "semi" in name}
    assert asked == set(METHODS)


@NAMES
def test_scores_are_those_of_the_labelled_images(name, candidate):
    saved = trained(name)
    evaluation = evaluated(candidate(saved))
    log_p = saved.log_probabilities(saved.few_images()).double().numpy()
    losses = -log_p[np.arange(6), saved.few_labels]
    assert evaluation.scores.keys() == {"few_labels_nats", "few_labels_accuracy"}
    nats = evaluation.scores["few_labels_nats"]
    expected = [losses.mean(), losses.std(ddof=1) / np.sqrt(6)]
    assert_allclose([nats.value, nats.standard_error], expected, rtol=1e-5, atol=0)
    share = (log_p.argmax(1) == saved.few_labels.numpy()).mean()
    assert evaluation.scores["few_labels_accuracy"].value == share
    metrics = by_metric_name(evaluation, "valid")
    assert {"few_labels_nats", "few_labels_nats_se", "few_labels_accuracy"} <= metrics.keys()


@NAMES
def test_two_models_compare_on_the_labelled_images_of_the_run(name, candidate):
    saved = trained(name)
    (paired,) = values(candidate(saved)).values()
    assert_allclose(paired.mean(), evaluated(candidate(saved)).scores["few_labels_nats"].value)
    other = trained(name, seed=5)
    asked = dataclasses.replace(candidate(saved), saved=other)
    (theirs,) = values(asked).values()
    log_p = other.log_probabilities(saved.few_images()).double().numpy()
    assert_allclose(theirs, -log_p[np.arange(6), saved.few_labels], rtol=1e-6, atol=0)


@NAMES
def test_errors_on_test_images_are_counted_of_it_and_of_the_labels_alone(name, candidate):
    saved, test = trained(name), labelled_images(40, seed=2)
    scores = SEMI_SUPERVISED.measure_test(candidate(saved))
    answers = saved.log_probabilities(torch.from_numpy(test.images) / 255).argmax(1).numpy()
    assert scores["classification_error_test"] == (answers != test.labels).mean()
    alone = train_supervised(saved.config, few_of(labelled_images(), saved.config))
    others = alone(torch.from_numpy(test.images).flatten(1)).argmax(1).numpy()
    share = (others != test.labels).mean()
    assert scores["supervised_error_test"] == share
    assert_allclose(scores["supervised_error_test_se"], np.sqrt(share * (1 - share) / 40))
    errors = ("classification_error_test", "supervised_error_test")
    assert scores.keys() == {f"{error}{end}" for error in errors for end in ("", "_se")}


@NAMES
def test_the_test_split_has_the_errors_that_the_winner_is_told_of(name, candidate):
    saved = trained(name)
    asked = dataclasses.replace(candidate(saved), split="test")
    found = by_metric_name(evaluated(asked), "test")
    expected = SEMI_SUPERVISED.measure_test(candidate(saved))
    assert {name: found[name] for name in expected} == expected


def test_scores_and_picture_of_validation_images_leave_the_test_split_closed(
    candidate, tmp_path, monkeypatch
):
    opened = []
    monkeypatch.setattr("pipeline.product.load_test", opened.append)
    asked = candidate(trained())
    SEMI_SUPERVISED.measure(asked)
    SEMI_SUPERVISED.draw_picture(asked, tmp_path)
    assert opened == []


def test_models_compare_where_they_were_trained_on_the_same_labels():
    ours = trained()
    (same,) = SEMI_SUPERVISED.compared(ours, trained(semi_supervised__noise_input=0.1))
    assert same.passed
    for theirs in (trained(seed=5), trained(semi_supervised__n_labels=12)):
        (check,) = SEMI_SUPERVISED.compared(ours, theirs)
        assert (check.name, check.passed) == ("same_labels", False)
        n = len(theirs.few_labels)
        assert f"the champion was trained on other labelled images, {n}:" in check.reason


def test_test_images_without_labels_have_no_errors(candidate, monkeypatch):
    plain = dataclasses.replace(labelled_images(40, seed=2), labels=None)
    monkeypatch.setattr("pipeline.product.load_test", lambda data: plain)
    assert SEMI_SUPERVISED.measure_test(candidate(trained())) == {}
    assert SEMI_SUPERVISED.findings(NOTHING, {}) == ""


def test_findings_tell_both_errors(candidate):
    scores = {
        "classification_error_test": 0.0123,
        "classification_error_test_se": 0.0011,
        "supervised_error_test": 0.21,
        "supervised_error_test_se": 0.0041,
    }
    told = SEMI_SUPERVISED.findings(evaluated(candidate(trained())), scores)
    assert "With 6 labels it classifies 1.23 ± 0.11 % of the test images wrongly" in told
    assert "trained on these labels alone 21.00 ± 0.41 %" in told


@pytest.mark.parametrize(("limit", "passed"), [(0.0, True), (1.0, False)])
def test_the_gate_asks_for_the_labels_that_it_was_given(limit, passed, candidate):
    saved = trained()
    saved.classifier.linears[-1].bias.copy_(torch.tensor([0.0, 0.0, 50.0]))  # always the last
    limits = LimitsConfig(min_few_labels_accuracy=limit)
    (check,) = quality_checks(SEMI_SUPERVISED, evaluated(candidate(saved)), limits)
    assert (check.name, check.passed, check.limit) == ("fits_labels", passed, limit)
    assert check.reason == (
        f"it classifies 2 of the 6 labelled images rightly (limit {limit:.0%})"
    )


def test_the_picture_has_labelled_images_left_and_test_images_of_the_class_right(
    candidate, tmp_path
):
    saved, test = trained(), labelled_images(40, seed=2)
    asked = dataclasses.replace(candidate(saved), split=SEMI_SUPERVISED.picture_split)
    SEMI_SUPERVISED.draw_picture(asked, tmp_path)
    with Image.open(tmp_path / SEMI_SUPERVISED.picture) as picture:
        found = np.asarray(picture)[::2, ::2]
    width = 10 * 6 + 2
    assert found.shape == (3 * 6 + 2, 2 * width + 12)
    white = torch.ones(1, 1, 4, 4)
    left = [*saved.few_images()[:2], *white.expand(8, -1, -1, -1)]
    assert_allclose(found[:8, :width], tile(torch.stack(left), columns=10), rtol=0, atol=0)
    images = torch.from_numpy(test.images) / 255
    p, answers = saved.log_probabilities(images).exp().max(1)
    for k in range(3):
        of_row = [i for i in range(40) if answers[i] == k]
        wrong = sorted((i for i in of_row if test.labels[i] != k), key=lambda i: -p[i])
        right = sorted((i for i in of_row if test.labels[i] == k), key=lambda i: p[i])
        shown = [images[i] for i in [*wrong, *right]][:10]
        shown += [white[0]] * (10 - len(shown))
        row = found[6 * k : 6 * k + 8, width + 12 :]
        assert_allclose(row, tile(torch.stack(shown), columns=10), rtol=0, atol=0)


# How it is used


@NAMES
def test_onnx_gives_the_probabilities_of_images(name):
    saved = trained(name)
    session = onnxruntime.InferenceSession(to_onnx(saved))
    for n in (1, 7):
        images = torch.from_numpy(labelled_images(n).images) / 255
        (p,) = session.run(["probabilities"], {"images": images.numpy()})
        assert_close(
            torch.from_numpy(p), saved.log_probabilities(images).exp(), rtol=1e-4, atol=1e-5
        )


@NAMES
def test_the_card_s_lines_run(name):
    saved = trained(name)
    card = SEMI_SUPERVISED.card(saved)
    assert METHODS[saved.config.semi_supervised.method] in card.what
    session = onnxruntime.InferenceSession(to_onnx(saved))
    names = {"np": np, "n": 9, "session": session, "generator": saved}
    exec(card.onnx, names)  # noqa: S102 (as a reader of the card would)
    assert names["probabilities"].shape == (9, 3)
    exec(card.python, names)  # noqa: S102
    assert names["probabilities"].shape == (6, 3)


@NAMES
def test_a_request_is_an_image_and_the_answer_its_probabilities(name):
    saved = trained(name)
    served = SEMI_SUPERVISED.served(saved)
    image = saved.few_images()[:1]
    row = {"image": image.flatten().tolist()}
    assert served.count(row) == 1
    assert served.answer_shape == (3,)
    assert_allclose(served.answer(row), saved.log_probabilities(image).exp(), rtol=0, atol=0)
    (column,) = served.columns
    assert (column.name, column.kind, len(column.example)) == ("image", "numbers", 16)


@pytest.mark.parametrize(
    ("image", "got"),
    [
        ([0.5] * 15, "15 from 0.5 to 0.5"),
        ([0.5] * 15 + [255.0], "16 from 0.5 to 255"),
        ([0.5] * 15 + [float("nan")], "16 from nan to nan"),
        ([], "none"),
    ],
)
def test_an_image_of_another_size_or_range_is_refused(image, got):
    served = SEMI_SUPERVISED.served(trained())
    match = rf"the image must be 16 numbers in \[0, 1\], 1 x 4 x 4 row by row, got {got}$"
    with pytest.raises(ConditionError, match=match):
        served.answer({"image": image})
