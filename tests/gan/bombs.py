"""What a malicious file would do, harmlessly."""

import io
from pathlib import Path

import torch


class Bomb:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self):
        return open, (self.trace, "w")


def pickled_weights(trace: Path) -> bytes:
    """A file of torch's own format that leaves a trace where it is opened as one."""
    content = io.BytesIO()
    torch.save({"layers.0.weight": Bomb(trace)}, content)
    return content.getvalue()
