"""One seed -> named, independent streams of random numbers."""

import hashlib

import torch
from torch import Tensor

from gan.errors import CheckpointError


def stream_seed(seed: int, name: str) -> int:
    """A 63-bit seed for the stream `name` of the run `seed`; two names share nothing."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1


def scored_seed(seed: int) -> int:
    """The 31-bit seed of the samples by which what the run `seed` has trained is scored.

    One for all that score it, so that each comes to the same numbers.
    """
    return stream_seed(seed, "evaluate") % 2**31


def stream(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The stream `name` of the run `seed`, for draws on `device`."""
    return torch.Generator(device).manual_seed(stream_seed(seed, name))


class Streams:
    """The random streams that training draws from.

    Attributes:
        data: order of the images.
        noise: z, for both players.
        dropout: masks of both nets.

    Initial weights and scored samples have streams of their own (`stream(seed, "init")`,
    `stream(seed, "samples")`), so neither scoring nor a new layer shifts what training draws.
    """

    NAMES = ("data", "noise", "dropout")

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.data = stream(seed, "data", device)
        self.noise = stream(seed, "noise", device)
        self.dropout = stream(seed, "dropout", device)

    def state(self) -> dict[str, Tensor]:
        """Name -> state of that stream, uint8."""
        return {name: getattr(self, name).get_state() for name in self.NAMES}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Go on exactly where `state` was read.

        Raises:
            CheckpointError: if it was read on another kind of device, whose streams differ.
        """
        for name in self.NAMES:
            try:
                getattr(self, name).set_state(state[name])
            except RuntimeError as error:
                raise CheckpointError(
                    f"a run goes on only on the kind of device where it began, got the random "
                    f"stream {name!r} of another kind than {self.data.device.type}"
                ) from error
