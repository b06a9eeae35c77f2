"""Whole sweeps on a real local Ray cluster: complete, exact after any death, true in MLflow.

The tests that run sweeps one after the other share a cluster; those that kill a driver give it a
process, and so a cluster, of its own.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gan.checkpoint import save_checkpoint
from gan.config import PipelineConfig, to_dict
from gan.errors import ConfigError, DatasetError
from gan.metric_names import D_LOSS, PARZEN_LL_VALID
from tests.tuning.stored_runs import StoredRun, stored_runs
from tests.tuning.tiny_sweeps import a_result, scores, tiny_config, write_images
from tuning import cluster, tune_parts
from tuning import sweep as sweep_module
from tuning.errors import ReplacedError, TrackingError, TuningError
from tuning.ledger import Ledger, open_ledger
from tuning.results import best_trial
from tuning.sweep import TrialNews, check_sweep, planned_trials, run_sweep

pytestmark = [pytest.mark.ray, pytest.mark.mlflow]

ROOT = Path(__file__).parents[2]
LONG = ("train.n_steps=200", "evaluation.score_every=20")
"""Trials that last long enough to be killed in the middle."""
STEPS = list(range(5, 201, 5))


@dataclass
class Place:
    """A working folder with an MLflow store, in which one sweep is run, perhaps many times."""

    folder: Path
    config: PipelineConfig
    news: list[TrialNews] = field(default_factory=list)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "runs" / "tiny")

    def run(self, watcher: Callable[[TrialNews], None] | None = None) -> str:
        def watch(news: TrialNews) -> None:
            self.news.append(news)
            if watcher is not None:
                watcher(news)

        return run_sweep(self.config, self.ledger, extractors=self.folder / "nets", watcher=watch)

    def parent(self) -> StoredRun:
        (run,) = stored_runs(self.folder / "mlflow.db", kind="sweep")
        return run

    def children(self) -> list[StoredRun]:
        return stored_runs(self.folder / "mlflow.db", kind="trial")

    def statuses(self) -> list[str]:
        return [run.status for run in self.children()]

    def weights(self) -> list[bytes]:
        """The last tensors of each trial: nets, optimisers and random streams."""
        indices = self.ledger.proposals()
        last = [self.ledger.checkpoint_path(i, step=self.ledger.result(i).step) for i in indices]
        return [(path / "state.safetensors").read_bytes() for path in last]

    def ended(self) -> dict[int, int]:
        """Trials with a result, and when it was written."""
        files = (self.ledger.folder / "trials").glob("*/result.json")
        return {int(file.parent.name): file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@contextmanager
def working_in(folder: Path, tables: Path) -> Iterator[None]:
    (folder / "mlflow.db").write_bytes(tables.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


@pytest.fixture
def place(tmp_path: Path, mlflow_tables: Path, images: Path) -> Iterator[Callable[..., Place]]:
    with working_in(tmp_path, mlflow_tables):
        yield lambda *sets, **sweep: Place(tmp_path, tiny_config(images, *sets, **sweep))


@pytest.fixture(scope="module")
def shared_cluster(home: Path) -> Iterator[None]:
    """A cluster with two CPUs that outlives the sweeps run on it, as in a notebook."""
    with pytest.MonkeyPatch.context() as patch:
        # As in `pip install -e .`: the workers must find the packages.
        patch.setenv("PYTHONPATH", str(ROOT))
        cluster.connect()
        yield
        cluster.disconnect()


@pytest.fixture(scope="module")
def whole(
    shared_cluster: None,
    images: Path,
    mlflow_tables: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Place:
    """A sweep that was never disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    place = Place(folder, tiny_config(images, *LONG))
    with working_in(folder, mlflow_tables):
        assert place.run() == place.parent().run_id
    return place


def assert_complete(place: Place, whole: Place) -> None:
    """Every trial ended as in a sweep that was never disturbed, and MLflow has each step once."""
    assert [result.status for result in place.ledger.results()] == ["finished"] * 4
    assert place.weights() == whole.weights()
    for ours, theirs in zip(place.children(), whole.children(), strict=True):
        assert ours.steps == theirs.steps
        assert ours.steps[D_LOSS] == STEPS
        assert ours.grid_steps == theirs.grid_steps
        assert [ours.status, ours.tags.get("gan.cause")] == ["FINISHED", None]
    assert [place.parent().status, place.parent().tags.get("gan.cause")] == ["FINISHED", None]


# A sweep that nothing disturbs


def test_every_trial_is_on_record(whole):
    results = whole.ledger.results()
    assert [result.trial for result in results] == [0, 1, 2, 3]
    assert [result.status for result in results] == ["finished"] * 4
    assert [result.seed for result in results] == [0, 1, 2, 3]
    assert [[r["step"] for r in result.history] for result in results] == [STEPS] * 4
    assert len({result.best[PARZEN_LL_VALID] for result in results}) == 4


def test_mlflow_shows_a_parent_run_with_its_trials(whole):
    parent, children = whole.parent(), whole.children()
    assert parent.status == "FINISHED"
    assert parent.params["sweep.n_trials"] == "4"
    winner = best_trial(whole.ledger.results())
    assert parent.tags["gan.best_trial"] == str(winner.trial)
    assert parent.tags["gan.best_parzen_ll_valid"] == f"{winner.best[PARZEN_LL_VALID]:.6g}"
    assert [run.tags["gan.trial"] for run in children] == ["0", "1", "2", "3"]
    assert {run.tags["mlflow.parentRunId"] for run in children} == {parent.run_id}
    for run, result in zip(children, whole.ledger.results(), strict=True):
        assert run.run_id == result.run_id
        assert run.status == "FINISHED"
        assert run.steps[D_LOSS] == STEPS
        assert run.params["train.d_steps"] == str(result.overrides["train.d_steps"])
        assert run.params["seed"] == str(result.seed)


def test_the_watcher_hears_of_every_report_and_of_every_end(whole):
    for trial in range(4):
        news = [n for n in whole.news if n.trial == trial]
        assert [n.report["step"] for n in news if not n.has_ended] == STEPS
        assert [n.has_ended for n in news].index(True) == len(news) - 1


def test_actors_are_used_again(whole):
    assert len({news.report["pid"] for news in whole.news}) <= 2


def test_a_sweep_that_is_complete_is_not_run_again_and_needs_no_cluster(whole, monkeypatch):
    before, n_news = whole.ended(), len(whole.news)
    monkeypatch.chdir(whole.folder)
    monkeypatch.setattr(cluster, "connect", lambda: pytest.fail("a cluster was asked for"))
    assert whole.run() == whole.parent().run_id
    assert whole.ended() == before
    assert len(whole.news) == n_news
    assert whole.parent().status == "FINISHED"


# Trials that fail, stop, or lose their worker


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_its_trial_goes_on_in_its_run(
    place, whole, shared_cluster
):
    here = place(*LONG)
    killed = []

    def kill_once(news: TrialNews) -> None:
        if not killed and news.trial == 1 and news.report["step"] >= 50:
            killed.append(news.report["pid"])
            os.kill(int(news.report["pid"]), signal.SIGKILL)

    here.run(kill_once)
    assert len(killed) == 1
    pids = {news.report["pid"] for news in here.news if news.trial == 1}
    assert len(pids) == 2
    steps = [n.report["step"] for n in here.news if n.trial == 1 and n.report["pid"] != killed[0]]
    assert steps[0] >= 40  # from its checkpoint, not from the beginning
    assert_complete(here, whole)


@pytest.mark.slow
def test_a_sweep_in_which_no_trial_has_a_score_fails_in_one_line(place, shared_cluster):
    here = place("train.learning_rate=1e6", n_trials=1, space={})
    with pytest.raises(TuningError, match="no trial of tiny has a score: losses must") as caught:
        here.run()
    assert "\n" not in str(caught.value)
    assert here.statuses() == ["FAILED"]
    assert here.parent().status == "FAILED"
    assert here.parent().tags["gan.cause"] == "no trial has a score"


@pytest.mark.slow
def test_when_its_time_is_over_a_sweep_ends_with_what_it_has(place, shared_cluster, monkeypatch):
    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

    monkeypatch.setattr(tune_parts, "time", Clock)
    sweep = {"n_trials": 9, "cpus_per_trial": 2, "time_budget_seconds": 60.0}
    here = place("train.n_steps=100_000", **sweep)

    def time_passes(news: TrialNews) -> None:
        if news.report["step"] >= 30:
            Clock.now = 61.0

    here.run(time_passes)
    (result,) = here.ledger.results()
    assert [result.trial, result.status, result.cause] == [0, "stopped", "time budget"]
    assert 30 <= result.step < 100_000
    (run,) = here.children()
    assert [run.status, run.tags["gan.stopped_early"]] == ["FINISHED", "time budget"]
    assert here.parent().status == "FINISHED"
    assert here.ledger.spent_seconds() == 60.0


@pytest.mark.slow
def test_trials_that_a_time_budget_stopped_go_on_in_the_next_run(place, shared_cluster, whole):
    here = place(*LONG, time_budget_seconds=1e-3, cpus_per_trial=2)
    with pytest.raises(
        TuningError,
        match=r"no trial of tiny has a score: the time budget of 0.001 s ended the sweep before "
        r"the first score; raise sweep.time_budget_seconds",
    ):
        here.run()
    here.config = place(*LONG, cpus_per_trial=2).config
    here.run()
    assert_complete(here, whole)
    assert here.ledger.spent_seconds() is None


def test_scored_trials_that_wait_when_the_time_is_over_count(place, monkeypatch):
    here = place(time_budget_seconds=60.0)
    (ledger := here.ledger).open(here.config)
    for index in range(3):
        ledger.propose(index, {})
    for index in range(2):
        save_checkpoint(
            ledger.trial_folder(index) / "checkpoints",
            step=20,
            tensors={},
            meta={"history": scores(10, [1.0, 2.0]), "elapsed_seconds": 1.0},
        )
    sweep = an_open_sweep(here.config, ledger)
    sweep._open_store()
    sweep.settle({})
    assert ledger.results() == []
    ledger.expire(60.0)
    sweep.settle({0: sweep_module.TrialEnd(None)})
    results = ledger.results()
    assert [(r.trial, r.status, r.cause, r.step) for r in results] == [
        (0, "stopped", "time budget", 20),
        (1, "stopped", "time budget", 20),
    ]


@pytest.mark.slow
def test_asha_stops_weak_trials_and_diverged_ones_fail_and_both_say_so(
    place, shared_cluster, capsys, caplog
):
    space = {
        "generator.output_bias_from_data": {"choice": [True, False]},
        "train.learning_rate": {"choice": [1e-3, 1e6]},
    }
    # One after the other, so that the good one sets the bar.
    sweep = {"search": "grid", "scheduler": "asha", "grace_steps": 10, "cpus_per_trial": 2}
    here = place(space=space, **sweep)
    here.run()
    results, runs = here.ledger.results(), here.children()
    assert [result.status for result in results] == ["finished", "failed", "stopped", "failed"]
    assert [run.status for run in runs] == ["FINISHED", "FAILED", "FINISHED", "FAILED"]
    assert "losses must be finite" in results[1].cause
    assert runs[1].tags["gan.cause"] == results[1].cause
    assert [results[2].cause, results[2].step] == ["asha", 10]
    assert runs[2].tags["gan.stopped_early"] == "asha"
    assert runs[2].steps[D_LOSS] == [5, 10]
    assert [here.parent().status, here.parent().tags["gan.best_trial"]] == ["FINISHED", "0"]
    assert capsys.readouterr().out == ""
    assert f"trial 1 failed: {results[1].cause}" in caplog.messages


@pytest.mark.slow
def test_a_trial_that_fails_at_every_attempt_is_tried_again_by_the_next_run(
    place, shared_cluster, caplog
):
    here = place(n_trials=1, cpus_per_trial=2, max_retries=1)
    obstacle = here.ledger.trial_folder(0) / "checkpoints"
    obstacle.parent.mkdir(parents=True)
    obstacle.touch()
    with pytest.raises(TuningError, match="no trial of tiny has a score: CheckpointError: check"):
        here.run()
    (result,) = here.ledger.results()
    assert [result.status, result.is_final] == ["failed", False]
    assert result.cause.startswith("CheckpointError: checkpoint ")
    assert [here.statuses(), here.parent().status] == [["FAILED"], "FAILED"]
    assert here.children()[0].tags["gan.cause"] == result.cause
    assert caplog.messages == [
        f"trial 0 failed: {result.cause}; retry 1 of 1 from step 0",
        f"trial 0 failed: {result.cause}",
    ]

    obstacle.unlink()
    here.run()
    assert [result.status for result in here.ledger.results()] == ["finished"]
    (run,) = here.children()
    assert [run.status, run.tags.get("gan.cause")] == ["FINISHED", None]
    assert run.steps[D_LOSS] == [5, 10, 15, 20, 25, 30, 35, 40]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            'Traceback:\n  File "a.py", line 1\ngan.errors.CheckpointError: full',
            "CheckpointError: full",
        ),
        ("ValueError: a.b must be 1, got 2\n", "ValueError: a.b must be 1, got 2"),
        (
            "torch.cuda.OutOfMemoryError: tried 1.5 GiB: none",
            "OutOfMemoryError: tried 1.5 GiB: none",
        ),
        ("asyncio.exceptions.CancelledError", "CancelledError"),
        ("gan.txt is missing", "gan.txt is missing"),
        (
            "The actor died.\n\tpid: 1\nIts worker has died. Worker exit type: X Worker exit: Y",
            "Its worker has died.",
        ),
        ("", ""),
    ],
)
def test_the_reason_of_an_error_is_one_line(error, line):
    assert sweep_module.one_line(error) == line


# What is refused


def test_a_cluster_that_runs_is_let_through(shared_cluster):
    import ray

    cluster._knock(ray.get_runtime_context().gcs_address)


def test_a_trial_that_no_node_can_hold_is_refused_at_once(place, shared_cluster):
    here = place(cpus_per_trial=64)
    message = r"no node of the cluster has the 64 CPUs and 0 GPUs of one trial \(sweep.cpus_per"
    with pytest.raises(TuningError, match=message):
        here.run()
    assert here.parent().status == "FAILED"
    assert here.parent().tags["gan.cause"].startswith("TuningError: no node of the cluster")
    assert here.children() == []


@pytest.mark.parametrize(
    ("objective", "mode", "tags"),
    [
        (
            "parzen_ll_valid",
            "max",
            {"gan.best_trial": "0", "gan.best_parzen_ll_valid": "320"},
        ),
        (
            "frechet_distance_valid",
            "min",
            {"gan.best_trial": "1", "gan.best_frechet_distance_valid": "0.00512346"},
        ),
    ],
)
def test_the_objective_reaches_the_workers_the_scheduler_and_mlflow(
    tmp_path, monkeypatch, objective, mode, tags
):
    config = tiny_config("images.npz", objective=objective, scheduler="asha")
    ledger = Ledger(tmp_path / "tiny")
    sweep = an_open_sweep(config, ledger)
    assert sweep._worker_spec(0, {})["objective"] == objective
    scheduler = sweep._scheduler()
    assert [scheduler.metric, scheduler._mode] == [objective, mode]
    for index, (parzen, distance) in enumerate([(320.0, 90.0), (220.0, 0.005123456)]):
        history = [{"step": 5, "parzen_ll_valid": parzen, "frechet_distance_valid": distance}]
        ledger.propose(index, {})
        ledger.write_result(a_result(index, objective=objective, history=history))
    tagged = {}
    monkeypatch.setattr(
        sweep_module, "close_run", lambda uri, run_id, status, *, tags: tagged.update(tags)
    )
    sweep.close("FINISHED")
    assert tagged == tags


def test_a_share_of_a_gpu_that_is_not_there_is_refused_at_once(place, shared_cluster):
    here = place(gpus_per_trial=0.5)
    with pytest.raises(TuningError, match=r"the 1 CPUs and 0.5 GPUs of one trial .*: they have"):
        here.run()
    assert here.parent().status == "FAILED"


NODES = [{"CPU": 2.0}, {"CPU": 4.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 2.0}]


@pytest.mark.parametrize(
    ("cpus", "gpus", "slots"),
    [
        (1, 0, 7),
        (2, 0, 3),
        (3, 0, 1),
        (0.1, 0, 70),
        (1, 1, 2),
        (1, 0.5, 3),
        (4, 1, 1),
        (0.5, 0.3, 5),
    ],
)
def test_trials_are_counted_node_by_node(cpus, gpus, slots, monkeypatch):
    monkeypatch.setattr(cluster, "_nodes", lambda: [{"Resources": node} for node in NODES])
    assert cluster.trial_slots(cpus=cpus, gpus=gpus) == slots


def test_a_share_that_floats_cannot_hold_is_counted_all_the_same(monkeypatch):
    monkeypatch.setattr(cluster, "_nodes", lambda: [{"Resources": {"CPU": 7.0}}])
    assert cluster.trial_slots(cpus=0.07, gpus=0) == 100  # 7 / 0.07 is a little less


@pytest.mark.parametrize(("cpus", "gpus"), [(5, 0), (2, 2), (1, 3), (4.5, 0.1)])
def test_what_the_cluster_has_only_in_all_is_not_enough(cpus, gpus, monkeypatch):
    monkeypatch.setattr(cluster, "_nodes", lambda: [{"Resources": node} for node in NODES])
    with pytest.raises(TuningError, match="they have 2 and 0; 4 and 1; 1 and 2"):
        cluster.trial_slots(cpus=cpus, gpus=gpus)


def test_machines_that_are_still_joining_are_waited_for(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    seen = iter([[], [{"Resources": {"CPU": 0.0}}], [{"Resources": {"CPU": 4.0}}]])
    monkeypatch.setattr(cluster, "_nodes", lambda: next(seen))
    assert cluster.trial_slots(cpus=1, gpus=0) == 4


@pytest.mark.parametrize(
    ("uri", "is_in_storage", "missing"),
    [
        ("sqlite:///mlflow.db", True, "MLFLOW_TRACKING_URI"),
        ("http://mlflow:5000", False, "GAN_STORAGE_URI"),
        ("sqlite:///mlflow.db", False, "GAN_STORAGE_URI and MLFLOW_TRACKING_URI"),
    ],
)
def test_a_job_keeps_nothing_in_its_own_folder(monkeypatch, uri, is_in_storage, missing):
    cluster.require_lasting(uri, is_in_storage=is_in_storage)  # no job
    monkeypatch.setenv("GAN_JOB", "gan-tiny-1a2b3c4d")
    cluster.require_lasting("http://mlflow:5000", is_in_storage=True)
    with pytest.raises(TuningError, match=f"which removes it: set {missing} on the cluster's"):
        cluster.require_lasting(uri, is_in_storage=is_in_storage)


def test_a_driver_that_is_no_node_is_another_machine(monkeypatch):
    monkeypatch.setattr(cluster, "_nodes", lambda: [{"NodeManagerAddress": "10.0.0.1"}])
    cluster.require_shared_store("sqlite:///mlflow.db")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(TuningError, match="a server that all 2 machines"):
        cluster.require_shared_store("sqlite:///mlflow.db")


def test_several_machines_need_a_store_that_all_reach(monkeypatch):
    def nodes(*addresses: str) -> None:
        found = [{"NodeManagerAddress": address} for address in addresses]
        monkeypatch.setattr(cluster, "_nodes", lambda: found)

    nodes("10.0.0.1", "10.0.0.2", "10.0.0.2")
    cluster.require_shared_store("http://tracker:5000")
    with pytest.raises(TuningError, match="that all 2 machines of the cluster reach, got sqlite:"):
        cluster.require_shared_store("sqlite:////tmp/mlflow.db")
    nodes("10.0.0.1", "10.0.0.1")
    cluster.require_shared_store("sqlite:////tmp/mlflow.db")


def test_a_space_that_does_not_fit_is_refused_before_anything_is_written(place):
    here = place(space={"train.d_step": {"choice": [1]}})
    with pytest.raises(ConfigError, match=r"did you mean train.d_steps\?"):
        here.run()
    assert not here.ledger.folder.exists()


def test_settings_that_are_wrong_together_are_refused_before_anything_is_written(
    place, monkeypatch
):
    def refuse_together(config: PipelineConfig, index: int, overrides: dict[str, Any]) -> None:
        if overrides["train.d_steps"] == 2 and overrides["prior.dim"] == 9:
            raise ConfigError(["2 and 9 do not go together"])

    monkeypatch.setattr(sweep_module, "trial_run", refuse_together)
    space = {"train.d_steps": {"choice": [1, 2]}, "prior.dim": {"choice": [4, 9]}}
    for search in ("grid", "random"):
        here = place(search=search, space=space, n_trials=30)
        with pytest.raises(ConfigError, match="2 and 9 do not go together"):
            here.run()
    assert not here.ledger.folder.exists()


def test_a_device_that_no_trial_would_get_is_refused():
    with pytest.raises(ConfigError, match=r"base.device: cuda takes sweep.gpus_per_trial above 0"):
        check_sweep(tiny_config("x.npz", "device=cuda"))
    check_sweep(tiny_config("x.npz", "device=cuda", gpus_per_trial=0.5))


def test_a_missing_data_file_is_refused_before_anything_is_written(place, tmp_path):
    here = place()
    here.config = tiny_config(tmp_path / "none.npz")
    with pytest.raises(DatasetError, match=r"none.npz.*no such file"):
        here.run()
    assert not here.ledger.folder.exists()


def test_a_sweep_that_another_process_runs_is_refused(place):
    here = place()
    with here.ledger.lock(), pytest.raises(TuningError, match="run by another process"):
        here.run()


def test_a_store_that_cannot_be_used_is_refused(place, shared_cluster, monkeypatch):
    here = place()
    (here.folder / "file").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here.folder}/file/mlflow.db")
    with pytest.raises(TrackingError, match="cannot be used"):
        here.run()
    assert here.ledger.proposals() == {}


@pytest.mark.parametrize(
    ("config", "n_trials"),
    [
        (tiny_config("x.npz", n_trials=7), 7),
        (tiny_config("x.npz", n_trials=1, space={}), 1),
        (tiny_config("x.npz", search="grid", space={"seed": {"choice": [1, 2, 3]}}), 3),
        (tiny_config("x.npz", search="grid", space={}), 1),
    ],
)
def test_the_number_of_trials_is_known_beforehand(config, n_trials):
    assert planned_trials(config) == n_trials


# Drivers that die


class Driver:
    """A sweep in a process of its own, with a cluster of its own."""

    def __init__(self, place: Place) -> None:
        self.place, self.mark = place, uuid4().hex
        code = "from tests.tuning import test_sweep; test_sweep.drive()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=place.folder,
            env=os.environ
            | {
                "PYTHONPATH": str(ROOT),
                "GAN_TEST_MARK": self.mark,
                "GAN_TEST_CONFIG": repr(to_dict(place.config)),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []

    def wait_for(self, trial: int, step: int) -> None:
        """Read its news until a trial has reached a step."""
        while int(self.wait_for_line(f"news {trial} ").split()[2]) < step:
            pass

    def wait_for_line(self, beginning: str) -> str:
        """The next line that begins so."""
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith(beginning):
                return line
        raise AssertionError(f"the driver ended before that: {''.join(self.lines)}")

    def wait(self) -> tuple[int, str]:
        """Its exit status and what it printed, once it has ended."""
        self.lines += self.process.stdout
        return self.process.wait(), "".join(self.lines)

    def descendants(self) -> list[int]:
        """Every process that inherited its environment: all that Ray started."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def wait_until_nothing_is_left(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while left := self.descendants():
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.2)


def an_open_sweep(config: PipelineConfig, ledger: Ledger) -> sweep_module._Sweep:
    nets, space = ledger.folder / "nets", check_sweep(config)
    return sweep_module._Sweep(config, ledger, space, extractors=nets, data_digest="d")


def drive() -> None:
    """Run the sweep of GAN_TEST_CONFIG; a line for each report, and one for how it ended."""
    import ast

    from gan.config import load_config

    config = load_config(ast.literal_eval(os.environ["GAN_TEST_CONFIG"]))

    def watcher(news: TrialNews) -> None:
        print("news", news.trial, int(news.report["step"]), flush=True)  # noqa: T201

    try:
        run_sweep(config, Ledger(Path("runs/tiny")), extractors=Path("nets"), watcher=watcher)
    except TuningError as error:
        print(f"\n{type(error).__name__}: {error}", flush=True)  # noqa: T201
        sys.exit(3)


@pytest.fixture
def driver() -> Iterator[Callable[[Place], Driver]]:
    drivers = []

    def start(place: Place) -> Driver:
        drivers.append(Driver(place))
        return drivers[-1]

    yield start
    for one in drivers:
        for pid in one.descendants():
            os.kill(pid, signal.SIGKILL)
        one.process.wait()
        one.process.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize("moment", [(0, 5), (1, 60), (3, 100)], ids="trial {0[0]}".format)
def test_a_driver_that_is_killed_is_gone_on_with(moment, place, driver, whole):
    here = place(*LONG)
    first = driver(here)
    first.wait_for(*moment)
    first.process.kill()  # its workers live a second or two longer: that must not matter
    first.process.wait()
    ended = here.ended()
    assert here.parent().status == "RUNNING"
    assert len(ended) < 4

    here.run()
    assert here.ended().items() >= ended.items()  # not even written again
    assert not {news.trial for news in here.news} & ended.keys()
    assert_complete(here, whole)


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["ctrl-c", "sigterm", "sigterm to all"])
def test_a_driver_that_is_stopped_says_how_to_go_on(stop, place, driver, whole):
    here = place(*LONG)
    first = driver(here)
    first.wait_for(1, 60)
    started = time.monotonic()
    if stop == "ctrl-c":  # a terminal signals every process of the group
        os.killpg(first.process.pid, signal.SIGINT)
    elif stop == "sigterm to all":  # as `timeout` and Slurm do: the cluster's processes, too
        os.killpg(first.process.pid, signal.SIGTERM)
    else:
        first.process.terminate()
    status, printed = first.wait()
    # About 3 s on a machine that is not busy; Ray alone would end the process after 60 s.
    assert time.monotonic() - started < 45
    # Where the cluster does not answer any more, the process leaves Ray's own exit out.
    assert status in ((1, 3) if stop == "sigterm to all" else (3,)), printed
    last = printed.strip().splitlines()[-1]
    assert last.startswith("SweepInterrupted: ")
    assert "gan sweep --resume tiny" in last
    assert "Traceback" not in printed
    first.wait_until_nothing_is_left(30)
    assert here.parent().status == "KILLED"
    assert here.parent().tags["gan.cause"] == "interrupted"
    assert "RUNNING" not in here.statuses()
    assert all(r.status == "finished" for r in here.ledger.results())
    ended = here.ended()
    assert len(ended) < 4

    here.run()
    assert here.ended().items() >= ended.items()
    assert_complete(here, whole)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_driver_wherever_it_is_and_the_sweep_can_be_gone_on_with(
    place, driver, whole
):
    here = place(*LONG)
    for _ in range(5):
        first = driver(here)
        first.wait_for(1, 40)
        os.kill(first.process.pid, signal.SIGINT)
        first.wait_for_line("stopping after the reports under way")
        os.kill(first.process.pid, signal.SIGINT)
        status, printed = first.wait()
        if status != 3:  # else it had stopped by itself before the second came
            break
    assert status not in (0, 3), printed
    assert here.parent().status == "KILLED", f"ended with {status}: {printed}"
    here.run()
    assert_complete(here, whole)


@pytest.mark.slow
def test_a_finished_sweep_leaves_no_process_behind_and_no_file_in_the_home(
    place, driver, images, monkeypatch
):
    here = place()
    here.config = tiny_config(os.path.relpath(images, here.folder), n_trials=2)
    monkeypatch.setenv("HOME", str(here.folder / "home"))
    only = driver(here)
    status, printed = only.wait()
    assert status == 0, printed
    only.wait_until_nothing_is_left(10)
    assert [result.status for result in here.ledger.results()] == ["finished"] * 2
    written = {path.name for path in here.folder.iterdir()}
    assert written == {"mlflow.db", "mlruns", "runs", "home"}
    assert {path.name for path in (here.folder / "home").iterdir()} <= {".ray"}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", pytest.param("ray://", marks=pytest.mark.slow)])
def test_a_cluster_that_does_not_answer_is_an_error_at_once(scheme, tmp_path, place):
    import socket

    here = place()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{unused.getsockname()[1]}"
        env = os.environ | {"RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
        config = repr(to_dict(here.config))
        code = "from tests.tuning import test_sweep; test_sweep.drive()"
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=here.folder,
            env=env | {"GAN_TEST_CONFIG": config},
            capture_output=True,
            text=True,
            check=False,
        )
        assert time.monotonic() - started < 60
    assert done.returncode == 3, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith(f"TuningError: the Ray cluster at {address} could not be reached: ")
    assert here.parent().status == "FAILED"


# Kept elsewhere


@dataclass
class Elsewhere(Place):
    """A sweep whose original its machines have no folder of."""

    @property
    def ledger(self) -> Ledger:
        ledger = open_ledger(f"file://{self.folder}/original/tiny", role="driver")
        ledger.refresh()
        return ledger


@pytest.fixture
def elsewhere(place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    here = place(*LONG)
    monkeypatch.setenv("XDG_CACHE_HOME", str(here.folder / "machine"))
    return Elsewhere(here.folder, here.config)


@pytest.mark.slow
def test_a_sweep_kept_elsewhere_is_the_same_sweep(shared_cluster, elsewhere, whole):
    elsewhere.run()
    assert_complete(elsewhere, whole)
    assert elsewhere.parent().status == "FINISHED"
    began = [run.run_id for run in elsewhere.children()]
    elsewhere.run()  # of which nothing is missing
    assert [run.run_id for run in elsewhere.children()] == began
    assert elsewhere.parent().status == "FINISHED"


@pytest.mark.slow
def test_a_lost_trial_elsewhere_is_run_again(shared_cluster, elsewhere, whole):
    elsewhere.run()
    ledger = elsewhere.ledger
    lost = ledger.result(1)
    ledger.write_result(replace(lost, status="failed", cause="lost", is_final=False))
    elsewhere.run()
    assert_complete(elsewhere, whole)


def test_who_comes_second_touches_nothing(shared_cluster, elsewhere, monkeypatch):
    def taken(name: str) -> None:
        raise TuningError(f"{name} is being run by another process")

    monkeypatch.setattr(cluster, "lease", taken)
    with pytest.raises(TuningError, match="is being run by another process"):
        elsewhere.run()
    assert stored_runs(elsewhere.folder / "mlflow.db", kind="sweep") == []
    assert not (elsewhere.folder / "original").exists()


@pytest.mark.slow
def test_who_was_replaced_leaves_the_runs_to_the_other(shared_cluster, elsewhere):
    def replaced(news: TrialNews) -> None:
        if news.has_ended:
            elsewhere.ledger.take_over()

    with pytest.raises(ReplacedError, match="is being run by another process by now"):
        elsewhere.run(replaced)
    assert elsewhere.parent().status == "RUNNING"
    assert "KILLED" not in {run.status for run in elsewhere.children()}


@pytest.mark.slow
def test_who_waited_until_all_was_done_replaces_nobody(
    shared_cluster, elsewhere, whole, monkeypatch
):
    """Whoever did it is still closing its runs, and must find them its own."""
    lease, marks = cluster.lease, []

    def once_the_other_is_done(name: str) -> cluster.Lease:
        with monkeypatch.context() as patch:
            patch.setattr(cluster, "lease", lease)
            patch.setenv("XDG_CACHE_HOME", str(elsewhere.folder / "other-machine"))
            elsewhere.run()
        marks.append((elsewhere.folder / "original/tiny/driver").read_text())
        return lease(name)

    monkeypatch.setattr(cluster, "lease", once_the_other_is_done)
    elsewhere.run()
    assert_complete(elsewhere, whole)
    assert elsewhere.parent().status == "FINISHED"
    assert [(elsewhere.folder / "original/tiny/driver").read_text()] == marks


@pytest.mark.parametrize("is_replaced", [False, True])
def test_who_was_replaced_and_is_told_to_stop_leaves_them_as_well(
    elsewhere, monkeypatch, is_replaced
):
    ledger = elsewhere.ledger
    ledger.take_over()
    sweep = sweep_module._Sweep(
        elsewhere.config,
        ledger,
        check_sweep(elsewhere.config),
        extractors=elsewhere.folder / "nets",
        data_digest="0" * 64,
    )
    sweep.parent_run_id = "of the sweep"
    closed = []
    monkeypatch.setattr(sweep_module, "close_stragglers", lambda *a, **k: closed.append("trials"))
    monkeypatch.setattr(sweep_module, "close_run", lambda *a, **k: closed.append("sweep"))
    if is_replaced:
        elsewhere.ledger.take_over()
    sweep.terminate()
    assert set(closed) == (set() if is_replaced else {"trials", "sweep"})
    interrupted = elsewhere.folder / "original" / "tiny" / "interrupted"
    assert interrupted.exists() == (not is_replaced)
