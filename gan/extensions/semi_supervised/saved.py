"""What is kept of a classifier with few labels: both nets, and the labelled images."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gan.checkpoint import part_of
from gan.config import RunConfig
from gan.datasets.images import ImageShape
from gan.extensions.inference.nets import build_inference_net
from gan.extensions.semi_supervised.discriminator_features import FeatureClassifier
from gan.extensions.semi_supervised.feature_matching import settings
from gan.extensions.semi_supervised.heads import empty_head
from gan.extensions.semi_supervised.inference_features import CodeClassifier
from gan.extensions.semi_supervised.nets import PlainClassifier, PlainGenerator, plain_weights
from gan.nets import Player, build_discriminator
from gan.priors import build_prior
from gan.randomness import stream
from gan.sampling import GeneratorSampler
from gan.saved_generator import empty_generator, generator_weights


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


def weights_of(state: Mapping[str, Tensor], config: RunConfig) -> dict[str, Tensor]:
    """What is kept of a training state: see `SavedSemiSupervised.tensors`."""
    method = settings(config).method
    if method == "feature_matching":
        nets = _feature_matching_weights(state, config)
    elif method == "inference_features":
        nets = {f"G/{k}": t for k, t in part_of(state, "G/").items()}
        nets |= {f"classifier/E.{k}": t for k, t in part_of(state, "E/").items()}
        nets |= {f"classifier/head.{k}": t for k, t in part_of(state, "head/").items()}
    else:
        nets = {f"G/{k}": t for k, t in generator_weights(state, config).items()}
        nets |= {f"classifier/D.{k}": t for k, t in part_of(state, "D/").items()}
        nets |= {f"classifier/head.{k}": t for k, t in part_of(state, "head/").items()}
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
        classifier = CodeClassifier(E, empty_head(part_of(weights, "classifier/head.")))
        G = empty_generator(config, n_pixels=n_pixels)
    else:
        rng = stream(config.seed, "init")
        D = build_discriminator(config.discriminator, n_pixels=n_pixels, rng=rng)
        classifier = FeatureClassifier(D, empty_head(part_of(weights, "classifier/head.")))
        G = empty_generator(config, n_pixels=n_pixels)
    classifier.load_state_dict(part_of(weights, "classifier/"))
    G.load_state_dict(part_of(weights, "G/"))
    return SavedSemiSupervised(
        classifier=classifier.eval().requires_grad_(False),
        G=G.eval().requires_grad_(False),
        few_pixels=few_pixels,
        few_labels=few_labels,
        config=config,
        image_shape=image_shape,
    )


def _feature_matching_weights(state: Mapping[str, Tensor], config: RunConfig) -> dict[str, Tensor]:
    prefix = "average." if config.train.average_decay else ""
    nets: dict[str, Tensor] = {}
    for name, part in (("classifier", "D"), ("G", "G")):
        folded = plain_weights(part_of(state, f"{prefix}{part}/"))
        nets |= {f"{name}/{k}": t for k, t in folded.items()}
    return nets
