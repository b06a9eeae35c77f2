"""One training run: the players, their images, and the scores of their samples."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from gan.algorithm1 import Progress, train
from gan.config import EvaluationConfig, RunConfig
from gan.datasets.images import ImageSet, pixel_mean
from gan.evaluation.parzen import PAPER_GRID, ParzenScore, choose_sigma, parzen_score
from gan.minibatches import Minibatches
from gan.model import build_gan
from gan.saved_generator import SavedGenerator


class Run:
    """A run at some step, from which it can go on, be sampled, be saved and be restored.

    Args:
        cfg: the run.
        images: training images.
        device: where to train.
    """

    def __init__(self, cfg: RunConfig, images: ImageSet, *, device: torch.device | str) -> None:
        self.cfg, self.image_shape = cfg, images.image_shape
        mean = torch.from_numpy(pixel_mean(images.images))
        self.gan = build_gan(cfg, pixel_mean=mean, device=device)
        pixels = torch.from_numpy(images.images).flatten(1).to(device)
        self.minibatches = Minibatches(
            pixels, batch_size=cfg.train.batch_size, rng=self.gan.streams.data
        )

    def train(self) -> Iterator[Progress]:
        """Algorithm 1 from the present step on; see `gan.algorithm1.train`."""
        return train(self.gan, self.minibatches, self.cfg.train)

    def generator(self) -> SavedGenerator:
        """The generator to sample from, as it is now."""
        G = self.gan.generator()
        return SavedGenerator(G=G, config=self.cfg, image_shape=self.image_shape)

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, by name."""
        images = {f"images/{name}": t for name, t in self.minibatches.state().items()}
        return self.gan.state() | images

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly where `state` was read."""
        mark = "images/"
        self.gan.set_state({k: t for k, t in state.items() if not k.startswith(mark)})
        self.minibatches.set_state(
            {k.removeprefix(mark): t for k, t in state.items() if k.startswith(mark)}
        )

    def is_scored_at(self, step: int) -> bool:
        """Whether a score is due at this step."""
        return step % self.cfg.evaluation.score_every == 0 or step == self.cfg.train.n_steps


def score_samples(
    samples: Tensor,
    images: Tensor,
    *,
    valid: Tensor,
    cfg: EvaluationConfig,
    grid: tuple[float, ...] = PAPER_GRID,
) -> ParzenScore:
    """The Parzen score of samples on images, by the protocol of the released code.

    Args:
        samples: [n, channels, height, width] in [0, 1].
        images: images to score, [b, channels, height, width] in [0, 1].
        valid: validation images, on whose first `cfg.n_sigma_images` the width is chosen.
        cfg: settings of the score.
        grid: window widths to choose from.
    """
    sigma = choose_sigma(valid[: cfg.n_sigma_images], samples, grid=grid, chunk=cfg.chunk)
    return parzen_score(images, samples, sigma=sigma, chunk=cfg.chunk)


def unit_pixels(images: ImageSet, *, device: torch.device | str = "cpu") -> Tensor:
    """Images as float64 in [0, 1], [n, channels, height, width]."""
    return torch.from_numpy(images.images).to(device, torch.float64).div_(255)
