"""The time of a training step of each extension, against the core's for the same arithmetic.

    python -m tests.benchmarks.bench_extensions [NAME ...] [--threads 1]

Both train with the settings of the extension's preset, in turns, so that a change of the machine's
speed meets both.  The arithmetic of a step is that of its matrix products, counted as torch
dispatches them.  An extension that starts from a promoted model starts from an untrained one.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode

from gan.config import RunConfig
from gan.datasets.images import ImageSet
from gan.datasets.splits import load_train_valid
from gan.run import TrainingRun
from gan.saved_generator import Saved
from gan.tasks import start_run, task_of
from pipeline.extensions import extensions
from pipeline.settings import resolve

N_ROUNDS, N_STEPS = 9, 50
N_COUNTED = 4
"""Steps whose products are counted: an extension need not do the same in each."""


def timed(run: TrainingRun) -> Callable[[], float]:
    """A function that trains N_STEPS steps and returns their seconds."""
    reports = run.train()

    def steps() -> float:
        started_at = time.perf_counter()
        next(reports)
        return time.perf_counter() - started_at

    return steps


def operations(cfg: RunConfig, images: ImageSet) -> float:
    """Floating-point operations of the matrix products of one step."""
    run = start(cfg, images, n_steps=N_COUNTED)
    # The counter knows torch's own products alone, so these are taken for the time of the count.
    with (
        mock.patch("gan.layers.HAS_ONEDNN", False),
        FlopCounterMode(display=False) as counter,
    ):
        next(run.train())
    return counter.get_total_flops() / N_COUNTED


def start(cfg: RunConfig, images: ImageSet, *, n_steps: int) -> TrainingRun:
    """A run that reports every `n_steps` steps and does not end."""
    train = dataclasses.replace(cfg.train, report_every=n_steps, n_steps=10**6)
    evaluation = dataclasses.replace(cfg.evaluation, score_every=10**6)
    cfg = dataclasses.replace(cfg, train=train, evaluation=evaluation)
    return start_run(cfg, images, device="cpu", origin=untrained_origin(cfg, images))


def untrained_origin(cfg: RunConfig, images: ImageSet) -> Saved | None:
    """What a run starts from at step 0, if it starts from anything."""
    task = task_of(cfg).origin(cfg)
    if task is None:
        return None
    origin = cfg if task == "generator" else resolve(task.replace("_", "-")).base
    return start_run(core_of(origin), images, device="cpu").saved()


def core_of(cfg: RunConfig) -> RunConfig:
    """The run of the paper's GAN with the same nets and optimisers."""
    return cfg if cfg.task == "generator" else dataclasses.replace(cfg, **{cfg.task: None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="presets; all extensions if none is named")
    parser.add_argument("--threads", type=int, default=1, help="of torch; a trial has one")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print("| extension | ms a step | core | time ratio | arithmetic ratio | time for the same |")
    print("|---|---|---|---|---|---|")
    for name in asked.names or extensions():
        cfg = resolve(name).base
        images, _ = load_train_valid(cfg.data)
        pair = cfg, core_of(cfg)
        contestants = [timed(start(c, images, n_steps=N_STEPS)) for c in pair]
        rounds = [[steps() for steps in contestants] for _ in range(N_ROUNDS)][1:]
        own, plain = (1_000 * statistics.median(t) / N_STEPS for t in zip(*rounds, strict=True))
        ratio = statistics.median(a / b for a, b in rounds)
        ours, theirs = (operations(c, images) for c in pair)
        print(
            f"| {name} | {own:.2f} | {plain:.2f} | {ratio:.3f} | {ours / theirs:.3f} "
            f"| {ratio * theirs / ours:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
