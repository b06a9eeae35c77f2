"""Both players with everything that their training depends on."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gan.checkpoint import part_of
from gan.config import RunConfig
from gan.contrast import AS_THEY_ARE, Brightness
from gan.conv_nets import build_conv_discriminator
from gan.datasets.images import ImageShape
from gan.nets import Player, build_discriminator, build_generator
from gan.optimisers import Descent, build_descents
from gan.priors import Prior, build_prior
from gan.randomness import Streams, stream


class Gan:
    """A generator and a discriminator in training.

    Attributes:
        step: updates of G so far.
        average: exponential average of G's parameters and batch-norm statistics, or None.
        d_average: that of D's parameters, or None.
        g_prior: distribution of z in the updates of G alone, or None: the prior.
        streams: the random streams that training draws from.

    Args:
        G: generator, on its device.
        D: discriminator, on the same device.
        prior: distribution of z.
        g_descent: optimiser of G.
        d_descent: optimiser of D.
        streams: random streams on the device.
        average_decay: decay an update of the average of G; 0 for none.
        averages_d: whether D has an average of the same decay, too.
        bfloat16: multiply matrices in bfloat16.
    """

    def __init__(
        self,
        *,
        G: Player,
        D: Player,
        prior: Prior,
        g_descent: Descent,
        d_descent: Descent,
        streams: Streams,
        average_decay: float = 0.0,
        averages_d: bool = False,
        bfloat16: bool = False,
    ) -> None:
        self.G, self.D, self.prior = G, D, prior
        self.g_prior: Prior | None = None
        self.g_descent, self.d_descent, self.streams = g_descent, d_descent, streams
        self.step = 0
        self.device = next(G.parameters()).device
        self.average = averaged(G, average_decay)
        self.d_average = averaged(D, average_decay if averages_d else 0.0)
        self._bfloat16 = bfloat16
        self._G_forward, self._D_forward = G.__call__, D.__call__

    def compile(self) -> None:
        """Fuse the forward and backward pass of both nets from now on."""
        self._G_forward, self._D_forward = torch.compile(self.G), torch.compile(self.D)

    def generate(self, n: int, prior: Prior | None = None) -> Tensor:
        """Samples from fresh noise with G in training mode, [n, n_pixels] as D sees images."""
        z = (prior or self.prior).sample(n, self.streams.noise)
        masks = self.G.draw_masks(n, self.streams.dropout)
        x: Tensor = self.run_generator(z, masks)
        return x.float()

    def run_generator(self, *inputs: Any) -> Any:
        """What G in training mode makes of its inputs, in the precision of the run."""
        with self._autocast():
            return self._G_forward(*inputs)

    def discriminate(self, x: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """Logits of D for each row of x, [n]; with fresh dropout masks unless some are given."""
        if masks is None:
            masks = self.D.draw_masks(len(x), self.streams.dropout)
        with self._autocast():
            logits: Tensor = self._D_forward(x, masks)
        return logits.float()

    @contextmanager
    def fixed_discriminator(self) -> Iterator[None]:
        """D as G learns from it: no gradient of D's parameters is prepared, or paid for."""
        self.D.requires_grad_(False)
        try:
            yield
        finally:
            self.D.requires_grad_(True)

    def update_average(self) -> None:
        """Take the present parameters into the averages that are kept."""
        if self.average is not None:
            self.average.update_parameters(self.G)
        if self.d_average is not None:
            self.d_average.update_parameters(self.D)

    def generator(self) -> Player:
        """The generator to sample from: a copy of the average if one is kept, else of G."""
        return _evaluated(self.G, self.average)

    def discriminator(self) -> Player:
        """The discriminator to score samples by, likewise."""
        return _evaluated(self.D, self.d_average)

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, by name; `step` included."""
        parts = {
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "g_descent": self.g_descent.state(),
            "d_descent": self.d_descent.state(),
            "streams": self.streams.state(),
        }
        if self.average is not None:
            parts["average"] = self.average.state_dict()
        if self.d_average is not None:
            parts["d_average"] = self.d_average.state_dict()
        flat = {f"{part}/{name}": t for part, state in parts.items() for name, t in state.items()}
        return flat | {"step": torch.tensor(self.step)}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        self.G.load_state_dict(part_of(state, "G/"))
        self.D.load_state_dict(part_of(state, "D/"))
        self.g_descent.set_state(part_of(state, "g_descent/"))
        self.d_descent.set_state(part_of(state, "d_descent/"))
        self.streams.set_state(part_of(state, "streams/"))
        if self.average is not None:
            self.average.load_state_dict(part_of(state, "average/"))
        if self.d_average is not None:
            self.d_average.load_state_dict(part_of(state, "d_average/"))
        self.step = int(state["step"])

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16)


def averaged(net: nn.Module, decay: float) -> AveragedModel | None:
    """An exponential average of a net's parameters and batch-norm statistics; None at decay 0."""
    if not decay:
        return None
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(net, multi_avg_fn=average, use_buffers=True)


def _evaluated(net: Player, average: AveragedModel | None) -> Player:
    """A copy of the average if there is one, else of the net, for evaluation."""
    source = net if average is None else cast(Player, average.module)
    return copy.deepcopy(source).eval().requires_grad_(False)


def build_gan(
    cfg: RunConfig,
    *,
    pixel_mean: Tensor,
    image_shape: ImageShape,
    brightness: Brightness = AS_THEY_ARE,
    device: torch.device | str,
) -> Gan:
    """Both players as a configuration asks for them, at step 0.

    Args:
        cfg: the run.
        pixel_mean: mean of each pixel over the training images, [n_pixels] in [0, 1].
        image_shape: (channels, height, width).
        brightness: what linear outputs of G are as pixels.
        device: where to train; initial weights do not depend on it.

    Raises:
        ConfigError: convolutions do not fit images of this shape.
    """
    rng = stream(cfg.seed, "init")
    G = build_generator(
        cfg.generator,
        dim=cfg.prior.dim,
        pixel_mean=pixel_mean,
        rng=rng,
        image_shape=image_shape,
        brightness=brightness,
    )
    if cfg.discriminator.convolutions:
        D: Player = build_conv_discriminator(cfg.discriminator, image_shape=image_shape, rng=rng)
    else:
        D = build_discriminator(cfg.discriminator, n_pixels=len(pixel_mean), rng=rng)
    return assemble_gan(cfg, G=G, D=D, prior=build_prior(cfg.prior), device=device)


def assemble_gan(
    cfg: RunConfig,
    *,
    G: Player,
    D: Player,
    prior: Prior,
    device: torch.device | str,
    averages_d: bool = False,
) -> Gan:
    """Two nets with the optimisers and random streams that a configuration asks for, at step 0.

    Args:
        cfg: the run.
        G: takes rows of `prior`, and gives rows that D takes.
        D: gives a logit a row.
        prior: what G's rows are drawn from, on any device.
        device: where to train.
        averages_d: whether an average of D is kept, too, where one of G is.
    """
    G, D = G.to(device).train(), D.to(device).train()
    g_descent, d_descent = build_descents(
        G,
        D,
        cfg.train,
        g_max_norm=cfg.generator.max_column_norm,
        d_max_norm=cfg.discriminator.max_column_norm,
    )
    gan = Gan(
        G=G,
        D=D,
        prior=prior,
        g_descent=g_descent,
        d_descent=d_descent,
        streams=Streams(cfg.seed, device),
        average_decay=cfg.train.average_decay,
        averages_d=averages_d,
        bfloat16=cfg.train.precision == "bfloat16",
    )
    if cfg.train.compile:
        gan.compile()
    return gan
