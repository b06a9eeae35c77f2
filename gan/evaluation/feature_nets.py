"""What classifier and autoencoder share: convolutions, their training, passes by chunks."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gan.errors import ScoreError
from gan.randomness import stream

logger = logging.getLogger(__name__)

AVERAGED_SHARE = 0.04
"""Share of the steps that the running average of the weights remembers: the last 200 of 5,000."""


@dataclass(frozen=True, kw_only=True)
class FeatureNetSettings:
    """How a feature net is trained.

    Attributes:
        n_steps: minibatches; 5,000 are 13 passes over MNIST, some 200 seconds of one CPU core.
        batch_size: images of one minibatch; all of them if there are fewer.
        learning_rate: peak of AdamW's step size, which rises over the first 15 % of the steps and
            then falls to nearly 0 (Smith and Topin, 2017).
        weight_decay: of AdamW.
        max_degrees: images are turned by up to this angle.
        max_scale: images are scaled by 1 - max_scale to 1 + max_scale.
        max_shift: images are moved by up to this share of height and width.
    """

    n_steps: int = 5_000
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    max_degrees: float = 12.0
    max_scale: float = 0.12
    max_shift: float = 0.09


def announce(kind: str, kept: Path, settings: FeatureNetSettings) -> None:
    """Tell a person why the next minutes pass without a word."""
    logger.info(
        "training the %s whose features the scores are taken of: %s minibatches, once, kept in %s",
        kind,
        f"{settings.n_steps:,}",
        kept,
    )


def recipe_of(
    architecture: str, data_digest: str, *, seed: int, settings: FeatureNetSettings
) -> dict[str, Any]:
    """All that decides the weights of a feature net; JSON, by whose digest it is kept."""
    return {
        "architecture": architecture,
        "data": data_digest,
        "seed": seed,
        "settings": asdict(settings),
    }


def convolutions(image_shape: tuple[int, int, int]) -> nn.Sequential:
    """Three convolutions and as many halvings as leave a side of 4 to 7: [n, c, h, w] -> [n, 576].

    The maps of 64 channels are averaged over 3 x 3 regions, whatever the size of the image.
    """
    channels, height, width = image_shape
    n_halvings = max(0, int(math.log2(min(height, width) / 4)))
    stem_stride = 2 if n_halvings else 1
    layers: list[nn.Module] = [
        *_convolution(channels, 32, size=5, stride=stem_stride),
        *_convolution(32, 64),
    ]
    for _ in range(n_halvings - 1):
        layers += [nn.MaxPool2d(2), *_convolution(64, 64)]
    if n_halvings < 2:
        layers += _convolution(64, 64)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten())


N_CONVOLVED = 64 * 3 * 3
"""Numbers that `convolutions` gives an image."""


def draw_weights(net: nn.Module, rng: torch.Generator) -> None:
    """Draw the weights of convolutions and linear layers as He et al. (2015); biases are 0."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=rng)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def fit(
    net: nn.Module,
    batch_loss: Callable[[Tensor], Tensor],
    *,
    n: int,
    settings: FeatureNetSettings,
    rng: torch.Generator,
) -> dict[str, Tensor]:
    """Train `net` in place; the running average of its weights and of its batch statistics.

    No image is held out: the number of steps is fixed, and nothing is chosen.

    Args:
        net: in training mode, on the device that trains.
        batch_loss: indices of a minibatch, int64 on the CPU -> its mean loss.
        n: training images.
        settings: of the optimiser and the minibatches.
        rng: stream of the minibatches, on the CPU.

    Raises:
        ScoreError: if a weight is not finite in the end.
    """
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.n_steps, pct_start=0.15
    )
    decay = max(0.0, 1 - 1 / (AVERAGED_SHARE * settings.n_steps))
    moving_average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(net, multi_avg_fn=moving_average, use_buffers=True)
    batches = _shuffled(n, batch_size=settings.batch_size, rng=rng)
    for _ in range(settings.n_steps):
        optimizer.zero_grad()
        batch_loss(next(batches)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        average.update_parameters(net)
    state: dict[str, Tensor] = average.module.state_dict()
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise ScoreError(
            "weights of a feature net must be finite, got NaN or infinity after "
            f"{settings.n_steps} steps: lower its learning_rate, {settings.learning_rate:g}"
        )
    return state


def as_minibatch(images: Tensor, device: torch.device) -> Tensor:
    """uint8 [m, c, h, w] as float32 in [0, 1] on `device`, in the fastest layout."""
    # Twice as fast on CPUs as channels first.
    return (images.to(device).float() / 255).contiguous(memory_format=torch.channels_last)


def moved(images: Tensor, settings: FeatureNetSettings, rng: torch.Generator) -> Tensor:
    """Each image turned, scaled and shifted a little, black where nothing was: [m, c, h, w]."""
    m, _, height, width = images.shape
    draws = (torch.rand(4, m, generator=rng) * 2 - 1).to(images.device)
    angle = draws[0] * math.radians(settings.max_degrees)
    size = 1 + draws[1] * settings.max_scale
    # A grid spans [-1, 1] over width and over height, so an angle is one only in squares.
    aspect = height / width
    cos, sin = angle.cos() / size, angle.sin() / size
    shift = 2 * settings.max_shift * draws[2:]
    rows = torch.stack(
        [
            torch.stack([cos, -sin * aspect, shift[0]], dim=1),
            torch.stack([sin / aspect, cos, shift[1]], dim=1),
        ],
        dim=1,
    )
    grid = nn.functional.affine_grid(rows, list(images.shape), align_corners=False)
    result = nn.functional.grid_sample(images, grid, align_corners=False)
    return result.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def in_chunks(
    function: Callable[[Tensor], Tensor], images: Tensor, *, chunk: int, device: torch.device
) -> Tensor:
    """`function` of the images, `chunk` at a time on `device`: [n, d] float32, where they lie.

    Another chunk changes the result by no more than the rounding of float32 (about 1e-6).

    Raises:
        ValueError: chunk < 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    # Tensor cores would round to 10 bits, and every score would depend on the device.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        parts = [
            function(part.to(device).float().contiguous(memory_format=torch.channels_last))
            for part in torch.split(images, chunk)
        ]
    return torch.cat(parts).to(images.device)


def require_images(images: Tensor, *, image_shape: tuple[int, int, int]) -> None:
    """Refuse what is not [n, c, h, w] floating point in [0, 1], of the shape that is asked for.

    Raises:
        ScoreError: a pixel is NaN or out of range.
        ValueError: not floating point, of another shape, or empty.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != image_shape or len(images) == 0:
        raise ValueError(
            f"images must be [n, {', '.join(map(str, image_shape))}] with n >= 1, "
            f"got {list(images.shape)}"
        )
    if not images.is_floating_point():
        raise ValueError(
            f"images must be floating point in [0, 1], got {images.dtype}: divide by 255"
        )
    low, high = (end.item() for end in images.aminmax())
    if not (low >= 0 and high <= 1):  # a NaN fails both
        raise ScoreError(f"images must lie in [0, 1], got {low:g} to {high:g}")


def require_uint8(images: Tensor) -> tuple[int, int, int]:
    """The shape of one training image.

    Raises:
        ValueError: not uint8 [n, c, h, w] with n >= 2 and sides >= 4.
    """
    smallest = 4
    if (
        images.dtype != torch.uint8
        or images.ndim != 4
        or len(images) < 2
        or min(images.shape[2:]) < smallest
    ):
        raise ValueError(
            f"training images must be uint8 [n, c, h, w] with n >= 2 and sides >= {smallest}, "
            f"got {images.dtype} {list(images.shape)}"
        )
    _, channels, height, width = images.shape
    return channels, height, width


def training_streams(seed: int, name: str) -> tuple[torch.Generator, ...]:
    """Streams of the initial weights, of the minibatches and of the moves; all on the CPU."""
    return tuple(stream(seed, f"{name}/{part}") for part in ("init", "batches", "moves"))


def _convolution(n_in: int, n_out: int, *, size: int = 3, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    ]


def _shuffled(n: int, *, batch_size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Indices of endless minibatches; a last one that is not full is left out of its pass."""
    m = min(batch_size, n)
    while True:
        order = torch.randperm(n, generator=rng)
        yield from torch.split(order[: n - n % m], m)
