"""The queue on disk, against a store that is a list and a clock that is a number."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.full_disk import room_for
from tuning import outbox as outbox_module
from tuning.errors import StoreUnavailableError, TrackingError
from tuning.outbox import Finish, Outbox, Record, Report, RunIdentity, Upload, waiting_run

RUN = RunIdentity(
    experiment_id="1", sweep="s", trial="0", run_name="0", params={"a": [1, None]}, tags={"t": "v"}
)


class Store:
    """Takes records while `is_up`; sending takes `seconds` of the clock."""

    def __init__(self) -> None:
        self.is_up, self.seconds, self.now = True, 0.0, 1000.0
        self.attempts = 0
        self.requests: list[int] = []
        self.taken: list[Record] = []
        self.contents: list[str] = []

    def send(self, records: Sequence[Record]) -> None:
        self.attempts += 1
        self.now += self.seconds
        if not self.is_up:
            raise StoreUnavailableError("no answer")
        if any(isinstance(record, Report) and record.step < 0 for record in records):
            raise TrackingError("refused")
        self.requests.append(len(records))
        self.taken += records
        for record in records:
            if record.file is not None:
                file = record.file if record.file.is_file() else record.file / "weights"
                self.contents.append(file.read_text())

    def steps(self) -> list[int]:
        return [record.step for record in self.taken if isinstance(record, Report)]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    monkeypatch.setattr(outbox_module.time, "monotonic", lambda: store.now)
    return store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "trial" / "outbox"


def new_outbox(folder: Path, store: Store) -> Outbox:
    return Outbox(folder, RUN, store.send, retry_seconds=30.0)


def report(step: int, file: Path | None = None) -> Report:
    return Report(step=step, time_ms=10 * step, metrics={"d_loss": step / 7}, file=file)


def test_nothing_is_on_disk_while_the_store_answers(folder, store):
    outbox = new_outbox(folder, store)
    outbox.submit(report(1))
    assert store.taken == [report(1)]
    assert not folder.exists()


def test_what_waits_is_sent_first_and_in_order(folder, store):
    outbox = new_outbox(folder, store)
    store.is_up = False
    outbox.submit(report(1))
    outbox.submit(report(2))
    assert [json.loads(line)["step"] for line in read_lines(folder)] == [1, 2]
    store.is_up, store.now = True, store.now + 30
    outbox.submit(report(3))
    assert store.taken == [report(1), report(2), report(3)]
    assert not folder.exists()


def test_another_process_finds_what_waits_exactly_as_it_was(folder, store, tmp_path):
    grid = tmp_path / "grid.png"
    grid.write_text("first")
    finish = Finish(status="FAILED", time_ms=5, tags={"gan.cause": "ünklar\nzwei"})
    store.is_up = False
    outbox = new_outbox(folder, store)
    for record in (report(1, grid), finish):
        outbox.submit(record)
    grid.write_text("second")

    store.is_up = True
    moved = folder.rename(tmp_path / "elsewhere")
    assert waiting_run(moved) == RUN
    assert new_outbox(moved, store).flush(at_once=True)
    assert [store.taken[0].step, store.taken[0].metrics] == [1, {"d_loss": 1 / 7}]
    assert store.taken[1] == finish
    assert store.contents == ["first"]
    assert waiting_run(moved) is None


def test_records_sent_before_the_store_fails_again_are_not_sent_twice(folder, store, tmp_path):
    grid = tmp_path / "grid.png"
    grid.write_text("a request of its own")
    outbox = new_outbox(folder, store)
    store.is_up = False
    for step in (1, 2, 3):
        outbox.submit(report(step, grid))
    store.is_up = True
    take = store.send

    def take_two(records: Sequence[Record]) -> None:
        store.is_up = len(store.taken) < 2
        take(records)

    outbox = Outbox(folder, RUN, take_two)
    assert not outbox.flush(at_once=True)
    store.is_up = True
    assert new_outbox(folder, store).flush(at_once=True)
    assert store.steps() == [1, 2, 3]


@pytest.mark.parametrize(("seconds", "pause"), [(0.0, 30.0), (2.0, 30.0), (36.0, 360.0)])
def test_an_outage_costs_a_tenth_of_the_time_at_most(folder, store, seconds, pause):
    outbox = new_outbox(folder, store)
    store.is_up, store.seconds = False, seconds
    outbox.submit(report(1))
    store.now += pause - 0.5
    outbox.submit(report(2))
    assert store.attempts == 1
    store.now += 1
    outbox.submit(report(3))
    assert store.attempts == 2


def test_an_outage_is_one_warning(folder, store, caplog):
    caplog.set_level(logging.INFO)
    outbox = new_outbox(folder, store)
    for is_up in (False, False, True, False):
        store.is_up, store.now = is_up, store.now + 60
        outbox.submit(report(1))
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO", "WARNING"]
    assert "no answer" in caplog.messages[0]
    assert str(folder) in caplog.messages[0]


def test_at_once_does_not_wait_for_the_pause(folder, store):
    outbox = new_outbox(folder, store)
    store.is_up = False
    outbox.submit(report(1))
    store.is_up = True
    outbox.submit(report(2))
    assert store.steps() == []
    outbox.submit(report(3), at_once=True)
    assert store.steps() == [1, 2, 3]


def test_of_uploads_to_one_place_only_the_newest_waits(folder, store, tmp_path):
    checkpoint = tmp_path / "last"
    checkpoint.mkdir()
    outbox = new_outbox(folder, store)
    store.is_up = False
    outbox.submit(Upload(file=checkpoint, artifact_path="checkpoints/best"))
    for content in ("old", "new"):
        (checkpoint / "weights").write_text(content)
        outbox.submit(Upload(file=checkpoint, artifact_path="checkpoints/last"))
    (checkpoint / "weights").write_text("newer, not uploaded")
    assert len(outbox.records) == len(read_lines(folder)) == 2
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 2
    outbox.records[0].file.joinpath("weights").write_text("best")
    store.is_up = True
    assert outbox.flush(at_once=True)
    assert store.contents == ["best", "new"]
    assert [record.file.name for record in store.taken] == ["last", "last"]


def test_a_line_that_was_cut_short_is_dropped(folder, store, caplog):
    outbox = new_outbox(folder, store)
    store.is_up = False
    outbox.submit(report(1))
    outbox.submit(report(2))
    lines = folder / "records.jsonl"
    lines.write_bytes(lines.read_bytes()[:-9])
    again = new_outbox(folder, store)
    assert [record.step for record in again.records] == [1]
    assert "cut short" in caplog.text
    again.submit(report(2))
    assert [json.loads(line)["step"] for line in read_lines(folder)] == [1, 2]


def test_a_refused_record_raises_and_those_before_it_are_not_sent_again(folder, store):
    outbox = new_outbox(folder, store)
    store.is_up = False
    for step in (1, -1):
        outbox.submit(report(step))
    store.is_up = True
    for _ in range(2):
        with pytest.raises(TrackingError, match="refused"):
            outbox.flush(at_once=True)
    assert store.steps() == [1]


def test_reports_without_pictures_go_out_many_in_a_request(folder, store, tmp_path):
    grid = tmp_path / "grid.png"
    grid.write_text("drawn")
    outbox = new_outbox(folder, store)
    store.is_up = False
    for step in range(100):
        outbox.submit(report(step, grid if step == 50 else None))
    store.is_up = True
    assert outbox.flush(at_once=True)
    assert store.requests == [40, 10, 1, 40, 9]
    assert store.steps() == list(range(100))


# In the background


class SlowStore:
    """Takes records one request at a time, each when the test lets it."""

    def __init__(self) -> None:
        self.taken: list[Record] = []
        self.is_asked, self.may_answer = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def send(self, records: Sequence[Record]) -> None:
        self.is_asked.set()
        assert self.may_answer.wait(20)
        if self.error is not None:
            raise self.error
        for record in records:
            assert record.file is None or record.file.exists()
        self.taken += records


@pytest.fixture
def slow() -> SlowStore:
    return SlowStore()


@pytest.fixture
def background(folder: Path, slow: SlowStore) -> Iterator[Callable[[], Outbox]]:
    opened: list[Outbox] = []

    def open_outbox() -> Outbox:
        opened.append(Outbox(folder, RUN, slow.send, retry_seconds=0.05, in_background=True))
        return opened[-1]

    yield open_outbox
    slow.may_answer.set()
    for outbox in opened:
        outbox.close()


def test_a_store_that_does_not_answer_holds_up_nobody(folder, slow, background):
    outbox = background()
    outbox.submit(report(1))
    assert slow.is_asked.wait(20)
    for step in (2, 3):
        outbox.submit(report(step))
    assert [json.loads(line)["step"] for line in read_lines(folder)] == [1, 2, 3]
    slow.may_answer.set()
    outbox.wait(20)
    assert [record.step for record in slow.taken] == [1, 2, 3]
    assert not folder.exists()


def test_after_a_failure_it_is_tried_again_unasked(folder, slow, background):
    slow.error = StoreUnavailableError("no answer")
    slow.may_answer.set()
    outbox = background()
    outbox.submit(report(1))
    assert slow.is_asked.wait(20)
    slow.error = None
    outbox.wait(20)
    assert [record.step for record in slow.taken] == [1]


def test_a_refusal_is_raised_where_the_trial_is(slow, background):
    slow.error = TrackingError("refused")
    slow.may_answer.set()
    outbox = background()
    outbox.submit(report(1))
    with pytest.raises(TrackingError, match="refused"):
        outbox.wait(20)
    with pytest.raises(TrackingError, match="refused"):
        outbox.submit(report(2))


def test_an_upload_that_is_under_way_is_not_taken_from_under_it(
    folder, slow, background, tmp_path
):
    weights = tmp_path / "weights"
    outbox = background()
    for content in ("old", "new", "newest"):
        weights.write_text(content)
        outbox.submit(Upload(file=weights, artifact_path="checkpoints/last"))
        assert slow.is_asked.wait(20)
    assert len(outbox.records) == 2
    slow.may_answer.set()
    outbox.wait(20)
    assert len(slow.taken) == 2
    assert not folder.exists()


def test_while_it_is_held_the_folder_stays_as_it_is(folder, slow, background):
    outbox = background()
    outbox.submit(report(1))
    assert slow.is_asked.wait(20)
    with outbox.held():
        slow.may_answer.set()
        time.sleep(0.2)
        assert [json.loads(line)["step"] for line in read_lines(folder)] == [1]
    outbox.wait(20)
    assert not folder.exists()


def test_what_is_not_sent_when_it_closes_is_for_the_next(folder, slow, background):
    slow.error = StoreUnavailableError("no answer")
    slow.may_answer.set()
    outbox = background()
    for step in (1, 2):
        outbox.submit(report(step))
    outbox.close()
    assert waiting_run(folder) == RUN
    slow.error = None
    again = background()
    again.wait(20)
    assert [record.step for record in slow.taken] == [1, 2]


# A disk that is full


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with a small file and one that a full disk does not take."""
    folder = tmp_path / "last"
    folder.mkdir()
    (folder / "a").write_text("small")
    (folder / "weights").write_bytes(bytes(5000))
    return folder


def test_while_the_disk_is_full_reports_wait_in_memory_and_nothing_half_written_is_left(
    folder, store, tmp_path, checkpoint, caplog
):
    grid = tmp_path / "grid.png"
    grid.write_bytes(bytes(5000))
    folder.parent.mkdir()
    outbox = new_outbox(folder, store)
    store.is_up = False
    with room_for(10):
        outbox.submit(report(1, grid))
        outbox.submit(Upload(file=checkpoint, artifact_path="checkpoints/last"))
        outbox.submit(report(2))
    assert not folder.exists()
    assert [record.file for record in outbox.records] == [None, None]
    (_, warning) = caplog.messages  # one of the store, one of the disk
    assert warning.startswith(f"{folder} cannot be written: File too large; the run goes on, its")
    store.is_up = True
    assert outbox.flush(at_once=True)
    assert store.steps() == [1, 2]
    assert not folder.exists()


def test_once_there_is_room_again_what_waits_in_memory_goes_to_disk(folder, store, caplog):
    caplog.set_level(logging.INFO)
    outbox = new_outbox(folder, store)
    store.is_up = False
    with room_for(10):
        outbox.submit(report(1))
        outbox.submit(report(2))
    outbox.submit(report(3))
    outbox.submit(report(4))
    assert "can be written again" in caplog.messages[-1]
    assert waiting_run(folder) == RUN
    assert [record.step for record in new_outbox(folder, store).records] == [1, 2, 3, 4]


def test_a_line_that_does_not_fit_leaves_those_before_it_whole(folder, store, tmp_path, caplog):
    grid = tmp_path / "grid.png"
    grid.write_text("fits")
    outbox = new_outbox(folder, store)
    store.is_up = False
    outbox.submit(report(1))
    before = (folder / "records.jsonl").read_bytes()
    with room_for(len(before) + 9):
        outbox.submit(report(2, grid))
    assert (folder / "records.jsonl").read_bytes() == before
    assert {path.name for path in folder.iterdir()} == {"records.jsonl", "run.json"}
    assert [record.step for record in outbox.records] == [1, 2]
    outbox.submit(report(3))
    assert [json.loads(line)["step"] for line in read_lines(folder)] == [1, 2, 3]
    assert "cut short" not in caplog.text


def test_a_checkpoint_that_does_not_fit_leaves_the_one_that_waits(folder, store, checkpoint):
    outbox = new_outbox(folder, store)
    store.is_up = False
    outbox.submit(Upload(file=checkpoint, artifact_path="checkpoints/last"))
    before = sorted(folder.rglob("*"))
    with room_for(4000):
        outbox.submit(Upload(file=checkpoint, artifact_path="checkpoints/last"))
    assert sorted(folder.rglob("*")) == before
    assert len(outbox.records) == 1
    (checkpoint / "weights").write_text("newer")
    outbox.submit(Upload(file=checkpoint, artifact_path="checkpoints/last"))
    store.is_up = True
    assert outbox.flush(at_once=True)
    assert store.contents == ["newer"]
    assert not folder.exists()


def test_what_was_sent_while_the_disk_is_full_is_not_sent_again(folder, store, tmp_path):
    grid = tmp_path / "grid.png"
    grid.write_text("a request of its own")
    outbox = new_outbox(folder, store)
    store.is_up = False
    for step in (1, 2, 3):
        outbox.submit(report(step, grid))
    take = store.send

    def take_one(records: Sequence[Record]) -> None:
        store.is_up = not store.taken
        take(records)

    outbox._send = take_one
    with room_for(10):
        assert not outbox.flush(at_once=True)
    store.is_up, outbox._send = True, take
    assert outbox.flush(at_once=True)
    assert store.steps() == [1, 2, 3]
    assert not folder.exists()


def test_a_cut_line_that_cannot_be_removed_now_does_not_spoil_the_next(folder, store):
    outbox = new_outbox(folder, store)
    store.is_up = False
    outbox.submit(report(1))
    outbox.submit(report(2))
    lines = folder / "records.jsonl"
    lines.write_bytes(lines.read_bytes()[:-9])
    with room_for(10):
        again = new_outbox(folder, store)
    again.submit(report(2))
    assert [json.loads(line)["step"] for line in read_lines(folder)] == [1, 2]


def read_lines(folder: Path) -> list[bytes]:
    return (folder / "records.jsonl").read_bytes().splitlines()
