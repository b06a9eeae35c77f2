"""What a run can train: the paper's GAN, an extension, a rival; how each is saved and read.

    run = start_run(config, images, device="cpu")
    for report in run.train(): ...
    save(folder, run.saved())

A folder holds weights as safetensors and `config.json`: the run, and the shape of its images.
Nothing in it is ever unpickled.
"""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from gan.baselines import dbm, dbn, gsn, stacked_cae, vae
from gan.baselines.baseline import BaselineRun, Build
from gan.baselines.baseline import from_weights as baseline_from_weights
from gan.baselines.baseline import weights_of as baseline_weights
from gan.checkpoint import load_checkpoint
from gan.config import RunConfig, run_config, to_dict
from gan.config import Task as TaskName
from gan.conv_nets import require_fitting
from gan.datasets.images import ImageSet, ImageShape
from gan.errors import CheckpointError, ConfigError, DatasetError
from gan.extensions import conditional, learned_prior
from gan.extensions.inference import run as inference
from gan.extensions.inference.saved import from_weights as inference_from_weights
from gan.extensions.inference.scores import score_inference
from gan.extensions.semi_supervised import run as semi_supervised
from gan.extensions.semi_supervised import saved as semi_supervised_saved
from gan.extensions.semi_supervised.scores import score_few_labels
from gan.extensions.shared_conditional import run as shared_conditional
from gan.extensions.shared_conditional.saved import from_weights as shared_from_weights
from gan.extensions.shared_conditional.scores import score_shared
from gan.metric_names import (
    COMPLETION_LL_VALID,
    FEW_LABELS_NATS,
    FRECHET_DISTANCE_VALID,
    NEAREST_ACCURACY_VALID,
    PARZEN_LL_VALID,
    RECONSTRUCTION_ERROR_VALID,
)
from gan.run import Run, TrainingRun
from gan.saved_generator import (
    Saved,
    SavedSampler,
    generator_from_weights,
    generator_weights,
)
from gan.validation import (
    Scored,
    Validation,
    score_generator,
    score_generator_with_coverage,
)

CONFIG = "config.json"

UNFIT = (ValueError, KeyError, TypeError, RuntimeError, ConfigError, DatasetError)
"""What is raised by settings that are not valid, and by weights that do not fit them."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One thing that a run can train.

    Attributes:
        weights: file name of the weights.
        start: configuration, training images, device -> the run at step 0; where it has an
            origin, that as `origin`, too.
        weights_of: training state, configuration -> the tensors that are kept.
        read: tensors that were kept, configuration, shape of an image -> what was saved.
        score: what was saved, on validation images.
        objectives: scores by which its runs can be compared, its own first.
        require: refuses training images that it cannot be trained on, by a DatasetError; or nets
            that do not fit them, by a ConfigError.
        origin: configuration -> the task whose promoted model the run starts from, or None.
        adopt: configuration, that of its origin -> the configuration with the settings that the
            origin decides, by which weights are read back without it.
    """

    weights: str
    start: Callable[..., TrainingRun]
    weights_of: Callable[[Mapping[str, Tensor], RunConfig], dict[str, Tensor]]
    read: Callable[[Mapping[str, Tensor], RunConfig, ImageShape], Saved]
    score: Callable[[Any, Validation], Scored]
    objectives: tuple[str, ...]
    require: Callable[[ImageSet, RunConfig], None] | None = None
    origin: Callable[[RunConfig], TaskName | None] = lambda config: None
    adopt: Callable[[RunConfig, RunConfig], RunConfig] = lambda config, origin: config


OF_IMAGES = (FRECHET_DISTANCE_VALID, PARZEN_LL_VALID)
"""Objectives of whatever is judged by the images that it draws."""


def _baseline(build: Build) -> Task:
    return Task(
        weights="baseline.safetensors",
        start=functools.partial(BaselineRun, build=build),
        weights_of=baseline_weights,
        read=functools.partial(baseline_from_weights, build=build),
        score=score_generator,
        objectives=OF_IMAGES,
    )


TASKS: dict[TaskName, Task] = {
    "generator": Task(
        weights="generator.safetensors",
        start=Run,
        weights_of=generator_weights,
        read=generator_from_weights,
        score=score_generator,
        objectives=OF_IMAGES,
        require=require_fitting,
    ),
    "conditional": Task(
        weights="generator.safetensors",
        start=functools.partial(Run, build=conditional.players),
        weights_of=generator_weights,
        read=conditional.from_weights,
        score=score_generator,
        objectives=OF_IMAGES,
        require=conditional.require_conditions,
    ),
    "inference": Task(
        weights="inference.safetensors",
        start=inference.start,
        weights_of=inference.weights_of,
        read=inference_from_weights,
        score=score_inference,
        objectives=(NEAREST_ACCURACY_VALID, RECONSTRUCTION_ERROR_VALID),
        origin=inference.origin_of,
        adopt=inference.adopt,
    ),
    "shared_conditional": Task(
        weights="generator.safetensors",
        start=functools.partial(Run, build=shared_conditional.players),
        weights_of=generator_weights,
        read=shared_from_weights,
        score=score_shared,
        objectives=(COMPLETION_LL_VALID,),
        require=shared_conditional.require_labels,
    ),
    "learned_prior": Task(
        weights="generator.safetensors",
        start=learned_prior.start,
        weights_of=learned_prior.weights_of,
        read=learned_prior.from_weights,
        score=score_generator_with_coverage,
        objectives=OF_IMAGES,
        origin=learned_prior.origin_of,
        adopt=learned_prior.adopt,
    ),
    "semi_supervised": Task(
        weights="classifier.safetensors",
        start=semi_supervised.SemiSupervisedRun,
        weights_of=semi_supervised_saved.weights_of,
        read=semi_supervised_saved.from_weights,
        score=score_few_labels,
        objectives=(FEW_LABELS_NATS,),
        require=semi_supervised.require_few_labels,
        origin=semi_supervised.origin_of,
        adopt=semi_supervised.adopt,
    ),
    "vae": _baseline(vae.build),
    "stacked_cae": _baseline(stacked_cae.build),
    "gsn": _baseline(gsn.build),
    "dbn": _baseline(dbn.build),
    "dbm": _baseline(dbm.build),
}
"""By `RunConfig.task`."""


def task_of(config: RunConfig) -> Task:
    """What a configuration trains."""
    return TASKS[config.task]


def start_run(
    config: RunConfig, images: ImageSet, *, device: str, origin: Saved | None = None
) -> TrainingRun:
    """The run of a configuration at step 0.

    Args:
        config: the run.
        images: training images.
        device: where to train.
        origin: what it starts from, if `Task.origin` names a task; None: what lies in the folder
            `config.start`.

    Raises:
        CheckpointError: that folder holds nothing whole.
        ConfigError: there is nothing to start from, or it is of another task.
        DatasetError: it cannot be trained on these images.
    """
    task = task_of(config)
    wanted = task.origin(config)
    if wanted is None:
        return task.start(config, images, device=device)
    if origin is None and config.start is not None:
        origin = load(Path(config.start))
    require_origin(config, origin)
    if origin is not None:
        config = task.adopt(config, origin.config)
    return task.start(config, images, device=device, origin=origin)


def require_origin(config: RunConfig, origin: Saved | None) -> None:
    """Refuse what a run cannot start from.

    Raises:
        ConfigError: `Task.origin` names a task, and this is nothing, or of another one.
    """
    wanted = task_of(config).origin(config)
    got = "nothing" if origin is None else f"one of the task {origin.config.task}"
    if wanted is not None and (origin is None or origin.config.task != wanted):
        raise ConfigError([f"start: {config.task} starts from a promoted {wanted}, got {got}"])


def save(folder: Path, saved: Saved) -> None:
    """Write the weights and `config.json` into an existing folder."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in saved.tensors().items()}
    (folder / task_of(saved.config).weights).write_bytes(safetensors.torch.save(tensors))
    facts = run_facts(saved.config, saved.image_shape)
    (folder / CONFIG).write_text(json.dumps(facts, indent=2) + "\n")


def run_facts(config: RunConfig, image_shape: ImageShape) -> dict[str, Any]:
    """What the weights do not say, as JSON values; a checkpoint has it, too."""
    return {"image_shape": list(image_shape), "run": to_dict(config)}


def from_state(
    state: Mapping[str, Tensor], config: RunConfig, *, image_shape: ImageShape
) -> Saved:
    """What would be saved of a run in this state.

    Args:
        state: as from `TrainingRun.state`, or a checkpoint's tensors.
        config: the run that the state is of.
        image_shape: (channels, height, width).
    """
    task = task_of(config)
    return task.read(task.weights_of(state, config), config, image_shape)


def from_checkpoint(path: Path) -> Saved:
    """What would be saved of a trial at a checkpoint.

    Raises:
        CheckpointError: if it is damaged, or does not say whose it is.
    """
    checkpoint = load_checkpoint(path)
    try:
        config, image_shape = _parse_facts(checkpoint.meta)
        return from_state(checkpoint.tensors, config, image_shape=image_shape)
    except KeyError as error:
        raise CheckpointError(f"checkpoint {path} does not say whose it is: no {error}") from error
    except UNFIT as error:
        raise CheckpointError(
            f"checkpoint {path} holds no whole generator: {_line(error)}"
        ) from error


def load(folder: Path) -> Saved:
    """Read what `save` wrote, on the CPU.

    Raises:
        CheckpointError: if a file is missing or cut short, or the config is not valid, or the
            weights do not fit it.
    """
    try:
        config, image_shape = _parse_facts(json.loads((folder / CONFIG).read_text()))
        task = task_of(config)
        return task.read(safetensors.torch.load_file(folder / task.weights), config, image_shape)
    except (OSError, SafetensorError, *UNFIT) as error:
        raise CheckpointError(f"{folder} holds no whole generator: {_line(error)}") from error


def load_sampler(folder: Path) -> SavedSampler:
    """As `load`, of what draws images.

    Raises:
        CheckpointError: as `load`, or if it draws none.
    """
    return as_sampler(load(folder), str(folder))


def as_sampler(saved: Saved, name: str) -> SavedSampler:
    """What was saved, as something that draws images.

    Args:
        saved: of any task.
        name: where it comes from, for people.

    Raises:
        CheckpointError: if it draws none.
    """
    if not hasattr(saved, "sampler"):
        raise CheckpointError(f"{name} draws no images: it is of the task {saved.config.task}")
    return cast(SavedSampler, saved)


def _parse_facts(facts: Mapping[str, Any]) -> tuple[RunConfig, ImageShape]:
    channels, height, width = facts["image_shape"]
    return run_config(facts["run"]), (channels, height, width)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())  # torch lists what does not fit on many lines
