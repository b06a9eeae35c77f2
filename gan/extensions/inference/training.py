"""How E learns: one step of descent on what a given generator makes of given z."""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from gan.checkpoint import part_of
from gan.config import RunConfig
from gan.datasets.images import ImageSet
from gan.errors import DivergedError
from gan.extensions.distortions import Distortions
from gan.extensions.inference.nets import (
    InferenceNet,
    build_inference_net,
    codes_of,
    settings,
)
from gan.metric_names import CODE_ERROR, RECONSTRUCTION_ERROR
from gan.minibatches import Minibatches
from gan.model import averaged
from gan.nets import Generator
from gan.optimisers import build_descent
from gan.randomness import Streams, stream, stream_seed


def code_error(predicted: Tensor, codes: Tensor, spread: Tensor) -> Tensor:
    """Mean over units of the squared error, in variances of the unit: 1 for a guess of the mean.

    Args:
        predicted: E(x), [n, width].
        codes: what was to be predicted, [n, width].
        spread: standard deviation of each unit, [width].
    """
    return ((predicted - codes) / spread).square().mean()


def unexplained(reconstructed: Tensor, x: Tensor, variance: Tensor) -> Tensor:
    """Mean of |reconstructed - x|^2 over that of |mean image - x|^2: 1 for the mean image.

    Args:
        reconstructed: [n, n_pixels].
        x: images, [n, n_pixels].
        variance: of all pixels of the training images together, their sum.
    """
    return (reconstructed - x).square().sum(1).mean() / variance


class Learner:
    """E in training, with everything that its steps depend on.

    Attributes:
        E: the net.
        average: exponential average of E, or None.
        descent: of E's parameters.
        codes: what E predicts.
        streams: random streams of its own, so that a game beside it draws what it would alone.

    Args:
        config: the run.
        images: training images.
        device: where to train.
        spread: of the units of a code, [width]; None: of each minibatch its own, for a G that is
            trained at the same time.

    Raises:
        ConfigError: G has not the layers that E is to predict.
    """

    def __init__(
        self,
        config: RunConfig,
        images: ImageSet,
        *,
        device: torch.device | str,
        spread: Tensor | None,
    ) -> None:
        self.config, self.cfg, self.image_shape = config, settings(config), images.image_shape
        rng = stream(config.seed, "init inference")
        n_pixels = math.prod(images.image_shape)
        self.E = build_inference_net(config, n_pixels=n_pixels, rng=rng).to(device).train()
        self.device = torch.device(device)
        self.average = averaged(self.E, config.train.average_decay)
        self.codes, self.spread = codes_of(config), spread
        train = config.train
        self.descent = build_descent(self.E.parameters(), train, learning_rate=train.learning_rate)
        self.streams = Streams(stream_seed(config.seed, "inference"), device)
        self.distortions = Distortions.of(self.cfg, noise=self.cfg.noise)
        pixels = torch.from_numpy(images.images).flatten(1).to(device)
        self.images = Minibatches(pixels, batch_size=train.batch_size, rng=self.streams.data)
        self.variance = _total_variance(pixels)
        self._forward = torch.compile(self.E) if train.compile else self.E.__call__

    def step(self, G: Generator, z: Tensor) -> tuple[Tensor, Tensor]:
        """One update of E, by samples of G in evaluation mode, to which no gradient goes.

        Args:
            G: as it is now.
            z: of the samples, [n, dim].

        Returns:
            The error of the codes, and that of the reconstructions (0 where E is not taught by
            them), before the update.
        """
        with frozen(G):
            with torch.no_grad():
                codes, pixels = self.codes.of(G, z)
                samples = self._distorted(pixels)
            spread = self.codes.spread(codes) if self.spread is None else self.spread
            weight = self.cfg.reconstruction
            if weight:
                x = next(self.images)
                seen = self._distorted(x) if self.cfg.distort_images else x
                # In one pass, so that batch norm is of both kinds of images.
                both = self._predict(torch.cat([samples, seen]))
                predicted, of_images = both[: len(samples)], both[len(samples) :]
                decoded = self.codes.decode(G, of_images)
                reconstruction = unexplained(decoded, x, self.variance)
            else:
                predicted = self._predict(samples)
                reconstruction = torch.zeros((), device=self.device)
            error = code_error(predicted, codes, spread)
            self.descent.update(self.descent.gradients(error + weight * reconstruction))
        if self.average is not None:
            self.average.update_parameters(self.E)
        return error.detach(), reconstruction.detach()

    def net(self) -> InferenceNet:
        """A copy of the net to infer with: of the average if one is kept, else of E."""
        E = self.E if self.average is None else self.average.module
        return cast(InferenceNet, copy.deepcopy(E).eval().requires_grad_(False))

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, by name."""
        parts: dict[str, Mapping[str, Tensor]] = {
            "E": self.E.state_dict(),
            "e_descent": self.descent.state(),
            "e_streams": self.streams.state(),
            "e_images": self.images.state(),
        }
        if self.average is not None:
            parts["e_average"] = self.average.state_dict()
        return {f"{part}/{name}": t for part, state in parts.items() for name, t in state.items()}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was read; what is not of E is passed over."""
        self.E.load_state_dict(part_of(state, "E/"))
        self.descent.set_state(part_of(state, "e_descent/"))
        self.streams.set_state(part_of(state, "e_streams/"))
        self.images.set_state(part_of(state, "e_images/"))
        if self.average is not None:
            self.average.load_state_dict(part_of(state, "e_average/"))

    def _distorted(self, x: Tensor) -> Tensor:
        return self.distortions.apply(x, self.image_shape, self.streams.noise)

    def _predict(self, x: Tensor) -> Tensor:
        masks = self.E.draw_masks(len(x), self.streams.dropout)
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.train.precision == "bfloat16"
        ):
            code: Tensor = self._forward(x, masks)
        return code.float()


@contextmanager
def frozen(G: nn.Module) -> Iterator[None]:
    """G in evaluation mode, without gradients of its own, and afterwards as it was before."""
    was_training = G.training
    trained = [parameter for parameter in G.parameters() if parameter.requires_grad]
    G.eval().requires_grad_(False)
    try:
        yield
    finally:
        G.train(was_training)
        for parameter in trained:
            parameter.requires_grad_(True)


class ErrorMeans:
    """Means of both errors over the steps since they were last taken; waits for no device."""

    def __init__(self, device: torch.device) -> None:
        self._sums, self._n = torch.zeros(2, device=device), 0

    def add(self, errors: tuple[Tensor, Tensor]) -> None:
        """Those of one more step."""
        self._sums += torch.stack(errors)
        self._n += 1

    def take(self, *, step: int, learning_rate: float) -> dict[str, float]:
        """The means by metric name; from now on of later steps alone.

        Raises:
            DivergedError: one is not finite.
        """
        code, reconstruction = (self._sums / self._n).tolist()
        self._sums.zero_()
        self._n = 0
        errors = {CODE_ERROR: code, RECONSTRUCTION_ERROR: reconstruction}
        if not all(map(math.isfinite, errors.values())):
            raise DivergedError(step=step, losses=errors, learning_rate=learning_rate)
        return errors


def _total_variance(pixels: Tensor) -> Tensor:
    """Sum over pixels of the variance over all images in [0, 1]; at least that of one grey level.

    Args:
        pixels: uint8 [n, n_pixels].
    """
    n = len(pixels)
    # In parts: float64 of all images at once may not fit.
    sums = torch.zeros(2, pixels.shape[1], dtype=torch.float64, device=pixels.device)
    for part in torch.split(pixels, 10_000):
        x = part.double() / 255
        sums += torch.stack([x.sum(0), x.square().sum(0)])
    mean, square = sums / n
    variance: Tensor = (square - mean.square()).sum()
    return variance.clamp(min=1 / 255**2).float()
