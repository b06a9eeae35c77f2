"""One training run outside a sweep, tracked and resumable like a trial."""

import contextlib
import logging
from typing import Any

import torch

from gan.checkpoint import load_checkpoint
from gan.config import PipelineConfig, digest, to_dict
from gan.datasets.splits import load_train_valid
from gan.files import new_folder
from gan.objectives import OBJECTIVES
from gan.tasks import from_state, save
from pipeline.errors import PipelineError
from pipeline.evaluation import extractors_folder, prepare_extractor
from pipeline.main_line import WORKSPACES
from pipeline.progress import Display, SweepTally
from tuning.errors import SweepInterrupted
from tuning.ledger import Ledger
from tuning.provenance import provenance
from tuning.sweep import TrialNews
from tuning.sync import deliver_trial
from tuning.tracking import DATA_TAG, prepare_store, tracking_uri
from tuning.trial import TrialSpec, run_trial

logger = logging.getLogger(__name__)


def train_one(config: PipelineConfig, display: Display) -> dict[str, Any]:
    """Train `config.base` to its end and keep the generator of its best checkpoint.

    Returns:
        What came out, by name; the folder of the generator among it.

    Raises:
        SweepInterrupted: by Ctrl-C; called again, it goes on from the last checkpoint.
        PipelineError: if training failed, or the run never got a score.
    """
    images, _ = load_train_valid(config.base.data)
    metric = config.sweep.objective
    # Another objective may keep another checkpoint as the best one.
    key = digest({"run": to_dict(config.base), "data": images.digest, "objective": metric})
    ledger = Ledger((WORKSPACES / config.name / "runs" / f"train-{key[:8]}").absolute())
    with ledger.lock():
        ledger.propose(0, {})
        prepare_extractor(config, extractors_folder(WORKSPACES / config.name))
        if ledger.result(0) is None:
            _train(config, ledger, display, data_digest=images.digest)
        n_waiting = deliver_trial(ledger, 0, tracking_uri()).n_waiting
        if n_waiting:
            logger.warning("%d records wait for MLflow: `gan sync` sends them", n_waiting)
    result = ledger.result(0)
    if result is None or result.status == "failed" or result.best is None:
        raise PipelineError(f"training failed: {result.cause if result else 'it has no result'}")
    folder = ledger.folder / "generator"
    checkpoint = load_checkpoint(ledger.checkpoint_path(0, step=int(result.best["step"])))
    saved = from_state(checkpoint.tensors, config.base, image_shape=images.image_shape)
    with new_folder(folder) as scratch:
        save(scratch, saved)
    return {
        "step": result.step,
        "best_step": result.best["step"],
        metric: result.best[metric],
        "run_id": result.run_id,
        "generator": str(folder),
    }


def _train(config: PipelineConfig, ledger: Ledger, display: Display, *, data_digest: str) -> None:
    spec = _spec(config, ledger, data_digest=data_digest)
    tally = SweepTally(
        n_trials=1,
        n_steps=config.base.train.n_steps,
        objective=OBJECTIVES[config.sweep.objective],
    )
    watcher = display.watcher(tally)
    with contextlib.closing(run_trial(spec)) as reports:
        try:
            for report in reports:
                watcher(TrialNews(trial=0, report=report))
        except KeyboardInterrupt:
            # The trial, which is closed now without a reason on record, is left to be resumed.
            raise SweepInterrupted("training was stopped") from None


def _spec(config: PipelineConfig, ledger: Ledger, *, data_digest: str) -> TrialSpec:
    uri = tracking_uri()
    return TrialSpec(
        ledger=ledger.location,
        driver="",
        extractors=str(extractors_folder(WORKSPACES / config.name)),
        index=0,
        overrides={},
        run=to_dict(config.base),
        objective=config.sweep.objective,
        uri=uri,
        experiment_id=prepare_store(uri, config.name),
        experiment=config.name,
        parent_run_id=None,
        tags=provenance() | {DATA_TAG: data_digest},
        threads=torch.get_num_threads(),
        device=device_for(config.base.device),
    )


def device_for(wanted: str) -> str:
    """`cpu` or `cuda` for a run's `device`.

    Raises:
        PipelineError: if it asks for a GPU, and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise PipelineError("device must be auto or cpu where torch finds no GPU, got cuda")
    return wanted if wanted != "auto" else ("cuda" if has_gpu else "cpu")
