"""The command `gan`: the only place that prints, and that sets up logging.

torch, ray and mlflow are imported inside the commands that use them: help answers at once.

Exit status: 0 done, 1 failed, 2 usage, 3 promotion refused.
"""

import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import job_commands
from pipeline.options import Assignments, Json, Source

if TYPE_CHECKING:
    from gan.config import PipelineConfig
    from pipeline.evaluation import Judged
    from pipeline.evaluation import Split as SplitName
    from pipeline.paper.subjects import Budget as BudgetName
    from pipeline.progress import Display

app = typer.Typer(
    name="gan",
    help="Generative adversarial nets: sweeps on Ray, runs in MLflow, promoted generators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

STAGES = ("data", "sweep", "evaluate", "promote", "extend", "report")
FAILED, USAGE, REFUSED = 1, 2, 3
SCORED_BY = ("data", "evaluation", "promote")
"""Groups of settings that decide how samples in a file are scored and judged."""

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "RAY_USAGE_STATS_ENABLED": "0",
}

First = Annotated[
    str | None, typer.Option("--from", metavar="STAGE", help="Run again from this stage on.")
]
Last = Annotated[str | None, typer.Option("--to", metavar="STAGE", help="End with this stage.")]
Split = Annotated[
    str, typer.Option(help="valid, or test: never choose anything by a score on test.")
]
Keep = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="DIR", help="New folder for scores and pictures."),
]
Log = Annotated[bool, typer.Option(help="Log scores, pictures and verdicts to MLflow.")]
Root = Annotated[
    str | None, typer.Option(help="Folder of fashion_mnist or cifar10, as published.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the noise.")]


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and debug logs.")
    ] = False,
) -> None:
    state.is_debug = debug
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for package in ("gan", "tuning", "pipeline"):
        logging.getLogger(package).setLevel(logging.DEBUG if debug else logging.INFO)
    if not debug:
        # They tell by tracebacks and of every attempt what ours tell in one line.
        for package in ("urllib3", "ray.tune"):
            logging.getLogger(package).setLevel(logging.CRITICAL)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


class _State:
    is_debug = False


state = _State()


@app.command()
def run(  # noqa: PLR0917 - Typer turns each into an option
    source: Source = "quick",
    assignments: Assignments = None,
    first: First = None,
    last: Last = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be run, and run nothing; a model to start from is fetched.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run all stages: data, sweep, evaluate, promote, extend (if `extensions` names any), report.

    A stage is skipped where nothing that it depends on has changed; a sweep that was cut short
    goes on.

    Example: gan run quick --set sweep.n_trials=4
    """
    if dry_run:
        _show_plan(source, assignments, first=first, last=last, as_json=as_json)
    else:
        _run_stages(source, assignments, first=first, last=last, as_json=as_json)


@app.command()
def sweep(
    source: Annotated[
        str | None,
        typer.Argument(help="Name of a preset, or path of a YAML file; quick if none."),
    ] = None,
    assignments: Assignments = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="NAME", help="Go on with this sweep, whatever ended it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a sweep, or finish one that was cut short.

    Example: gan sweep --resume quick-1a2b3c4d
    """
    if resume is None:
        _run_stages(source or "quick", assignments, last="sweep", as_json=as_json)
        return
    from pipeline.main_line import find_sweep
    from pipeline.starts import resumed

    if source or assignments:
        given = source or "--set"
        raise _usage(f"a sweep that is resumed has its settings: leave out {given}")
    _run_config(resumed(find_sweep(resume)), last="sweep", resume=resume, as_json=as_json)


def _stage_command(name: str, text: str) -> None:
    def command(
        source: Source = "quick", assignments: Assignments = None, as_json: Json = False
    ) -> None:
        _run_stages(source, assignments, first=name, last=name, as_json=as_json)

    command.__doc__ = f"{text}\n\nExample: gan {name} quick"
    app.command(name)(command)


_stage_command("data", "Read the images of a configuration and record which they are.")
_stage_command("promote", "Ask the gate, and make the winner the champion if it agrees.")


@app.command()
def extend(
    source: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="Name of an extension, or a YAML file.")
    ],
    assignments: Assignments = None,
    first: First = None,
    last: Last = None,
    as_json: Json = False,
) -> None:
    """Run one of the paper's extensions: all its stages, from data to report.

    NAME is conditional, inference, shared_conditional, semi_supervised or learned_prior.

    It is a run like that of the generator: a sweep if it has a space, tracked, and promoted as a
    model of its own. The setting `extensions` of `gan run` has the same done behind the generator.

    Example: gan extend conditional --set train.n_steps=2000
    """
    from pipeline.extensions import extension_config

    _require_stages(first, last)
    config = extension_config(source, assignments or ())
    _run_config(config, first=first, last=last, as_json=as_json)


_stage_command("report", "Write the report of a sweep as one HTML page.")


@app.command()
def train(
    source: Source = "mnist",
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Train one configuration, without a sweep; run again, it goes on where it was.

    Example: gan train mnist --set train.n_steps=1000 --set evaluation.score_every=500
    """
    from pipeline.settings import resolve
    from pipeline.training import train_one

    config = _startable(resolve(source, assignments or ()))
    with _display() as display:
        display.begin("train")
        result = train_one(config, display)
        display.end("train", result["generator"])
    _show(result, as_json=as_json)


@app.command()
def evaluate(  # noqa: PLR0917 - Typer turns each into an option
    target: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|FILE|RUN|DIR|NAME[@ALIAS]",
            help="A sweep's configuration, for its winner; the id of a trial's run in MLflow; the "
            "folder of a checkpoint or generator; a promoted generator.",
        ),
    ] = "quick",
    assignments: Assignments = None,
    split: Split = "valid",
    n_likelihood: Annotated[
        int,
        typer.Option(
            "--ais",
            metavar="IMAGES",
            min=0,
            help="Images (2 or more) for the log-likelihood by AIS.",
        ),
    ] = 0,
    n_temperatures: Annotated[
        int, typer.Option("--ais-temperatures", min=1, help="Steps from p(z) to the posterior.")
    ] = 1_000,
    output: Keep = None,
    log: Log = True,
    as_json: Json = False,
) -> None:
    """Take every score of a generator, and say what each check of the gate makes of it.

    With a preset or YAML file it is the stage of `gan run`: the sweep's winner, on validation and
    test images. Else --set takes data, evaluation, seed and promote.limits.

    Example: gan evaluate mnist-generator@champion
    """
    from pipeline.settings import is_source

    if is_source(target):
        if split != "valid" or n_likelihood or output or not log:
            raise _usage(f"{target} is a sweep: it takes no --split, --ais, --output, --no-log")
        _run_stages(target, assignments, first="evaluate", last="evaluate", as_json=as_json)
        return
    from gan.evaluation.ais import AisSettings
    from pipeline.scoring import Request, score_generator

    judged = score_generator(
        target,
        Request(source=target, split=_split(split), keep=output, is_logged=log),
        assignments=assignments or (),
        n_likelihood_images=n_likelihood,
        ais=AisSettings(n_temperatures=n_temperatures),
    )
    _show_judged(judged, as_json=as_json)


@app.command()
def score(  # noqa: PLR0917 - Typer turns each into an option
    file: Annotated[Path, typer.Argument(help=".npy, .npz, .parquet, or a folder of pictures.")],
    dataset: Annotated[
        str, typer.Option(help="mnist, fashion_mnist, cifar10, or the path of images.")
    ] = "mnist",
    split: Split = "valid",
    root: Root = None,
    test_path: Annotated[
        str | None, typer.Option(help="The file with the test images, of a data set by path.")
    ] = None,
    n_valid: Annotated[
        int, typer.Option(min=1, help="Images at the end of the data set that are validation's.")
    ] = 10_000,
    assignments: Assignments = None,
    output: Keep = None,
    log: Log = True,
    as_json: Json = False,
) -> None:
    """Take every score of the samples of any program, and say what each check makes of them.

    Example: gan score samples.npy --dataset mnist
    """
    from gan.config import load_config
    from pipeline.scoring import Request, score_file

    if unread := [a for a in assignments or () if a.split(".")[0] not in SCORED_BY]:
        raise _usage(f"of samples in a file, --set takes {', '.join(SCORED_BY)}, got {unread[0]}")
    data = {"dataset": dataset, "root": root, "test_path": test_path, "n_valid": n_valid}
    config = load_config({"base": {"data": data}}, assignments or ())
    request = Request(source=str(file), split=_split(split), keep=output, is_logged=log)
    _show_judged(score_file(file, config, request), as_json=as_json)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME[@ALIAS]", help="Alias: champion if none.")],
    dest: Annotated[Path, typer.Argument(help="A folder that is new or empty.")],
    as_json: Json = False,
) -> None:
    """Fetch a promoted generator, and verify every file of it.

    Example: gan fetch mnist-generator@champion champion
    """
    from pipeline.registry import fetch as fetch_version
    from tuning.tracking import tracking_uri

    version = fetch_version(tracking_uri(), name, dest)
    _show({"version": str(version), "folder": str(dest)}, as_json=as_json)


@app.command()
def sample(  # noqa: PLR0917 - Typer turns each into an option
    generator: Annotated[
        str, typer.Argument(metavar="DIR|NAME[@ALIAS]", help="A fetched folder, or a model.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help=".png: one picture; .npy, .npz: an array.")
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="How many images.")] = 64,
    seed: Seed = 0,
    condition: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS|X,Y,...",
            help="Class or vector that all images are of; a conditional generator's alone.",
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Picture or .npy of an image to complete; a shared model's alone."
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="What is visible of it: left_half, random_25, without_centre, ..., or a .npy of "
            "0 and 1.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw images from a promoted generator.

    Example: gan sample mnist-generator@champion -n 64 --seed 0 -o digits.png
    """
    from pipeline.sample_files import write_samples

    options = {"condition": condition, "image": image, "mask": mask}
    write_samples(generator, n=n, seed=seed, output=output, options=options)
    _show({"images": n, "seed": seed, "file": str(output)}, as_json=as_json)


@app.command()
def similar(  # noqa: PLR0917 - Typer turns each into an option
    image: Annotated[
        str,
        typer.Argument(
            metavar="FILE|train:INDEX|test:INDEX",
            help="A picture or .npy file of one image, or an image of the data set by its row.",
        ),
    ],
    dataset: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="DATASET",
            help="mnist, fashion_mnist, cifar10, or the path of images.",
        ),
    ] = "mnist",
    k: Annotated[int, typer.Option("-k", min=1, help="How many images to find.")] = 10,
    model: Annotated[
        str,
        typer.Option(metavar="DIR|NAME[@ALIAS]", help="The inference net that compares them."),
    ] = "mnist-inference@champion",
    root: Root = None,
    test_path: Annotated[
        str | None, typer.Option(help="The file with the test images, of a data set by path.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A .png: the image, G(E(image)), those found."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the images of a data set that are nearest to one, by the z that is inferred of them.

    Example: gan similar test:7 --to mnist -k 10 -o similar.png
    """
    from gan.config import FOLDED_SUFFIX, load_config
    from pipeline.similar import find_similar

    # All of a training file is searched; one with folds has no say in how many are held out.
    n_valid = {} if dataset.endswith(FOLDED_SUFFIX) else {"n_valid": 1}
    given = {"dataset": dataset, "root": root, "test_path": test_path} | n_valid
    data = load_config({"base": {"data": given}}).base.data
    found = find_similar(image, data=data, model=model, k=k, output=output)
    for row in found.rows():
        label = f"  class {row['class']}" if "class" in row else ""
        typer.echo(f"train:{row['index']:<8}{label}  distance {row['distance']:.3f}", err=True)
    result = {"model": model, "image": image, "neighbours": found.rows()}
    if output is not None:
        result["picture"] = str(output)
        typer.echo(f"picture  {output}", err=True)
    if as_json:
        typer.echo(json.dumps(result))


@app.command()
def theory(
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of the page.")] = Path(
        "runs/theory"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 0,
    as_json: Json = False,
) -> None:
    """Hold section 4 and Figure 1 of the paper against numbers: about a minute, one page.

    Example: gan theory -o runs/theory
    """
    import torch

    from pipeline.errors import PipelineError
    from pipeline.theory import PAGE, write_theory

    torch.set_num_threads(1)  # nets of a few units lose more by sharing than they gain
    claims = write_theory(output, seed=seed)
    for claim in claims:
        sign = "holds" if claim.holds else "FAILS"
        told = f"{claim.measured_text} ({claim.condition})"
        typer.echo(f"{sign}  {claim.source}: {claim.text}: {told}", err=True)
    page = output / PAGE
    typer.echo(f"page  {page}", err=True)
    n_held = sum(claim.holds for claim in claims)
    if as_json:
        typer.echo(json.dumps({"page": str(page), "claims": len(claims), "hold": n_held}))
    if n_held < len(claims):
        raise PipelineError(f"{len(claims) - n_held} of {len(claims)} claims do not hold: {page}")


@app.command()
def paper(  # noqa: PLR0917 - Typer turns each into an option
    budget: Annotated[
        str,
        typer.Option(help="quick: minutes, and the page says what was cut; full: hours, or days."),
    ] = "quick",
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of the page.")] = Path(
        "runs/paper"
    ),
    fashion_mnist: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of its four files.")
    ] = None,
    cifar10: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of its files.")
    ] = None,
    tfd: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TFD_48x48.mat, or a file laid out so.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch what the folders of the two data sets lack.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; a core each, at most 8, if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold the whole paper against this system: theory, tables and figures, on one page.

    Data sets that are not named are left out, and the page says so. What is done is kept: the same
    command goes on after any stop. The page is logged to MLflow, too.

    Example: gan paper --cifar10 images/cifar10 --download
    """
    from pipeline.paper.make import Files, write_paper

    result = write_paper(
        output,
        _budget(budget),
        Files(fashion_mnist=fashion_mnist, cifar10=cifar10, faces=tfd, download=download),
        n_workers=workers,
        tell=lambda line: typer.echo(line, err=True),
    )
    typer.echo(f"page  {result['page']}", err=True)
    if as_json:
        typer.echo(json.dumps(result))


@app.command()
def sync(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Sweeps by name; all that lie here if none."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send to MLflow what could not be sent, and close the runs of processes that were lost.

    For sweeps and runs of `gan train` in this folder, and, with GAN_STORAGE_URI, sweeps there;
    one that is being run, or of which a file is damaged, is passed over, and the status is 1.

    Example: gan sync
    """
    from pipeline.leftovers import sync_all

    synced, passed_over = sync_all(names or ())
    for one in synced:
        sent = f"{one.n_sent} records sent, {one.n_waiting} wait"
        typer.echo(f"{one.name}  {sent}, {one.n_closed} runs closed", err=True)
    if as_json:
        typer.echo(json.dumps([vars(one) for one in synced]))
    if any(one.n_waiting for one in synced):
        _fail("MLflow did not take all: what waits stays where it is", FAILED)
    if passed_over:
        _fail(f"passed over: {', '.join(passed_over)}", FAILED)


app.add_typer(job_commands.app)


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Open MLflow's pages on the store in use.

    Example: gan ui --port 5000
    """
    from pipeline.ui import serve_ui

    serve_ui(port)


def _run_stages(
    source: str,
    assignments: list[str] | None,
    *,
    first: str | None = None,
    last: str | None = None,
    as_json: bool,
) -> None:
    from pipeline.settings import resolve

    _require_stages(first, last)
    config = resolve(source, assignments or ())
    _run_config(config, first=first, last=last, as_json=as_json)


def _run_config(
    config: "PipelineConfig",
    *,
    first: str | None = None,
    last: str | None = None,
    resume: str | None = None,
    as_json: bool,
) -> None:
    from gan.objectives import OBJECTIVES
    from pipeline.errors import PromotionRefused
    from pipeline.main_line import (
        judged_winner,
        main_line,
        refusals,
        require_test_images,
        summary,
    )
    from pipeline.progress import SweepTally
    from tuning.sweep import planned_trials

    def tally(swept: "PipelineConfig") -> SweepTally:
        return SweepTally(
            n_trials=planned_trials(swept),
            n_steps=swept.base.train.n_steps,
            objective=OBJECTIVES[swept.sweep.objective],
        )

    config = _startable(config, first, last)
    with _display() as display:
        graph = main_line(
            config,
            watcher=display.watcher(tally(config)),
            watch=lambda extension: display.watcher(tally(extension)),
            resume=resume,
        )
        if "evaluate" in (stage.name for stage in graph.selected(first=first, last=last)):
            require_test_images(config)
        outcomes = []
        for outcome in graph.run(first=first, last=last, on_start=display.begin):
            display.end(outcome.stage, str(outcome.folder), is_skipped=outcome.is_skipped)
            outcomes.append(outcome)
    if last == "evaluate":
        _show_judged(judged_winner(graph), as_json=False)
    result = summary(graph, outcomes)
    _show(result, as_json=as_json)
    if "refused" in (result.get("outcome"), *result.get("extensions", {}).values()):
        raise PromotionRefused(refusals(graph, outcomes))


def _budget(name: str) -> "BudgetName":
    if name not in ("quick", "full"):
        raise _usage(f"--budget must be quick or full, got {name}")
    return "quick" if name == "quick" else "full"


def _split(text: str) -> "SplitName":
    if text not in ("valid", "test"):
        raise _usage(f"--split takes valid or test, got {text}")
    return "test" if text == "test" else "valid"


def _show_judged(judged: "Judged", *, as_json: bool) -> None:
    """The two tables on stderr; with `as_json` one JSON object on stdout."""
    from rich.console import Console

    from pipeline.evaluation_table import print_evaluation

    evaluation = judged.evaluation
    images = {"valid": "validation", "test": "test"}[judged.split]
    what = f"{evaluation.n_samples:,} samples" if evaluation.n_samples else "scores"
    title = f"{what} on {images} images"
    console = Console(stderr=True, highlight=False)
    print_evaluation(evaluation, judged.checks, title=title, console=console)
    if judged.run_id:
        typer.echo(f"MLflow run {judged.run_id}", err=True)
    if as_json:
        typer.echo(json.dumps(judged.summary()))


def _show_plan(
    source: str,
    assignments: list[str] | None,
    *,
    first: str | None,
    last: str | None,
    as_json: bool,
) -> None:
    from gan.config import to_dict
    from pipeline.main_line import main_line
    from pipeline.settings import resolve
    from tuning.sweep import check_sweep

    _require_stages(first, last)
    config = resolve(source, assignments or ())
    check_sweep(config)
    config = _startable(config, first, last)
    plan = {
        stage: "run" if would_run else "skip"
        for stage, would_run in main_line(config).plan(first=first, last=last).items()
    }
    if as_json:
        typer.echo(json.dumps({"stages": plan, "config": to_dict(config)}))
        return
    import yaml

    typer.echo(yaml.safe_dump(to_dict(config), sort_keys=False), err=True)
    for name, action in plan.items():
        typer.echo(f"{name:<9} {action}", err=True)


def _require_stages(first: str | None, last: str | None) -> None:
    for option, stage in (("--from", first), ("--to", last)):
        if stage is not None and stage not in STAGES:
            raise _usage(f"{option} takes one of {', '.join(STAGES)}, got {stage}")
    if first and last and STAGES.index(last) < STAGES.index(first):
        raise _usage(f"--to {last} comes before --from {first}")


def _startable(config: "PipelineConfig", *stages: str | None) -> "PipelineConfig":
    """The configuration with what it starts from, if no stage would have to refuse it."""
    from pipeline.extensions import (
        GENERATOR,
        extensions,
        require_extensions,
        require_images,
        require_objective,
    )

    if "extend" in stages and not config.extensions:
        known = ", ".join(extensions())
        raise _usage(f"there is no stage extend without extensions: set extensions=[{known}]")
    require_objective(config)
    if config.base.task != GENERATOR or config.base.start is not None:
        from pipeline.starts import pin

        config = pin(config, accept=require_images)
    else:
        require_images(config)
    require_extensions(config)
    return config


def _usage(problem: str) -> Exception:
    from gan.errors import ConfigError

    return ConfigError([problem])


def _show(result: Mapping[str, Any], *, as_json: bool) -> None:
    """One line a value for people, on stderr; with `as_json` one JSON object on stdout."""
    errors = {f"{name}_se" for name in result} & result.keys()
    shown = [name for name in result if name not in errors]
    width = max(map(len, shown), default=0)
    for name in shown:
        text = _text(result[name])
        if f"{name}_se" in errors:
            text += f" ± {_text(result[f'{name}_se'])}"
        typer.echo(f"{name:<{width}}  {text}", err=True)
    if as_json:
        typer.echo(json.dumps(dict(result)))


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@contextmanager
def _display() -> "Iterator[Display]":
    """A display on stderr, through which log lines pass so that they do not tear a live line."""
    from rich.console import Console
    from rich.highlighter import NullHighlighter
    from rich.logging import RichHandler

    from pipeline.progress import display
    from tuning.errors import SweepInterrupted

    console = Console(stderr=True, highlight=False)
    root = logging.getLogger()
    handlers = root.handlers[:]
    if console.is_terminal:
        root.handlers = [
            RichHandler(
                console=console,
                highlighter=NullHighlighter(),
                show_level=False,
                show_path=False,
                show_time=False,
            )
        ]
    try:
        with display(console) as shown:
            yield shown
    except KeyboardInterrupt:
        # Typer would say `Aborted!`, and not how to go on.
        raise SweepInterrupted("stopped") from None
    finally:
        root.handlers = handlers


def main() -> None:
    """Run a command; whatever goes wrong becomes one line and an exit status."""
    from gan.errors import ConfigError, GanError
    from pipeline.errors import PipelineError, PromotionRefused
    from tuning.errors import SweepInterrupted, TuningError

    try:
        app(prog_name="gan")
    except ConfigError as error:
        _fail("\n".join(error.problems), USAGE)
    except PromotionRefused as error:
        _fail(str(error), REFUSED)
    except SweepInterrupted:
        command = shlex.join(["gan", *sys.argv[1:]])
        _fail(f"stopped; what was finished stays, and `{command}` goes on from there", FAILED)
    except (GanError, TuningError, PipelineError) as error:
        _fail(str(error), FAILED)
    except OSError as error:
        _fail(_reason(error), FAILED)
    except Exception as error:  # noqa: BLE001 - the top level: one line, and --debug shows the rest
        _fail(f"{type(error).__name__}: {error} (`gan --debug COMMAND` shows where)", FAILED)


def _reason(error: OSError) -> str:
    if isinstance(error, shutil.Error):  # of all the files of a folder that was copied: the first
        _, target, reason = error.args[0][0]
        return f"{target} could not be written: {reason}"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _fail(message: str, status: int) -> None:
    if state.is_debug:
        raise  # noqa: PLE0704 - called from an except clause alone
    for line in message.splitlines():
        typer.echo(f"error: {line}", err=True)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
