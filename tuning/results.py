"""What came out of a sweep: a table, and the winner."""

from collections.abc import Sequence

import pyarrow as pa

from gan.metric_names import PARZEN_LL_VALID, PARZEN_LL_VALID_SE
from tuning.ledger import TrialResult


def best_trial(results: Sequence[TrialResult]) -> TrialResult | None:
    """The trial whose best score is the largest; None if no trial has a score.

    Of equal scores the one that needed fewer steps wins, then the lower index.  A trial that
    failed after it had been scored takes part: its best checkpoint is as good as any.
    """

    def rank(result: TrialResult) -> tuple[float, float, int]:
        best = result.best or {}
        return -best[PARZEN_LL_VALID], best["step"], result.trial

    return min((r for r in results if r.best is not None), key=rank, default=None)


def results_table(results: Sequence[TrialResult]) -> pa.Table:
    """One row per trial, by index; a column for each setting that the sweep varied.

    Columns: trial, status, cause, seed, run_id, step, elapsed_seconds, the dotted path of each
    setting, then best_step, parzen_ll_valid (nats) and parzen_ll_valid_se at that step.
    """
    paths = sorted({path for result in results for path in result.overrides})
    rows = [_row(result, paths) for result in sorted(results, key=lambda r: r.trial)]
    return pa.Table.from_pylist(rows)


def _row(result: TrialResult, paths: Sequence[str]) -> dict[str, object]:
    best = result.best or {}
    return {
        "trial": result.trial,
        "status": result.status,
        "cause": result.cause,
        "seed": result.seed,
        "run_id": result.run_id,
        "step": result.step,
        "elapsed_seconds": result.elapsed_seconds,
        **{path: result.overrides.get(path) for path in paths},
        "best_step": best.get("step"),
        PARZEN_LL_VALID: best.get(PARZEN_LL_VALID),
        PARZEN_LL_VALID_SE: best.get(PARZEN_LL_VALID_SE),
    }
