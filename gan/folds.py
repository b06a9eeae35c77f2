"""The column TFD of Table 1: a recipe of one stage or more, scored on each fold of the database.

    scored = [scores for scores, _ in score_folds(stages, device="cuda")]
    mean, standard_error = over_folds([scores[-1].parzen_ll_test for scores in scored])

Folds that train on the same images, as the database's do, share one generator and its samples; a
window's width is chosen on each fold's own validation images.

Source: caption of Table 1 of Goodfellow et al. (2014); `parzen_ll.py --dataset tfd --fold` and the
folder `tfd_pretrain` of the released code.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from gan.config import EvaluationConfig, RunConfig
from gan.datasets.images import ImageSet
from gan.datasets.splits import load_test, load_train_valid
from gan.datasets.tfd import N_FOLDS
from gan.errors import ConfigError
from gan.evaluation.parzen import PAPER_GRID, choose_sigma, parzen_scores
from gan.randomness import scored_seed
from gan.run import unit_pixels
from gan.saved_generator import Saved, SavedSampler
from gan.tasks import as_sampler, start_run


@dataclass(frozen=True, kw_only=True)
class FoldScore:
    """The Parzen scores of one set of samples by the images of one fold, in nats.

    Attributes:
        fold: 0 .. 4.
        sigma: width of the window, on the scale of the pixels.
        parzen_ll_valid: mean over the validation images, on which the width was chosen.
        parzen_ll_test: mean over the test images.
        parzen_ll_test_se: its standard error over these images alone.
        n_unlabeled: images that trained.
        n_valid: validation images.
        n_test: test images.
    """

    fold: int
    sigma: float
    parzen_ll_valid: float
    parzen_ll_test: float
    parzen_ll_test_se: float
    n_unlabeled: int
    n_valid: int
    n_test: int


def train_stages(
    stages: Sequence[RunConfig], images: ImageSet, *, device: str
) -> Iterator[SavedSampler]:
    """What each of several runs leaves, of which all but the first start from the one before.

    Args:
        stages: one run or more.
        images: training images of all of them.
        device: where to train.

    Raises:
        CheckpointError: a run leaves nothing that draws images.
        ConfigError: a run cannot start from the one before.
        DivergedError: a loss is not finite.
    """
    saved: Saved | None = None
    for stage in stages:
        run = start_run(stage, images, device=device, origin=saved)
        for _ in run.train():
            pass
        saved = run.saved()
        yield as_sampler(saved, "a stage")


def score_folds(
    stages: Sequence[RunConfig], *, device: str, folds: Iterable[int] = range(N_FOLDS)
) -> Iterator[tuple[list[FoldScore], list[SavedSampler]]]:
    """Fold by fold the score of each stage, and the generators that were scored.

    Args:
        stages: the recipe, as `train_stages` takes it; all of one .mat file, whatever their fold.
        device: where to train; samples are scored on the CPU.
        folds: which.

    Raises:
        ConfigError: the data set has no folds, or as `train_stages`.
        DatasetError: the images cannot be read.
        DivergedError: a loss is not finite.
    """
    for stage in stages:
        if not stage.data.is_folded:
            raise ConfigError(
                [f"data.dataset must be a .mat file with folds, got {stage.data.dataset}"]
            )
    made: dict[str, list[tuple[SavedSampler, Tensor]]] = {}
    for fold in folds:
        of_fold = [
            dataclasses.replace(stage, data=dataclasses.replace(stage.data, fold=fold))
            for stage in stages
        ]
        data = of_fold[0].data
        images, valid = load_train_valid(data)
        if images.digest not in made:
            trained = train_stages(of_fold, images, device=device)
            made[images.digest] = [(saved, _samples(saved)) for saved in trained]
        test = load_test(data)
        scores = [
            _score(samples, images, valid, test, fold=fold, cfg=stage.evaluation)
            for stage, (_, samples) in zip(of_fold, made[images.digest], strict=True)
        ]
        yield scores, [saved for saved, _ in made[images.digest]]


def over_folds(scores: Sequence[float]) -> tuple[float, float]:
    """Mean over folds, and its standard error: standard deviation (n - 1) / sqrt(n).

    Args:
        scores: one a fold, at least 2.
    """
    return statistics.fmean(scores), statistics.stdev(scores) / math.sqrt(len(scores))


def _samples(saved: SavedSampler) -> Tensor:
    config = saved.config
    seed = scored_seed(config.seed)
    return saved.sampler().sample(config.evaluation.n_samples, seed=seed)


def _score(
    samples: Tensor,
    images: ImageSet,
    valid: ImageSet,
    test: ImageSet,
    *,
    fold: int,
    cfg: EvaluationConfig,
) -> FoldScore:
    x_valid, x_test = unit_pixels(valid), unit_pixels(test)
    n_sigma = cfg.n_sigma_images
    sigma = choose_sigma(x_valid[:n_sigma], samples, grid=PAPER_GRID, chunk=cfg.chunk)
    (on_valid,), (on_test,) = (
        parzen_scores(x, samples, sigmas=[sigma], chunk=cfg.chunk) for x in (x_valid, x_test)
    )
    return FoldScore(
        fold=fold,
        sigma=sigma,
        parzen_ll_valid=on_valid.mean,
        parzen_ll_test=on_test.mean,
        parzen_ll_test_se=on_test.standard_error,
        n_unlabeled=len(images),
        n_valid=len(valid),
        n_test=len(test),
    )
