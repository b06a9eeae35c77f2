"""Real images in place of samples.  Kinds: invariance (each anchor is its own score), contract."""

import pytest
import torch

from gan.errors import ScoreError
from gan.evaluation.bins import lloyd
from gan.evaluation.frechet import frechet_distance
from gan.evaluation.manifold import manifold_scores
from gan.evaluation.neighbours import nearest_neighbours
from gan.evaluation.parzen import PAPER_GRID, choose_sigma
from gan.evaluation.parzen_anchors import parzen_with_errors
from gan.evaluation.pixel_levels import grey_share
from gan.evaluation.real_images import LLOYD_STEPS, RealImages
from gan.randomness import stream


class Counted:
    """Four features, the means of the rows, and how often they were asked for."""

    name = "rows"
    digest = "0" * 64

    def __init__(self):
        self.n_calls = 0

    def __call__(self, images):
        self.n_calls += 1
        return images.flatten(1).view(len(images), 4, 4).mean(2)


def pictures(n, seed):
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def real():
    return RealImages(
        train=pictures(300, 1),
        valid=pictures(90, 2),
        scored=pictures(100, 3),
        extractor=Counted(),
        n_sigma_images=40,
        chunk=33,
    )


def test_features_are_taken_once(real):
    for _ in range(2):
        assert torch.equal(real.train_features, Counted()(real.train))
        assert torch.equal(real.scored_features, Counted()(real.scored))
    assert real.extractor.n_calls == 2


def drawn(n):
    """Rows of the training images that stand in for n samples."""
    return torch.randperm(300, generator=stream(0, "anchors"))[:n]


def test_anchors_are_the_scores_of_as_many_training_images_as_there_are_samples(real):
    scored = Counted()(real.scored)
    for n in (90, 150, 9_999):
        points = Counted()(real.train[drawn(n)])
        assert len(points) == min(n, 300)
        assert real.frechet(n).distance == frechet_distance(scored, points, seed=0).distance
        manifold = manifold_scores(scored, points)
        for name in ("precision", "recall", "density", "coverage"):
            assert getattr(real.manifold(n), name) == getattr(manifold, name)
    assert real.frechet(90) is real.frechet(90)
    assert real.manifold(150) is real.manifold(150)


def test_what_needs_no_samples_is_of_the_scored_images(real):
    assert real.grey == grey_share(real.scored)
    nearest = nearest_neighbours(real.scored, real.train)
    assert torch.equal(real.nearest.indices, nearest.indices)


def test_width_is_chosen_by_the_first_validation_images(real):
    assert torch.equal(real.for_sigma, real.valid[:40])
    expected = choose_sigma(real.valid[:40], real.train, grid=PAPER_GRID)
    assert real.ceiling(300).sigma == expected


def test_ceiling_has_as_many_training_images_as_there_are(real):
    assert real.ceiling(120).n_samples == 120
    assert real.ceiling(9_999).n_samples == 300
    assert real.ceiling(9_999) is real.ceiling(300)
    assert real.ceiling(120) is not real.ceiling(300)


def test_centres_are_those_of_k_means_from_training_images(real):
    found = real.centres(60)
    points = real.train.flatten(1)
    centres = lloyd(points, points[drawn(60)], n_steps=LLOYD_STEPS).view(-1, 1, 4, 4)
    sigma = choose_sigma(real.for_sigma, centres, grid=PAPER_GRID)
    expected = parzen_with_errors(real.scored, centres, sigma=sigma, seed=0)
    assert found.sigma == sigma
    torch.testing.assert_close(found.log_likelihood, expected.log_likelihood, rtol=1e-9, atol=1e-9)
    assert found.score.name == "parzen_ll_centres"
    assert real.centres(60) is found


def test_more_centres_than_half_the_training_images_are_no_smoothing(real):
    real.centres(150)
    message = "train must hold at least 302 images for 151 centres of k-means, got 300"
    with pytest.raises(ScoreError, match=message):
        real.centres(151)


def test_labels_are_the_classifiers_answers_once(real):
    assert real.scored_labels is None
    calls = []

    def log_probabilities(images):
        calls.append(len(images))
        return torch.stack([images[:, 0, 0, 0], images[:, 0, 3, 3]], 1)

    labelled = RealImages(
        train=real.train,
        valid=real.valid,
        scored=real.scored,
        extractor=Counted(),
        log_probabilities=log_probabilities,
    )
    expected = (real.scored[:, 0, 3, 3] > real.scored[:, 0, 0, 0]).long()
    for _ in range(2):
        assert torch.equal(labelled.scored_labels, expected)
    assert calls == [100]


def test_two_sets_share_nothing_that_they_keep(real):
    other = RealImages(
        train=real.train[:200], valid=real.valid, scored=real.scored, extractor=Counted()
    )
    assert other.ceiling(120).score != real.ceiling(120).score
