"""Images from a promoted generator into a file."""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from gan.errors import ConfigError
from gan.files import write_atomically
from gan.sampling import save_png, tile
from gan.saved_generator import SavedSampler
from pipeline.artifacts import load_artifact
from pipeline.errors import PipelineError
from pipeline.product import Asked
from pipeline.products import product_of
from pipeline.registry import fetch
from tuning.tracking import tracking_uri

NO_OPTIONS: Mapping[str, str | None] = MappingProxyType({})
SUFFIXES = (".png", ".npy", ".npz")


def write_samples(
    generator: str,
    *,
    n: int,
    seed: int,
    output: Path,
    options: Mapping[str, str | None] = NO_OPTIONS,
) -> None:
    """Draw n images and write them, as one picture or as float32 [n, channels, height, width].

    Args:
        generator: folder of an artifact, or `NAME[@ALIAS]` in the registry.
        n: images.
        seed: same seed, same images.
        output: .png, .npy or .npz (key `images`).
        options: what else was asked for, by the name of the option; None: it was not given.

    Raises:
        ConfigError: for another kind of file, and what the model cannot draw.
        PipelineError: for a file that cannot be written.
        ArtifactError: if there is no such artifact, or it was altered.
    """
    if output.suffix not in SUFFIXES:
        raise ConfigError([f"{output} must end in one of {', '.join(SUFFIXES)}"])
    if not output.parent.is_dir():
        raise PipelineError(f"{output} could not be written: there is no folder {output.parent}")
    saved = load_model(generator)
    given = {name: value for name, value in options.items() if value is not None}
    images = product_of(saved.config).draw(saved, Asked(n=n, seed=seed, options=given))
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / output.name
        match output.suffix:
            case ".png":
                save_png(tile(images, columns=math.ceil(math.sqrt(len(images)))), file, zoom=2)
            case ".npy":
                np.save(file, images.numpy())
            case _:
                np.savez_compressed(file, images=images.numpy())
        try:
            write_atomically(output, file.read_bytes())
        except OSError as error:
            raise PipelineError(f"{output} could not be written: {error.strerror}") from error


def load_model(generator: str) -> SavedSampler:
    """The model of an artifact's folder, or of `NAME[@ALIAS]` in the registry, verified.

    Raises:
        ArtifactError: there is no such artifact, or it was altered.
        TrackingError: the store does not answer.
    """
    if Path(generator).is_dir():
        return load_artifact(Path(generator))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "generator"
        fetch(tracking_uri(), generator, folder)
        return load_artifact(folder)
