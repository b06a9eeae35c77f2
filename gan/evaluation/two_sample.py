"""Two-sample tests: can real points and samples be told apart, and how well?

`classifier_two_sample_test`: a small net learns to tell half of the points apart and is asked
about the other half.  The share it answers correctly estimates (1 + total variation) / 2 from
below: a better classifier could only do better.  Where both sets have one distribution each
answer is a fair coin: mean 1/2, standard deviation sqrt(1 / 4n) over n held-out points, a little
less if the net prefers one answer.  The p-value is one-sided, for more than 1/2; the interval is
Wilson's, given the classifier: what another training would give is not in it.
Source: Lopez-Paz and Oquab (2017), section 3 and Theorem 1.

`nearest_neighbour_test`: each point of both sets together is given the class of the nearest
other point.  Real points and samples separately: low on real and high on samples is a collapse
onto few images, low on both are copies of these very points, high on both are samples apart.
Source: Xu et al. (2018), section 2.6; Lopez-Paz and Oquab (2017).

The answers of the second test are not independent: points that are nearest to each other are
right or wrong together.  Its p-value, two-sided, is that of the permutation test, from the exact
mean and variance over all ways of labelling the graph of nearest neighbours, which are sums over
its pairs of edges (Schilling, 1986; Henze, 1988); a fair coin's variance would reject more than
twice as often as it should.  Where both sets have one distribution the mean is (n - 1) / (2n - 1),
not 1/2.  The standard errors add the covariances of points whose edges touch, as estimated; those
of one set's accuracy come out about a fifth too large.

Both tests take as many real points as samples: of the larger set a part drawn by the seed.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gan.evaluation.neighbours import nearest_neighbours
from gan.evaluation.score import Score, normal_score, proportion_score, require_points
from gan.randomness import stream

MIN_POINTS = 20
"""Of each set: fewer, and the normal distribution does not describe the answers."""

N_HIDDEN = 20
N_EPOCHS = 100
"""Width of the net and passes over its half: Lopez-Paz and Oquab (2017), section 4."""

BATCH_SIZE = 500
LEARNING_RATE = 1e-2
WEIGHT_DECAY = 1e-3


@dataclass(frozen=True, kw_only=True)
class ClassifierTest:
    """How well a classifier tells held-out samples from held-out real points."""

    accuracy: Score
    """Share answered correctly; at 0.5 they cannot be told apart."""
    n_held_out: int
    """Points asked about, half of them real."""
    z: float
    """(accuracy - 1/2) / sqrt(1 / 4n)."""
    p_value: float
    """Of an accuracy of this or more if both sets have one distribution."""


@dataclass(frozen=True, kw_only=True)
class NearestNeighbourTest:
    """How often the nearest other point is of the same set."""

    accuracy: Score
    """Over both sets."""
    accuracy_real: Score
    """Of real points: low where samples crowd them."""
    accuracy_samples: Score
    """Of samples: high where they crowd each other."""
    expected: float
    """Mean of `accuracy` if both sets have one distribution: just under 1/2."""
    z: float
    """(accuracy - expected) over its standard deviation under permutations of the labels."""
    p_value: float
    """Of a z this far from 0, on either side."""


def classifier_two_sample_test(real: Tensor, samples: Tensor, *, seed: int) -> ClassifierTest:
    """Train a classifier on half of the points and count its right answers on the other half.

    Args:
        real: points, [n, d] or [n, c, h, w], any floating type, any device.
        samples: the same shape; as many as `real`, else a part of the larger set is used.
        seed: of the halves, the initial weights and the order of training.

    Raises:
        ScoreError: fewer than 40 points in a set, NaN, infinity, or one point only.
        ValueError: as `require_points`.

    Differs: weight decay and standardised coordinates, which the paper leaves open.  It trains on
    the CPU in float32, so that the device of the points does not change the answer.
    """
    require_points(at_least=2 * MIN_POINTS, real=real, samples=samples)
    real, samples = _equally_many(real, samples, seed)
    n_train = len(real) // 2
    train = _labelled(real[:n_train], samples[:n_train])
    held_out = _labelled(real[n_train:], samples[n_train:])
    answers = _train_and_answer(*train, held_out[0], seed=seed)
    n = len(answers)
    n_right = int((answers == held_out[1].bool()).sum())
    z = (n_right / n - 0.5) / math.sqrt(1 / (4 * n))
    return ClassifierTest(
        accuracy=proportion_score("classifier_test_accuracy", n_right, n),
        n_held_out=n,
        z=z,
        p_value=math.erfc(z / math.sqrt(2)) / 2,
    )


def nearest_neighbour_test(
    real: Tensor, samples: Tensor, *, seed: int, chunk: int = 256
) -> NearestNeighbourTest:
    """Leave-one-out accuracy of the nearest neighbour, on real points and on samples.

    Args:
        real: points, [n, d] or [n, c, h, w], any floating type, any device.
        samples: the same shape; as many as `real`, else a part of the larger set is used.
        seed: of that part, and of the choice between equally near points.
        chunk: as `nearest_neighbours`.

    Raises:
        ScoreError: fewer than 20 points in a set, NaN, infinity, or one point only.
        ValueError: as `require_points` and `nearest_neighbours`.
    """
    require_points(at_least=MIN_POINTS, real=real, samples=samples)
    real, samples = _equally_many(real, samples, seed)
    points, is_sample = torch.cat([real, samples]), _classes(len(real))
    # The first of equally near points is taken, so their order must not know the classes.
    order = torch.randperm(len(points), generator=stream(seed, "two_sample/ties"))
    points, is_sample = points[order.to(points.device)], is_sample[order]
    itself = torch.arange(len(points), device=points.device)
    near = nearest_neighbours(points, points, exclude=itself, chunk=chunk)
    return _from_graph(near.indices[:, 0].cpu(), is_sample)


def _from_graph(nearest: Tensor, is_sample: Tensor) -> NearestNeighbourTest:
    is_right = is_sample[nearest] == is_sample
    mean, deviation = _permutation_moments(nearest, len(nearest) // 2)
    accuracy = _accuracy("nearest_test_accuracy", nearest, is_right, torch.ones_like(is_sample))
    z = (accuracy.value - mean) / deviation
    return NearestNeighbourTest(
        accuracy=accuracy,
        accuracy_real=_accuracy("nearest_test_accuracy_real", nearest, is_right, ~is_sample),
        accuracy_samples=_accuracy("nearest_test_accuracy_samples", nearest, is_right, is_sample),
        expected=mean,
        z=z,
        p_value=math.erfc(abs(z) / math.sqrt(2)),
    )


def _permutation_moments(nearest: Tensor, n: int) -> tuple[float, float]:
    """Mean and standard deviation of the accuracy over all labellings of n real and n samples.

    Two edges that join the same two points are right together; two that share one point need
    three points of one class, two that share none two pairs of a class each.
    """
    total = 2 * n
    in_degree = nearest.bincount(minlength=total)
    n_mutual = int((nearest[nearest] == torch.arange(total)).sum())
    n_same = total + n_mutual
    n_touching = int((in_degree * (in_degree - 1)).sum()) + 2 * (total - n_mutual)
    n_apart = total**2 - n_same - n_touching

    two = 2 * n * (n - 1) / (total * (total - 1))
    three = two * (n - 2) / (total - 2)
    four = two * ((n - 2) * (n - 3) + n * (n - 1)) / ((total - 2) * (total - 3))
    variance = n_same * two + n_touching * three + n_apart * four - (total * two) ** 2
    return two, math.sqrt(variance) / total


def _accuracy(name: str, nearest: Tensor, is_right: Tensor, is_asked: Tensor) -> Score:
    """Share of right answers with a standard error that knows which answers hang together.

    Its square is the sum of e_i e_j over all pairs i, j (also i = j) whose edges share a point,
    with e the answer less its mean; never less than if answers were independent.
    """
    n = int(is_asked.sum())
    share = is_right[is_asked].double().mean()
    e = torch.where(is_asked, is_right.double() - share, 0)
    to_same_point = torch.zeros_like(e).index_add_(0, nearest, e).square().sum()
    is_mutual = nearest[nearest] == torch.arange(len(nearest))
    along_the_edge = (e * e[nearest] * torch.where(is_mutual, 1, 2)).sum()
    variance = torch.maximum(to_same_point + along_the_edge, e.square().sum())
    return normal_score(name, share.item(), math.sqrt(variance) / n, unit="probability")


def _equally_many(real: Tensor, samples: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """As many of each set as the smaller holds, in random order: two of [n, d]."""
    n = min(len(real), len(samples))
    rng = stream(seed, "two_sample/points")
    drawn = []
    for points in (real, samples):
        order = torch.randperm(len(points), generator=rng)[:n]
        drawn.append(points.flatten(1)[order.to(points.device)])
    return drawn[0], drawn[1]


def _classes(n: int) -> Tensor:
    """Of n real points and then n samples: whether it is a sample, [2n]."""
    return torch.arange(2 * n) >= n


def _labelled(real: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    points = torch.cat([real, samples]).cpu().double()
    return points, _classes(len(real)).float()


@torch.enable_grad()
def _train_and_answer(x: Tensor, is_sample: Tensor, asked: Tensor, *, seed: int) -> Tensor:
    """Whether a net trained on x takes each point of `asked` for a sample: [n], bool."""
    rng = stream(seed, "two_sample/classifier")
    mean, deviation = x.mean(0), x.std(0)
    deviation = torch.where(deviation > 0, deviation, 1)
    x, asked = ((points - mean).div(deviation).float() for points in (x, asked))
    weights = [
        torch.randn(x.shape[1], N_HIDDEN, generator=rng) / math.sqrt(x.shape[1]),
        torch.zeros(N_HIDDEN),
        torch.randn(N_HIDDEN, 1, generator=rng) / math.sqrt(N_HIDDEN),
        torch.zeros(1),
    ]
    optimizer = torch.optim.AdamW(
        [weight.requires_grad_() for weight in weights], LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    for _ in range(N_EPOCHS):
        for rows in torch.split(torch.randperm(len(x), generator=rng), BATCH_SIZE):
            logits = _logits(x[rows], weights)
            loss = functional.binary_cross_entropy_with_logits(logits, is_sample[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return _logits(asked, weights) > 0


def _logits(x: Tensor, weights: list[Tensor]) -> Tensor:
    """[n, d] -> [n]: positive for a sample."""
    W1, b1, W2, b2 = weights
    return ((x @ W1 + b1).relu() @ W2 + b2).squeeze(1)
