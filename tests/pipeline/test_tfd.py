"""The Toronto Face Database on the main line.  Kinds: contract, bad input.

The images are noise in the layout of the database, which is given out on request alone.
"""

import json

import pytest

from tests.gan.small import write_faces

NOTICE = "40 unlabelled images stand in for the Toronto Face Database"
SMALL = [
    *("generator.hidden=[9,8]", "generator.output_sparse_init=5", "discriminator.hidden=[6,5]"),
    *("train.batch_size=4", "train.n_steps=4", "train.report_every=2", "evaluation.score_every=2"),
    *("evaluation.n_samples=100", "evaluation.extractor_steps=3"),
]
SET = [word for setting in SMALL for word in ("--set", setting)]


@pytest.fixture
def faces(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_faces(tmp_path / "TFD_48x48.mat", times=5)


def test_images_of_the_fold_are_counted_and_a_stand_in_is_called_one(gan, faces, caplog):
    answer = gan("data", "tfd", "--set", "data.fold=2", "--json")
    assert answer.status == 0
    facts = json.loads(answer.out)
    assert (facts["n_train"], facts["n_valid"], facts["image_shape"]) == (40, 15, [1, 48, 48])
    assert facts["notice"].startswith(NOTICE)
    assert f"{faces}: {NOTICE}" in caplog.text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.fold=5", "base.data.fold: input should be less than or equal to 4, got 5"),
        ("data.n_valid=3", "whose folds say what validates: leave it at 10000, got 3"),
        ("data.test_path=test.npz", "whose folds say what tests: leave it out, got test.npz"),
    ],
)
def test_settings_that_folds_decide_are_refused_before_anything_is_run(
    gan, faces, tmp_path, setting, message
):
    answer = gan("run", "tfd", "--set", setting)
    assert answer.status != 0
    assert message in answer.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.mlflow
def test_a_run_on_few_images_says_which_scores_it_lacks_and_is_refused(gan, faces):
    answer = gan("run", "tfd", *SET, "--json")
    assert answer.status == 3
    result = json.loads(answer.out)
    assert result["notice"].startswith(NOTICE)
    assert {"parzen_ll_valid", "parzen_ll_test"} <= result.keys()
    assert result["outcome"] == "refused"
    assert "not_smoothed: not available: real must hold at least" in result["reason"]


def test_searching_the_file_does_not_ask_how_many_images_are_held_out(gan, faces):
    answer = gan("similar", "train:0", "--to", faces, "--model", "nowhere")
    assert answer.status == 1
    assert "n_valid" not in answer.err
    assert "nowhere" in answer.err
