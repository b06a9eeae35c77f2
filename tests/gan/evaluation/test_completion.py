"""Scores of completions.  Kinds: closed form, independent reference, invariance, bad input."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

from gan.evaluation.completion import (
    WIDTHS,
    Answers,
    Known,
    Questions,
    agreement,
    choose_width,
    collect,
    compare,
    completion_scores,
    likeliest,
    log_likelihoods,
    mean_completions,
    mean_distances,
    mean_images,
    mixture_log_likelihood,
    nearest_completions,
    per_pixel,
    questions,
)
from gan.masks import GROUPS
from gan.randomness import stream

SHAPE = (1, 4, 4)


def images(n, name="images"):
    return torch.rand(n, *SHAPE, generator=stream(0, name))


def some_questions(n=6, *, label=False):
    mask = (images(n, "mask") < 0.5).float()
    return Questions(
        images=images(n), labels=torch.arange(n) % 3, mask=mask, is_label_visible=label
    )


def answer_with(noise, draws=4):
    """Completions that are the image and noise, where it is hidden."""

    def answer(asked, start):
        rng = stream(start, "answer")
        drawn = noise * torch.randn(len(asked), draws, *SHAPE, generator=rng)
        return asked.filled(asked.images.unsqueeze(1) + drawn)

    return answer


def known(n=40):
    labels = torch.arange(n) % 3
    return Known(
        train=images(n, "train"),
        labels=labels,
        classify=lambda x: x.flatten(1).mean(1).mul(10).long() % 3,
    )


# The likelihood


def test_one_completion_is_a_gaussian_of_the_hidden_pixels():
    asked, sigma = some_questions(), 0.3
    answers = collect(asked, answer_with(0.2, draws=1))
    found = mixture_log_likelihood(answers, sigma=sigma)
    for i, x in enumerate(asked.images):
        hidden = (asked.mask[i] == 0).numpy()
        centre = answer_with(0.2, draws=1)(asked, 0)[i, 0].numpy()[hidden]
        expected = scipy.stats.norm(centre, sigma).logpdf(x.numpy()[hidden]).sum()
        assert_allclose(found[i], expected, rtol=1e-5)


def test_several_completions_are_a_mixture_of_gaussians():
    asked, sigma = some_questions(), 0.25
    completions = answer_with(0.2)(asked, 0)
    found = mixture_log_likelihood(collect(asked, answer_with(0.2)), sigma=sigma)
    for i, x in enumerate(asked.images):
        hidden = (asked.mask[i] == 0).numpy()
        logs = [
            scipy.stats.norm(c.numpy()[hidden], sigma).logpdf(x.numpy()[hidden]).sum()
            for c in completions[i]
        ]
        assert_allclose(found[i], scipy.special.logsumexp(logs) - math.log(4), rtol=1e-5)


def test_a_pixel_has_its_share_and_nothing_hidden_is_0():
    answers = Answers(
        squared_errors=torch.tensor([[0.5], [0.0]], dtype=torch.float64),
        n_hidden=torch.tensor([5.0, 0.0], dtype=torch.float64),
        shown=torch.zeros(2, 1, *SHAPE),
    )
    whole = mixture_log_likelihood(answers, sigma=0.4)
    assert_allclose(per_pixel(answers, sigma=0.4), [whole[0] / 5, 0.0], rtol=1e-12)


def test_the_chosen_width_is_the_root_of_the_mean_squared_error():
    """Of single completions that is the maximum likelihood, up to the grid's 4 %."""
    n_hidden = torch.full((50,), 10.0, dtype=torch.float64)
    errors = torch.rand(50, 1, generator=stream(0, "errors"), dtype=torch.float64)
    answers = Answers(squared_errors=errors, n_hidden=n_hidden, shown=torch.zeros(50, 1, *SHAPE))
    expected = math.sqrt(errors.mean().item() / 10)
    assert_allclose(choose_width(answers), expected, rtol=0.02)
    assert math.isclose(WIDTHS[0], 0.01)
    assert math.isclose(WIDTHS[-1], 1.0)


def test_completions_that_are_nearer_are_likelier():
    asked = some_questions(60)
    values = []
    for noise in (0.1, 0.3):
        answers = collect(asked, answer_with(noise))
        values.append(per_pixel(answers, sigma=choose_width(answers)).mean())
    assert values[0] > values[1]


# Collecting


def test_the_memory_does_not_change_the_scores():
    asked = some_questions(7)

    def answer(part, start):
        return answer_with(0.2)(asked, 0)[start : start + len(part)]

    whole, parts = collect(asked, answer), collect(asked, answer, chunk=2)
    assert_close(parts.squared_errors, whole.squared_errors, rtol=1e-6, atol=1e-9)
    assert_close(parts.shown, whole.shown, rtol=0, atol=0)


def test_parts_and_first_draws():
    answers = collect(some_questions(7), answer_with(0.2, draws=12))
    assert answers.shown.shape == (7, 5, *SHAPE)
    assert answers.part(2, 5).squared_errors.shape == (3, 12)
    first = answers.first(3)
    assert first.squared_errors.shape == (7, 3)
    assert first.shown.shape == (7, 3, *SHAPE)


def test_scores_are_of_the_images_and_the_width_of_the_others():
    asked = some_questions(40)
    answers = collect(asked, answer_with(0.2))
    before, after = answers.part(0, 20), answers.part(20, 40)
    labels = asked.labels[20:]
    found = completion_scores(before, after, labels, classify=known().classify)
    assert found.sigma == choose_width(before)
    assert found.n_draws == 4
    assert_allclose(found.log_likelihood.value, per_pixel(after, sigma=found.sigma).mean())
    errors = after.squared_errors / after.n_hidden[:, None]
    assert_allclose(found.squared_error.value, errors.mean())
    classes = known().classify(after.shown.flatten(0, 1)).view(20, 4)
    assert_allclose(found.agreement.value, (classes == labels[:, None]).double().mean())
    assert found.diversity.value > 0


def test_the_distance_of_two_completions_is_euclidean():
    shown = images(6).view(2, 3, *SHAPE)
    points = shown.flatten(2).double().numpy()
    expected = [
        np.mean([np.linalg.norm(p[i] - p[j]) for i in range(3) for j in range(i)]) for p in points
    ]
    assert_allclose(mean_distances(shown), expected, rtol=1e-5)
    assert mean_distances(shown[:, :1]).tolist() == [0.0, 0.0]


def test_the_likelihood_is_of_the_way_that_is_likeliest_and_the_rest_of_draws():
    asked, others = some_questions(60), known()
    before, after = asked.part(0, 30), asked.part(30, 60)
    ways = {0.5: answer_with(0.02), 1.0: answer_with(0.3)}
    assert likeliest(before, ways) == 0.5
    found = compare(before, after, ways=ways, best=answer_with(0.0), known=others)
    assert found.way == 0.5
    sigma = choose_width(collect(before, ways[0.5]))
    expected = per_pixel(collect(after, ways[0.5]), sigma=sigma)
    assert_close(found.own.log_likelihoods, expected, rtol=1e-9, atol=1e-9)
    assert_close(log_likelihoods(before, after, ways=ways), expected, rtol=1e-9, atol=1e-9)
    drawn = compare(before, after, ways={1.0: ways[1.0]}, best=answer_with(0.0), known=others)
    assert found.own.squared_error == drawn.own.squared_error
    assert found.own.diversity == drawn.own.diversity


# The simple ways


@pytest.mark.parametrize("label", [False, True])
def test_nearest_completions_are_those_of_a_search_by_hand(label):
    asked, others = some_questions(5, label=label), known()
    found = nearest_completions(asked, others.train, others.labels, k=3)
    for i in range(5):
        mask = asked.mask[i].bool()
        distances = [
            ((asked.images[i] - t)[mask]).square().sum().item()
            if not label or others.labels[j] == asked.labels[i]
            else math.inf
            for j, t in enumerate(others.train)
        ]
        for j, row in enumerate(np.argsort(distances)[:3]):
            expected = torch.where(mask, asked.images[i], others.train[row])
            assert_close(found[i, j], expected, rtol=0, atol=0)


@pytest.mark.parametrize("label", [False, True])
def test_mean_completions_are_of_the_class_where_the_label_is_visible(label):
    asked, others = some_questions(5, label=label), known()
    means = mean_images(others.train, others.labels)
    found = mean_completions(asked, means)
    for i in range(5):
        rows = others.train[others.labels == asked.labels[i]] if label else others.train
        expected = torch.where(asked.mask[i] > 0, asked.images[i], rows.mean(0))
        assert_close(found[i, 0], expected, rtol=1e-6, atol=1e-6)


def test_better_completions_gain_on_both_simple_ways():
    asked, others = some_questions(60), known()
    near, exact = answer_with(0.01), answer_with(0.0)
    before, after = asked.part(0, 30), asked.part(30, 60)
    found = compare(before, after, ways={1.0: near}, best=exact, known=others)
    simple = (found.nearest.log_likelihood.value, found.mean.log_likelihood.value)
    assert found.likelihood_gain == found.own.log_likelihood.value - max(simple) > 0
    shares = (found.nearest.agreement.value, found.mean.agreement.value)
    assert found.agreement_gain == found.own.agreement.value - max(shares)
    assert found.mean.n_draws == 1
    of_images = (others.classify(after.images) == after.labels).double().mean()
    assert_allclose(found.own.agreement.value, of_images)
    drawn = collect(after, near).shown
    expected = agreement(drawn, after.labels, classify=others.classify)
    assert found.own.drawn_agreement == expected


def test_the_nearest_way_has_its_best_number_of_neighbours_and_the_class_of_the_nearest():
    asked, others = some_questions(60), known()
    before, after = asked.part(0, 30), asked.part(30, 60)
    found = compare(
        before, after, ways={1.0: answer_with(0.1)}, best=answer_with(0.1), known=others
    ).nearest

    def scores(k):
        def answer(part, start):
            return nearest_completions(part, others.train, others.labels, k=k)

        pair = collect(before, answer), collect(after, answer)
        chosen = per_pixel(pair[0], sigma=choose_width(pair[0])).mean().item()
        return chosen, completion_scores(*pair, after.labels, classify=others.classify)

    by_k = {k: scores(k) for k in (1, 2, 5, 10, 20)}
    best = max(by_k, key=lambda k: by_k[k][0])
    assert found.n_draws == best
    assert_allclose(found.log_likelihood.value, by_k[best][1].log_likelihood.value, rtol=1e-6)
    assert found.agreement == by_k[1][1].agreement
    assert found.squared_error == by_k[1][1].squared_error


# Questions


def test_the_same_images_are_asked_under_every_group_of_masks():
    asked = questions(images(30), torch.arange(30) % 3, n=12, seed=0)
    assert asked.keys() == GROUPS.keys()
    first = asked["half"]
    for group, one in asked.items():
        assert_close(one.images, first.images, rtol=0, atol=0)
        assert one.labels.tolist() == first.labels.tolist()
        assert one.is_label_visible == (group == "label_only")
    shown = first.mask.flatten(1)
    assert shown.sum(1).tolist() == [8.0] * 12
    assert len(shown.unique(dim=0)) == 4  # kinds in turns
    again = questions(images(30), torch.arange(30) % 3, n=12, seed=0)
    assert_close(again["random_25"].mask, asked["random_25"].mask, rtol=0, atol=0)
    other = questions(images(30), torch.arange(30) % 3, n=12, seed=1)
    assert not torch.equal(other["half"].images, first.images)
