"""What a deep belief net and a deep Boltzmann machine have in common: RBMs trained in turn."""

from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from gan.baselines.baseline import Baseline
from gan.baselines.rbm import Propdown, Rbm, annealed, draw, phase_at
from gan.config import DbmConfig, DbnConfig, TrainConfig
from gan.datasets.images import ImageShape
from gan.metric_names import FREE_ENERGY_GAP_NATS
from gan.optimisers import Descent, build_descent

Config = TypeVar("Config", DbnConfig, DbmConfig)


class RbmStack(Baseline, Generic[Config]):
    """RBMs one above the other, of which each phase of the training has one, from the bottom.

    Attributes:
        cfg: its settings.
        rbms: from the pixels up.

    Args:
        image_shape: (channels, height, width).
        cfg: its settings.
        rbms: from the pixels up.
        pixel_mean: mean of each pixel over the training images, [n_pixels] in [0, 1].
    """

    def __init__(
        self, image_shape: ImageShape, *, cfg: Config, rbms: list[Rbm], pixel_mean: Tensor
    ) -> None:
        super().__init__(image_shape)
        self.cfg: Config = cfg
        self._ends: list[int] = []
        self.rbms = nn.ModuleList(rbms)
        with torch.no_grad():
            rbms[0].vbias.copy_(torch.logit(pixel_mean.double(), eps=1e-3))

    def descent(self) -> Descent:
        """See `Baseline`: that of the present phase."""
        phase, done = phase_at(self.step, self._ends)
        descent = list(self.descents.values())[phase]
        descent.rate_factor = annealed(done, anneal_from=self.cfg.anneal_from)
        return descent

    def decoder(self) -> tuple[nn.Module, int]:
        """See `Baseline`: the first hidden layer to the means of the pixels given it."""
        return Propdown(self._rbm(0)), self.cfg.hidden[0]

    def _rbm_descents(self, cfg: TrainConfig) -> dict[str, Descent]:
        """One for each RBM, in the order of the phases."""
        return {
            f"rbm_{i}": build_descent(rbm.parameters(), cfg, learning_rate=cfg.learning_rate)
            for i, rbm in enumerate(self.rbms)
        }

    def _update_rbm(
        self, phase: int, v: Tensor, *, begins: bool, persistent: bool, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """One update of an RBM, on what is drawn of those below it given the pixels v."""
        for i in range(phase):
            p = self._rbm(i).propup(v)
            v = draw(p, rng)
        rbm = self._rbm(phase)
        if begins:
            rbm.begin_at(v)
            if phase:
                rbm.vbias.copy_(torch.logit(p.mean(0), eps=1e-2) / rbm.down)
        gradients, gap = rbm.contrast(v, k=self.cfg.gibbs_steps, persistent=persistent, rng=rng)
        self.descent().update(gradients)
        return {FREE_ENERGY_GAP_NATS: gap}

    def _rbm(self, i: int) -> Rbm:
        return cast(Rbm, self.rbms[i])
