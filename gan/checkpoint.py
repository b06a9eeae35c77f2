"""Checkpoints: complete, atomic, checksummed; a damaged one is told from a whole one.

A checkpoint is a folder `step_00001000` with `state.safetensors` (every tensor), `state.json`
(what the caller keeps beside them) and `manifest.json` (SHA-256 of the two).
"""

import json
import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from gan.errors import CheckpointError
from gan.files import new_folder, sha256, write_atomically

logger = logging.getLogger(__name__)

TENSORS, META, MANIFEST = "state.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        path: its folder.
        step: updates of G when it was written.
        tensors: every tensor by name, on the CPU.
        meta: the caller's JSON values.
    """

    path: Path
    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def save_checkpoint(
    folder: Path, *, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> Path:
    """Write one checkpoint under `folder` and return its path; all of it or nothing.

    Raises:
        CheckpointError: if it cannot be written (disk full, no permission).
    """
    path = checkpoint_path(folder, step=step)
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with new_folder(path) as scratch:
            (scratch / TENSORS).write_bytes(safetensors.torch.save(on_cpu))
            (scratch / META).write_text(json.dumps({**meta, "step": step}))
            digests = {name: sha256(scratch / name) for name in (TENSORS, META)}
            write_atomically(scratch / MANIFEST, json.dumps(digests))
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {path} could not be written: {error.strerror or error}; "
            f"the ones before it are whole"
        ) from error
    return path


def checkpoint_path(folder: Path, *, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step_{step:08d}"


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint, after its SHA-256 sums have been verified.

    Raises:
        CheckpointError: if a file is missing, cut short or altered.
    """
    try:
        digests = json.loads((path / MANIFEST).read_text())
        for name in (TENSORS, META):
            if sha256(path / name) != digests[name]:
                raise CheckpointError(f"checkpoint {path} is damaged: {name} has another SHA-256")
        meta = dict(json.loads((path / META).read_text()))
        step = int(meta.pop("step"))
        tensors = safetensors.torch.load_file(path / TENSORS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {error}") from error
    return Checkpoint(path=path, step=step, tensors=tensors, meta=meta)


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, without it."""
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints under `folder`, oldest first; their contents are not looked at."""
    return sorted(folder.glob("step_[0-9]*"))


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint under `folder`; each damaged one is passed over with a warning.

    Returns:
        None where there is no whole checkpoint.
    """
    for path in reversed(list_checkpoints(folder)):
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            logger.warning("%s; falling back to the one before", error)
    return None


def prune_checkpoints(folder: Path, *, step: int, keep: int, also: Collection[int] = ()) -> None:
    """Remove all but the `keep` newest checkpoints and those of the steps in `also`.

    Checkpoints of steps after the one just written are damaged ones that `load_newest` passed
    over: they count as none and are removed.

    Args:
        folder: where the checkpoints lie.
        step: of the checkpoint just written, the newest.
        keep: how many of the newest stay, at least 1.
        also: further steps to keep.

    What a process that was killed while it wrote a checkpoint has left behind goes too, so only
    the one that writes into `folder` may call this.
    """
    for scratch in folder.glob(".step_*"):
        shutil.rmtree(scratch)
    paths = {_step(path): path for path in list_checkpoints(folder)}
    kept = {*sorted(s for s in paths if s <= step)[-keep:], *also}
    for old, path in paths.items():
        if old not in kept:
            shutil.rmtree(path)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))
