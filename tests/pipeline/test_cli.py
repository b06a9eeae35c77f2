"""The command: help, exit status, what goes where (contract)."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import rich.console
import yaml

from gan.errors import DatasetError
from pipeline import cli, main_line, scoring, ui
from pipeline.errors import PipelineError, PromotionRefused
from pipeline.extensions import extensions as known_extensions
from pipeline.gate import Check
from pipeline.graph import Outcome
from pipeline.settings import resolve
from tests.pipeline.commands import command_help, command_names, parse
from tests.pipeline.tiny_run import write_images, write_labelled_images
from tuning.errors import SweepInterrupted
from tuning.jobs import Job

COMMANDS = [
    "data",
    "evaluate",
    "extend",
    "fetch",
    "jobs",
    "logs",
    "paper",
    "promote",
    "report",
    "run",
    "sample",
    "score",
    "similar",
    "stop",
    "submit",
    "sweep",
    "sync",
    "theory",
    "train",
    "ui",
]


def example_of(name):
    (example,) = re.findall(r"^Example: (gan .+)$", command_help(name), re.MULTILINE)
    return example


def test_commands_are_those_that_are_known():
    assert command_names() == COMMANDS


def test_installed_script_is_this_program():
    (script,) = (e for e in entry_points(group="console_scripts") if e.name == "gan")
    assert script.value == "pipeline.cli:main"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_has_an_example_that_it_takes(name):
    parsed, parameters = parse(example_of(name))
    assert parsed == name
    if parameters.get("source"):
        resolve(parameters["source"], parameters["assignments"] or ())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_is_shown(gan, name):
    answer = gan(name, "--help")
    assert answer.status == 0
    assert "Example:" in answer.out


def test_help_imports_nothing_that_is_slow():
    code = (
        "import sys; sys.argv = ['gan', '--help']\n"
        "from pipeline.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Usage: gan" in answer.stdout
    imported = set(answer.stderr.split())
    slow = "torch ray mlflow numpy scipy pandas pyarrow pydantic matplotlib yaml optuna sqlalchemy"
    assert "typer" in imported
    assert imported & set(slow.split()) == set()


def test_no_command_shows_help_as_a_usage_error(gan):
    answer = gan()
    assert answer.status == 2
    assert "Usage: gan" in answer.out


def test_last_line_of_stdout_is_json_and_all_else_goes_to_stderr(gan, here):
    answer = gan("data", "tiny.yaml", "--json")
    assert answer.status == 0
    facts = json.loads(answer.out)
    assert (facts["n_train"], facts["n_valid"], facts["image_shape"]) == (300, 100, [1, 8, 8])
    assert re.search(r"^data      done in \d+:\d\d  runs/tiny/data$", answer.err, re.MULTILINE)
    assert re.search(r"^n_train +300$", answer.err, re.MULTILINE)


def test_without_json_stdout_is_empty(gan, here):
    assert gan("data", "tiny.yaml").out == ""


def test_failure_leaves_stdout_empty(gan, here):
    images = here / "train.npz"
    images.write_bytes(images.read_bytes()[:-30])
    answer = gan("data", "tiny.yaml", "--json")
    assert (answer.status, answer.out) == (1, "")
    assert answer.err == f"error: {images}: cannot be read: File is not a zip file\n"


def test_score_and_its_error_share_a_line_for_people(capsys):
    result = {"parzen_ll_test": 1.23456, "parzen_ll_test_se": 0.5, "trial": 3, "no_se": 1.0}
    cli._show(result, as_json=True)
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        "parzen_ll_test  1.235 ± 0.500",
        "trial           3",
        "no_se           1.000",
    ]
    assert json.loads(out) == result


def test_dry_run_says_what_would_be_run_and_changes_nothing(gan, here):
    before = sorted(here.rglob("*"))
    answer = gan("run", "tiny.yaml", "--set", "train.n_steps=7", "--dry-run", "--json")
    plan = json.loads(answer.out)
    assert plan["stages"] == dict.fromkeys((s for s in cli.STAGES if s != "extend"), "run")
    assert plan["config"]["base"]["train"]["n_steps"] == 7
    assert sorted(here.rglob("*")) == before
    answer = gan("run", "tiny.yaml", "--to", "sweep", "--dry-run")
    assert answer.out == ""
    assert answer.err.endswith("data      run\nsweep     run\n")
    gan("data", "tiny.yaml")
    answer = gan("run", "tiny.yaml", "--to", "data", "--dry-run")
    assert answer.err.endswith("\ndata      run\n")


def test_stages_of_the_command_are_those_of_the_pipeline(here):
    config = resolve("tiny.yaml", ["extensions=[conditional]"])
    assert tuple(s.name for s in main_line.main_line(config).stages) == cli.STAGES


def test_extensions_are_a_stage_where_there_are_any(gan, here):
    stages = tuple(s.name for s in main_line.main_line(resolve("tiny.yaml")).stages)
    assert stages == tuple(s for s in cli.STAGES if s != "extend")
    answer = gan("run", "tiny.yaml", "--from", "extend")
    assert answer.status == 2
    known = ", ".join(known_extensions())
    assert f"no stage extend without extensions: set extensions=[{known}]" in answer.err


def test_an_extension_that_is_not_there_is_refused_before_anything_is_run(gan, here):
    answer = gan("run", "tiny.yaml", "--set", "extensions=[conditonal]")
    assert (answer.status, answer.out) == (2, "")
    assert answer.err == "error: there is no preset conditonal; did you mean conditional?\n"
    answer = gan("extend", "tiny.yaml")
    assert answer.status == 2
    known = ", ".join(known_extensions())
    assert answer.err == f"error: tiny.yaml trains no extension; extensions are {known}\n"
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (DatasetError("a.npz is damaged"), 1, ["error: a.npz is damaged"]),
        (PipelineError("no"), 1, ["error: no"]),
        (
            PromotionRefused(
                [Check(name="c", passed=False, value=None, limit=None, reason="too weak")]
            ),
            3,
            ["error: promotion refused: c: too weak"],
        ),
        (
            SweepInterrupted("the sweep was stopped: go on with it by `gan sweep --resume x`"),
            1,
            ["error: stopped; what was finished stays, and `gan score 'my samples.npy'` goes on "],
        ),
        (OSError(28, "No space left on device", "/x/y"), 1, ["error: /x/y: No space left on de"]),
        (OSError("odd"), 1, ["error: odd"]),
        (
            shutil.Error([("/a/x", "/b/x", "[Errno 28] No space"), ("/a/y", "/b/y", "the same")]),
            1,
            ["error: /b/x could not be written: [Errno 28] No space"],
        ),
        (
            ZeroDivisionError("oops"),
            1,
            ["error: ZeroDivisionError: oops (`gan --debug COMMAND` shows where)"],
        ),
    ],
)
def test_whatever_goes_wrong_is_one_line_and_a_status(gan, monkeypatch, error, status, lines):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(scoring, "score_file", fail)
    answer = gan("score", "my samples.npy")
    assert (answer.status, answer.out) == (status, "")
    for got, expected in zip(answer.err.splitlines(), lines, strict=True):
        assert got.startswith(expected)


def test_debug_shows_where(gan, monkeypatch):
    def fail(*args, **kwargs):
        raise DatasetError("a.npz is damaged")

    monkeypatch.setattr(scoring, "score_file", fail)
    monkeypatch.setattr(sys, "argv", ["gan", "--debug", "score", "a.npz"])
    with pytest.raises(DatasetError, match=r"a\.npz is damaged"):
        cli.main()
    assert logging.getLogger("gan").level == logging.DEBUG
    assert gan("score", "a.npz").status == 1  # and the next command is back to one line


def test_interrupt_outside_the_sweep_tells_how_to_go_on(gan, here, monkeypatch):
    def interrupt(work):
        raise KeyboardInterrupt

    monkeypatch.setattr(main_line.data, "run", interrupt)
    answer = gan("run", "tiny.yaml", "--set", "train.n_steps=7")
    assert answer.status == 1
    assert answer.err == (
        "error: stopped; what was finished stays, and "
        "`gan run tiny.yaml --set train.n_steps=7` goes on from there\n"
    )
    assert list((here / "runs" / "tiny").iterdir()) == []


def test_log_lines_pass_through_the_console_of_a_live_line(monkeypatch, capsys):
    monkeypatch.setattr(rich.console.Console, "is_terminal", True)
    handlers = logging.getLogger().handlers[:]
    with cli._display():
        logging.getLogger("pipeline").warning("[bold]look[/]")
    assert logging.getLogger().handlers == handlers
    assert "[bold]look[/]" in capsys.readouterr().err


def test_ui_opens_the_store_in_use(gan, here, monkeypatch):
    started = []

    def execve(program, arguments, environment):
        started.append((program, arguments, environment))
        raise SystemExit(0)  # the real one does not come back

    monkeypatch.setattr(os, "execve", execve)
    assert gan("ui", "--port", "5123").status == 0
    ((program, arguments, environment),) = started
    assert program == sys.executable
    assert arguments[1:] == [
        *("-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", "5123", "--workers", "1")
    ]
    # Not among the arguments, which everybody on the machine can read.
    assert environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{here}/mlflow.db"


def test_ui_of_a_server_is_its_own(here, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    with pytest.raises(PipelineError, match="has its own pages: open http://tracker:5000"):
        ui.serve_ui(5000)


# Extensions


def write_extension_file(folder, name, **settings):
    text = yaml.safe_dump({"name": name, "base": {"conditional": {}}} | settings)
    (folder / f"{name}.yaml").write_text(text)


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("extensions", "problem"),
    [
        ("[nope.yaml]", "nope.yaml: No such file or directory"),
        ("conditional", "extensions: must be a list, as [a, b], got 'conditional'"),
        ("[quick]", f"quick trains no extension; extensions are {', '.join(known_extensions())}"),
        ("[self.yaml]", "self.yaml: an extension has no extensions, got ('self.yaml',)"),
        ("[bad.yaml]", "there is no setting conditional.scal; did you mean conditional.scale"),
        ("[one.yaml, two.yaml]", "one.yaml and two.yaml are both of the task conditional"),
        ("[one.yaml]", "train.npz: conditional.on=labels needs a data set with labels"),
    ],
)
def test_extensions_that_cannot_be_run_are_refused_before_anything_is(
    gan, here, extensions, problem, dry
):
    write_labelled_images(here)
    write_extension_file(here, "self", extensions=["self.yaml"])
    write_extension_file(here, "bad", sweep={"space": {"conditional.scal": {"choice": [1.0]}}})
    write_extension_file(here, "one")
    write_extension_file(here, "two")
    if "labels" in problem:
        write_images(here)
    answer = gan("run", "tiny.yaml", "--set", f"extensions={extensions}", *dry)
    assert answer.status == 2
    assert problem in answer.err
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("on", "problem"),
    [
        ("labels", "conditional.on=labels needs a data set with labels"),
        ("vectors", "conditional.on=vectors needs a data set with an array `conditions` [n, d]"),
    ],
)
def test_images_that_an_extension_cannot_use_are_refused_before_anything_is_run(
    gan, here, on, problem
):
    data = {"dataset": "train.npz", "n_valid": 100}
    write_extension_file(here, "one", base={"conditional": {"on": on}, "data": data})
    answer = gan("extend", "one.yaml")
    assert answer.status == 2
    assert answer.err == f"error: data.dataset {here / 'train.npz'}: {problem}\n"
    assert sorted(path.name for path in here.iterdir() if path.is_dir()) == []


def test_a_refusal_is_told_whether_or_not_the_extensions_were_run(here):
    config = resolve("tiny.yaml", ["extensions=[conditional]"])
    graph = main_line.main_line(config)
    check = {"name": "covers", "passed": False, "value": 0.1, "limit": 0.3, "reason": "too few"}
    graph.folder("promote").mkdir(parents=True)
    (graph.folder("promote") / "promotion.json").write_text(json.dumps({"checks": [check]}))
    promoted = Outcome("promote", is_skipped=False, folder=graph.folder("promote"))
    (told,) = main_line.refusals(graph, [promoted])
    assert told.name == "covers"
    graph.folder("extend").mkdir()
    asked = [{"task": "conditional", "checks": [check]}]
    (graph.folder("extend") / "extensions.json").write_text(json.dumps(asked))
    extended = Outcome("extend", is_skipped=False, folder=graph.folder("extend"))
    names = [told.name for told in main_line.refusals(graph, [promoted, extended])]
    assert names == ["covers", "conditional: covers"]
    assert [told.name for told in main_line.refusals(graph, [promoted])] == ["covers"]


def test_help_of_extend_names_every_extension():
    text = command_help("extend")
    assert known_extensions()
    assert all(resolve(name).base.task in text for name in known_extensions())


class Head:
    """A cluster with one job, over by now."""

    def __init__(self, job: Job) -> None:
        self.only = job

    def jobs(self) -> list[Job]:
        return [self.only]

    def job(self, job: str) -> Job:
        return self.only

    def log(self, job: str) -> str:
        return "what it printed\n"

    def follow(self, job: str) -> Iterator[str]:
        yield self.log(job)


def ask(gan, monkeypatch, *arguments, status="SUCCEEDED", exit_status=None):
    job = Job(
        id="gan-" + "x" * 96,
        name="quick",
        status=status,
        started=datetime(2026, 1, 1, tzinfo=UTC),
        ended=datetime(2026, 1, 31, tzinfo=UTC),
        exit_status=exit_status,
        entrypoint="python",
        message="the cluster's words",
    )
    monkeypatch.setattr("tuning.jobs.JobServer", lambda address: Head(job))
    return gan(*arguments, "--address", "http://head:8265")


def test_a_list_of_jobs_that_is_piped_has_whole_ids(gan, monkeypatch):
    answer = ask(gan, monkeypatch, "jobs", exit_status=0)
    _, row = answer.err.splitlines()
    assert row.split()[:2] == ["gan-" + "x" * 96, "SUCCEEDED"]


def test_a_list_of_jobs_on_a_narrow_terminal_breaks_ids_and_cuts_none(gan, monkeypatch):
    monkeypatch.setattr(rich.console.Console, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    answer = ask(gan, monkeypatch, "jobs", exit_status=0)
    assert answer.err.count("x") == 96 + 1  # that of "exit status"
    assert "…" not in answer.err


@pytest.mark.parametrize(
    ("status", "exit_status", "ends"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 3, 3),
        ("FAILED", -9, 1),
        ("FAILED", None, 1),
        ("STOPPED", None, 1),
    ],
)
def test_following_a_job_ends_as_it_did(status, exit_status, ends, gan, monkeypatch):
    arguments = ("logs", "gan-quick-1", "--follow")
    answer = ask(gan, monkeypatch, *arguments, status=status, exit_status=exit_status)
    assert (answer.status, answer.out) == (ends, "what it printed\n")
    told = f"error: job gan-{'x' * 96} is {status}: the cluster's words\n"
    assert answer.err == ("" if exit_status in (0, 3) else told)


def test_a_log_of_a_job_that_failed_is_no_failure(gan, monkeypatch):
    answer = ask(gan, monkeypatch, "logs", "gan-quick-1", status="FAILED", exit_status=3)
    assert (answer.status, answer.out, answer.err) == (0, "what it printed\n", "")
