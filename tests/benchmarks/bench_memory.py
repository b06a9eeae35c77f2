"""Peak memory of an MNIST trial in a Ray worker.

    python -m tests.benchmarks.bench_memory

Four trials of each MNIST preset run one after the other in one worker, as `gan sweep` would run
them: nets, data, scores of the preset's own number of samples, checkpoints, MLflow runs; only
their steps are cut to two scorings.  Read is the worker's highest resident memory (`ru_maxrss`),
which counts torch's libraries and every page that it shares with other workers in full.
"""

import contextlib
import json
import os
import resource
import tempfile
from pathlib import Path
from typing import Any

import tuning.trainable
from pipeline.settings import resolve
from tuning.ledger import Ledger
from tuning.sweep import run_sweep

PRESETS = ("quick", "mnist")
SETTINGS = (
    "sweep.n_trials=4",
    "sweep.scheduler=fifo",
    "train.n_steps=200",
    "train.report_every=100",
    "evaluation.score_every=100",
)

real_trainable = tuning.trainable.trainable


def measured_trial(config: dict[str, Any]) -> None:
    """What Ray calls: the real thing, and a line in a file that tells what it took."""
    before = _peak_mb()
    real_trainable(config)
    with Path(config["spec"]["ledger"], "memory.jsonl").open("a") as file:
        file.write(json.dumps({"before": before, "peak": _peak_mb()}) + "\n")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024 / 1e6


def main() -> None:
    tuning.trainable.trainable = measured_trial
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["RAY_OVERRIDE_RESOURCES"] = '{"CPU": 1}'
        for preset in PRESETS:
            ledger = Path(preset)
            run_sweep(resolve(preset, SETTINGS), Ledger(ledger), extractors=Path("nets"))
            lines = (ledger / "memory.jsonl").read_text().splitlines()
            trials = [json.loads(line) for line in lines]
            print(
                f"{preset}: {trials[0]['before']:,.0f} MB before the first trial (Ray, torch), "
                f"at the highest {trials[0]['peak']:,.0f} MB in the first and "
                f"{trials[-1]['peak']:,.0f} MB up to the last of {len(trials)}"
            )


if __name__ == "__main__":
    main()
