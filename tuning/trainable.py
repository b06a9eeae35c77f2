"""The one function that Ray calls."""

import contextlib
import json
import platform
import sys
import threading
from pathlib import Path
from typing import Any

import ray
from ray import tune

from tuning.errors import TrackingError, TuningError
from tuning.tracking import store
from tuning.trial import TrialSpec, run_trial


def trainable(config: dict[str, Any]) -> None:
    """Run one trial in a Ray worker, handing every report to the tuner.

    Args:
        config: `index` and `n_steps` of the trial, which the scheduler reads, and `spec`, as JSON
            the fields of a `TrialSpec` but for `device`: the GPU is the one that Ray gave this
            worker, if any.

    Raises:
        TuningError: if this machine does not see the sweep's folder.
    """
    fields = json.loads(config["spec"])
    if "://" not in fields["ledger"] and not Path(fields["ledger"]).is_dir():
        raise TuningError(
            f"{fields['ledger']} must lie on storage that every machine of the cluster reaches, "
            f"but {platform.node()} does not see it"
        )
    if "mlflow" not in sys.modules:
        threading.Thread(target=_preload, args=(fields["uri"],), daemon=True).start()
    has_gpu = bool(ray.get_gpu_ids()) and fields["run"]["device"] != "cpu"
    spec = TrialSpec(**fields, device="cuda" if has_gpu else "cpu")
    # Closed at once when the scheduler stops the trial, so that its end is on record before this
    # worker is given another.
    with contextlib.closing(run_trial(spec)) as reports:
        for report in reports:
            tune.report(report)


def _preload(uri: str) -> None:
    """Import what logging needs; that takes a second, in which the trial can begin."""
    with contextlib.suppress(TrackingError), store(uri):
        pass
