"""The paper's extensions as runs of the main line: which there are, and what each is run with."""

import dataclasses
from collections.abc import Iterable, Iterator

from gan.config import BASELINES, Objective, PipelineConfig, RunConfig
from gan.errors import ConfigError, DatasetError
from gan.metric_names import FRECHET_DISTANCE_VALID, PARZEN_LL_VALID
from pipeline.settings import presets, resolve

EXTENSIONS = "extensions.json"
"""What came out of each, in the folder of the stage `extend`."""

SHARED = ("n_samples", "n_sigma_images", "extractor", "extractor_steps")
"""Settings of evaluation that decide what a score is, so that those of both runs compare."""

GENERATOR = "generator"
"""The task of the paper's own GAN."""


def extensions() -> list[str]:
    """Names of the presets of extensions, each that of its task; others vary one of them."""
    trains = {name: resolve(name).base.task for name in presets()}
    return [name for name, task in trains.items() if task == name and task not in BASELINES]


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

    It has the images, the device, the seed and the settings of evaluation of the parent (but for
    `score_every`, `chunk` and `keep_checkpoints`), its objective (if that fits the task) and GPUs
    of a trial, and names of its own: of the run of `quick` they are `quick-conditional`, of a
    registered model `mnist-generator` it is `mnist-conditional`.  All else is as the preset or
    file has it.

    Raises:
        ConfigError: as `extension_config`, or if it has extensions in its turn.
    """
    config = extension_config(name)
    if config.extensions:
        raise ConfigError([f"{name}: an extension has no extensions, got {config.extensions}"])
    base = parent.base
    shared = {field: getattr(base.evaluation, field) for field in SHARED}
    model = parent.promote.model.removesuffix(f"-{GENERATOR}")
    return dataclasses.replace(
        config,
        name=f"{parent.name}-{config.base.task}",
        base=dataclasses.replace(
            config.base,
            data=base.data,
            device=base.device,
            seed=base.seed,
            evaluation=dataclasses.replace(config.base.evaluation, **shared),
        ),
        sweep=dataclasses.replace(
            config.sweep,
            objective=_objective(config, parent),
            gpus_per_trial=parent.sweep.gpus_per_trial,
        ),
        promote=dataclasses.replace(
            config.promote, model=f"{model}-{config.base.task.replace('_', '-')}"
        ),
    )


def _objective(config: PipelineConfig, parent: PipelineConfig) -> Objective:
    """The parent's, where that is a score of what the extension trains, too."""
    from gan.tasks import task_of

    is_shared = parent.sweep.objective in task_of(config.base).objectives
    return parent.sweep.objective if is_shared else config.sweep.objective


def require_extensions(parent: PipelineConfig) -> None:
    """Refuse extensions that cannot be run, before anything else is.

    Raises:
        ConfigError: as `checked_extensions`, `require_images` and `pipeline.starts.pin`.
        DatasetError: the images cannot be read.
    """
    if not parent.extensions:
        return
    from gan.tasks import task_of
    from pipeline.starts import adopted, pin

    made: set[str] = set()
    for config in checked_extensions(parent):
        require_images(config)
        wanted = task_of(config.base).origin(config.base)
        if wanted == parent.base.task and config.base.start is None:
            adopted(config, parent.base)
        elif wanted not in made:  # before it, by this run
            pin(config, accept=require_images)
        made.add(config.base.task)


def checked_extensions(parent: PipelineConfig) -> Iterator[PipelineConfig]:
    """The configurations of a run's extensions, checked but for images and promoted models.

    Raises:
        ConfigError: as `config_within`; a space does not fit; or two are of one task, whose names
            would be the same.
    """
    from tuning.sweep import check_sweep

    sources: dict[str, str] = {}
    for name in parent.extensions:
        config = config_within(parent, name)
        if other := sources.get(config.base.task):
            raise ConfigError(
                [f"extensions: {other} and {name} are both of the task {config.base.task}"]
            )
        check_sweep(config)
        yield config
        sources[config.base.task] = name


def require_objective(config: PipelineConfig) -> None:
    """Refuse an objective that the task has no score for, before anything is run.

    Raises:
        ConfigError: naming those that it has.
    """
    task, objective = config.base.task, config.sweep.objective
    if task == GENERATOR and objective in (FRECHET_DISTANCE_VALID, PARZEN_LL_VALID):
        return  # without the second that importing torch takes
    from gan.tasks import task_of

    known = task_of(config.base).objectives
    if objective not in known:
        raise ConfigError(
            [f"sweep.objective: {task} is scored by {' or '.join(known)}, got {objective}"]
        )


def _convolves(config: RunConfig) -> bool:
    convolutions = config.discriminator.convolutions
    return config.generator.deconv_channels is not None or bool(convolutions)


def require_images(config: PipelineConfig) -> None:
    """Refuse images that lack what the task needs, before anything is run or written.

    Args:
        config: of any task; one that starts from a promoted model may be pinned
            (`pipeline.starts`), and then the model must be of these images.

    Raises:
        ConfigError: saying what they lack.
        DatasetError: they cannot be read.
    """
    if config.base.task == GENERATOR and not _convolves(config.base):  # which takes any images
        return
    # Only now: importing torch takes a second.
    from gan.datasets.splits import load_train_valid
    from gan.tasks import task_of
    from pipeline.starts import data_of_start
    from tuning.space import variants

    images, _ = load_train_valid(config.base.data)
    known = data_of_start(config)
    if known not in (None, images.digest):
        raise ConfigError(
            [
                f"start: the model was trained on other images than {config.base.data.dataset}: "
                f"set data.dataset to its own, or start from another"
            ]
        )
    require = task_of(config.base).require
    if require is None:
        return
    try:
        require(images, config.base)
        for _, own, _ in variants(config.sweep.space, config.base):
            require(images, own)
    except DatasetError as error:
        raise ConfigError([f"data.dataset {config.base.data.dataset}: {error}"]) from error
