"""The Parzen window score of Table 1: samples in, log-likelihood in nats out.

Protocol of the released code (`parzen_ll.py`): 10,000 samples of the model, a Gaussian of width
sigma at each; sigma is the value of a grid with the largest mean log-likelihood on the first
1,000 validation images and is then fixed; the score is the mean over the test images.  Pixels lie
in [0, 1], neither binarised nor dequantised; on another scale the score is another quantity.

    sigma = choose_sigma(valid[:1_000], samples, grid=PAPER_GRID)
    score = parzen_score(test, samples, sigma=sigma)

The estimate rewards smooth samples: 10,000 real training images score about 241 nats, the same
images blurred 320.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PAPER_GRID = tuple(10 ** (i / 9 - 1) for i in range(10))
"""Window widths of the released code: ten from 0.1 to 1, equal steps of log sigma."""

FINE_GRID = tuple(i / 100 for i in range(10, 31))
"""Window widths 0.10, 0.11, ..., 0.30: around 0.18, the best for MNIST, the paper's grid steps by
29 %, which costs real images 1 nat and poorer samples up to 6."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ParzenScore:
    """Log-likelihood of a set of images under a Parzen window on a model's samples, in nats."""

    sigma: float
    """Width of the window, on the scale of the pixels."""
    log_likelihood: Tensor
    """Of each image: [b], float64, on the CPU."""
    n_samples: int
    """Centres of the window; scores of different counts do not compare."""

    @property
    def mean(self) -> float:
        """The score: mean over the images."""
        return self.log_likelihood.mean().item()

    @property
    def standard_error(self) -> float:
        """Standard deviation over the images (divisor b, as in the released code) / sqrt(b).

        It knows nothing of the spread between draws of samples or between trained models.
        """
        deviation = self.log_likelihood.std(correction=0).item()
        return deviation / math.sqrt(len(self.log_likelihood))


def parzen_score(x: Tensor, samples: Tensor, *, sigma: float, chunk: int = 500) -> ParzenScore:
    """The score of `samples` on the images `x` at a window width chosen before.

    Args:
        x: images in [0, 1], [b, d] or [b, c, h, w].
        samples: the model's samples in [0, 1], [n, d] or [n, c, h, w]; the paper has n = 10,000.
        sigma: window width, > 0; from `choose_sigma` on validation images, never on `x`.
        chunk: images a pass; see `parzen_log_likelihoods`.

    Raises:
        ValueError: as `parzen_log_likelihoods`.
    """
    (score,) = parzen_scores(x, samples, sigmas=[sigma], chunk=chunk)
    return score


def parzen_scores(
    x: Tensor, samples: Tensor, *, sigmas: Sequence[float], chunk: int = 500
) -> list[ParzenScore]:
    """As `parzen_score`, at several widths that share one matrix of distances."""
    log_likelihoods = parzen_log_likelihoods(x, samples, sigmas=sigmas, chunk=chunk).cpu()
    return [
        ParzenScore(sigma=sigma, log_likelihood=log_likelihood, n_samples=len(samples))
        for sigma, log_likelihood in zip(sigmas, log_likelihoods, strict=True)
    ]


def choose_sigma(
    valid: Tensor, samples: Tensor, *, grid: Sequence[float], chunk: int = 500
) -> float:
    """The width in `grid` with the largest mean log-likelihood on `valid`; of equals, the first.

    Args:
        valid: validation images in [0, 1], [b, d] or [b, c, h, w]: all of them are used, so hand
            in the first 1,000 to follow the paper.
        samples: the model's samples in [0, 1], [n, d] or [n, c, h, w].
        grid: candidate widths, as `PAPER_GRID`; the best one may lie outside if the choice
            `is_at_grid_end`.
        chunk: images a pass; see `parzen_log_likelihoods`.

    Raises:
        ValueError: as `parzen_log_likelihoods`.

    Source: `cross_validate_sigma` of the released code, which despite its name has no folds.
    """
    scores = parzen_log_likelihoods(valid, samples, sigmas=grid, chunk=chunk).mean(1)
    return float(grid[int(scores.argmax())])


def is_at_grid_end(sigma: float, *, grid: Sequence[float]) -> bool:
    """Whether `sigma` is the smallest or the largest width of `grid`."""
    return sigma <= min(grid) or sigma >= max(grid)


def parzen_log_likelihood(x: Tensor, samples: Tensor, *, sigma: float, chunk: int = 500) -> Tensor:
    """Log density of each point of `x` under a Parzen window of one width: [b], float64, nats.

    Arguments, errors and source: `parzen_log_likelihoods`.
    """
    return parzen_log_likelihoods(x, samples, sigmas=[sigma], chunk=chunk)[0]


@torch.no_grad()
def parzen_log_likelihoods(
    x: Tensor, samples: Tensor, *, sigmas: Sequence[float], chunk: int = 500
) -> Tensor:
    """Log density of each point of `x` under Gaussian Parzen windows on `samples`, in nats.

        log p(x_i) = logsumexp_j( -|x_i - s_j|^2 / 2 sigma^2 ) - log n - d log(sigma sqrt(2 pi))

    All widths share one matrix of distances, taken from a float64 matrix product.

    Args:
        x: points to score, [b, d] or [b, c, h, w], any floating type, any device.
        samples: centres s_j drawn from the model, [n, d] or [n, c, h, w], same scale as `x`.
        sigmas: window widths, each > 0.
        chunk: points a pass; bounds the memory at two matrices [chunk, n] and a float64 copy of
            `samples`, does not change the result.

    Returns:
        [len(sigmas), b], float64, on the device of `samples`; no gradient flows through it.

    Raises:
        ValueError: a width is not > 0, a set is empty, not floating point or not finite, the
            shapes of one point and one sample differ, or chunk < 1.

    Source: section 5 of Goodfellow et al. (2014), after Breuleux et al. (2011); `parzen_ll.py`.
    Differs: float64 and one matrix product, where the released code broadcasts x - s once a width
    in Theano's floatX; float32 products would be off by 1e-5 in a squared distance.
    """
    _require_positive(sigmas, chunk)
    _require_comparable(x, samples)
    points, centres = x.flatten(1), samples.flatten(1).double()
    n, d = centres.shape
    half_norms = torch.linalg.vector_norm(centres, dim=1).square() / 2
    # One allocation for all passes: two fresh matrices of 40 MB a pass would be page faults.
    buffers = centres.new_empty(2, min(chunk, len(points)), n)
    result = centres.new_empty(len(sigmas), len(points))

    for start in range(0, len(points), chunk):
        rows = points[start : start + chunk].to(centres)
        excess, weights = buffers[:, : len(rows)]
        # |x - s|^2 / 2 without the |x|^2 / 2 that all s share: [rows, n].
        torch.addmm(half_norms, rows, centres.T, alpha=-1, out=excess)
        smallest, nearest = excess.min(1)
        excess -= smallest[:, None]
        # Taken anew: the rounding of the product, over sigma^2, would swamp a narrow window.
        half_distance = (rows - centres[nearest]).square().sum(1) / 2
        for i, sigma in enumerate(sigmas):
            torch.div(excess, -math.log(2) * sigma**2, out=weights)
            # exp2 takes a third of the time of exp, and both crawl where the result underflows:
            # the sum is at least 1, so nothing is lost by a floor of 2^-1000.
            weights.clamp_(min=-1_000).exp2_()
            log_sum = weights.sum(1).log() - half_distance / sigma**2
            result[i, start : start + len(rows)] = log_sum

    normalisers = [math.log(n) + d * math.log(sigma * math.sqrt(2 * math.pi)) for sigma in sigmas]
    return result - result.new_tensor(normalisers)[:, None]


def _require_positive(sigmas: Sequence[float], chunk: int) -> None:
    if len(sigmas) == 0:
        raise ValueError("sigmas must hold at least one window width, got none")
    for sigma in sigmas:
        # The square is what is divided by, and underflows long before sigma itself.
        if not (sigma > 0 and 0 < sigma * sigma < math.inf):
            raise ValueError(f"sigma must be > 0 and its square finite and > 0, got {sigma}")
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")


def _require_comparable(x: Tensor, samples: Tensor) -> None:
    for name, points in (("x", x), ("samples", samples)):
        shape = list(points.shape)
        if points.ndim < 2 or points.numel() == 0:
            raise ValueError(f"{name} must be [n, d] or [n, c, h, w] and not empty, got {shape}")
        if not points.is_floating_point():
            raise ValueError(
                f"{name} must be floating point in [0, 1], got {points.dtype}: divide by 255"
            )
        if not torch.stack(points.aminmax()).isfinite().all():
            n_bad = int((~points.isfinite()).flatten(1).any(1).sum())
            raise ValueError(
                f"{name} must be finite, got NaN or infinity in {n_bad} of {len(points)} rows"
            )
    one_x, one_sample = x.shape[1:], samples.shape[1:]
    differ = x.ndim == samples.ndim and one_x != one_sample
    if differ or one_x.numel() != one_sample.numel():
        raise ValueError(
            "x and samples must have the same shape but for their number, "
            f"got {list(x.shape)} and {list(samples.shape)}"
        )
