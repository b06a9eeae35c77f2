"""What a sweep adds to its trials, against Ray Tune alone.

    python -m tests.benchmarks.bench_sweep_overhead

Sixteen trials of one second on two CPUs: eight seconds at best, and what is beyond is overhead.
A trial of ours is the real thing (nets, one update, a Parzen score, a checkpoint, its MLflow run
with params, metrics, a sample grid and both checkpoints as artifacts) in which training sleeps
for a second.  A plain one sleeps and reports a number.  Counted is everything from the call to
its return, the start of the workers and their imports included; not counted are starting Ray,
and making the tables of a new MLflow database, which both take seconds once.
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune

import tuning.trainable
from gan.algorithm1 import Progress
from gan.config import PipelineConfig, load_config
from gan.run import Run
from gan.tasks import TASKS
from tuning import cluster
from tuning.ledger import Ledger
from tuning.sweep import TrialNews, run_sweep
from tuning.tracking import prepare_store, tracking_uri

N_TRIALS, N_CPUS, SECONDS = 16, 2, 1.0
AT_BEST = N_TRIALS / N_CPUS * SECONDS
NAMES = ("Tune alone, new actors", "Tune alone, reused actors", "sweep")

real_trainable = tuning.trainable.trainable


class SleepingRun(Run):
    """A run whose training takes a second of waiting on top of its one update."""

    def train(self) -> Iterator[Progress]:
        for progress in super().train():
            time.sleep(SECONDS)
            yield progress


def one_second_trial(config: dict[str, Any]) -> None:
    TASKS["generator"] = replace(TASKS["generator"], start=SleepingRun)
    real_trainable(config)


def plain_trial(config: dict[str, Any]) -> None:
    time.sleep(SECONDS)
    tune.report({"score": 1.0})


def plain_seconds(*, reuse_actors: bool) -> float:
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(plain_trial, {"cpu": 1}),
            tune_config=tune.TuneConfig(num_samples=N_TRIALS, reuse_actors=reuse_actors),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        started = time.perf_counter()
        results = tuner.fit()
        spent = time.perf_counter() - started
    assert len(results) == N_TRIALS
    assert results.num_errors == 0
    return spent


def sweep_config(images: Path) -> PipelineConfig:
    np.savez(images, images=np.random.default_rng(0).integers(0, 255, (300, 8, 8), dtype=np.uint8))
    return load_config(
        {
            "name": "overhead",
            "base": {
                "data": {"dataset": str(images), "n_valid": 100},
                "prior": {"dim": 4},
                "generator": {"hidden": [16]},
                "discriminator": {"hidden": [16]},
                "train": {"n_steps": 1, "report_every": 1},
                "evaluation": {"score_every": 1, "n_samples": 100, "n_sigma_images": 50},
            },
            "sweep": {
                "n_trials": N_TRIALS,
                "scheduler": "fifo",
                "space": {"train.learning_rate": {"loguniform": [0.001, 0.1]}},
            },
        }
    )


def sweep_seconds(config: PipelineConfig, folder: Path) -> tuple[float, float]:
    """Seconds of a whole sweep, and until its first trial was over."""
    ends: list[float] = []

    def watch(news: TrialNews) -> None:
        if news.has_ended:
            ends.append(time.perf_counter())

    started = time.perf_counter()
    run_sweep(config, Ledger(folder), extractors=Path("nets"), watcher=watch)
    spent = time.perf_counter() - started
    assert len(ends) == N_TRIALS
    return spent, ends[0] - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many counts")
    parser.add_argument("--only", choices=NAMES, action="append", help="leave out the others")
    arguments = parser.parse_args()
    names = arguments.only or NAMES
    tuning.trainable.trainable = one_second_trial

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        config = sweep_config(Path(folder) / "images.npz")
        os.environ["RAY_OVERRIDE_RESOURCES"] = f'{{"CPU": {N_CPUS}}}'
        started = time.perf_counter()
        cluster.connect()
        ray_seconds = time.perf_counter() - started
        assert ray.cluster_resources()["CPU"] == N_CPUS
        started = time.perf_counter()
        prepare_store(tracking_uri(), config.name)
        store_seconds = time.perf_counter() - started

        fastest: dict[str, float] = {}
        first_trial = float("inf")
        for repeat in range(arguments.repeats):
            for name in names:
                if name == "sweep":
                    spent, first = sweep_seconds(config, Path(f"runs/{repeat}"))
                    first_trial = min(first_trial, first)
                else:
                    spent = plain_seconds(reuse_actors="reused" in name)
                fastest[name] = min(fastest.get(name, float("inf")), spent)
                print(f"  {name:<28}{spent - AT_BEST:6.1f} s beyond {AT_BEST:.0f}", flush=True)
        cluster.disconnect()

    print(f"not counted: Ray's start {ray_seconds:.1f} s, MLflow's tables {store_seconds:.1f} s")
    print(f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    for name, spent in fastest.items():
        print(f"{name:<28}{spent - AT_BEST:6.1f} s beyond {AT_BEST:.0f}")
    if "sweep" in fastest:
        print(
            f"  until the first trial was over, beyond its second: {first_trial - SECONDS:.1f} s"
        )


if __name__ == "__main__":
    main()
