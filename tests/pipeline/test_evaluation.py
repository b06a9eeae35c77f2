"""Real images of a data set, and what an evaluation leaves.  Kinds: contract, invariance."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from gan.config import DataConfig, EvaluationConfig, load_config
from gan.errors import ConfigError, DatasetError
from gan.evaluation.score import Score
from gan.evaluation.suite import Evaluation
from gan.metric_names import FRECHET_DISTANCE_VALID, PARZEN_LL_VALID
from pipeline.evaluation import (
    Judged,
    by_metric_name,
    extractors_folder,
    paired_values,
    prepare_extractor,
    read_evaluation,
    real_images,
    write_evaluation,
)
from pipeline.gate import Check
from tests.pipeline.tiny_run import SETTINGS, bright_squares

DATA = DataConfig(dataset="train.npz", test_path="test.npz", n_valid=100)
CFG = EvaluationConfig(extractor_steps=3, n_sigma_images=30, chunk=77)


def of(split, here, *, data=DATA, cfg=CFG):
    return real_images(data, cfg, split=split, extractors=here / "nets")


def an_evaluation(**changes):
    scores = (
        Score(name="precision", value=0.5, low=0.25, high=0.75, standard_error=0.125),
        Score(name="density", value=1.0, low=0.5, high=2.0, unit="share"),
    )
    fields = {
        "scores": {score.name: score for score in scores},
        "unavailable": {"bins": "too few"},
        "n_samples": 7,
        "missing_classes": ("3",),
        "starved_classes": ("3", "5"),
        "details": {"classes": {"p_value": 0.25}},
    }
    return Evaluation(**fields | changes)


# Real images


@pytest.mark.parametrize("split", ["valid", "test"])
def test_images_are_those_of_their_split(here, split):
    real = of(split, here)
    whole, test = (
        images[:, None] / 255 for images in (bright_squares(400, 1), bright_squares(120, 2))
    )
    expected = {
        "train": whole[:300],
        "valid": whole[300:],
        "scored": whole[300:] if split == "valid" else test,
        "for_sigma": whole[300:330],
    }
    for name, images in expected.items():
        found = getattr(real, name)
        assert found.dtype == torch.float32
        assert_array_equal(found.numpy(), images.astype(np.float32))
    assert real.chunk == 77


def test_images_without_labels_have_an_autoencoder_and_no_classes(here):
    real = of("valid", here)
    assert (real.extractor.name, real.log_probabilities) == ("autoencoder", None)
    assert real.scored_labels is None


def test_images_with_labels_have_a_classifier_and_its_classes(here):
    images = bright_squares(200, 4)
    np.savez(here / "labelled.npz", images=images, labels=np.arange(200) % 3)
    data = DataConfig(dataset="labelled.npz", n_valid=50)
    real = of("valid", here, data=data)
    assert real.extractor.name == "classifier"
    assert list(real.class_names) == ["0", "1", "2"]
    probabilities = real.log_probabilities(real.scored).exp()
    assert probabilities.shape == (50, 3)
    assert len(list((here / "nets").iterdir())) == 1  # one net gives classes and features


def test_nets_of_other_training_are_others(here):
    digests = {
        of("valid", here, cfg=dataclasses.replace(CFG, extractor_steps=n)).extractor.digest
        for n in (1, 2, 1)
    }
    assert len(digests) == 2


def test_users_own_features_take_the_place_of_the_net(here, monkeypatch):
    (here / "own_pixels.py").write_text("def pixels(images):\n    return images.flatten(1)\n")
    monkeypatch.syspath_prepend(here)
    cfg = dataclasses.replace(CFG, extractor="own_pixels:pixels")
    real = of("valid", here, cfg=cfg)
    assert torch.equal(real.scored_features, real.scored.flatten(1))
    assert not (here / "nets").exists()
    with pytest.raises(ConfigError, match="pixel of own_pixels must be a function, got no such"):
        of("valid", here, cfg=dataclasses.replace(CFG, extractor="own_pixels:pixel"))


def test_split_that_is_not_there_is_refused(here):
    with pytest.raises(
        DatasetError, match=r"train\.npz comes without test images: set data\.test"
    ):
        of("test", here, data=dataclasses.replace(DATA, test_path=None))


def test_workspaces_of_a_folder_share_their_nets(here):
    first, second = (extractors_folder(Path("runs") / name) for name in "ab")
    assert first == second == here / "runs" / ".extractors"


def test_net_is_trained_beforehand_where_the_objective_asks_for_it(here):
    config = load_config(SETTINGS, ["sweep.objective=parzen_ll_valid"])
    prepare_extractor(config, here / "nets")
    assert not (here / "nets").exists()
    prepare_extractor(load_config(SETTINGS), here / "nets")
    (kept,) = (here / "nets").iterdir()
    real = of("valid", here, cfg=load_config(SETTINGS).base.evaluation)
    assert list((here / "nets").iterdir()) == [kept]
    assert kept.name.startswith(real.extractor.name)


# What is left of an evaluation


def test_metrics_have_the_split_in_their_name_and_an_error_where_it_is_known():
    assert by_metric_name(an_evaluation(), "test") == {
        "precision_test": 0.5,
        "precision_test_se": 0.125,
        "density_test": 1.0,
    }


def test_paired_values_are_those_that_were_taken():
    ll, groups = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0]).double()
    assert paired_values(an_evaluation()) == {}
    found = paired_values(an_evaluation(parzen_ll=ll, frechet_by_group=groups))
    assert list(found) == [PARZEN_LL_VALID, FRECHET_DISTANCE_VALID]
    assert_array_equal(found[PARZEN_LL_VALID], [1.0, 2.0])
    assert_array_equal(found[FRECHET_DISTANCE_VALID], [3.0])
    assert list(paired_values(an_evaluation(parzen_ll=ll))) == [PARZEN_LL_VALID]


def test_evaluation_is_read_back_as_it_was_written(here, tmp_path):
    real, written = of("valid", here), an_evaluation()
    write_evaluation(tmp_path, written, real.extractor)
    found, digest = read_evaluation(tmp_path)
    assert found.record() == written.record()
    assert list(found.scores) == list(written.scores)
    assert digest == real.extractor.digest


def test_an_evaluation_without_features_has_no_digest_of_an_extractor(tmp_path):
    write_evaluation(tmp_path, an_evaluation(), None)
    assert read_evaluation(tmp_path)[1] == ""


def test_summary_is_json_with_the_scores_the_verdicts_and_the_reasons():
    checks = tuple(
        Check(name=name, passed=name == "precise", value=1.0, limit=None, reason="why")
        for name in ("precise", "covers", "distinct")
    )
    judged = Judged(evaluation=an_evaluation(), checks=checks, split="valid", run_id=None)
    found = json.loads(json.dumps(judged.summary()))
    assert found.pop("checks") == [dataclasses.asdict(check) for check in checks]
    assert found.pop("scores") == an_evaluation().record()["scores"]
    assert found == {
        "n_samples": 7,
        "precision_valid": 0.5,
        "precision_valid_se": 0.125,
        "density_valid": 1.0,
        "refused_by": ["covers", "distinct"],
        "unavailable": {"bins": "too few"},
        "details": {"classes": {"p_value": 0.25}},
        "run_id": None,
    }
