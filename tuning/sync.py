"""What is left to do when everything has ended: send what waits, close what was left open."""

import logging
from dataclasses import dataclass, replace

from tuning.ledger import Ledger, open_ledger
from tuning.run_log import NOTHING, Delivery, deliver
from tuning.tracking import close_sweep_runs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Synced:
    """What came of it.

    Attributes:
        name: of the sweep, or of a run on its own.
        n_sent: records that waited and are in MLflow now.
        n_waiting: records that wait on, since MLflow does not answer, or refuses one.
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
        StoreUnavailableError: if MLflow does not answer when runs are to be closed.
    """
    with ledger.lock():
        ledger.refresh()
        ledger.join()
        n_sent = n_waiting = n_closed = 0
        is_away = False
        for index in ledger.proposals():
            if ledger.is_replica and ledger.result(index) is None:
                continue
            delivery = deliver_trial(ledger, index, uri)
            n_sent, n_waiting = n_sent + delivery.n_sent, n_waiting + delivery.n_waiting
            if delivery.refusal is not None:  # and so it will be the next time
                logger.warning("%s, trial %d: %s", ledger.name, index, delivery.refusal)
            elif delivery.n_waiting:
                is_away = True
        if not ledger.is_replica and not is_away:
            n_closed = close_sweep_runs(uri, ledger.key(), cause="its process was lost")
    return Synced(ledger.name, n_sent, n_waiting, n_closed)


def deliver_trial(ledger: Ledger, index: int, uri: str) -> Delivery:
    """Send what waits of a trial that is over, whose run may have had no id before.

    Raises:
        TuningError: if the trial is not over, or its outbox is damaged.
    """
    if not ledger.has_waiting(index):
        return NOTHING
    worker = open_ledger(ledger.location, driver=ledger.driver)
    with worker.writing(index):
        delivery = deliver(uri, worker.outbox(index))
        worker.save(index)
        result = worker.result(index)
        if result is not None and delivery.run_id is not None:
            worker.write_result(replace(result, run_id=delivery.run_id))
            ledger.reread(index)
    return delivery
