"""The score of samples in a file, against loops in NumPy (independent reference, invariance)."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from gan.config import DataConfig
from gan.errors import DatasetError
from gan.evaluation.parzen import FINE_GRID, PAPER_GRID, choose_sigma
from pipeline import scoring
from pipeline.scoring import score_file
from tests.gan.oracles import parzen_log_likelihood
from tests.pipeline.tiny_run import bright_squares

DATA = DataConfig(dataset="train.npz", test_path="test.npz", n_valid=100)


@pytest.fixture
def samples(here):
    """Images [60, 8, 8] uint8 in samples.npy."""
    images = bright_squares(60, 3)
    np.save(here / "samples.npy", images)
    return images


def unit_rows(images):
    return images.reshape(len(images), -1) / 255


def expected_score(images, valid, samples, grid):
    """Log-likelihoods of `images`, by the width that is best on `valid`; and that width."""
    rows = [unit_rows(part) for part in (images, valid, samples)]
    means = [parzen_log_likelihood(rows[1], rows[2], sigma).mean() for sigma in grid]
    sigma = grid[int(np.argmax(means))]
    return parzen_log_likelihood(rows[0], rows[2], sigma), sigma


@pytest.mark.parametrize("split", ["valid", "test"])
def test_score_is_that_of_the_protocol(here, samples, split):
    valid = bright_squares(400, 1)[-100:]
    images = valid if split == "valid" else bright_squares(120, 2)
    result = score_file(here / "samples.npy", data=DATA, split=split)
    for grid, mark in ((PAPER_GRID, ""), (FINE_GRID, "_fine")):
        expected, sigma = expected_score(images, valid, samples, grid)
        assert_allclose(result[f"parzen_sigma{mark}"], sigma, rtol=1e-12, atol=0)
        # The file holds bytes, which become float32.
        assert_allclose(result[f"parzen_ll_{split}{mark}"], expected.mean(), rtol=1e-4, atol=0)
        if not mark:
            error = expected.std() / np.sqrt(len(expected))
            assert_allclose(result[f"parzen_ll_{split}_se"], error, rtol=1e-4, atol=0)
    assert result["n_samples"] == 60


def test_width_is_chosen_on_the_first_thousand_validation_images(here, samples, monkeypatch):
    images = bright_squares(1300, 4)
    np.savez(here / "many.npz", images=images)
    seen = []

    def choose(valid, *args, **settings):
        seen.append(valid.numpy())
        return choose_sigma(valid, *args, **settings)

    monkeypatch.setattr(scoring, "choose_sigma", choose)
    data = DataConfig(dataset="many.npz", n_valid=1200)
    score_file(here / "samples.npy", data=data, split="valid")
    assert len(seen) == 2
    for chosen_on in seen:
        expected = images[100:1100, None] / 255
        assert_allclose(chosen_on, expected, rtol=1e-6, atol=0)


def test_score_does_not_depend_on_the_form_of_the_file(here, samples):
    np.savez(here / "samples.npz", samples=samples)
    column = pa.array([image.tobytes() for image in samples], pa.binary(64))
    schema = pa.schema([("image", column.type)], metadata={"image_shape": "8x8"})
    pq.write_table(pa.table([column], schema=schema), here / "samples.parquet")
    (here / "pictures").mkdir()
    for i, image in enumerate(samples):
        Image.fromarray(image).save(here / "pictures" / f"{i:03d}.png")
    names = ("samples.npy", "samples.npz", "samples.parquet", "pictures")
    results = [score_file(here / name, data=DATA, split="valid") for name in names]
    assert results[1:] == results[:-1]


def test_test_images_are_not_opened_for_the_score_on_validation_images(here, samples, monkeypatch):
    opened = []
    monkeypatch.setattr(scoring, "load_test", opened.append)
    score_file(here / "samples.npy", data=DATA, split="valid")
    assert opened == []


def test_samples_of_another_shape_are_refused(here):
    np.save(here / "wide.npy", np.zeros((5, 8, 9), np.uint8))
    with pytest.raises(
        DatasetError,
        match=r"wide\.npy: samples must have the shape of the images "
        r"of train\.npz, \[1, 8, 8\], got \[1, 8, 9\]",
    ):
        score_file(here / "wide.npy", data=DATA, split="valid")


def test_command_scores_on_a_data_set_by_path(gan, here, samples):
    options = ("--dataset", "train.npz", "--n-valid", "100", "--test-path", "test.npz")
    answer = gan("score", "samples.npy", *options, "--split", "test", "--json")
    assert answer.status == 0
    expected = score_file(here / "samples.npy", data=DATA, split="test")
    assert json.loads(answer.out) == expected
    shown = f"{expected['parzen_ll_test']:.3f} ± {expected['parzen_ll_test_se']:.3f}"
    assert f"parzen_ll_test       {shown}\n" in answer.err
