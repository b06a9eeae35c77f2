"""The paper's extensions as runs of the main line: which there are, and what each is run with."""

import dataclasses
from collections.abc import Iterable

from gan.config import PipelineConfig
from gan.errors import ConfigError
from pipeline.settings import presets, resolve

EXTENSIONS = "extensions.json"
"""What came out of each, in the folder of the stage `extend`."""

GENERATOR = "generator"
"""The task of the paper's own GAN."""


def extensions() -> list[str]:
    """Names of the presets that train an extension."""
    return [name for name in presets() if resolve(name).base.task != GENERATOR]


def extension_config(source: str, assignments: Iterable[str] = ()) -> PipelineConfig:
    """The configuration of an extension, for a run of its own.

    Args:
        source: name of a preset, or path of a YAML file.
        assignments: `a.b=value` each.

    Raises:
        ConfigError: if there is no such preset or file, it is not valid, or it trains the paper's
            own GAN.
    """
    config = resolve(source, tuple(assignments))
    if config.base.task == GENERATOR:
        raise ConfigError(
            [f"{source} trains no extension; extensions are {', '.join(extensions())}"]
        )
    return config


def config_within(parent: PipelineConfig, name: str) -> PipelineConfig:
    """The configuration of an extension as a stage of another run.

    It has the images, the device, the settings of evaluation and the seed of the parent, and names
    of its own: of the run of `quick` they are `quick-conditional`, of a registered model
    `mnist-generator` it is `mnist-conditional`.

    Raises:
        ConfigError: as `extension_config`.
    """
    config = extension_config(name)
    base = parent.base
    evaluation = dataclasses.replace(
        config.base.evaluation,
        n_samples=base.evaluation.n_samples,
        n_sigma_images=base.evaluation.n_sigma_images,
        extractor=base.evaluation.extractor,
        extractor_steps=base.evaluation.extractor_steps,
    )
    model = parent.promote.model.removesuffix(f"-{GENERATOR}")
    return dataclasses.replace(
        config,
        name=f"{parent.name}-{config.base.task}",
        base=dataclasses.replace(
            config.base,
            data=base.data,
            device=base.device,
            seed=base.seed,
            evaluation=evaluation,
        ),
        sweep=dataclasses.replace(
            config.sweep,
            objective=parent.sweep.objective,
            gpus_per_trial=parent.sweep.gpus_per_trial,
        ),
        promote=dataclasses.replace(
            parent.promote, model=f"{model}-{config.base.task.replace('_', '-')}"
        ),
    )
