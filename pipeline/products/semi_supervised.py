"""A classifier with few labels in the pipeline: how many test images does it get wrong?

No label beside the few decides anything here: what a candidate is judged by, and compares with the
champion by, is its cross-entropy on the labelled images; validation labels are not read.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gan.config import LimitsConfig
from gan.errors import ConditionError
from gan.evaluation.score import Score, normal_score, proportion_score
from gan.evaluation.suite import Evaluation
from gan.extensions.semi_supervised.feature_matching import train_supervised
from gan.extensions.semi_supervised.run import few_of
from gan.extensions.semi_supervised.saved import SavedSemiSupervised
from gan.extensions.semi_supervised.scores import few_labels_losses
from gan.metric_names import (
    CLASSIFICATION_ERROR_TEST,
    FEW_LABELS_ACCURACY,
    FEW_LABELS_NATS,
    SUPERVISED_ERROR_TEST,
)
from gan.sampling import save_png, tile
from pipeline.checks import verdict
from pipeline.gate import Check
from pipeline.product import Candidate, Card, Column, Exported, Measured, Product, Served, Values
from pipeline.products.generator import PAPER, draw_images
from pipeline.score_groups import LESS, MORE, Group

PICTURE = "classified.png"
COLUMNS = 10
"""Images in a row of the picture, of the labelled ones and of test images each."""
MAX_ROWS = 20
"""Classes in the picture."""

METHODS = {
    "feature_matching": "a discriminator that tells the classes and fakes apart, trained beside a "
    "generator that matches its mean features (Salimans et al., 2016)",
    "discriminator_features": "a linear layer on the hidden layers of the discriminator of "
    "generative adversarial nets that saw no label",
    "inference_features": "a linear layer on the last hidden layer and the codes of a net that "
    "infers z from images, which was trained without labels, but chosen by labels of training and "
    "validation images",
}
"""`semi_supervised.method` -> what the classifier is."""


def measure(candidate: Candidate) -> Measured:
    """How well the labelled images themselves are classified, without noise.

    On the test split, where that is asked for, how many images are not: no validation label is
    read.
    """
    saved: SavedSemiSupervised = candidate.saved
    losses = few_labels_losses(saved).double()
    answers = saved.log_probabilities(saved.few_images()).argmax(1)
    n_right = int((answers == saved.few_labels).sum())
    error = float(losses.std() / math.sqrt(len(losses)))
    scores: tuple[Score, ...] = (
        normal_score(FEW_LABELS_NATS, float(losses.mean()), error, unit="nats"),
        proportion_score(FEW_LABELS_ACCURACY, n_right, len(losses)),
    )
    details = {"few_labels": {"n": len(losses), "n_right": n_right}}
    if candidate.split == "test":
        scores += errors(candidate)
    return Measured(scores=scores, details=details)


def values(candidate: Candidate) -> Values:
    """-log p(label) of each image that the run has a label for.

    Two models compare on the same images, which both know; see `same_labels`.
    """
    few = few_of(candidate.train, candidate.config)
    images = few.pixels[few.labelled].to(torch.float32).div(255)
    log_p = candidate.saved.log_probabilities(images.view(-1, *few.image_shape))
    return {FEW_LABELS_NATS: -log_p[torch.arange(len(log_p)), few.labels].double().numpy()}


def measure_test(candidate: Candidate) -> dict[str, float]:
    """Share of test images that are classified wrongly, and by the labels alone."""
    on_test = dataclasses.replace(candidate, split="test")
    return Measured(scores=errors(on_test)).by_metric_name("test")


def errors(candidate: Candidate) -> tuple[Score, ...]:
    """Share of the split's images that are classified wrongly, and by the labels alone.

    None where the images have no labels.
    """
    saved: SavedSemiSupervised = candidate.saved
    images = candidate.scored
    if images.labels is None:
        return ()
    alone = train_supervised(saved.config, few_of(candidate.train, saved.config))
    labels = torch.from_numpy(images.labels)
    answers = {
        "classification_error": saved.log_probabilities(torch.from_numpy(images.images).div(255)),
        "supervised_error": alone(torch.from_numpy(images.images).flatten(1)),
    }
    return tuple(
        proportion_score(name, int((logits.argmax(1) != labels).sum()), len(labels))
        for name, logits in answers.items()
    )


def findings(evaluation: Evaluation, scores: Mapping[str, float]) -> str:
    """What the unlabelled images are worth."""
    if CLASSIFICATION_ERROR_TEST not in scores:
        return ""
    n = evaluation.details["few_labels"]["n"]
    error, error_se = (scores[f"{CLASSIFICATION_ERROR_TEST}{end}"] for end in ("", "_se"))
    alone, alone_se = (scores[f"{SUPERVISED_ERROR_TEST}{end}"] for end in ("", "_se"))
    return (
        f"With {n:,} labels it classifies {100 * error:.2f} ± {100 * error_se:.2f} % of the test "
        f"images wrongly; D of feature matching that is trained on these labels alone "
        f"{100 * alone:.2f} ± {100 * alone_se:.2f} %. No other label took part in any choice."
    )


def draw_picture(candidate: Candidate, folder: Path) -> None:
    """Write `classified.png`: a class in each row, left labelled images, right the split's.

    The split's images of a row are put into its class: wrong ones first, the surest before others,
    then right ones, the least sure before others.
    """
    saved: SavedSemiSupervised = candidate.saved
    scored = candidate.scored
    rows = range(min(saved.n_classes, MAX_ROWS))
    left = [saved.few_images()[saved.few_labels == k] for k in rows]
    halves = [left]
    if scored.labels is not None:
        images = torch.from_numpy(scored.images).div(255)
        surest, answers = saved.log_probabilities(images).max(1)
        is_wrong = answers != torch.from_numpy(scored.labels)
        # Wrong ones before right ones; of wrong ones the surest first, of right ones the last.
        order = torch.where(is_wrong, -10 - surest.exp(), surest.exp()).argsort(stable=True)
        halves.append([images[order[answers[order] == k]] for k in rows])
    parts = [tile(torch.cat([_row(r) for r in half]), columns=COLUMNS, gap=2) for half in halves]
    height, gap = parts[0].shape[0], 12
    white = np.full((height, gap, *parts[0].shape[2:]), 255, np.uint8)
    picture = parts[0] if len(parts) == 1 else np.concatenate([parts[0], white, parts[1]], 1)
    save_png(picture, folder / PICTURE, zoom=2)


def _row(images: Tensor) -> Tensor:
    """Ten images, white ones where there are fewer."""
    shown = images[:COLUMNS]
    return torch.cat([shown, torch.ones(COLUMNS - len(shown), *images.shape[1:])])


def fits_labels(evaluation: Evaluation, limits: LimitsConfig) -> Check:
    """The classifier knows the labels that it was given."""
    score, limit = evaluation.scores[FEW_LABELS_ACCURACY], limits.min_few_labels_accuracy
    facts = evaluation.details["few_labels"]
    reason = f"it classifies {facts['n_right']} of the {facts['n']} labelled images rightly "
    reason += f"(limit {limit:.0%})"
    return verdict("fits_labels", score.value >= limit, score.value, limit, reason)


def same_labels(candidate: SavedSemiSupervised, champion: SavedSemiSupervised) -> list[Check]:
    """Both know the same labels: on its own labels a candidate beats whoever has not seen them."""
    same = torch.equal(candidate.few_pixels, champion.few_pixels)
    reason = "both were trained on the same labelled images"
    if not same:
        reason = (
            f"the champion was trained on other labelled images, {len(champion.few_labels)}: name "
            "a model of their own by promote.model, or take the champion's seed and n_labels"
        )
    return [Check(name="same_labels", passed=same, value=None, limit=None, reason=reason)]


class Probabilities(nn.Module):
    """Images [n, channels, height, width] in [0, 1] to probabilities [n, K]."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Rows sum to 1."""
        probabilities: Tensor = self.classifier(images.flatten(1)).softmax(1)
        return probabilities


def _exported(saved: SavedSemiSupervised) -> Exported:
    return Exported(
        net=Probabilities(saved.classifier),
        examples={"images": torch.zeros(2, *saved.image_shape)},
        output="probabilities",
    )


def _served(saved: SavedSemiSupervised) -> Served:
    shape = saved.image_shape
    n_pixels = math.prod(shape)

    def answer(row: Mapping[str, Any]) -> NDArray[np.float32]:
        pixels = np.asarray(row["image"], dtype=np.float64)
        if pixels.shape != (n_pixels,) or not ((pixels >= 0) & (pixels <= 1)).all():
            size = " x ".join(map(str, shape))
            raise ConditionError(
                f"the image must be {n_pixels} numbers in [0, 1], {size} row by row, got "
                f"{_text(pixels)}"
            )
        image = torch.from_numpy(pixels).to(torch.float32).view(1, *shape)
        p: NDArray[np.float32] = saved.log_probabilities(image).exp().numpy()
        return p

    example = saved.few_images()[0].flatten().tolist()
    return Served(
        columns=(Column(name="image", kind="numbers", example=example),),
        answer_shape=(saved.n_classes,),
        answer=answer,
        count=lambda row: 1,
    )


def _text(pixels: NDArray[np.float64]) -> str:
    if pixels.size == 0:
        return "none"
    return f"{pixels.size} from {pixels.min():g} to {pixels.max():g}"


def _card(saved: SavedSemiSupervised) -> Card:
    cfg = saved.config.semi_supervised
    assert cfg is not None  # noqa: S101 (else this is another task)
    shape = ", ".join(map(str, saved.image_shape))
    size = sum(p.numel() for p in saved.classifier.parameters())
    return Card(
        heading="Semi-supervised classifier",
        what=f"A classifier of {saved.n_classes} classes that was trained with "
        f"{len(saved.few_labels):,} labels and many images without (the fourth extension of "
        f"{PAPER.removeprefix('(').removesuffix(')')}, section 7, `semi_supervised`): "
        f"{METHODS[cfg.method]}. It has {size:,} parameters; the generator beside it is kept, too",
        caption="The first {n_samples} samples of the generator beside it, of seed {seed}; none "
        "was picked. It serves to train the classifier: its samples need not look like images.",
        scores=(
            "`classification_error_test` is the share of test images that it classifies wrongly,\n"
            "`supervised_error_test` that of D of feature matching which was trained on the "
            "same labels alone.\n`few_labels_nats` and `few_labels_accuracy` are the "
            "cross-entropy and the share of right answers on\nthe labelled images, without noise.",
        ),
        chosen="No label beside the few was read in training: trials compare by "
        "`few_labels_nats`, on the labelled\nimages, and the number of steps is fixed. Test "
        "labels (`test`) took no part in any choice. No standard\nerror knows of other training "
        "seeds, or of other images that were labelled",
        is_of_algorithm_1=cfg.method == "discriminator_features",
        python=f"images = generator.few_images()  # [{len(saved.few_labels)}, {shape}], those "
        "with labels\nprobabilities = generator.log_probabilities(images).exp()  "
        f"# [{len(saved.few_labels)}, {saved.n_classes}]",
        onnx=f"images = np.zeros((n, {shape}), np.float32)  # yours, in [0, 1]\n"
        '(probabilities,) = session.run(["probabilities"], {"images": images})  '
        f"# [{'n'}, {saved.n_classes}]",
        use="Research and teaching: what images without labels are worth to a classifier.",
        limits=(
            "Its probabilities are not calibrated, and of an image of no class it still names "
            "one.",
            "Other few labels, or another seed, can change the error by more than its standard "
            "error.",
        ),
    )


SEMI_SUPERVISED = Product(
    title="Classification with few labels",
    picture=PICTURE,
    picture_split="test",
    caption="A class in each row: left the labelled images (at most ten are shown), right test "
    "images that are put into this class: wrong ones first, then right ones, the least sure "
    "first.",
    headline=(CLASSIFICATION_ERROR_TEST, SUPERVISED_ERROR_TEST, FEW_LABELS_NATS),
    groups=(
        Group(
            title="Labelled images",
            reading="How well the few images are classified by whose labels it was trained, "
            "without noise: the only labels that are read before the end.",
            good={FEW_LABELS_NATS: LESS, FEW_LABELS_ACCURACY: MORE},
            checked_by={FEW_LABELS_ACCURACY: "fits_labels"},
        ),
    ),
    is_judged_by_images=False,
    measure=measure,
    measure_test=measure_test,
    values=values,
    findings=findings,
    draw_picture=draw_picture,
    checks=lambda evaluation, limits: [fits_labels(evaluation, limits)],
    compared=same_labels,
    exported=_exported,
    served=_served,
    draw=draw_images,
    card=_card,
)
