"""The released two-stage recipe of the Toronto Face Database, at its size and scaled down.

The settings are those of the presets `tfd` and `tfd_prior`: a generator, and a net below its z.
"""

from collections.abc import Mapping
from typing import Any

from gan.config import RunConfig, with_overrides
from pipeline.settings import resolve

Settings = dict[str, Any]
PAPER = {"mean": 2057, "standard_error": 26}
"""Table 1."""
SMALL: Settings = {
    "discriminator.hidden": [120, 120],
    "train.batch_size": 50,
    "evaluation.score_every": 500,
}
"""Of both stages."""
SMALL_RANGE = 0.2
"""Of weights: 400 units vary over z as 8,000 do whose weights are within +-0.05."""
SMALL_FIRST: Settings = {
    "generator.hidden": [400, 400],
    "generator.init_range": SMALL_RANGE,
    "train.n_steps": 2_500,
}
SMALL_SECOND: Settings = {
    "learned_prior.hidden": [400],
    "learned_prior.init_range": SMALL_RANGE,
    "train.n_steps": 1_000,
}
SMALL_NOTICE = "scaled down: no score is comparable with the paper's"
TITLES = ("first stage: the generator", "second stage: a learned prior below it")


def recipe(dataset: str, *, is_small: bool, settings: Mapping[str, Any]) -> list[RunConfig]:
    """Both stages.

    Args:
        dataset: path of the .mat file.
        is_small: whether the nets and the training are scaled down.
        settings: dotted path -> value, of both.
    """
    stages = []
    for name, small in (("tfd", SMALL_FIRST), ("tfd_prior", SMALL_SECOND)):
        base = resolve(name).base
        scaled = SMALL | small if is_small else {}
        stages.append(with_overrides(base, {"data.dataset": dataset} | scaled | dict(settings)))
    return stages
