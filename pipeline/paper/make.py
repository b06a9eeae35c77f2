"""All parts of the page, in several processes at once; then the page, and a run in MLflow."""

import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gan.config import DataConfig
from gan.datasets.splits import load_test, load_train_valid
from gan.errors import DatasetError
from gan.files import write_atomically
from pipeline.errors import PipelineError
from pipeline.graph import locked
from pipeline.paper.page import LeftOut, Row, claims_of, render_paper
from pipeline.paper.parts import FAILURE, Part, begin, do, faces_part, subject_part, theory_part
from pipeline.paper.subjects import SUBJECTS, Budget, Data, Settings
from tuning.errors import SweepInterrupted
from tuning.tracking import log_evaluation, prepare_store, tracking_uri

PAGE, FACTS, PARTS = "paper.html", "paper.json", "parts"
EXPERIMENT = "paper"
MOST_WORKERS = 8
"""Each holds images, nets and distances of 10,000 samples: some 2 GB."""
LONG = ("cifar10_conv", "cifar10", "faces", "theory", "fashion_mnist")
"""Parts that take the longest in their budget, the longest first."""
OPTIONS: dict[Data, str] = {"fashion_mnist": "--fashion-mnist", "cifar10": "--cifar10"}

Tell = Callable[[str], None]
Results = dict[str, dict[str, Any]]
"""By name of the part."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """Where the data sets lie that are not in the package; None: that part is left out.

    Attributes:
        fashion_mnist: folder of its four files.
        cifar10: folder of its files.
        faces: `TFD_48x48.mat`, or a file in its layout.
        download: whether torchvision fetches what the folders lack.
    """

    fashion_mnist: Path | None = None
    cifar10: Path | None = None
    faces: Path | None = None
    download: bool = False

    def where(self, data: Data) -> Settings | None:
        """Settings of `data` by which its images are found; None where no folder was named."""
        if data == "mnist":
            return {}
        folder = {"fashion_mnist": self.fashion_mnist, "cifar10": self.cifar10}[data]
        if folder is None:
            return None
        return {"data.root": str(folder.expanduser().absolute())}

    def require(self) -> None:
        """Refuse what cannot be read, before hours go by; download what may be.

        Raises:
            DatasetError: naming the option; or files are of another set, or cannot be downloaded.
        """
        if self.download and self.fashion_mnist is None and self.cifar10 is None:
            raise DatasetError("--download needs a folder to fill: --fashion-mnist or --cifar10")
        named = {"--tfd": self.faces}
        if not self.download:
            named |= {"--fashion-mnist": self.fashion_mnist, "--cifar10": self.cifar10}
        for option, path in named.items():
            if path is not None and not path.expanduser().exists():
                raise DatasetError(f"{option}: there is no {path}")
        if self.faces is not None and self.faces.suffix != ".mat":
            raise DatasetError(f"--tfd must be a .mat file, got {self.faces}")
        read = [
            DataConfig(dataset=data, root=where["data.root"], download=self.download)
            for data in OPTIONS
            if (where := self.where(data)) is not None
        ]
        if self.faces is not None:
            read.append(DataConfig(dataset=str(self.faces.expanduser().absolute())))
        for config in read:  # a download, too, is not for several processes at once
            load_train_valid(config)
            load_test(config)


def write_paper(
    folder: Path, budget: Budget, files: Files, *, n_workers: int | None, tell: Tell
) -> dict[str, Any]:
    """Do whatever is not done yet, and write `paper.html`, which needs no other file.

    Args:
        folder: of the page and of the results of all parts, which are kept.
        budget: how much is trained.
        files: where the data sets are.
        n_workers: processes; None: by the machine's cores.
        tell: takes a line for each part.

    Returns:
        What came out, by name.

    Raises:
        DatasetError: a file that was named is not there, or cannot be read.
        PipelineError: another process is at work on the folder; or parts failed, or a claim of the
            theory does not hold: then the page is written, and says so.
        SweepInterrupted: by Ctrl-C; called again, it goes on.
        TrackingError: MLflow's store cannot be used.
    """
    files.require()
    folder = folder.absolute()
    with _locked(folder):
        return _write_paper(folder, budget, files, n_workers=n_workers, tell=tell)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone at work on the folder, without what an earlier process was cut off in."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(f"{folder} cannot be written: {error.strerror or error}") from error
    with locked(folder, else_use="-o DIR"):
        for scratch in (folder / PARTS).glob(".*"):
            shutil.rmtree(scratch)
        yield


def _write_paper(
    folder: Path, budget: Budget, files: Files, *, n_workers: int | None, tell: Tell
) -> dict[str, Any]:
    uri = tracking_uri()
    prepare_store(uri, EXPERIMENT)  # before several processes would make one
    rows, parts = _plan(budget, files)
    results = _do_all(parts, folder / PARTS, n_workers or _n_workers(len(parts)), tell)
    pictures = {
        f"{part.name}/{picture.parent.name}/{picture.stem}": picture.read_bytes()
        for part in parts
        for picture in sorted(part.folder(folder / PARTS).rglob("*.png"))
    }
    left = _left_out(files)
    page = render_paper(rows, results, budget=budget, left=left, pictures=pictures)
    write_atomically(folder / PAGE, page)
    told = {name: {k: v for k, v in r.items() if k != "sections"} for name, r in results.items()}
    facts = {"budget": budget, "parts": told, "left_out": [vars(one) for one in left]}
    write_atomically(folder / FACTS, json.dumps(facts, indent=2) + "\n")
    run_id = _log(uri, folder, budget, results)
    problems = [f"{name}: {r[FAILURE]}" for name, r in results.items() if FAILURE in r]
    problems += [f"{one.source} does not hold" for one in claims_of(results) if not one.holds]
    if problems:
        raise PipelineError(f"{'; '.join(problems)}: see {folder / PAGE}")
    return {"page": str(folder / PAGE), "parts": len(results), "run_id": run_id}


def _plan(budget: Budget, files: Files) -> tuple[list[Row], list[Part]]:
    """The rows of the page, each with the names of its parts; and the parts, in order."""
    rows, parts = [], [theory_part(seed=0)]
    for subject in SUBJECTS:
        where = files.where(subject.data)
        if where is not None:
            seeds = subject.seeds(budget)
            of_row = [subject_part(subject, budget, seed=seed, where=where) for seed in seeds]
            command = subject.command(budget, seed=0, where=where)
            names = [part.name for part in of_row]
            rows.append(Row(subject=subject, parts=names, command=command))
            parts += of_row
    if files.faces is not None:
        parts.append(faces_part(files.faces.expanduser().absolute(), budget, seed=0))
    is_full = budget == "full"
    rank = {name: len(LONG) - number for number, name in enumerate(LONG)}

    def order(part: Part) -> tuple[int, int]:
        """Minutes: the longest first, so that no process waits for it; days: Table 1 first."""
        name, _, seed = part.name.partition("-")
        return rank.get(name, 0) * (1 if is_full else -1), int(seed or 0)

    return rows, sorted(parts, key=order)


def _left_out(files: Files) -> list[LeftOut]:
    left = [
        LeftOut(title=s.title, reason=f"its files were not named: {OPTIONS[s.data]} DIR")
        for s in SUBJECTS
        if files.where(s.data) is None
    ]
    if files.faces is None:
        reason = "the database is given out on request only: --tfd TFD_48x48.mat"
        left.append(LeftOut(title="Toronto Face Database", reason=reason))
    return left


def _n_workers(n_parts: int) -> int:
    return max(1, min(n_parts, MOST_WORKERS, os.cpu_count() or 1))


def _do_all(parts: Sequence[Part], folder: Path, n_workers: int, tell: Tell) -> Results:
    """The result of each part, by name; in the order of `parts`."""
    results: Results = {}
    kept = [part for part in parts if part.result(folder) is not None]
    for part in kept:
        results[part.name] = do(part, folder)
        tell(f"{part.name:<16} kept")
    todo = [part for part in parts if part not in kept]
    if todo:
        with _pool(n_workers) as pool:
            futures = {pool.submit(do, part, folder): part for part in todo}
            for done in as_completed(futures):
                part = futures[done]
                try:
                    result = done.result()
                except BrokenProcessPool as error:
                    raise PipelineError(
                        "a process that did a part is gone, killed for want of memory perhaps: "
                        "the same command goes on, --workers 1 takes the least"
                    ) from error
                results[part.name] = result
                told = result.get(FAILURE) or f"done in {result['seconds']:.0f} s"
                tell(f"{part.name:<16} {told}")
    return {part.name: results[part.name] for part in parts}


@contextmanager
def _pool(n_workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that are gone when the block ends, whether or not their parts are done."""
    pool = ProcessPoolExecutor(
        n_workers,
        # A forked process has the locks of this one's threads, and no way to a GPU.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=begin,
        initargs=(os.getpid(),),
    )
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()
        if isinstance(error, KeyboardInterrupt):
            raise SweepInterrupted("stopped") from None
        raise
    pool.shutdown()


def _log(uri: str, folder: Path, budget: Budget, results: Results) -> str:
    metrics = {}
    for name, result in results.items():
        for score, (value, error) in result.get("scores", {}).items():
            metrics[f"{name}_{score}_test"] = value
            if error is not None:
                metrics[f"{name}_{score}_test_se"] = error
    for number, stage in enumerate(results.get("faces", {}).get("stages", ())):
        mean, error = stage["mean_and_error"]
        metrics |= {
            f"faces-{number}_parzen_ll_test": mean,
            f"faces-{number}_parzen_ll_test_se": error,
        }
    metrics["theory_claims_held"] = sum(claim.holds for claim in claims_of(results))
    with tempfile.TemporaryDirectory() as scratch:
        for name in (PAGE, FACTS):
            (Path(scratch) / name).write_bytes((folder / name).read_bytes())
        return log_evaluation(
            uri,
            EXPERIMENT,
            name=f"paper, {budget}",
            params={
                "budget": budget,
                "n_parts": len(results),
                "n_failed": sum(FAILURE in result for result in results.values()),
                "device": "cuda" if torch.cuda.is_available() else "cpu",
            },
            metrics=metrics,
            folder=Path(scratch),
        )
