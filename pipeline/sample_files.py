"""Images from a promoted generator into a file."""

import math
import tempfile
from pathlib import Path

import numpy as np

from gan.errors import ConfigError
from gan.files import write_atomically
from gan.sampling import save_png, tile
from gan.saved_generator import SavedGenerator
from pipeline.artifacts import load_artifact
from pipeline.errors import PipelineError
from pipeline.registry import fetch
from tuning.tracking import tracking_uri

SUFFIXES = (".png", ".npy", ".npz")


def write_samples(generator: str, *, n: int, seed: int, output: Path) -> None:
    """Draw n images and write them, as one picture or as float32 [n, channels, height, width].

    Args:
        generator: folder of an artifact, or `NAME[@ALIAS]` in the registry.
        n: images.
        seed: same seed, same images.
        output: .png, .npy or .npz (key `images`).

    Raises:
        ConfigError: for another kind of file.
        PipelineError: for a file that cannot be written.
        ArtifactError: if there is no such artifact, or it was altered.
    """
    if output.suffix not in SUFFIXES:
        raise ConfigError([f"{output} must end in one of {', '.join(SUFFIXES)}"])
    if not output.parent.is_dir():
        raise PipelineError(f"{output} could not be written: there is no folder {output.parent}")
    images = _load(generator).sampler().sample(n, seed)
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


def _load(generator: str) -> SavedGenerator:
    if Path(generator).is_dir():
        return load_artifact(Path(generator))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "generator"
        fetch(tracking_uri(), generator, folder)
        return load_artifact(folder)
