"""The suite.  Kinds: contract, invariance (each score is that of its own function)."""

import math
import re

import pytest
import torch

from gan.errors import ScoreError
from gan.evaluation.frechet import frechet_distance
from gan.evaluation.manifold import manifold_scores
from gan.evaluation.real_images import RealImages
from gan.evaluation.suite import NO_LABELS, Evaluation, evaluate

N, SIDE = 1_500, 6
PROJECTION = torch.randn(SIDE * SIDE, 8, generator=torch.Generator().manual_seed(7))


class Projection:
    """A feature space of eight random directions."""

    name = "projection"
    digest = "0" * 64

    def __call__(self, images):
        return images.flatten(1).float() @ PROJECTION


def pictures(n, seed):
    """Two classes: bright on the left, bright on the right; soft noise on both."""
    rng = torch.Generator().manual_seed(seed)
    images = 0.2 * torch.rand(n, 1, SIDE, SIDE, generator=rng)
    is_left = torch.rand(n, generator=rng) < 0.5
    images[is_left, :, :, : SIDE // 2] += 0.7
    images[~is_left, :, :, SIDE // 2 :] += 0.7
    return images


def log_probabilities(images):
    left = images[..., : SIDE // 2].mean((1, 2, 3)) - images[..., SIDE // 2 :].mean((1, 2, 3))
    return torch.stack([20 * left, -20 * left], 1).log_softmax(1)


def real_images(**changes):
    fields = {
        "train": pictures(4 * N, 1),
        "valid": pictures(N, 2),
        "scored": pictures(N, 2),
        "extractor": Projection(),
        "log_probabilities": log_probabilities,
        "class_names": ["left", "right"],
    }
    return RealImages(**fields | changes)


@pytest.fixture(scope="module")
def real():
    return real_images()


@pytest.fixture(scope="module")
def honest(real):
    return evaluate(pictures(N, 3), real, seed=0)


def test_every_score_is_finite_within_its_interval_and_under_its_own_name(honest):
    assert len(honest.scores) >= 25
    for name, score in honest.scores.items():
        assert score.name == name
        assert math.isfinite(score.value)
        assert score.low <= score.value <= score.high


def test_of_enough_samples_every_part_can_be_taken(honest):
    assert honest.unavailable == {}


def test_scores_are_those_of_their_own_functions(real, honest):
    points = real.extractor(pictures(N, 3))
    of_frechet = frechet_distance(real.scored_features, points, seed=0)
    of_manifold = manifold_scores(real.scored_features, points)
    assert honest.scores["frechet_distance"] == of_frechet.distance
    assert torch.equal(honest.frechet_by_group, of_frechet.by_group)
    assert honest.scores["coverage"] == of_manifold.coverage
    assert honest.parzen_ll.mean().item() == pytest.approx(
        honest.scores["parzen_ll"].value, rel=1e-12
    )


def test_anchors_are_those_of_training_images_and_do_not_depend_on_the_samples(real, honest):
    other = evaluate(1 - pictures(N, 4), real, seed=0)
    names = [name for name in honest.scores if name.endswith("_real") and name != "accuracy_real"]
    assert {"parzen_ll_real", "frechet_distance_real", "precision_real"} <= set(names)
    for name in names:
        if "accuracy" not in name:
            assert other.scores[name] == honest.scores[name]
    assert (
        honest.scores["frechet_distance"].value < 3 * honest.scores["frechet_distance_real"].value
    )


def test_a_missing_class_is_named(real):
    samples = pictures(4 * N, 5)
    samples = samples[log_probabilities(samples).argmax(1) == 0][:N]
    evaluation = evaluate(samples, real, seed=0)
    assert evaluation.missing_classes == ("right",)
    assert evaluation.starved_classes == ("right",)


def test_noise_lies_farther_from_the_training_images_than_any_real_image(real):
    rng = torch.Generator().manual_seed(0)
    noise = torch.rand(N, 1, SIDE, SIDE, generator=rng).round()
    assert evaluate(noise, real, seed=0).scores["outlier_share"].value > 0.99


def test_noise_does_not_hide_by_being_faint(real):
    noise = torch.rand(N, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    assert evaluate(0.01 * noise, real, seed=0).scores["outlier_share"].value > 0.5


def test_copies_are_far_below_zero_in_the_copying_test(real, honest):
    copies = evaluate(real.train[:N], real, seed=0)
    assert copies.scores["copying_z"].value < -10 < -4 < honest.scores["copying_z"].value


def test_data_without_labels_lack_the_classes_alone():
    evaluation = evaluate(
        pictures(N, 3), real_images(log_probabilities=None, class_names=()), seed=0
    )
    assert evaluation.unavailable["classes"] == NO_LABELS
    assert evaluation.starved_classes == ()
    assert evaluation.unavailable.keys() == {"classes"}


def test_too_few_samples_leave_only_what_can_be_told_of_them(real):
    evaluation = evaluate(pictures(8, 3), real, seed=0)
    assert {"parzen", "frechet", "copying", "two_sample"} <= evaluation.unavailable.keys()
    assert all(re.search(r"at least|needs about", w) for w in evaluation.unavailable.values())
    assert Evaluation.from_record(evaluation.record()).record() == evaluation.record()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, 0], r"samples must be \[n, 1, 6, 6\], got \[1500, 6, 6\]"),
        (lambda x: x[:, :, :5], r"samples must be \[n, 1, 6, 6\], got \[1500, 1, 5, 6\]"),
        (lambda x: x[:0], r"samples must be \[n, 1, 6, 6\], got \[0, 1, 6, 6\]"),
        (lambda x: 2 * x, r"pixels must lie in \[0, 1\], got .* to 1\.\d+"),
        (lambda x: x - 0.5, r"pixels must lie in \[0, 1\], got -0\.\d+ to "),
        (lambda x: x.where(x < 0.89, math.nan), r"pixels must lie in \[0, 1\], got nan"),
        (lambda x: x[:1].repeat(N, 1, 1, 1), "distinct images, got one 1,500 times"),
    ],
)
def test_samples_that_are_no_images_of_the_data_are_refused(real, change, message):
    with pytest.raises(ScoreError, match=message):
        evaluate(change(pictures(N, 3)), real, seed=0)


@pytest.mark.slow
def test_stacked_digits_have_their_modes_counted():
    n = 10_000
    rng = torch.Generator().manual_seed(0)
    digits = torch.randint(10, (n, 3), generator=rng)

    def read_digits(images):
        return digits[: len(images)]

    evaluation = evaluate(pictures(n, 3), real_images(read_digits=read_digits), seed=0)
    assert evaluation.scores["stacked_modes"].value == len(digits.unique(dim=0))
    assert evaluation.scores["stacked_reverse_kl"].value < 0.1
    few = evaluate(pictures(N, 3), real_images(read_digits=read_digits), seed=0)
    assert "stacked_modes" not in few.scores


def test_copies_under_noise_are_seen_among_the_pixels(real, honest):
    rng = torch.Generator().manual_seed(0)
    copies = real.train[:N]
    noisy = (copies + 0.01 * torch.randn(copies.shape, generator=rng)).clamp(0, 1)
    scores = evaluate(noisy, real, seed=0).scores
    assert scores["copying_z_pixels"].value < -10 < honest.scores["copying_z_pixels"].value
    assert scores["authenticity_pixels"].value < 0.05
    held_out = honest.scores["authenticity_test_pixels"].value
    assert abs(honest.scores["authenticity_pixels"].value - held_out) < 0.1


def test_centres_of_k_means_score_above_real_images(honest):
    scores = honest.scores
    assert scores["parzen_ll_centres"].value > scores["parzen_ll_real"].high


def test_as_many_centres_as_training_images_are_no_anchor():
    evaluation = evaluate(pictures(N, 3), real_images(train=pictures(2 * N - 1, 1)), seed=0)
    assert evaluation.unavailable == {
        "parzen_centres": "train must hold at least 3,000 images for 1,500 centres of k-means, "
        "got 2,999"
    }


def test_copies_among_other_samples_raise_the_share_of_copies_by_their_own(real, honest):
    mixed = torch.cat([real.train[: N // 5], pictures(N - N // 5, 3)])
    share = evaluate(mixed, real, seed=0).scores["copy_share"].value
    assert share == pytest.approx(0.2 + 0.8 * honest.scores["copy_share"].value, abs=0.01)
    assert honest.scores["copy_share"].value < 0.03


def test_anchors_are_of_as_many_images_as_there_are_samples(real, honest):
    fewer = evaluate(pictures(N // 3, 3), real, seed=0).scores
    assert fewer["coverage"].value == pytest.approx(fewer["coverage_real"].value, abs=0.05)
    assert fewer["coverage_real"].value < honest.scores["coverage_real"].value - 0.1
    assert fewer["frechet_distance_real"] != honest.scores["frechet_distance_real"]
