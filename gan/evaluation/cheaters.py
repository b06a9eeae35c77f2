"""Sets of samples that each fool some score, and the honest set that must fool none.

    material = Material(train=..., train_labels=..., fresh=..., fresh_labels=...)
    for name, cheater in CHEATERS.items():
        samples = cheater.make(material, n=10_000, seed=0)

Only what is meant to copy is made of the training images; the others are made of fresh ones, so
that the copying test stays silent and shows which check catches them.  `honest` is what every
check must let pass.

Sources: Theis, van den Oord and Bethge (2016) for k-means centres and the mixture with noise; a
Parzen window scores blurred images and centres above real ones.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from gan.errors import ScoreError
from gan.evaluation.bins import lloyd
from gan.randomness import stream

RARE_CLASS = 2
"""The class that is left out or starved: without it a Parzen window loses only 29 nats."""

NOISE = 0.05
"""Standard deviation of the noise on copies: 13 grey levels of 255."""

FAINT = 0.12
"""Brightest pixel of faint noise: 31 grey levels of 255."""

N_DISTINCT = 100
"""Images that `few_distinct` repeats; a tenth of n where that is less."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """The real images that samples are made of.

    Attributes:
        train: images that generators are trained on, [t, c, h, w], floating point in [0, 1].
        fresh: other real images, drawn as the training images were, [m, c, h, w].
        fresh_labels: their classes, int64 [m], where the data have any.
        other: images of another data set, of the same shape; else transposed fresh ones.

    Raises:
        ValueError: a set is not that.
    """

    train: Tensor
    fresh: Tensor
    fresh_labels: Tensor | None = None
    other: Tensor | None = None

    def __post_init__(self) -> None:
        sets = {"train": self.train, "fresh": self.fresh, "other": self.other}
        for name, images in sets.items():
            if images is not None:
                _require_images(name, images, shape=self.train.shape[1:])
        labels = self.fresh_labels
        if labels is not None and (
            labels.dtype != torch.int64 or labels.shape != self.fresh.shape[:1]
        ):
            raise ValueError(
                f"fresh_labels must be int64 [{len(self.fresh)}], "
                f"got {labels.dtype} {list(labels.shape)}"
            )


class Make(Protocol):
    """Makes n samples, [n, c, h, w] in [0, 1], on the device and of the type of the material.

    Raises:
        ScoreError: the material has too few images, or no labels where they are needed.
    """

    def __call__(self, material: Material, *, n: int, seed: int) -> Tensor:
        """The same samples for the same material, n and seed."""


@dataclass(frozen=True)
class Cheater:
    """One way to cheat.

    Attributes:
        make: the samples.
        description: of them, in a few words.
    """

    make: Make
    description: str


def honest(material: Material, *, n: int, seed: int) -> Tensor:
    """Fresh real images, drawn without replacement."""
    return _draw(material.fresh, n, stream(seed, "cheaters/honest"))


def blurred(material: Material, *, n: int, seed: int) -> Tensor:
    """Fresh images through a 3 x 3 binomial filter; the border is repeated outwards."""
    return blur(_draw(material.fresh, n, stream(seed, "cheaters/blurred")))


def blur(images: Tensor) -> Tensor:
    """Images [n, c, h, w] through the filter [1, 2, 1]^T [1, 2, 1] / 16."""
    weights = images.new_tensor([1, 2, 1]) / 4
    kernel = (weights[:, None] * weights).expand(images.shape[1], 1, 3, 3)
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    # The sum of weights may round above 1 for a white patch.
    return functional.conv2d(padded, kernel, groups=images.shape[1]).clamp_(0, 1)


def k_means_centres(material: Material, *, n: int, seed: int) -> Tensor:
    """Centres of k-means with K = n on the training images, after two Lloyd steps."""
    rng = stream(seed, "cheaters/k_means_centres")
    centres = lloyd(material.train.flatten(1), _draw(material.train, n, rng).flatten(1), n_steps=2)
    return centres.view(n, *material.train.shape[1:]).clamp(0, 1)


def copied(material: Material, *, n: int, seed: int) -> Tensor:
    """Training images, drawn without replacement."""
    return _draw(material.train, n, stream(seed, "cheaters/copied"))


def partly_copied(material: Material, *, n: int, seed: int) -> Tensor:
    """Seven tenths fresh images, three tenths training images, in random order."""
    rng = stream(seed, "cheaters/partly_copied")
    n_copies = 3 * n // 10
    copies = _draw(material.train, n_copies, rng)
    return _draw(torch.cat([_draw(material.fresh, n - n_copies, rng), copies]), n, rng)


def copied_with_noise(material: Material, *, n: int, seed: int) -> Tensor:
    """Training images plus Gaussian noise of standard deviation `NOISE`, clipped to [0, 1]."""
    rng = stream(seed, "cheaters/copied_with_noise")
    images = _draw(material.train, n, rng)
    noise = torch.randn(images.shape, generator=rng).to(images)
    return (images + NOISE * noise).clamp_(0, 1)


def copied_with_shift(material: Material, *, n: int, seed: int) -> Tensor:
    """Training images, each moved by one pixel up, down, left or right; the edge is repeated."""
    rng = stream(seed, "cheaters/copied_with_shift")
    images = _draw(material.train, n, rng)
    height, width = images.shape[2:]
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    corners = [(0, 1), (2, 1), (1, 0), (1, 2)]
    moved = torch.stack([padded[:, :, y : y + height, x : x + width] for y, x in corners])
    which = torch.randint(len(corners), (n,), generator=rng).to(images.device)
    return moved[which, torch.arange(n, device=images.device)]


def class_missing(material: Material, *, n: int, seed: int) -> Tensor:
    """Fresh images of all classes but `RARE_CLASS`."""
    labels = _labels(material)
    return _draw(material.fresh[labels != RARE_CLASS], n, stream(seed, "cheaters/class_missing"))


def class_starved(material: Material, *, n: int, seed: int) -> Tensor:
    """Fresh images with a tenth of the share of `RARE_CLASS`, in random order."""
    labels = _labels(material)
    rng = stream(seed, "cheaters/class_starved")
    is_rare = labels == RARE_CLASS
    n_rare = round(0.1 * n * float(is_rare.double().mean()))
    rare = _draw(material.fresh[is_rare], n_rare, rng)
    others = _draw(material.fresh[~is_rare], n - n_rare, rng)
    return _draw(torch.cat([rare, others]), n, rng)


def few_distinct(material: Material, *, n: int, seed: int) -> Tensor:
    """`N_DISTINCT` fresh images, each repeated n / `N_DISTINCT` times."""
    rng = stream(seed, "cheaters/few_distinct")
    images = _draw(material.fresh, max(1, min(N_DISTINCT, n // 10)), rng)
    return images[torch.arange(n, device=images.device) % len(images)]


def binarised(material: Material, *, n: int, seed: int) -> Tensor:
    """Fresh images, each pixel 1 above a half and 0 else."""
    images = _draw(material.fresh, n, stream(seed, "cheaters/binarised"))
    return (images > 0.5).to(images.dtype)


def tenth_noise(material: Material, *, n: int, seed: int) -> Tensor:
    """Nine tenths fresh images, one tenth noise uniform on [0, 1], in random order."""
    return _with_noise(material, n=n, brightest=1, rng=stream(seed, "cheaters/tenth_noise"))


def tenth_faint_noise(material: Material, *, n: int, seed: int) -> Tensor:
    """Nine tenths fresh images, one tenth noise uniform on [0, `FAINT`], in random order."""
    return _with_noise(material, n=n, brightest=FAINT, rng=stream(seed, "cheaters/faint_noise"))


def _with_noise(material: Material, *, n: int, brightest: float, rng: torch.Generator) -> Tensor:
    n_noise = n // 10
    images = _draw(material.fresh, n - n_noise, rng)
    noise = brightest * torch.rand(n_noise, *images.shape[1:], generator=rng)
    return _draw(torch.cat([images, noise.to(images)]), n, rng)


def other_data(material: Material, *, n: int, seed: int) -> Tensor:
    """Images of another data set, or fresh ones transposed, or turned where not square."""
    rng = stream(seed, "cheaters/other_data")
    if material.other is not None:
        return _draw(material.other, n, rng)
    images = _draw(material.fresh, n, rng)
    height, width = images.shape[2:]
    return images.mT.contiguous() if height == width else images.flip(2, 3)


CHEATERS = {
    "blurred": Cheater(blurred, "real images through a 3 x 3 binomial filter"),
    "k_means_centres": Cheater(k_means_centres, "k-means centres of the training images"),
    "copied": Cheater(copied, "training images"),
    "partly_copied": Cheater(partly_copied, "70 % real images, 30 % training images"),
    "copied_with_noise": Cheater(copied_with_noise, "training images plus small noise"),
    "copied_with_shift": Cheater(copied_with_shift, "training images moved by one pixel"),
    "class_missing": Cheater(class_missing, "real images of all classes but one"),
    "class_starved": Cheater(class_starved, "real images with a tenth of one class"),
    "few_distinct": Cheater(few_distinct, "100 real images, repeated"),
    "binarised": Cheater(binarised, "real images, each pixel 0 or 1"),
    "tenth_noise": Cheater(tenth_noise, "90 % real images, 10 % uniform noise"),
    "tenth_faint_noise": Cheater(tenth_faint_noise, "90 % real images, 10 % faint noise"),
    "other_data": Cheater(other_data, "images of another data set"),
}
"""Name -> what every gate must refuse."""


def _draw(images: Tensor, n: int, rng: torch.Generator) -> Tensor:
    """So many of the images in random order, none twice."""
    if n > len(images):
        raise ScoreError(
            f"{n:,} samples without a repeat need as many such images, got {len(images):,}: "
            "ask for fewer"
        )
    return images[torch.randperm(len(images), generator=rng)[:n].to(images.device)]


def _labels(material: Material) -> Tensor:
    labels = material.fresh_labels
    if labels is None:
        raise ScoreError("a class can be left out only where fresh_labels are given")
    n_rare = int((labels == RARE_CLASS).sum())
    if not 0 < n_rare < len(labels):
        raise ScoreError(
            f"fresh_labels must hold class {RARE_CLASS} and others, "
            f"got {n_rare:,} of it among {len(labels):,}"
        )
    return labels.to(material.fresh.device)


def _require_images(name: str, images: Tensor, *, shape: torch.Size) -> None:
    if images.ndim != 4 or images.numel() == 0 or not images.is_floating_point():
        raise ValueError(
            f"{name} must be floating point [n, c, h, w] and not empty, "
            f"got {images.dtype} {list(images.shape)}"
        )
    if images.shape[1:] != shape:
        raise ValueError(
            f"{name} must hold images of the shape of train, {list(shape)}, "
            f"got {list(images.shape[1:])}"
        )
    low, high = (float(bound) for bound in images.aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{name} must lie in [0, 1], got {low:g}..{high:g}")
