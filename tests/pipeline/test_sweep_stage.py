"""What the stage `sweep` tells and refuses, around a sweep that is none (contract)."""

import dataclasses
import json
import logging
import os

import pytest
import torch

from gan.checkpoint import save_checkpoint
from gan.config import load_config
from pipeline.errors import StageError
from pipeline.graph import Work
from pipeline.stages import sweep
from tests.pipeline.tiny_run import SETTINGS
from tuning.ledger import Ledger, TrialResult
from tuning.sweep import TrialNews

PARZEN = "sweep.objective=parzen_ll_valid"
CONFIG = load_config(SETTINGS, [PARZEN])
RESULT = TrialResult(
    trial=0,
    status="finished",
    cause=None,
    is_final=True,
    overrides={"train.d_steps": 1},
    seed=0,
    run_id="0123abcd",
    objective="parzen_ll_valid",
    elapsed_seconds=1.0,
    history=[{"step": 20, "parzen_ll_valid": 5.0}, {"step": 60, "parzen_ll_valid": 3.0}],
)

NO_CHECKPOINT = (
    r"^sweep: checkpoint \S+/step_00000020 is damaged: .*: delete \S+/checkpoints and "
    r"\S+/result\.json, and the next run trains this trial again$"
)


@pytest.fixture
def work(tmp_path):
    """The stage's work, after a stage `data`."""
    for name in ("data", "out"):
        (tmp_path / name).mkdir()
    facts = {"train_digest": "d" * 64, "image_shape": [1, 8, 8]}
    (tmp_path / "data" / "data.json").write_text(json.dumps(facts))
    return Work(
        config=CONFIG,
        inputs={"data": tmp_path / "data"},
        out=tmp_path / "out",
        workspace=tmp_path / "runs",
    )


@pytest.fixture
def ledger(work):
    """The ledger that the stage goes on with."""
    return Ledger(sweep.sweep_folder(work.workspace, CONFIG, data_digest="d" * 64))


@pytest.fixture
def left(ledger, monkeypatch):
    """Put results of trials into the ledger; the sweep itself adds none.

    The store has every run that it is asked for.
    """
    monkeypatch.setattr(
        sweep, "run_sweep", lambda config, folder, *, extractors, watcher: "parent"
    )
    monkeypatch.setattr(sweep, "prepare_extractor", lambda config, folder: None)
    monkeypatch.setattr(sweep, "has_run", lambda uri, run_id: True)

    def left(*changes):
        for index, change in enumerate(changes):
            ledger.propose(index, {})
            if change is not None:
                ledger.write_result(dataclasses.replace(RESULT, trial=index, **change))

    return left


def test_trials_that_ended_before_are_told_at_the_start(work, left):
    diverged = {"status": "failed", "cause": "diverged", "history": []}
    left({}, {"status": "stopped", "cause": "asha"}, None, diverged, None)
    told = []
    with pytest.raises(StageError, match=NO_CHECKPOINT):
        sweep.stage(told.append)(work)
    assert told == [
        TrialNews(trial=0, report={"step": 60, "parzen_ll_valid": 5.0}, has_ended=True),
        TrialNews(trial=1, report={"step": 60, "parzen_ll_valid": 5.0}, has_ended=True),
        TrialNews(trial=3, report={"step": 0}, has_ended=True),
    ]


def test_trials_that_go_on_are_told_with_the_best_score_they_had(work, left, ledger):
    lost = {"status": "failed", "cause": "worker died", "is_final": False}
    left(None, lost, None)
    history = [{"step": 20, "parzen_ll_valid": 9.0, "images_per_second": 1.0}, {"step": 40}]
    save_checkpoint(
        ledger.trial_folder(0) / "checkpoints",
        step=40,
        tensors={"x": torch.zeros(1)},
        meta={"history": history},
    )
    told = []
    with pytest.raises(StageError, match=NO_CHECKPOINT):
        sweep.stage(told.append)(work)
    assert told == [
        TrialNews(trial=0, report={"step": 40, "parzen_ll_valid": 9.0}),
        TrialNews(trial=1, report={"step": 60, "parzen_ll_valid": 5.0}),
    ]


def test_name_to_resume_by_is_told_before_the_sweep_is_run(
    work, left, ledger, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    left({})

    def run_sweep(config, folder, *, extractors, watcher):
        assert caplog.messages == [
            f"sweep {ledger.name}: `gan sweep --resume {ledger.name}` goes on after any stop"
        ]
        raise StageError("it was run", stage="sweep")

    monkeypatch.setattr(sweep, "run_sweep", run_sweep)
    with pytest.raises(StageError, match="it was run"):
        sweep.stage(None)(work)


@pytest.mark.parametrize(
    ("spent", "now", "is_settled"),
    [
        (None, None, True),
        (None, 60.0, True),
        (60.0, 60.0, True),
        (60.0, 30.0, True),
        (60.0, 61.0, False),
        (60.0, None, False),
    ],
)
def test_a_sweep_that_its_time_budget_ended_is_over_until_it_gets_more(
    ledger, spent, now, is_settled
):
    folder = ledger.folder.parents[1] / "sweep"
    folder.mkdir(parents=True)
    (folder / "trials.json").write_text('[{"status": "finished", "is_final": true}]')
    (folder / "winner.json").write_text(json.dumps({"sweep": ledger.name}))
    if spent is not None:
        ledger.expire(spent)
    assert sweep.is_settled(folder, time_budget_seconds=now) is is_settled


def test_a_sweep_that_lost_a_trial_is_not_over(tmp_path):
    (tmp_path / "trials.json").write_text('[{"status": "failed", "is_final": false}]')
    assert not sweep.is_settled(tmp_path, time_budget_seconds=None)


def test_damaged_checkpoint_of_a_trial_that_goes_on_is_told(work, left, ledger, caplog):
    left(None, {})
    for step in (20, 40):
        save_checkpoint(
            ledger.trial_folder(0) / "checkpoints",
            step=step,
            tensors={"x": torch.zeros(100)},
            meta={},
        )
    path = ledger.checkpoint_path(0, step=40)
    os.truncate(path / "state.safetensors", 100)
    with pytest.raises(StageError, match=NO_CHECKPOINT):
        sweep.stage(None)(work)
    assert [m for m in caplog.messages if "damaged" in m] == [
        f"checkpoint {path} is damaged: state.safetensors has another SHA-256; "
        "falling back to the one before"
    ]


def test_outcome_counts_trials_and_gives_the_cause_of_each_failure(work, left, ledger, caplog):
    caplog.set_level(logging.INFO)
    left({"status": "failed", "cause": "diverged", "history": []}, {"status": "stopped"})
    sweep._log_outcome(ledger)
    assert caplog.messages == [
        "trial 0 failed: diverged",
        f"{ledger.name}: 2 trials, 1 failed, 1 stopped",
    ]


def test_sweep_without_a_score_has_no_winner(work, left):
    left({"status": "stopped", "history": []})
    with pytest.raises(StageError, match=r"^sweep: no trial has a score$"):
        sweep.stage(None)(work)


def test_sweep_of_another_name_is_not_resumed(work, left, ledger):
    left({})
    with pytest.raises(StageError, match=r"^sweep: tiny-00000000 cannot go on: the images or the"):
        sweep.stage(None, resume="tiny-00000000")(work)


def test_name_of_a_sweep_changes_with_what_its_trials_depend_on(work, ledger):
    def name(config, digest="d" * 64):
        return sweep.sweep_folder(work.workspace, config, data_digest=digest).name

    promote = load_config(SETTINGS, [PARZEN, "promote.min_standard_errors=5"])
    assert name(promote) == ledger.name
    others = [
        name(load_config(SETTINGS, [PARZEN, "train.n_steps=5"])),
        name(load_config(SETTINGS, [PARZEN, "sweep.n_trials=5"])),
        name(load_config(SETTINGS)),
        name(CONFIG, "e" * 64),
    ]
    assert len({ledger.name, *others}) == 5


def test_sweep_in_another_store_is_refused_before_anything_is_run(work, left, ledger, monkeypatch):
    left({"history": []}, {"run_id": "4567"}, {"history": [{"step": 20, "parzen_ll_valid": 4.0}]})
    asked, told = [], []
    monkeypatch.setattr(sweep, "has_run", lambda uri, run_id: asked.append((uri, run_id)))
    monkeypatch.setattr(sweep, "run_sweep", lambda *_, **__: pytest.fail("it was run"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    with pytest.raises(
        StageError,
        match=rf"^sweep: MLflow has no run '4567', that of the best trial of {ledger.name}: set "
        rf"MLFLOW_TRACKING_URI to .* delete \S+/runs/sweep and {ledger.folder}, and the next run "
        rf"trains again$",
    ):
        sweep.stage(told.append)(work)
    assert (asked, told) == ([("http://tracker:5000", "4567")], [])


def test_run_of_a_trial_that_has_none_on_record_is_looked_up(work, left, ledger, monkeypatch):
    def look_up(found, uri, parent):
        assert (found.folder, uri, parent) == (ledger.folder, "http://tracker:5000", "parent")
        ledger.write_result(dataclasses.replace(RESULT, run_id="89ab"))

    left({"run_id": ""})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    monkeypatch.setattr(sweep, "has_run", lambda uri, run_id: pytest.fail("there is no run"))
    monkeypatch.setattr(sweep, "look_up_runs", look_up)
    with pytest.raises(StageError, match=NO_CHECKPOINT):
        sweep.stage(None)(work)
    winner = json.loads((work.out / "winner.json").read_text())
    assert winner["run_id"] == "89ab"
