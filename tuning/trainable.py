"""The one function that Ray calls."""

import contextlib
from typing import Any

import ray
from ray import tune

from tuning.trial import TrialSpec, run_trial


def trainable(config: dict[str, Any]) -> None:
    """Run one trial in a Ray worker, handing every report to the tuner.

    Args:
        config: `index` of the trial, by which the scheduler knows it, and `spec`, the fields of a
            `TrialSpec` but for `device`: the GPU is the one that Ray gave this worker, if any.
    """
    device = "cuda" if ray.get_gpu_ids() else "cpu"
    spec = TrialSpec(**config["spec"], device=device)
    # Closed at once when the scheduler stops the trial, so that its end is on record before this
    # worker is given another.
    with contextlib.closing(run_trial(spec)) as reports:
        for report in reports:
            tune.report(report)
