"""A sweep as it goes, in the terminal."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from gan.config import PipelineConfig
from gan.metric_names import IMAGES_PER_SECOND, PARZEN_LL_VALID
from tuning.sweep import TrialNews, Watcher, planned_trials

logger = logging.getLogger(__name__)


@dataclass
class SweepTally:
    """What is known of a sweep from its news.

    Attributes:
        n_trials: trials in all.
        n_steps: updates of G of a whole trial.
    """

    n_trials: int
    n_steps: int
    started_at: float = field(default_factory=time.monotonic)
    steps: dict[int, int] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    best: tuple[float, int] | None = None
    first_steps: dict[int, int] = field(default_factory=dict)

    def take(self, news: TrialNews) -> None:
        """Count one report."""
        step = int(news.report.get("step", 0))
        self.steps[news.trial] = step
        self.first_steps.setdefault(news.trial, step)
        if IMAGES_PER_SECOND in news.report:
            self.rates[news.trial] = news.report[IMAGES_PER_SECOND]
        if PARZEN_LL_VALID in news.report:
            score = (news.report[PARZEN_LL_VALID], news.trial)
            self.best = score if self.best is None else max(self.best, score)
        if news.has_ended:
            self.ended.add(news.trial)
            self.rates.pop(news.trial, None)

    @property
    def share_done(self) -> float:
        """Share of the trials' steps that is done or will not be needed, in [0, 1]."""
        running = sum(s for trial, s in self.steps.items() if trial not in self.ended)
        return (len(self.ended) + running / self.n_steps) / self.n_trials

    @property
    def seconds_left(self) -> float | None:
        """At most this many: trials that ASHA will stop are counted in full."""
        if not self.share_done:
            return None
        elapsed = time.monotonic() - self.started_at
        return elapsed / self.share_done * (1 - self.share_done)

    def line(self) -> str:
        """The state in one line."""
        best = (
            f"best {self.best[0]:.1f} nats (trial {self.best[1]})" if self.best else "no score yet"
        )
        rate = f"{sum(self.rates.values()):,.0f} images/s"
        left = "" if self.seconds_left is None else f"  at most {_clock(self.seconds_left)} left"
        return f"{len(self.ended)}/{self.n_trials} trials  {best}  {rate}{left}"


@contextmanager
def sweep_progress(console: Console, config: PipelineConfig) -> Iterator[Watcher]:
    """A bar on a terminal, a line for each score elsewhere; yields what is told of the news."""
    tally = SweepTally(n_trials=planned_trials(config), n_steps=config.base.train.n_steps)
    with tally_progress(console, tally) as watcher:
        yield watcher


@contextmanager
def tally_progress(console: Console, tally: SweepTally) -> Iterator[Watcher]:
    """As `sweep_progress`, with a tally of the caller's."""
    if not console.is_terminal:
        yield lambda news: _log(tally, news)
        return
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda news: _draw(bar, task, tally, news)


def _log(tally: SweepTally, news: TrialNews) -> None:
    tally.take(news)
    if PARZEN_LL_VALID in news.report and not news.has_ended:
        logger.info(
            "trial %d step %d %s %.1f; %s",
            news.trial,
            news.report["step"],
            PARZEN_LL_VALID,
            news.report[PARZEN_LL_VALID],
            tally.line(),
        )


def _draw(bar: Progress, task: TaskID, tally: SweepTally, news: TrialNews) -> None:
    tally.take(news)
    bar.update(task, completed=tally.share_done, description=tally.line())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
