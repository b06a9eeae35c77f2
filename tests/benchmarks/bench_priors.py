"""Which distribution of z reaches a Fréchet distance and a coverage first, and which ends best.

    python -m tests.benchmarks.bench_priors --seeds 5 --steps 6000 --workers 2 --output priors.json

The settings are those of the preset `priors`; only what z is drawn from differs, and the seed.
Every contestant makes as many updates of D.  A stack spends two thirds of them on the generator
that it stands on.  Seconds are those of the training alone: of one CPU thread's own time, whatever
else the machine does, or on a GPU of the clock on the wall.  Scores are of samples of the running
average of G, on the validation images.  Runs go seed by seed and are written down one by one: the
same command goes on where it was cut off, and compares the seeds that are there.
"""

import argparse
import functools
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gan.config import RunConfig, digest, load_config, read_yaml, with_overrides
from gan.datasets.splits import load_train_valid
from gan.evaluation.features import NetExtractor, default_extractor
from gan.evaluation.frechet import frechet_distance
from gan.evaluation.learning_curves import first_reached, mean_over_seeds, paired_difference
from gan.evaluation.manifold import Balls, balls
from gan.evaluation.score import Score
from gan.run import TrainingRun, unit_pixels
from gan.saved_generator import Saved, SavedSampler
from gan.tasks import as_sampler, start_run

PRESET = Path(__file__).parents[2] / "pipeline" / "presets" / "priors.yaml"
FRECHET, COVERAGE = (50.0, 25.0), (0.3, 0.4)
"""Thresholds, fixed on seed 100 before any of the seeds that count was run."""
N_CURVE, N_FINAL = 5_000, 10_000
"""Samples behind a point of a curve, and behind the last scores."""
BASELINE = "uniform"

STACK_SHARE = 1 / 3
"""Of a stack's updates of D: those in which it stands on the generator of the others."""
Settings = dict[str, Any]
STACK: Settings = {"train.learning_rate": 0.0002, "train.d_learning_rate": 0.001}
"""A stack begins with a D that knows nothing: at G's own rate it would be led astray."""
CONTESTANTS: dict[str, Settings] = {
    "uniform": {},
    "importance": {"learned_prior.method": "importance"},
    "gaussian": {"prior.kind": "gaussian"},
    "top-k": {"learned_prior.method": "top_k"},
    "learned mixture": {"learned_prior.method": "mixture"},
    "stacked": {"learned_prior.method": "stacked"},
    "spherical": {"prior.kind": "spherical", "prior.spherical_radius": "sqrt_dim"},
    "mixture": {"prior.kind": "mixture"},
    "bernoulli": {"prior.kind": "bernoulli"},
    "truncated_normal": {"prior.kind": "truncated_normal"},
}


@dataclass(frozen=True)
class Scorer:
    """The validation images' feature space, made once in the life of a worker."""

    extractor: NetExtractor
    valid: torch.Tensor
    valid_balls: Balls

    def __call__(self, saved: SavedSampler, *, n: int, seed: int) -> tuple[float, float]:
        """Fréchet distance and coverage of n samples."""
        samples = saved.sampler().sample(n, seed=seed)
        points = self.extractor(samples)
        distance = frechet_distance(self.valid, points, seed=seed, groups=2).distance.value
        return distance, self.valid_balls.coverage(points).value


@functools.cache
def scorer(device: str) -> Scorer:
    """That of this process."""
    train, valid = load_train_valid(RunConfig().data)
    extractor = default_extractor(train, folder=Path("/nonexistent"), device=device)
    points = extractor(unit_pixels(valid, device=device).float())
    return Scorer(extractor=extractor, valid=points, valid_balls=balls(points))


class Clock:
    """Seconds of the training alone, and where the whole must end."""

    def __init__(self, device: str, deadline: float) -> None:
        self.seconds, self._deadline = 0.0, deadline
        self._now = time.process_time if device == "cpu" else time.perf_counter

    def reports(self, run: TrainingRun) -> Iterator[int]:
        """The step of each report of a run, until it ends or the time is up."""
        reports = run.train()
        while time.time() < self._deadline:
            started = self._now()
            report = next(reports, None)
            self.seconds += self._now() - started
            if report is None:
                return
            yield report.step


def configuration(name: str, seed: int, steps: int, device: str) -> RunConfig:
    """The run of a contestant."""
    base = load_config(read_yaml(PRESET.read_text())).base
    shared = {"seed": seed, "device": device, "train.n_steps": steps}
    return with_overrides(base, shared | CONTESTANTS[name])


def train(name: str, seed: int, steps: int, device: str, deadline: float) -> Settings | None:
    """Curve and last scores of one run; None if the time was up before its end."""
    torch.set_num_threads(1)
    images, _ = load_train_valid(RunConfig().data)
    clock, curve = Clock(device, deadline), []
    saved: Saved | None = None
    before = 0
    for phase in phases(configuration(name, seed, steps, device)):
        run = start_run(phase, images, device=device, origin=saved)
        for step in clock.reports(run):
            frechet, coverage = scorer(device)(as_sampler(run.saved(), name), n=N_CURVE, seed=seed)
            point = {"step": before + step, "seconds": clock.seconds}
            curve.append(point | {"frechet": frechet, "coverage": coverage})
        if run.step < phase.train.n_steps:
            return None
        before, saved = before + run.step, run.saved()
    frechet, coverage = scorer(device)(as_sampler(saved, name), n=N_FINAL, seed=seed)
    settings = digest(configuration(name, seed, steps, device))
    facts = {"name": name, "seed": seed, "steps": steps, "device": device}
    facts |= {"settings": settings, "curve": curve}
    return facts | {"frechet": frechet, "coverage": coverage, "seconds": clock.seconds}


def phases(config: RunConfig) -> list[RunConfig]:
    """What is trained one after the other; a stack starts from the generator before it."""
    assert config.learned_prior is not None
    if config.learned_prior.method != "stacked":
        return [config]
    n_above = round(config.train.n_steps * STACK_SHARE)
    below = {"learned_prior": None, "train.n_steps": config.train.n_steps - n_above}
    above = {"train.n_steps": n_above} | STACK
    return [with_overrides(config, below), with_overrides(config, above)]


# The table


@dataclass(frozen=True, kw_only=True)
class Column:
    """One number of each run: a column of the table.

    Attributes:
        title: its heading.
        of: the number of a run; None where a threshold was never reached.
        form: as in `format`.
        is_smaller_better: its direction.
    """

    title: str
    of: Callable[[Settings], float | None]
    form: str
    is_smaller_better: bool


def reached(axis: str, score: str, threshold: float) -> Callable[[Settings], float | None]:
    """Where on an axis of its curve a run first has a score."""
    sign = 1 if score == "frechet" else -1

    def where(run: Settings) -> float | None:
        at, values = ([point[key] for point in run["curve"]] for key in (axis, score))
        return first_reached(at, [sign * v for v in values], at_most=sign * threshold)

    return where


def columns() -> list[Column]:
    """Of the table, from left to right."""
    found = []
    for score, goal, thresholds in (
        ("frechet", "Fréchet ≤", FRECHET),
        ("coverage", "coverage ≥", COVERAGE),
    ):
        for threshold in thresholds:
            for axis, unit, form in (("step", "steps", ".0f"), ("seconds", "seconds", ".1f")):
                where = reached(axis, score, threshold)
                title = f"{unit} to {goal} {threshold:g}"
                found.append(Column(title=title, of=where, form=form, is_smaller_better=True))
    return [
        *found,
        Column(title="Fréchet", of=lambda r: r["frechet"], form=".2f", is_smaller_better=True),
        Column(title="coverage", of=lambda r: r["coverage"], form=".3f", is_smaller_better=False),
        Column(title="seconds", of=lambda r: r["seconds"], form=".1f", is_smaller_better=True),
    ]


def interval(score: Score, form: str, *, sign: str = "") -> str:
    """Mean and half of the interval, as a person reads it."""
    return f"{score.value:{sign}{form}} ± {score.high - score.value:{form}}"


def cell(column: Column, runs: Sequence[Settings]) -> str:
    """Mean over seeds with its interval; of a threshold that some never reached how many did."""
    values = [value for run in runs if (value := column.of(run)) is not None]
    if len(values) < len(runs):
        return f"{len(values)} of {len(runs)}"
    return interval(mean_over_seeds(column.title, values), column.form)


def difference(
    column: Column, ours: Sequence[Settings], theirs: Sequence[Settings]
) -> Score | None:
    """Ours less the baseline's, seed by seed; None if a run of either never reached it."""
    pairs = [(column.of(a), column.of(b)) for a, b in zip(ours, theirs, strict=True)]
    numbers = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(numbers) < len(pairs):
        return None
    return paired_difference(column.title, *map(list, zip(*numbers, strict=True)))


def is_better(column: Column, score: Score) -> bool:
    """Whether a difference is to the good with its whole interval."""
    return score.high < 0 if column.is_smaller_better else score.low > 0


def paired(
    runs: Sequence[Settings], names: Sequence[str]
) -> dict[str, tuple[list[Settings], list[Settings]]]:
    """The runs of each contestant, and the baseline's of the same seeds, in one order.

    A contestant with fewer than two seeds in common with the baseline is left out.
    """
    found = {(run["name"], run["seed"]): run for run in runs}
    pairs = {}
    for name in names:
        seeds = sorted(seed for other, seed in found if other == name)
        shared = [seed for seed in seeds if (BASELINE, seed) in found]
        if len(shared) > 1:
            pairs[name] = tuple([found[who, seed] for seed in shared] for who in (name, BASELINE))
    return pairs


def report(runs: Sequence[Settings], names: Sequence[str]) -> str:
    """Both tables, and what follows from the second, as Markdown."""
    pairs = paired(runs, names)
    if not pairs:
        return "fewer than two seeds are complete: no interval"
    shown, better = columns(), []
    titles = ["z", "seeds", *(column.title for column in shown)]
    heading = f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|"
    means = ["Means over seeds with 95 % intervals of Student's t:\n", heading]
    less = [f"\nLess {BASELINE}, seed by seed; bold: better with the whole interval:\n", heading]
    for name, (own, theirs) in pairs.items():
        means.append(row([name, str(len(own)), *(cell(column, own) for column in shown)]))
        if name == BASELINE:
            continue
        cells = []
        for column in shown:
            score = difference(column, own, theirs)
            is_good = score is not None and is_better(column, score)
            if is_good:
                better.append(f"{name} ({column.title})")
            text = "-" if score is None else interval(score, column.form, sign="+")
            cells.append(f"**{text}**" if is_good else text)
        less.append(row([name, str(len(own)), *cells]))
    chance = f"one in 40 of the {(len(pairs) - 1) * len(shown)} would be so by chance"
    verdict = f"{', '.join(better)}; {chance}" if better else "none"
    return "\n".join([*means, *less, f"\nBetter than {BASELINE} beyond its error: {verdict}."])


def row(cells: Sequence[str]) -> str:
    """One row of a table."""
    return f"| {' | '.join(cells)} |"


def picture(runs: Sequence[Settings], names: Sequence[str], path: Path) -> None:
    """Write the mean curves of the contestants over steps and over seconds, as PNG."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12, 8), sharey="row", constrained_layout=True)
    for line, score in zip(axes, ("frechet", "coverage"), strict=True):
        for axis, at in zip(line, ("step", "seconds"), strict=True):
            for i, (name, (own, _)) in enumerate(paired(runs, names).items()):
                x, y = (
                    torch.tensor([[point[key] for point in r["curve"]] for r in own])
                    .double()
                    .mean(0)
                    for key in (at, score)
                )
                style = {"color": "black", "linewidth": 2.5} if name == BASELINE else {}
                axis.plot(x, y, label=name, linestyle=("-", "--", ":")[i // 4], **style)
            axis.grid(alpha=0.3)
            axis.set_xlabel({"step": "updates of D", "seconds": "seconds of training"}[at])
        line[0].set_ylabel({"frechet": "Fréchet distance", "coverage": "coverage"}[score])
    for axis in axes[0]:
        axis.set_yscale("log")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=110)


# The runs


def run_all(jobs: Sequence[tuple[str, int]], arguments: argparse.Namespace) -> list[Settings]:
    """Train what is not written down yet, and write down each run as it ends."""
    output: Path = arguments.output
    runs: list[Settings] = json.loads(output.read_text()) if output.exists() else []
    done = {identity(run) for run in runs}
    rest = [job for job in jobs if asked(*job, arguments) not in done]
    deadline = time.time() + arguments.budget_seconds
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=context) as pool:
        futures: list[Future[Settings | None]] = [
            pool.submit(train, *job, arguments.steps, arguments.device, deadline) for job in rest
        ]
        for future in as_completed(futures):
            run = future.result()
            if run is None:
                continue
            runs.append(run)
            part = output.with_suffix(".part")
            part.write_text(json.dumps(runs))
            part.replace(output)
            last = f"Fréchet {run['frechet']:.2f}, coverage {run['coverage']:.3f}"
            print(f"seed {run['seed']} {run['name']}: {last}, {run['seconds']:.0f} s", flush=True)
    wanted = {asked(*job, arguments) for job in jobs}
    return [run for run in runs if identity(run) in wanted]


def identity(run: Settings) -> tuple[Any, ...]:
    """What tells a run that is written down from another one."""
    return tuple(run[key] for key in ("name", "seed", "steps", "device", "settings"))


def asked(name: str, seed: int, arguments: argparse.Namespace) -> tuple[Any, ...]:
    """The `identity` of a run that is to be made."""
    steps, device = arguments.steps, arguments.device
    return name, seed, steps, device, digest(configuration(name, seed, steps, device))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6_000, help="updates of D in all")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, a thread each")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path, default=Path("priors.json"))
    parser.add_argument("--budget-seconds", type=float, default=math.inf)
    parser.add_argument("--picture", type=Path, help="of the curves, as PNG; needs matplotlib")
    parser.add_argument(
        "--only", action="append", choices=CONTESTANTS, help="leave out others, but for uniform"
    )
    arguments = parser.parse_args()
    names = [name for name in CONTESTANTS if name in {BASELINE, *(arguments.only or CONTESTANTS)}]
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    runs = run_all([(name, seed) for seed in seeds for name in names], arguments)
    print(report(runs, names))
    if arguments.picture:
        picture(runs, names, arguments.picture)


if __name__ == "__main__":
    main()
