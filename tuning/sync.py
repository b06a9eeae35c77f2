"""What is left to do when everything has ended: send what waits, close what was left open."""

from dataclasses import dataclass, replace

from tuning.ledger import Ledger
from tuning.outbox import waiting_run
from tuning.run_log import RunLog
from tuning.tracking import close_sweep_runs


@dataclass(frozen=True)
class Synced:
    """What came of it.

    Attributes:
        name: of the sweep, or of a run on its own.
        n_sent: records that waited and are in MLflow now.
        n_waiting: records that wait on, since MLflow does not answer.
        n_closed: runs that were RUNNING without a process.
    """

    name: str
    n_sent: int
    n_waiting: int
    n_closed: int


def sync(ledger: Ledger, uri: str) -> Synced:
    """Send what waits of a sweep that nobody runs, and close its runs.

    Of a sweep whose original lies elsewhere nobody can tell whether it runs: what waits of trials
    that have ended is sent, and its runs are left as they are.

    Raises:
        TuningError: if a process runs the sweep, or the storage does not answer.
        TrackingError: if MLflow refuses a record, or does not answer.
    """
    with ledger.lock():
        ledger.refresh()
        n_sent = n_waiting = n_closed = 0
        for index in ledger.proposals():
            if not ledger.is_replica or ledger.result(index) is not None:
                sent, waiting = deliver_trial(ledger, index, uri)
                n_sent, n_waiting = n_sent + sent, n_waiting + waiting
        if not ledger.is_replica and not n_waiting:
            n_closed = close_sweep_runs(uri, ledger.key(), cause="its process was lost")
    return Synced(ledger.name, n_sent, n_waiting, n_closed)


def deliver_trial(ledger: Ledger, index: int, uri: str) -> tuple[int, int]:
    """Send what waits of a trial that is over, whose run may have had no id before.

    Returns:
        Records sent, and records that wait on.

    Raises:
        TrackingError: if MLflow refuses a record.
        TuningError: if the trial is not over.
    """
    if not ledger.has_waiting(index):
        return 0, 0
    with ledger.writing(index):
        outbox = ledger.outbox(index)
        run = waiting_run(outbox)
        if run is None:  # its own process has sent it in the meantime
            return 0, 0
        log = RunLog(uri, run, outbox)
        n_before = log.pending()
        log.flush()
        ledger.save(index)
        result = ledger.result(index)
        if result is not None and log.run_id is not None:
            ledger.write_result(replace(result, run_id=log.run_id))
        return n_before - log.pending(), log.pending()
