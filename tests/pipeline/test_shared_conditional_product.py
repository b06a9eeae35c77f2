"""What the pipeline does with the shared model.  Kinds: contract, closed form, bad input."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from torch.testing import assert_close

from gan.config import LimitsConfig
from gan.datasets.files import read_image
from gan.errors import ConditionError, ConfigError, DatasetError
from gan.evaluation.completion import questions
from gan.evaluation.score import normal_score
from gan.evaluation.suite import Evaluation
from gan.extensions.shared_conditional.nets import Gumbel
from gan.masks import GROUPS
from gan.randomness import stream
from pipeline import product
from pipeline.artifacts import to_onnx
from pipeline.completion_picture import completion_picture
from pipeline.product import Asked, Candidate
from pipeline.products import shared_conditional
from pipeline.products.shared_conditional import (
    GATED,
    PART,
    SHARED_CONDITIONAL,
    classifies,
    completes_likelier,
    completes_truer,
    findings,
    measure,
    measure_test,
    read_mask,
    values,
)
from tests.gan.small import labelled_images, start_extension

SHAPE = (1, 4, 4)
NOTHING = Evaluation(scores={}, unavailable={}, n_samples=0)


@pytest.fixture(scope="module")
def saved():
    run = start_extension("shared_conditional")
    list(run.train())
    return run.saved()


@pytest.fixture
def candidate(saved, monkeypatch, tmp_path):
    """Train, validation and test images are pictures of noise of three classes."""
    train, valid, test = (labelled_images(n, seed=n) for n in (60, 45, 36))
    real = SimpleNamespace(
        log_probabilities=lambda x: torch.eye(3)[x.flatten(1).sum(1).long() % 3]
    )
    for module in (shared_conditional, product):
        monkeypatch.setattr(module, "load_train_valid", lambda data: (train, valid))
    monkeypatch.setattr(product, "load_test", lambda data: test)
    monkeypatch.setattr(product, "real_images", lambda *_, **__: real)
    return Candidate(saved=saved, config=saved.config, split="valid", extractors=tmp_path, seed=3)


# Scores


def test_every_group_has_every_score_beside_the_simple_ways(candidate):
    found = measure(candidate)
    names = {score.name for score in found.scores}
    for group in GROUPS:
        for quantity in ("ll", "agreement", "squared_error", "diversity"):
            for end in ("", "_nearest", "_mean"):
                assert f"completion_{quantity}_{group}{end}" in names
        assert f"completion_drawn_agreement_{group}" in names
    assert {"completion_ll", "classification_error"} <= names
    assert len(names) == len(found.scores) == 9 * 13 + 2
    details = found.details[PART]
    assert details["n_images"] == 30  # a third of the 45 chooses
    assert details["sigma"].keys() == details["n_nearest"].keys() == GROUPS.keys()


def test_the_report_has_every_score_in_one_group(candidate):
    told = [name for group in SHARED_CONDITIONAL.groups for name in group.good]
    assert len(told) == len(set(told))
    assert set(told) == {score.name for score in measure(candidate).scores}


def test_the_mean_of_what_is_paired_is_the_score(candidate):
    scores = {score.name: score.value for score in measure(candidate).scores}
    paired = values(candidate)["completion_ll_valid"]
    assert paired.shape == (30,)
    assert_allclose(paired.mean(), scores["completion_ll"], rtol=1e-9)
    by_group = [scores[f"completion_ll_{group}"] for group in GROUPS]
    assert_allclose(np.mean(by_group), scores["completion_ll"], rtol=1e-9)


def test_on_test_images_the_widths_are_those_of_validation_images(candidate):
    on_test = measure(dataclasses.replace(candidate, split="test"))
    on_valid = measure(candidate)
    assert on_test.details[PART]["n_images"] == 36
    for what in ("sigma", "n_nearest"):
        assert on_test.details[PART][what] == on_valid.details[PART][what]
    metrics = measure_test(candidate)
    assert metrics["completion_ll_test"] == next(
        score.value for score in on_test.scores if score.name == "completion_ll"
    )


def test_without_a_classifier_nothing_is_measured(candidate, monkeypatch):
    blind = SimpleNamespace(log_probabilities=None)
    monkeypatch.setattr(product, "real_images", lambda *_, **__: blind)
    found = measure(candidate)
    assert found.scores == ()
    assert found.unavailable == {PART: "the data set has no labels"}
    assert findings(found.added_to(NOTHING), {}) == ""


# Checks


def evaluation(*, own=0.5, simple=0.4, worst=None, error=0.02):
    """The same everywhere but in the group `worst`, which has 0.1 less."""
    scores = {}
    for group in GATED:
        for quantity in ("ll", "agreement"):
            stem = f"completion_{quantity}_{group}"
            scores[stem] = own - 0.1 * (group == worst)
            scores[f"{stem}_nearest"], scores[f"{stem}_mean"] = simple, simple - 0.2
    scores["classification_error"] = error
    named = {name: normal_score(name, value, 0.01) for name, value in scores.items()}
    return dataclasses.replace(NOTHING, scores=named)


@pytest.mark.parametrize("check", [completes_likelier, completes_truer])
def test_a_gain_on_both_simple_ways_under_every_mask_passes(check):
    passed = check(evaluation(), LimitsConfig())
    assert passed.passed
    assert_allclose(passed.value, 0.1)


@pytest.mark.parametrize("check", [completes_likelier, completes_truer])
def test_one_group_without_a_gain_is_enough_for_a_refusal(check):
    refused = check(evaluation(own=0.45, worst="random_25"), LimitsConfig())
    assert not refused.passed
    assert_allclose(refused.value, -0.05)
    assert "with random 25 (limit" in refused.reason


def test_masks_that_show_less_than_a_quarter_are_not_judged():
    assert set(GROUPS) - set(GATED) == {"label_only", "nothing"}


@pytest.mark.parametrize(("error", "passed"), [(0.025, True), (0.0251, False)])
def test_classification_has_a_limit(error, passed):
    check = classifies(evaluation(error=error), LimitsConfig())
    assert check.passed == passed
    assert check.limit == 0.025


@pytest.mark.parametrize("check", [completes_likelier, completes_truer, classifies])
@pytest.mark.parametrize("allowed", [True, False])
def test_what_could_not_be_measured_passes_only_where_that_is_allowed(check, allowed):
    blind = dataclasses.replace(NOTHING, unavailable={PART: "no labels"})
    found = check(blind, LimitsConfig(allow_unavailable=allowed))
    assert found.passed == allowed
    assert found.reason == "not available: no labels"


def test_findings_count_the_groups_that_gain():
    text = findings(evaluation(own=0.45, worst="half"), {"classification_error_test": 0.0213})
    assert "likelier than under nearest-neighbour and mean completion in 6" in text
    assert "2.00 % of validation images" in text
    assert text.endswith("of test images 2.13 %.")


# Pictures


def test_the_picture_is_written(candidate, tmp_path):
    SHARED_CONDITIONAL.draw_picture(candidate, tmp_path)
    with Image.open(tmp_path / SHARED_CONDITIONAL.picture) as picture:
        assert picture.mode == "RGB"
        assert picture.height > 2 * 9 * 56


def test_a_picture_shows_what_is_hidden_in_a_colour_of_its_own(tmp_path):
    images, labels = torch.ones(3, *SHAPE), torch.zeros(3, dtype=torch.int64)
    asked = {"nothing": questions(images, labels, n=3, seed=0)["nothing"].part(0, 1)}
    drawn = torch.zeros(1, 2, *SHAPE)
    completion_picture(asked, {"nothing": drawn}, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        row = [picture.getpixel((176 + column * 60 + 20, 28 + 20)) for column in range(4)]
    assert row == [(255, 255, 255), (92, 115, 153), (0, 0, 0), (0, 0, 0)]


# ONNX and the served model


def test_onnx_completes_as_torch_does(saved):
    session = onnxruntime.InferenceSession(to_onnx(saved))
    for n in (1, 7):
        image = torch.rand(n, *SHAPE, generator=stream(0, "image"))
        mask = (torch.rand(n, *SHAPE, generator=stream(0, "mask")) < 0.5).float()
        z = torch.randn(n, 5, generator=stream(0, "z"))
        noise = Gumbel(3).sample(n, stream(0, "noise"))
        for condition in (torch.zeros(n, 3), torch.eye(3)[torch.arange(n) % 3]):
            inputs = {"image": image, "mask": mask, "condition": condition, "z": z, "noise": noise}
            given = {name: value.numpy() for name, value in inputs.items()}
            (found,) = session.run(["images"], given)
            expected = SHARED_CONDITIONAL.exported(saved).net(*inputs.values())
            assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


def answer(saved, **row):
    return SHARED_CONDITIONAL.served(saved).answer({"n": 3, "seed": 2, **row})


def test_served_rows_are_samples_images_of_a_class_or_completions(saved):
    sampler = saved.sampler()
    assert_allclose(answer(saved), sampler.sample(3, 2), rtol=0, atol=0)
    assert_allclose(answer(saved, condition=1), saved.draw([1], n=3, seed=2), rtol=0, atol=0)
    image = np.linspace(0, 1, 16)
    found = answer(saved, image=image, mask="left_half", condition=1)
    pixels = torch.from_numpy(image).float().view(1, *SHAPE)
    mask = torch.zeros(1, *SHAPE)
    mask[..., :2] = 1
    expected = sampler.complete(pixels, mask, labels=torch.tensor([1]), draws=3, seed=2)
    assert_allclose(found, expected.images[0], rtol=0, atol=0)
    assert_allclose(found[..., :2], pixels[..., :2].expand(3, -1, -1, -1), rtol=0, atol=0)


def test_the_example_of_a_request_is_answered(saved):
    served = SHARED_CONDITIONAL.served(saved)
    row = {column.name: column.example for column in served.columns}
    assert served.answer(row).shape == (2, *SHAPE)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"condition": 3}, "must be a class from 0 to 2, got 3"),
        ({"image": [0.0] * 15, "mask": "left_half"}, r"image must be 16 numbers in \[0, 1\]"),
        ({"image": [2.0] * 16, "mask": "left_half"}, r"image must be 16 numbers in \[0, 1\]"),
        ({"image": [0.0] * 16, "mask": "middle"}, "mask must be one of left_half, .*got 'middle'"),
        ({"image": [0.0] * 16}, "an image needs a mask: one of left_half"),
        ({"mask": "label_only"}, "label_only shows the class alone: give it by condition"),
        ({"mask": "left_half"}, "a mask that shows pixels needs an image"),
    ],
)
def test_requests_that_do_not_fit_are_refused(saved, row, problem):
    with pytest.raises(ConditionError, match=problem):
        answer(saved, **row)


# The command line


def draw(saved, **options):
    return SHARED_CONDITIONAL.draw(saved, Asked(n=3, seed=2, options=options))


@pytest.fixture
def image_file(tmp_path):
    array = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    Image.fromarray(array).save(tmp_path / "image.png")
    np.save(tmp_path / "image.npy", array)
    return tmp_path / "image.png"


def test_completions_of_a_file_under_a_mask_of_a_name_or_a_file(saved, image_file):
    image = torch.from_numpy(read_image(image_file, image_shape=SHAPE))
    mask = torch.zeros(SHAPE)
    mask[..., :2] = 1
    expected = saved.sampler().complete(image[None], mask[None], labels=None, draws=3, seed=2)
    by_name = draw(saved, image=str(image_file), mask="left_half")
    assert_allclose(by_name, expected.images[0], rtol=0, atol=0)
    for name, array in (("full", mask.numpy()), ("flat", mask[0].numpy() > 0)):
        path = image_file.with_name(f"{name}.npy")
        np.save(path, array)
        by_file = draw(saved, image=str(image_file.with_suffix(".npy")), mask=str(path))
        assert_allclose(by_file, by_name, rtol=0, atol=0)


def test_without_an_image_the_command_draws_of_a_class_or_of_any(saved):
    assert_allclose(draw(saved, condition="2"), saved.draw([2], n=3, seed=2), rtol=0, atol=0)
    by_mask = draw(saved, condition="2", mask="label_only")
    assert_allclose(by_mask, draw(saved, condition="2"), rtol=0, atol=0)
    assert_allclose(draw(saved), saved.sampler().sample(3, 2), rtol=0, atol=0)


def test_a_random_mask_is_that_of_the_seed(saved, image_file):
    ours, again = (draw(saved, image=str(image_file), mask="random_50") for _ in range(2))
    assert_allclose(ours, again, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"condition": "3"}, "must be a class from 0 to 2, got 3"),
        ({"condition": "seven"}, "--condition takes a class, got 'seven'"),
        ({"mask": "middle"}, "mask must be one of left_half, .*got 'middle'"),
        ({"mask": "left_half"}, "a mask that shows pixels needs an image"),
        ({"mask": "label_only"}, "label_only shows the class alone: give it by condition"),
        ({"steps": "3"}, "this model takes no steps: leave out --steps"),
        ({"image": "image.png"}, "an image needs a mask: one of left_half, .*or a .npy file"),
        ({"image": "none.png", "mask": "left_half"}, "none.png: cannot be read: No such file"),
        ({"image": "mask.txt", "mask": "left_half"}, "read from a PNG, JPEG or .npy file"),
        ({"image": "wide.npy", "mask": "left_half"}, r"size .*\[1, 4, 4\], got \[1, 4, 5\]"),
        ({"image": "bright.npy", "mask": "left_half"}, r"floats must lie in \[0, 1\]"),
        ({"image": "line.npy", "mask": "left_half"}, r"must be \[h, w\], .*got \[4\]"),
        ({"image": "image.png", "mask": "wide.npy"}, r"\[1, 4, 4\] or \[4, 4\], got \[4, 5\]"),
        ({"image": "image.png", "mask": "bright.npy"}, "must hold 0, hidden, and 1, visible"),
        ({"image": "image.png", "mask": "none.npy"}, "none.npy: cannot be read: No such file"),
        ({"image": "image.png", "mask": "archive.npy"}, "one array, .*: it is an .npz archive"),
    ],
)
def test_what_does_not_fit_is_refused_by_one_line(
    saved, image_file, monkeypatch, options, problem
):
    monkeypatch.chdir(image_file.parent)
    np.save("wide.npy", np.zeros((4, 5)))
    np.save("bright.npy", np.full((4, 4), 2.0))
    np.save("line.npy", np.zeros(4))
    with open("archive.npy", "wb") as file:
        np.savez(file, a=np.zeros((4, 4)))
    with pytest.raises(ConfigError, match=problem) as refusal:
        draw(saved, **options)
    assert "\n" not in str(refusal.value)


def test_an_array_is_of_a_npy_alone(tmp_path):
    with pytest.raises(DatasetError, match=r"an array is read from a \.npy file"):
        read_mask(tmp_path / "mask.npz", SHAPE)


def test_a_mask_without_a_pixel_visible_completes_from_nothing(saved, image_file):
    hidden = draw(saved, image=str(image_file), mask="nothing")
    assert_allclose(hidden, draw(saved), rtol=0, atol=0)
