"""A piece of the work behind the page: done once, in a process of its own, and kept in a folder.

The folder appears when the piece is done.  A run in it is `gan train`'s: cut off at any moment,
it goes on from its last checkpoint when the same command comes again.
"""

import io
import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gan.config import DataConfig, PipelineConfig, RunConfig, digest, to_dict
from gan.datasets.splits import load_test, load_train_valid
from gan.datasets.tfd import stand_in_notice
from gan.errors import GanError
from gan.evaluation.ais import AisSettings
from gan.evaluation.features import build_extractor
from gan.evaluation.frechet import frechet_distance
from gan.evaluation.suite import Evaluation
from gan.files import new_folder
from gan.folds import over_folds, score_folds
from gan.metric_names import FRECHET_DISTANCE_VALID
from gan.randomness import scored_seed
from gan.run import score_samples, unit_pixels
from gan.saved_generator import SavedSampler
from gan.tasks import load_sampler
from gan.version import __version__
from pipeline.errors import PipelineError
from pipeline.evaluation import PICTURES, extractors_folder
from pipeline.evaluation_pictures import N_SAMPLES, interpolation_pictures, sample_pictures
from pipeline.main_line import WORKSPACES
from pipeline.paper import faces
from pipeline.paper.subjects import Budget, Settings, Subject
from pipeline.progress import display
from pipeline.scoring import Request, score_generator
from pipeline.theory import hold_theory
from pipeline.training import device_for, train_one
from tuning.errors import TuningError

RESULT, FAILURE = "result.json", "failure"
Work = Callable[[Path], dict[str, Any]]
Scores = dict[str, tuple[float, float | None]]
"""By name: value and standard error."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of the work.

    Attributes:
        name: in file names: `theory`, `vae-0`, `faces`.
        work: does it: pictures into a new folder, and all else returned as JSON values.
        settings: all that decides what comes out, as JSON values.
    """

    name: str
    work: Work
    settings: Mapping[str, Any]

    def folder(self, parts: Path) -> Path:
        """Where it is kept below the folder of all parts."""
        return parts / f"{self.name}-{digest(dict(self.settings))[:8]}"

    def result(self, parts: Path) -> dict[str, Any] | None:
        """What came out, or None while it is to be done."""
        file = self.folder(parts) / RESULT
        return dict(json.loads(file.read_text())) if file.is_file() else None


def do(part: Part, parts: Path) -> dict[str, Any]:
    """The result of a part, which is worked out unless it is kept.

    A failure comes back as a result, too, which is not kept: {FAILURE: one line}, and, if it is
    none that a person could have expected, its traceback.
    """
    done = part.result(parts)
    if done is not None:
        return done
    began_at = time.monotonic()
    try:
        with new_folder(part.folder(parts)) as scratch:
            result = part.work(scratch) | {"seconds": round(time.monotonic() - began_at, 1)}
            (scratch / RESULT).write_text(json.dumps(result, indent=2) + "\n")
    except (GanError, TuningError, PipelineError) as error:
        return {FAILURE: str(error)}
    except Exception as error:  # noqa: BLE001 - a full disk, say: the other parts go on
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        return {FAILURE: told, "traceback": traceback.format_exc()}
    return result


def theory_part(*, seed: int) -> Part:
    """Section 4 and Figure 1; see `pipeline.theory`."""
    return Part(
        name="theory",
        work=partial(_theory, seed=seed),
        settings={"part": "theory", "seed": seed, "version": __version__},
    )


def subject_part(subject: Subject, budget: Budget, *, seed: int, where: Settings) -> Part:
    """A run of a subject and its scores on the test images."""
    config = subject.config(budget, seed=seed, where=where)
    return Part(
        name=f"{subject.name}-{seed}",
        work=partial(_subject, config=config, budget=budget),
        settings={
            "part": subject.name,
            "run": to_dict(config.base),
            "objective": config.sweep.objective,
            "is_quick": budget == "quick",
            "files": _stamps(config.base.data),
            "version": __version__,
        },
    )


def faces_part(file: Path, budget: Budget, *, seed: int) -> Part:
    """The column TFD of Table 1, on a file in the layout of the database."""
    stages = faces.recipe(str(file), is_small=budget == "quick", settings={"seed": seed})
    return Part(
        name="faces",
        work=partial(_faces, stages=stages, is_small=budget == "quick"),
        settings={
            "part": "faces",
            "stages": [to_dict(stage) for stage in stages],
            "files": _stamps(stages[0].data),
            "version": __version__,
        },
    )


def _theory(folder: Path, *, seed: int) -> dict[str, Any]:
    claims, sections = hold_theory(seed)
    return {
        "claims": [asdict(claim) for claim in claims],
        "sections": [asdict(section) for section in sections],
    }


def _subject(folder: Path, *, config: PipelineConfig, budget: Budget) -> dict[str, Any]:
    with display(Console(file=io.StringIO())) as silent:
        trained = train_one(config, silent)
    if budget == "quick":
        saved = load_sampler(Path(trained["generator"]))
        scores = _quick_scores(saved, config, folder)
        refused_by = None
    else:
        judged = score_generator(
            trained["generator"],
            Request(source=config.name, split="test", keep=folder / "suite"),
            ais=AisSettings(),
        )
        (folder / "suite" / PICTURES).rename(folder / PICTURES)
        scores = _scores(judged.evaluation)
        refused_by = [check.name for check in judged.checks if not check.passed]
    return {
        "step": int(trained["best_step"]),
        "run_id": trained["run_id"],
        "n_samples": config.base.evaluation.n_samples,
        "scores": scores,
        "refused_by": refused_by,
    }


def _scores(evaluation: Evaluation) -> Scores:
    """Every score; the error of the Parzen score is that over images alone, as in the paper."""
    scores: Scores = {
        name: (score.value, score.standard_error) for name, score in evaluation.scores.items()
    }
    parzen = evaluation.details["parzen"]
    return scores | {
        "parzen_ll": (scores["parzen_ll"][0], parzen["standard_error_of_images"]),
        "parzen_sigma": (parzen["sigma"], None),
    }


def _quick_scores(saved: SavedSampler, config: PipelineConfig, folder: Path) -> Scores:
    """The Parzen score, the Fréchet distance where its feature net is at hand, and pictures."""
    run = config.base
    train, valid = load_train_valid(run.data)
    test = unit_pixels(load_test(run.data))
    sampler = saved.sampler()
    seed = scored_seed(run.seed)
    samples = sampler.sample(run.evaluation.n_samples, seed=seed)
    score = score_samples(samples, test, valid=unit_pixels(valid), cfg=run.evaluation)
    scores: Scores = {
        "parzen_ll": (score.mean, score.standard_error),
        "parzen_sigma": (score.sigma, None),
    }
    if config.sweep.objective == FRECHET_DISTANCE_VALID:
        extractor = build_extractor(
            run.evaluation, run.data, train, folder=extractors_folder(WORKSPACES / config.name)
        )
        real, ours = extractor(test.float()), extractor(samples.float())
        distance = frechet_distance(real, ours, seed=seed).distance
        scores["frechet_distance"] = (distance.value, distance.standard_error)
    (folder / PICTURES).mkdir()
    sample_pictures(folder / PICTURES, samples, train=unit_pixels(train).float())
    interpolation_pictures(folder / PICTURES, sampler, seed=seed)
    return scores


def _faces(folder: Path, *, stages: Sequence[RunConfig], is_small: bool) -> dict[str, Any]:
    device = device_for("auto")
    scored = list(score_folds(stages, device=device))
    by_stage = zip(*(scores for scores, _ in scored), strict=True)
    made = scored[0][1]
    train = unit_pixels(load_train_valid(stages[0].data)[0]).float()
    for number, saved in enumerate(made):
        (pictures := folder / f"{PICTURES}-{number}").mkdir()
        sample_pictures(pictures, saved.sampler().sample(N_SAMPLES, seed=0), train=train)
        interpolation_pictures(pictures, saved.sampler(), seed=0)
    n_unlabeled = scored[0][0][0].n_unlabeled
    return {
        "notice": stand_in_notice(n_unlabeled),
        "is_small": is_small,
        "n_steps": [stage.train.n_steps for stage in stages],
        "stages": [
            {
                "folds": [asdict(score) for score in scores],
                "mean_and_error": over_folds([score.parzen_ll_test for score in scores]),
            }
            for scores in by_stage
        ],
    }


def begin(driver: int) -> None:
    """Of a process that does parts: computes with one thread, and ends with its driver.

    The number of threads decides the order of sums, and so what a GAN becomes.

    Args:
        driver: id of the process that started it.
    """
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()


def _end_with(driver: int) -> None:
    """A driver that is killed cannot tell: what it started would keep the locks of its runs."""
    while os.getppid() == driver:
        time.sleep(0.2)
    os._exit(1)


def _stamps(data: DataConfig) -> list[tuple[str, int, int]]:
    """Name, size and time of the last change of each file of a data set that is not built in."""
    path = Path(data.root or data.dataset)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
