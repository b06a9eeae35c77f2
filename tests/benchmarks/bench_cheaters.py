"""What every check says of samples that cheat, and of fresh real images.

    python -m tests.benchmarks.bench_cheaters --draws 20

The sample sets of `gan.evaluation.cheaters` are made of MNIST's training and test images and
scored on the validation split by the whole suite.  Each must be refused but the honest ones: all
test images, and halves of them, as many as `--draws` says; the exit status tells.  Printed as
Markdown: a row a set with the scores that the checks look at and the checks that refuse it, then
every score of every set.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gan.config import DataConfig, EvaluationConfig, LimitsConfig
from gan.datasets.splits import load_test
from gan.evaluation.cheaters import CHEATERS, Material
from gan.evaluation.real_images import RealImages
from gan.evaluation.suite import Evaluation, evaluate
from gan.randomness import stream
from gan.run import unit_pixels
from pipeline.checks import sample_checks
from pipeline.evaluation import real_images

COLUMNS = (
    ("Parzen", "parzen_ll", "{:.0f}"),
    ("Fréchet", "frechet_distance", "{:.2f}"),
    ("precision", "precision", "{:.2f}"),
    ("coverage", "coverage", "{:.2f}"),
    ("C_T", "copying_c_t", "{:+.1f}"),
    ("authentic", "authenticity", "{:.2f}"),
    ("in pixels", "authenticity_pixels", "{:.2f}"),
    ("copies", "copy_share", "{:.3f}"),
    ("repeats", "repeat_share", "{:.2f}"),
    ("outliers", "outlier_share", "{:.3f}"),
    ("grey", "grey_share", "{:.3f}"),
)
SIZES = {"class_missing": 8_000, "class_starved": 9_000}
"""Of sets that 10,000 test images do not give 10,000 of."""


def images() -> tuple[RealImages, Material]:
    """MNIST to score by, and MNIST to cheat with."""
    data = DataConfig()
    with tempfile.TemporaryDirectory() as folder:  # which stays empty: the classifier is shipped
        real = real_images(data, EvaluationConfig(), split="valid", extractors=Path(folder))
    test = load_test(data)
    assert test.labels is not None
    fresh, labels = unit_pixels(test).float(), torch.from_numpy(test.labels)
    return real, Material(train=real.train, fresh=fresh, fresh_labels=labels)


def half(material: Material, *, draw: int) -> Tensor:
    """Half of the fresh images: draws 2 i and 2 i + 1 share none, others share half of theirs."""
    split = stream(draw // 2, "bench_cheaters/halves")
    return material.fresh[torch.randperm(len(material.fresh), generator=split).chunk(2)[draw % 2]]


def judge(samples: Tensor, real: RealImages, *, seed: int) -> tuple[Evaluation, list[str]]:
    """Every score of the samples, and the names of the checks that refuse them."""
    evaluation = evaluate(samples, real, seed=seed)
    checks = sample_checks(evaluation, LimitsConfig())
    return evaluation, [check.name for check in checks if not check.passed]


def row(name: str, evaluation: Evaluation, refused_by: list[str]) -> str:
    """One row of the first table."""
    scores = [
        form.format(evaluation.scores[score].value) if score in evaluation.scores else "-"
        for _, score, form in COLUMNS
    ]
    return f"| {name} | {' | '.join(scores)} | {', '.join(refused_by) or 'passes'} |"


def heading(names: list[str]) -> str:
    """Heading and rule of a table whose first column says what a row is."""
    return f"| {' | '.join(names)} |\n|---{'|---' * (len(names) - 1)}|"


def every_score(evaluations: Mapping[str, Evaluation]) -> str:
    """The second table: a row a score, a column a set."""
    names = dict.fromkeys(name for e in evaluations.values() for name in e.scores)
    lines = [heading(["score", *(name.replace("_", " ") for name in evaluations)])]
    for name in names:
        values = [e.scores[name].value if name in e.scores else None for e in evaluations.values()]
        shown = ("-" if value is None else f"{value:.3g}" for value in values)
        lines.append(f"| `{name}` | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2, help="halves of the fresh real images")
    parser.add_argument("--only", action="append", help="leave out the other cheaters")
    arguments = parser.parse_args()

    real, material = images()
    print(heading(["samples", *(title for title, _, _ in COLUMNS), "refused by"]))

    def judged(description: str, samples: Tensor) -> tuple[Evaluation, bool]:
        started = time.perf_counter()
        evaluation, refused_by = judge(samples, real, seed=0)
        print(row(description, evaluation, refused_by), flush=True)
        print(f"  {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        return evaluation, bool(refused_by)

    n_wrong = 0
    for draw in range(arguments.draws):
        _, is_refused = judged(f"half of the real images, draw {draw}", half(material, draw=draw))
        n_wrong += is_refused
    evaluations: dict[str, Evaluation] = {}
    evaluations["honest"], is_refused = judged("real images", material.fresh)
    n_wrong += is_refused
    for name, cheater in CHEATERS.items():
        if not arguments.only or name in arguments.only:
            samples = cheater.make(material, n=SIZES.get(name, 10_000), seed=0)
            evaluations[name], is_refused = judged(cheater.description, samples)
            n_wrong += not is_refused
    print(f"\n{every_score(evaluations)}")
    if n_wrong:
        sys.exit(f"{n_wrong} of {arguments.draws + len(evaluations)} sets were judged wrongly")


if __name__ == "__main__":
    main()
