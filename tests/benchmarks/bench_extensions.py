"""The time of a training step of each extension, against the core's for the same arithmetic.

    python -m tests.benchmarks.bench_extensions [--threads 1]

Both train with the settings of the extension's preset, in turns, so that a change of the machine's
speed meets both.  The arithmetic of a step is that of the matrix products: a minibatch of m rows
takes m (4 W_G + 8 W_D) multiplications for weights W_G and W_D, G once without gradients and once
with, D with gradients of two minibatches and of the rows of a third.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import torch

from gan.config import RunConfig
from gan.datasets.images import ImageSet
from gan.datasets.splits import load_train_valid
from gan.run import Run
from gan.tasks import start_run
from pipeline.extensions import extensions
from pipeline.settings import resolve

N_ROUNDS, N_STEPS = 9, 50


def timed(run: Run) -> Callable[[], float]:
    """A function that trains N_STEPS steps and returns their seconds."""
    reports = run.train()

    def steps() -> float:
        started_at = time.perf_counter()
        next(reports)
        return time.perf_counter() - started_at

    return steps


def multiplications(run: Run) -> int:
    """Of the matrix products of one step, a row of the minibatch."""
    w_g, w_d = (
        sum(p.numel() for p in player.parameters() if p.ndim == 2)
        for player in (run.gan.G, run.gan.D)
    )
    return 4 * w_g + 8 * w_d


def start(cfg: RunConfig, images: ImageSet) -> Run:
    """A run that reports every N_STEPS steps and does not end."""
    train = dataclasses.replace(cfg.train, report_every=N_STEPS, n_steps=10**6)
    evaluation = dataclasses.replace(cfg.evaluation, score_every=10**6)
    cfg = dataclasses.replace(cfg, train=train, evaluation=evaluation)
    run = start_run(cfg, images, device="cpu")
    assert isinstance(run, Run)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="of torch; a trial has one")
    torch.set_num_threads(parser.parse_args().threads)
    print("| extension | ms a step | core | time ratio | arithmetic ratio | time for the same |")
    print("|---|---|---|---|---|---|")
    for name in extensions():
        cfg = resolve(name).base
        images, _ = load_train_valid(cfg.data)
        ours = start(cfg, images)
        core = start(dataclasses.replace(cfg, **{cfg.task: None}), images)
        contestants = timed(ours), timed(core)
        rounds = [[steps() for steps in contestants] for _ in range(N_ROUNDS)][1:]
        own, plain = (1_000 * statistics.median(t) / N_STEPS for t in zip(*rounds, strict=True))
        ratio = statistics.median(a / b for a, b in rounds)
        arithmetic = multiplications(ours) / multiplications(core)
        print(
            f"| {name} | {own:.2f} | {plain:.2f} | {ratio:.3f} | {arithmetic:.3f} "
            f"| {ratio / arithmetic:.3f} |"
        )


if __name__ == "__main__":
    main()
