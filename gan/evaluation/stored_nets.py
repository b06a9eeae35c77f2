"""Nets of the evaluation on disk: weights as safetensors, what they are as JSON, no pickle."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gan.errors import CheckpointError
from gan.files import new_folder

WEIGHTS, CONFIG = "weights.safetensors", "config.json"
WEIGHTS_KEY, REST_KEY = "weights_sha256", "rest_sha256"
"""Where the config holds the SHA-256 of the weights file, and that of all else it holds."""

Config = Mapping[str, Any]
"""What a net is and how it was made; JSON."""


def weights_bytes(net: nn.Module) -> bytes:
    """The weights as the bytes of a safetensors file; the same weights give the same bytes."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in net.state_dict().items()}
    content: bytes = safetensors.torch.save(tensors)
    return content


def weights_digest(net: nn.Module) -> str:
    """SHA-256 of the weights, 64 hexadecimal digits."""
    return hashlib.sha256(weights_bytes(net)).hexdigest()


def json_digest(value: Config) -> str:
    """SHA-256 of a JSON object, whatever its layout and the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def save_net(folder: Path, net: nn.Module, config: Config) -> None:
    """Write weights and config; a folder that stood there is replaced in one step."""
    content = weights_bytes(net)
    stored = {**config, WEIGHTS_KEY: hashlib.sha256(content).hexdigest()}
    stored[REST_KEY] = json_digest(stored)
    with new_folder(folder) as scratch:
        (scratch / WEIGHTS).write_bytes(content)
        (scratch / CONFIG).write_text(json.dumps(stored, indent=2) + "\n")


def load_config(folder: Path) -> dict[str, Any]:
    """What `save_net` wrote beside the weights.

    Raises:
        CheckpointError: if it is missing, altered or cut short.
    """
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise broken(folder, error) from error
    if not isinstance(config, dict) or config.pop(REST_KEY, None) != json_digest(config):
        raise broken(folder, f"{CONFIG} is altered")
    return config


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights that `save_net` wrote.

    Raises:
        CheckpointError: if the file is missing, or is not, byte for byte, what was written.
    """
    expected = load_config(folder)[WEIGHTS_KEY]
    try:
        content = (folder / WEIGHTS).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != expected:
            raise broken(folder, f"{WEIGHTS} must have the SHA-256 {expected}, got {digest}")
        weights: dict[str, Tensor] = safetensors.torch.load(content)
    except (OSError, SafetensorError) as error:
        raise broken(folder, error) from error
    return weights


def broken(folder: Path, reason: Exception | str) -> CheckpointError:
    """The error for a folder that does not hold a whole net."""
    text = " ".join(str(reason).split())  # torch lists what does not fit on many lines
    return CheckpointError(
        f"{folder}: holds no whole net: {text}: delete the folder, and the net is trained again; "
        "in an installed package, install it again"
    )
