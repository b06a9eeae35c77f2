"""Run the sweep, and take its winner's generator out of its best checkpoint."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq

from gan.checkpoint import load_checkpoint
from gan.config import PipelineConfig, digest, to_dict
from gan.saved_generator import generator_from_state, save_generator
from pipeline.errors import StageError
from pipeline.graph import Work
from tuning.ledger import Ledger, trial_run
from tuning.results import best_trial, results_table
from tuning.sweep import Watcher, run_sweep


def stage(watcher: Watcher | None) -> Callable[[Work], None]:
    """The stage, telling `watcher` of every report."""

    def run(work: Work) -> None:
        """Write `results.parquet`, `trials.json`, `winner.json` and the folder `winner`.

        Raises:
            ConfigError: the search space does not fit the configuration.
            TuningError: the sweep could not be run, or was interrupted.
        """
        data = json.loads((work.inputs["data"] / "data.json").read_text())
        folder = sweep_folder(work.workspace, work.config, data_digest=data["train_digest"])
        parent_run_id = run_sweep(work.config, folder, watcher=watcher)
        write_results(work, Ledger(folder), parent_run_id, tuple(data["image_shape"]))

    return run


def sweep_folder(workspace: Path, config: PipelineConfig, *, data_digest: str) -> Path:
    """Where the sweep of a configuration on some data has its ledger.

    Its name changes with everything that the trials depend on, so another sweep never goes on in
    the folder of this one.
    """
    settings = {"base": to_dict(config.base), "sweep": to_dict(config.sweep)}
    key = digest(settings | {"data": data_digest})
    return workspace / "sweeps" / f"{config.name}-{key[:8]}"


def write_results(
    work: Work, ledger: Ledger, parent_run_id: str, image_shape: tuple[int, int, int]
) -> None:
    """Write what the later stages read of a sweep that is over."""
    results = ledger.results()
    winner = best_trial(results)
    pq.write_table(results_table(results), work.out / "results.parquet")
    trials = [{**asdict(r), "step": r.step, "best": r.best} for r in results]
    (work.out / "trials.json").write_text(json.dumps(trials))
    if winner is None or (best := winner.best) is None:
        raise StageError("no trial has a score", stage="sweep")
    lineage = {
        "sweep": ledger.name,
        "trial": winner.trial,
        "step": best["step"],
        "run_id": winner.run_id,
        "parent_run_id": parent_run_id,
        "best": best,
    }
    (work.out / "winner.json").write_text(json.dumps(lineage, indent=2) + "\n")
    checkpoint = load_checkpoint(ledger.checkpoint_path(winner.trial, step=int(best["step"])))
    run = trial_run(work.config, winner.trial, winner.overrides)
    saved = generator_from_state(checkpoint.tensors, run, image_shape=image_shape)
    (work.out / "winner").mkdir()
    save_generator(work.out / "winner", saved)
