"""Completions by a shared model beside nearest-neighbour and mean completion: the README's table.

    python -m tests.benchmarks.bench_completion mnist-shared-conditional@champion --split test

Each cell has the model's own score, that of nearest-neighbour completion and that of mean
completion, on the same images under the same masks; see `gan.evaluation.completion`.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch

from gan.evaluation.score import Score
from gan.masks import GROUPS
from gan.randomness import scored_seed
from pipeline.evaluation import extractors_folder
from pipeline.product import Candidate
from pipeline.products.shared_conditional import PART, measure
from pipeline.sample_files import load_model

COLUMNS = {
    "ll": ("nats a hidden pixel", ".3f"),
    "agreement": ("right class", ".1%"),
    "squared_error": ("squared error", ".4f"),
}


def table(scores: Mapping[str, Score]) -> str:
    """Markdown: a row for each group of masks, own / nearest / mean in each cell."""
    heads = [f"{head}: own / nearest / mean" for head, _ in COLUMNS.values()]
    lines = [
        f"| visible | {' | '.join(heads)} | class of draws | diversity |",
        "|---" * (len(heads) + 3) + "|",
    ]
    for group in GROUPS:
        cells = []
        for quantity, (_, form) in COLUMNS.items():
            own, *simple = (
                scores[f"completion_{quantity}_{group}{end}"] for end in ("", "_nearest", "_mean")
            )
            told = " / ".join(f"{score.value:{form}}" for score in simple)
            cells.append(f"{own.value:{form}} ± {own.standard_error or 0:{form}} / {told}")
        drawn = scores[f"completion_drawn_agreement_{group}"].value
        diversity = scores[f"completion_diversity_{group}"].value
        name = group.replace("_", " ")
        lines.append(f"| {name} | {' | '.join(cells)} | {drawn:.1%} | {diversity:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of an artifact, or NAME[@ALIAS]")
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    saved = load_model(given.model)
    if saved.config.task != "shared_conditional":
        raise SystemExit(f"{given.model} must be of shared_conditional, got {saved.config.task}")
    candidate = Candidate(
        saved=saved,
        config=saved.config,
        split=given.split,
        extractors=extractors_folder(Path("runs/any")),
        seed=scored_seed(saved.config.seed),
    )
    found = measure(candidate)
    if PART in found.unavailable:
        raise SystemExit(f"it cannot be scored: {found.unavailable[PART]}")
    scores = {score.name: score for score in found.scores}
    print(table(scores))
    for name in ("completion_ll", "classification_error"):
        print(
            f"{name}_{given.split}: {scores[name].value:.4f} ± {scores[name].standard_error:.4f}"
        )
    print(found.details[PART])


if __name__ == "__main__":
    main()
