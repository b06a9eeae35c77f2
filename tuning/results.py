"""What came out of a sweep: a table, the winner, and the runs in MLflow that it points to."""

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from gan.metric_names import PARZEN_LL_VALID
from gan.objectives import OBJECTIVES
from tuning.ledger import Ledger, TrialResult
from tuning.tracking import KIND_TAG, SWEEP_TAG, TRIAL_TAG, find_run, store

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


def best_trial(results: Sequence[TrialResult]) -> TrialResult | None:
    """The trial whose best score is the best of all; None if no trial has a score.

    Of equal scores the one that needed fewer steps wins, then the lower index.  A trial that
    failed after it had been scored takes part: its best checkpoint is as good as any.
    """

    def rank(result: TrialResult) -> tuple[float, float, int]:
        best = result.best or {}
        return -OBJECTIVES[result.objective].merit(best), best["step"], result.trial

    return min((r for r in results if r.best is not None), key=rank, default=None)


def results_table(results: Sequence[TrialResult]) -> pa.Table:
    """One row per trial, by index; a column for each setting that the sweep varied.

    Columns: trial, status, cause, seed, run_id, step, elapsed_seconds, the dotted path of each
    setting, then best_step, and at that step each score that the sweep has (see `OBJECTIVES`), in
    its own unit and direction, with its standard error.
    """
    rows = sorted(results, key=lambda result: result.trial)
    bests = [result.best or {} for result in rows]
    paths = sorted({path for result in rows for path in result.overrides})
    columns = {name: pa.array([getattr(r, name) for r in rows], kind) for name, kind in _OF_TRIAL}
    columns |= {path: pa.array([r.overrides.get(path) for r in rows]) for path in paths}
    columns["best_step"] = pa.array([best.get("step") for best in bests], pa.int64())
    for name in _score_names(rows):
        columns[name] = pa.array([best.get(name) for best in bests], pa.float64())
    return pa.table(columns)


def _score_names(results: Sequence[TrialResult]) -> list[str]:
    """The Parzen score, which every sweep has, the objective, and whatever else was scored."""
    present = {PARZEN_LL_VALID} | {result.objective for result in results}
    present |= {name for result in results for name in result.best or {}}
    scores = [score for score in OBJECTIVES.values() if score.metric in present]
    return [name for score in scores for name in (score.metric, score.metric_se)]


def look_up_runs(ledger: Ledger, uri: str, parent_run_id: str) -> None:
    """Give each result without a `run_id` that of its trial's run, if MLflow has one by now.

    What waited for MLflow is delivered after the result was written: a driver that was killed in
    between has left the one without the other.

    Args:
        ledger: of a sweep that is over.
        uri: MLflow store.
        parent_run_id: of the sweep's run.

    Raises:
        TrackingError: the store does not answer.
        TuningError: a result cannot be written.
    """
    nameless = [result for result in ledger.results() if not result.run_id]
    if not nameless:
        return
    with store(uri) as client:
        experiment = client.get_run(parent_run_id).info.experiment_id
        for result in nameless:
            wanted = {KIND_TAG: "trial", SWEEP_TAG: ledger.key(), TRIAL_TAG: str(result.trial)}
            run = find_run(client, experiment, wanted)
            if run is not None:
                ledger.write_result(replace(result, run_id=str(run.info.run_id)))
