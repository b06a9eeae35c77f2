"""What is trained for the page, and what the paper has in its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from gan.config import PipelineConfig
from pipeline.report_page import TABLE_1 as REFERENCES
from pipeline.settings import assignments_of, resolve, set_options

Budget = Literal["quick", "full"]
Data = Literal["mnist", "fashion_mnist", "cifar10"]
Settings = Mapping[str, Any]

NOWHERE: Settings = MappingProxyType({})

TABLE_1 = "Table 1"
SGD, SMALL = 4, 5
"""Deviations of SGD's schedules, and of the nets that are made for a quick look."""

OBJECTIVE_WITHOUT_FEATURES: dict[str, Any] = {"sweep.objective": "parzen_ll_valid"}
"""For a quick look at data whose feature net would first be trained for minutes."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A score that somebody printed, Parzen window on test images, nats.

    Attributes:
        mean: the score.
        standard_error: as it is printed beside it.
        source: where.
    """

    mean: float
    standard_error: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model on a data set.

    Attributes:
        name: in file names and anchors.
        title: for people.
        preset: whose settings it has.
        quick_preset: whose it has in the quick budget, where those would take hours on a CPU.
        data: what it is trained on.
        quick: dotted path -> value, on top of the preset in the quick budget.
        full: the same in the full one.
        n_seeds: runs of the full budget; the quick one has a single run.
        published: what its score stands beside.
        is_drawn: whether Figures 2 and 3 are drawn of it.
        panel: of Figure 2 in the paper; None: there is none.
        deviations: their numbers in `pipeline.paper.deviations`.
        code: where it is implemented.
    """

    name: str
    title: str
    preset: str
    data: Data
    quick: Settings
    code: str
    quick_preset: str | None = None
    full: Settings = field(default_factory=dict)
    n_seeds: int = 3
    published: Published | None = None
    is_drawn: bool = False
    panel: str | None = None
    deviations: Sequence[int] = ()

    def assignments(self, budget: Budget, *, seed: int, where: Settings = NOWHERE) -> list[str]:
        """Settings on top of the preset, as `--set` takes them.

        Args:
            budget: how much is done.
            seed: of the run.
            where: settings of `data` that say where its images lie, if not in the package.
        """
        settings: dict[str, Any] = dict(self.quick if budget == "quick" else self.full)
        settings |= {"seed": seed, **where}
        return assignments_of(settings)

    def preset_of(self, budget: Budget) -> str:
        """The preset of a budget."""
        return self.quick_preset if budget == "quick" and self.quick_preset else self.preset

    def config(self, budget: Budget, *, seed: int, where: Settings = NOWHERE) -> PipelineConfig:
        """The run; arguments as of `assignments`."""
        return resolve(self.preset_of(budget), self.assignments(budget, seed=seed, where=where))

    def command(self, budget: Budget, *, seed: int, where: Settings = NOWHERE) -> str:
        """What trains it by hand."""
        options = set_options(self.assignments(budget, seed=seed, where=where))
        return f"gan train {self.preset_of(budget)} {options}"

    def departs(self, budget: Budget) -> list[int]:
        """Numbers of its deviations; a preset made for a quick look has one of its own."""
        own = set(self.deviations)
        if self.preset_of(budget) != self.preset:
            own = own - {SGD} | {SMALL}
        return sorted(own)

    def cut(self) -> str:
        """What the quick budget leaves out of the full one."""
        quick, full = (self.config(budget, seed=0).base.train for budget in ("quick", "full"))
        cuts = [f"{quick.n_steps:,} of {full.n_steps:,} updates"]
        if self.quick_preset is not None:
            cuts.append(f"the small nets of the preset {self.quick_preset}")
        if self.n_seeds > 1:
            cuts.append(f"1 of {self.n_seeds} seeds")
        return ", ".join(cuts)

    @property
    def is_in_paper(self) -> bool:
        """Whether Table 1 has it."""
        return self.published is not None and self.published.source == TABLE_1

    def seeds(self, budget: Budget) -> range:
        """Of the runs."""
        return range(1 if budget == "quick" else self.n_seeds)


def _updates(n: int, *, report_every: int = 100) -> dict[str, Any]:
    """So many updates with one score, at their end."""
    return {
        "train.n_steps": n,
        "train.report_every": report_every,
        "evaluation.score_every": n,
    }


def _in_table_1(label: str) -> Published:
    """What the paper prints of a model on MNIST."""
    (found,) = (reference for reference in REFERENCES if reference.label == label)
    return Published(mean=found.score, standard_error=found.standard_error, source=TABLE_1)


def _rival(name: str, title: str, n_quick: int, *, published: Published | None = None) -> Subject:
    """A baseline on MNIST, of so many updates in the quick budget."""
    return Subject(
        name=name,
        title=title,
        preset=name,
        data="mnist",
        quick=_updates(n_quick),
        published=published,
        deviations=(13,),
        code=f"gan/baselines/{name}.py",
    )


SUBJECTS = (
    Subject(
        name="gan",
        title="Adversarial nets, preset table1",
        preset="table1",
        data="mnist",
        # An average as long as the preset's would still have the beginning in it.
        quick=_updates(2_500) | {"train.average_decay": 0.999},
        published=_in_table_1("Adversarial nets (2014)"),
        is_drawn=True,
        panel="a",
        deviations=(2, 3, 14),
        code="gan/algorithm1.py",
    ),
    Subject(
        name="gan_released",
        title="Adversarial nets, hyper-parameters of the released code",
        preset="mnist",
        data="mnist",
        quick=_updates(2_500),
        published=_in_table_1("Adversarial nets (2014)"),
        deviations=(2, 3, 4),
        code="gan/algorithm1.py",
    ),
    _rival("gsn", "Deep generative stochastic network", 400, published=_in_table_1("Deep GSN")),
    _rival("dbn", "Deep belief net", 3_000, published=_in_table_1("DBN")),
    _rival(
        "stacked_cae",
        "Stacked contractive autoencoder",
        4_000,
        published=_in_table_1("Stacked CAE"),
    ),
    _rival(
        "vae",
        "Variational autoencoder",
        800,
        published=Published(
            mean=290, standard_error=2, source="Yeung et al. (2017), Table 2: 2 x 1000 units, 8 z"
        ),
    ),
    _rival("dbm", "Deep Boltzmann machine", 1_500),
    Subject(
        name="fashion_mnist",
        title="Fashion-MNIST",
        preset="fashion_mnist",
        quick_preset="quick",
        data="fashion_mnist",
        quick=_updates(1_500)
        | {"data.dataset": "fashion_mnist", "name": "fashion_mnist_quick"}
        | OBJECTIVE_WITHOUT_FEATURES,
        n_seeds=1,
        is_drawn=True,
        deviations=(2, 3, 4),
        code="gan/algorithm1.py",
    ),
    Subject(
        name="cifar10",
        title="CIFAR-10, fully connected",
        preset="cifar10",
        quick_preset="cifar10_quick",
        data="cifar10",
        quick=_updates(600) | OBJECTIVE_WITHOUT_FEATURES,
        n_seeds=1,
        is_drawn=True,
        panel="c",
        deviations=(2, 3, 4, 12),
        code="gan/contrast.py",
    ),
    Subject(
        name="cifar10_conv",
        title="CIFAR-10, convolutional D, deconvolutional G",
        preset="cifar10_conv",
        quick_preset="cifar10_conv_quick",
        data="cifar10",
        quick=_updates(300, report_every=50) | OBJECTIVE_WITHOUT_FEATURES,
        n_seeds=1,
        is_drawn=True,
        panel="d",
        deviations=(2, 3, 4, 12),
        code="gan/conv_nets.py",
    ),
)
