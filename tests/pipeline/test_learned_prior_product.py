"""What the pipeline does with learned distributions of z.  Kinds: contract, closed form."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from gan.evaluation.frechet import frechet_distance
from gan.evaluation.manifold import manifold_scores
from gan.evaluation.score import normal_score
from gan.evaluation.suite import Evaluation
from gan.randomness import stream
from pipeline.artifacts import to_onnx
from pipeline.product import Measured
from pipeline.products.learned_prior import LEARNED, LEARNED_PRIOR, measure
from tests.gan.small import start_extension

METHODS = tuple(LEARNED)
A_SCORE = normal_score("x", 1.0, 0.1)
NOTHING = Evaluation(scores={}, unavailable={}, n_samples=100)


def saved(method):
    return start_extension(f"learned_prior_{method}", generator__init_range=1.0).saved()


def candidate(method, *, n_real=300):
    """Features are the images themselves."""
    images = torch.rand(n_real, 1, 4, 4, generator=stream(0, "real"))
    real = SimpleNamespace(extractor=lambda x: x.flatten(1), scored_features=images.flatten(1))
    return SimpleNamespace(saved=saved(method), real=real, seed=3)


@pytest.mark.parametrize("method", METHODS)
def test_onnx_turns_noise_into_the_images_that_torch_makes_of_it(method):
    """The learned part is inside the graph."""
    model = saved(method)
    session = onnxruntime.InferenceSession(to_onnx(model))
    sampler = model.sampler()
    for n in (1, 7):
        z = sampler.prior.sample(n, stream(0, "samples"))
        (images,) = session.run(["images"], {"z": z.numpy()})
        assert_close(torch.from_numpy(images), sampler.decode(z), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["stacked", "mixture", "importance"])
def test_the_generator_alone_is_scored_by_the_same_scores(method):
    asked = candidate(method)
    found = {score.name: score.value for score in measure(asked).scores}
    points = asked.saved.plain().sample(10_000, 3).flatten(1)
    real = asked.real.scored_features
    expected = frechet_distance(real, points, seed=3).distance.value
    assert found == {
        "plain_frechet_distance": pytest.approx(expected),
        "plain_coverage": manifold_scores(real, points).coverage.value,
    }


@pytest.mark.parametrize("method", ["top_k", "fixed"])
def test_where_nothing_of_z_is_learned_nothing_is_scored(method):
    assert measure(candidate(method)) == Measured()


def test_too_few_images_are_told_and_no_error():
    found = measure(candidate("mixture", n_real=12))
    assert found.scores == ()
    assert "must hold at least" in found.unavailable["plain"]


def test_what_was_learned_is_told_beside_what_was_not():
    scores = {
        name: dataclasses.replace(A_SCORE, name=name, value=value)
        for name, value in (
            ("frechet_distance", 8.0),
            ("plain_frechet_distance", 12.0),
            ("coverage", 0.7),
            ("plain_coverage", 0.6),
        )
    }
    told = LEARNED_PRIOR.findings(dataclasses.replace(NOTHING, scores=scores), {})
    assert "is 8.00 and the coverage 0.700" in told
    assert "has 12.00 and 0.600" in told
    assert LEARNED_PRIOR.findings(NOTHING, {}) == ""


@pytest.mark.parametrize("method", METHODS)
def test_the_picture_has_ten_images_in_a_row(method, tmp_path):
    LEARNED_PRIOR.draw_picture(SimpleNamespace(saved=saved(method), seed=0), tmp_path)
    with Image.open(tmp_path / LEARNED_PRIOR.picture) as picture:
        assert picture.size == (2 * (10 * 6 + 2), 2 * (10 * 6 + 2))


@pytest.mark.parametrize("method", METHODS)
def test_the_card_draws_the_noise_that_the_graph_takes(method):
    model = saved(method)
    card = LEARNED_PRIOR.card(model)
    assert f"noise of {model.sampler().prior.dim} coordinates; {LEARNED[method]}." in card.what
    assert bool(card.scores) == (model.plain() is not None)
    session = onnxruntime.InferenceSession(to_onnx(model))
    names = {"np": np, "n": 64, "session": session, "generator": model}
    exec(card.onnx, names)  # noqa: S102 (as a reader of the card would)
    assert names["images"].shape == (64, 1, 4, 4)
    exec(card.python, names)  # noqa: S102
    assert torch.equal(names["images"], model.sampler().sample(64, seed=0))


@pytest.mark.parametrize("method", METHODS)
def test_requests_are_answered_by_samples(method):
    model = saved(method)
    served = LEARNED_PRIOR.served(model)
    answer = served.answer({"n": 3, "seed": 5})
    assert_close(torch.from_numpy(answer), model.sampler().sample(3, seed=5), rtol=0, atol=0)
