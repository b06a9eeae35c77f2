"""The commands for a cluster that others run, too: `gan submit`, `jobs`, `logs`, `stop`.

Like `pipeline.cli`, whose part they are, they print: for people on stderr, JSON on stdout.
"""

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.options import Assignments, Json, Source

if TYPE_CHECKING:
    from tuning.jobs import Job, JobServer

app = typer.Typer()

N_COLUMNS = 200
"""Of a table that goes to a file or another program: an id has up to 100."""

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="Jobs API of the cluster's head, as http://HEAD:8265.",
    ),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="Of a job, as `gan jobs` lists them.")]


@app.command()
def submit(
    source: Source = "quick",
    address: Address = None,
    assignments: Assignments = None,
    wait: Annotated[
        bool, typer.Option(help="Show what the job prints, and end as it does.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Send a run to a Ray cluster: it is `gan run`, on the cluster's machines.

    The packages are sent along; what they depend on the cluster must have. MLFLOW_TRACKING_URI and
    GAN_STORAGE_URI are passed on if they are set here; secrets are not: the cluster has its own.
    Ctrl-C ends the showing, not the job.

    Example: gan submit quick --address http://127.0.0.1:8265 --no-wait
    """
    from pipeline.submission import submit as send

    job = send(source, assignments or (), _given(address))
    typer.echo(
        f"job {job}: `gan logs {job} --follow` shows it, `gan stop {job}` ends it", err=True
    )
    if not wait:
        if as_json:
            typer.echo(json.dumps({"job": job}))
        return
    server = _server(address)
    try:
        _follow(server, job, stream_to_stderr=True)
    except KeyboardInterrupt:
        typer.echo(f"the job goes on; `gan logs {job} -f` shows it again", err=True)
        raise SystemExit(1) from None
    _end_as(server.job(job), as_json=as_json)


@app.command()
def jobs(address: Address = None, as_json: Json = False) -> None:
    """List the jobs of a cluster, the oldest first.

    Example: gan jobs --address http://127.0.0.1:8265
    """
    found = _server(address).jobs()
    if as_json:
        typer.echo(json.dumps([_facts(job) for job in found]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("job", overflow="fold")
    for title in ("status", "started (UTC)", "for", "exit status"):
        table.add_column(title, no_wrap=True)
    for job in found:
        table.add_row(
            job.id,
            job.status,
            "" if job.started is None else f"{job.started:%Y-%m-%d %H:%M:%S}",
            _duration(job),
            "" if job.exit_status is None else str(job.exit_status),
        )
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:  # else 80 columns, at which an id would be broken
        console.width = N_COLUMNS
    console.print(table if found else "no jobs")


@app.command()
def logs(
    job: Id,
    address: Address = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on until the job is over, and end as it does."),
    ] = False,
) -> None:
    """Show what a job has printed.

    With --follow the exit status is that of the job's command, or 1 if the job was stopped.

    Example: gan logs gan-quick-1a2b3c4d --follow --address http://127.0.0.1:8265
    """
    server = _server(address)
    if follow:
        _follow(server, job, stream_to_stderr=False)
        _end_as(server.job(job), as_json=False)
    else:
        typer.echo(server.log(job), nl=False)


@app.command()
def stop(job: Id, address: Address = None, as_json: Json = False) -> None:
    """Stop a job. What it has finished stays, and the same `gan submit` goes on from there.

    With MLFLOW_TRACKING_URI set, no run of the job is left RUNNING, even if the cluster killed it.

    Example: gan stop gan-quick-1a2b3c4d --address http://127.0.0.1:8265
    """
    stopped = _server(address).stop(job)
    n_closed = _close_runs(job)
    typer.echo(f"job {job}: {stopped.status}", err=True)
    if n_closed:
        typer.echo(f"{n_closed} runs that it left open are KILLED", err=True)
    if as_json:
        typer.echo(json.dumps(_facts(stopped) | {"runs_closed": n_closed}))


def _server(address: str | None) -> "JobServer":
    from tuning.jobs import JobServer

    return JobServer(_given(address))


def _given(address: str | None) -> str:
    from gan.errors import ConfigError

    if address is None:
        raise ConfigError(
            ["say where the cluster is: --address http://HEAD:8265, or RAY_API_SERVER_ADDRESS"]
        )
    return address


def _follow(server: "JobServer", job: str, *, stream_to_stderr: bool) -> None:
    stream = sys.stderr if stream_to_stderr else sys.stdout
    for piece in server.follow(job):
        stream.write(piece)
        stream.flush()


def _end_as(job: "Job", *, as_json: bool) -> None:
    """Say how a job ended, with the exit status of its command."""
    from tuning.errors import TuningError

    if as_json:
        typer.echo(json.dumps(_facts(job)))
    if job.exit_status and job.exit_status > 0:
        # Its own words are in the log that was just shown; one that was killed has none.
        raise SystemExit(job.exit_status)
    if job.status != "SUCCEEDED":
        raise TuningError(f"job {job.id} is {job.status}: {job.message}")


def _close_runs(job: str) -> int:
    from tuning.tracking import close_job_runs, tracking_uri

    if "MLFLOW_TRACKING_URI" not in os.environ:
        typer.echo(
            "MLFLOW_TRACKING_URI is not set: whether the job closed its runs was not looked at",
            err=True,
        )
        return 0
    return close_job_runs(tracking_uri(), job)


def _facts(job: "Job") -> dict[str, Any]:
    return {
        "job": job.id,
        "name": job.name,
        "status": job.status,
        "started": job.started and job.started.isoformat(),
        "ended": job.ended and job.ended.isoformat(),
        "exit_status": job.exit_status,
        "command": job.entrypoint,
    }


def _duration(job: "Job") -> str:
    if job.started is None:
        return ""
    seconds = ((job.ended or datetime.now(UTC)) - job.started).total_seconds()
    return str(timedelta(seconds=int(seconds)))
