"""The inference net in the pipeline: how near are two images by what it infers of them?"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan.config import LimitsConfig
from gan.datasets.images import ImageSet
from gan.errors import ConditionError, ImageError
from gan.evaluation.nearest_accuracy import nearest_accuracy, nearest_is_right
from gan.evaluation.neighbours import nearest_neighbours
from gan.evaluation.score import Score, normal_score
from gan.evaluation.suite import NO_LABELS, Evaluation
from gan.extensions.inference.saved import SavedInference
from gan.extensions.inference.scores import (
    MAX_QUERIES,
    MAX_REFERENCES,
    image_points,
    nearest_right,
    reconstruction_errors,
    standard_error,
)
from gan.metric_names import (
    NEAREST_ACCURACY_TEST,
    NEAREST_ACCURACY_VALID,
    RECONSTRUCTION_ERROR_TEST,
    RECONSTRUCTION_ERROR_VALID,
)
from gan.run import unit_pixels
from gan.sampling import save_png, tile
from pipeline.checks import not_available, verdict
from pipeline.gate import Check
from pipeline.product import Candidate, Card, Column, Exported, Measured, Product, Served, Values
from pipeline.products.generator import PAPER, draw_images
from pipeline.score_groups import LESS, MORE, NONE, Group

PART = "nearest"
PICTURE = "neighbours.png"
N_ROWS, N_SHOWN = 10, 8
"""Queries of the picture, and neighbours of each."""
N_REFINED = 1_000
"""Images whose codes are refined for a score; a step of all 10,000 takes a second."""
MAX_TEST_REFERENCES = 60_000
"""Of MNIST's test images all other images, as in Donahue et al. (2017), table 1."""


def measure(candidate: Candidate) -> Measured:
    """1-NN accuracy by codes, by pixels and by an untrained net, and reconstruction errors.

    The training images are the references; of test images the validation images are, too, of
    which the net has seen nothing.
    """
    saved, queries = candidate.saved, candidate.scored
    references = candidate.train
    limit = MAX_REFERENCES
    if candidate.split == "test":
        references, limit = _with_valid(candidate), MAX_TEST_REFERENCES
    scores = _errors(saved, _first(queries), seed=candidate.seed)
    if queries.labels is None or references.labels is None:
        return Measured(scores=scores, unavailable={PART: NO_LABELS})
    n = min(limit, len(references))
    details = {"n_queries": min(MAX_QUERIES, len(queries)), "n_references": n}
    return Measured(
        scores=[*_accuracies(saved, queries, references, limit=limit), *scores],
        details={PART: details},
    )


def measure_test(candidate: Candidate) -> dict[str, float]:
    """The same scores of test images, by metric name."""
    return measure(dataclasses.replace(candidate, split="test")).by_metric_name("test")


def values(candidate: Candidate) -> Values:
    """Whether the nearest image is right, and the reconstruction error, of each scored image."""
    saved, queries, train = candidate.saved, candidate.scored, candidate.train
    found = {RECONSTRUCTION_ERROR_VALID: reconstruction_errors(saved, _first(queries)).numpy()}
    if queries.labels is not None and train.labels is not None:
        right = nearest_right(saved, queries, train)
        found[NEAREST_ACCURACY_VALID] = right.double().numpy()
    return found


def _accuracies(
    saved: SavedInference, queries: ImageSet, references: ImageSet, *, limit: int
) -> list[Score]:
    by_codes = nearest_right(saved, queries, references, limit=limit)
    untrained = nearest_right(saved.untrained(), queries, references, limit=limit)
    x, y = _first(queries), unit_pixels(_cut(references, limit)).float()
    labels, others = (torch.from_numpy(images.labels) for images in (queries, references))
    by_pixels = nearest_is_right(x, labels[: len(x)], y, others[: len(y)])
    return [
        nearest_accuracy(by_codes),
        nearest_accuracy(by_pixels, name="nearest_accuracy_pixels"),
        nearest_accuracy(untrained, name="nearest_accuracy_untrained"),
    ]


def _errors(saved: SavedInference, images: Tensor, *, seed: int) -> list[Score]:
    """Reconstruction errors a pixel: of real images and of samples, as predicted and refined."""
    samples = saved.sampler().sample(MAX_QUERIES, seed)
    variance = images.var(0, correction=0).mean().item()
    scores = []
    for name, some in (("", images), ("_of_samples", samples)):
        errors = reconstruction_errors(saved, some)
        refined = reconstruction_errors(saved, some[:N_REFINED], is_refined=True)
        scores += [
            _mean(f"reconstruction_error{name}", errors),
            _mean(f"reconstruction_error{name}_refined", refined),
        ]
        if not name:
            share, error = errors.mean().item() / variance, standard_error(errors) / variance
            scores.append(normal_score("unexplained_share", share, error))
    return scores


def _mean(name: str, values: Tensor) -> Score:
    return normal_score(name, values.mean().item(), standard_error(values))


def _first(images: ImageSet) -> Tensor:
    """The images that are scored, float32 [n, channels, height, width] in [0, 1]."""
    return unit_pixels(_cut(images, MAX_QUERIES)).float()


def _cut(images: ImageSet, limit: int) -> ImageSet:
    labels = None if images.labels is None else images.labels[:limit]
    return ImageSet(images=images.images[:limit], labels=labels, digest=images.digest)


def _with_valid(candidate: Candidate) -> ImageSet:
    """The training images, and behind them the validation images."""
    train, valid = candidate.train, dataclasses.replace(candidate, split="valid").scored
    labels = None
    if train.labels is not None and valid.labels is not None:
        labels = np.concatenate([train.labels, valid.labels])
    images = np.concatenate([train.images, valid.images])
    return ImageSet(images=images, labels=labels, digest=train.digest)


def findings(evaluation: Evaluation, scores: Mapping[str, float]) -> str:
    """1-NN accuracy beside that of pixels, and how much of images and samples is explained."""
    names = ("nearest_accuracy", "nearest_accuracy_pixels", "nearest_accuracy_untrained")
    taken = [scores.get(f"{name}_test") for name in names]
    error, refined = (scores.get(f"reconstruction_error{end}_test") for end in ("", "_refined"))
    told = ""
    ours, pixels, untrained = taken
    if ours is not None and pixels is not None and untrained is not None:
        told = (
            f"By its codes the nearest of all other images is of the class of a test image in "
            f"{ours:.2%} of cases, by pixels in {pixels:.2%}, and by the codes of the net before "
            f"training in {untrained:.2%}; the latent regressor of Donahue et al. (2017) has "
            f"97.44% on MNIST. "
        )
    if error is not None and refined is not None:
        told += (
            f"G(E(x)) differs from a test image by {error:.4f} a pixel in mean square, and after "
            f"refinement by {refined:.4f}."
        )
    return told.strip()


def draw_picture(candidate: Candidate, folder: Path) -> None:
    """Write `neighbours.png`: an image in each row, G(E(x)) beside it, and its nearest images."""
    saved, train = candidate.saved, candidate.train
    queries = candidate.scored
    chosen = shown_queries(queries, N_ROWS)
    x = unit_pixels(queries).float()[chosen]
    references = _cut(train, MAX_REFERENCES)
    near = nearest_neighbours(
        saved.points(x), image_points(saved, references, limit=MAX_REFERENCES), k=N_SHOWN
    )
    shown = unit_pixels(references).float()[near.indices.flatten()]
    save_png(
        tile(neighbour_rows(x, saved.reconstruct(x), shown), columns=N_SHOWN + 2),
        folder / PICTURE,
        zoom=2,
    )


def neighbour_rows(x: Tensor, reconstructed: Tensor, neighbours: Tensor) -> Tensor:
    """Images row by row: a query, its reconstruction, its neighbours.

    Args:
        x: queries, [n, channels, height, width].
        reconstructed: of the same shape.
        neighbours: the k of the first query, then those of the next, [n k, ...].
    """
    per_query = neighbours.view(len(x), -1, *x.shape[1:])
    rows = torch.cat([x[:, None], reconstructed[:, None], per_query], 1)
    return rows.flatten(0, 1)


def shown_queries(images: ImageSet, n: int) -> list[int]:
    """Rows of n images to show: the first of each class, as often as it takes; else the first."""
    n = min(n, len(images))
    if images.labels is None:
        return list(range(n))
    by_class = [np.flatnonzero(images.labels == label) for label in np.unique(images.labels)]
    most = max(map(len, by_class))
    in_turns = [int(rows[i]) for i in range(most) for rows in by_class if i < len(rows)]
    return in_turns[:n]


def explains_images(evaluation: Evaluation, limits: LimitsConfig) -> Check:
    """G(E(x)) is nearer to x than a guess is that knows nothing of x."""
    share = evaluation.scores.get("unexplained_share")
    if share is None:
        return not_available("explains_images", evaluation, limits, PART)
    limit = limits.max_unexplained
    reason = (
        f"G(E(x)) leaves {share.value:.1%} of the variance of the images unexplained "
        f"(limit {limit:.0%})"
    )
    return verdict("explains_images", share.value <= limit, share.value, limit, reason)


def _exported(saved: SavedInference) -> Exported:
    net = torch.nn.Sequential(torch.nn.Flatten(), saved.E)
    return Exported(
        net=net, examples={"image": torch.zeros(2, *saved.image_shape)}, output="codes"
    )


def _served(saved: SavedInference) -> Served:
    n_pixels = math.prod(saved.image_shape)
    example = [0.0] * n_pixels

    def answer(row: Mapping[str, Any]) -> NDArray[np.float32]:
        pixels = torch.tensor(np.asarray(row["image"], dtype=np.float64), dtype=torch.float32)
        if pixels.numel() != n_pixels:
            raise ConditionError(
                f"image must be a list of {n_pixels} pixels, got {pixels.numel()}"
            )
        try:
            codes: NDArray[np.float32] = saved.encode(pixels.view(1, *saved.image_shape)).numpy()
        except ImageError as error:
            raise ConditionError(str(error)) from error
        return codes

    return Served(
        columns=(Column(name="image", kind="numbers", example=example),),
        answer_shape=(len(saved.spread),),
        answer=answer,
        count=lambda row: 1,
    )


def _card(saved: SavedInference) -> Card:
    assert saved.config.inference is not None  # noqa: S101 (else this is another task)
    cfg, prior = saved.config.inference, saved.config.prior
    shape, width = ", ".join(map(str, saved.image_shape)), len(saved.spread)
    n_parameters = sum(p.numel() for p in saved.E.parameters())
    *before, last = ["z" if layer == 0 else f"hidden layer {layer}" for layer in cfg.layers]
    what = f"{', '.join(before)} and {last}" if before else last
    return Card(
        heading="Inference net",
        what=f"An inference net E for a generator G, which lies beside it, of generative "
        f"adversarial nets {PAPER.removesuffix(')')}, section 7): a multilayer perceptron of "
        f"{n_parameters:,} parameters, which predicts {what} of G from an image: its code, "
        f"{width} numbers. G has a prior `{prior.kind}` of {prior.dim} coordinates and turns "
        "codes into images",
        caption="These are the first {n_samples} samples of G of seed {seed}; none was picked.",
        scores=(
            "`nearest_accuracy` is the share of images whose nearest training image, by distance "
            "of codes, is of\ntheir class (of test images the nearest training or validation "
            "image); `nearest_accuracy_pixels` the\nsame by distance of pixels, "
            "`nearest_accuracy_untrained` by the codes of the net before its training.\n"
            "`reconstruction_error` is the mean square of G(E(x)) - x, a pixel, "
            "`reconstruction_error_of_samples` that of\nsamples of G in place of images; "
            f"`refined`: after {cfg.refine_steps} steps of descent on it, from E(x) on. "
            "`unexplained_share`\nis the error as a share of the images' variance.",
        ),
        python=f"images = generator.sampler().sample(64, seed=0)  # [64, {shape}], in [0, 1]\n"
        f"codes = generator.encode(images, refine_steps=0)  # [64, {width}], float32\n"
        f"again = generator.reconstruct(images)  # G(E(x)): [64, {shape}]\n"
        f"points = generator.points(images)  # [64, {width}]: distances compare images",
        onnx=f"image = np.zeros((n, {shape}), np.float32)\n"
        f'(codes,) = session.run(["codes"], {{"image": image}})  # [64, {width}]',
        use="Research and teaching: to compare images by what made them, `gan similar` finds the "
        "nearest ones;\nand as features where labels are few.",
        limits=(
            "E has learned from samples of G: of an image that G cannot make it infers something, "
            "too.",
            "A coordinate of z on which G hardly depends cannot be told: E predicts its mean.",
        ),
    )


INFERENCE = Product(
    title="Inference net, E(x)",
    picture=PICTURE,
    caption="An image of each class, what G makes of its code, and the training images whose "
    "codes are nearest to it.",
    headline=(
        NEAREST_ACCURACY_VALID,
        NEAREST_ACCURACY_TEST,
        "nearest_accuracy_pixels_test",
        "nearest_accuracy_untrained_test",
        RECONSTRUCTION_ERROR_VALID,
        RECONSTRUCTION_ERROR_TEST,
        "reconstruction_error_of_samples_test",
    ),
    groups=(
        Group(
            title="Neighbours",
            reading="How often the nearest training image is of the same class: by the codes that "
            "are inferred, by pixels, and by the codes of the net before it was trained.",
            good={
                "nearest_accuracy": MORE,
                "nearest_accuracy_pixels": NONE,
                "nearest_accuracy_untrained": NONE,
            },
        ),
        Group(
            title="Reconstructions",
            reading="How far G(E(x)) is from x, in mean square a pixel, for real images and for "
            "samples of G, as predicted and after some steps of descent on that distance.",
            good={
                "reconstruction_error": LESS,
                "reconstruction_error_refined": LESS,
                "reconstruction_error_of_samples": LESS,
                "reconstruction_error_of_samples_refined": LESS,
                "unexplained_share": LESS,
            },
            checked_by={"unexplained_share": "explains_images"},
        ),
    ),
    is_judged_by_images=False,
    measure=measure,
    measure_test=measure_test,
    values=values,
    findings=findings,
    draw_picture=draw_picture,
    checks=lambda evaluation, limits: [explains_images(evaluation, limits)],
    exported=_exported,
    served=_served,
    draw=draw_images,
    card=_card,
)
