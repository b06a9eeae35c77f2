"""A generator on disk: weights as safetensors, configuration as JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from gan.checkpoint import load_checkpoint
from gan.config import RunConfig, run_config, to_dict
from gan.errors import CheckpointError, ConfigError
from gan.nets import Generator, build_generator
from gan.priors import build_prior
from gan.randomness import stream
from gan.sampling import GeneratorSampler

WEIGHTS, CONFIG = "generator.safetensors", "config.json"


@dataclass(frozen=True)
class SavedGenerator:
    """A generator in evaluation mode with what is needed to sample it.

    Attributes:
        G: the net, in evaluation mode.
        config: the run that trained it.
        image_shape: (channels, height, width).
    """

    G: Generator
    config: RunConfig
    image_shape: tuple[int, int, int]

    def sampler(self) -> GeneratorSampler:
        """Draws images from it."""
        prior = build_prior(self.config.prior)
        return GeneratorSampler(self.G, prior, image_shape=self.image_shape)


def save_generator(folder: Path, saved: SavedGenerator) -> None:
    """Write `generator.safetensors` and `config.json` into an existing folder."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in saved.G.state_dict().items()}
    (folder / WEIGHTS).write_bytes(safetensors.torch.save(tensors))
    facts = generator_facts(saved.config, saved.image_shape)
    (folder / CONFIG).write_text(json.dumps(facts, indent=2) + "\n")


def generator_facts(config: RunConfig, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """What the weights do not say of a generator, as JSON values; a checkpoint has it, too."""
    return {"image_shape": list(image_shape), "run": to_dict(config)}


def generator_from_state(
    state: Mapping[str, Tensor], config: RunConfig, *, image_shape: tuple[int, int, int]
) -> SavedGenerator:
    """The generator in a training state: the average of G if the run kept one, else G itself.

    Args:
        state: as from `gan.model.Gan.state`, or a checkpoint's tensors.
        config: the run that the state is of.
        image_shape: (channels, height, width).
    """
    prefix = "average/module." if config.train.average_decay else "G/"
    weights = {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}
    G = empty_generator(config, n_pixels=math.prod(image_shape))
    G.load_state_dict(weights)
    return SavedGenerator(G=G.eval().requires_grad_(False), config=config, image_shape=image_shape)


def generator_from_checkpoint(path: Path) -> SavedGenerator:
    """The generator of a trial's checkpoint.

    Raises:
        CheckpointError: if it is damaged, or does not say whose it is.
    """
    checkpoint = load_checkpoint(path)
    try:
        channels, height, width = checkpoint.meta["image_shape"]
        config = run_config(checkpoint.meta["run"])
        return generator_from_state(
            checkpoint.tensors, config, image_shape=(channels, height, width)
        )
    except KeyError as error:
        raise CheckpointError(f"checkpoint {path} does not say whose it is: no {error}") from error
    except (TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())  # torch lists what does not fit on many lines
        raise CheckpointError(f"checkpoint {path} holds no whole generator: {reason}") from error


def load_generator(folder: Path, *, device: torch.device | str = "cpu") -> SavedGenerator:
    """Read what `save_generator` wrote.

    Raises:
        CheckpointError: if a file is missing or cut short, or the config is not valid, or the
            weights do not fit it.
    """
    try:
        settings = json.loads((folder / CONFIG).read_text())
        config = run_config(settings["run"])
        channels, height, width = settings["image_shape"]
        tensors = safetensors.torch.load_file(folder / WEIGHTS)
        G = empty_generator(config, n_pixels=channels * height * width)
        G.load_state_dict(tensors)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        SafetensorError,
        ConfigError,
    ) as error:
        reason = " ".join(str(error).split())  # torch lists what does not fit on many lines
        raise CheckpointError(f"{folder} holds no whole generator: {reason}") from error
    G = G.to(device).eval().requires_grad_(False)
    return SavedGenerator(G=G, config=config, image_shape=(channels, height, width))


def empty_generator(config: RunConfig, *, n_pixels: int) -> Generator:
    """A generator of the shape that `config` asks for, whose weights are yet to be loaded."""
    return build_generator(
        config.generator,
        dim=config.prior.dim,
        pixel_mean=torch.full((n_pixels,), 0.5),
        rng=stream(config.seed, "init"),
    )
