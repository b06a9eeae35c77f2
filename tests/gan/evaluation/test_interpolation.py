"""Paths in z and scores along them: closed forms, plain loops, limits, errors."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import log_softmax
from torch.testing import assert_close

from gan.errors import ScoreError
from gan.evaluation.interpolation import (
    path_confidence,
    relative_path_length,
    spherical_path,
    squared_path_speed,
    straight_path,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def ends(rng):
    return torch.from_numpy(rng.normal(size=(2, 7, 5)))


# Paths


def test_straight_path_has_equal_steps_between_its_ends(ends):
    path = straight_path(*ends, n_steps=6)
    expected = np.stack(
        [ends[0].numpy() + t * (ends[1] - ends[0]).numpy() for t in np.linspace(0, 1, 6)], 1
    )
    assert_allclose(path.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [straight_path, spherical_path])
def test_paths_begin_and_end_at_their_ends(ends, make):
    path = make(*ends, n_steps=4)
    assert path.shape == (7, 4, 5)
    assert_close(path[:, 0], ends[0], rtol=1e-12, atol=1e-12)
    assert_close(path[:, -1], ends[1], rtol=1e-12, atol=1e-12)


def test_spherical_path_between_unit_vectors_is_shoemakes_formula(ends):
    a, b = (torch.nn.functional.normalize(z, dim=1).numpy() for z in ends)
    path = spherical_path(torch.from_numpy(a), torch.from_numpy(b), n_steps=5)
    angle = np.arccos((a * b).sum(1, keepdims=True))
    for i, t in enumerate(np.linspace(0, 1, 5)):
        expected = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
        assert_allclose(path[:, i].numpy(), expected, rtol=1e-10, atol=1e-12)


def test_spherical_path_on_the_quarter_circle_turns_evenly():
    path = spherical_path(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), n_steps=4)
    angles = torch.arange(4) * math.pi / 6
    expected = 2 * torch.stack([angles.cos(), angles.sin()], 1)
    assert_close(path[0], expected, rtol=1e-6, atol=1e-6)


def test_norm_along_a_spherical_path_goes_linearly(ends):
    norms = torch.linalg.vector_norm(spherical_path(*ends, n_steps=9), dim=2)
    expected = straight_path(norms[:, :1], norms[:, -1:], n_steps=9)[..., 0]
    assert_close(norms, expected, rtol=1e-12, atol=1e-12)


def test_spherical_path_between_parallel_ends_is_straight(ends):
    near = ends[0] * 3
    assert_close(
        spherical_path(ends[0], near, n_steps=5),
        straight_path(ends[0], near, n_steps=5),
        rtol=1e-12,
        atol=1e-12,
    )


def test_spherical_path_of_the_same_point_stays_there(ends):
    path = spherical_path(ends[0], ends[0], n_steps=3)
    assert_close(path, ends[0][:, None].expand(7, 3, 5), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [straight_path, spherical_path])
def test_paths_of_bad_shape_are_refused(ends, make):
    with pytest.raises(ValueError, match=r"both be \[n_paths, dim\], got \[7, 5\] and \[6, 5\]"):
        make(ends[0], ends[1, :6], n_steps=3)
    with pytest.raises(ValueError, match="n_steps must be >= 2, got 1"):
        make(*ends, n_steps=1)


def test_spherical_path_without_a_direction_is_refused(ends):
    with pytest.raises(ValueError, match="ends other than 0, got 0"):
        spherical_path(ends[0], torch.zeros(7, 5, dtype=torch.float64), n_steps=3)
    with pytest.raises(ValueError, match="not opposite, got an opposite pair"):
        spherical_path(ends[0], -2 * ends[0], n_steps=3)


# Length and speed


def test_straight_line_has_relative_length_one_and_the_speed_of_its_ends(ends):
    path = straight_path(*ends, n_steps=6)
    length = relative_path_length(path, space="pixels")
    speed = squared_path_speed(path, space="pixels")
    assert_allclose([length.value, length.standard_error], [1, 0], rtol=1e-12, atol=1e-12)
    expected = (ends[1] - ends[0]).square().sum(1).mean().item()
    assert_allclose(speed.value, expected, rtol=1e-12, atol=0)


def test_half_circle_has_relative_length_near_half_pi():
    angles = torch.linspace(0, math.pi, 181, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    length = relative_path_length(torch.stack([circle, 5 * circle]), space="features")
    chord = 180 * 2 * math.sin(math.pi / 360) / 2
    assert_allclose(length.value, chord, rtol=1e-12, atol=0)
    assert_allclose(length.value, math.pi / 2, rtol=1e-4, atol=0)


def test_length_and_speed_equal_plain_loops(rng):
    p = rng.normal(size=(6, 5, 4))
    lengths, speeds = [], []
    for path in p:
        steps = [np.linalg.norm(path[t + 1] - path[t]) for t in range(4)]
        lengths.append(sum(steps) / np.linalg.norm(path[4] - path[0]))
        speeds.append(np.mean([(step / 0.25) ** 2 for step in steps]))
    length = relative_path_length(torch.from_numpy(p), space="pixels")
    speed = squared_path_speed(torch.from_numpy(p), space="pixels")
    for score, values in ((length, lengths), (speed, speeds)):
        error = np.std(values, ddof=1) / math.sqrt(6)
        assert_allclose(score.value, np.mean(values), rtol=1e-12, atol=0)
        assert_allclose(score.standard_error, error, rtol=1e-12, atol=0)
    assert (length.name, speed.name) == ("path_length_pixels", "path_speed_pixels")


def test_images_and_order_of_paths_do_not_matter(rng):
    points = torch.from_numpy(rng.normal(size=(6, 5, 12)))
    images = points.view(6, 5, 3, 2, 2).flip(0)
    for score in (relative_path_length, squared_path_speed):
        expected = score(points, space="pixels").value
        assert_allclose(score(images, space="pixels").value, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("score", [relative_path_length, squared_path_speed])
def test_paths_that_cannot_be_measured_are_refused(rng, score):
    points = torch.from_numpy(rng.normal(size=(4, 3, 2)))
    with pytest.raises(ValueError, match=r"points must be \[n_paths, .*, got \[4, 3\]"):
        score(points[..., 0], space="pixels")
    with pytest.raises(ValueError, match=r"n_steps >= 2, .*, got \[4, 1, 2\]"):
        score(points[:, :1], space="pixels")
    with pytest.raises(ValueError, match=r"floating point, got torch\.int64"):
        score(points.long(), space="pixels")
    with pytest.raises(ScoreError, match="at least 2 paths, got 1"):
        score(points[:1], space="pixels")
    with pytest.raises(ScoreError, match="points must hold distinct points"):
        score(torch.ones(4, 3, 2), space="pixels")
    points[0, 0, 0] = math.nan
    with pytest.raises(ScoreError, match="points must be finite"):
        score(points, space="pixels")


def test_closed_paths_have_no_relative_length(rng):
    points = torch.from_numpy(rng.normal(size=(4, 3, 2)))
    points[1, 2] = points[1, 0]
    with pytest.raises(ScoreError, match="end elsewhere than it starts, got 1 of 4"):
        relative_path_length(points, space="pixels")


# Confidence


def test_confidence_equals_plain_loops(rng):
    log_p = log_softmax(3 * rng.normal(size=(8, 6, 4)), axis=2)
    means, lowest, changes = [], [], []
    for path in np.exp(log_p):
        means.append(np.mean([max(step) for step in path]))
        lowest.append(min(max(step) for step in path))
        answers = [int(np.argmax(step)) for step in path]
        changes.append(sum(a != b for a, b in zip(answers[1:], answers[:-1], strict=True)))
    got = path_confidence(torch.from_numpy(log_p))
    for score, values in ((got.mean, means), (got.lowest, lowest), (got.class_changes, changes)):
        error = np.std(values, ddof=1) / math.sqrt(8)
        assert_allclose(score.value, np.mean(values), rtol=1e-12, atol=0)
        assert_allclose(score.standard_error, error, rtol=1e-12, atol=0)


def test_sure_classifier_has_confidence_one_within_its_interval():
    sure = torch.full((3, 4, 2), -math.inf)
    sure[..., 0] = 0
    sure[0, 2] = torch.tensor([0.9, 0.1]).log()
    confidence = path_confidence(sure)
    assert_allclose(confidence.mean.value, 1 - 0.1 / 12, rtol=1e-6, atol=0)
    assert confidence.mean.high == 1
    assert confidence.class_changes.value == 0


def test_log_probabilities_that_are_none_are_refused(rng):
    logits = torch.from_numpy(rng.normal(size=(4, 3, 2)))
    with pytest.raises(ValueError, match=r"sum to 1, got a sum of .*: take log_softmax"):
        path_confidence(logits)
    with pytest.raises(ValueError, match=r"must be \[n_paths, n_steps >= 2, K\], got \[4, 1, 2\]"):
        path_confidence(logits[:, :1])
    with pytest.raises(ScoreError, match="at least 2 paths, got 1"):
        path_confidence(logits.log_softmax(2)[:1])
    with pytest.raises(ScoreError, match="must be numbers, got NaN"):
        path_confidence(logits * math.nan)
