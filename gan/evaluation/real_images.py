"""Real images in every form that the scores ask for, each made once and kept.

What real images themselves score, in place of samples, is the anchor beside a score: training
images for the distances and the Parzen window, as nothing honest comes nearer to the scored split
than they do, and centres of k-means to show what smoothing wins by the Parzen window.  An anchor
is of as many images as there are samples (or of all, where these are fewer): scores of different
counts do not compare.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from gan.errors import ScoreError
from gan.evaluation.bins import lloyd
from gan.evaluation.features import Extractor
from gan.evaluation.frechet import FrechetScores, frechet_distance
from gan.evaluation.manifold import ManifoldScores, manifold_scores
from gan.evaluation.neighbours import Neighbours, nearest_neighbours
from gan.evaluation.parzen import PAPER_GRID
from gan.evaluation.parzen_anchors import ParzenWithErrors, centres_anchor, real_anchor
from gan.evaluation.pixel_levels import grey_share, standardised
from gan.evaluation.score import Score
from gan.randomness import stream

LLOYD_STEPS = 2
"""Of k-means for as many centres as samples: each further one takes as long and changes little."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RealImages:
    """Real images, and what they score in place of samples.

    Attributes:
        train: what the generator was trained on, [n, c, h, w] float32 in [0, 1].
        valid: validation images, which choose widths.
        scored: images of the split on which samples are scored; may be `valid`.
        extractor: the feature space.
        log_probabilities: images -> log p(class | image), [n, K]; None without labels.
        class_names: of its classes, in their order.
        read_digits: images -> digit of each of their three channels, int64 [n, 3], where the data
            are stacked MNIST.
        n_sigma_images: validation images that choose a window's width.
        chunk: images a pass of the Parzen window.
    """

    train: Tensor
    valid: Tensor
    scored: Tensor
    extractor: Extractor
    log_probabilities: Callable[[Tensor], Tensor] | None = None
    class_names: Sequence[str] = ()
    read_digits: Callable[[Tensor], Tensor] | None = None
    n_sigma_images: int = 1_000
    chunk: int = 500
    _ceilings: dict[int, ParzenWithErrors] = field(default_factory=dict, init=False)
    _centres: dict[int, ParzenWithErrors] = field(default_factory=dict, init=False)
    _frechet: dict[int, FrechetScores] = field(default_factory=dict, init=False)
    _manifold: dict[int, ManifoldScores] = field(default_factory=dict, init=False)

    @property
    def for_sigma(self) -> Tensor:
        """The validation images that choose a window's width."""
        return self.valid[: self.n_sigma_images]

    @cached_property
    def train_features(self) -> Tensor:
        """[n, d]."""
        return self.extractor(self.train)

    @cached_property
    def scored_features(self) -> Tensor:
        """[n, d]."""
        return self.extractor(self.scored)

    @cached_property
    def scored_labels(self) -> Tensor | None:
        """What the classifier calls the scored images, int64 [n]."""
        if self.log_probabilities is None:
            return None
        return self.log_probabilities(self.scored).argmax(1)

    @cached_property
    def grey(self) -> Score:
        """Of the scored images."""
        return grey_share(self.scored)

    @cached_property
    def nearest(self) -> Neighbours:
        """Of each scored image the nearest training image, in pixels."""
        return nearest_neighbours(self.scored, self.train)

    def nearest_patterns(self, images: Tensor) -> Neighbours:
        """Of each image the nearest training image, both freed of brightness and contrast."""
        return nearest_neighbours(standardised(images), standardised(self.train))

    @cached_property
    def farthest_pattern(self) -> float:
        """The largest of these distances of a scored image."""
        return self.nearest_patterns(self.scored).distances.max().item()

    def frechet(self, n_samples: int) -> FrechetScores:
        """Of as many training images in place of samples.

        Raises:
            ScoreError: as `frechet_distance`.
        """
        if n_samples not in self._frechet:
            points = self.train_features[self._drawn(n_samples)]
            self._frechet[n_samples] = frechet_distance(self.scored_features, points, seed=0)
        return self._frechet[n_samples]

    def manifold(self, n_samples: int) -> ManifoldScores:
        """Of as many training images in place of samples.

        Raises:
            ScoreError: as `manifold_scores`.
        """
        if n_samples not in self._manifold:
            points = self.train_features[self._drawn(n_samples)]
            self._manifold[n_samples] = manifold_scores(self.scored_features, points)
        return self._manifold[n_samples]

    def ceiling(self, n_samples: int) -> ParzenWithErrors:
        """The Parzen score of as many training images in place of samples."""
        n_samples = min(n_samples, len(self.train))
        if n_samples not in self._ceilings:
            self._ceilings[n_samples] = real_anchor(
                self.scored,
                self.for_sigma,
                self.train,
                n_samples=n_samples,
                grid=PAPER_GRID,
                seed=0,
                chunk=self.chunk,
            )
        return self._ceilings[n_samples]

    def centres(self, n_samples: int) -> ParzenWithErrors:
        """The Parzen score of as many centres of k-means in place of samples.

        Raises:
            ScoreError: as many training images, each a centre of its own, are no smoothing.
        """
        if 2 * n_samples > len(self.train):
            raise ScoreError(
                f"train must hold at least {2 * n_samples:,} images for {n_samples:,} centres of "
                f"k-means, got {len(self.train):,}"
            )
        if n_samples not in self._centres:
            points = self.train.flatten(1)
            first = points[self._drawn(n_samples)]
            self._centres[n_samples] = centres_anchor(
                self.scored,
                self.for_sigma,
                lloyd(points, first, n_steps=LLOYD_STEPS).view(-1, *self.train.shape[1:]),
                grid=PAPER_GRID,
                chunk=self.chunk,
            )
        return self._centres[n_samples]

    def _drawn(self, n: int) -> Tensor:
        """Rows of n training images."""
        return torch.randperm(len(self.train), generator=stream(0, "anchors"))[:n]
