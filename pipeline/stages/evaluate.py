"""Score the winner: the only stage that opens the test split, and no choice depends on it.

It does so each time it is run, and that is when the winner, the images or its settings are new, or
when it is asked for by name.
"""

import json

import numpy as np
import torch
from numpy.typing import NDArray

from gan.config import EvaluationConfig
from gan.datasets.splits import load_test
from gan.evaluation.parzen import FINE_GRID, PAPER_GRID, choose_sigma, parzen_scores
from gan.metric_names import (
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
from gan.randomness import stream_seed
from gan.run import unit_pixels
from gan.sampling import save_png, tile
from gan.saved_generator import load_generator
from pipeline.graph import Work
from pipeline.stages.data import load_valid
from pipeline.stages.sweep import logged_winner
from tuning.tracking import log_scores, tracking_uri

SCORES, VALID_LL = "scores.json", "valid_log_likelihood.npy"

PROTOCOL = ("n_samples", "n_sigma_images")
"""Settings of `evaluation` that change a score: two scores compare only where they agree."""

IN_MLFLOW = {
    PARZEN_LL_VALID: PARZEN_LL_VALID_FRESH,
    PARZEN_LL_VALID_SE: PARZEN_LL_VALID_FRESH_SE,
    PARZEN_SIGMA: PARZEN_SIGMA_FRESH,
}
"""The scores whose own names the trial has taken, in its run, for those that chose it."""


def run(work: Work) -> None:
    """Write `scores.json`, `valid_log_likelihood.npy` ([n_valid] float64, nats) and `samples.png`.

    The samples are others than those by which the sweep chose the winner, so that its luck in
    that draw does not count a second time.

    Raises:
        DatasetError: if the images cannot be read, or are others than those of the sweep.
        StageError: if MLflow has not the winner's run.
        TrackingError: if MLflow does not take the scores.
    """
    config = work.config.base
    winner = logged_winner(work, stage="evaluate")
    saved = load_generator(work.inputs["sweep"] / "winner")
    sample_seed = stream_seed(saved.config.seed, "evaluate") % 2**31
    samples = saved.sampler().sample(config.evaluation.n_samples, seed=sample_seed)
    valid, test = load_valid(work), unit_pixels(load_test(config.data))

    scores, valid_ll = score_both_splits(samples, valid=valid, test=test, cfg=config.evaluation)
    scores |= {name: getattr(config.evaluation, name) for name in PROTOCOL}
    scores["sample_seed"] = sample_seed
    (work.out / SCORES).write_text(json.dumps(scores, indent=2) + "\n")
    np.save(work.out / VALID_LL, valid_ll)
    save_png(tile(samples[:100], columns=10), work.out / "samples.png", zoom=2)
    metrics = {IN_MLFLOW.get(k, k): v for k, v in scores.items() if k.startswith("parzen")}
    # The winner's process is over, so this stage is now the one writer of its run.
    log_scores(tracking_uri(), winner["run_id"], metrics, step=int(winner["step"]))


def score_both_splits(
    samples: torch.Tensor, *, valid: torch.Tensor, test: torch.Tensor, cfg: EvaluationConfig
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Parzen scores of samples on both splits by both grids, and the likelihood of each image.

    Args:
        samples: [n, channels, height, width] in [0, 1].
        valid: validation images, on which both widths are chosen.
        test: test images.
        cfg: settings of the score.

    Returns:
        Scores by metric name, in nats; and the log-likelihood of each validation image by the
        paper's grid, [n_valid] float64.
    """
    by_grid = [
        choose_sigma(valid[: cfg.n_sigma_images], samples, grid=grid, chunk=cfg.chunk)
        for grid in (PAPER_GRID, FINE_GRID)
    ]
    valid_paper, valid_fine = parzen_scores(valid, samples, sigmas=by_grid, chunk=cfg.chunk)
    test_paper, test_fine = parzen_scores(test, samples, sigmas=by_grid, chunk=cfg.chunk)
    scores: dict[str, float] = {
        PARZEN_LL_VALID: valid_paper.mean,
        PARZEN_LL_VALID_SE: valid_paper.standard_error,
        PARZEN_SIGMA: valid_paper.sigma,
        PARZEN_LL_TEST: test_paper.mean,
        PARZEN_LL_TEST_SE: test_paper.standard_error,
        PARZEN_LL_VALID_FINE: valid_fine.mean,
        PARZEN_SIGMA_FINE: valid_fine.sigma,
        PARZEN_LL_TEST_FINE: test_fine.mean,
    }
    return scores, valid_paper.log_likelihood.numpy()
