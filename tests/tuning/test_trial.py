"""One trial without Ray: how it ends, and how it goes on after any kind of death.

Kinds of tests: invariance (killed and resumed = never killed, bit for bit), contract.
"""

import itertools
import logging
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from gan import validation as validation_module
from gan.checkpoint import list_checkpoints, load_checkpoint
from gan.config import PipelineConfig, to_dict
from gan.errors import CheckpointError, DatasetError
from gan.evaluation.parzen import ParzenScore, parzen_score
from gan.metric_names import D_LOSS, IMAGES_PER_SECOND, PARZEN_LL_VALID
from gan.run import Run
from gan.tasks import from_state, save
from tests.tuning.stored_runs import StoredRun, stored_runs
from tests.tuning.tiny_sweeps import tiny_config, write_images
from tuning import trial as trial_module
from tuning.errors import TuningError
from tuning.ledger import START, Ledger, open_ledger, trial_run
from tuning.run_log import RunLog, deliver
from tuning.tracking import prepare_store
from tuning.trial import TrialSpec, end_trial, run_trial

pytestmark = pytest.mark.mlflow

STEPS = [5, 10, 15, 20, 25, 30, 35, 40]
SCORED = [10, 20, 30, 40]
DISTANCE = "frechet_distance_valid"


class KilledError(BaseException):
    """Stands for SIGKILL: nothing in the code under test may catch it."""


class Sweep:
    """A ledger and a store, in which trials are run one by one."""

    def __init__(self, folder: Path, uri: str, config: PipelineConfig) -> None:
        self.folder, self.uri, self.config = folder, uri, config
        self.ledger = Ledger(folder / "tiny")
        self.location = str(self.ledger.folder)
        self.experiment_id = prepare_store(uri, "tiny")

    def spec(self, index: int = 0, overrides: dict[str, Any] | None = None) -> TrialSpec:
        overrides = {"train.d_steps": 2} if overrides is None else overrides
        return TrialSpec(
            ledger=self.location,
            driver=self.ledger.driver,
            extractors=str(self.folder / "nets"),
            index=index,
            overrides=overrides,
            run=to_dict(trial_run(self.config, index, overrides)),
            objective=self.config.sweep.objective,
            uri=self.uri,
            experiment_id=self.experiment_id,
            experiment="tiny",
            parent_run_id=None,
            tags={"version.gan": "tested"},
            threads=1,
            device="cpu",
        )

    def run(self, index: int = 0, overrides: dict[str, Any] | None = None) -> list[int]:
        """Run a trial to its end; the steps that it reported."""
        return [int(report["step"]) for report in run_trial(self.spec(index, overrides))]

    def stored(self) -> StoredRun:
        (run,) = stored_runs(self.folder / "mlflow.db", kind="trial")
        return run

    def checkpoint_steps(self) -> list[int]:
        paths = list_checkpoints(self.ledger.trial_folder(0) / "checkpoints")
        return [int(path.name.removeprefix("step_")) for path in paths]

    def weights(self) -> bytes:
        """The last checkpoint's tensors: both nets, both optimisers, every random stream."""
        checkpoints = self.ledger.trial_folder(0) / "checkpoints"
        return (checkpoints / "step_00000040" / "state.safetensors").read_bytes()

    def history(self) -> list[dict[str, float]]:
        """What the trial reported, but for how fast it was."""
        history = self.ledger.history(0)
        return [{k: v for k, v in r.items() if k != IMAGES_PER_SECOND} for r in history]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def new_sweep(images: Path, mlflow_store: str, tmp_path: Path) -> Callable[..., Sweep]:
    return lambda *assignments: Sweep(tmp_path, mlflow_store, tiny_config(images, *assignments))


@pytest.fixture
def sweep(new_sweep: Callable[..., Sweep]) -> Sweep:
    return new_sweep()


@pytest.fixture(scope="module")
def whole(
    images: Path, mlflow_tables: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sweep]:
    """A trial that was never disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "mlflow.db").write_bytes(mlflow_tables.read_bytes())
        sweep = Sweep(folder, f"sqlite:///{folder / 'mlflow.db'}", tiny_config(images))
        sweep.run()
    return sweep


def killed(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, call: int, after: bool):
    """Let the process die just before or just after the given call of a function."""
    function = getattr(owner, name)
    calls = []

    def wrapped(*args: Any, **settings: Any) -> Any:
        calls.append(name)
        if len(calls) == call and not after:
            raise KilledError
        value = function(*args, **settings)
        if len(calls) == call:
            raise KilledError
        return value

    monkeypatch.setattr(owner, name, wrapped)


# Its end


def test_a_trial_finishes_with_every_report_on_record(whole):
    result = whole.ledger.result(0)
    assert [result.status, result.cause, result.is_final] == ["finished", None, True]
    assert [result.seed, result.overrides] == [0, {"train.d_steps": 2}]
    assert [report["step"] for report in result.history] == STEPS
    assert [r["step"] for r in result.history if PARZEN_LL_VALID in r] == SCORED
    assert [r["images_seen"] for r in result.history] == [step * 2 * 30 for step in STEPS]
    assert result.elapsed_seconds > 0
    assert result.step == 40
    assert result.best in [r for r in result.history if PARZEN_LL_VALID in r]


def test_mlflow_has_what_the_ledger_has(whole):
    run, result = whole.stored(), whole.ledger.result(0)
    assert run.run_id == result.run_id
    assert run.status == "FINISHED"
    assert "gan.cause" not in run.tags
    assert "gan.stopped_early" not in run.tags
    assert run.tags["gan.sweep"] == whole.ledger.key()
    assert run.tags["version.gan"] == "tested"
    assert len(run.tags["gan.config_digest"]) == 64
    assert run.params["train.d_steps"] == "2"
    assert run.params["generator.hidden"] == "[16]"
    for metric in result.history[-1].keys() - {"step"}:
        expected = SCORED if metric.startswith("parzen") else STEPS
        assert run.steps[metric] == expected, metric
    assert run.grid_steps == SCORED


def test_its_checkpoints_are_artifacts_that_load(whole):
    run, best = whole.stored(), whole.ledger.result(0).best
    last = load_checkpoint(run.artifacts / "checkpoints" / "last")
    assert last.step == 40
    assert load_checkpoint(run.artifacts / "checkpoints" / "best").step == best["step"]


def test_the_scores_are_of_the_validation_images_alone(whole, images):
    """A window of width sigma on 100 samples; the images it is scored on are the last 100."""
    report = whole.ledger.result(0).history[-1]
    run = trial_run(whole.config, 0, {"train.d_steps": 2})
    checkpoint = load_checkpoint(whole.ledger.checkpoint_path(0, step=40))
    saved = from_state(checkpoint.tensors, run, image_shape=(1, 8, 8))
    samples = saved.sampler().sample(100, seed=run.seed)
    valid = torch.from_numpy(np.load(images)["images"][200:, None] / 255)
    score = parzen_score(valid, samples, sigma=report["parzen_sigma"])
    assert_allclose(report[PARZEN_LL_VALID], score.mean, rtol=1e-9, atol=0)


# Resuming

CRASHES = [
    pytest.param((RunLog, "report", 1, False), id="before-the-first-report"),
    pytest.param((RunLog, "report", 4, False), id="before-a-scored-report"),
    pytest.param((RunLog, "report", 4, True), id="between-report-and-checkpoint"),
    pytest.param((RunLog, "report", 5, True), id="after-an-unscored-report"),
    pytest.param((trial_module, "save_checkpoint", 2, True), id="after-a-checkpoint"),
    pytest.param((trial_module, "prune_checkpoints", 3, False), id="before-old-ones-are-removed"),
    pytest.param((RunLog, "artifact", 2, False), id="before-an-upload"),
    pytest.param((RunLog, "artifact", 3, True), id="after-an-upload"),
    pytest.param((RunLog, "finish", 1, False), id="before-the-end"),
    pytest.param((RunLog, "finish", 1, True), id="between-the-runs-end-and-the-result"),
    pytest.param((Ledger, "write_result", 1, False), id="before-the-result"),
]


@pytest.mark.parametrize("crash", CRASHES)
def test_killed_anywhere_and_resumed_it_ends_as_if_never_killed(crash, whole, sweep, monkeypatch):
    owner, name, call, after = crash
    with monkeypatch.context() as patch:
        killed(patch, owner, name, call=call, after=after)
        with pytest.raises(KilledError):
            sweep.run()
    assert sweep.ledger.result(0) is None
    sweep.run()
    assert sweep.weights() == whole.weights()
    assert sweep.history() == whole.history()
    run = sweep.stored()
    assert run.steps == whole.stored().steps
    assert run.grid_steps == SCORED
    assert run.status == "FINISHED"
    assert sweep.ledger.result(0).run_id == run.run_id


def test_killed_again_and_again_it_still_ends_the_same(whole, sweep, monkeypatch):
    for call in (3, 2, 1):
        with monkeypatch.context() as patch:
            killed(patch, trial_module, "save_checkpoint", call=call, after=False)
            with pytest.raises(KilledError):
                sweep.run()
    sweep.run()
    assert sweep.weights() == whole.weights()
    assert sweep.stored().steps == whole.stored().steps


def test_a_resumed_trial_first_reports_where_it_is(sweep, monkeypatch):
    with monkeypatch.context() as patch:
        killed(patch, RunLog, "report", call=5, after=True)
        with pytest.raises(KilledError):
            sweep.run()
    assert sweep.run() == [20, 25, 30, 35, 40]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(whole, sweep, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        killed(patch, RunLog, "report", call=7, after=True)
        with pytest.raises(KilledError):
            sweep.run()
    assert sweep.checkpoint_steps()[-1] == 30
    tensors = sweep.ledger.checkpoint_path(0, step=30) / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-7])
    assert sweep.run() == [20, 25, 30, 35, 40]
    assert "step_00000030 is damaged" in caplog.text
    assert sweep.weights() == whole.weights()
    assert sweep.stored().steps == whole.stored().steps


def test_with_every_checkpoint_damaged_it_begins_anew(whole, sweep, monkeypatch):
    with monkeypatch.context() as patch:
        killed(patch, RunLog, "report", call=5, after=True)
        with pytest.raises(KilledError):
            sweep.run()
    for step in sweep.checkpoint_steps():
        (sweep.ledger.checkpoint_path(0, step=step) / "manifest.json").unlink()
    assert sweep.run() == STEPS
    assert sweep.weights() == whole.weights()
    assert sweep.stored().steps == whole.stored().steps


def test_time_spent_adds_up_over_attempts(sweep, monkeypatch):
    with monkeypatch.context() as patch:
        killed(patch, RunLog, "report", call=5, after=True)
        with pytest.raises(KilledError):
            sweep.run()
    spent = sweep.ledger.newest_meta(0)["elapsed_seconds"]
    sweep.run()
    assert sweep.ledger.result(0).elapsed_seconds > spent > 0


def test_the_rate_of_a_resumed_trial_counts_its_own_images_alone(sweep, monkeypatch):
    class Clock:
        """A second passes between any two looks at it."""

        time_ns = staticmethod(time.time_ns)
        monotonic = staticmethod(itertools.count().__next__)

    monkeypatch.setattr(trial_module, "time", Clock)
    with monkeypatch.context() as patch:
        killed(patch, RunLog, "report", call=5, after=True)
        with pytest.raises(KilledError):
            sweep.run()
    sweep.run()
    rates = [report[IMAGES_PER_SECOND] for report in sweep.ledger.history(0)]
    assert rates == [5 * 2 * 30] * len(STEPS)


def give_scores(monkeypatch: pytest.MonkeyPatch, *given: float) -> None:
    """Let the scores be these, one after the other."""
    score, values = validation_module.score_samples, iter(given)

    def scripted(*args: Any, **settings: Any) -> ParzenScore:
        scored = score(*args, **settings)
        return replace(scored, log_likelihood=torch.full((100,), next(values)))

    monkeypatch.setattr(validation_module, "score_samples", scripted)


def test_killed_before_its_best_checkpoint_was_uploaded_it_uploads_it_later(sweep, monkeypatch):
    give_scores(monkeypatch, 9.0, 1.0, 2.0, 3.0)
    with monkeypatch.context() as patch:
        killed(patch, RunLog, "artifact", call=1, after=False)
        with pytest.raises(KilledError):
            sweep.run()
    sweep.run()
    checkpoints = sweep.stored().artifacts / "checkpoints"
    assert load_checkpoint(checkpoints / "best").step == 10
    assert load_checkpoint(checkpoints / "last").step == 40


def test_the_newest_checkpoints_and_the_best_one_are_kept(new_sweep, monkeypatch):
    sweep = new_sweep("evaluation.keep_checkpoints=2", "train.n_steps=60")
    give_scores(monkeypatch, 1.0, 9.0, 2.0, 3.0, 4.0, 5.0)
    kept = {}
    for report in run_trial(sweep.spec()):
        kept[int(report["step"])] = sweep.checkpoint_steps()
    assert kept[20] == [10, 20]
    assert kept[30] == [20, 30]
    assert kept[50] == [20, 40, 50]
    assert kept[60] == [20, 50, 60]
    assert sweep.ledger.result(0).best["step"] == 20
    checkpoints = sweep.stored().artifacts / "checkpoints"
    assert load_checkpoint(checkpoints / "best").step == 20
    assert load_checkpoint(checkpoints / "last").step == 60


def give_distances(monkeypatch: pytest.MonkeyPatch, *given: float) -> None:
    """Let the distances be these, one after the other."""
    values = iter(given)

    def scripted(samples: torch.Tensor, validation: Any) -> dict[str, float]:
        assert samples.shape == (100, 1, 8, 8)
        return {DISTANCE: next(values), f"{DISTANCE}_se": 0.5}

    monkeypatch.setattr(validation_module, "feature_scores", scripted)


@pytest.mark.parametrize(("objective", "best"), [(DISTANCE, 20), (PARZEN_LL_VALID, 10)])
def test_the_best_checkpoint_goes_by_the_objective(new_sweep, monkeypatch, objective, best):
    sweep = new_sweep(f"sweep.objective={objective}", "evaluation.keep_checkpoints=1")
    give_distances(monkeypatch, 70.0, 30.0, 50.0, 40.0)
    give_scores(monkeypatch, 320.0, 100.0, 200.0, 150.0)
    sweep.run()
    result = sweep.ledger.result(0)
    assert [result.objective, result.best["step"]] == [objective, best]
    assert [r[DISTANCE] for r in result.history if DISTANCE in r] == [70.0, 30.0, 50.0, 40.0]
    assert sweep.checkpoint_steps() == [best, 40]
    run = sweep.stored()
    assert load_checkpoint(run.artifacts / "checkpoints" / "best").step == best
    assert run.steps[DISTANCE] == run.steps[PARZEN_LL_VALID] == SCORED


def test_a_trial_killed_and_gone_on_with_keeps_its_smallest_distance(new_sweep, monkeypatch):
    sweep = new_sweep(f"sweep.objective={DISTANCE}", "evaluation.keep_checkpoints=1")
    give_distances(monkeypatch, 30.0, 70.0, 50.0, 40.0)
    with monkeypatch.context() as patch:
        killed(patch, trial_module, "save_checkpoint", call=2, after=True)
        with pytest.raises(KilledError):
            sweep.run()
    sweep.run()
    assert sweep.checkpoint_steps() == [10, 40]
    checkpoints = sweep.stored().artifacts / "checkpoints"
    assert load_checkpoint(checkpoints / "best").step == 10


# Failing


@pytest.mark.parametrize(
    ("scores", "cause"),
    [
        (
            {},
            f"{DISTANCE} needs the score {DISTANCE}, which was not taken; taken: parzen_ll_valid",
        ),
        ({DISTANCE: 5.0}, f"{DISTANCE} needs the score {DISTANCE}_se, which was not taken"),
        ({DISTANCE: float("nan"), f"{DISTANCE}_se": 1.0}, f"{DISTANCE} must be finite, got nan"),
    ],
)
def test_a_trial_that_is_not_scored_by_the_objective_fails_and_is_not_tried_again(
    new_sweep, monkeypatch, scores, cause
):
    sweep = new_sweep(f"sweep.objective={DISTANCE}")
    monkeypatch.setattr(validation_module, "feature_scores", lambda samples, validation: scores)
    assert sweep.run() == [5]
    result = sweep.ledger.result(0)
    assert [result.status, result.is_final, result.best] == ["failed", True, None]
    assert cause in result.cause


def test_a_diverging_trial_is_recorded_with_its_cause_and_not_tried_again(sweep):
    steps = sweep.run(overrides={"train.learning_rate": 1e6, "train.d_steps": 1})
    assert 40 not in steps
    result = sweep.ledger.result(0)
    assert [result.status, result.is_final] == ["failed", True]
    assert "losses must be finite" in result.cause
    assert "\n" not in result.cause
    run = sweep.stored()
    assert [run.status, run.tags["gan.cause"]] == ["FAILED", result.cause]


def test_a_trial_whose_samples_are_no_numbers_any_more_is_not_tried_again(sweep, monkeypatch):
    """The losses of the step before can still be finite."""
    state = Run.saved

    def overflown(run: Any) -> Any:
        for parameter in run.gan.G.parameters():
            parameter.data.fill_(torch.nan)
        return state(run)

    monkeypatch.setattr(Run, "saved", overflown)
    assert sweep.run() == [5]
    result = sweep.ledger.result(0)
    assert [result.status, result.is_final] == ["failed", True]
    assert result.cause == "samples must be finite, got NaN or infinity in 100 of 100 rows"


def test_a_batch_larger_than_the_data_set_is_not_tried_again(sweep):
    assert sweep.run(overrides={"train.batch_size": 201}) == []
    result = sweep.ledger.result(0)
    assert [result.status, result.is_final] == ["failed", True]
    assert result.cause == "batch_size must be at most the 200 training images, got 201"


def test_a_trial_without_images_may_find_them_on_another_machine(sweep, tmp_path):
    with pytest.raises(DatasetError, match=r"none\.npz"):
        sweep.run(overrides={"data.dataset": str(tmp_path / "none.npz")})
    assert sweep.ledger.result(0) is None
    run = sweep.stored()
    assert run.status == "FAILED"
    assert "none.npz" in run.tags["gan.cause"]


def test_a_trial_does_not_train_on_other_images_than_its_sweep(sweep):
    spec = replace(sweep.spec(), tags={"gan.data_digest": "of other images"})
    with pytest.raises(TuningError, match="is not the file the sweep began with"):
        next(run_trial(spec))
    assert sweep.ledger.result(0) is None


def test_a_failure_that_may_pass_is_raised_and_the_next_attempt_goes_on(whole, sweep, monkeypatch):
    save = trial_module.save_checkpoint

    def full_disk(folder: Path, *, step: int, **state: Any) -> Path:
        if step == 30:
            raise CheckpointError("checkpoint could not be written: No space left on device")
        return save(folder, step=step, **state)

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "save_checkpoint", full_disk)
        with pytest.raises(CheckpointError, match="No space left"):
            sweep.run()
    assert sweep.ledger.result(0) is None
    run = sweep.stored()
    assert run.status == "FAILED"
    assert run.tags["gan.cause"].startswith("CheckpointError: checkpoint could not be written")

    assert sweep.run()[0] == 20
    assert sweep.weights() == whole.weights()
    run = sweep.stored()
    assert run.status == "FINISHED"
    assert "gan.cause" not in run.tags
    assert run.steps == whole.stored().steps


# Being stopped


def stop_after(sweep: Sweep, step: int) -> None:
    reports = run_trial(sweep.spec())
    for report in reports:
        if report["step"] == step:
            reports.close()
            return


def test_a_trial_that_its_scheduler_stops_is_finished_early(sweep):
    sweep.ledger.propose(0, {})
    sweep.ledger.mark_stopped(0)
    stop_after(sweep, 20)
    result = sweep.ledger.result(0)
    assert [result.status, result.cause, result.step] == ["stopped", "asha", 20]
    run = sweep.stored()
    assert [run.status, run.tags["gan.stopped_early"]] == ["FINISHED", "asha"]
    assert "gan.cause" not in run.tags


def test_a_trial_whose_time_is_over_says_so(sweep):
    sweep.ledger.folder.mkdir()
    sweep.ledger.expiry.touch()
    stop_after(sweep, 25)
    result = sweep.ledger.result(0)
    assert [result.status, result.cause, result.step] == ["stopped", "time budget", 25]
    assert sweep.stored().tags["gan.stopped_early"] == "time budget"


def test_a_trial_whose_time_is_over_goes_on_from_there_when_it_gets_more(whole, sweep):
    sweep.ledger.folder.mkdir()
    sweep.ledger.expire(60.0)
    stop_after(sweep, 25)
    assert sweep.ledger.result(0).is_reopened
    sweep.ledger.begin()
    sweep.ledger.forget_result(0)
    assert sweep.run() == [25, 30, 35, 40]
    assert sweep.weights() == whole.weights()
    run = sweep.stored()
    assert [run.status, run.tags.get("gan.stopped_early")] == ["FINISHED", None]
    assert run.steps == whole.stored().steps


def test_a_damaged_best_checkpoint_of_a_later_step_does_not_outlive_those_of_the_trial(
    new_sweep, monkeypatch
):
    sweep = new_sweep("evaluation.keep_checkpoints=1")
    stop_after(sweep, 30)
    (newest,) = [p for p in list_checkpoints(sweep.ledger.trial_folder(0) / "checkpoints")][-1:]
    damaged = newest.with_name("step_00000035")
    newest.rename(damaged)
    (damaged / "state.safetensors").write_bytes(b"")
    sweep.run()
    assert 35 not in sweep.checkpoint_steps()
    assert 40 in sweep.checkpoint_steps()


def test_an_interrupted_trial_is_left_to_be_resumed(whole, sweep):
    sweep.ledger.folder.mkdir()
    sweep.ledger.interruption.touch()
    stop_after(sweep, 25)
    assert sweep.ledger.result(0) is None
    run = sweep.stored()
    assert [run.status, run.tags["gan.cause"]] == ["KILLED", "interrupted"]

    sweep.ledger.interruption.unlink()
    assert sweep.run() == [25, 30, 35, 40]  # not a step of what was done is done again
    assert sweep.weights() == whole.weights()
    run = sweep.stored()
    assert run.status == "FINISHED"
    assert "gan.cause" not in run.tags
    assert run.steps == whole.stored().steps


@pytest.mark.parametrize("file", ["interruption", "expiry"])
def test_a_trial_that_is_stopped_at_its_last_step_has_finished(sweep, file):
    sweep.ledger.folder.mkdir()
    getattr(sweep.ledger, file).touch()
    stop_after(sweep, 40)
    result = sweep.ledger.result(0)
    assert [result.status, result.cause] == ["finished", None]
    assert sweep.stored().status == "FINISHED"


def test_a_trial_that_is_stopped_for_no_known_reason_is_left_to_be_resumed(sweep):
    stop_after(sweep, 25)
    assert sweep.ledger.result(0) is None
    assert sweep.stored().status == "KILLED"


def test_ctrl_c_in_the_middle_of_a_step_leaves_it_to_be_resumed(whole, sweep, monkeypatch):
    def ctrl_c(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(validation_module, "score_samples", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            sweep.run()
    assert sweep.ledger.result(0) is None
    run = sweep.stored()
    assert [run.status, run.tags["gan.cause"]] == ["KILLED", "interrupted"]
    sweep.run()
    assert sweep.weights() == whole.weights()


def test_while_a_trial_runs_no_other_process_may(sweep):
    reports = run_trial(sweep.spec())
    next(reports)
    with (
        pytest.raises(TuningError, match="trial 0 of tiny is being run by another process"),
        sweep.ledger.writing(0, patience_seconds=0),
    ):
        pass
    reports.close()
    with sweep.ledger.writing(0, patience_seconds=0):
        pass


# Ended by the driver


def kill_at_report(sweep: Sweep, call: int) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):  # noqa: PT012
        killed(patch, RunLog, "report", call=call, after=True)
        sweep.run()


def test_the_driver_records_a_trial_whose_worker_died_for_the_last_time(sweep):
    kill_at_report(sweep, 5)
    end_trial(sweep.spec(), error="the worker died")
    result = sweep.ledger.result(0)
    assert [result.status, result.cause, result.is_final] == ["failed", "the worker died", False]
    assert [report["step"] for report in result.history] == STEPS[:4]
    run = sweep.stored()
    assert [run.status, run.tags["gan.cause"]] == ["FAILED", "the worker died"]
    assert run.steps[D_LOSS] == STEPS[:5]


def test_the_driver_records_a_trial_that_was_stopped_and_did_not_live_to_say_so(sweep):
    kill_at_report(sweep, 5)
    sweep.ledger.mark_stopped(0)
    end_trial(sweep.spec(), error=None)
    result = sweep.ledger.result(0)
    assert [result.status, result.cause, result.step] == ["stopped", "asha", 20]
    assert sweep.stored().status == "FINISHED"


def test_the_driver_leaves_a_stopped_trial_without_a_checkpoint_to_be_run(sweep):
    kill_at_report(sweep, 1)
    end_trial(sweep.spec(), error=None)
    assert sweep.ledger.result(0) is None
    assert sweep.run() == STEPS


# Kept elsewhere


@pytest.fixture
def elsewhere(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep whose original no worker sees as a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    sweep.location = f"file://{tmp_path}/original/tiny"
    sweep.ledger = open_ledger(sweep.location, role="driver")
    sweep.ledger.take_over()
    return sweep


def on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))


def test_a_trial_kept_elsewhere_is_the_same_trial(whole, elsewhere, tmp_path):
    assert elsewhere.run() == STEPS
    elsewhere.ledger.refresh()
    assert elsewhere.history() == whole.history()
    best = elsewhere.ledger.result(0).best
    assert load_checkpoint(elsewhere.ledger.checkpoint_path(0, step=int(best["step"])))
    assert elsewhere.stored().status == "FINISHED"
    left = (tmp_path / "machine" / "adversarial-nets" / "worker").rglob("step_*")
    assert list(left) == []


def test_it_goes_on_on_another_machine_bit_for_bit(whole, elsewhere, tmp_path, monkeypatch):
    kill_at_report(elsewhere, 5)
    on_another_machine(tmp_path, monkeypatch)
    assert elsewhere.run() == STEPS[3:]
    elsewhere.ledger.refresh()
    assert elsewhere.history() == whole.history()
    elsewhere.ledger.checkpoint_path(0, step=40)
    assert elsewhere.weights() == whole.weights()
    assert elsewhere.stored().steps[D_LOSS] == STEPS


@pytest.mark.slow
def test_what_could_not_be_logged_there_is_logged_from_another(
    whole, elsewhere, dead, tmp_path, monkeypatch
):
    alive, elsewhere.uri = elsewhere.uri, dead
    kill_at_report(elsewhere, 5)
    on_another_machine(tmp_path, monkeypatch)
    elsewhere.uri = alive
    assert elsewhere.run() == STEPS[3:]
    assert elsewhere.stored().steps == whole.stored().steps


def test_what_it_starts_from_comes_along(new_sweep, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    start = tmp_path / "starts" / "of-this-digest"
    start.mkdir(parents=True)
    newest = load_checkpoint(whole.ledger.trial_folder(0) / "checkpoints" / "step_00000040")
    generator = from_state(newest.tensors, whole.config.base, image_shape=(1, 8, 8))
    save(start, generator)
    sweep = new_sweep(
        'base.inference={"hidden": [8]}',
        f"base.start={start}",
        "sweep.objective=reconstruction_error_valid",
        "sweep.space={}",
    )
    sweep.location = f"file://{tmp_path}/original/tiny"
    sweep.ledger = open_ledger(sweep.location, role="driver")
    sweep.ledger.take_over()
    sweep.ledger.provide(START, start)
    start.rename(tmp_path / "not-on-the-other-machine")
    assert sweep.run(overrides={}) == STEPS
    path = sweep.ledger.checkpoint_path(0, step=40)
    net = from_state(load_checkpoint(path).tensors, sweep.config.base, image_shape=(1, 8, 8))
    kept = {name[2:]: t for name, t in net.tensors().items() if name.startswith("G.")}
    assert kept
    assert all(torch.equal(t, generator.tensors()[name]) for name, t in kept.items())


def test_a_worker_of_a_driver_that_was_replaced_keeps_nothing_more(elsewhere, tmp_path):
    spec = elsewhere.spec()
    reports = run_trial(spec)
    assert [int(next(reports)["step"]) for _ in range(2)] == STEPS[:2]
    open_ledger(elsewhere.location, role="driver").take_over()
    assert len(list(reports)) < len(STEPS) - 2
    assert list(run_trial(spec)) == []
    kept = tmp_path / "original" / "tiny" / "trials" / "0000" / "checkpoints"
    assert [path.name for path in list_checkpoints(kept)] == ["step_00000010"]
    assert elsewhere.stored().status == "RUNNING"  # for the other to close


def test_a_worker_elsewhere_knows_why_it_is_stopped(elsewhere):
    elsewhere.ledger.propose(0, {})
    worker = open_ledger(elsewhere.location, driver=elsewhere.ledger.driver)
    with worker.writing(0):
        pass
    worker.trial_folder(0).mkdir(parents=True, exist_ok=True)
    elsewhere.ledger.expire(60.0)
    assert worker.stop_cause(0) == "time budget"
    elsewhere.ledger.interrupt()
    assert worker.stop_cause(0) == "interrupted"
    elsewhere.ledger.begin()
    elsewhere.ledger.mark_stopped(0)
    assert worker.stop_cause(0) == "asha"


# Without MLflow


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of a store that does not answer."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.slow
def test_a_dead_store_does_not_stop_training_and_gets_everything_later(whole, sweep, dead, caplog):
    caplog.set_level(logging.WARNING, logger="tuning")
    alive, sweep.uri = sweep.uri, dead
    assert sweep.run() == STEPS
    result = sweep.ledger.result(0)
    assert [result.status, result.run_id] == ["finished", ""]
    assert sweep.history() == whole.history()
    assert caplog.text.count("the run goes on, its log waits") == 1
    assert stored_runs(sweep.folder / "mlflow.db", kind="trial") == []

    assert deliver(alive, sweep.ledger.trial_folder(0) / "outbox").n_waiting == 0
    run = sweep.stored()
    assert run.status == "FINISHED"
    assert run.steps == whole.stored().steps
    assert run.grid_steps == SCORED
    assert load_checkpoint(run.artifacts / "checkpoints" / "last").step == 40


@pytest.mark.slow
def test_nor_does_an_outbox_that_cannot_be_written(whole, sweep, dead, caplog):
    sweep.uri = dead
    outbox = sweep.ledger.trial_folder(0) / "outbox"
    outbox.parent.mkdir(parents=True)
    outbox.touch()
    assert sweep.run() == STEPS
    assert sweep.weights() == whole.weights()
    assert sweep.ledger.result(0).status == "finished"
    assert caplog.text.count(f"{outbox} cannot be written: File exists; the run goes on") == 1
