"""What an MLflow server that is away, slow or broken costs a trial that trains.

    python -m tests.benchmarks.bench_outage --rounds 5

In each round the same trial of MNIST is run against a server that answers, one that is cut off,
one that takes five seconds for every answer, and one that answers 500, from the first update to
the last.  Printed are the seconds from its first report to its last, scores and checkpoints
included, as ratios to the trial of the same round with a server that answers, with their standard
error, and how long each took to end: `tuning.run_log.FINISH_SECONDS` and the record under way.
Afterwards the server is back, what waits is sent, and a step that is missing or double ends the
benchmark with status 1.  It takes `pip install -e '.[services]'` and Debian's `postgresql`.
"""

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import torch
from mlflow import MlflowClient

from gan.config import PipelineConfig, to_dict
from gan.metric_names import IMAGES_SEEN
from pipeline.settings import resolve
from tests.cluster.proxy import Mode, Proxy
from tests.cluster.services import S3_KEYS, servers
from tuning.ledger import Ledger, trial_run
from tuning.sync import deliver_trial
from tuning.tracking import prepare_store
from tuning.trial import TrialSpec, run_trial

MODES: dict[Mode, str] = {
    "pass": "answers",
    "cut": "is cut off",
    "delay": "takes 5 s for each answer",
    "error": "answers 500",
}


@dataclass(frozen=True)
class Timing:
    """Seconds from the first report of a trial to its last, and from there to its end."""

    training: float
    ending: float


class Trials:
    """The same trial, again and again, each in a run of its own."""

    def __init__(self, folder: Path, config: PipelineConfig, uri: str) -> None:
        self.folder, self.config, self.uri = folder, config, uri
        self.experiment_id = prepare_store(uri, "outage")
        self.ledgers: list[Ledger] = []

    def run(self) -> Timing:
        """Run one to its end."""
        ledger = Ledger(self.folder / f"trial-{len(self.ledgers)}")
        self.ledgers.append(ledger)
        ledger.propose(0, {})
        spec = TrialSpec(
            ledger=str(ledger.folder),
            driver="",
            extractors=str(self.folder / "nets"),
            index=0,
            overrides={},
            run=to_dict(trial_run(self.config, 0, {})),
            objective=self.config.sweep.objective,
            uri=self.uri,
            experiment_id=self.experiment_id,
            experiment="outage",
            parent_run_id=None,
            tags={},
            threads=1,
            device="cpu",
        )
        reports = run_trial(spec)
        next(reports)
        began = last = time.monotonic()
        for _ in reports:
            last = time.monotonic()
        return Timing(last - began, time.monotonic() - last)

    def require_every_step(self) -> None:
        """Send what waits; exit with 1 unless each step of each trial is in MLflow once."""
        train = self.config.base.train
        wanted = list(range(train.report_every, train.n_steps + 1, train.report_every))
        for ledger in self.ledgers:
            waited = deliver_trial(ledger, 0, self.uri)
            result = ledger.result(0)
            run_id = result.run_id if result else ""
            history = MlflowClient(self.uri).get_metric_history(run_id, IMAGES_SEEN)
            steps = [metric.step for metric in history]
            if steps != wanted or waited.n_waiting:
                print(f"{ledger.name}: {len(steps)} steps in MLflow, {len(wanted)} were made")
                raise SystemExit(1)
        print(f"each of {len(wanted)} steps of {len(self.ledgers)} trials is in MLflow once")


def main() -> None:
    """Run the rounds and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=1000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = [f"train.n_steps={arguments.updates}", "train.report_every=20"]
    config = resolve("quick", [*settings, "evaluation.score_every=200"])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tracking = stack.enter_context(servers(folder)).tracker
        proxy = Proxy(tracking.service.port)
        stack.callback(proxy.close)
        environment = tracking.environment(proxy.port)
        os.environ |= {**environment, **S3_KEYS}
        trials = Trials(folder, config, environment["MLFLOW_TRACKING_URI"])
        trials.run()  # imports, and whatever else is done once
        timings: dict[Mode, list[Timing]] = {mode: [] for mode in MODES}
        for number in range(arguments.rounds):
            # Each mode at each place of a round, for what drifts.
            order = list(MODES)[number % len(MODES) :] + list(MODES)[: number % len(MODES)]
            for mode in order:
                with proxy.being(mode):
                    timings[mode].append(trials.run())
        show(timings)
        trials.require_every_step()


def show(timings: dict[Mode, list[Timing]]) -> None:
    """Print them as a table."""
    print(
        "| the server | s of training | of a server that answers | s to end |\n|---|---|---|---|"
    )
    for mode, name in MODES.items():
        ratios = [
            one.training / calm.training
            for one, calm in zip(timings[mode], timings["pass"], strict=True)
        ]
        spread = f" ± {stdev(ratios) / len(ratios) ** 0.5:.3f}" if len(ratios) > 1 else ""
        seconds = mean(one.training for one in timings[mode])
        ending = mean(one.ending for one in timings[mode])
        print(f"| {name} | {seconds:.1f} | {mean(ratios):.3f}{spread} | {ending:.1f} |")


if __name__ == "__main__":
    main()
