"""Classification with few labels: how it is trained, what is kept of it, and its score.

Labels are hidden at the door: `SemiSupervisedRun` draws the few, and what trains receives a
`FewLabels`.
Nothing is chosen or stopped by any other label: the number of steps is fixed, and the score by
which a sweep compares is taken on the labelled images.

Source: section 7, fourth extension, of Goodfellow et al. (2014).
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gan.config import RunConfig
from gan.config import Task as TaskName
from gan.datasets.images import ImageSet, ImageShape
from gan.errors import DatasetError, DivergedError
from gan.extensions.discriminator_features import FeatureClassifier, FeaturesRun
from gan.extensions.feature_heads import empty_head
from gan.extensions.feature_matching import (
    FeatureMatching,
    PlainClassifier,
    PlainGenerator,
    plain_weights,
    settings,
)
from gan.extensions.few_labels import (
    FewLabels,
    draw_few,
    hide,
    require_classes,
    require_n_labels,
)
from gan.extensions.inference.nets import build_inference_net
from gan.extensions.inference.saved import SavedInference
from gan.extensions.inference_features import CodeClassifier, InferenceFeaturesRun
from gan.metric_names import (
    FEATURE_LOSS,
    FEW_LABELS_NATS,
    FEW_LABELS_NATS_SE,
    LABELLED_LOSS,
    LEARNING_RATE,
    UNLABELLED_LOSS,
)
from gan.nets import Player, build_discriminator
from gan.priors import build_prior
from gan.randomness import stream
from gan.run import Report
from gan.sampling import GeneratorSampler
from gan.saved_generator import empty_generator, generator_weights
from gan.validation import GRID_IMAGES, Scored, Validation


@dataclass(frozen=True, kw_only=True)
class FeatureMatchingProgress:
    """What feature matching reports: means over the steps since the last report.

    Attributes:
        step: updates of D, and of G, so far.
        images_seen: unlabelled images that D has learnt from so far.
        labelled_loss: see `gan.extensions.feature_matching`, nats.
        unlabelled_loss: nats.
        feature_loss: G's.
        learning_rate: step size of G's next update.
    """

    step: int
    images_seen: int
    labelled_loss: float
    unlabelled_loss: float
    feature_loss: float
    learning_rate: float

    def metrics(self) -> dict[str, float]:
        """Every value but the counts, by metric name."""
        return {
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
        device: where to train; on a GPU with Adam, a captured step is replayed.
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
        losses = dict(zip((LABELLED_LOSS, UNLABELLED_LOSS, FEATURE_LOSS), means, strict=True))
        rate = self.lanes.learning_rate
        if not all(map(math.isfinite, means)):
            raise DivergedError(step=self.step, losses=losses, learning_rate=rate)
        return FeatureMatchingProgress(
            step=self.step,
            images_seen=self.step * self.config.train.batch_size,
            learning_rate=rate,
            **losses,
        )


@dataclass(frozen=True)
class SavedSemiSupervised:
    """A classifier and the generator that it was trained beside.

    Attributes:
        classifier: rows [n, n_pixels] in [0, 1] to logits [n, K], in evaluation mode.
        G: the generator, in evaluation mode.
        few_pixels: the labelled images, [l, n_pixels] uint8, class by class.
        few_labels: their classes, [l] int64.
        config: the run that trained it.
        image_shape: (channels, height, width).
    """

    classifier: nn.Module
    G: Player
    few_pixels: Tensor
    few_labels: Tensor
    config: RunConfig
    image_shape: ImageShape

    @property
    def n_classes(self) -> int:
        """K."""
        return int(self.few_labels.max()) + 1

    def tensors(self) -> dict[str, Tensor]:
        """Weights of both nets and the labelled images, by name."""
        nets = {"classifier": self.classifier, "G": self.G}
        flat = {
            f"{part}/{k}": t for part, net in nets.items() for k, t in net.state_dict().items()
        }
        return flat | {"few/pixels": self.few_pixels, "few/labels": self.few_labels}

    def sampler(self) -> GeneratorSampler:
        """Draws images from G."""
        prior = build_prior(self.config.prior)
        return GeneratorSampler(self.G, prior, image_shape=self.image_shape)

    def few_images(self) -> Tensor:
        """The labelled images, [l, channels, height, width] in [0, 1]."""
        return self.few_pixels.to(torch.float32).div(255).view(-1, *self.image_shape)

    @torch.no_grad()
    def log_probabilities(self, images: Tensor, *, chunk: int = 1000) -> Tensor:
        """Of each class: [n, channels, height, width] in [0, 1] -> [n, K] float32."""
        parts = torch.split(images.to(torch.float32).flatten(1), chunk)
        return torch.cat([self.classifier(part) for part in parts]).log_softmax(1)


class SemiSupervisedRun:
    """A run of either method.

    Args:
        config: the run; of its origin, if it has one, it takes over what `adopt` says.
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
            config = adopt(config, origin.config)
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
        ConfigError: fewer labels than classes, more than images, or not a multiple.
        DatasetError: the images have no labels, or not classes numbered from 0.
    """
    if images.labels is None:
        raise DatasetError("semi_supervised needs a data set with labels")
    require_n_labels(settings(config).n_labels, require_classes(torch.from_numpy(images.labels)))


def weights_of(state: Mapping[str, Tensor], config: RunConfig) -> dict[str, Tensor]:
    """What is kept of a training state: see `SavedSemiSupervised.tensors`."""
    method = settings(config).method
    if method == "feature_matching":
        nets = _feature_matching_weights(state, config)
    elif method == "inference_features":
        nets = {f"G/{k}": t for k, t in _part(state, "G/").items()}
        nets |= {f"classifier/E.{k}": t for k, t in _part(state, "E/").items()}
        nets |= {f"classifier/head.{k}": t for k, t in _part(state, "head/").items()}
    else:
        nets = {f"G/{k}": t for k, t in generator_weights(state, config).items()}
        nets |= {f"classifier/D.{k}": t for k, t in _part(state, "D/").items()}
        nets |= {f"classifier/head.{k}": t for k, t in _part(state, "head/").items()}
    return nets | {k: t for k, t in state.items() if k.startswith("few/")}


def from_weights(
    weights: Mapping[str, Tensor], config: RunConfig, image_shape: ImageShape
) -> SavedSemiSupervised:
    """What was saved with these weights.

    Raises:
        KeyError: if they are of something else.
        RuntimeError: if they do not fit the configuration.
    """
    few_pixels, few_labels = weights["few/pixels"], weights["few/labels"]
    n_pixels, cfg = math.prod(image_shape), settings(config)
    classifier: nn.Module
    G: Player
    if cfg.method == "feature_matching":
        classifier = PlainClassifier([n_pixels, *cfg.hidden, int(few_labels.max()) + 1])
        G = PlainGenerator([config.prior.dim, *cfg.generator_hidden, n_pixels])
    elif cfg.method == "inference_features":
        theirs = dataclasses.replace(config, semi_supervised=None, inference=cfg.inference)
        E = build_inference_net(theirs, n_pixels=n_pixels, rng=stream(config.seed, "init"))
        classifier = CodeClassifier(E, empty_head(_part(weights, "classifier/head.")))
        G = empty_generator(config, n_pixels=n_pixels)
    else:
        rng = stream(config.seed, "init")
        D = build_discriminator(config.discriminator, n_pixels=n_pixels, rng=rng)
        classifier = FeatureClassifier(D, empty_head(_part(weights, "classifier/head.")))
        G = empty_generator(config, n_pixels=n_pixels)
    classifier.load_state_dict(_part(weights, "classifier/"))
    G.load_state_dict(_part(weights, "G/"))
    return SavedSemiSupervised(
        classifier=classifier.eval().requires_grad_(False),
        G=G.eval().requires_grad_(False),
        few_pixels=few_pixels,
        few_labels=few_labels,
        config=config,
        image_shape=image_shape,
    )


def few_labels_losses(saved: SavedSemiSupervised) -> Tensor:
    """-log p(label) of each labelled image, without noise, nats: [l] float32."""
    logits = saved.log_probabilities(saved.few_images())
    return cross_entropy(logits, saved.few_labels, reduction="none")


def score(saved: SavedSemiSupervised, validation: Validation) -> Scored:
    """Cross-entropy on the labelled images; validation images have no part in it."""
    losses = few_labels_losses(saved).double()
    return Scored(
        scores={
            FEW_LABELS_NATS: float(losses.mean()),
            FEW_LABELS_NATS_SE: float(losses.std() / math.sqrt(len(losses))),
        },
        picture=saved.sampler().showcase(GRID_IMAGES, seed=validation.config.seed),
    )


def _feature_matching_weights(state: Mapping[str, Tensor], config: RunConfig) -> dict[str, Tensor]:
    prefix = "average." if config.train.average_decay else ""
    nets: dict[str, Tensor] = {}
    for name, part in (("classifier", "D"), ("G", "G")):
        folded = plain_weights(_part(state, f"{prefix}{part}/"))
        nets |= {f"{name}/{k}": t for k, t in folded.items()}
    return nets


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
