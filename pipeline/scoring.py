"""The suite on samples that any program wrote, and on any run, checkpoint or champion."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from gan.checkpoint import META, TENSORS
from gan.config import (
    NAMED,
    DataConfig,
    PipelineConfig,
    RunConfig,
    field_names,
    load_config,
    to_dict,
)
from gan.datasets.files import read_samples
from gan.datasets.splits import load_train_valid
from gan.errors import ConfigError, DatasetError
from gan.evaluation.ais import AisSettings
from gan.evaluation.real_images import RealImages
from gan.evaluation.suite import Evaluation, evaluate, require_pixels
from gan.files import new_folder
from gan.randomness import scored_seed
from gan.saved_generator import SavedSampler
from gan.tasks import as_sampler, from_checkpoint, load_sampler
from pipeline.artifacts import MANIFEST, WEIGHTS_SUFFIX, load_artifact
from pipeline.errors import ArtifactNotFound, PipelineError
from pipeline.evaluation import (
    PICTURES,
    Judged,
    Split,
    by_metric_name,
    extractors_folder,
    real_images,
    write_evaluation,
)
from pipeline.evaluation_pictures import interpolation_pictures, sample_pictures
from pipeline.generator_scores import (
    require_log_likelihood,
    with_log_likelihood,
    with_path_scores,
)
from pipeline.main_line import WORKSPACES
from pipeline.product import Candidate, quality_checks
from pipeline.products import product_of
from pipeline.registry import fetch, has_run
from tuning.tracking import (
    download_checkpoint,
    log_evaluation,
    prepare_store,
    tracking_uri,
)

EXPERIMENT = "evaluations"
RUN_ID = re.compile(r"[0-9a-f]{32}")
VERSION = re.compile(r"[^/]+/[0-9]+")
CHECKS = "checks.json"
OPEN_SETTINGS = ("seed", "data", "evaluation")
"""Groups of a run's settings that may be others than those the generator was trained with."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be done with samples.

    Attributes:
        source: where they come from, for people.
        split: which images score them.
        keep: a new folder for scores and pictures; None: they are kept in MLflow alone.
        is_logged: whether MLflow is told.
    """

    source: str
    split: Split
    keep: Path | None = None
    is_logged: bool = True


def score_file(file: Path, config: PipelineConfig, request: Request) -> Judged:
    """The suite on samples in a file.

    Args:
        file: samples in [0, 1]; see `gan.datasets.files.read_samples`.
        config: the images, the settings of the scores and the limits of the checks.
        request: what is to be done.

    Raises:
        DatasetError: if a file cannot be read, or samples and images differ in shape.
        PipelineError: if the folder to keep is taken.
        ScoreError: if the samples are all the same.
        TrackingError: if MLflow does not take the scores; the folder is kept then.
    """
    samples = torch.from_numpy(read_samples(file)).to(torch.float32)
    return _judge(samples, config, request)


def score_generator(
    target: str,
    request: Request,
    *,
    assignments: Sequence[str] = (),
    n_likelihood_images: int = 0,
    ais: AisSettings,
) -> Judged:
    """The suite on samples of a generator, with the scores that need the generator itself.

    Args:
        target: id of an MLflow run of a trial, folder of a checkpoint, of a generator or of an
            artifact, or `NAME[@ALIAS]`, `NAME/VERSION` in the registry.
        request: what is to be done.
        assignments: settings of `data`, `evaluation` and `promote`, and `seed`, that are to be
            others than those the generator was trained with.
        n_likelihood_images: for the log-likelihood by annealed importance sampling; 0: without.
        ais: how hard that estimate works.

    Raises:
        ArtifactError: there is no such generator, or it was altered.
        CheckpointError: the checkpoint is damaged.
        ConfigError: another setting was assigned.
        ScoreError: a log-likelihood was asked for, but the prior has no smooth density, or the
            split too few images.
        DatasetError, PipelineError, TrackingError: as `score_file`.
    """
    with _generator(target) as saved:
        settings = {"base": to_dict(saved.config)}
        config = load_config(settings, assignments)
        _require_as_trained(config.base, saved.config)
        _require_files(config.base.data, request)
        seed = scored_seed(config.base.seed)
        samples = saved.sampler().sample(config.base.evaluation.n_samples, seed=seed)
        return _judge(
            samples,
            config,
            request,
            seed=seed,
            saved=saved,
            n_likelihood_images=n_likelihood_images,
            ais=ais,
        )


def _judge(
    samples: Tensor,
    config: PipelineConfig,
    request: Request,
    *,
    seed: int = 0,
    saved: SavedSampler | None = None,
    n_likelihood_images: int = 0,
    ais: AisSettings | None = None,
) -> Judged:
    product = product_of(config.base)
    real = _real_images(samples, config, request)
    if saved is not None and n_likelihood_images:
        require_log_likelihood(saved, n_images=n_likelihood_images, n_scored=len(real.scored))
    if request.is_logged:
        prepare_store(tracking_uri(), EXPERIMENT)  # a store that is away is no news for the end
    # Samples of a model that is judged by something else have no scores in its own stage either.
    is_judged_by_images = saved is None or product.is_judged_by_images
    evaluation = Evaluation(scores={}, unavailable={}, n_samples=0)
    if is_judged_by_images:
        evaluation = _of_images(samples, real, seed=seed, saved=saved)
    if saved is not None:
        candidate = Candidate(
            saved=saved,
            config=config.base,
            split=request.split,
            extractors=extractors_folder(WORKSPACES / config.name),
            seed=seed,
        )
        evaluation = product.measure(candidate).added_to(evaluation)
    if saved is not None and ais is not None and n_likelihood_images:
        evaluation = with_log_likelihood(
            evaluation, saved, real, n_images=n_likelihood_images, settings=ais
        )
    checks = tuple(quality_checks(product, evaluation, config.promote.limits))
    judged = Judged(evaluation=evaluation, checks=checks, split=request.split, run_id=None)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_evaluation(folder, evaluation, real.extractor)
        verdicts = [asdict(check) for check in checks]
        (folder / CHECKS).write_text(json.dumps(verdicts, indent=2) + "\n")
        (folder / PICTURES).mkdir()
        if is_judged_by_images:
            _write_pictures(folder / PICTURES, samples, real, seed=seed, saved=saved)
        if saved is not None:
            product.draw_picture(candidate, folder / PICTURES)
        if request.keep is not None:
            with new_folder(request.keep.absolute()) as kept:
                shutil.copytree(folder, kept, dirs_exist_ok=True)
        if not request.is_logged:
            return judged
        return replace(judged, run_id=_log(judged, config, request, real, folder))


def _of_images(
    samples: Tensor, real: RealImages, *, seed: int, saved: SavedSampler | None
) -> Evaluation:
    """The suite on samples, with the scores along paths of z where there is a generator."""
    evaluation = evaluate(samples, real, seed=seed)
    if saved is None:
        return evaluation
    return with_path_scores(evaluation, saved.sampler(), real, seed=seed)


def _write_pictures(
    folder: Path, samples: Tensor, real: RealImages, *, seed: int, saved: SavedSampler | None
) -> None:
    """Pictures of samples, and of paths of z where there is a generator."""
    sample_pictures(folder, samples, train=real.train)
    if saved is not None:
        interpolation_pictures(folder, saved.sampler(), seed=seed)


def _real_images(samples: Tensor, config: PipelineConfig, request: Request) -> RealImages:
    """The real images, once it is known that the rest can be done, too."""
    keep, data = request.keep, config.base.data
    if keep is not None and (keep.is_symlink() or keep.exists()):
        if keep.is_symlink() or not keep.is_dir() or any(keep.iterdir()):
            raise PipelineError(f"{keep} must be a new or an empty folder")
    # The images are read twice for this: seconds, where a net for their features takes minutes.
    shape = load_train_valid(data)[0].image_shape
    if samples.shape[1:] != shape:
        raise DatasetError(
            f"{request.source}: samples must have the shape of the images of "
            f"{data.dataset}, {list(shape)}, got {list(samples.shape[1:])}"
        )
    require_pixels(samples, image_shape=shape)
    return real_images(
        data,
        config.base.evaluation,
        split=request.split,
        extractors=extractors_folder(WORKSPACES / config.name),
    )


def _log(
    judged: Judged, config: PipelineConfig, request: Request, real: RealImages, folder: Path
) -> str:
    return log_evaluation(
        tracking_uri(),
        EXPERIMENT,
        name=f"{request.source}, {request.split}",
        params={
            "source": request.source,
            "dataset": config.base.data.dataset,
            "split": request.split,
            "n_samples": judged.evaluation.n_samples,
            "extractor": real.extractor.name,
            "extractor_digest": real.extractor.digest,
            "refused_by": ", ".join(c.name for c in judged.checks if not c.passed) or "none",
        },
        metrics=by_metric_name(judged.evaluation, request.split),
        folder=folder,
    )


def _require_as_trained(config: RunConfig, trained: RunConfig) -> None:
    """Refuse settings that the weights have settled, rather than pass over them in silence."""
    problems = [
        f"{name} is what the generator was trained with, and stays: only data, evaluation, seed "
        "and promote.limits can be set"
        for name in field_names(RunConfig)
        if name not in OPEN_SETTINGS and getattr(config, name) != getattr(trained, name)
    ]
    if problems:
        raise ConfigError(problems)


def _require_files(data: DataConfig, request: Request) -> None:
    """Say how to name what lies elsewhere than when the generator was trained."""
    wanted = {
        "dataset": None if data.dataset in NAMED else data.dataset,
        "root": data.root,
    }
    if request.split == "test":
        wanted["test_path"] = data.test_path
    for name, path in wanted.items():
        if path is not None and not Path(path).expanduser().exists():
            raise DatasetError(
                f"the images to score {request.source} by are not there: data.{name} is {path}; "
                f"name their place by --set data.{name}=PATH"
            )


@contextmanager
def _generator(target: str) -> Iterator[SavedSampler]:
    path = Path(target)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "generator"
        if path.is_dir():
            yield _in_folder(path)
        elif RUN_ID.fullmatch(target):
            if not has_run(tracking_uri(), target):
                raise ArtifactNotFound(
                    f"there is no run {target} in MLflow's store: start where its mlflow.db lies, "
                    "or set MLFLOW_TRACKING_URI"
                )
            download_checkpoint(tracking_uri(), target, folder)
            yield as_sampler(from_checkpoint(folder), target)
        elif path.exists():
            raise PipelineError(
                f"{target} is a file, and a generator is a folder: `gan score {target}` scores "
                "samples"
            )
        elif "/" in target and not VERSION.fullmatch(target):
            raise ArtifactNotFound(f"there is no folder {target}")
        else:
            fetch(tracking_uri(), target, folder)
            yield load_artifact(folder)


def _in_folder(folder: Path) -> SavedSampler:
    if (folder / META).is_file() or (folder / TENSORS).is_file():  # one may have been lost
        return as_sampler(from_checkpoint(folder), str(folder))
    if (folder / MANIFEST).is_file():
        return load_artifact(folder)
    if any(folder.glob(f"*{WEIGHTS_SUFFIX}")):
        return load_sampler(folder)
    raise PipelineError(
        f"{folder} holds neither a checkpoint ({TENSORS}) nor a generator (*{WEIGHTS_SUFFIX})"
    )
