"""How well hidden parts of images are filled in: likelihood, error, class and diversity.

A question is an image of which a mask leaves a part visible; an answer is a number of completions
of it.  Whoever answers, a model or one of the two simple ways below, meets the same scores.

The likelihood of the hidden pixels x_S is that of a stated observation model: a Gaussian of one
width around each of n completions, all as probable,

    log p(x_S | visible) = log 1/n sum_j N(x_S; c_j, sigma^2 I),

in nats, here for a hidden pixel.  One sigma for each kind of mask is the best on other images than
those that are scored.  Completions that are all alike, or far from what was there, score low; so
do those that are wrong in many ways.

To compare with, the same of completions by the k nearest training images, by their visible pixels,
with the best k on the images that choose sigma, too (as a model may choose how far from its mean
it draws its noise); and by the mean training image.  Where the
label is visible, both are of its class.

Whether a completion is of the class of the image is asked of the single best completion, as the
nearest training image is one; and of draws, which are right no more often than their class is
probable.

    asked = questions(images, labels, n=1500, seed=0)["half"]
    found = compare(asked.part(0, 500), asked.part(500, 1500), ways=..., best=..., known=...)
    found.own.log_likelihood, found.nearest.log_likelihood, found.likelihood_gain
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gan.evaluation.score import Score, normal_score
from gan.masks import GROUPS, draw_masks
from gan.randomness import stream

N_DRAWS = 50
"""Completions of an image."""
N_SHOWN = 5
"""Completions of an image that are classified, and whose distances are taken."""
WIDTHS = tuple(math.exp(math.log(0.01) + i * math.log(100) / 120) for i in range(121))
"""Widths to choose from: 0.01 to 1, each 4 % above the last."""
DRAWN = 1.0
"""The way of completing as the model draws."""
NEAREST = (1, 2, 5, 10, 20, 50)
"""Numbers of training images to choose from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """Images of which a part is hidden.

    Attributes:
        images: [n, channels, height, width] float32 in [0, 1].
        labels: int64 [n].
        mask: 1 where a pixel is visible, else 0, of the shape of the images.
        is_label_visible: of all of them.
    """

    images: Tensor
    labels: Tensor
    mask: Tensor
    is_label_visible: bool

    def __len__(self) -> int:
        return len(self.images)

    def part(self, start: int, stop: int) -> "Questions":
        """Some of them."""
        return Questions(
            images=self.images[start:stop],
            labels=self.labels[start:stop],
            mask=self.mask[start:stop],
            is_label_visible=self.is_label_visible,
        )

    def filled(self, pixels: Tensor) -> Tensor:
        """Completions [n, draws, ...] with these pixels [n, draws, ...] where some are hidden."""
        return torch.where(self.mask.unsqueeze(1) > 0, self.images.unsqueeze(1), pixels)


def questions(images: Tensor, labels: Tensor, *, n: int, seed: int) -> dict[str, Questions]:
    """The same n images under masks of each group of `gan.masks.GROUPS`.

    Args:
        images: [m, channels, height, width] in [0, 1]; n of them are drawn.
        labels: int64 [m].
        n: at most m.
        seed: of the images and the masks.
    """
    chosen = torch.randperm(len(images), generator=stream(seed, "questions"))[:n]
    x = images[chosen].float()
    channels, height, width = x.shape[1:]
    found = {}
    for group, names in GROUPS.items():
        rng = stream(seed, f"questions/{group}")
        mask = torch.empty(len(x), channels * height * width)
        for i, name in enumerate(names):  # kinds in turns, so that each part has all of them
            rows = mask[i :: len(names)]
            rows.copy_(draw_masks(name, len(rows), (channels, height, width), rng))
        found[group] = Questions(
            images=x,
            labels=labels[chosen],
            mask=mask.view_as(x),
            is_label_visible=group == "label_only",
        )
    return found


Answer = Callable[[Questions, int], Tensor]
"""Questions, number of the first of them -> completions [n, draws, channels, height, width]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What is kept of the completions of n images.

    Attributes:
        squared_errors: sum over the hidden pixels, of each completion, [n, draws] float64.
        n_hidden: hidden pixels, [n] float64.
        shown: the first completions, [n, up to N_SHOWN, channels, height, width].
    """

    squared_errors: Tensor
    n_hidden: Tensor
    shown: Tensor

    def part(self, start: int, stop: int) -> "Answers":
        """Of some of the images."""
        return Answers(
            squared_errors=self.squared_errors[start:stop],
            n_hidden=self.n_hidden[start:stop],
            shown=self.shown[start:stop],
        )

    def first(self, draws: int) -> "Answers":
        """The same of the first completions of each image alone."""
        return Answers(
            squared_errors=self.squared_errors[:, :draws],
            n_hidden=self.n_hidden,
            shown=self.shown[:, :draws],
        )


def collect(asked: Questions, answer: Answer, *, chunk: int = 100) -> Answers:
    """Completions of all questions, `chunk` of them at a time, which bounds memory."""
    errors, shown = [], []
    for start in range(0, len(asked), chunk):
        part = asked.part(start, start + chunk)
        completions = answer(part, start)
        hidden = 1 - part.mask.unsqueeze(1)
        differences = (completions - part.images.unsqueeze(1)) * hidden
        errors.append(differences.flatten(2).square_().sum(2).double())
        shown.append(completions[:, :N_SHOWN].clone())  # a view would keep all of them
    return Answers(
        squared_errors=torch.cat(errors),
        n_hidden=(1 - asked.mask).flatten(1).sum(1).double(),
        shown=torch.cat(shown),
    )


def mixture_log_likelihood(answers: Answers, *, sigma: float) -> Tensor:
    """Log density of the hidden pixels of each image, nats, [n] float64.

        log p = log 1/n sum_j N(x_S; c_j, sigma^2 I)

    Args:
        answers: with squared errors |x_S - c_j|^2.
        sigma: width, > 0.
    """
    exponents = -answers.squared_errors / (2 * sigma**2)
    normalisers = answers.n_hidden / 2 * math.log(2 * math.pi * sigma**2)
    n_draws = answers.squared_errors.shape[1]
    return exponents.logsumexp(1) - math.log(n_draws) - normalisers


def per_pixel(answers: Answers, *, sigma: float) -> Tensor:
    """The same for a hidden pixel, [n]; 0 for an image of which nothing is hidden."""
    return mixture_log_likelihood(answers, sigma=sigma) / answers.n_hidden.clamp(min=1)


def likeliest(choosing: Questions, ways: Mapping[float, Answer]) -> float:
    """The way of completing by which these images are the most probable."""

    def value(way: float) -> float:
        answers = collect(choosing, ways[way])
        return per_pixel(answers, sigma=choose_width(answers)).mean().item()

    return max(ways, key=value)


def log_likelihoods(
    choosing: Questions, scored: Questions, *, ways: Mapping[float, Answer]
) -> Tensor:
    """Of each scored image, nats a hidden pixel, [n] float64; way and width are chosen before."""
    way = ways[likeliest(choosing, ways)]
    return per_pixel(collect(scored, way), sigma=choose_width(collect(choosing, way)))


def choose_width(answers: Answers) -> float:
    """The one of `WIDTHS` by which the images are the most probable, a hidden pixel."""
    return max(WIDTHS, key=lambda sigma: per_pixel(answers, sigma=sigma).mean().item())


@dataclass(frozen=True, kw_only=True, eq=False)
class CompletionScores:
    """Scores of the completions of one group of masks.

    Attributes:
        log_likelihoods: of each scored image, nats a hidden pixel, [n] float64.
        sigma: width, chosen on other images.
        n_draws: completions of an image.
        log_likelihood: their mean.
        squared_error: of a hidden pixel, of one completion.
        agreement: share of the single best completions that are of the class of the image.
        drawn_agreement: the same share of draws.
        diversity: mean distance between two completions of an image.
    """

    log_likelihoods: Tensor
    sigma: float
    n_draws: int
    log_likelihood: Score
    squared_error: Score
    agreement: Score
    drawn_agreement: Score
    diversity: Score


def completion_scores(
    choosing: Answers,
    scored: Answers,
    labels: Tensor,
    *,
    classify: Callable[[Tensor], Tensor],
) -> CompletionScores:
    """Scores of completions of some images, with the width that is best for others.

    Args:
        choosing: of the images that choose sigma.
        scored: of the images that are scored.
        labels: true classes of the latter, int64 [n].
        classify: images -> their classes, int64 [n]; whoever completes has no part in it.
    """
    sigma = choose_width(choosing)
    log_likelihoods = per_pixel(scored, sigma=sigma)
    errors = scored.squared_errors.mean(1) / scored.n_hidden.clamp(min=1)
    agreements = agreement(scored.shown, labels, classify=classify)
    return CompletionScores(
        log_likelihoods=log_likelihoods,
        sigma=sigma,
        n_draws=scored.squared_errors.shape[1],
        log_likelihood=_mean("completion_ll", log_likelihoods, unit="nats/pixel"),
        squared_error=_mean("completion_squared_error", errors),
        agreement=agreements,
        drawn_agreement=agreements,
        diversity=_mean("completion_diversity", mean_distances(scored.shown)),
    )


def agreement(shown: Tensor, labels: Tensor, *, classify: Callable[[Tensor], Tensor]) -> Score:
    """Share of completions that are of the class of the image.

    Args:
        shown: [n, draws, channels, height, width].
        labels: true classes, int64 [n].
        classify: images -> their classes, int64 [n]; whoever completes has no part in it.
    """
    n, draws = shown.shape[:2]
    classes = classify(shown.flatten(0, 1)).view(n, draws)
    shares = (classes == labels.unsqueeze(1)).double().mean(1)
    return _mean("completion_agreement", shares, unit="probability")


def mean_distances(shown: Tensor) -> Tensor:
    """Mean distance between two completions of an image, Euclidean over all pixels, [n] float64.

    Args:
        shown: [n, draws, ...]; of a single one the distance is 0.
    """
    n, draws = shown.shape[:2]
    if draws == 1:
        return torch.zeros(n, dtype=torch.float64)
    return torch.stack([torch.pdist(points).mean() for points in shown.flatten(2)]).double()


def _mean(name: str, values: Tensor, *, unit: str = "") -> Score:
    error = values.std().item() / math.sqrt(len(values))
    return normal_score(name, values.mean().item(), error, unit=unit)


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """What completions are compared with: training images, and a classifier without a part in it.

    Attributes:
        train: training images, [m, channels, height, width] float32 in [0, 1].
        labels: int64 [m].
        classify: images -> their classes, int64 [n].
    """

    train: Tensor
    labels: Tensor
    classify: Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Completions beside the two simple ways, on the same images under the same masks.

    Attributes:
        way: that of the likelihood.
        own: scores of the model.
        nearest: of nearest-neighbour completion.
        mean: of mean completion.
    """

    way: float
    own: CompletionScores
    nearest: CompletionScores
    mean: CompletionScores

    @property
    def likelihood_gain(self) -> float:
        """Log-likelihood above that of the better simple way, nats a hidden pixel."""
        simple = max(self.nearest.log_likelihood.value, self.mean.log_likelihood.value)
        return self.own.log_likelihood.value - simple

    @property
    def agreement_gain(self) -> float:
        """Share of completions of the right class above that of the better simple way."""
        simple = max(self.nearest.agreement.value, self.mean.agreement.value)
        return self.own.agreement.value - simple


def compare(
    choosing: Questions,
    scored: Questions,
    *,
    ways: Mapping[float, Answer],
    best: Answer,
    known: Known,
) -> Comparison:
    """Scores of completions, of nearest-neighbour completion and of mean completion.

    Args:
        choosing: images that choose sigma, the way, and the number of nearest training images.
        scored: images that are scored, under masks of the same group.
        ways: completions as the model draws them, at 1.0, and others, of which the likelihood is
            that of the likeliest.
        best: its single best ones, for the agreement: the nearest training image, and the mean,
            are such answers, too, where a draw is right no more often than its class is probable.
        known: what the simple ways know.
    """

    def scores(way: Answer) -> CompletionScores:
        found = collect(choosing, way), collect(scored, way)
        return completion_scores(*found, scored.labels, classify=known.classify)

    means = mean_images(known.train, known.labels)
    chosen, drawn = likeliest(choosing, ways), scores(ways[DRAWN])
    likely = drawn if chosen == DRAWN else scores(ways[chosen])
    shown = collect(scored, best).shown
    return Comparison(
        way=chosen,
        own=replace(
            likely,
            squared_error=drawn.squared_error,
            drawn_agreement=drawn.drawn_agreement,
            diversity=drawn.diversity,
            agreement=agreement(shown, scored.labels, classify=known.classify),
        ),
        nearest=_nearest_scores(choosing, scored, known),
        mean=scores(lambda asked, _: mean_completions(asked, means)),
    )


def _nearest_scores(choosing: Questions, scored: Questions, known: Known) -> CompletionScores:
    """The likelihood by the best number of neighbours; error and class of the nearest alone.

    Both are the better for it: neighbours that are farther are of another class more often.
    """
    most = min(max(NEAREST), len(known.train))

    def answer(asked: Questions, start: int) -> Tensor:
        return nearest_completions(asked, known.train, known.labels, k=most)

    before, after = collect(choosing, answer), collect(scored, answer)

    def chosen(k: int) -> float:
        first = before.first(k)
        return per_pixel(first, sigma=choose_width(first)).mean().item()

    best = max((k for k in NEAREST if k <= most), key=chosen)
    of_best, of_one = (
        completion_scores(before.first(k), after.first(k), scored.labels, classify=known.classify)
        for k in (best, 1)
    )
    return replace(of_best, squared_error=of_one.squared_error, agreement=of_one.agreement)


def nearest_completions(asked: Questions, train: Tensor, labels: Tensor, *, k: int) -> Tensor:
    """Hidden pixels from the k nearest training images, nearest first: [n, k, c, h, w].

    Args:
        asked: the questions.
        train: training images, [m, c, h, w] float32 in [0, 1].
        labels: int64 [m].
        k: at most m.

    Nearest by the visible pixels; where the label is visible, those of its class come first.
    """
    mask, points = asked.mask.flatten(1), train.flatten(1)
    # |m (x - t)|^2 but for |m x|^2, which is the same for all t.
    distances = mask @ points.square().T - 2 * (mask * asked.images.flatten(1)) @ points.T
    if asked.is_label_visible:
        is_other = labels.unsqueeze(0) != asked.labels.unsqueeze(1)
        distances = distances.masked_fill_(is_other, math.inf)
    nearest = distances.topk(k, largest=False, sorted=True).indices
    return asked.filled(train[nearest])


def mean_completions(asked: Questions, means: Tensor) -> Tensor:
    """Hidden pixels of the mean training image, or of its class: [n, 1, c, h, w].

    Args:
        asked: the questions.
        means: as from `mean_images`.
    """
    rows = asked.labels if asked.is_label_visible else torch.full_like(asked.labels, -1)
    return asked.filled(means[rows].unsqueeze(1))


def mean_images(train: Tensor, labels: Tensor) -> Tensor:
    """The mean training image of each class, and last of all, [K + 1, c, h, w]."""
    classes = [train[labels == k].mean(0) for k in range(int(labels.max()) + 1)]
    return torch.stack([*classes, train.mean(0)])
