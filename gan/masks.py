"""Masks: which variables are visible.  A variable is a pixel of an image, or its label.

A kind of mask is a probability of being visible for each pixel, 0 or 1 in all but the random
kinds, and one for the label.  Kinds are thus rows of one table, and the masks of a minibatch are
drawn at once, each of a kind of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gan.datasets.images import ImageShape

Pattern = Callable[[int, int], Tensor]
"""Height, width -> probability that a pixel is visible, [height, width]."""


@dataclass(frozen=True, kw_only=True)
class MaskKind:
    """One kind of mask.

    Attributes:
        text: the pixels that are visible, in words.
        pattern: their probabilities.
        label: probability that the label is visible in training.
    """

    text: str
    pattern: Pattern
    label: float = 0.5


def _random(share: float) -> Pattern:
    return lambda height, width: torch.full((height, width), share)


def _block(top: float, left: float, bottom: float, right: float, *, is_hidden: bool) -> Pattern:
    """A block, or all but a block, from corner to corner in shares of the sides."""

    def pattern(height: int, width: int) -> Tensor:
        inside = torch.zeros(height, width)
        rows = slice(int(top * height), int(bottom * height))
        inside[rows, int(left * width) : int(right * width)] = 1
        return 1 - inside if is_hidden else inside

    return pattern


_HALVES = {
    "left_half": (0, 0, 1, 0.5),
    "right_half": (0, 0.5, 1, 1),
    "top_half": (0, 0, 0.5, 1),
    "bottom_half": (0.5, 0, 1, 1),
}
_QUARTERS = {
    "top_left_quarter": (0, 0, 0.5, 0.5),
    "top_right_quarter": (0, 0.5, 0.5, 1),
    "bottom_left_quarter": (0.5, 0, 1, 0.5),
    "bottom_right_quarter": (0.5, 0.5, 1, 1),
}
_CENTRE = (0.25, 0.25, 0.75, 0.75)


def _words(name: str) -> str:
    return f"the {name.replace('_', ' ')}"


MASKS: Mapping[str, MaskKind] = {
    **{
        name: MaskKind(text=_words(name), pattern=_block(*corners, is_hidden=False))
        for name, corners in (_HALVES | _QUARTERS).items()
    },
    **{
        f"without_{name}": MaskKind(
            text=f"all but {_words(name)}", pattern=_block(*corners, is_hidden=True)
        )
        for name, corners in _QUARTERS.items()
    },
    **{
        f"random_{percent}": MaskKind(
            text=f"each pixel with probability {percent} %", pattern=_random(percent / 100)
        )
        for percent in (25, 50, 75)
    },
    "without_centre": MaskKind(
        text="all but a block of half the height and width in the middle",
        pattern=_block(*_CENTRE, is_hidden=True),
    ),
    "label_only": MaskKind(text="no pixel, but the label", pattern=_random(0), label=1.0),
    "nothing": MaskKind(text="nothing", pattern=_random(0), label=0.0),
    "everything": MaskKind(text="all pixels, but not the label", pattern=_random(1), label=0.0),
}
"""By the name that the command line takes; a name says what is visible."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "half": tuple(_HALVES),
    "quarter": tuple(_QUARTERS),
    "without_quarter": tuple(f"without_{name}" for name in _QUARTERS),
    **{name: (name,) for name in ("random_25", "random_50", "random_75", "without_centre")},
    "label_only": ("label_only",),
    "nothing": ("nothing",),
}
"""Kinds that are scored as one."""

TRAINED_ON: Mapping[str, float] = {
    "half": 1.0,
    "quarter": 2.0,
    "without_quarter": 0.75,
    "random_25": 2.0,
    "random_50": 1.0,
    "random_75": 0.75,
    "without_centre": 1.0,
    "label_only": 1.0,
    "nothing": 0.5,
}
"""Weight of each group in training: more for those that leave much to be learnt."""

N_BLOCKS = 64
"""Blocks of random place and size in the table, and as many with all but a block."""


class MaskTable:
    """A table of kinds, from which the masks of a minibatch are drawn.

    Args:
        visible: probability that each variable is visible, the label last, [k, n_pixels + 1].
        shares: how often each kind is drawn, [k], sums to 1.
    """

    def __init__(self, visible: Tensor, shares: Tensor) -> None:
        self.visible = visible
        self.up_to = shares.double().cumsum(0).to(visible.device)

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """Masks of n rows, 1 where a variable is visible: float32 [n, n_pixels + 1]."""
        u = torch.rand(n, generator=rng, device=rng.device, dtype=torch.float64)
        kinds = torch.searchsorted(self.up_to, u).clamp_(max=len(self.visible) - 1)
        chance = torch.rand(n, self.visible.shape[1], generator=rng, device=rng.device)
        return (chance < self.visible[kinds]).float()


def training_masks(
    image_shape: ImageShape,
    *,
    everything: float,
    blocks: float,
    rng: torch.Generator,
    device: torch.device | str,
) -> MaskTable:
    """The masks of training: groups by `TRAINED_ON`, and two more that are given their shares.

    Args:
        image_shape: (channels, height, width).
        everything: share of rows that have all pixels, by which classification is trained.
        blocks: share of rows with blocks of any place and size, visible or hidden, for masks that
            have no name.
        rng: stream of the blocks, on the CPU.
        device: where masks are drawn.
    """
    rows, shares = [], []
    rest = (1 - everything - blocks) / sum(TRAINED_ON.values())
    for group, names in GROUPS.items():
        for name in names:
            rows.append(_row(name, image_shape))
            shares.append(rest * TRAINED_ON[group] / len(names))
    rows.append(_row("everything", image_shape))
    shares.append(everything)
    for corners in torch.rand(N_BLOCKS, 4, generator=rng).tolist():
        (top, bottom), (left, right) = sorted(corners[:2]), sorted(corners[2:])
        for is_hidden in (False, True):
            pattern = _block(top, left, bottom, right, is_hidden=is_hidden)
            rows.append(_variables(pattern, 0.5, image_shape))
            shares.append(blocks / (2 * N_BLOCKS))
    return MaskTable(torch.stack(rows).to(device), torch.tensor(shares))


def draw_masks(name: str, n: int, image_shape: ImageShape, rng: torch.Generator) -> Tensor:
    """Masks of pixels of one kind, float32 [n, n_pixels], of a flattened image each.

    Raises:
        KeyError: there is no such kind.
    """
    visible = _row(name, image_shape)[:-1].to(rng.device)
    return (torch.rand(n, len(visible), generator=rng, device=rng.device) < visible).float()


def _row(name: str, image_shape: ImageShape) -> Tensor:
    kind = MASKS[name]
    return _variables(kind.pattern, kind.label, image_shape)


def _variables(pattern: Pattern, label: float, image_shape: ImageShape) -> Tensor:
    """[n_pixels + 1]; a kind looks the same in each channel."""
    channels, height, width = image_shape
    pixels = pattern(height, width).expand(channels, -1, -1).flatten()
    return torch.cat([pixels, torch.tensor([label])])
