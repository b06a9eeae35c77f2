"""`gan paper`.  Kinds: contract of a part, the page, end to end with interruption."""

import dataclasses
import json
import os
import re
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from gan.datasets.splits import load_test, load_train_valid
from gan.errors import ConfigError, DatasetError
from gan.randomness import stream_seed
from gan.run import score_samples, unit_pixels
from gan.tasks import load_sampler
from pipeline.cli import _budget
from pipeline.errors import PipelineError
from pipeline.paper import make
from pipeline.paper.deviations import DEVIATIONS
from pipeline.paper.difficulties import MODELS, OPERATIONS
from pipeline.paper.faces import recipe
from pipeline.paper.make import FACTS, PAGE, Files, write_paper
from pipeline.paper.page import LeftOut, Number, Row, number_of, render_paper
from pipeline.paper.parts import FAILURE, RESULT, Part, do, subject_part
from pipeline.paper.subjects import SUBJECTS, Subject
from pipeline.settings import resolve
from pipeline.theory import Claim, Drawing, Section
from tests.pipeline.commands import gan_process, parse, spawn
from tests.pipeline.tiny_run import SETTINGS, write_images
from tuning.ledger import Ledger

ROOT = Path(__file__).parents[2]
PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010806000000")
ANYWHERE = {"data.root": "images"}


def where(subject):
    return {} if subject.data == "mnist" else ANYWHERE


# Subjects


@pytest.mark.parametrize("budget", ["quick", "full"])
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.name)
def test_the_command_of_a_subject_is_one_that_trains_it(subject, budget):
    config = subject.config(budget, seed=2, where=where(subject))
    name, options = parse(subject.command(budget, seed=2, where=where(subject)))
    assert (name, options["source"]) == ("train", subject.preset_of(budget))
    assert resolve(options["source"], options["assignments"]) == config
    assert (config.base.seed, config.base.data.dataset) == (2, subject.data)
    assert (ROOT / subject.code).exists()
    assert all(1 <= number <= len(DEVIATIONS) for number in subject.deviations)


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.name)
def test_the_quick_budget_says_where_it_cut(subject):
    quick, full = (subject.config(b, seed=0, where=where(subject)) for b in ("quick", "full"))
    assert f"{quick.base.train.n_steps:,} of {full.base.train.n_steps:,} updates" in subject.cut()
    assert quick.base.train.n_steps < full.base.train.n_steps
    assert list(subject.seeds("quick")) == [0]
    assert (f"1 of {len(subject.seeds('full'))} seeds" in subject.cut()) == (subject.n_seeds > 1)


def test_the_faces_are_of_the_released_recipe():
    first, second = recipe("faces.mat", is_small=False, settings={"seed": 3})
    assert first.generator.hidden == (8000, 8000)
    assert second.learned_prior.hidden == (8000,)
    assert {first.seed, second.seed} == {3}


# Parts


def part(work, **settings):
    return Part(name="one-0", work=work, settings=settings)


def test_a_part_is_done_once(tmp_path):
    calls = []

    def work(folder):
        calls.append(folder)
        (folder / "samples.png").write_bytes(PNG)
        return {"scores": {"parzen_ll": [1.0, 0.5]}}

    one = part(work, seed=0)
    assert one.result(tmp_path) is None
    first = do(one, tmp_path)
    assert do(one, tmp_path) == first == one.result(tmp_path)
    assert len(calls) == 1
    assert {p.name for p in one.folder(tmp_path).iterdir()} == {RESULT, "samples.png"}
    assert part(work, seed=1).result(tmp_path) is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DatasetError("no images"), "no images"),
        (PipelineError("training failed"), "training failed"),
        (RuntimeError("CUDA out of memory\nTried"), "RuntimeError: CUDA out of memory"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
    ],
)
def test_a_failure_is_told_and_tried_again(tmp_path, error, told):
    def fail(folder):
        raise error

    result = do(part(fail), tmp_path)
    assert result.pop(FAILURE) == told
    assert ("in fail" in result.get("traceback", "")) == isinstance(error, RuntimeError | OSError)
    assert list(tmp_path.rglob("*")) == []
    assert "seconds" in do(part(lambda folder: {}), tmp_path)


def test_a_part_that_is_cut_off_leaves_nothing(tmp_path):
    def stop(folder):
        (folder / "half.png").write_bytes(PNG)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do(part(stop), tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_parts_of_other_settings_seeds_and_budgets_lie_apart(tmp_path):
    subject = SUBJECTS[0]
    folders = {
        subject_part(subject, budget, seed=seed, where={}).folder(tmp_path)
        for budget in ("quick", "full")
        for seed in (0, 1)
    }
    assert len(folders) == 4


@pytest.mark.parametrize(("budget", "first", "last"), [("quick", 5, 0), ("full", 0, 5)])
def test_the_quick_budget_begins_with_the_longest_and_the_full_one_with_table_1(
    budget, first, last
):
    files = Files(fashion_mnist=Path("f"), cifar10=Path("c"), faces=Path("f.mat"))
    names = [part.name.partition("-")[0] for part in make._plan(budget, files)[1]]
    long = set(make.LONG)
    assert set(names[:first]) == (long if first else set())
    assert set(names[len(names) - last :]) == (long if last else set())
    mnist = [s for s in SUBJECTS if s.data == "mnist"]
    assert len(names) == len(long) + len(mnist) * (3 if budget == "full" else 1)


# Numbers


def runs(*values, score="parzen_ll"):
    return [{"scores": {score: [value, 2.0]}} for value in values]


def test_the_error_of_one_seed_is_over_images_and_of_several_over_seeds():
    assert number_of(runs(225.0), "parzen_ll") == Number(mean=225.0, error=2.0)
    several = number_of(runs(1.0, 2.0, 3.0), "parzen_ll")
    assert several == Number(mean=2.0, error=pytest.approx(3**-0.5))
    assert number_of(runs(1.0), "frechet_distance") is None


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Number(mean=-2057.04, error=26.0), "−2,057.0 ± 26.0"),
        (Number(mean=7.854, error=0.123), "7.85 ± 0.12"),
        (Number(mean=0.215, error=None), "0.21"),
    ],
)
def test_numbers_read_as_people_write_them(number, text):
    assert str(number) == text


# The page


CLAIM = Claim(text="A", source="Theorem 1", measured=0.0, low=0, high=1, kind="exact")
SECTION = Section(
    title="Part",
    text="Words.",
    drawings=[Drawing(svg="<svg></svg>", alt="Curves.", caption="Both.")],
    movie="data:image/gif;base64,",
)
THEORY = {"claims": [dataclasses.asdict(CLAIM)], "sections": [dataclasses.asdict(SECTION)]}


def a_page(budget="quick", *, subjects=SUBJECTS, left=(), faces=True, failed=(), parzen=225.0):
    rows, results, pictures = [], {"theory": THEORY}, {}
    for subject in subjects:
        names = [f"{subject.name}-{seed}" for seed in subject.seeds(budget)]
        for name in names:
            results[name] = {
                "scores": {"parzen_ll": [parzen, 2.0], "parzen_sigma": [0.167, None]},
                "refused_by": None if budget == "quick" else ["not_smoothed"],
                "step": 100,
                "run_id": "0" * 32,
                "seconds": 60.0,
            }
            kinds = ("samples", "nearest", "straight")
            pictures |= {f"{name}/pictures/{kind}": PNG for kind in kinds}
        rows.append(Row(subject=subject, parts=names, command=f"gan train {subject.preset}"))
    if faces:
        fold = {"parzen_ll_test": 1360.0}
        stage = {"folds": [fold] * 5, "mean_and_error": [1360.0, 5.0]}
        results["faces"] = {
            "notice": "200 unlabelled images stand in",
            "is_small": budget == "quick",
            "n_steps": [2500, 1000],
            "stages": [stage, stage],
        }
        kinds = ("nearest", "straight")
        pictures |= {f"faces/pictures-{n}/{kind}": PNG for n in (0, 1) for kind in kinds}
    for name in failed:
        results[name] = {FAILURE: "a <cause>"}
        pictures = {file: png for file, png in pictures.items() if not file.startswith(name)}
    return render_paper(rows, results, budget=budget, left=left, pictures=pictures)


@pytest.mark.parametrize("budget", ["quick", "full"])
def test_the_page_stands_alone_and_each_of_its_links_leads_somewhere(budget):
    page = a_page(budget)
    outside = re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page)
    assert outside == []
    anchors = re.findall(r'id="([^"]*)"', page)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(anchors)


def test_each_cell_of_table_2_leads_to_what_shows_it_and_each_file_is_there():
    page = a_page()
    table = page[page.index('<section id="table-2">') : page.index('<section id="deviations">')]
    cells = [cell for cells in OPERATIONS.values() for cell in cells]
    assert table.count('<a href="#') == len(cells) == len(MODELS) * len(OPERATIONS) == 20
    for cell in cells:
        file = cell.shown_by.rsplit(": ", 1)[-1]
        assert (ROOT / file).exists(), file


def test_a_row_that_was_left_out_has_no_link():
    few = [s for s in SUBJECTS if s.data == "mnist"]
    left = [LeftOut(title="CIFAR-10", reason="its files were not named: --cifar10 DIR")]
    page = a_page(subjects=few, left=left, faces=False)
    assert "CIFAR-10 is left out: its files were not named: --cifar10 DIR." in page
    assert "gan/conv_nets.py <small>(left out here)</small>" in page
    assert "given out on request only" in page


def test_the_quick_page_says_what_was_cut_and_the_full_one_what_the_checks_say():
    quick, full = a_page("quick"), a_page("full")
    for subject in SUBJECTS:
        assert f"{subject.title}: {subject.cut()}." in quick
    assert "not taken" in quick
    assert "This is the quick budget" in quick
    assert "This is the quick budget" not in full
    assert "refused: not_smoothed" in full
    assert 'id="missing"' not in full


@pytest.mark.parametrize("name", ["vae-0", "gan-0", "cifar10_conv-0", "faces", "theory"])
@pytest.mark.parametrize("budget", ["quick", "full"])
def test_a_part_that_failed_is_named_with_its_cause_and_the_rest_is_shown(name, budget):
    page = a_page(budget, failed=[name])
    assert f"{name} failed: a &lt;cause&gt;" in page
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(re.findall(r'id="([^"]*)"', page))
    assert ("225.0" in page, "Deep belief net" in page) == (True, True)


def test_a_row_has_the_seeds_that_were_run():
    page = a_page("full", failed=["vae-1"])
    row = page[page.index('<tr id="subject-vae">') :]
    assert "0, 2; 100" in row[: row.index("</tr>")]


def test_what_is_above_real_images_is_called_smooth():
    assert "above real images: smooth" not in a_page()
    assert a_page(parzen=260.0).count("above real images: smooth") == 7


def test_a_stand_in_for_the_faces_is_said_to_be_one():
    page = a_page()
    assert "200 unlabelled images stand in." in page
    assert "<br><small>not comparable</small>" in page


def test_readme_has_the_same_deviations():
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("## Deviations") : readme.index("## Develop")]
    items = re.split(r"\n(?=\d+\. )", section)[1:]
    texts = [" ".join(re.sub(r"^\d+\. ", "", item).split()) for item in items]
    assert texts == list(DEVIATIONS)


# Bad input


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"cifar10": Path("nowhere")}, "--cifar10: there is no nowhere"),
        ({"fashion_mnist": Path("nowhere")}, "--fashion-mnist: there is no nowhere"),
        ({"faces": Path("nowhere.mat")}, "--tfd: there is no nowhere.mat"),
        ({"faces": Path(__file__)}, "--tfd must be a .mat file"),
        ({"download": True}, "--download needs a folder to fill"),
        ({"cifar10": Path(__file__).parent}, "data.root"),
        ({"fashion_mnist": Path(__file__).parent}, "data.root"),
    ],
)
def test_files_that_are_not_there_are_refused_at_once(files, problem):
    with pytest.raises(DatasetError, match=re.escape(problem)):
        Files(**files).require()


def test_a_budget_is_quick_or_full():
    with pytest.raises(ConfigError, match="--budget must be quick or full, got long"):
        _budget("long")


def test_two_at_once_are_told_apart(tmp_path):
    write = partial(write_paper, tmp_path, "quick", Files(), n_workers=1, tell=print)
    with make._locked(tmp_path), pytest.raises(PipelineError, match="another process is at work"):
        write()


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "page").touch()
    with pytest.raises(PipelineError, match=r"page cannot be written: File exists"):
        write_paper(tmp_path / "page", "quick", Files(), n_workers=1, tell=print)


@pytest.mark.mlflow
def test_a_claim_that_does_not_hold_is_the_command_s_failure(tmp_path, mlflow_tables, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(mlflow_tables.read_bytes())
    claim = dataclasses.replace(CLAIM, measured=2.0)
    theory = {"claims": [dataclasses.asdict(claim)], "sections": []}
    monkeypatch.setattr(make, "SUBJECTS", [])
    monkeypatch.setattr(make, "_do_all", lambda *_: {"theory": theory})
    with pytest.raises(PipelineError, match=r"Theorem 1 does not hold: see .*paper\.html"):
        write_paper(Path("out"), "quick", Files(), n_workers=1, tell=print)
    assert "× does not hold" in (tmp_path / "out" / PAGE).read_text()


# End to end


def tiny_subjects(folder, images):
    settings = SETTINGS | {"base": SETTINGS["base"] | {"data": images}}
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(settings | {"name": "paper-tiny"}))
    return [
        Subject(
            name=name,
            title=name.title(),
            preset=str(file),
            data="mnist",
            quick={"train.n_steps": 20, "evaluation.score_every": 20, "train.batch_size": size},
            full={"train.batch_size": size},  # else both would be one run
            n_seeds=2,
            is_drawn=True,
            code="gan/algorithm1.py",
        )
        for name, size in (("first", 20), ("second", 30))
    ]


@pytest.fixture
def place(tmp_path, mlflow_tables, monkeypatch):
    """A working folder with images and a store, whose subjects are two tiny GANs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(mlflow_tables.read_bytes())
    write_images(tmp_path)
    images = SETTINGS["base"]["data"] | {
        "dataset": str(tmp_path / "train.npz"),
        "test_path": str(tmp_path / "test.npz"),
    }
    monkeypatch.setattr(make, "SUBJECTS", tiny_subjects(tmp_path, images))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.mark.slow
@pytest.mark.mlflow
def test_a_quick_part_has_the_parzen_score_of_the_test_images_and_pictures(place):
    subject = make.SUBJECTS[0]
    one = subject_part(subject, "quick", seed=0, where={})
    result = do(one, place / "parts")
    assert result["step"] == 20
    assert set(result["scores"]) == {"parzen_ll", "parzen_sigma", "frechet_distance"}
    pictures = {picture.stem for picture in one.folder(place / "parts").rglob("*.png")}
    assert pictures == {"samples", "nearest", "straight", "spherical"}
    (saved,) = place.glob("runs/paper-tiny/runs/train-*/generator")
    config = subject.config("quick", seed=0)
    samples = (
        load_sampler(saved)
        .sampler()
        .sample(config.base.evaluation.n_samples, seed=stream_seed(0, "evaluate") % 2**31)
    )
    test, valid = unit_pixels(load_test(config.base.data)), load_train_valid(config.base.data)[1]
    cfg = config.base.evaluation
    expected = score_samples(samples, test, valid=unit_pixels(valid), cfg=cfg)
    assert result["scores"]["parzen_ll"][0] == pytest.approx(expected.mean)


@pytest.mark.slow
@pytest.mark.mlflow
def test_a_page_is_made_kept_and_logged(place):
    told = []
    write = partial(write_paper, Path("out"), "full", Files(), n_workers=2, tell=told.append)
    result = write()
    assert (result["parts"], sum("done in" in line for line in told)) == (5, 5)
    page = Path(result["page"]).read_text()
    facts = json.loads((place / "out" / FACTS).read_text())
    scores = [facts["parts"][f"first-{seed}"]["scores"]["parzen_ll"][0] for seed in (0, 1)]
    assert scores[0] != scores[1]
    assert str(number_of([facts["parts"][f"first-{s}"] for s in (0, 1)], "parzen_ll")) in page
    run = MlflowClient().get_run(result["run_id"])
    assert run.data.metrics["first-0_parzen_ll_test"] == pytest.approx(scores[0])
    assert {f.path for f in MlflowClient().list_artifacts(result["run_id"])} == {PAGE, FACTS}
    told.clear()
    write()
    assert [line.split()[-1] for line in told] == ["kept"] * 5
    assert (place / "out" / PAGE).read_text() == page


def is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.mlflow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_is_stopped_nothing_is_left_that_keeps_it_from_going_on(
    how, tmp_path, mlflow_tables
):
    (tmp_path / "mlflow.db").write_bytes(mlflow_tables.read_bytes())
    process = spawn("paper", "-o", "out", "--workers", "2", cwd=tmp_path)
    try:
        deadline = time.monotonic() + 120
        while not (trials := list(tmp_path.glob("runs/*/runs/train-*/trials/0000"))):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.5)
        time.sleep(3)
        os.kill(process.pid, how)
        _, err = process.communicate(timeout=60)
        deadline = time.monotonic() + 10
        while is_alive(process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        if is_alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    if how == signal.SIGINT:
        goes_on = "`gan paper -o out --workers 2` goes on from there"
        assert process.returncode == 1
        assert err.splitlines()[-1] == f"error: stopped; what was finished stays, and {goes_on}"
    with Ledger(trials[0].parents[1]).lock(), make._locked(tmp_path / "out"):
        assert [path.name for path in (tmp_path / "out" / make.PARTS).glob(".*")] == []


def test_a_usage_error_is_one_line(tmp_path):
    answer = gan_process("paper", "--tfd", "nowhere.mat", cwd=tmp_path)
    assert (answer.status, answer.out) == (1, "")
    assert answer.err.splitlines() == ["error: --tfd: there is no nowhere.mat"]
    assert list(tmp_path.iterdir()) == []
