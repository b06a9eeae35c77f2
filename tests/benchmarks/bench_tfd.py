"""The column TFD of Table 1: the released two-stage recipe on the five folds of the database.

    python -m tests.benchmarks.bench_tfd TFD_48x48.mat --device cuda --output tfd.json
    python -m tests.benchmarks.bench_tfd FILE.mat --small --picture tfd.png

The settings are those of the presets `tfd` and `tfd_prior`: a generator, and a net below its z,
each scored.  `--small` is the same recipe in nets that train in
a minute or two on a CPU core, to see that all of it works; a file that is too small to be the
database is told apart, and then, as with `--small`, no number is comparable with the paper's.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

from gan.config import read_yaml
from gan.datasets.tfd import stand_in_notice
from gan.folds import FoldScore, over_folds, score_folds
from gan.sampling import save_png, tile
from pipeline.paper.faces import PAPER, SMALL_NOTICE, TITLES, Settings, recipe

N_SHOWN, COLUMNS = 60, 10


def table(title: str, scores: Sequence[FoldScore]) -> str:
    """A line for each fold, and the mean with its standard error over folds, as Markdown."""
    lines = [
        f"{title}:\n",
        "| fold | sigma | valid, nats | test, nats | images |",
        "|---" * 5 + "|",
    ]
    for s in scores:
        test = f"{s.parzen_ll_test:.1f} ± {s.parzen_ll_test_se:.1f}"
        images = f"{s.n_unlabeled:,}, {s.n_valid}, {s.n_test}"
        lines.append(f"| {s.fold} | {s.sigma:.3f} | {s.parzen_ll_valid:.1f} | {test} | {images} |")
    if len(scores) > 1:
        mean, error = over_folds([s.parzen_ll_test for s in scores])
        lines.append(f"| all | | | **{mean:.1f} ± {error:.1f}** | |")
    return "\n".join(lines)


def record(scores: Sequence[FoldScore]) -> Settings:
    """The scores, and what Table 1 has of them, as JSON values."""
    facts: Settings = {"folds": [dataclasses.asdict(score) for score in scores]}
    if len(scores) > 1:
        mean, error = over_folds([score.parzen_ll_test for score in scores])
        facts |= {"mean": mean, "standard_error": error}
    return facts


def notices(scores: Sequence[FoldScore], *, is_small: bool) -> list[str]:
    """Why the numbers may not stand beside the paper's."""
    found = [stand_in_notice(scores[0].n_unlabeled), SMALL_NOTICE if is_small else None]
    return [notice for notice in found if notice is not None]


def main() -> None:
    """Train, score and print both stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--folds", type=int, nargs="+", default=range(5))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], help="train.n_steps=2000 and so on, of both"
    )
    parser.add_argument("--output", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    settings = {"seed": arguments.seed} | {
        path: read_yaml(text) for path, text in (s.split("=", 1) for s in arguments.set)
    }
    stages = recipe(str(arguments.file), is_small=arguments.small, settings=settings)
    facts: Settings = {"paper": PAPER}
    started, scored, generators = time.perf_counter(), [], []
    for scores, generators in score_folds(  # noqa: B007 (of the last fold)
        stages, device=arguments.device, folds=arguments.folds
    ):
        scored.append(scores)
        print(f"fold {scores[0].fold}: {time.perf_counter() - started:.0f} seconds", flush=True)
    why_not = notices(scored[0], is_small=arguments.small)
    facts["notices"] = why_not
    for title, of_stage in zip(TITLES, zip(*scored, strict=True), strict=True):
        facts[title] = record(of_stage)
        print("", table(title, of_stage), *why_not, sep="\n")
    if arguments.picture:
        for saved, suffix in zip(generators, ("", "_prior"), strict=True):
            path = arguments.picture.with_stem(arguments.picture.stem + suffix)
            images = saved.sampler().showcase(N_SHOWN, seed=arguments.seed)
            save_png(tile(images, columns=COLUMNS), path, zoom=2)
    if arguments.output:
        arguments.output.write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
