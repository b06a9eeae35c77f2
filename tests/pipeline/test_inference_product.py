"""What the pipeline does with inference nets.  Kinds: contract, independent reference."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from gan.config import LimitsConfig
from gan.errors import ConditionError
from gan.evaluation.score import normal_score
from gan.evaluation.suite import NO_LABELS, Evaluation
from gan.extensions.inference.scores import nearest_right
from gan.run import unit_pixels
from pipeline.artifacts import to_onnx
from pipeline.product import Candidate
from pipeline.products.inference import (
    INFERENCE,
    explains_images,
    measure,
    measure_test,
    neighbour_rows,
    shown_queries,
    values,
)
from tests.gan.small import labelled_images, small_images, start_extension

NOTHING = Evaluation(scores={}, unavailable={}, n_samples=0)


@pytest.fixture(scope="module")
def saved():
    return start_extension("inference_of_layers").saved()


@pytest.fixture
def candidate(saved, monkeypatch):
    """Of labelled images of every split."""
    return of_images(saved, labelled_images, monkeypatch)


def of_images(saved, make, monkeypatch):
    sets = {"train": make(60, seed=1), "valid": make(24, seed=2), "test": make(18, seed=3)}
    for module in ("pipeline.product", "pipeline.products.inference"):
        for name, value in (
            ("load_train_valid", lambda data: (sets["train"], sets["valid"])),
            ("load_test", lambda data: sets["test"]),
        ):
            monkeypatch.setattr(f"{module}.{name}", value, raising=False)
    return Candidate(
        saved=saved, config=saved.config, split="valid", extractors=Path("none"), seed=3
    )


def named(measured):
    return {score.name: score for score in measured.scores}


def test_accuracies_are_of_codes_of_pixels_and_of_the_untrained_net(candidate, saved):
    found = named(measure(candidate))
    train, valid = candidate.train, candidate.scored
    x, y = (unit_pixels(images).flatten(1).numpy() for images in (valid, train))
    nearest = ((x[:, None] - y[None]) ** 2).sum(2).argmin(1)
    by_pixels = (train.labels[nearest] == valid.labels).mean()
    assert found["nearest_accuracy_pixels"].value == pytest.approx(by_pixels)
    for name, net in (("", saved), ("_untrained", saved.untrained())):
        right = nearest_right(net, valid, train).double().mean().item()
        assert found[f"nearest_accuracy{name}"].value == pytest.approx(right)
    assert measure(candidate).details["nearest"] == {"n_queries": 24, "n_references": 60}


def test_errors_are_of_images_and_of_samples_as_predicted_and_refined(candidate, saved):
    found = named(measure(candidate))
    images = unit_pixels(candidate.scored).float()
    error = (saved.reconstruct(images) - images).square().mean().item()
    assert found["reconstruction_error"].value == pytest.approx(error, rel=1e-5)
    variance = ((images - images.mean(0)) ** 2).mean().item()
    assert found["unexplained_share"].value == pytest.approx(error / variance, rel=1e-5)
    samples = saved.sampler().sample(10_000, 3)
    of_samples = (saved.reconstruct(samples) - samples).square().mean().item()
    assert found["reconstruction_error_of_samples"].value == pytest.approx(of_samples, rel=1e-4)
    for name in ("", "_of_samples"):
        refined = found[f"reconstruction_error{name}_refined"].value
        assert refined < found[f"reconstruction_error{name}"].value


def test_images_without_labels_have_errors_alone(saved, monkeypatch):
    found = measure(of_images(saved, small_images, monkeypatch))
    assert found.unavailable == {"nearest": NO_LABELS}
    assert not any("accuracy" in score.name for score in found.scores)
    assert set(values(of_images(saved, small_images, monkeypatch))) == {
        "reconstruction_error_valid"
    }


def test_of_test_images_all_others_are_references(candidate, saved):
    found = measure_test(candidate)
    train, valid = candidate.train, candidate.scored
    every = dataclasses.replace(
        train,
        images=np.concatenate([train.images, valid.images]),
        labels=np.concatenate([train.labels, valid.labels]),
        conditions=None,
    )
    test = dataclasses.replace(candidate, split="test").scored
    expected = nearest_right(saved, test, every).double().mean().item()
    assert found["nearest_accuracy_test"] == pytest.approx(expected)
    assert found["nearest_accuracy_test_se"] > 0
    assert {"reconstruction_error_test", "nearest_accuracy_pixels_test"} <= found.keys()


def test_what_the_gate_pairs_has_the_means_that_are_scored(candidate):
    scores, paired = named(measure(candidate)), values(candidate)
    for name in ("nearest_accuracy", "reconstruction_error"):
        assert paired[f"{name}_valid"].shape == (24,)
        assert paired[f"{name}_valid"].mean() == pytest.approx(scores[name].value, rel=1e-6)


def test_every_score_is_in_a_group_of_the_report(candidate):
    grouped = {name for group in INFERENCE.groups for name in group.good}
    assert grouped == named(measure(candidate)).keys()


@pytest.mark.parametrize(("share", "passed"), [(0.99, True), (1.01, False)])
def test_a_net_that_explains_less_than_the_mean_image_is_refused(share, passed):
    scores = {"unexplained_share": normal_score("unexplained_share", share, 0.01)}
    check = explains_images(dataclasses.replace(NOTHING, scores=scores), LimitsConfig())
    assert (check.passed, check.value, check.limit) == (passed, share, 1.0)
    assert f"leaves {share:.1%} of the variance" in check.reason
    assert not explains_images(NOTHING, LimitsConfig()).passed


def test_findings_have_the_numbers_of_the_test_split():
    scores = {
        "nearest_accuracy_test": 0.9751,
        "nearest_accuracy_pixels_test": 0.9691,
        "nearest_accuracy_untrained_test": 0.95,
        "reconstruction_error_test": 0.0159,
        "reconstruction_error_refined_test": 0.0031,
    }
    told = INFERENCE.findings(NOTHING, scores)
    for number in ("97.51%", "96.91%", "95.00%", "0.0159", "0.0031"):
        assert number in told
    assert INFERENCE.findings(NOTHING, {}) == ""
    errors_alone = {k: v for k, v in scores.items() if "error" in k}
    assert INFERENCE.findings(NOTHING, errors_alone).startswith("G(E(x)) differs")


def test_the_picture_has_a_query_its_reconstruction_and_neighbours_in_each_row(
    candidate, tmp_path
):
    INFERENCE.draw_picture(candidate, tmp_path)
    with Image.open(tmp_path / INFERENCE.picture) as picture:
        assert picture.size == (2 * (10 * 6 + 2), 2 * (10 * 6 + 2))


def test_rows_are_query_reconstruction_neighbours():
    x, again = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    near = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 4, 4)
    rows = neighbour_rows(x, again, near)[:, 0, 0, 0].tolist()
    assert rows == [0, 1, 0, 1, 2, 0, 1, 3, 4, 5]


def test_queries_are_of_each_class_in_turn():
    images = labelled_images(10)  # of classes 0, 1, 2, 0, ...
    assert shown_queries(images, 3) == [0, 1, 2]
    assert shown_queries(images, 7) == [0, 1, 2, 3, 4, 5, 6]
    two = dataclasses.replace(images, labels=np.array([1, 1, 1, 0, 0, 1, 1, 1, 1, 1]))
    assert shown_queries(two, 5) == [3, 0, 4, 1, 2]
    assert shown_queries(small_images(10), 4) == [0, 1, 2, 3]
    assert shown_queries(small_images(3), 4) == [0, 1, 2]


def test_onnx_gives_the_codes_that_torch_gives(saved):
    session = onnxruntime.InferenceSession(to_onnx(saved))
    images = saved.sampler().sample(7, seed=0)
    for n in (1, 7):
        (codes,) = session.run(["codes"], {"image": images[:n].numpy()})
        assert_close(torch.from_numpy(codes), saved.encode(images[:n]), rtol=1e-4, atol=1e-5)


def test_served_is_the_code_of_a_list_of_pixels(saved):
    served = INFERENCE.served(saved)
    image = saved.sampler().sample(1, seed=0)
    row = {"image": image.flatten().tolist()}
    answer = served.answer(row)
    assert answer.shape == (1, *served.answer_shape)
    assert_close(torch.from_numpy(answer), saved.encode(image))
    assert served.count(row) == 1
    assert served.answer({"image": served.columns[0].example}).shape == answer.shape


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ([0.0] * 15, "image must be a list of 16 pixels, got 15"),
        ([300.0] * 16, r"pixels in \[0, 1\], got 300 to 300"),
    ],
)
def test_what_is_no_image_is_refused_when_served(saved, pixels, message):
    with pytest.raises(ConditionError, match=message):
        INFERENCE.served(saved).answer({"image": pixels})


def test_the_card_says_what_is_predicted_and_its_lines_run(saved):
    card = INFERENCE.card(saved)
    assert "predicts z and hidden layer 2 of G from an image: its code, 11 numbers" in card.what
    session = onnxruntime.InferenceSession(to_onnx(saved))
    names = {"np": np, "n": 64, "session": session, "generator": saved}
    exec(card.onnx, names)  # noqa: S102 (as a reader of the card would)
    assert names["codes"].shape == (64, 11)
    exec(card.python, names)  # noqa: S102
    assert names["points"].shape == (64, 11)
    assert names["again"].shape == (64, 1, 4, 4)


def test_its_samples_are_those_of_the_generator(saved):
    asked = SimpleNamespace(n=5, seed=2, require_options=lambda: None)
    assert torch.equal(INFERENCE.draw(saved, asked), saved.sampler().sample(5, 2))
    assert not INFERENCE.is_judged_by_images
