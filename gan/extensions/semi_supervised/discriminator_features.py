"""Features of the paper's D, and a classifier on them that is trained on a few labels.

The GAN is trained first, by Algorithm 1, without any label.  All hidden layers of its D, without
dropout, are then the features of an image.

Source: section 7, fourth extension, of Goodfellow et al. (2014); all layers rather than the last
one: Radford et al. (2016), section 5.1.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from gan.config import RunConfig
from gan.datasets.images import ImageSet
from gan.extensions.semi_supervised.few_labels import FewLabels
from gan.extensions.semi_supervised.heads import Head, features_of_few, fit_head
from gan.nets import Discriminator
from gan.run import Report, Run


class FeatureClassifier(nn.Module):
    """Rows [n, n_pixels] in [0, 1] to logits [n, K]: a head on every hidden layer of D."""

    def __init__(self, D: Discriminator, head: Head) -> None:
        super().__init__()
        self.D, self.head = D, head

    def forward(self, x: Tensor) -> Tensor:
        """[n, n_pixels] -> [n, K]."""
        logits: Tensor = self.head(features(self.D, x))
        return logits


def features(D: Discriminator, x: Tensor) -> Tensor:
    """Every hidden layer of D side by side: [n, n_pixels] -> [n, units of all layers]."""
    return torch.cat(D.hidden_layers(x), 1)


class FeaturesRun:
    """A run of Algorithm 1 on images without labels, whose D is given a head at every reading.

    Args:
        config: the run.
        few: its data.
        device: where to train.
    """

    def __init__(self, config: RunConfig, few: FewLabels, *, device: torch.device | str) -> None:
        pixels = few.pixels.view(-1, *few.image_shape).numpy()
        unlabelled = ImageSet(images=pixels, labels=None, digest="")
        self.few, self.core = few, Run(config, unlabelled, device=device)

    @property
    def step(self) -> int:
        """Updates of G so far."""
        return self.core.step

    def train(self) -> Iterator[Report]:
        """Algorithm 1 from the present step on."""
        return self.core.train()

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, and the head of D as it is now."""
        D = self.core.gan.D
        assert isinstance(D, Discriminator)  # noqa: S101 (Run made it)
        head = discriminator_head(D, self.few).state_dict()
        return self.core.state() | {f"head/{name}": t for name, t in head.items()}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        self.core.set_state({k: t for k, t in state.items() if not k.startswith("head/")})


def discriminator_head(D: Discriminator, few: FewLabels) -> Head:
    """The head that is trained on the labelled images' features of D."""
    device = next(D.parameters()).device
    labelled, unlabelled = features_of_few(few, lambda x: features(D, x), device=device)
    return fit_head(labelled, few.labels, unlabelled)
