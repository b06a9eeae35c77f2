"""Score the winner: the only stage that opens the test split, and no choice depends on it.

It does so each time it is run, and that is when the winner, the images or its settings are new, or
when it is asked for by name.  The gate judges by the scores on validation images.
"""

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import torch

from gan.config import EvaluationConfig
from gan.datasets.splits import load_test, load_train_valid
from gan.errors import ScoreError
from gan.evaluation.frechet import frechet_distance
from gan.evaluation.parzen import FINE_GRID, PAPER_GRID, choose_sigma, parzen_scores
from gan.evaluation.real_images import RealImages
from gan.evaluation.suite import Evaluation, evaluate
from gan.metric_names import (
    COMPLETION_LL_VALID,
    COMPLETION_LL_VALID_FRESH,
    COMPLETION_LL_VALID_FRESH_SE,
    COMPLETION_LL_VALID_SE,
    FRECHET_DISTANCE_TEST,
    FRECHET_DISTANCE_TEST_SE,
    FRECHET_DISTANCE_VALID,
    FRECHET_DISTANCE_VALID_FRESH,
    FRECHET_DISTANCE_VALID_FRESH_SE,
    FRECHET_DISTANCE_VALID_SE,
    PARZEN_LL_TEST,
    PARZEN_LL_TEST_FINE,
    PARZEN_LL_TEST_SE,
    PARZEN_LL_VALID,
    PARZEN_LL_VALID_FINE,
    PARZEN_LL_VALID_FRESH,
    PARZEN_LL_VALID_FRESH_SE,
    PARZEN_LL_VALID_SE,
    PARZEN_SIGMA,
    PARZEN_SIGMA_FINE,
    PARZEN_SIGMA_FRESH,
)
from gan.randomness import scored_seed
from gan.run import unit_pixels
from gan.tasks import load_sampler
from pipeline.evaluation import (
    PAIRED,
    PICTURES,
    by_metric_name,
    extractors_folder,
    paired_values,
    write_evaluation,
)
from pipeline.evaluation_pictures import interpolation_pictures, sample_pictures
from pipeline.generator_scores import with_path_scores
from pipeline.graph import Work
from pipeline.product import Candidate
from pipeline.products import product_of
from pipeline.stages.data import load_valid
from pipeline.stages.sweep import logged_winner
from tuning.tracking import log_folder, log_scores, tracking_uri

logger = logging.getLogger(__name__)

SCORES = "scores.json"

PROTOCOL = ("n_samples", "n_sigma_images")
"""Settings of `evaluation` that change a score: two scores compare only where they agree."""

FRESH = {
    PARZEN_LL_VALID: PARZEN_LL_VALID_FRESH,
    PARZEN_LL_VALID_SE: PARZEN_LL_VALID_FRESH_SE,
    PARZEN_SIGMA: PARZEN_SIGMA_FRESH,
    FRECHET_DISTANCE_VALID: FRECHET_DISTANCE_VALID_FRESH,
    FRECHET_DISTANCE_VALID_SE: FRECHET_DISTANCE_VALID_FRESH_SE,
    COMPLETION_LL_VALID: COMPLETION_LL_VALID_FRESH,
    COMPLETION_LL_VALID_SE: COMPLETION_LL_VALID_FRESH_SE,
}
"""The scores whose own names the trial has taken, in its run, for those that chose it."""


def run(work: Work) -> None:
    """Write `scores.json`, `evaluation.json`, `paired.npz` and the folder `pictures`.

    `scores.json` holds numbers by metric name, `evaluation.json` every score on validation images
    with its interval, `paired.npz` what a paired comparison with the champion needs.

    The samples are others than those by which the sweep chose the winner, so that its luck in
    that draw does not count a second time.

    Raises:
        DatasetError: if the images cannot be read, or are others than those of the sweep.
        StageError: if MLflow has not the winner's run.
        TrackingError: if MLflow does not take the scores.
    """
    config = work.config.base
    winner = logged_winner(work, stage="evaluate")
    saved = load_sampler(work.inputs["sweep"] / "winner")
    sample_seed = scored_seed(saved.config.seed)
    load_valid(work)  # which refuses other images than those of the sweep
    candidate = Candidate(
        saved=saved,
        config=config,
        split="valid",
        extractors=extractors_folder(work.workspace),
        seed=sample_seed,
    )
    product = product_of(config)
    (work.out / PICTURES).mkdir()
    evaluation = Evaluation(scores={}, unavailable={}, n_samples=0)
    scores: dict[str, float] = {}
    if product.is_judged_by_images:
        evaluation, scores = _of_images(candidate, work.out / PICTURES)
    evaluation = product.measure(candidate).added_to(evaluation)
    scores = by_metric_name(evaluation, "valid") | scores | product.measure_test(candidate)
    shown = dataclasses.replace(candidate, split=product.picture_split)
    product.draw_picture(shown, work.out / PICTURES)
    facts = {name: getattr(config.evaluation, name) for name in PROTOCOL}
    facts["sample_seed"] = sample_seed

    (work.out / SCORES).write_text(json.dumps(scores | facts, indent=2) + "\n")
    extractor = candidate.real.extractor if product.is_judged_by_images else None
    write_evaluation(work.out, evaluation, extractor)
    paired = paired_values(evaluation) | dict(product.values(candidate))
    np.savez(work.out / PAIRED, **paired)  # type: ignore[arg-type]

    # The winner's process is over, so this stage is now the one writer of its run.
    uri, run_id = tracking_uri(), winner["run_id"]
    metrics = {FRESH.get(name, name): value for name, value in scores.items()}
    log_folder(uri, run_id, work.out, "evaluation")
    log_scores(uri, run_id, metrics, step=int(winner["step"]))


def _of_images(candidate: Candidate, pictures: Path) -> tuple[Evaluation, dict[str, float]]:
    """The suite on samples, and what it leaves to this stage: the scores on test images."""
    config, seed, real = candidate.config, candidate.seed, candidate.real
    sampler = candidate.saved.sampler()
    samples = sampler.sample(config.evaluation.n_samples, seed=seed)
    valid = unit_pixels(load_train_valid(config.data)[1])
    test = unit_pixels(load_test(config.data))
    evaluation = evaluate(samples, real, seed=seed)
    evaluation = with_path_scores(evaluation, sampler, real, seed=seed)
    scores = _frechet_on_test(samples, test, real)
    # By the released code's protocol, whose standard error is that over images alone.
    scores |= parzen_of_both_splits(samples, valid=valid, test=test, cfg=config.evaluation)
    sample_pictures(pictures, samples, train=real.train)
    interpolation_pictures(pictures, sampler, seed=seed)
    return evaluation, scores


def parzen_of_both_splits(
    samples: torch.Tensor, *, valid: torch.Tensor, test: torch.Tensor, cfg: EvaluationConfig
) -> dict[str, float]:
    """Parzen scores of samples on both splits by both grids, by metric name, in nats.

    Args:
        samples: [n, channels, height, width] in [0, 1].
        valid: validation images, on which both widths are chosen.
        test: test images.
        cfg: settings of the score.
    """
    by_grid = [
        choose_sigma(valid[: cfg.n_sigma_images], samples, grid=grid, chunk=cfg.chunk)
        for grid in (PAPER_GRID, FINE_GRID)
    ]
    valid_paper, valid_fine = parzen_scores(valid, samples, sigmas=by_grid, chunk=cfg.chunk)
    test_paper, test_fine = parzen_scores(test, samples, sigmas=by_grid, chunk=cfg.chunk)
    return {
        PARZEN_LL_VALID: valid_paper.mean,
        PARZEN_LL_VALID_SE: valid_paper.standard_error,
        PARZEN_SIGMA: valid_paper.sigma,
        PARZEN_LL_TEST: test_paper.mean,
        PARZEN_LL_TEST_SE: test_paper.standard_error,
        PARZEN_LL_VALID_FINE: valid_fine.mean,
        PARZEN_SIGMA_FINE: valid_fine.sigma,
        PARZEN_LL_TEST_FINE: test_fine.mean,
    }


def _frechet_on_test(
    samples: torch.Tensor, test: torch.Tensor, real: RealImages
) -> dict[str, float]:
    try:
        found = frechet_distance(
            real.extractor(test.float()), real.extractor(samples.float()), seed=0
        ).distance
    except ScoreError as error:
        logger.warning("no Fréchet distance on test images: %s", error)
        return {}
    return {
        FRECHET_DISTANCE_TEST: found.value,
        FRECHET_DISTANCE_TEST_SE: found.standard_error or 0.0,
    }
