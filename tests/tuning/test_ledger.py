"""The sweep's folder: one writer, one configuration, readable after any crash."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gan import files as files_module
from gan.checkpoint import save_checkpoint
from gan.files import write_atomically
from tests.tuning.tiny_sweeps import a_result, scores, tiny_config
from tuning import ledger as ledger_module
from tuning.errors import TuningError
from tuning.ledger import Ledger, trial_run

ROOT = Path(__file__).parents[2]
PARZEN, DISTANCE = "parzen_ll_valid", "frechet_distance_valid"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "sweeps" / "tiny-1a2b3c4d")


@pytest.fixture
def holder(ledger: Ledger):
    """Another process, in a `with` over what it is given; killed at the end of the test."""
    processes = []

    def hold(context: str) -> subprocess.Popen[str]:
        code = (
            "import time, pathlib, tuning.ledger\n"
            f"ledger = tuning.ledger.Ledger(pathlib.Path({str(ledger.folder)!r}))\n"
            f"with ledger.{context}:\n"
            "    print('held', flush=True)\n"
            "    time.sleep(600)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_configuration_comes_back_as_it_was(ledger):
    config = tiny_config("images.npz", n_trials=7)
    ledger.open(config)
    assert Ledger(ledger.folder).config() == config
    ledger.open(config)


def test_a_folder_with_another_configuration_is_refused(ledger):
    ledger.open(tiny_config("images.npz"))
    before = (ledger.folder / "sweep.json").read_bytes()
    with pytest.raises(TuningError, match=r"another configuration: .*--resume tiny-1a2b3c4d"):
        ledger.open(tiny_config("images.npz", "train.n_steps=50"))
    assert (ledger.folder / "sweep.json").read_bytes() == before


@pytest.mark.parametrize("content", [None, "", "{", '{"base": {"seed": -1}}', '{"x": 1}'])
def test_a_folder_without_a_sweep_says_so(ledger, content):
    if content is not None:
        ledger.folder.mkdir(parents=True)
        (ledger.folder / "sweep.json").write_text(content)
    with pytest.raises(TuningError, match="tiny-1a2b3c4d holds no sweep: ") as caught:
        ledger.config()
    assert "\n" not in str(caught.value)


def test_two_processes_cannot_run_one_sweep(ledger, holder):
    other = holder("lock()")
    with (
        pytest.raises(TuningError, match="sweep tiny-1a2b3c4d is being run by another process"),
        ledger.lock(),
    ):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    with ledger.lock():
        pass


@pytest.mark.slow
def test_a_trial_waits_for_the_process_that_still_writes_it(ledger, holder):
    other = holder("writing(3)")
    with ledger.writing(4):
        pass
    with (
        pytest.raises(TuningError, match="trial 3 of tiny-1a2b3c4d is being run by another"),
        ledger.writing(3, patience_seconds=0.3),
    ):
        pass
    # The shell kills it while this process waits.
    with subprocess.Popen(["/bin/sh", "-c", f"sleep 0.5; kill -9 {other.pid}"]):
        with ledger.writing(3, patience_seconds=60):
            pass
        assert other.wait() == -signal.SIGKILL


def test_a_file_system_without_locks_is_named(ledger, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files_module, "flock", refuse)
    with (
        pytest.raises(TuningError, match="could not be locked: No locks available"),
        ledger.lock(),
    ):
        pass


def test_a_place_that_is_no_folder_is_named(ledger):
    ledger.folder.parent.mkdir()
    ledger.folder.write_text("a file")
    with pytest.raises(TuningError, match=r"lock could not be written: "), ledger.lock():
        pass
    with pytest.raises(TuningError, match=r"sweep\.json could not be written: "):
        ledger.open(tiny_config("images.npz"))


def test_a_full_disk_is_one_line_and_leaves_what_was_there(ledger, monkeypatch):
    ledger.propose(0, {})
    ledger.write_result(a_result(0))

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(TuningError, match=r"result\.json could not be written: No space left"):
        ledger.write_result(a_result(0, run_id="other"))
    monkeypatch.undo()
    assert ledger.result(0).run_id == "run0"
    assert sorted(p.name for p in ledger.trial_folder(0).iterdir()) == [
        "result.json",
        "trial.json",
    ]


def test_results_come_back_as_they_were(ledger):
    results = [
        a_result(0, overrides={"generator.hidden": [16, 16], "generator.init_range": None}),
        a_result(1, status="failed", cause="ünklar", is_final=False, run_id="", history=[]),
        a_result(2, elapsed_seconds=0.1 + 0.2, history=scores(10, [1 / 3, -1e300])),
    ]
    for result in results:
        ledger.propose(result.trial, result.overrides)
        ledger.write_result(result)
    assert Ledger(ledger.folder).results() == results
    assert ledger.proposals() == {r.trial: r.overrides for r in results}
    assert ledger.result(3) is None


def test_trials_are_in_the_order_of_their_index(ledger):
    for index in range(10_010, 9_990, -1):
        ledger.propose(index, {"seed": index})
        ledger.write_result(a_result(index))
    assert list(ledger.proposals()) == list(range(9_991, 10_011))
    assert [result.trial for result in ledger.results()] == list(range(9_991, 10_011))


def test_a_failure_that_is_forgotten_is_still_to_be_done(ledger):
    ledger.propose(0, {})
    ledger.write_result(a_result(0, status="failed"))
    ledger.forget_result(0)
    assert ledger.results() == []
    assert ledger.proposals() == {0: {}}


@pytest.mark.parametrize("n_writes", range(6))
def test_a_crash_between_any_two_files_leaves_a_readable_ledger(ledger, monkeypatch, n_writes):
    """What a process does to the folder, cut short after so many files."""
    config = tiny_config("images.npz")
    done = []

    def write_until_killed(path: Path, content: str) -> None:
        if len(done) == n_writes:
            path.with_name(f".{path.name}.half").write_text(content[:5])
            raise KeyboardInterrupt
        done.append(path.name)
        write_atomically(path, content)

    monkeypatch.setattr(ledger_module, "write_atomically", write_until_killed)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the crash comes anywhere
        ledger.open(config)
        ledger.key()
        for index in range(3):
            ledger.propose(index, {"seed": index})
            ledger.write_result(a_result(index))
    monkeypatch.undo()

    again = Ledger(ledger.folder)
    again.open(config)
    assert again.config() == config
    assert len(again.proposals()) == done.count("trial.json")
    assert len(again.results()) == done.count("result.json")
    assert again.key() == again.key()


def test_an_unfinished_trial_has_the_history_of_its_newest_readable_checkpoint(ledger):
    checkpoints = ledger.trial_folder(0) / "checkpoints"
    ledger.propose(0, {})
    assert ledger.history(0) == []
    for n in (1, 2, 3):
        meta = {"history": scores(10, [1.0] * n), "elapsed_seconds": float(n)}
        save_checkpoint(checkpoints, step=10 * n, tensors={}, meta=meta)
    assert ledger.newest_meta(0) == {"history": scores(10, [1.0] * 3), "elapsed_seconds": 3.0}
    (checkpoints / "step_00000030" / "state.json").write_text('{"history": [')
    assert ledger.history(0) == scores(10, [1.0] * 2)
    (checkpoints / "step_00000020" / "state.json").unlink()
    assert ledger.history(0) == scores(10, [1.0])
    ledger.write_result(a_result(0, history=scores(10, [7.0])))
    assert ledger.history(0) == scores(10, [7.0])


def test_a_sweep_is_told_from_another_of_the_same_name(ledger, tmp_path):
    twin = Ledger(tmp_path / "elsewhere" / ledger.name)
    assert ledger.key() != twin.key()
    assert ledger.key() == Ledger(ledger.folder).key()
    assert ledger.key().startswith("tiny-1a2b3c4d-")


def test_why_a_trial_is_stopped_is_read_from_the_folder(ledger):
    for index in (0, 1):
        ledger.propose(index, {})
    assert ledger.stop_cause(0) == "interrupted"  # for want of another reason
    ledger.expiry.touch()
    assert ledger.stop_cause(0) == "time budget"
    ledger.interruption.touch()
    assert ledger.stop_cause(0) == "interrupted"
    ledger.mark_stopped(1)
    assert [ledger.stop_cause(index) for index in (0, 1)] == ["interrupted", "asha"]
    files = sorted(path.name for path in ledger.folder.iterdir())
    assert files == ["expired", "interrupted", "trials"]


def test_each_trial_has_a_seed_of_its_own():
    config = tiny_config("images.npz", "seed=5")
    runs = [trial_run(config, index, {"train.d_steps": 2}) for index in range(3)]
    assert [run.seed for run in runs] == [5, 6, 7]
    assert {run.train.d_steps for run in runs} == {2}
    assert trial_run(config, 1, {"seed": 99}).seed == 99


def test_a_result_is_json_that_others_can_read(ledger):
    ledger.write_result(a_result(0))
    content = json.loads((ledger.trial_folder(0) / "result.json").read_text())
    assert content["status"] == "finished"
    assert content["history"][0]["parzen_ll_valid"] == 0.0


def test_settings_on_which_no_result_depends_may_change(ledger):
    ledger.open(tiny_config("images.npz", time_budget_seconds=1.0))
    more = tiny_config("images.npz", "evaluation.chunk=7", time_budget_seconds=9.0, max_retries=5)
    ledger.open(more)
    assert ledger.config() == more
    with pytest.raises(TuningError, match="another configuration"):
        ledger.open(tiny_config("images.npz", n_trials=99))


def test_a_sweep_by_another_objective_is_another_one(ledger):
    ledger.open(tiny_config("images.npz", objective=PARZEN))
    with pytest.raises(TuningError, match="another configuration"):
        ledger.open(tiny_config("images.npz", objective=DISTANCE))


@pytest.mark.parametrize(("objective", "step"), [(PARZEN, 10), (DISTANCE, 20)])
def test_the_best_report_of_a_result_that_is_read_again_is_that_of_its_objective(
    ledger, objective, step
):
    history = [
        {"step": 10, PARZEN: 320.0, DISTANCE: 90.0},
        {"step": 20, PARZEN: 220.0, DISTANCE: 5.0},
    ]
    ledger.write_result(a_result(0, objective=objective, history=history))
    assert ledger.result(0).best["step"] == step


def test_of_a_run_that_is_scored_by_what_it_learns_from_the_last_report_counts(ledger):
    history = [{"step": 10, "few_labels_nats": 0.1}, {"step": 20, "few_labels_nats": 0.2}]
    ledger.write_result(a_result(0, objective="few_labels_nats", history=history))
    assert ledger.result(0).best["step"] == 20
