"""Runs of classification with few labels.

Labels are hidden at the door: `SemiSupervisedRun` draws the few, and what trains receives a
`FewLabels`.  Nothing is chosen or stopped by any other label: the number of steps is fixed, and
the score by which a sweep compares is taken on the labelled images.

Source: section 7, fourth extension, of Goodfellow et al. (2014).
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gan.config import RunConfig
from gan.config import Task as TaskName
from gan.datasets.images import ImageSet, class_sizes
from gan.errors import DatasetError, DivergedError
from gan.extensions.inference.saved import SavedInference
from gan.extensions.semi_supervised.discriminator_features import FeaturesRun
from gan.extensions.semi_supervised.feature_matching import FeatureMatching, settings
from gan.extensions.semi_supervised.few_labels import (
    FewLabels,
    draw_few,
    hide,
    require_minibatch,
    require_n_labels,
)
from gan.extensions.semi_supervised.inference_features import InferenceFeaturesRun
from gan.extensions.semi_supervised.saved import SavedSemiSupervised, from_weights, weights_of
from gan.metric_names import (
    CONSISTENCY_LOSS,
    FEATURE_LOSS,
    LABELLED_LOSS,
    LEARNING_RATE,
    UNLABELLED_LOSS,
)
from gan.run import Report


@dataclass(frozen=True, kw_only=True)
class FeatureMatchingProgress:
    """What feature matching reports: means over the steps since the last report.

    Attributes:
        step: updates of D, and of G, so far.
        images_seen: unlabelled images that D has learnt from so far.
        labelled_loss: see `gan.extensions.semi_supervised.feature_matching`, nats.
        unlabelled_loss: nats.
        feature_loss: G's.
        learning_rate: step size of G's next update.
        consistency_loss: nats; None where it has no part in training.
    """

    step: int
    images_seen: int
    labelled_loss: float
    unlabelled_loss: float
    feature_loss: float
    learning_rate: float
    consistency_loss: float | None = None

    def metrics(self) -> dict[str, float]:
        """Every value but the counts, by metric name."""
        known = {} if self.consistency_loss is None else {CONSISTENCY_LOSS: self.consistency_loss}
        return known | {
            LABELLED_LOSS: self.labelled_loss,
            UNLABELLED_LOSS: self.unlabelled_loss,
            FEATURE_LOSS: self.feature_loss,
            LEARNING_RATE: self.learning_rate,
        }


class FeatureMatchingRun:
    """Feature matching as a run of one lane.

    Args:
        config: the run.
        few: its data.
        device: where to train.
    """

    def __init__(self, config: RunConfig, few: FewLabels, *, device: torch.device | str) -> None:
        self.config = config
        self.lanes = FeatureMatching(config, [few], seeds=[config.seed], device=device)

    @property
    def step(self) -> int:
        """Updates so far."""
        return self.lanes.step

    def train(self) -> Iterator[FeatureMatchingProgress]:
        """Train to the last step, with a report every `train.report_every` steps and at the end.

        Raises:
            DivergedError: at the first report with a loss that is not finite.
        """
        train, since = self.config.train, 0
        while self.step < train.n_steps:
            self.lanes.advance()
            since += 1
            if self.step % train.report_every == 0 or self.step == train.n_steps:
                yield self._progress((self.lanes.read_losses()[:, 0] / since).tolist())
                since = 0

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, by name."""
        return self.lanes.state()

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        self.lanes.set_state(state)

    def _progress(self, means: list[float]) -> FeatureMatchingProgress:
        names = (LABELLED_LOSS, UNLABELLED_LOSS, FEATURE_LOSS, CONSISTENCY_LOSS)
        losses = dict(zip(names, means, strict=True))
        if not self.lanes.is_consistent:
            del losses[CONSISTENCY_LOSS]
        rate = self.lanes.learning_rate
        if not all(map(math.isfinite, means)):
            raise DivergedError(step=self.step, losses=losses, learning_rate=rate)
        return FeatureMatchingProgress(
            step=self.step,
            images_seen=self.step * self.config.train.batch_size,
            learning_rate=rate,
            **losses,
        )


class SemiSupervisedRun:
    """A run of any of the methods.

    Args:
        config: the run; where it has an origin, with what `adopt` takes over from that.
        images: training images with labels, of which the few are kept.
        device: where to train.
        origin: the inference net that `inference_features` starts from.

    Raises:
        ConfigError: so many labels cannot be drawn in equal parts.
        DatasetError: the images have no labels, or not classes numbered from 0.
    """

    def __init__(
        self,
        config: RunConfig,
        images: ImageSet,
        *,
        device: torch.device | str,
        origin: SavedInference | None = None,
    ) -> None:
        few = few_of(images, config)
        self._few = {"few/pixels": few.pixels[few.labelled], "few/labels": few.labels}
        self.method: FeatureMatchingRun | FeaturesRun | InferenceFeaturesRun
        method = settings(config).method
        if method == "inference_features":
            assert origin is not None  # noqa: S101 (`gan.tasks.require_origin`)
            self.method = InferenceFeaturesRun(config, few, origin=origin, device=device)
        elif method == "discriminator_features":
            self.method = FeaturesRun(config, few, device=device)
        else:
            self.method = FeatureMatchingRun(config, few, device=device)
        self.config, self.image_shape = config, images.image_shape

    @property
    def step(self) -> int:
        """Updates so far."""
        return self.method.step

    def train(self) -> Iterator[Report]:
        """Train from the present step to the last."""
        return self.method.train()

    def saved(self) -> SavedSemiSupervised:
        """Classifier and generator as they are now, on the CPU."""
        state = {name: tensor.cpu() for name, tensor in self.state().items()}
        return from_weights(weights_of(state, self.config), self.config, self.image_shape)

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, and the labelled images."""
        return self.method.state() | self._few

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        self.method.set_state({k: t for k, t in state.items() if k not in self._few})


def origin_of(config: RunConfig) -> TaskName | None:
    """The task whose promoted model a run starts from, if any."""
    return "inference" if settings(config).method == "inference_features" else None


def adopt(config: RunConfig, origin: RunConfig) -> RunConfig:
    """The run with the settings of both nets that it starts from."""
    section = dataclasses.replace(settings(config), inference=origin.inference)
    return dataclasses.replace(
        config, prior=origin.prior, generator=origin.generator, semi_supervised=section
    )


def few_of(images: ImageSet, config: RunConfig) -> FewLabels:
    """The images with the few labels of a run; see `draw_few` and `hide`."""
    cfg = settings(config)
    require_few_labels(images, config)
    assert images.labels is not None  # noqa: S101 (required above)
    return hide(images, draw_few(images.labels, cfg.n_labels, seed=config.seed))


def require_few_labels(images: ImageSet, config: RunConfig) -> None:
    """Refuse images of which so many cannot be labelled in equal parts.

    Raises:
        ConfigError: fewer labels than classes, more than images, or not a multiple; one class
            alone; or the images without labels do not fill a minibatch.
        DatasetError: the images have no labels, or not classes numbered from 0.
    """
    if images.labels is None:
        raise DatasetError("semi_supervised needs a data set with labels")
    cfg = settings(config)
    require_n_labels(cfg.n_labels, class_sizes(images.labels))
    if cfg.method == "feature_matching":
        require_minibatch(len(images.labels) - cfg.n_labels, config.train.batch_size)
