"""What a person sees while stages run: a live line on a terminal, whole lines elsewhere."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from gan.metric_names import IMAGES_PER_SECOND
from gan.objectives import Objective
from tuning.sweep import TrialNews, Watcher

logger = logging.getLogger(__name__)


@dataclass
class SweepTally:
    """What is known of a sweep from its news.

    Attributes:
        n_trials: trials in all.
        n_steps: updates of G of a whole trial.
        objective: the score that is shown.
    """

    n_trials: int
    n_steps: int
    objective: Objective
    steps: dict[int, int] = field(default_factory=dict)
    first_steps: dict[int, int] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    best: tuple[float, int, float] | None = None
    """Merit, trial and score."""
    started_at: float | None = None
    """When the first report came that was not an end, by `time.monotonic`."""

    def take(self, news: TrialNews) -> None:
        """Count one report; without a rate it is an earlier process's, and no part of the pace."""
        step = int(news.report.get("step", 0))
        self.steps[news.trial] = step
        # It may have failed later than where its newest checkpoint lets it go on.
        self.first_steps[news.trial] = min(self.first_steps.get(news.trial, step), step)
        metric = self.objective.metric
        if metric in news.report:
            found = (self.objective.merit(news.report), news.trial, news.report[metric])
            self.best = found if self.best is None else max(self.best, found)
        if news.has_ended:
            self.ended.add(news.trial)
            self.rates.pop(news.trial, None)
        if news.has_ended or IMAGES_PER_SECOND not in news.report:
            return
        self.rates[news.trial] = news.report[IMAGES_PER_SECOND]
        if self.started_at is None:
            self.started_at = time.monotonic()

    @property
    def share_done(self) -> float:
        """Share of the steps that is done, in [0, 1]."""
        done = sum(self.steps.values())
        return done / max(done + self.steps_left, 1)

    @property
    def steps_left(self) -> float:
        """Steps still to do, if each trial ends where those did that came as far as it has.

        Until one has, a trial is counted in full: more than is needed if ASHA stops it.
        """
        going = [step for trial, step in self.steps.items() if trial not in self.ended]
        waiting = [0] * (self.n_trials - len(self.steps))
        return sum(max(self._expected_end(step) - step, 0) for step in going + waiting)

    def _expected_end(self, step: int) -> float:
        later_ends = [self.steps[trial] for trial in self.ended if self.steps[trial] > step]
        return sum(later_ends) / len(later_ends) if later_ends else self.n_steps

    @property
    def seconds_left(self) -> float | None:
        """Time for `steps_left` at the pace since the first report; None if unknown, or over.

        Steps that an earlier process made are no part of the pace, nor is the time that it takes
        to start workers.
        """
        n_made = sum(step - self.first_steps[trial] for trial, step in self.steps.items())
        if self.started_at is None or n_made <= 0 or not self.steps_left:
            return None
        return (time.monotonic() - self.started_at) * self.steps_left / n_made

    def line(self) -> str:
        """The state in some 60 characters, so that a terminal of 80 has room for the rest.

        `~` stands before an estimate, `<=` before one that counts trials in full which a
        scheduler may stop.
        """
        parts = [f"{len(self.ended)}/{self.n_trials} trials"] if self.n_trials > 1 else []
        if self.n_trials == 1:
            parts.append(f"step {sum(self.steps.values()):,}/{self.n_steps:,}")
        if self.best is not None:
            _, trial, score = self.best
            where = f" (trial {trial})" if self.n_trials > 1 else ""
            parts.append(f"best {self.objective.text(score)}{where}")
        if self.rates:
            parts.append(f"{_short(sum(self.rates.values()))} images/s")
        if self.seconds_left is not None:
            sign = "~" if self.ended or self.n_trials == 1 else "<="
            parts.append(f"{sign}{_clock(self.seconds_left)} left")
        return "  ".join(parts)


class Display:
    """Tells of stages as they go; made by `display`.

    Args:
        console: on stderr.
        live: a bar of one line, at most one task at a time.
    """

    def __init__(self, console: Console, live: Progress) -> None:
        self._console, self._live = console, live
        self._task: TaskID | None = None
        self._began_at = time.monotonic()

    def begin(self, stage: str) -> None:
        """A stage starts."""
        self._began_at = time.monotonic()
        self._task = self._live.add_task(stage, total=None)

    def end(self, stage: str, result: str, *, is_skipped: bool = False) -> None:
        """A stage is over, and left `result`."""
        if self._task is not None:
            self._live.remove_task(self._task)
            self._task = None
        seconds = time.monotonic() - self._began_at
        how = "unchanged" if is_skipped else f"done in {_clock(seconds)}"
        line = Text.assemble((f"{stage:<9}", "bold"), f" {how:<13} {result}")
        self._console.print(line, soft_wrap=True)

    def watcher(self, tally: SweepTally) -> Watcher:
        """What keeps `tally`, and shows it."""
        is_terminal = self._console.is_terminal

        def watch(news: TrialNews) -> None:
            # A trial that is tried again begins with the report that it goes on from.
            is_new = int(news.report.get("step", 0)) > tally.steps.get(news.trial, 0)
            is_new &= IMAGES_PER_SECOND in news.report
            tally.take(news)
            if not is_terminal and is_new:
                _log(tally, news)
            elif is_terminal and self._task is not None:
                self._live.update(
                    self._task, completed=tally.share_done, total=1.0, description=tally.line()
                )

        return watch


@contextmanager
def display(console: Console) -> Iterator[Display]:
    """A display on `console`; on its end, also by an error, the live line is gone."""
    columns = (
        BarColumn(bar_width=8),
        # The one that gives way on a narrow terminal.
        TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as live:
        yield Display(console, live)


def _log(tally: SweepTally, news: TrialNews) -> None:
    metric = tally.objective.metric
    if metric in news.report and not news.has_ended:
        logger.info(
            "trial %d step %d %s %s; %s",
            news.trial,
            news.report["step"],
            metric,
            tally.objective.text(news.report[metric]),
            tally.line(),
        )


def _short(rate: float) -> str:
    return f"{rate / 1000:,.0f}k" if rate >= 10_000 else f"{rate:,.0f}"


def _clock(seconds: float) -> str:
    """Seconds as m:ss, from an hour on as 1h05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes_of_hour = divmod(minutes, 60)
    return f"{hours}h{minutes_of_hour:02d}" if hours else f"{minutes}:{seconds:02d}"
