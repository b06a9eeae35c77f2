"""The command `gan`: the only place that prints, and that sets up logging.

torch, ray and mlflow are imported inside the commands that use them: help answers at once.

Exit status: 0 done, 1 failed, 2 usage, 3 promotion refused.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.graph import Graph

app = typer.Typer(
    name="gan",
    help="Generative adversarial nets: sweeps on Ray, runs in MLflow, promoted generators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

STAGES = ("data", "sweep", "evaluate", "promote", "report")
FAILED, USAGE, REFUSED = 1, 2, 3

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "RAY_USAGE_STATS_ENABLED": "0",
}

Source = Annotated[
    str, typer.Argument(help="Name of a preset (quick, mnist), or path of a YAML file.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change one setting; may be given several times."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="End stdout with one line of JSON.")]
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
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


class _State:
    is_debug = False


state = _State()


@app.command()
def run(  # noqa: PLR0917 - Typer turns each into an option
    source: Source = "quick",
    assignments: Assignments = None,
    first: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Run again from this stage on.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="STAGE", help="End with this stage.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run, and change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run all stages: data, sweep, evaluate, promote, report.

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
    source: Source = "quick",
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
        _run_stages(source, assignments, last="sweep", as_json=as_json)
        return
    from pipeline.main_line import find_sweep

    if assignments:
        raise typer.BadParameter("a sweep that is resumed has its settings: leave out --set")
    _run_config(find_sweep(resume).config(), first=None, last="sweep", as_json=as_json)


def _stage_command(name: str, text: str) -> None:
    def command(
        source: Source = "quick", assignments: Assignments = None, as_json: Json = False
    ) -> None:
        _run_stages(source, assignments, first=name, last=name, as_json=as_json)

    command.__doc__ = f"{text}\n\nExample: gan {name} quick"
    app.command(name)(command)


_stage_command("data", "Read the images of a configuration and record which they are.")
_stage_command("evaluate", "Score a sweep's winner on validation and test images.")
_stage_command("promote", "Ask the gate, and make the winner the champion if it agrees.")
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

    with _console() as console:
        result = train_one(resolve(source, assignments or ()), console)
    _show(result, as_json=as_json)


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help=".npy, .npz, .parquet, or a folder of pictures.")],
    dataset: Annotated[
        str, typer.Option(help="mnist, or the path of a .parquet or .npz file.")
    ] = "mnist",
    split: Annotated[
        str, typer.Option(help="valid, or test: never choose anything by a score on test.")
    ] = "valid",
    as_json: Json = False,
) -> None:
    """Score the samples of any program by Parzen window, in nats.

    Example: gan score samples.npy --dataset mnist
    """
    from pipeline.scoring import score_file

    if split not in ("valid", "test"):
        raise typer.BadParameter(f"--split takes valid or test, got {split}")
    _show(score_file(file, dataset=dataset, split=split), as_json=as_json)


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
def sample(
    generator: Annotated[
        str, typer.Argument(metavar="DIR|NAME[@ALIAS]", help="A fetched folder, or a model.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help=".png: one picture; .npy, .npz: an array.")
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="How many images.")] = 64,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Draw images from a promoted generator.

    Example: gan sample mnist-generator@champion -n 64 --seed 0 -o digits.png
    """
    from pipeline.sample_files import write_samples

    write_samples(generator, n=n, seed=seed, output=output)
    _show({"images": n, "seed": seed, "file": str(output)}, as_json=as_json)


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


def _run_config(config: Any, *, first: str | None, last: str | None, as_json: bool) -> None:
    from pipeline.main_line import main_line, summary
    from pipeline.progress import sweep_progress

    with _console() as console:
        with sweep_progress(console, config) as watcher:
            graph = main_line(config, watcher=watcher)
            outcomes = []
            for outcome in graph.run(first=first, last=last):
                console.print(
                    f"[bold]{outcome.stage:<9}[/] "
                    f"{'unchanged' if outcome.is_skipped else 'done':<9} {outcome.folder}"
                )
                outcomes.append(outcome)
        result = summary(graph, outcomes)
    _show(result, as_json=as_json)
    if result.get("outcome") == "refused":
        typer.echo(f"promotion refused: {result['reason']}", err=True)
        raise typer.Exit(REFUSED)


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
    graph: Graph = main_line(config)
    plan = {
        stage.name: "run" if stage.name == first or not graph.is_current(stage) else "skip"
        for stage in graph.selected(first=first, last=last)
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
            raise typer.BadParameter(f"{option} takes one of {', '.join(STAGES)}, got {stage}")
    if first and last and STAGES.index(last) < STAGES.index(first):
        raise typer.BadParameter(f"--to {last} comes before --from {first}")


def _show(result: Mapping[str, Any], *, as_json: bool) -> None:
    """A table for people on stderr; with `as_json` one JSON object on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in result.items():
        text = f"{value:.3f}" if isinstance(value, float) else str(value)
        table.add_row(name, text, style=None)
    Console(stderr=True, highlight=False).print(table)
    if as_json:
        typer.echo(json.dumps(dict(result)))


def _console() -> "_LoggingConsole":
    return _LoggingConsole()


class _LoggingConsole:
    """A console on stderr, through which log lines pass so that they do not tear a live bar."""

    def __enter__(self) -> "Console":
        from rich.console import Console
        from rich.logging import RichHandler

        console = Console(stderr=True, highlight=False)
        self._root = logging.getLogger()
        self._old = self._root.handlers[:]
        if console.is_terminal:
            self._root.handlers = [
                RichHandler(console=console, show_path=False, show_level=False, show_time=False)
            ]
        return console

    def __exit__(self, *exc_info: object) -> None:
        self._root.handlers = self._old


def main() -> None:
    """Run a command; whatever goes wrong becomes one line and an exit status."""
    from gan.errors import ConfigError, GanError
    from pipeline.errors import PipelineError, PromotionRefused
    from tuning.errors import TuningError

    try:
        app()
    except ConfigError as error:
        _fail("\n".join(error.problems), USAGE)
    except PromotionRefused as error:
        _fail(str(error), REFUSED)
    except (GanError, TuningError, PipelineError) as error:
        _fail(str(error), FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", FAILED)
    except Exception as error:  # noqa: BLE001 - the top level: one line, and --debug shows the rest
        _fail(f"{type(error).__name__}: {error} (--debug shows where)", FAILED)


def _fail(message: str, status: int) -> None:
    if state.is_debug:
        raise  # noqa: PLE0704 - called from an except clause alone
    for line in message.splitlines():
        typer.echo(f"error: {line}", err=True)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
