"""The conditional GAN in the pipeline: are its conditions followed?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan.config import LimitsConfig
from gan.datasets.splits import load_test, load_train_valid
from gan.errors import ConditionError, ConfigError
from gan.evaluation.condition_accuracy import NO_CLASSES, condition_accuracy
from gan.evaluation.real_images import RealImages
from gan.evaluation.suite import NO_LABELS, Evaluation
from gan.extensions.conditional import ImagesOfConditions, SavedConditional
from gan.metric_names import PARZEN_LL_TEST_BALANCED, PARZEN_LL_TEST_BALANCED_SE
from gan.run import score_samples, unit_pixels
from gan.sampling import save_png, tile
from pipeline.checks import not_available, verdict
from pipeline.gate import Check
from pipeline.product import SEEDED, Asked, Candidate, Card, Column, Exported, Measured, Product
from pipeline.product import Served as ServedModel
from pipeline.products.generator import PAPER, REFERENCE, n_parameters, z_lines
from pipeline.score_groups import MORE, Group

PART = "condition"
N_OF_EACH = 1_000
"""Samples of each class, as of Mirza and Osindero (2014)."""
MAX_CLASSES = 20
PICTURE = "conditions.png"
N_IN_PICTURE = 100


def measure(candidate: Candidate) -> Measured:
    """The accuracy of the classes asked for, where conditions are classes."""
    saved, real, seed = candidate.saved, candidate.real, candidate.seed
    classify = real.log_probabilities
    if saved.n_classes is None or classify is None or saved.n_classes != len(real.class_names):
        return Measured(unavailable={PART: _why_not(saved, real)})
    asked = torch.arange(saved.n_classes).repeat_interleave(N_OF_EACH)
    # A class at a time: all together they may be many.  Each has z of its own.
    answers = [
        classify(saved.draw([k], n=N_OF_EACH, seed=seed + k)).argmax(1)
        for k in range(saved.n_classes)
    ]
    found = condition_accuracy(asked, torch.cat(answers), names=real.class_names)
    details = {
        "n_of_each": N_OF_EACH,
        "lowest_class": found.lowest_class,
        "by_class": {name: score.value for name, score in found.by_class.items()},
    }
    return Measured(scores=(found.accuracy, found.lowest), details={PART: details})


def _why_not(saved: SavedConditional, real: RealImages) -> str:
    if saved.n_classes is None:
        return NO_CLASSES
    if real.log_probabilities is None:
        return NO_LABELS
    return f"the generator knows {saved.n_classes} classes, the images {len(real.class_names)}"


def parzen_of_each_class(candidate: Candidate) -> dict[str, float]:
    """The Parzen score of Mirza and Osindero (2014): of as many samples of each class, on test.

    Empty for a generator without classes, and for one of so many that the scores of others do not
    compare.
    """
    saved, config = candidate.saved, candidate.config
    if saved.n_classes not in range(MAX_CLASSES + 1):
        return {}
    rows = saved.G.conditions.rows.repeat_interleave(N_OF_EACH, 0)
    samples = saved.sampler().sample_given(rows, candidate.seed)
    valid, test = load_train_valid(config.data)[1], load_test(config.data)
    score = score_samples(
        samples, unit_pixels(test), valid=unit_pixels(valid), cfg=config.evaluation
    )
    return {PARZEN_LL_TEST_BALANCED: score.mean, PARZEN_LL_TEST_BALANCED_SE: score.standard_error}


def draw_picture(candidate: Candidate, folder: Path) -> None:
    """Write `conditions.png`, ten samples of a condition in each row."""
    images = candidate.saved.sampler().showcase(N_IN_PICTURE, candidate.seed)
    save_png(tile(images, columns=10), folder / PICTURE, zoom=2)


def findings(evaluation: Evaluation, scores: Mapping[str, float]) -> str:
    """What the accuracy is, and the Parzen score beside that of the source."""
    told = ""
    if together := evaluation.scores.get("condition_accuracy"):
        details = evaluation.details[PART]
        lowest = evaluation.scores["condition_accuracy_lowest"]
        told += (
            f"A classifier that took no part in training puts {100 * together.value:.1f} % of "
            f"{details['n_of_each']:,} samples of each class into the class that was asked for; "
            f"of class {details['lowest_class']}, the worst, {100 * lowest.value:.1f} %. "
        )
    if PARZEN_LL_TEST_BALANCED in scores:
        mean, error = (scores[f"{PARZEN_LL_TEST_BALANCED}{end}"] for end in ("", "_se"))
        told += (
            "By the protocol of Mirza and Osindero (2014), 1,000 samples of each class, the "
            f"Parzen score on test images is {mean:.1f} ± {error:.1f} nats; on MNIST they report "
            "132 ± 1.8."
        )
    return told.strip()


def follows_condition(evaluation: Evaluation, limits: LimitsConfig) -> Check:
    """Samples are of the classes that were asked for, all together and of each class."""
    if evaluation.unavailable.get(PART) == NO_CLASSES:
        return verdict("follows_condition", True, None, None, NO_CLASSES)
    scores = [evaluation.scores.get(f"condition_accuracy{end}") for end in ("", "_lowest")]
    together, lowest = scores
    if together is None or lowest is None:
        return not_available("follows_condition", evaluation, limits, PART)
    name = evaluation.details[PART]["lowest_class"]
    reason = f"{together.value:.1%} of its samples are of the class that was asked for "
    reason += f"(limit {limits.min_condition_accuracy:.0%}), of class {name} "
    reason += f"{lowest.value:.1%} (limit {limits.min_class_accuracy:.0%})"
    passed = together.value >= limits.min_condition_accuracy
    if passed and lowest.value < limits.min_class_accuracy:
        limit = limits.min_class_accuracy
        return verdict("follows_condition", False, lowest.value, limit, reason)
    limit = limits.min_condition_accuracy
    return verdict("follows_condition", passed, together.value, limit, reason)


def _exported(saved: SavedConditional) -> Exported:
    net = ImagesOfConditions(saved.G, image_shape=saved.image_shape)
    z = torch.zeros(2, saved.config.prior.dim)
    return Exported(net=net, examples={"z": z, "condition": saved.G.conditions.rows[[0, 0]]})


def _served(saved: SavedConditional) -> ServedModel:
    is_class = saved.n_classes is not None
    example = 0 if is_class else saved.G.conditions.rows[0].tolist()
    condition = Column(name="condition", kind="long" if is_class else "numbers", example=example)

    def answer(row: Mapping[str, Any]) -> NDArray[np.float32]:
        given = np.atleast_1d(row["condition"]).tolist()
        images: NDArray[np.float32] = saved.draw(given, n=row["n"], seed=row["seed"]).numpy()
        return images

    return ServedModel(
        columns=(*SEEDED, condition),
        answer_shape=saved.image_shape,
        answer=answer,
        count=lambda row: int(row["n"]),
    )


def _draw(saved: SavedConditional, asked: Asked) -> Tensor:
    """Samples of the condition that was asked for; of none, of conditions as in the data."""
    asked.require_options("condition")
    text = asked.options.get("condition")
    if text is None:
        return saved.sampler().sample(asked.n, asked.seed)
    try:
        given = [float(part) for part in text.split(",")]
        return saved.draw(given, n=asked.n, seed=asked.seed)
    except ValueError as error:
        raise ConfigError([f"--condition takes numbers, got {text!r}"]) from error
    except ConditionError as error:
        raise ConfigError([f"--condition: {error}"]) from error


def _card(saved: SavedConditional) -> Card:
    rows, n_classes = saved.G.conditions.rows, saved.n_classes
    prior, width = saved.config.prior, rows.shape[1]
    shape = ", ".join(map(str, saved.image_shape))
    limits = ["Not every sample is of the condition that was asked for."]
    if n_classes is not None:
        what, example = f"a class from 0 to {n_classes - 1}", str(n_classes - 1)
        chosen = f"condition[:, {example}] = 1  # the class\n"
    else:
        what, chosen = f"a vector of {width} numbers", ""
        example = ",".join(f"{value:.3g}" for value in rows[0].tolist())
        limits.append(
            "The weights hold up to 10,000 conditions of training images, to draw from where "
            "none is given."
        )
    return Card(
        heading="Conditional generator",
        what=f"The generator G of conditional generative adversarial nets "
        f"{PAPER.removesuffix(')')}, section 7; Mirza and Osindero, 2014): a multilayer "
        f"perceptron of {n_parameters(saved)} parameters. It turns noise z ({prior.dim} "
        f"coordinates, prior `{prior.kind}`) and a condition ({what}) into images",
        caption="Ten samples of a condition in each row, all of seed {seed}; none was picked.",
        scores=(
            "`condition_accuracy` is the share of samples, as many of each class, that an "
            "independent classifier\nputs into the class that was asked for, "
            "`condition_accuracy_lowest` that of the worst class.",
        )
        if n_classes is not None
        else (),
        options=f" --condition {example}",
        python=f"condition = generator.condition_rows([{example.replace(',', ', ')}])  "
        f"# [1, {width}]\nimages = generator.sampler().sample_given(\n"
        f"    condition.expand(64, -1), seed=0\n)  # [64, {shape}], float32 in [0, 1]",
        onnx=f"{z_lines(prior)}\ncondition = np.zeros((n, {width}))\n{chosen}"
        '(images,) = session.run(\n    ["images"],\n'
        '    {"z": z.astype(np.float32), "condition": condition.astype(np.float32)},\n'
        f")  # [64, {shape}]",
        use=REFERENCE,
        limits=tuple(limits),
    )


CONDITIONAL = Product(
    title="Conditional GAN, p(x | c)",
    picture=PICTURE,
    caption="Ten samples of a condition in each row, in the order in which they came.",
    headline=(
        "condition_accuracy_valid",
        "condition_accuracy_lowest_valid",
        PARZEN_LL_TEST_BALANCED,
    ),
    groups=(
        Group(
            title="Conditions",
            reading="Whether samples are of the class that was asked for, by the answers of a "
            "classifier that took no part in training: the mean over the classes, and the worst "
            "one.",
            good={"condition_accuracy": MORE, "condition_accuracy_lowest": MORE},
            checked_by={
                "condition_accuracy": "follows_condition",
                "condition_accuracy_lowest": "follows_condition",
            },
        ),
    ),
    measure=measure,
    measure_test=parzen_of_each_class,
    findings=findings,
    draw_picture=draw_picture,
    checks=lambda evaluation, limits: [follows_condition(evaluation, limits)],
    exported=_exported,
    served=_served,
    draw=_draw,
    card=_card,
)
