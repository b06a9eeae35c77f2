"""A sweep of very many trials that do next to nothing: what everything around training costs.

    python -m tests.benchmarks.bench_load --trials 2000 --reports 20 --cpus 8

A trial makes one update of tiny nets a report, is scored once, writes a checkpoint and logs to
MLflow's own server on PostgreSQL, as on a cluster; the ledger lies in a local folder.  Printed are
trials a second, where the time of the processors went, the requests to MLflow, and the driver's
memory while the sweep grew.  The metrics in the database are counted: one that is missing or
double, or more than one request a report that writes, ends the benchmark with status 1.  It takes
`pip install -e '.[services]'` and Debian's `postgresql`.
"""

import argparse
import os
import re
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import sqlalchemy

from gan.config import PipelineConfig, load_config
from tests.cluster.services import S3_KEYS, servers
from tests.tuning.tiny_sweeps import write_images
from tuning.ledger import Ledger
from tuning.sweep import TrialNews, run_sweep

TICKS = os.sysconf("SC_CLK_TCK")
REQUEST = re.compile(r'"(GET|POST|PUT|PATCH|DELETE) (\S+) HTTP')


def a_sweep(images: Path, *, trials: int, reports: int) -> PipelineConfig:
    """Trials of one update a report."""
    base = {
        "data": {"dataset": str(images), "n_valid": 100},
        "prior": {"dim": 4},
        "generator": {"hidden": [16]},
        "discriminator": {"hidden": [16], "pieces": 2},
        "train": {"n_steps": reports, "batch_size": 30, "report_every": 1},
        "evaluation": {"score_every": reports, "n_samples": 100, "n_sigma_images": 50},
    }
    sweep = {
        "n_trials": trials,
        "scheduler": "fifo",
        "objective": "parzen_ll_valid",
        "space": {"discriminator.dropout_hidden": {"uniform": [0.0, 0.6]}},
    }
    return load_config({"name": "load", "base": base, "sweep": sweep})


KINDS = {"ray::": "workers", "mlflow": "MLflow", "uvicorn": "MLflow", "postgres": "PostgreSQL"}
KINDS |= {"moto": "object storage", "raylet": "Ray", "gcs_server": "Ray", "ray/": "Ray"}


class Processors:
    """Processor time by what a process is, from now on; `look` while those to be counted live."""

    def __init__(self) -> None:
        self._before = self._read()
        self._spent = dict(self._before)

    def look(self) -> None:
        """Read anew; what a process had spent that has ended since stays as it was last read."""
        self._spent |= self._read()

    def seconds(self) -> Counter[str]:
        """What was spent, by kind."""
        spent: Counter[str] = Counter()
        for (pid, kind), seconds in self._spent.items():
            spent[kind] += seconds - self._before.get((pid, kind), 0.0)
        return spent

    @staticmethod
    def _read() -> dict[tuple[str, str], float]:
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().decode(errors="replace")
                fields = (folder / "stat").read_text().rpartition(") ")[2].split()
            except OSError:  # it has ended
                continue
            kind = next((kind for word, kind in KINDS.items() if word in command), None)
            if folder.name == str(os.getpid()):
                kind = "driver"
            if kind is not None:
                found[folder.name, kind] = (int(fields[11]) + int(fields[12])) / TICKS
        return found


def memory_mb() -> float:
    """What this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def requests_of(log: Path) -> Counter[str]:
    """Requests to MLflow by what they ask."""
    counted: Counter[str] = Counter()
    for method, path in REQUEST.findall(log.read_text(errors="replace")):
        name = re.sub(r"^/(ajax-)?api/2\.0/mlflow/", "", path.partition("?")[0])
        name = "artifacts" if "artifacts" in name else name
        counted[f"{method} {name}"] += 1
    return counted


def main() -> None:
    """Run the sweep and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--reports", type=int, default=20)
    parser.add_argument("--cpus", type=int, default=8)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kept = stack.enter_context(servers(folder))
        os.environ |= {**kept.tracker.environment(), **S3_KEYS}
        import ray

        ray.init(num_cpus=arguments.cpus, include_dashboard=False, log_to_driver=False)
        stack.callback(ray.shutdown)
        config = a_sweep(write_images(folder), trials=arguments.trials, reports=arguments.reports)
        ended, memory = 0, [memory_mb()]

        def watch(news: TrialNews) -> None:
            nonlocal ended
            ended += news.has_ended
            if news.has_ended and ended % max(1, arguments.trials // 10) == 0:
                memory.append(memory_mb())
                processors.look()
                print(f"{ended} trials, {time.monotonic() - began:.0f} s, {memory[-1]:.0f} MB")

        processors, began = Processors(), time.monotonic()
        run_sweep(config, Ledger(folder / "load"), extractors=folder / "nets", watcher=watch)
        seconds = time.monotonic() - began
        processors.look()
        show(
            seconds,
            processors.seconds(),
            memory,
            requests_of(folder / "mlflow" / "log"),
            arguments,
        )
        require_every_metric(kept.database_uri, arguments.trials, arguments.reports)


def show(
    seconds: float,
    spent: Counter[str],
    memory: list[float],
    requests: Counter[str],
    arguments: argparse.Namespace,
) -> None:
    """Print it."""
    n = arguments.trials
    print(
        f"\n{n} trials of {arguments.reports} reports on {arguments.cpus} logical CPUs, ", end=""
    )
    print(f"{os.cpu_count()} real ones: {seconds:.0f} s, {n / seconds:.2f} trials a second")
    print("\n| processor time | s | ms a trial |\n|---|---|---|")
    for kind, s in spent.most_common():
        print(f"| {kind} | {s:.0f} | {1000 * s / n:.0f} |")
    print("\n| request | number | a trial |\n|---|---|---|")
    for name, number in requests.most_common(10):
        print(f"| {name} | {number} | {number / n:.2f} |")
    batches = sum(v for k, v in requests.items() if k.endswith("runs/log-batch"))
    writes = sum(v for k, v in requests.items() if k.startswith(("POST runs/", "PUT")))
    writes -= requests["POST runs/search"]
    n_reports = n * arguments.reports
    print(f"\n{batches / n_reports:.3f} requests of metrics, params and tags a report, ", end="")
    print(f"{writes / n_reports:.3f} that write anything")
    print(f"the driver: {memory[0]:.0f} MB before, {', '.join(f'{m:.0f}' for m in memory[1:])}")
    if writes > n_reports:
        raise SystemExit(1)


def require_every_metric(database: str, trials: int, reports: int) -> None:
    """Exit with 1 unless each step of each trial is there once."""
    count = (
        "select count(*), count(distinct (metrics.run_uuid, step)) from metrics "
        "where key = 'images_seen'"
    )
    with sqlalchemy.create_engine(database).connect() as connection:
        rows, distinct = connection.execute(sqlalchemy.text(count)).one()
        statuses = "select status, count(*) from runs group by status"
        found = {status: n for status, n in connection.execute(sqlalchemy.text(statuses))}
    print(f"{rows} steps in the database, {trials * reports} were made; runs {found}")
    if not rows == distinct == trials * reports or found != {"FINISHED": trials + 1}:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
