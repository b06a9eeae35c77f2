"""Errors on the 10,000 test images of MNIST by number of labels, over seeds.

    python -m tests.benchmarks.bench_semi_supervised --labels 20,50,100,200,1000 --seeds 10 \
        --device cuda --output semi_supervised.json

Feature matching, and beside it D alone on the same labels with the same noise and settings
(`supervised`).  All label counts and seeds of a method train side by side, each with labels of
its own that are drawn once by its seed.  The number of steps is fixed before training begins, by
`--steps` or by the measured time of a step and `--budget-seconds`; nothing is stopped or chosen by
any label beyond the few.  The test images are opened once, after the last step.  The validation
errors in the output are a record of training, which nothing reads.

`--check` first trains 200 steps of five runs as they are and 200 as they are captured on a GPU,
and compares both.  `--choose-seconds` tries settings on seeds of its own and takes those of the
fewest validation errors.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gan.config import RunConfig, load_config, read_yaml, to_dict, with_overrides
from gan.datasets.images import ImageSet
from gan.datasets.splits import load_test, load_train_valid
from gan.extensions.semi_supervised.feature_matching import FeatureMatching, supervised_config
from gan.extensions.semi_supervised.few_labels import draw_few, hide
from gan.extensions.semi_supervised.nets import classify

PRESET = Path(__file__).parents[2] / "pipeline" / "presets" / "semi_supervised.yaml"
"""The settings, but for those that are given."""

SOURCE = {20: "1677 ± 452", 50: "221 ± 136", 100: "93 ± 6.5", 200: "90 ± 4.2"}
"""Errors by Salimans et al. (2016), table 1: 300 epochs, ten seeds, 60,000 training images."""

Lane = tuple[int, int]
"""Labels and seed of one run."""

CANDIDATES: list[dict[str, Any]] = [
    {},
    {"train.learning_rate": 0.0015},
    {"train.learning_rate": 0.006},
    {"train.d_learning_rate": 0.001},
    {"semi_supervised.noise_hidden": 0.5},
    {"semi_supervised.unlabelled_weight": 3.0},
    {"semi_supervised.init_from_data": True, "train.adam_epsilon": 1e-4},
]
"""Settings that `--choose-seconds` tries."""

CHOICE_LANES: list[Lane] = [(100, seed) for seed in range(1_000, 1_005)]
"""Settings are tried on seeds of which none is reported."""

CHOICE_READINGS = 5
CHECK_STEPS, TIMED_STEPS = 200, 100


def start(
    cfg: RunConfig, lanes: Sequence[Lane], images: ImageSet, device: str, *, supervised: bool
) -> FeatureMatching:
    """All lanes at step 0."""
    assert images.labels is not None
    few = [hide(images, draw_few(images.labels, n, seed=seed)) for n, seed in lanes]
    seeds = [seed for _, seed in lanes]
    return FeatureMatching(cfg, few, seeds=seeds, device=device, is_supervised=supervised)


def capture(run: FeatureMatching) -> None:
    """Capture a step on a GPU; where that fails, say why, and train as it is."""
    if run.device.type != "cuda":
        return
    try:
        run.capture()
    except RuntimeError as error:
        print(f"a step could not be captured, training goes on without: {error}", flush=True)


def synchronised(device: str) -> float:
    """The time at which all work of the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def advance(run: FeatureMatching, n_steps: int, device: str) -> float:
    """Train and return the milliseconds of a step."""
    started_at = synchronised(device)
    for _ in range(n_steps):
        run.advance()
    return 1_000 * (synchronised(device) - started_at) / n_steps


def check(cfg: RunConfig, images: ImageSet, device: str) -> None:
    """Losses and times of the first steps, as they are and as they are captured."""
    losses = []
    for is_captured in (False, True):
        run = start(cfg, CHOICE_LANES, images, device, supervised=False)
        if is_captured:
            capture(run)
        n_steps = CHECK_STEPS - run.step
        milliseconds = advance(run, n_steps, device)
        losses.append(run.read_losses() / CHECK_STEPS)
        name = "captured" if is_captured else "as it is"
        print(f"{name}: {milliseconds:.2f} ms a step, losses {losses[-1].mean(1).tolist()}")
    difference = (losses[0] - losses[1]).abs() / losses[0].abs().clamp(min=1e-3)
    print(f"largest relative difference of a lane's losses: {difference.max():.2e}", flush=True)


def errors(run: FeatureMatching, images: ImageSet) -> list[int]:
    """Wrong answers of each lane, by its average if there is one."""
    assert images.labels is not None
    pixels = torch.from_numpy(images.images).flatten(1).to(run.device)
    D, _ = run.nets()
    answers = classify(D, pixels).argmax(2).cpu().numpy()
    wrong: list[int] = (answers != images.labels).sum(1).tolist()
    return wrong


class Results:
    """What is known so far, as a JSON file and as a table."""

    def __init__(self, path: Path | None, lanes: Sequence[Lane]) -> None:
        self.path, self.lanes = path, lanes
        self.facts: dict[str, Any] = {"lanes": [list(lane) for lane in lanes], "methods": {}}

    def note(self, **facts: Any) -> None:
        """Keep facts of the whole run."""
        self.facts |= facts
        self._write()

    def record(self, method: str, **facts: Any) -> None:
        """Keep facts of one method."""
        self.facts["methods"].setdefault(method, {}).update(facts)
        self._write()

    def table(self) -> str:
        """Errors on the test images: mean and standard deviation over seeds, and each seed's."""
        lines = [
            "| labels | method | errors of 10,000 | Salimans et al. (2016) | by seed |",
            "|---|---|---|---|---|",
        ]
        for n in sorted({n for n, _ in self.lanes}):
            for method, facts in self.facts["methods"].items():
                wrong = facts.get("test_errors", [])
                own = [e for (labels, _), e in zip(self.lanes, wrong, strict=False) if labels == n]
                if not own:
                    continue
                spread = f" ± {statistics.stdev(own):.1f}" if len(own) > 1 else ""
                theirs = SOURCE.get(n, "") if method == "feature_matching" else ""
                lines.append(
                    f"| {n} | {method} | {statistics.mean(own):.1f}{spread} | {theirs} "
                    f"| {', '.join(map(str, own))} |"
                )
        return "\n".join(lines)

    def _write(self) -> None:
        if self.path is not None:
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.facts, indent=1) + "\n")
            part.replace(self.path)


def train(
    run: FeatureMatching, method: str, results: Results, valid: ImageSet, device: str
) -> None:
    """Train to the last step, with a record of losses and validation errors on the way."""
    n_steps = run.config.train.n_steps
    report_every, history = max(1, n_steps // 20), []
    run.read_losses()
    started_at = synchronised(device)
    while run.step < n_steps:
        n = min(report_every, n_steps - run.step)
        n -= run.step % report_every if run.step % report_every < n else 0
        for _ in range(n):
            run.advance()
        losses = (run.read_losses() / n).T.tolist()
        seconds = synchronised(device) - started_at
        wrong = errors(run, valid)
        history.append({"step": run.step, "seconds": seconds, "valid": wrong, "losses": losses})
        results.record(method, n_steps=n_steps, history=history, seconds=seconds)
        n_failed = sum(not np.isfinite(of_lane).all() for of_lane in losses)
        print(
            f"{method} step {run.step} of {n_steps}, {seconds:.0f} s, valid errors "
            f"{statistics.mean(wrong):.0f}, {n_failed} lanes not finite",
            flush=True,
        )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", default="20,50,100,200,1000", help="numbers of labels")
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0, 1, ... of each")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--steps", type=int, help="of feature matching, at most")
    parser.add_argument(
        "--budget-seconds", type=float, help="of feature matching: fewer steps if they take longer"
    )
    parser.add_argument(
        "--choose-seconds",
        type=float,
        help="try settings on other seeds for so long, and train with those of the fewest "
        "validation errors",
    )
    parser.add_argument(
        "--chosen-from", type=Path, help="train with the settings that this output has as chosen"
    )
    parser.add_argument("--set", nargs="*", default=[], help="train.learning_rate=0.002 and so on")
    parser.add_argument(
        "--output", type=Path, help="JSON file of all results, rewritten as it goes"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    parser.add_argument(
        "--without-test", action="store_true", help="to try settings: validation errors alone"
    )
    parser.add_argument("--check", action="store_true", help="compare captured and other steps")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    if args.device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32
    overrides = {path: read_yaml(text) for path, text in (s.split("=", 1) for s in args.set)}
    steps = {} if args.steps is None else {"train.n_steps": args.steps}
    cfg = with_overrides(load_config(read_yaml(PRESET.read_text())).base, steps | overrides)
    images, valid = load_train_valid(cfg.data)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    lanes = [(int(n), seed) for n in args.labels.split(",") for seed in seeds]

    if args.check:
        check(cfg, images, args.device)
    results = Results(args.output, lanes)
    if args.choose_seconds:
        chosen, tried = choose(cfg, images, valid, seconds=args.choose_seconds, device=args.device)
        results.note(chosen=chosen, tried=tried)
        cfg = with_overrides(cfg, chosen)
    if args.chosen_from:
        chosen = json.loads(args.chosen_from.read_text())["chosen"]
        results.note(chosen=chosen)
        cfg = with_overrides(cfg, chosen)

    def make(cfg: RunConfig = cfg, *, supervised: bool = False) -> FeatureMatching:
        return start(cfg, lanes, images, args.device, supervised=supervised)

    results.note(torch=torch.__version__, device=device_name(args.device), config=to_dict(cfg))
    methods = {"supervised": supervised_config(cfg), "feature_matching": cfg}
    for method, of_method in methods.items():
        is_supervised = method == "supervised"
        run = make(of_method, supervised=is_supervised)
        capture(run)
        if not is_supervised and args.budget_seconds:
            fit_steps(run, args.budget_seconds, args.device)
        train(run, method, results, valid, args.device)
        if not args.without_test:
            results.record(method, test_errors=errors(run, load_test(cfg.data)))
            print(results.table(), flush=True)


def fit_steps(run: FeatureMatching, budget_seconds: float, device: str) -> None:
    """Let a run end after as many steps as the budget has time for, by the time of the first.

    So early the step size does not depend on when the last step is.
    """
    train = run.config.train
    milliseconds = advance(run, TIMED_STEPS, device)
    n_steps = min(train.n_steps, int(1_000 * budget_seconds / milliseconds))
    n_steps = max(n_steps, 4 * run.step)
    print(f"{milliseconds:.2f} ms a step: {n_steps} steps of {train.n_steps}", flush=True)
    run.config = dataclasses.replace(run.config, train=dataclasses.replace(train, n_steps=n_steps))


def choose(
    cfg: RunConfig, images: ImageSet, valid: ImageSet, *, seconds: float, device: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The candidate of the fewest validation errors on seeds of its own, and all that were tried.

    Each is trained for as many steps as its share of the time has room for, to a step size of 0.
    """
    tried: list[dict[str, Any]] = []
    for candidate in CANDIDATES:
        own = with_overrides(cfg, candidate)
        run = start(own, CHOICE_LANES, images, device, supervised=False)
        capture(run)
        fit_steps(run, seconds / len(CANDIDATES), device)
        n_steps = run.config.train.n_steps
        curve = []
        while run.step < n_steps:
            n = min(n_steps // CHOICE_READINGS, n_steps - run.step)
            advance(run, n, device)
            losses = (run.read_losses() / n).mean(1).tolist()
            curve.append([run.step, statistics.mean(errors(run, valid)), *losses])
        wrong = errors(run, valid)
        tried.append({"settings": candidate, "n_steps": n_steps, "valid": wrong, "curve": curve})
        print(f"tried {json.dumps(tried[-1])}", flush=True)
    best = min(range(len(tried)), key=lambda i: statistics.mean(tried[i]["valid"]))
    return CANDIDATES[best], tried


def device_name(device: str) -> str:
    """For people."""
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


if __name__ == "__main__":
    main()
