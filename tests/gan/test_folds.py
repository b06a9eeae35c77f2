"""Scores over folds.  Kinds: independent reference (NumPy), closed form, bad input."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import logsumexp

from gan.config import with_overrides
from gan.datasets.splits import load_test, load_train_valid
from gan.errors import ConfigError
from gan.folds import over_folds, score_folds, train_stages
from gan.randomness import stream_seed
from tests.gan.small import small_config, write_faces


def stages_on(dataset):
    first = small_config(
        data__dataset=dataset,
        train__n_steps=3,
        train__batch_size=4,
        evaluation__n_samples=100,
        generator__activations=["relu", "sigmoid"],
        generator__sigmoid_bias=-2.0,
        generator__max_column_norm=1.9365,
        discriminator__max_column_norm=1.9365,
    )
    stack = {"method": "stacked", "hidden": [9], "begin": "random", "output": "sigmoid"}
    return [first, with_overrides(first, {"learned_prior": stack, "seed": 1})]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    stages = stages_on(write_faces(tmp_path_factory.mktemp("faces") / "faces.mat"))
    return stages, list(score_folds(stages, device="cpu"))


def sample_seed(stage):
    return stream_seed(stage.seed, "evaluate") % 2**31


def parzen(x, samples, sigma):
    x, samples = (images.reshape(len(images), -1).astype(np.float64) for images in (x, samples))
    exponents = -((x[:, None] - samples[None]) ** 2).sum(2) / (2 * sigma**2)
    d = x.shape[1]
    normaliser = np.log(len(samples)) + d * np.log(sigma * np.sqrt(2 * np.pi))
    return (logsumexp(exponents, axis=1) - normaliser).mean()


def test_each_fold_has_its_width_by_its_validation_images_and_its_score_by_its_test_images(scored):
    stages, folds = scored
    assert [scores[0].fold for scores, _ in folds] == [0, 1, 2, 3, 4]
    grid = np.logspace(-1, 0, 10)
    for scores, generators in folds:
        for stage, score, saved in zip(stages, scores, generators, strict=True):
            samples = saved.sampler().sample(100, seed=sample_seed(stage)).numpy()
            data = dataclasses.replace(stage.data, fold=score.fold)
            valid, test = load_train_valid(data)[1].images / 255, load_test(data).images / 255
            on_valid = [parzen(valid, samples, sigma) for sigma in grid]
            assert_allclose(score.sigma, grid[np.argmax(on_valid)], rtol=1e-12)
            assert_allclose(score.parzen_ll_valid, max(on_valid), rtol=1e-9)
            assert_allclose(score.parzen_ll_test, parzen(test, samples, score.sigma), rtol=1e-9)
            assert (score.n_unlabeled, score.n_valid, score.n_test) == (8, 3, 4)


def test_folds_that_train_on_the_same_images_share_their_generators(scored):
    _, folds = scored
    assert len({id(saved) for _, generators in folds for saved in generators}) == 2


def test_folds_that_train_on_others_have_generators_of_their_own(tmp_path):
    stages = stages_on(write_faces(tmp_path / "faces.mat", is_shared=False))[:1]
    made = [generators[0] for _, generators in score_folds(stages, device="cpu", folds=[0, 1, 2])]
    assert made[0] is made[2]
    assert made[0] is not made[1]
    assert made[1].config.data.fold == 1


def test_a_stage_stands_on_the_generator_before_it(scored):
    stages, _ = scored
    images, _ = load_train_valid(stages[0].data)
    first, second = train_stages(stages, images, device="cpu")
    assert second.config.task == "learned_prior"
    assert second.config.generator == first.config.generator
    # Trained on from there: nearer to it than to any new one.
    weight, before = second.G.G.linears[0].weight, first.G.linears[0].weight
    assert 0 < (weight - before).norm() < 0.5 * before.norm()


def test_standard_error_is_that_of_the_mean_over_folds():
    scores = [2050.0, 2057.0, 2064.0, 2010.0, 2104.0]
    mean, error = over_folds(scores)
    assert_allclose(mean, np.mean(scores), rtol=1e-15)
    assert_allclose(error, np.std(scores, ddof=1) / np.sqrt(5), rtol=1e-14)


def test_data_without_folds_are_refused():
    with pytest.raises(ConfigError, match=r"data\.dataset must be a \.mat .*, got mnist"):
        next(score_folds([small_config()], device="cpu"))
