"""SGD with the paper's schedules, and Adam."""

import torch
from torch import Tensor, nn

from gan.config import TrainConfig


class Descent:
    """One player's optimiser: follows gradients, and its schedules by the updates it has made.

        learning rate at update t:  max(floor, rate / decay^t)
        momentum at update t:       linear from its first to its final value, then constant

    Source: the released code's `ExponentialDecay` and `MomentumAdjustor` (mnist.yaml).
    Differs: momentum grows at every update rather than once an epoch; the velocity is kept before
    the learning rate is multiplied in, so a gradient of i updates ago weighs 1.000004^-i times as
    much; and for k > 1 G's schedules go by its own updates, the released code's by minibatches.
    """

    def __init__(
        self, params: list[nn.Parameter], cfg: TrainConfig, *, learning_rate: float
    ) -> None:
        self.params, self.n_updates = params, 0
        self._cfg, self._initial_rate = cfg, learning_rate
        self._optimizer: torch.optim.Optimizer
        if cfg.optimizer == "sgd":
            self._optimizer = torch.optim.SGD(
                params, lr=learning_rate, momentum=cfg.momentum, fused=True
            )
        else:
            betas = (cfg.adam_beta1, cfg.adam_beta2)
            self._optimizer = torch.optim.Adam(params, lr=learning_rate, betas=betas, fused=True)

    @property
    def learning_rate(self) -> float:
        """Step size of the next update."""
        decayed = self._initial_rate / self._cfg.decay_per_step**self.n_updates
        return max(self._cfg.min_learning_rate, decayed)

    @property
    def momentum(self) -> float:
        """Momentum of the next update; SGD alone reads it."""
        done = min(1.0, self.n_updates / self._cfg.momentum_steps)
        return self._cfg.momentum + done * (self._cfg.final_momentum - self._cfg.momentum)

    def gradients(self, loss: Tensor, *, keep_graph: bool = False) -> tuple[Tensor, ...]:
        """Gradients of `loss` in this player's parameters alone; the other player's stay out."""
        return torch.autograd.grad(loss, self.params, retain_graph=keep_graph)

    def update(self, gradients: tuple[Tensor, ...]) -> None:
        """One step along `gradients`."""
        for parameter, gradient in zip(self.params, gradients, strict=True):
            parameter.grad = gradient
        (group,) = self._optimizer.param_groups
        group["lr"] = self.learning_rate
        if "momentum" in group:
            group["momentum"] = self.momentum
        self._optimizer.step()
        self.n_updates += 1

    def state(self) -> dict[str, Tensor]:
        """Everything that a later update depends on, by name."""
        state = {"n_updates": torch.tensor(self.n_updates)}
        for i, parameter in enumerate(self.params):
            for name, value in self._optimizer.state.get(parameter, {}).items():
                state[f"{i}.{name}"] = value
        return state

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        self.n_updates = int(state["n_updates"])
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            index, dot, name = key.partition(".")
            if dot:
                slots.setdefault(int(index), {})[name] = value.clone()  # torch would share it
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": slots, "param_groups": groups})


def build_descents(G: nn.Module, D: nn.Module, cfg: TrainConfig) -> tuple[Descent, Descent]:
    """The optimisers of G and of D."""
    d_rate = cfg.learning_rate if cfg.d_learning_rate is None else cfg.d_learning_rate
    return (
        Descent(list(G.parameters()), cfg, learning_rate=cfg.learning_rate),
        Descent(list(D.parameters()), cfg, learning_rate=d_rate),
    )
