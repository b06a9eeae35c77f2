"""What every check says of samples that cheat, and of fresh real images.

    python -m tests.benchmarks.bench_cheaters

The sample sets of `gan.evaluation.cheaters` are made of MNIST's training and test images and
scored on the validation split by the whole suite.  Printed is one row a set as a Markdown table:
the scores that the checks look at, and the checks that refuse it.  Each must be refused but the
first, fresh test images, drawn anew as often as `--draws` says; the exit status tells.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from gan.config import DataConfig
from gan.datasets.splits import load_test
from gan.evaluation.cheaters import CHEATERS, Material, honest
from gan.evaluation.suite import Evaluation, evaluate
from gan.run import unit_pixels
from pipeline.checks import Limits, quality_checks
from pipeline.evaluation import real_images

COLUMNS = (
    ("Parzen", "parzen_ll", "{:.0f}"),
    ("Fréchet", "frechet_distance", "{:.2f}"),
    ("precision", "precision", "{:.2f}"),
    ("coverage", "coverage", "{:.2f}"),
    ("C_T", "copying_c_t", "{:+.1f}"),
    ("authentic", "authenticity", "{:.2f}"),
    ("repeats", "repeat_share", "{:.2f}"),
    ("outliers", "outlier_share", "{:.3f}"),
    ("grey", "grey_share", "{:.3f}"),
)
SIZES = {"class_missing": 8_000, "class_starved": 9_000}
"""Where 10,000 test images without most of a class are not 10,000."""


def row(name: str, evaluation: Evaluation, refused_by: list[str]) -> str:
    """One row of the table."""
    scores = [
        form.format(evaluation.scores[score].value) if score in evaluation.scores else "-"
        for _, score, form in COLUMNS
    ]
    return f"| {name} | {' | '.join(scores)} | {', '.join(refused_by) or 'passes'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1, help="of fresh real images")
    parser.add_argument("--only", action="append", help="leave out the other cheaters")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as cache:
        real = real_images(DataConfig(), split="valid", cache=Path(cache))
    test = load_test(DataConfig())
    assert test.labels is not None
    material = Material(
        train=real.train,
        fresh=unit_pixels(test).float(),
        fresh_labels=torch.from_numpy(test.labels),
    )
    headings = [heading for heading, _, _ in COLUMNS]
    print(f"| samples | {' | '.join(headings)} | refused by |")
    print(f"|---{'|---' * len(headings)}|---|")
    sets = [("real images", honest, seed) for seed in range(arguments.draws)]
    sets += [
        (cheater.description, cheater.make, 0)
        for name, cheater in CHEATERS.items()
        if not arguments.only or name in arguments.only
    ]
    sizes = {CHEATERS[name].description: n for name, n in SIZES.items()}
    n_wrong = 0
    for name, make, seed in sets:
        # Real images are drawn with some left out, so that draws differ.
        samples = make(material, n=sizes.get(name, 9_000 if make is honest else 10_000), seed=seed)
        started = time.perf_counter()
        evaluation = evaluate(samples, real, seed=seed)
        seconds = time.perf_counter() - started
        checks = quality_checks(evaluation, Limits())
        refused_by = [check.name for check in checks if not check.passed]
        n_wrong += bool(refused_by) == (make is honest)
        print(row(name, evaluation, refused_by), flush=True)
        print(f"  {seconds:.0f} s", file=sys.stderr, flush=True)
    if n_wrong:
        sys.exit(f"{n_wrong} of {len(sets)} sets were judged wrongly")


if __name__ == "__main__":
    main()
