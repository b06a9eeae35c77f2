"""The shared model of all conditionals in the pipeline: does it beat simple completions?"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from gan.config import LimitsConfig
from gan.datasets.files import read_array, read_image
from gan.datasets.images import ImageShape
from gan.datasets.splits import load_train_valid
from gan.errors import ConditionError, ConfigError, DatasetError
from gan.evaluation.completion import (
    N_DRAWS,
    Comparison,
    CompletionScores,
    Known,
    Questions,
    compare,
    questions,
)
from gan.evaluation.score import Score, normal_score, proportion_score
from gan.evaluation.suite import Evaluation
from gan.extensions.shared_conditional.saved import CompletedImages, SavedShared
from gan.extensions.shared_conditional.scores import (
    QUESTION_SEED,
    answer_by,
    best_answer,
    classification_errors,
    completion_log_likelihoods,
    labelled,
    ways_of,
)
from gan.masks import GROUPS, MASKS, draw_masks
from gan.metric_names import COMPLETION_LL_VALID
from gan.randomness import stream
from pipeline.checks import not_available, verdict
from pipeline.completion_picture import completion_picture
from pipeline.gate import Check
from pipeline.product import (
    SEEDED,
    Asked,
    Candidate,
    Card,
    Column,
    Exported,
    Measured,
    Product,
    Served,
    Values,
)
from pipeline.products.generator import PAPER, REFERENCE, n_parameters, z_lines
from pipeline.score_groups import LESS, MORE, NONE, Group

PART = "completion"
N_CHOOSING, N_SCORED = 250, 500
"""Images that choose sigma and the number of neighbours, and images that are scored."""
GATED = (
    "half",
    "quarter",
    "without_quarter",
    "random_25",
    "random_50",
    "random_75",
    "without_centre",
)
"""Groups of masks that leave a quarter of an image visible, or more."""
QUANTITIES = ("ll", "agreement", "squared_error", "diversity")
PICTURE = "completions.png"
ROWS_OF_EACH, SHOWN = 2, 10
"""Of the picture: images under a kind of mask, and completions of each."""


def measure(candidate: Candidate) -> Measured:
    """Every group of masks beside the simple ways, and classification, on the candidate's split.

    What is chosen (widths, numbers of neighbours) is chosen on validation images in any case.
    """
    log_probabilities = candidate.real.log_probabilities
    if log_probabilities is None:  # the model itself needs labels, so it was trained on others
        return Measured(unavailable={PART: "the data set has no labels"})
    sampler = candidate.saved.sampler()
    train, labels = labelled(candidate.train)
    known = Known(
        train=train, labels=labels, classify=lambda images: log_probabilities(images).argmax(1)
    )
    ways, best = ways_of(sampler, seed=candidate.seed), best_answer(sampler)
    found = {
        group: compare(choosing, scored, ways=ways, best=best, known=known)
        for group, (choosing, scored) in _questions(candidate).items()
    }
    own = torch.stack([comparison.own.log_likelihoods for comparison in found.values()]).mean(0)
    wrong = classification_errors(sampler, *labelled(candidate.scored))
    scores = [
        _renamed(score, name) for group in found for name, score in _named(group, found[group])
    ]
    error = own.std().item() / math.sqrt(len(own))
    scores.append(normal_score("completion_ll", own.mean().item(), error, unit="nats/pixel"))
    scores.append(proportion_score("classification_error", int(wrong.sum()), len(wrong)))
    details = {
        "n_images": len(own),
        "n_draws": N_DRAWS,
        "z_scale": {group: one.way for group, one in found.items()},
        "sigma": {group: one.own.sigma for group, one in found.items()},
        "n_nearest": {group: one.nearest.n_draws for group, one in found.items()},
    }
    return Measured(scores=scores, details={PART: details})


def _questions(candidate: Candidate) -> dict[str, tuple[Questions, Questions]]:
    """By group of masks: validation images that choose, and images of the split to be scored."""
    valid = labelled(load_train_valid(candidate.config.data)[1])
    n_choosing = min(N_CHOOSING, len(valid[0]) // 3)
    n = min(n_choosing + N_SCORED, len(valid[0]))
    asked = questions(*valid, n=n, seed=QUESTION_SEED)
    if candidate.split == "valid":
        return {
            group: (one.part(0, n_choosing), one.part(n_choosing, n))
            for group, one in asked.items()
        }
    scored = questions(*labelled(candidate.scored), n=N_SCORED, seed=QUESTION_SEED)
    return {group: (one.part(0, n_choosing), scored[group]) for group, one in asked.items()}


def _named(group: str, found: Comparison) -> list[tuple[str, Score]]:
    """Its own scores, and those of the simple ways."""
    ways = {"": found.own, "_nearest": found.nearest, "_mean": found.mean}
    named = [
        (f"completion_{quantity}_{group}{end}", _quantity(scores, quantity))
        for quantity in QUANTITIES
        for end, scores in ways.items()
    ]
    return [*named, (f"completion_drawn_agreement_{group}", found.own.drawn_agreement)]


def _quantity(scores: CompletionScores, quantity: str) -> Score:
    return {
        "ll": scores.log_likelihood,
        "agreement": scores.agreement,
        "squared_error": scores.squared_error,
        "diversity": scores.diversity,
    }[quantity]


def _renamed(score: Score, name: str) -> Score:
    return dataclasses.replace(score, name=name)


def measure_test(candidate: Candidate) -> dict[str, float]:
    """The same of test images, by metric name."""
    return measure(dataclasses.replace(candidate, split="test")).by_metric_name("test")


def values(candidate: Candidate) -> Values:
    """The log-likelihood of each scored image, over all groups of masks."""
    sampler = candidate.saved.sampler()
    found = completion_log_likelihoods(sampler, _questions(candidate), seed=candidate.seed)
    return {COMPLETION_LL_VALID: found.numpy()}


def findings(evaluation: Evaluation, scores: Mapping[str, float]) -> str:
    """How often it is better than the simple ways, and how well it classifies."""
    if "classification_error" not in evaluation.scores:
        return ""
    gains = {q: [_gain(evaluation, q, group) for group in GATED] for q in ("ll", "agreement")}
    better = {quantity: sum(gain > 0 for gain in found) for quantity, found in gains.items()}
    told = (
        f"Of {len(GATED)} groups of masks that leave a quarter of an image visible or more, the "
        f"hidden pixels are likelier than under nearest-neighbour and mean completion in "
        f"{better['ll']}, and more completions are of the right class in {better['agreement']}. "
        f"With all pixels visible it puts "
        f"{100 * evaluation.scores['classification_error'].value:.2f} % of validation images into "
        "another class than theirs"
    )
    if (on_test := scores.get("classification_error_test")) is not None:
        told += f", of test images {100 * on_test:.2f} %"
    return f"{told}."


def _gain(evaluation: Evaluation, quantity: str, group: str) -> float:
    """By how much the own score is above that of the better simple way."""
    own, *simple = (
        evaluation.scores[f"completion_{quantity}_{group}{end}"].value
        for end in ("", "_nearest", "_mean")
    )
    return own - max(simple)


def draw_picture(candidate: Candidate, folder: Path) -> None:
    """Write `completions.png`: validation images under each kind of mask, none of them picked."""
    asked = {
        group: scored.part(2 * i, 2 * i + ROWS_OF_EACH)
        for i, (group, (_, scored)) in enumerate(_questions(candidate).items())
    }
    answer = answer_by(candidate.saved.sampler(), seed=candidate.seed)
    completions = {group: answer(one, 0)[:, :SHOWN] for group, one in asked.items()}
    completion_picture(asked, completions, folder / PICTURE)


def completes_likelier(evaluation: Evaluation, limits: LimitsConfig) -> Check:
    """Hidden pixels are likelier than under nearest-neighbour and mean completion."""
    return _gains(
        evaluation,
        limits,
        name="completes_likelier",
        quantity="ll",
        limit=limits.min_completion_gain,
        reason="its hidden pixels are {value:+.3f} nats a pixel likelier than under the better of "
        "nearest-neighbour and mean completion where it gains least, with {group} (limit "
        "{limit:.3f})",
    )


def completes_truer(evaluation: Evaluation, limits: LimitsConfig) -> Check:
    """More of the single best completions are of the right class than of the simple ways."""
    return _gains(
        evaluation,
        limits,
        name="completes_truer",
        quantity="agreement",
        limit=limits.min_agreement_gain,
        reason="{value:+.1%} more of its completions are of the right class than by the better of "
        "nearest-neighbour and mean completion where it gains least, with {group} (limit "
        "{limit:.1%})",
    )


def _gains(
    evaluation: Evaluation,
    limits: LimitsConfig,
    *,
    name: str,
    quantity: str,
    limit: float,
    reason: str,
) -> Check:
    if PART in evaluation.unavailable:
        return not_available(name, evaluation, limits, PART)
    gains = {group: _gain(evaluation, quantity, group) for group in GATED}
    group = min(gains, key=lambda key: gains[key])
    told = reason.format(value=gains[group], group=group.replace("_", " "), limit=limit)
    return verdict(name, gains[group] >= limit, gains[group], limit, told)


def classifies(evaluation: Evaluation, limits: LimitsConfig) -> Check:
    """With all pixels visible the label that it gives is that of the image."""
    error = evaluation.scores.get("classification_error")
    if error is None:
        return not_available("classifies", evaluation, limits, PART)
    limit = limits.max_classification_error
    reason = f"it puts {error.value:.2%} of images into another class than theirs "
    reason += f"(limit {limit:.2%})"
    return verdict("classifies", error.value <= limit, error.value, limit, reason)


def _exported(saved: SavedShared) -> Exported:
    # Two tensors: one that is given twice becomes one input.
    image, mask = (torch.zeros(2, *saved.image_shape) for _ in range(2))
    return Exported(
        net=CompletedImages(saved.G, image_shape=saved.image_shape),
        examples={
            "image": image,
            "mask": mask,
            "condition": one_hot(torch.tensor([0, 1]), saved.n_classes).float(),
            "z": torch.zeros(2, saved.config.prior.dim),
            "noise": torch.zeros(2, saved.n_classes),
        },
    )


def _served(saved: SavedShared) -> Served:
    n_pixels = math.prod(saved.image_shape)

    def answer(row: Mapping[str, Any]) -> NDArray[np.float32]:
        image, mask = None, None
        if "image" in row:
            pixels = np.asarray(row["image"], dtype=np.float32)
            if pixels.shape != (n_pixels,) or not ((pixels >= 0) & (pixels <= 1)).all():
                raise ConditionError(f"image must be {n_pixels} numbers in [0, 1]")
            image = torch.from_numpy(pixels).view(saved.image_shape)
        if "mask" in row:
            mask = named_mask(row["mask"], saved.image_shape, seed=row["seed"])
        label = saved.label([row["condition"]]) if "condition" in row else None
        require_label(row.get("mask"), label)
        images: NDArray[np.float32] = complete_one(
            saved, image, mask, label, n=row["n"], seed=row["seed"]
        ).numpy()
        return images

    optional = (
        Column(name="condition", kind="long", example=0, is_required=False),
        Column(name="image", kind="numbers", example=[0.0] * n_pixels, is_required=False),
        Column(name="mask", kind="string", example="left_half", is_required=False),
    )
    return Served(
        columns=(*SEEDED, *optional),
        answer_shape=saved.image_shape,
        answer=answer,
        count=lambda row: int(row["n"]),
    )


def named_mask(name: str, image_shape: ImageShape, *, seed: int) -> Tensor:
    """A mask of this kind, 1 where a pixel is visible: [channels, height, width].

    Raises:
        ConditionError: there is no such kind.
    """
    if name not in MASKS:
        raise ConditionError(f"mask must be one of {', '.join(MASKS)}, got {name!r}")
    return draw_masks(name, 1, image_shape, stream(seed, "mask")).view(image_shape)


def require_label(mask: str | None, label: Tensor | None) -> None:
    """Refuse the kind of mask that shows the class alone where there is no class.

    Raises:
        ConditionError: naming what is missing.
    """
    if mask == "label_only" and label is None:
        raise ConditionError("the mask label_only shows the class alone: give it by condition")


def read_mask(path: Path, image_shape: ImageShape) -> Tensor:
    """A mask from a .npy of the shape of an image, or [height, width] for all channels.

    Raises:
        DatasetError: naming the file, if it cannot be read, is of another shape, or has other
            numbers than 0, hidden, and 1, visible.
    """
    array = read_array(path)
    if array.shape not in (image_shape, image_shape[1:]):
        raise DatasetError(
            f"{path}: a mask must be of the shape of an image, {list(image_shape)} or "
            f"{list(image_shape[1:])}, got {list(array.shape)}"
        )
    if not np.isin(array, (0, 1)).all():
        raise DatasetError(f"{path}: a mask must hold 0, hidden, and 1, visible, alone")
    return torch.from_numpy(array.astype(np.float32)).expand(image_shape)


def complete_one(
    saved: SavedShared,
    image: Tensor | None,
    mask: Tensor | None,
    label: Tensor | None,
    *,
    n: int,
    seed: int,
) -> Tensor:
    """Completions of one image, or images of a class or of any: [n, channels, height, width].

    Args:
        saved: the model.
        image: [channels, height, width] in [0, 1]; None where no pixel is visible.
        mask: 1 where a pixel is visible, of the same shape; None where none is.
        label: int64 [1]; None: it is hidden.
        n: how many.
        seed: same seed, same images.

    Raises:
        ConditionError: an image without a mask, or a mask that shows pixels without an image.
    """
    if image is not None and mask is None:
        raise ConditionError(f"an image needs a mask: one of {', '.join(MASKS)}, or a .npy file")
    if image is None and mask is not None and bool(mask.any()):
        raise ConditionError("a mask that shows pixels needs an image")
    sampler = saved.sampler()
    if image is not None and mask is not None:
        found = sampler.complete(image[None], mask[None], labels=label, draws=n, seed=seed)
        return found.images[0]
    if label is not None:
        return sampler.sample_given(label.expand(n), seed)
    return sampler.sample(n, seed)


def _draw(saved: SavedShared, asked: Asked) -> Tensor:
    """Completions of the image, or images of the class; of neither, of any class."""
    asked.require_options("condition", "image", "mask")
    shape, given = saved.image_shape, asked.options
    try:
        image, mask, label = None, None, None
        if (text := given.get("condition")) is not None:
            label = saved.label([float(part) for part in text.split(",")])
        if (path := given.get("image")) is not None:
            image = torch.from_numpy(read_image(Path(path), image_shape=shape))
        if (name := given.get("mask")) is not None:
            is_file = name.endswith(".npy")
            mask = (
                read_mask(Path(name), shape)
                if is_file
                else named_mask(name, shape, seed=asked.seed)
            )
        require_label(name, label)
        return complete_one(saved, image, mask, label, n=asked.n, seed=asked.seed)
    except ValueError as error:
        text = given["condition"]
        raise ConfigError([f"--condition takes a class, got {text!r}"]) from error
    except (ConditionError, DatasetError) as error:
        raise ConfigError([str(error)]) from error


def _card(saved: SavedShared) -> Card:
    prior, shape = saved.config.prior, ", ".join(map(str, saved.image_shape))
    return Card(
        heading="Shared model of all conditionals",
        what=f"The generator G of a shared_conditional model {PAPER.removesuffix(')')}, section "
        f"7): one net of {n_parameters(saved)} parameters for all conditionals p(hidden | "
        f"visible) of pixels and label. Given a mask, the visible pixels, perhaps the class (0 to "
        f"{saved.n_classes - 1}) and noise z ({prior.dim} coordinates, prior `{prior.kind}`) it "
        "completes an image, draws images of a class or of any, and gives the probability of each "
        "class",
        caption="Ten samples of a class in each row, all of seed {seed}, of which no pixel was "
        "given; none was picked.",
        scores=(
            "`completion_ll` is the log-likelihood of the hidden pixels, in nats a hidden pixel, "
            f"under a mixture of\n{N_DRAWS} Gaussians, one around each completion, with a width "
            "chosen on other validation images;\n`_nearest` and `_mean` are the same of "
            "completions by training images. `agreement` is the share of\ncompletions (of the "
            "most probable class, z at its mean) that an independent classifier puts into the "
            "class of the image.",
        ),
        options=f" --condition {saved.n_classes - 1}",
        python="import torch\n\nsampler = generator.sampler()\n"
        f"images = sampler.sample(64, seed=0)  # [64, {shape}], float32 in [0, 1]\n"
        "mask = torch.zeros_like(images)\nmask[..., : images.shape[-1] // 2] = 1  # the left "
        "half is visible\ncompleted = sampler.complete(images, mask, labels=None, draws=10, "
        f"seed=0)\ncompleted.images  # [64, 10, {shape}]\n"
        "completed.log_probabilities.exp()  # of each class, [64, "
        f"{saved.n_classes}]",
        onnx=f"{z_lines(prior)}\nimage = np.zeros((n, {shape}), np.float32)\n"
        "mask = np.zeros_like(image)  # 1 where a pixel of `image` is visible\n"
        f"condition = np.zeros((n, {saved.n_classes}), np.float32)  # one-hot; 0: hidden\n"
        f"noise = rng.gumbel(size=(n, {saved.n_classes}))\n"
        '(images,) = session.run(\n    ["images"],\n    {"image": image, "mask": mask, '
        '"condition": condition,\n     "z": z.astype(np.float32), "noise": '
        f"noise.astype(np.float32)}},\n)  # [64, {shape}]",
        use=REFERENCE,
        limits=(
            "Completions are draws: what was hidden is not recovered, and a completion may be of "
            "another class than the image.",
        ),
    )


WAYS = ("", "_nearest", "_mean")
"""Own completions, and those of the two simple ways."""


def _group(title: str, quantity: str, reading: str, *, good: str, check: str = "") -> Group:
    names = [f"completion_{quantity}_{group}{end}" for group in GROUPS for end in WAYS]
    own = [f"completion_{quantity}_{group}" for group in GATED]
    return Group(
        title=title,
        reading=reading,
        good=dict.fromkeys(names, good),
        checked_by=dict.fromkeys(own, check) if check else {},
    )


BESIDE = (
    "Beside them the same of completions by the nearest training images and by the mean one; "
    "names of masks say what is visible."
)

SHARED_CONDITIONAL = Product(
    title="One model of all conditionals, p(hidden | visible)",
    picture=PICTURE,
    caption="Validation images, what is visible of them, and ten completions; none was picked.",
    headline=(
        "completion_ll_valid",
        "completion_ll_test",
        "classification_error_valid",
        "classification_error_test",
    ),
    is_judged_by_images=False,
    groups=(
        Group(
            title="All conditionals",
            reading="The likelihood of hidden pixels over all kinds of masks, and the share of "
            "images whose class it gets wrong when all pixels are visible.",
            good={"completion_ll": MORE, "classification_error": LESS},
            checked_by={"classification_error": "classifies"},
        ),
        _group(
            "Likelihood of hidden pixels",
            "ll",
            "Nats a hidden pixel, under a Gaussian around each of fifty completions. " + BESIDE,
            good=MORE,
            check="completes_likelier",
        ),
        _group(
            "Class of completions",
            "agreement",
            "Share of single best completions (of the most probable class, z at its mean) that a "
            "classifier without a part in training puts into the class of the image. " + BESIDE,
            good=MORE,
            check="completes_truer",
        ),
        Group(
            title="Class of drawn completions",
            reading="The same share where the class is drawn, too: right as often as it is "
            "probable.",
            good={f"completion_drawn_agreement_{group}": NONE for group in GROUPS},
        ),
        _group(
            "Error of completions",
            "squared_error",
            "Squared error of a hidden pixel, of one completion: least for completions that do "
            "not dare anything. " + BESIDE,
            good=LESS,
        ),
        _group(
            "Diversity of completions",
            "diversity",
            "Mean distance between two completions of an image: 0 if noise changes nothing.",
            good=NONE,
        ),
    ),
    measure=measure,
    measure_test=measure_test,
    values=values,
    findings=findings,
    draw_picture=draw_picture,
    checks=lambda evaluation, limits: [
        check(evaluation, limits) for check in (completes_likelier, completes_truer, classifies)
    ],
    exported=_exported,
    served=_served,
    draw=_draw,
    card=_card,
)
