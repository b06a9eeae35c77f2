"""The report of a finished sweep: data in, one self-contained HTML page out.

The page refers to nothing outside itself, so it can be mailed, archived or opened from MLflow.
It says nothing about when it was made: same data, same bytes.
"""

import base64
import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gan.config import PipelineConfig, flatten, run_config, to_dict
from gan.evaluation.classes import STARVED_FRACTION
from gan.evaluation.suite import Evaluation
from gan.metric_names import (
    D_FAKE_MEAN,
    D_LOSS,
    D_REAL_MEAN,
    FRECHET_DISTANCE_VALID,
    G_LOSS,
    PARZEN_LL_TEST,
    PARZEN_LL_TEST_SE,
    PARZEN_LL_VALID,
)
from gan.objectives import OBJECTIVES, Objective
from gan.version import __version__
from pipeline import report_figures as figures
from pipeline.evaluation_table import unavailable_parts
from pipeline.product import SAMPLES_PICTURE, Product
from pipeline.products import PRODUCTS, product_of
from pipeline.report_scores import (
    measured,
    number_text,
    score_tables,
    score_tiles,
)
from pipeline.settings import assignments_of, set_options, to_yaml

Trial = Mapping[str, Any]

TABLE_1 = (
    figures.Reference("DBN", 138.0, 2.0),
    figures.Reference("Stacked CAE", 121.0, 1.6),
    figures.Reference("Deep GSN", 214.0, 1.1),
    figures.Reference("Adversarial nets (2014)", 225.0, 2.0),
)
"""MNIST column of Table 1 of Goodfellow et al. (2014), nats."""
REAL_IMAGES = figures.Reference("Real training images", 241.193, 2.130)
"""The first 10,000 training images of MNIST in place of samples, by the same protocol."""
N_SAMPLES_OF_PAPER = 10_000

EQUILIBRIUM = {
    "non_saturating": (math.log(2), "log 2"),
    "minimax": (-math.log(2), "−log 2"),
}
"""G's loss where D answers 1/2 everywhere, by `train.generator_loss`."""

SETTING_LABELS = {
    "train.d_steps": "k, D steps per G step",
    "discriminator.dropout_hidden": "dropout in D",
    "discriminator.dropout_input": "dropout of pixels",
    "generator.dropout_hidden": "dropout in G",
    "prior.kind": "prior p(z)",
    "prior.dim": "dimension of z",
}


PICTURES = ("samples", "nearest", "straight", "spherical")


class Drawing(NamedTuple):
    """A figure with the words that stand around it."""

    title: str
    svg: Markup
    alt: str


def render_report(
    *,
    name: str,
    config: Mapping[str, Any],
    trials: Sequence[Trial],
    scores: Mapping[str, float] | None,
    evaluation: Evaluation | None,
    promotion: Mapping[str, Any] | None,
    pictures: Mapping[str, bytes],
    best_trial: int | None,
    mlflow_hint: str,
    extensions: Sequence[Mapping[str, Any]] = (),
    extension_pictures: Mapping[str, bytes] = MappingProxyType({}),
) -> str:
    """The report as an HTML page.

    Args:
        name: of the sweep.
        config: the whole `PipelineConfig`, as from `to_dict`.
        trials: the content of each trial's result.json, in any order.
        scores: of the winner's samples on both splits; None: not evaluated.
        evaluation: every score of these samples on validation images; None: not evaluated.
        promotion: what the gate decided, its checks, the champion's version after it and, if it
            promoted, the one before; None: it was not asked.
        pictures: PNG files by name: `samples.png`, `nearest.png`, `straight.png` and
            `spherical.png`, each as of `pipeline.evaluation_pictures`; any may be missing.
        best_trial: number of the winner; None: no trial has a score.
        mlflow_hint: the command that opens MLflow on the store in use.
        extensions: what came out of each extension, as `pipeline.stages.extend` writes it.
        extension_pictures: their pictures, PNG files by name.

    Raises:
        ValueError: if `best_trial` is no trial with a score, or a picture is not a PNG file.
    """
    objective = OBJECTIVES[config["sweep"]["objective"]]
    winner = _winner(trials, best_trial, objective)
    base = flatten(config["base"])
    keys = varied_settings(trials)
    is_mnist = base["data.dataset"] == "mnist"
    product = product_of(run_config(config["base"]))
    template = _environment(objective).get_template("report.html.j2")
    return template.render(
        name=name,
        headline=_headline(winner, promotion),
        winner=winner,
        winner_settings=_settings(winner, base) if winner else {},
        trials=_ranked(trials, objective),
        objective=objective,
        is_parzen=objective.metric == PARZEN_LL_VALID,
        other_scores=_other_scores(trials, objective),
        tiles=score_tiles(scores, winner, objective),
        distance=OBJECTIVES[FRECHET_DISTANCE_VALID],
        tables=score_tables(evaluation, product.groups) if evaluation else [],
        product=product,
        findings=product.findings(evaluation, scores) if evaluation and scores else "",
        shown=_own_picture(product, pictures),
        own_rows=_with_errors(product.told_of(scores or {})),
        has_parzen=PARZEN_LL_TEST in (scores or {}),
        unavailable=unavailable_parts(evaluation) if evaluation else {},
        evaluation=evaluation,
        classes=_class_shares(evaluation) if evaluation else None,
        verdicts={c["name"]: c["passed"] for c in promotion["checks"]} if promotion else {},
        n_by_status=Counter(trial["status"] for trial in trials),
        total_seconds=sum(trial["elapsed_seconds"] for trial in trials),
        keys=keys,
        setting_labels=SETTING_LABELS,
        base=base,
        scores=scores,
        is_mnist=is_mnist,
        paper=TABLE_1[-1],
        real=REAL_IMAGES,
        context=_score_in_context(scores, best_trial) if scores and is_mnist else None,
        pictures={
            kind: embedded_picture(f"{kind}.png", pictures[f"{kind}.png"])
            for kind in PICTURES
            if f"{kind}.png" in pictures
        },
        curves=_learning_curves(trials, winner, base, objective),
        by_setting=_scores_by_setting(keys, trials, best_trial, config),
        promotion=promotion,
        rest_of_config=flatten({key: config[key] for key in config if key != "base"}),
        preset=to_yaml(_differences(config, to_dict(PipelineConfig()))),
        train_options=_train_options(winner) if winner else "",
        mlflow_hint=mlflow_hint,
        extensions=[_extension(told, extension_pictures) for told in extensions],
        version=__version__,
    )


def _extension(told: Mapping[str, Any], pictures: Mapping[str, bytes]) -> dict[str, Any]:
    """An extension as the page shows it: its title, picture and the scores that are told."""
    product = PRODUCTS[told["task"]]
    name = told["picture"]
    return {
        **told,
        "title": product.title,
        "caption": product.caption,
        "rows": _with_errors(told["scores"]),
        "beside": {
            name: (value, error) for name, value, error in _with_errors(told["generator_scores"])
        },
        "picture": None if name is None else embedded_picture(name, pictures[name]),
    }


def _with_errors(scores: Mapping[str, float]) -> list[tuple[str, float, float | None]]:
    """Name, value and standard error of each score."""
    return [
        (name, value, scores.get(f"{name}_se"))
        for name, value in scores.items()
        if not name.endswith("_se")
    ]


def _own_picture(product: Product, pictures: Mapping[str, bytes]) -> dict[str, Any] | None:
    """What the task is for, where that is another picture than that of the samples."""
    name = product.picture
    if name == SAMPLES_PICTURE or name not in pictures:
        return None
    return embedded_picture(name, pictures[name])


def varied_settings(trials: Sequence[Trial]) -> list[str]:
    """Every setting that some trial overrides: k first, then dropout, then the prior."""

    def rank(key: str) -> int:
        wanted = (key == "train.d_steps", "dropout" in key, key.startswith("prior."), True)
        return wanted.index(True)

    return sorted(dict.fromkeys(key for trial in trials for key in trial["overrides"]), key=rank)


def _winner(trials: Sequence[Trial], best_trial: int | None, objective: Objective) -> Trial | None:
    if best_trial is None:
        return None
    scored = {trial["trial"]: trial for trial in trials if _score(trial, objective) is not None}
    if best_trial not in scored:
        raise ValueError(
            f"best_trial must be one of the trials with a score {sorted(scored)}, got {best_trial}"
        )
    return scored[best_trial]


def _settings(trial: Trial, base: Mapping[str, Any]) -> dict[str, Any]:
    """What the trial ran with, by dotted path; what it does not override is as in `base`."""
    return {**base, **trial["overrides"]}


def _ranked(trials: Sequence[Trial], objective: Objective) -> list[tuple[int | None, Trial]]:
    """Best score first, of equal ones the earlier step; last and unranked those with no score."""

    def order(trial: Trial) -> tuple[float, int, int]:
        if _score(trial, objective) is None:
            return math.inf, 0, trial["trial"]
        return -objective.merit(trial["best"]), trial["best"]["step"], trial["trial"]

    ordered = sorted(trials, key=order)
    return [
        (None if _score(trial, objective) is None else rank, trial)
        for rank, trial in enumerate(ordered, start=1)
    ]


def _other_scores(trials: Sequence[Trial], objective: Objective) -> list[Objective]:
    """What the trials were scored by as well."""
    reported = {name for trial in trials for name in trial["best"] or {}}
    scores = [score for score in OBJECTIVES.values() if score is not objective]
    return [score for score in scores if score.metric in reported]


def _headline(winner: Trial | None, promotion: Mapping[str, Any] | None) -> tuple[str, str]:
    """The verdict, and the sentence below it."""
    if winner is None:
        return "No trial reached a score", "There is nothing to evaluate or to promote."
    trial = f"Trial {winner['trial']}"
    if promotion is None:
        return f"{trial} leads the sweep", "The promotion gate has not been asked."
    model, version = promotion["model"], promotion["version"]
    if promotion["outcome"] == "refused":
        rest = f"Its champion stays version {version}." if version else "It has no champion yet."
        n_refused = sum(not check["passed"] for check in promotion["checks"])
        by = f"{n_refused} of {len(promotion['checks'])} checks"
        return f"{trial} was not promoted", f"Refused for {model} by {by} of the gate. {rest}"
    if promotion["outcome"] == "unchanged":
        return f"{trial} is the champion already", f"It is {model} version {version}."
    sentence, previous = f"It is {model} version {version}", promotion["previous_version"]
    if previous is None:
        return f"{trial} is the champion", f"{sentence}, the first of its name."
    return f"{trial} is the new champion", f"{sentence} and replaces version {previous}."


def _class_shares(evaluation: Evaluation) -> Drawing | None:
    """The share of each class beside the data's, where there are labels."""
    shares = evaluation.details.get("classes", {}).get("shares")
    if not shares:
        return None
    listed = ", ".join(f"{name} {own:.1%} ({real:.1%})" for name, (own, real) in shares.items())
    return Drawing(
        title="Share of each class",
        svg=figures.class_shares(
            [figures.ClassShare(name, own, real) for name, (own, real) in shares.items()],
            starved_fraction=STARVED_FRACTION,
        ),
        alt=f"Share of each class among the samples, in brackets among validation images: "
        f"{listed}.",
    )


def _score_in_context(scores: Mapping[str, float], best_trial: int | None) -> Drawing | None:
    """The test score among those of Table 1; nothing unless it has as many samples behind it."""
    if scores["n_samples"] != N_SAMPLES_OF_PAPER or PARZEN_LL_TEST not in scores:
        return None
    score, standard_error = scores[PARZEN_LL_TEST], scores[PARZEN_LL_TEST_SE]
    ours = figures.Reference(f"Trial {best_trial}", score, standard_error, is_ours=True)
    rows = [*TABLE_1, REAL_IMAGES, ours]
    listed = ", ".join(f"{row.label} {row.score:.1f}" for row in rows)
    return Drawing(
        title="Beside Table 1 of the paper",
        svg=figures.score_in_context(rows),
        alt=f"Dot plot of test scores in nats: {listed}.",
    )


def _learning_curves(
    trials: Sequence[Trial],
    winner: Trial | None,
    base: Mapping[str, Any],
    objective: Objective,
) -> list[Drawing]:
    """Scores and losses of all trials, and the winner's D; without those that have no data."""
    kind = (_settings(winner, base) if winner else base)["train.generator_loss"]
    same_loss = [t for t in trials if _settings(t, base)["train.generator_loss"] == kind]
    drawings = [
        *(
            _curves(f"{score.title}, {score.of}", score.metric, trials=trials, winner=winner)
            for score in (objective, *_other_scores(trials, objective))
        ),
        _curves("Loss of D", D_LOSS, trials=trials, winner=winner, level=(math.log(4), "log 4")),
        _curves("Loss of G", G_LOSS, trials=same_loss, winner=winner, level=EQUILIBRIUM[kind]),
        _answers(winner) if winner else None,
    ]
    return [drawing for drawing in drawings if drawing is not None]


def _curves(
    title: str,
    metric: str,
    *,
    trials: Sequence[Trial],
    winner: Trial | None,
    level: tuple[float, str] | None = None,
) -> Drawing | None:
    curves = [curve for trial in trials if (curve := _curve(trial, metric, winner)).steps]
    if not curves:
        return None
    everything = [value for curve in curves for value in curve.values]
    decisive = [value for curve in curves if curve.is_winner for value in curve.reach()]
    score = OBJECTIVES.get(metric)
    if score is not None:
        limits = figures.score_limits(
            everything, spreads=3, is_larger_better=score.is_larger_better, shown=decisive
        )
    else:
        limits = figures.with_margin([*(decisive or everything), *([level[0]] if level else [])])
    ylabel = _with_unit(metric, "nats" if score is None else score.unit)
    svg = figures.learning_curves(metric, curves, ylabel=ylabel, limits=limits, level=level)
    ends = [curve.values[-1] for curve in curves]
    alt = f"{metric} by step; {len(curves)} trials end between {min(ends):.4g} and {max(ends):.4g}"
    return Drawing(title, svg, alt)


def _curve(trial: Trial, metric: str, winner: Trial | None, label: str = "") -> figures.Curve:
    """One metric of a trial's history, without the reports that lack it."""
    reports = [report for report in trial["history"] if _is_finite(report.get(metric))]
    score = OBJECTIVES.get(metric)
    return figures.Curve(
        label=label or f"trial {trial['trial']}",
        steps=[report["step"] for report in reports],
        values=[report[metric] for report in reports],
        errors=[] if score is None else [report[score.metric_se] for report in reports],
        status=trial["status"],
        is_winner=trial is winner,
    )


def _answers(winner: Trial) -> Drawing | None:
    real = _curve(winner, D_REAL_MEAN, winner, "D(x), images")
    fake = _curve(winner, D_FAKE_MEAN, winner, "D(G(z)), samples")
    if not (real.steps and fake.steps):
        return None
    return Drawing(
        title=f"What D answers, trial {winner['trial']}",
        svg=figures.discriminator_answers(real, fake),
        alt=f"Mean answer of D by step. It ends at {real.values[-1]:.2f} for images and "
        f"{fake.values[-1]:.2f} for samples; 1/2 means that D cannot tell them apart.",
    )


def _scores_by_setting(
    keys: Sequence[str],
    trials: Sequence[Trial],
    best_trial: int | None,
    config: Mapping[str, Any],
) -> list[Drawing]:
    """One panel per varied setting; none if there is no score to draw."""
    base, objective = flatten(config["base"]), OBJECTIVES[config["sweep"]["objective"]]
    scores = [score for trial in trials if (score := _score(trial, objective)) is not None]
    if not scores:
        return []
    best = _ranked(trials, objective)[0][1]
    score, error = best["best"][objective.metric], best["best"][objective.metric_se]
    limits = figures.score_limits(
        scores,
        spreads=2,
        is_larger_better=objective.is_larger_better,
        shown=[score - error, score + error],
    )
    extreme = "highest" if objective.is_larger_better else "lowest"
    drawings = []
    for key in keys:
        points = [
            _point(trial, _settings(trial, base)[key], best_trial, objective) for trial in trials
        ]
        svg = figures.score_by_setting(
            f"setting-{key.replace('.', '-')}",
            points,
            xlabel=key,
            ylabel=_with_unit(f"best {objective.title}", objective.unit),
            limits=limits,
            is_larger_better=objective.is_larger_better,
            is_log="loguniform" in config["sweep"]["space"].get(key, {}),
        )
        best_value = figures.setting_text(_settings(best, base)[key])
        alt = (
            f"Best {objective.title} of {len(trials)} trials against {key}; "
            f"the {extreme} lies at {best_value}"
        )
        drawings.append(Drawing(SETTING_LABELS.get(key, key), svg, alt))
    return drawings


def _point(
    trial: Trial, value: Any, best_trial: int | None, objective: Objective
) -> figures.Point:
    score = _score(trial, objective)
    text = "no score" if score is None else f"{objective.text(score)} {objective.unit}".rstrip()
    return figures.Point(
        label=f"trial {trial['trial']}, {text}",
        x=value,
        score=score,
        standard_error=0.0 if score is None else trial["best"][objective.metric_se],
        status=trial["status"],
        is_winner=trial["trial"] == best_trial,
    )


def _score(trial: Trial, objective: Objective) -> float | None:
    score = trial["best"] and trial["best"][objective.metric]
    return score if _is_finite(score) else None


def _with_unit(quantity: str, unit: str) -> str:
    return f"{quantity}, {unit}" if unit else quantity


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def embedded_picture(name: str, png: bytes) -> dict[str, Any]:
    """A PNG as a data URI, and the width at which each of its pixels is a whole square.

    Raises:
        ValueError: if it is no PNG.
    """
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"{name} must be a PNG file, got bytes that begin with {png[:8]!r}")
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    zoom = max(1, 640 // width)
    uri = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return {"uri": uri, "width": zoom * width, "height": zoom * height}


def _differences(tree: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """What a preset would have to state: the leaves of `tree` that are not as in `default`."""
    changed: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and isinstance(default.get(key), Mapping):
            if inner := _differences(value, default[key]):
                changed[key] = inner
        elif value != default.get(key):
            changed[key] = value
    return changed


def _train_options(trial: Trial) -> str:
    """The trial's settings as options of a shell command."""
    settings = {**trial["overrides"], "seed": trial["seed"]}
    return set_options(assignments_of(settings))


def _nats(value: float | None, standard_error: float | None = None) -> str:
    if value is None:
        return "–"
    text = f"{value:.1f}".replace("-", "−")
    return text if standard_error is None else f"{text} ± {standard_error:.1f}"


def _duration(seconds: float) -> str:
    """Seconds as a person says them."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def page_environment() -> Environment:
    """What every HTML page is made with."""
    return Environment(
        loader=PackageLoader("pipeline"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _environment(objective: Objective) -> Environment:
    environment = page_environment()
    environment.filters |= {
        "breakable": lambda path: Markup(".<wbr>").join(path.split(".")),
        "nats": _nats,
        "duration": _duration,
        "setting": figures.setting_text,
        "exact": to_yaml,
        "score": functools.partial(_score, objective=objective),
        "measured": measured,
        "number": number_text,
        "with_unit": _with_unit,
    }
    return environment
