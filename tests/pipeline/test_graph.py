"""Which stage is run when, with stages that write one line (algorithm, contract)."""

import dataclasses
import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gan import files as files_module
from gan.config import PipelineConfig, load_config
from pipeline import graph as graph_module
from pipeline.errors import PipelineError, StageError
from pipeline.graph import Graph, Stage


class Kitchen:
    """Three stages, soup <- water, dish <- soup and water, and what became of them.

    Attributes:
        cooked: names in the order in which stages did their work.
        told: names that `on_start` was told.
    """

    def __init__(self, workspace):
        self.workspace, self.cooked, self.told = workspace, [], []
        self.water, self.is_settled, self.break_at = "cold", True, None
        self.recipe = workspace.with_name("recipe")

    def graph(self, **settings):
        config = load_config({"base": {"train": settings}} if settings else {})
        return Graph(
            (
                Stage(
                    name="water",
                    needs=(),
                    settings=lambda c: {"n": c.base.train.n_steps},
                    run=self._cook("water", lambda work: self.water),
                ),
                Stage(
                    name="soup",
                    needs=("water",),
                    settings=lambda c: {"k": c.base.train.d_steps},
                    run=self._cook(
                        "soup", lambda work: (work.inputs["water"] / "water").read_text() + " soup"
                    ),
                ),
                Stage(
                    name="dish",
                    needs=("water", "soup"),
                    settings=lambda c: {},
                    run=self._cook(
                        "dish", lambda work: (work.inputs["soup"] / "soup").read_text() + " served"
                    ),
                    is_settled=lambda folder: self.is_settled,
                    reads=lambda c: (self.recipe,),
                ),
            ),
            config,
            self.workspace,
        )

    def run(self, *, first=None, last=None, **settings):
        self.cooked.clear()
        self.told.clear()
        graph = self.graph(**settings)
        return list(graph.run(first=first, last=last, on_start=self.told.append))

    def _cook(self, name, text):
        def run(work):
            (work.out / "half").write_text("written before it broke")
            if self.break_at == name:
                raise self.error
            (work.out / "half").unlink()
            (work.out / name).write_text(text(work))
            self.cooked.append(name)

        return run


@pytest.fixture
def kitchen(tmp_path):
    return Kitchen(tmp_path / "kitchen")


def tree(folder):
    """Every path below a folder, hidden ones included, with the content of files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_stages_run_in_order_and_read_what_the_earlier_ones_wrote(kitchen):
    outcomes = kitchen.run()
    assert kitchen.cooked == kitchen.told == ["water", "soup", "dish"]
    assert [(o.stage, o.is_skipped) for o in outcomes] == [
        ("water", False),
        ("soup", False),
        ("dish", False),
    ]
    assert (outcomes[2].folder / "dish").read_text() == "cold soup served"


def test_nothing_is_done_before_the_first_value_is_asked_for(kitchen):
    outcomes = kitchen.graph().run()
    assert kitchen.cooked == []
    next(outcomes)
    assert kitchen.cooked == ["water"]


def test_second_run_skips_everything_and_touches_no_file(kitchen):
    kitchen.run()
    before = {path: path.stat().st_mtime_ns for path in kitchen.workspace.rglob("*")}
    assert all(outcome.is_skipped for outcome in kitchen.run())
    assert kitchen.cooked == []
    assert kitchen.told == ["water", "soup", "dish"]
    assert {path: path.stat().st_mtime_ns for path in kitchen.workspace.rglob("*")} == before


def test_changed_setting_runs_its_stage_and_what_changes_with_it(kitchen):
    kitchen.run()
    kitchen.water = "hot"
    kitchen.run(n_steps=3)
    assert kitchen.cooked == ["water", "soup", "dish"]


def test_stage_whose_result_is_the_same_does_not_wake_the_next(kitchen):
    kitchen.run()
    kitchen.run(n_steps=3)
    assert kitchen.cooked == ["water"]
    kitchen.run(n_steps=3, d_steps=2)
    assert kitchen.cooked == ["soup"]


@pytest.mark.parametrize("file", ["soup/soup", "soup/stage.json"])
@pytest.mark.parametrize("damage", ["altered", "cut short", "removed"])
def test_stage_whose_files_were_touched_is_run_again(kitchen, file, damage):
    kitchen.run()
    path = kitchen.workspace / file
    match damage:
        case "altered":
            path.write_text(path.read_text().replace("s", "z"))
        case "cut short":
            path.write_text(path.read_text()[:-1])
        case _:
            path.unlink()
    kitchen.run()
    assert kitchen.cooked == ["soup"]


def test_stage_with_a_file_too_many_is_run_again(kitchen):
    kitchen.run()
    (kitchen.workspace / "soup" / "fly").write_text("")
    kitchen.run()
    assert kitchen.cooked == ["soup"]


def test_new_version_of_the_code_runs_all_again(kitchen, monkeypatch):
    kitchen.run()
    monkeypatch.setattr(graph_module, "__version__", "99")
    kitchen.run()
    assert kitchen.cooked == ["water", "soup", "dish"]


@pytest.mark.parametrize("content", ["less salt", None])
def test_file_elsewhere_is_an_input_by_its_content(kitchen, content):
    kitchen.recipe.write_text("more salt")
    kitchen.run()
    kitchen.recipe.touch()
    kitchen.run()
    assert kitchen.cooked == []
    if content is None:
        kitchen.recipe.unlink()
    else:
        kitchen.recipe.write_text(content)
    assert kitchen.graph().plan() == {"water": False, "soup": False, "dish": True}
    kitchen.run()
    assert kitchen.cooked == ["dish"]
    kitchen.run()
    assert kitchen.cooked == []


def test_unsettled_stage_is_asked_again_each_time(kitchen):
    kitchen.run()
    kitchen.is_settled = False
    kitchen.run()
    assert kitchen.cooked == ["dish"]


def test_first_stage_is_run_again_and_earlier_ones_are_not_looked_at(kitchen):
    kitchen.run()
    kitchen.run(first="soup", n_steps=3)
    assert kitchen.cooked == ["soup"]
    assert kitchen.told == ["soup", "dish"]


def test_last_stage_is_the_last(kitchen):
    kitchen.run(last="soup")
    assert kitchen.cooked == ["water", "soup"]


def test_stage_alone_is_both_first_and_last(kitchen):
    kitchen.run()
    kitchen.run(first="soup", last="soup")
    assert kitchen.cooked == kitchen.told == ["soup"]


def test_stage_without_its_inputs_says_what_to_run(kitchen):
    with pytest.raises(
        StageError, match=r"^dish: soup: it has not been run: begin with `gan run --to soup`"
    ):
        kitchen.run(first="dish")
    assert not kitchen.workspace.exists()


def test_earlier_stage_of_other_settings_is_used_with_a_warning(kitchen, caplog):
    kitchen.run()
    assert caplog.messages == []
    kitchen.run(first="dish", d_steps=2)
    (message,) = caplog.messages
    assert message.endswith("soup is used as it is, and was made with other settings")


@pytest.mark.parametrize("error", [ValueError("burnt"), KeyboardInterrupt()])
def test_stage_that_fails_leaves_what_was_there(kitchen, error):
    kitchen.run()
    before = tree(kitchen.workspace)
    kitchen.break_at, kitchen.error = "soup", error
    with pytest.raises(type(error)):
        kitchen.run(d_steps=2)
    assert tree(kitchen.workspace) == before


def test_stage_that_fails_the_first_time_leaves_nothing(kitchen):
    kitchen.break_at, kitchen.error = "soup", ValueError("burnt")
    with pytest.raises(ValueError, match="burnt"):
        kitchen.run()
    assert {path.name for path in kitchen.workspace.iterdir()} == {"water"}
    kitchen.break_at = None
    kitchen.run()
    assert kitchen.cooked == ["soup", "dish"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_full_disk_names_the_folder_and_not_the_scratch_file(kitchen, number):
    kitchen.break_at, kitchen.error = "soup", OSError(number, "no space", "/kitchen/.soup.1234/x")
    with pytest.raises(StageError, match=r"^soup: \S+/soup could not be written: no space$"):
        kitchen.run()


def test_other_failure_of_the_system_is_passed_on(kitchen):
    kitchen.break_at, kitchen.error = "soup", OSError(errno.EACCES, "denied", "/cupboard")
    with pytest.raises(PermissionError, match="denied: '/cupboard'"):
        kitchen.run()


def test_stages_in_the_wrong_order_are_refused(kitchen):
    with pytest.raises(ValueError, match="stage water comes before dish"):
        kitchen.run(first="dish", last="water")


def test_plan_before_the_first_run_is_all(kitchen):
    assert kitchen.graph().plan() == {"water": True, "soup": True, "dish": True}
    assert not kitchen.workspace.exists()


def test_plan_is_what_run_does_and_changes_nothing(kitchen):
    kitchen.run()
    before = tree(kitchen.workspace)
    assert kitchen.graph().plan() == {"water": False, "soup": False, "dish": False}
    assert kitchen.graph(d_steps=2).plan() == {"water": False, "soup": True, "dish": True}
    assert kitchen.graph().plan(first="soup", last="soup") == {"soup": True}
    assert tree(kitchen.workspace) == before
    kitchen.is_settled = False
    assert kitchen.graph().plan() == {"water": False, "soup": False, "dish": True}


def test_plan_does_not_take_what_is_looked_at_again_for_a_change(kitchen):
    kitchen.run()
    water, *others = kitchen.graph().stages
    water = dataclasses.replace(water, is_settled=lambda folder: False)
    graph = Graph((water, *others), PipelineConfig(), kitchen.workspace)
    assert graph.plan() == {"water": True, "soup": False, "dish": False}


def test_plan_without_inputs_says_what_to_run(kitchen):
    with pytest.raises(StageError, match="begin with `gan run --to soup`"):
        kitchen.graph().plan(first="dish")


def test_record_names_every_file_that_it_vouches_for(kitchen):
    kitchen.run()
    record = json.loads((kitchen.workspace / "soup" / "stage.json").read_text())
    assert record["files"].keys() == {"soup"}


BUSY = (
    r"^another process is at work on \S+/kitchen: wait for its end, or give this run a folder of "
)

COOK = """
import os, sys, time
from pathlib import Path
from gan.config import PipelineConfig
from pipeline.graph import Graph, Stage

def cook(work):
    (work.out / "half").write_text("")
    print("at work", flush=True)
    time.sleep(300)

stage = Stage(name="soup", needs=(), settings=lambda config: {}, run=cook)
list(Graph((stage,), PipelineConfig(), Path(sys.argv[1])).run())
"""


@pytest.fixture
def other(kitchen):
    """Another process in the middle of `soup`."""
    process = subprocess.Popen(
        [sys.executable, "-c", COOK, str(kitchen.workspace)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "at work\n"
        yield process
        process.kill()


def test_second_process_is_refused_and_changes_nothing(kitchen, other):
    before = tree(kitchen.workspace)
    with pytest.raises(PipelineError, match=BUSY):
        kitchen.run()
    assert kitchen.cooked == kitchen.told == []
    assert tree(kitchen.workspace) == before


def test_process_that_was_killed_leaves_neither_its_lock_nor_its_half_folder(kitchen, other):
    assert [path.name[:6] for path in kitchen.workspace.glob(".soup.*")] == [".soup."]
    other.kill()
    other.wait()
    kitchen.run()
    assert kitchen.cooked == ["water", "soup", "dish"]
    assert {path.name for path in kitchen.workspace.iterdir()} == {"water", "soup", "dish"}


def test_only_what_a_stage_left_is_removed(kitchen):
    kept = {".soup", ".soup.txt", ".soup.0123456x", "soup.01234567", ".sauce.01234567"}
    for name in (*kept, ".soup.01234567"):
        (kitchen.workspace / name).mkdir(parents=True)
    kitchen.run(last="water")
    assert {path.name for path in kitchen.workspace.iterdir()} == {*kept, "water"}


def test_workspace_is_locked_from_the_first_stage_to_the_last(kitchen):
    outcomes = kitchen.graph().run()
    for _ in range(3):
        next(outcomes)
        with pytest.raises(PipelineError, match=BUSY):
            next(kitchen.graph().run())
    assert list(outcomes) == []
    kitchen.run()
    assert {path.name for path in kitchen.workspace.iterdir()} == {"water", "soup", "dish"}


def test_run_that_is_given_up_gives_the_workspace_back(kitchen):
    outcomes = kitchen.graph().run()
    next(outcomes)
    outcomes.close()
    kitchen.run()
    assert kitchen.cooked == ["soup", "dish"]


def test_lock_that_its_holder_removed_meanwhile_keeps_nobody_out(kitchen, monkeypatch):
    calls = []

    def flock(handle, operation):
        if not calls:
            (kitchen.workspace / ".lock").unlink()  # by the holder, after this process opened it
        calls.append(handle)
        fcntl.flock(handle, operation)
        assert os.fstat(handle).st_nlink == len(calls) - 1

    monkeypatch.setattr(files_module, "flock", flock)
    kitchen.run()
    assert len(calls) == 2
    assert kitchen.cooked == ["water", "soup", "dish"]


def test_file_system_without_locks_is_named(kitchen, monkeypatch):
    def refuse(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files_module, "flock", refuse)
    with pytest.raises(PipelineError, match=r"kitchen/\.lock could not be locked: No locks avail"):
        kitchen.run()
