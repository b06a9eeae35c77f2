"""What a person sees of a sweep: counts, estimates, widths (closed form, contract)."""

import io
import itertools
import logging
import re

import pytest
from numpy.testing import assert_allclose
from rich.console import Console

from gan.objectives import OBJECTIVES
from pipeline import progress
from pipeline.progress import SweepTally, display
from tuning.sweep import TrialNews

PARZEN, DISTANCE = OBJECTIVES["parzen_ll_valid"], OBJECTIVES["frechet_distance_valid"]


@pytest.fixture
def clock(monkeypatch):
    """The time, which stands still until it is moved."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def news(trial, step, *, score=None, rate=1000.0, has_ended=False, objective=PARZEN):
    report = {"step": step, "images_per_second": rate}
    if score is not None:
        report[objective.metric] = score
    return TrialNews(trial=trial, report=report, has_ended=has_ended)


def tally_of(*reports, n_trials=4, n_steps=100, objective=PARZEN):
    tally = SweepTally(n_trials=n_trials, n_steps=n_steps, objective=objective)
    for report in reports:
        tally.take(report)
    return tally


def test_nothing_is_known_at_the_start():
    tally = tally_of()
    assert (tally.share_done, tally.seconds_left) == (0.0, None)
    assert tally.line() == "0/4 trials"


def test_best_score_is_the_largest_of_all_trials_and_reports():
    tally = tally_of(
        news(0, 10, score=-5.0), news(1, 10, score=3.0), news(0, 20, score=2.0), news(1, 20)
    )
    assert "best 3.0 (trial 1)" in tally.line()


def test_best_distance_is_the_smallest_of_all_trials_and_reports():
    scores = [(0, 10, 1234.5), (1, 10, 0.01234), (0, 20, 7.0)]
    reports = [news(t, step, score=score, objective=DISTANCE) for t, step, score in scores]
    assert "best 0.01234 (trial 1)" in tally_of(*reports, objective=DISTANCE).line()
    assert "best" not in tally_of(*reports, objective=PARZEN).line()


def test_rate_is_that_of_the_trials_that_go_on():
    tally = tally_of(news(0, 10, rate=4000.0), news(1, 10, rate=5000.0))
    assert "9,000 images/s" in tally.line()
    tally.take(news(1, 20, has_ended=True))
    assert "4,000 images/s" in tally.line()
    tally.take(news(0, 20, has_ended=True))
    assert "images/s" not in tally.line()


def test_time_left_is_the_steps_left_at_the_pace_so_far(clock):
    tally = tally_of(news(0, 10), news(1, 10))
    assert tally.seconds_left is None  # what it took to come to the first report is no pace
    clock(8.0)
    tally.take(news(0, 50))
    # 40 steps in 8 s; 50 + 90 are left of the two that go on, 200 of the two that wait.
    assert_allclose(tally.seconds_left, 8.0 / 40 * 340, rtol=1e-12, atol=0)
    assert_allclose(tally.share_done, 60 / 400, rtol=1e-12, atol=0)
    assert tally.line().endswith("  <=1:08 left")


def test_trials_are_expected_to_end_where_others_did_that_came_as_far(clock):
    tally = tally_of(news(0, 10), news(1, 10))
    clock(6.0)
    tally.take(news(0, 40, has_ended=True))
    # The one at 10 and the two that wait end at 40, too.
    assert_allclose(tally.steps_left, 30 + 2 * 40, rtol=1e-12, atol=0)
    assert_allclose(tally.seconds_left, 6.0 / 30 * 110, rtol=1e-12, atol=0)
    assert tally.line().endswith("  ~0:22 left")
    tally.take(news(1, 50))
    # Now it is further than any that ended: it may go on to its last step.
    assert_allclose(tally.steps_left, 50 + 2 * 40, rtol=1e-12, atol=0)


def test_steps_of_an_earlier_process_are_done_but_no_part_of_the_pace(clock):
    tally = tally_of(news(0, 100, score=7.0, has_ended=True), n_trials=2)
    clock(60.0)  # for workers to start
    tally.take(news(1, 80))
    assert tally.seconds_left is None
    clock(5.0)
    tally.take(news(1, 90))
    assert_allclose(tally.seconds_left, 5.0, rtol=1e-12, atol=0)
    assert tally.line().startswith("1/2 trials  best 7.0 (trial 0)")


def earlier(trial, step, score):
    """What is told of a trial that goes on from what an earlier process left."""
    return TrialNews(trial=trial, report={"step": step, PARZEN.metric: score})


def test_best_of_an_earlier_process_counts_and_its_time_does_not(clock):
    tally = tally_of(earlier(0, 80, 7.0), n_trials=1)
    assert tally.line() == "step 80/100  best 7.0"
    clock(60.0)  # for workers to start
    tally.take(news(0, 80, score=3.0))
    clock(5.0)
    tally.take(news(0, 90))
    assert_allclose(tally.seconds_left, 5.0, rtol=1e-12, atol=0)
    assert "best 7.0" in tally.line()


def test_pace_counts_from_where_a_lost_trial_goes_on(clock):
    tally = tally_of(earlier(0, 80, 7.0), news(0, 40), n_trials=1)
    clock(5.0)
    tally.take(news(0, 50))
    assert_allclose(tally.seconds_left, 25.0, rtol=1e-12, atol=0)


def test_report_of_an_earlier_process_is_no_line_of_its_own(caplog):
    caplog.set_level(logging.INFO)
    with display(console(is_terminal=False)) as shown:
        watch = shown.watcher(SweepTally(n_trials=2, n_steps=100, objective=PARZEN))
        watch(earlier(0, 40, 7.0))
        watch(news(0, 60, score=3.0))
    (line,) = caplog.messages
    assert line.startswith("trial 0 step 60 parzen_ll_valid 3.0; 0/2 trials  best 7.0 (trial 0)")


def test_trial_that_falls_back_leaves_the_estimate_open(clock):
    tally = tally_of(news(0, 50), n_trials=1)
    clock(5.0)
    tally.take(news(0, 20))
    assert tally.seconds_left is None


def test_share_never_leaves_the_unit_interval_if_trials_vary_in_length():
    tally = tally_of(*(news(trial, 5_000) for trial in range(4)), n_steps=100)
    assert_allclose(tally.share_done, 1.0, rtol=1e-12, atol=0)
    assert tally.seconds_left is None


def test_time_left_is_gone_at_the_end(clock):
    tally = tally_of(news(0, 50), n_trials=1)
    clock(5.0)
    tally.take(news(0, 100))
    assert tally.line() == "step 100/100  1,000 images/s"


def test_single_run_counts_its_steps():
    tally = tally_of(news(0, 1500, score=12.25), n_trials=1, n_steps=25_000)
    assert tally.line() == "step 1,500/25,000  best 12.2  1,000 images/s"


def test_line_fits_beside_the_bar_on_a_terminal_of_80(clock):
    tally = tally_of(*(news(t, 1, score=234.5) for t in range(90)), n_trials=99, n_steps=9999)
    clock(31.0)
    tally.take(news(89, 900, rate=3.5e5))
    assert tally.line() == "0/99 trials  best 234.5 (trial 89)  439k images/s  <=9h28 left"
    assert len(tally.line()) <= 80 - len("━━━━━━━━ ") - len(" 0:00:00")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3661, "1h01")],
)
def test_clock_reads_as_a_clock(seconds, text):
    assert progress._clock(seconds) == text


def console(width=80, *, is_terminal):
    return Console(file=io.StringIO(), width=width, force_terminal=is_terminal, highlight=False)


def on_screen(text):
    """The lines that a terminal of 80 columns would show after `text`."""
    plain = re.sub(r"\x1b\[\??[0-9;]*[A-Zhlm]", "", text)
    return [line.rsplit("\r", 1)[-1] for line in plain.splitlines()]


def test_terminal_shows_one_live_line_that_is_gone_at_the_end(caplog):
    caplog.set_level(logging.INFO)
    screen = console(is_terminal=True)
    with display(screen) as shown:
        shown.begin("sweep")
        watch = shown.watcher(SweepTally(n_trials=2, n_steps=100, objective=PARZEN))
        watch(news(0, 50, score=12.5))
        shown._live.refresh()
        assert "0/2 trials  best 12.5 (trial 0)  1,000 images/s" in screen.file.getvalue()
        shown.end("sweep", "runs/x/sweep")
    assert screen.file.getvalue().count("\x1b[?25h") == 1  # the cursor is back
    assert "sweep     done in 0:00  runs/x/sweep" in on_screen(screen.file.getvalue())
    assert caplog.messages == []


@pytest.mark.parametrize("width", [80, 60, 40])
def test_live_line_never_wraps(width):
    screen = console(width, is_terminal=True)
    with display(screen) as shown:
        shown.begin("sweep")
        watch = shown.watcher(SweepTally(n_trials=100, n_steps=1000, objective=PARZEN))
        for trial, step in itertools.product(range(60), (1, 2)):
            watch(news(trial, step, score=-1234.5, rate=9e5))
        shown._live.refresh()
    lines = on_screen(screen.file.getvalue())
    assert any("60" in line or "/100 trials" in line for line in lines)
    assert max(map(len, lines)) <= width
    assert width == 80 or any(line.endswith("… ") for line in lines)  # what is cut says so


def test_elsewhere_each_score_is_one_line_and_nothing_else(caplog, clock):
    caplog.set_level(logging.INFO)
    stream = console(is_terminal=False)
    with display(stream) as shown:
        shown.begin("sweep")
        watch = shown.watcher(SweepTally(n_trials=2, n_steps=100, objective=PARZEN))
        watch(news(0, 10))
        clock(4.0)
        watch(news(0, 20, score=12.5))
        watch(news(0, 20, score=12.5))  # tried again from there
        watch(news(0, 20, score=12.5, has_ended=True))
        shown.end("sweep", "[bold]/" + "x" * 100)
    assert caplog.messages == [
        "trial 0 step 20 parzen_ll_valid 12.5; "
        "0/2 trials  best 12.5 (trial 0)  1,000 images/s  <=1:12 left"
    ]
    assert stream.file.getvalue() == "sweep     done in 0:04  [bold]/" + "x" * 100 + "\n"


def test_line_of_a_report_names_the_objective(caplog, clock):
    caplog.set_level(logging.INFO)
    with display(console(is_terminal=False)) as shown:
        watch = shown.watcher(SweepTally(n_trials=2, n_steps=100, objective=DISTANCE))
        watch(news(0, 10, score=33.333, objective=DISTANCE))
        watch(news(1, 10, score=44.444, objective=DISTANCE))
        watch(news(1, 20, score=55.555))
    assert caplog.messages == [
        "trial 0 step 10 frechet_distance_valid 33.33; "
        "0/2 trials  best 33.33 (trial 0)  1,000 images/s",
        "trial 1 step 10 frechet_distance_valid 44.44; "
        "0/2 trials  best 33.33 (trial 0)  2,000 images/s",
    ]


def test_stage_that_is_skipped_says_so():
    stream = console(is_terminal=False)
    with display(stream) as shown:
        shown.begin("data")
        shown.end("data", "runs/x/data", is_skipped=True)
    assert stream.file.getvalue() == "data      unchanged     runs/x/data\n"


def test_live_line_is_gone_after_an_error():
    screen = console(is_terminal=True)

    def fail():
        with display(screen) as shown:
            shown.begin("sweep")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert screen.file.getvalue().endswith("\x1b[?25h\r\x1b[1A\x1b[2K")


def test_news_after_the_stage_is_over_is_counted_and_not_shown():
    tally = SweepTally(n_trials=2, n_steps=100, objective=PARZEN)
    with display(console(is_terminal=True)) as shown:
        shown.watcher(tally)(news(0, 10))
    assert tally.steps == {0: 10}
