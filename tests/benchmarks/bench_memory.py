"""Peak memory of one MNIST trial in a Ray worker.

    python -m tests.benchmarks.bench_memory

The first trial of each MNIST preset runs as `gan sweep` would run it: nets, data, scores of the
preset's own number of samples, checkpoints, its MLflow run; only its steps are cut to two
scorings.  Read is the worker's highest resident memory (`ru_maxrss`), which counts torch's
libraries and every page that it shares with other workers in full.
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
from tuning.sweep import run_sweep

PRESETS = ("quick", "mnist")
SETTINGS = (
    "sweep.n_trials=1",
    "sweep.scheduler=fifo",
    "train.n_steps=200",
    "train.report_every=100",
    "evaluation.score_every=100",
)

real_trainable = tuning.trainable.trainable


def measured_trial(config: dict[str, Any]) -> None:
    """What Ray calls: the real thing, and a file that tells what it took."""
    libraries = _peak_mb()
    real_trainable(config)
    taken = {"libraries": libraries, "peak": _peak_mb()}
    Path(config["spec"]["ledger"], "memory.json").write_text(json.dumps(taken))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024 / 1e6


def main() -> None:
    tuning.trainable.trainable = measured_trial
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["RAY_OVERRIDE_RESOURCES"] = '{"CPU": 1}'
        for preset in PRESETS:
            ledger = Path(preset)
            run_sweep(resolve(preset, SETTINGS), ledger)
            taken = json.loads((ledger / "memory.json").read_text())
            print(
                f"{preset}: {taken['peak']:,.0f} MB at the highest, of which "
                f"{taken['libraries']:,.0f} MB before the trial (Ray, torch)"
            )


if __name__ == "__main__":
    main()
