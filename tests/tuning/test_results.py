"""The winner of a sweep, its table, and its runs in a real store."""

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gan.objectives import OBJECTIVES
from tests.tuning.tiny_sweeps import a_result, scores
from tuning.errors import TrackingError
from tuning.ledger import Ledger, best_report
from tuning.outbox import RunIdentity
from tuning.results import best_trial, look_up_runs, results_table
from tuning.run_log import RunLog
from tuning.tracking import open_sweep, prepare_store

DISTANCE = "frechet_distance_valid"


def test_the_winner_has_the_best_score_at_any_step():
    results = [
        a_result(0, history=scores(10, [1.0, 9.0, 2.0])),
        a_result(1, history=scores(10, [3.0, 4.0, 5.0])),
    ]
    assert best_trial(results) is results[0]
    assert best_trial(results[::-1]) is results[0]


def test_of_distances_the_smallest_wins():
    results = [
        a_result(0, objective=DISTANCE, history=scores(10, [5.0, 4.0, 3.0], DISTANCE)),
        a_result(1, objective=DISTANCE, history=scores(10, [9.0, 1.0, 8.0], DISTANCE)),
    ]
    assert [result.best["step"] for result in results] == [30, 20]
    assert best_trial(results) is results[1]
    assert best_trial(results[::-1]) is results[1]


@pytest.mark.parametrize(("objective", "winner"), [("parzen_ll_valid", 0), (DISTANCE, 1)])
def test_the_objective_alone_decides_where_both_scores_were_taken(objective, winner):
    blur = [{"step": 10, "parzen_ll_valid": 320.0, DISTANCE: 90.0}]
    sharp = [{"step": 10, "parzen_ll_valid": 220.0, DISTANCE: 5.0}]
    results = [a_result(i, objective=objective, history=h) for i, h in enumerate((blur, sharp))]
    assert best_trial(results) is results[winner]


def test_of_equal_scores_the_fewer_steps_win_then_the_lower_index():
    slow = a_result(0, history=scores(10, [1.0, 9.0]))
    fast = a_result(2, history=scores(10, [9.0, 1.0]))
    twin = a_result(1, history=scores(10, [9.0, 9.0]))
    assert best_trial([slow, fast]) is fast
    assert best_trial([fast, slow, twin]) is twin


def test_of_equal_scores_of_one_trial_the_first_counts_but_of_training_the_last():
    for objective in OBJECTIVES.values():
        history = scores(10, [9.0, 9.0], objective.metric)
        step = 20 if objective.is_of_training else 10
        assert best_report(history, objective)["step"] == step


def test_a_trial_without_a_score_cannot_win():
    unscored = a_result(0, history=[{"step": 5, "d_loss": 1.0}])
    empty = a_result(1, history=[])
    assert best_trial([unscored, empty]) is None
    assert best_trial([]) is None
    assert best_trial([unscored, empty, a_result(7)]).trial == 7


def test_a_trial_that_failed_after_a_score_takes_part():
    failed = a_result(0, status="failed", cause="diverged", history=scores(10, [99.0]))
    assert best_trial([failed, a_result(1)]) is failed


def test_the_table_has_a_row_for_each_trial_by_index():
    results = [
        a_result(2, overrides={"train.d_steps": 2, "generator.hidden": [16, 16]}),
        a_result(0, overrides={"train.d_steps": 1, "generator.hidden": [16]}),
        a_result(1, status="failed", cause="diverged", history=[], overrides={"train.d_steps": 3}),
    ]
    table = results_table(results)
    assert table.to_pylist()[1:] == [
        {
            "trial": 1,
            "status": "failed",
            "cause": "diverged",
            "seed": 1,
            "run_id": "run1",
            "step": 0,
            "elapsed_seconds": 1.5,
            "generator.hidden": None,
            "train.d_steps": 3,
            "best_step": None,
            "parzen_ll_valid": None,
            "parzen_ll_valid_se": None,
        },
        {
            "trial": 2,
            "status": "finished",
            "cause": None,
            "seed": 2,
            "run_id": "run2",
            "step": 10,
            "elapsed_seconds": 1.5,
            "generator.hidden": [16, 16],
            "train.d_steps": 2,
            "best_step": 10,
            "parzen_ll_valid": -2.0,
            "parzen_ll_valid_se": None,
        },
    ]
    assert table["trial"].to_pylist() == [0, 1, 2]


def test_the_table_has_both_scores_where_both_were_taken():
    errors = {"parzen_ll_valid_se": 2.0, f"{DISTANCE}_se": 0.5}
    both = {"step": 10, "parzen_ll_valid": 220.0, DISTANCE: 5.0} | errors
    failed = a_result(1, objective=DISTANCE, status="failed", history=[])
    names = [DISTANCE, f"{DISTANCE}_se", "parzen_ll_valid", "parzen_ll_valid_se"]
    table = results_table([a_result(0, objective=DISTANCE, history=[both]), failed])
    assert table.column_names[-4:] == names
    assert [table[name].to_pylist() for name in names] == [[both[name], None] for name in names]
    assert results_table([failed]).schema == table.schema
    assert results_table([a_result(0, history=[both])]).schema == table.schema


def test_the_types_of_the_columns_do_not_depend_on_how_the_trials_did(tmp_path):
    nothing = results_table([])
    failed = results_table([a_result(0, status="failed", cause="diverged", history=[])])
    finished = results_table([a_result(0)])
    assert nothing.schema == failed.schema == finished.schema
    assert nothing.schema.field("cause").type == pa.string()
    pq.write_table(nothing, tmp_path / "results.parquet")


def test_a_space_over_the_seed_gives_one_column():
    table = results_table([a_result(0, seed=7, overrides={"seed": 7})])
    assert table.column_names.count("seed") == 1
    assert table["seed"].to_pylist() == [7]


@pytest.fixture
def logged(mlflow_store, tmp_path):
    """A ledger, its sweep's run, and a function that logs one of its trials."""
    ledger = Ledger(tmp_path / "tiny-1a2b3c4d")
    experiment = prepare_store(mlflow_store, "tiny")
    parent = open_sweep(mlflow_store, experiment, sweep=ledger.key(), params={}, tags={})

    def log(trial, *, sweep=None):
        identity = RunIdentity(
            experiment_id=experiment,
            sweep=sweep or ledger.key(),
            trial=str(trial),
            run_name=f"{trial:04d}",
            parent_run_id=parent,
            params={},
            tags={},
        )
        log = RunLog(mlflow_store, identity, tmp_path / "outbox")
        log.finish("FINISHED", tags={})
        return log.run_id

    return SimpleNamespace(uri=mlflow_store, ledger=ledger, parent=parent, log=log)


def record(ledger, *results):
    for result in results:
        ledger.propose(result.trial, {})
        ledger.write_result(result)


@pytest.mark.mlflow
def test_result_that_has_no_run_gets_that_of_its_trial(logged):
    logged.log(1, sweep="tiny-1a2b3c4d-another")
    run_ids = [logged.log(trial) for trial in (1, 10)]
    record(logged.ledger, a_result(0), a_result(1, run_id=""), a_result(10, run_id=""))
    look_up_runs(logged.ledger, logged.uri, logged.parent)
    expected = [a_result(0), a_result(1, run_id=run_ids[0]), a_result(10, run_id=run_ids[1])]
    assert logged.ledger.results() == expected


@pytest.mark.mlflow
def test_result_of_a_trial_that_mlflow_never_took_stays_as_it_is(logged):
    record(logged.ledger, a_result(3, run_id=""))
    look_up_runs(logged.ledger, logged.uri, logged.parent)
    assert logged.ledger.result(3) == a_result(3, run_id="")


def test_results_that_have_their_runs_ask_no_store(tmp_path):
    ledger = Ledger(tmp_path / "tiny")
    record(ledger, a_result(0), a_result(1))
    look_up_runs(ledger, "nonsense://x", "parent")
    record(ledger, a_result(2, run_id=""))
    with pytest.raises(TrackingError, match="MLflow at nonsense://x cannot be used"):
        look_up_runs(ledger, "nonsense://x", "parent")
