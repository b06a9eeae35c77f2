"""Features of a z-inference net, and a linear classifier on them that learns from a few labels.

The features of an image are the last hidden layer of E and the code that E gives it: nothing of
them depends on a label.  The classifier minimises, over minibatches of the few,

    E_labelled [ -log p(y | x) ] + |W|^2 / (2 C l)

with l labels, and C chosen by cross-validation on these labels (see `heads`).

Source: section 7, fourth extension, of Goodfellow et al. (2014), "features from the discriminator
or inference net".
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gan.checkpoint import part_of
from gan.config import RunConfig
from gan.errors import DivergedError
from gan.extensions.inference.nets import InferenceNet
from gan.extensions.inference.saved import SavedInference
from gan.extensions.semi_supervised.few_labels import FewLabels
from gan.extensions.semi_supervised.heads import (
    Head,
    choose_strength,
    features_of_few,
    untrained_head,
)
from gan.metric_names import LABELLED_LOSS, LEARNING_RATE
from gan.optimisers import build_descent
from gan.randomness import stream


class CodeClassifier(nn.Module):
    """Rows [n, n_pixels] in [0, 1] to logits [n, K]: a head on E's last hidden layer and code."""

    def __init__(self, E: InferenceNet, head: Head) -> None:
        super().__init__()
        self.E, self.head = E, head

    def forward(self, x: Tensor) -> Tensor:
        """[n, n_pixels] -> [n, K]."""
        logits: Tensor = self.head(features(self.E, x))
        return logits


def features(E: InferenceNet, x: Tensor) -> Tensor:
    """The last hidden layer of E and the code side by side: [n, n_pixels] -> [n, units]."""
    hidden = E.features(x)
    return torch.cat([hidden, E.output(hidden)], 1)


@dataclass(frozen=True, kw_only=True)
class HeadProgress:
    """What training of a head reports: means over the steps since the last report.

    Attributes:
        step: updates so far.
        images_seen: labelled images that were read so far, with repetition.
        labelled_loss: cross-entropy, nats, without the penalty.
        learning_rate: step size of the next update.
    """

    step: int
    images_seen: int
    labelled_loss: float
    learning_rate: float

    def metrics(self) -> dict[str, float]:
        """Every value but the counts, by metric name."""
        return {LABELLED_LOSS: self.labelled_loss, LEARNING_RATE: self.learning_rate}


class InferenceFeaturesRun:
    """A run that trains a head on the features of an inference net, which stays as it is.

    Args:
        config: the run.
        few: its data.
        origin: the inference net, with its generator.
        device: where to train.
    """

    def __init__(
        self,
        config: RunConfig,
        few: FewLabels,
        *,
        origin: SavedInference,
        device: torch.device | str,
    ) -> None:
        self.config, self.few, self.step = config, few, 0
        self._kept = {f"E/{k}": t for k, t in origin.E.state_dict().items()}
        self._kept |= {f"G/{k}": t for k, t in origin.G.state_dict().items()}
        labelled, unlabelled = features_of_few(
            few, lambda x: features(origin.E, x), device=next(origin.E.parameters()).device
        )
        self.head = untrained_head(few.labels, unlabelled)
        strength = choose_strength(self.head, labelled, few.labels)
        self._penalty = 1 / (2 * strength * len(labelled))
        self.head = self.head.to(device)
        self._features, self._labels = labelled.to(device), few.labels.to(device)
        self._rng = stream(config.seed, "data", device)
        train = config.train
        self._descent = build_descent(
            self.head.parameters(), train, learning_rate=train.learning_rate
        )

    def train(self) -> Iterator[HeadProgress]:
        """Train to the last step, with a report every `train.report_every` steps and at the end.

        Raises:
            DivergedError: at the first report with a loss that is not finite.
        """
        train = self.config.train
        total, n_summed = torch.zeros((), device=self._labels.device), 0
        while self.step < train.n_steps:
            total += self._advance()
            self.step, n_summed = self.step + 1, n_summed + 1
            if self.step % train.report_every == 0 or self.step == train.n_steps:
                yield self._progress(float(total) / n_summed)
                total.zero_()
                n_summed = 0

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, and both nets, by name."""
        parts = {"head": self.head.state_dict(), "descent": self._descent.state()}
        flat = {f"{part}/{name}": t for part, state in parts.items() for name, t in state.items()}
        own = {"streams/data": self._rng.get_state(), "step": torch.tensor(self.step)}
        return flat | own | self._kept

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        self.head.load_state_dict(part_of(state, "head/"))
        self._descent.set_state(part_of(state, "descent/"))
        self._rng.set_state(state["streams/data"])
        self.step = int(state["step"])

    def _advance(self) -> Tensor:
        """One update; returns the cross-entropy of its minibatch."""
        n, device = self.config.train.batch_size, self._labels.device
        rows = torch.randint(len(self._labels), (n,), generator=self._rng, device=device)
        loss = cross_entropy(self.head(self._features[rows]), self._labels[rows])
        penalised = loss + self._penalty * self.head.linear.weight.square().sum()
        gradients = torch.autograd.grad(penalised, list(self.head.parameters()))
        self._descent.update(gradients)
        return loss.detach()

    def _progress(self, loss: float) -> HeadProgress:
        rate = self._descent.learning_rate
        if not math.isfinite(loss):
            raise DivergedError(step=self.step, losses={LABELLED_LOSS: loss}, learning_rate=rate)
        return HeadProgress(
            step=self.step,
            images_seen=self.step * self.config.train.batch_size,
            labelled_loss=loss,
            learning_rate=rate,
        )
