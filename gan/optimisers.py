"""SGD with the paper's schedules, and Adam."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from gan.config import TrainConfig
from gan.layers import trained_weights


class Descent(ABC):
    """One player's optimiser: follows gradients, and its schedules by the updates it has made.

        learning rate at update t:  max(floor, rate / decay^t)
        momentum at update t:       linear from its first to its final value, then constant

    Built on the functions below torch's optimisers: the wrapper around them takes 0.1 to 0.2 ms
    an update, which nets as small as the paper's feel.

    Source: the released code's `ExponentialDecay` and `MomentumAdjustor` (mnist.yaml).
    Differs: momentum grows at every update rather than once an epoch; the velocity is kept before
    the learning rate is multiplied in, so a gradient of i updates ago weighs 1.000004^-i times as
    much; and for k > 1 G's schedules go by its own updates, the released code's by minibatches.
    """

    SLOTS: ClassVar[tuple[str, ...]]
    """What is kept beside each parameter, in its shape."""

    rate_factor: float
    """What the schedule's step size is multiplied by; a loop with a schedule of its own sets it
    before each update."""
    rate_on_device: Tensor | None
    """Given: what an update of Adam reads in place of `learning_rate`, so that a captured update
    can be replayed at another step size."""

    def __init__(
        self, params: Iterable[nn.Parameter], cfg: TrainConfig, *, learning_rate: float
    ) -> None:
        self.params: list[Tensor] = list(params)
        self.n_updates = 0
        self.rate_factor = 1.0
        self.rate_on_device: Tensor | None = None
        self._limited: list[Tensor] = []
        self._max_norm = math.inf
        self._cfg, self._initial_rate = cfg, learning_rate
        self._kept = {name: [torch.zeros_like(p) for p in self.params] for name in self.SLOTS}

    @property
    def learning_rate(self) -> float:
        """Step size of the next update."""
        try:
            decayed = self._initial_rate / self._cfg.decay_per_step**self.n_updates
        except OverflowError:  # Python raises where C has infinity, by which this is 0
            decayed = 0.0
        return self.rate_factor * max(self._cfg.min_learning_rate, decayed)

    @property
    def momentum(self) -> float:
        """Momentum of the next update; SGD alone reads it."""
        done = min(1.0, self.n_updates / self._cfg.momentum_steps)
        return self._cfg.momentum + done * (self._cfg.final_momentum - self._cfg.momentum)

    def gradients(self, loss: Tensor) -> tuple[Tensor, ...]:
        """Gradients of `loss` in this player's parameters alone; the other player's stay out."""
        found = torch.autograd.grad(loss, self.params)
        # cuDNN gives those of a convolution with channels last; the fused updates want one layout.
        return tuple(map(_laid_out_as, found, self.params))

    @torch.no_grad()
    def update(self, gradients: tuple[Tensor, ...]) -> None:
        """One step along `gradients`."""
        self._step(list(gradients))
        for weight in self._limited:
            weight.renorm_(2, 0, self._max_norm)
        self.n_updates += 1

    def limit_columns(self, weights: Iterable[Tensor], max_norm: float | None) -> None:
        """Keep each unit's incoming weights within a ball, from the next update on.

            w <- w min(1, c / |w|)

        What is remembered beside the parameters, as the velocity, stays as it is.

        Args:
            weights: a unit at each first index, [n_out, ...]; parameters of this player, or parts
                of them in the same memory.
            max_norm: c, > 0; None: no limit.

        Source: Srivastava et al. (2014), "Dropout", section 5.1; `max_col_norm` of pylearn2, whose
        weights are transposed, so that a unit is a column.
        """
        if max_norm is not None:
            self._limited, self._max_norm = list(weights), max_norm

    @abstractmethod
    def _step(self, gradients: list[Tensor]) -> None: ...

    def state(self) -> dict[str, Tensor]:
        """Everything that a later update depends on, by name."""
        state = {"n_updates": torch.tensor(self.n_updates)}
        for name, tensors in self._kept.items():
            state |= {f"{i}.{name}": tensor for i, tensor in enumerate(tensors)}
        return state

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        self.n_updates = int(state["n_updates"])
        for name, tensors in self._kept.items():
            for i, tensor in enumerate(tensors):
                tensor.copy_(state[f"{i}.{name}"])


class MomentumDescent(Descent):
    """SGD with momentum:  v <- momentum v + gradient,  parameter <- parameter - rate v."""

    SLOTS = ("momentum_buffer",)

    def _step(self, gradients: list[Tensor]) -> None:
        sgd(
            self.params,
            gradients,
            [*self._kept["momentum_buffer"]],
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=0.0,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            fused=True,
        )


class AdamDescent(Descent):
    """Adam, Kingma and Ba (2015), algorithm 1."""

    SLOTS = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, params: Iterable[nn.Parameter], cfg: TrainConfig, *, learning_rate: float
    ) -> None:
        super().__init__(params, cfg, learning_rate=learning_rate)
        # Update numbers on the device, where the fused form reads them.
        self._kept["step"] = [torch.zeros((), device=p.device) for p in self.params]

    def _step(self, gradients: list[Tensor]) -> None:
        adam(
            self.params,
            gradients,
            self._kept["exp_avg"],
            self._kept["exp_avg_sq"],
            [],
            self._kept["step"],
            lr=self.learning_rate if self.rate_on_device is None else self.rate_on_device,
            beta1=self._cfg.adam_beta1,
            beta2=self._cfg.adam_beta2,
            eps=self._cfg.adam_epsilon,
            weight_decay=0.0,
            amsgrad=False,
            maximize=False,
            fused=True,
        )


def build_descent(
    params: Iterable[nn.Parameter], cfg: TrainConfig, *, learning_rate: float
) -> Descent:
    """The optimiser that the configuration names, of one player."""
    kind = {"sgd": MomentumDescent, "adam": AdamDescent}[cfg.optimizer]
    return kind(params, cfg, learning_rate=learning_rate)


def build_descents(
    G: nn.Module,
    D: nn.Module,
    cfg: TrainConfig,
    *,
    g_max_norm: float | None = None,
    d_max_norm: float | None = None,
) -> tuple[Descent, Descent]:
    """The optimisers of G and of D, each of the parameters that are not frozen.

    Args:
        G: generator.
        D: discriminator.
        cfg: of both optimisers.
        g_max_norm: largest norm of a unit's incoming weights in G; None: no limit.
        d_max_norm: the same in D.
    """
    d_rate = cfg.learning_rate if cfg.d_learning_rate is None else cfg.d_learning_rate
    g_descent = build_descent(_trained(G), cfg, learning_rate=cfg.learning_rate)
    d_descent = build_descent(_trained(D), cfg, learning_rate=d_rate)
    g_descent.limit_columns(trained_weights(G), g_max_norm)
    d_descent.limit_columns(trained_weights(D), d_max_norm)
    return g_descent, d_descent


def _laid_out_as(gradient: Tensor, parameter: Tensor) -> Tensor:
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _trained(net: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in net.parameters() if parameter.requires_grad]
