"""Images from a promoted generator into a file."""

import math
import tempfile
from pathlib import Path

import numpy as np
from torch import Tensor

from gan.errors import ConditionError, ConfigError
from gan.extensions.conditional import SavedConditional
from gan.files import write_atomically
from gan.sampling import save_png, tile
from gan.saved_generator import SavedSampler
from pipeline.artifacts import load_artifact
from pipeline.errors import PipelineError
from pipeline.registry import fetch
from tuning.tracking import tracking_uri

SUFFIXES = (".png", ".npy", ".npz")


def write_samples(
    generator: str, *, n: int, seed: int, output: Path, condition: str | None = None
) -> None:
    """Draw n images and write them, as one picture or as float32 [n, channels, height, width].

    Args:
        generator: folder of an artifact, or `NAME[@ALIAS]` in the registry.
        n: images.
        seed: same seed, same images.
        output: .png, .npy or .npz (key `images`).
        condition: of every image, for a conditional generator: a class, or the coordinates of a
            vector with commas between them; None: conditions are drawn as in the data.

    Raises:
        ConfigError: for another kind of file, and a condition that the generator does not have.
        PipelineError: for a file that cannot be written.
        ArtifactError: if there is no such artifact, or it was altered.
    """
    if output.suffix not in SUFFIXES:
        raise ConfigError([f"{output} must end in one of {', '.join(SUFFIXES)}"])
    if not output.parent.is_dir():
        raise PipelineError(f"{output} could not be written: there is no folder {output.parent}")
    images = _draw(_load(generator), n=n, seed=seed, condition=condition)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / output.name
        match output.suffix:
            case ".png":
                save_png(tile(images, columns=math.ceil(math.sqrt(n))), file, zoom=2)
            case ".npy":
                np.save(file, images.numpy())
            case _:
                np.savez_compressed(file, images=images.numpy())
        try:
            write_atomically(output, file.read_bytes())
        except OSError as error:
            raise PipelineError(f"{output} could not be written: {error.strerror}") from error


def _draw(saved: SavedSampler, *, n: int, seed: int, condition: str | None) -> Tensor:
    if condition is None:
        return saved.sampler().sample(n, seed)
    if not isinstance(saved, SavedConditional):
        raise ConfigError(["this generator takes no condition: leave out --condition"])
    try:
        return saved.draw([float(part) for part in condition.split(",")], n=n, seed=seed)
    except ValueError as error:
        raise ConfigError([f"--condition takes numbers, got {condition!r}"]) from error
    except ConditionError as error:
        raise ConfigError([f"--condition: {error}"]) from error


def _load(generator: str) -> SavedSampler:
    if Path(generator).is_dir():
        return load_artifact(Path(generator))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "generator"
        fetch(tracking_uri(), generator, folder)
        return load_artifact(folder)
