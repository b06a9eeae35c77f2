"""What the pipeline does with what a run trained, where it differs from task to task.

`pipeline.products` has one `Product` a task.  Stages, artifacts, the registry, the served model,
the report and the command line ask it, and know no task themselves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from gan.config import LimitsConfig, RunConfig
from gan.datasets.images import ImageSet
from gan.datasets.splits import load_test, load_train_valid
from gan.errors import ConfigError
from gan.evaluation.score import Score
from gan.evaluation.suite import Evaluation
from pipeline.checks import sample_checks
from pipeline.evaluation import HEADLINE, Split, by_metric_name, real_images
from pipeline.gate import Check
from pipeline.score_groups import Group

if TYPE_CHECKING:
    from gan.evaluation.real_images import RealImages

Values = Mapping[str, NDArray[np.float64]]
"""Objective -> its value by each image (or group of them), by which two models compare."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What was saved of a run, with the images that score it.

    Attributes:
        saved: of the task's own kind.
        config: the run; its `data` and `evaluation` may be others than those of the training.
        split: the images that score it.
        extractors: folder of the nets that give features.
        seed: of everything that is drawn for the scores.
    """

    saved: Any
    config: RunConfig
    split: Split
    extractors: Path
    seed: int

    @cached_property
    def train(self) -> ImageSet:
        """The training images."""
        return load_train_valid(self.config.data)[0]

    @cached_property
    def scored(self) -> ImageSet:
        """The images of the split."""
        if self.split == "test":
            return load_test(self.config.data)
        return load_train_valid(self.config.data)[1]

    @cached_property
    def real(self) -> "RealImages":
        """The real images, with the data set's extractor and classifier, which may take minutes.

        Raises:
            CheckpointError, ConfigError, DatasetError: as `pipeline.evaluation.real_images`.
        """
        config = self.config
        return real_images(
            config.data, config.evaluation, split=self.split, extractors=self.extractors
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A product's own scores, of the candidate's split.

    Attributes:
        scores: under names without a split.
        unavailable: name of a part -> why its scores could not be taken.
        details: by part, JSON values behind its scores.
    """

    scores: Sequence[Score] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def added_to(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation with these scores behind its own."""
        return replace(
            evaluation,
            scores=evaluation.scores | {score.name: score for score in self.scores},
            unavailable=evaluation.unavailable | dict(self.unavailable),
            details=evaluation.details | dict(self.details),
        )

    def by_metric_name(self, split: Split) -> dict[str, float]:
        """These scores alone; see `pipeline.evaluation.by_metric_name`."""
        nothing = Evaluation(scores={}, unavailable={}, n_samples=0)
        return by_metric_name(self.added_to(nothing), split)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A net as a function of tensors, as ONNX has it.

    Attributes:
        net: in evaluation mode, on the CPU.
        examples: its inputs by name, two rows each: of one row, n = 1 would become a part of the
            exported program.
        output: name of its output.
    """

    net: nn.Module
    examples: Mapping[str, Tensor]
    output: str = "images"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of what the served model takes.

    Attributes:
        name: of the column.
        kind: of its cells: a whole number, a text, or a list of numbers.
        example: of a cell.
        is_required: whether a request must have it.
    """

    name: str
    kind: Literal["long", "string", "numbers"]
    example: Any
    is_required: bool = True


SAMPLES_PICTURE = "samples.png"
"""Which `pipeline.evaluation_pictures` writes of every product that is judged by images."""

SEEDED = (Column(name="n", kind="long", example=2), Column(name="seed", kind="long", example=0))
"""What a request for images has: how many, and the seed of the noise."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """The model as a server of requests.

    Attributes:
        columns: of a request, whose rows are answered one after the other.
        answer_shape: shape of the answer of one of the things that a row asks for.
        answer: a row by column -> its part of the answer, [k, *answer_shape] float32; raises
            ConditionError for what the model cannot answer.
        count: a row -> how many things it asks for, so that too large a request is refused first.
    """

    columns: tuple[Column, ...]
    answer_shape: tuple[int, ...]
    answer: Callable[[Mapping[str, Any]], NDArray[np.float32]]
    count: Callable[[Mapping[str, Any]], int]


CHOSEN = (
    "It was chosen among trials by a score on validation images (`valid`), which is therefore too "
    "good;\nimages of the test split (`test`) took no part in any choice. No standard error knows "
    "of other\ntraining seeds"
)
"""Of a model that validation images choose; the template ends the sentence."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the model card says of one task; Markdown.

    Attributes:
        heading: what it is, as in "Generator".
        what: a paragraph, which the size of the images follows if it ends in "into images".
        caption: of `samples.png`.
        scores: a paragraph each, of the scores that only this task has.
        options: of the `gan sample` that is shown, with a space before it.
        python: lines behind `generator = load_artifact(Path("."))`.
        onnx: lines that run `session`, NumPy and `n` at hand.
        use: of what use it is.
        limits: a sentence each.
        chosen: by what it was chosen, and what no standard error knows.
        is_of_algorithm_1: whether Algorithm 1 trained it, with its k and its D.
    """

    heading: str
    what: str
    caption: str
    scores: tuple[str, ...] = ()
    options: str = ""
    python: str
    onnx: str
    use: str
    limits: tuple[str, ...]
    chosen: str = CHOSEN
    is_of_algorithm_1: bool = True


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Images that the command line asks for.

    Attributes:
        n: how many.
        seed: of the noise.
        options: other options of `gan sample` that were given, as texts by name.
    """

    n: int
    seed: int
    options: Mapping[str, str] = field(default_factory=dict)

    def require_options(self, *known: str) -> None:
        """Refuse options that the model cannot take.

        Raises:
            ConfigError: naming the first.
        """
        for name in self.options:
            if name not in known:
                raise ConfigError([f"this model takes no {name}: leave out --{name}"])


def no_values(candidate: Candidate) -> Values:
    """Of a task without an objective of its own."""
    return {}


def nothing_measured(candidate: Candidate) -> Measured:
    """Of a task without scores of its own."""
    return Measured()


def nothing_on_test(candidate: Candidate) -> dict[str, float]:
    """Of a task without scores of its own on the test split."""
    return {}


def no_findings(evaluation: Evaluation, scores: Mapping[str, float]) -> str:
    """Of a task whose scores speak for themselves."""
    return ""


def no_picture(candidate: Candidate, folder: Path) -> None:
    """Of a task without a picture of its own."""


def always_compared(candidate: Any, champion: Any) -> list[Check]:
    """Of a task whose models compare whatever they were trained on."""
    return []


def no_checks(evaluation: Evaluation, limits: LimitsConfig) -> list[Check]:
    """Of a task without checks of its own."""
    return []


def quality_checks(
    product: "Product", evaluation: Evaluation, limits: LimitsConfig
) -> list[Check]:
    """What a candidate must pass before it is compared with the champion."""
    of_samples = sample_checks(evaluation, limits) if product.is_judged_by_images else []
    return [*of_samples, *product.checks(evaluation, limits)]


@dataclass(frozen=True, kw_only=True)
class Product:
    """One task, as the pipeline meets it.

    Attributes:
        title: of its section in a report.
        picture: file that shows what the task is for: of the samples, or one that `draw_picture`
            writes.
        caption: what the picture shows.
        headline: metrics that are told wherever there is no room for all, beside those of images.
        groups: of its own scores in the report; each names the check that judges a score.
        is_judged_by_images: whether its samples take the suite, and the gate's checks of samples.
        measure: its own scores, on the split of the candidate.
        measure_test: its own scores on the test split, by metric name; asked once, of a winner.
        values: what its own objectives pair, on the split of the candidate.
        findings: the evaluation, scores by metric name -> sentences with numbers for the report.
        draw_picture: writes `picture`, if it is one of its own, into a folder.
        picture_split: the images in it, where no split is asked for.
        checks: its own checks of the gate.
        compared: what was saved of the candidate, and of the champion -> checks that their scores
            compare.
        exported: what was saved -> the function that ONNX has.
        served: what was saved -> how it is served.
        draw: what was saved, what the command line asks for -> images; raises ConfigError.
        card: what was saved -> what the model card says of it.
    """

    title: str
    picture: str = SAMPLES_PICTURE
    caption: str = "The first samples, in the order in which they came."
    headline: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    is_judged_by_images: bool = True
    measure: Callable[[Candidate], Measured] = nothing_measured
    measure_test: Callable[[Candidate], dict[str, float]] = nothing_on_test
    values: Callable[[Candidate], Values] = no_values
    findings: Callable[[Evaluation, Mapping[str, float]], str] = no_findings
    draw_picture: Callable[[Candidate, Path], None] = no_picture
    picture_split: Split = "valid"
    checks: Callable[[Evaluation, LimitsConfig], list[Check]] = no_checks
    compared: Callable[[Any, Any], list[Check]] = always_compared
    exported: Callable[[Any], Exported]
    served: Callable[[Any], Served]
    draw: Callable[[Any, Asked], Tensor]
    card: Callable[[Any], Card]

    @property
    def told(self) -> tuple[str, ...]:
        """The metrics of its winner that are told wherever there is no room for all."""
        return (*self.headline, *(HEADLINE if self.is_judged_by_images else ()))

    def told_of(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Those that were taken, each before its standard error, by metric name."""
        names = (f"{name}{end}" for name in self.told for end in ("", "_se"))
        return {name: scores[name] for name in names if name in scores}
