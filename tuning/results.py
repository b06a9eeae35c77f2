"""What came out of a sweep: a table, and the winner."""

from collections.abc import Sequence

import pyarrow as pa

from gan.metric_names import PARZEN_LL_VALID, PARZEN_LL_VALID_SE
from tuning.ledger import TrialResult

# Types are given, not inferred: a sweep in which no trial failed has no cause to infer one from.
_OF_TRIAL = (
    ("trial", pa.int64()),
    ("status", pa.string()),
    ("cause", pa.string()),
    ("seed", pa.int64()),
    ("run_id", pa.string()),
    ("step", pa.int64()),
    ("elapsed_seconds", pa.float64()),
)
_OF_BEST = (
    ("best_step", "step", pa.int64()),
    (PARZEN_LL_VALID, PARZEN_LL_VALID, pa.float64()),
    (PARZEN_LL_VALID_SE, PARZEN_LL_VALID_SE, pa.float64()),
)


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
    rows = sorted(results, key=lambda result: result.trial)
    bests = [result.best or {} for result in rows]
    paths = sorted({path for result in rows for path in result.overrides})
    columns = {name: pa.array([getattr(r, name) for r in rows], kind) for name, kind in _OF_TRIAL}
    columns |= {path: pa.array([r.overrides.get(path) for r in rows]) for path in paths}
    columns |= {name: pa.array([b.get(key) for b in bests], k) for name, key, k in _OF_BEST}
    return pa.table(columns)
