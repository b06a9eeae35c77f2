"""One whole run, as small as it can be, and what is done with what came out of it (contract).

The run is made in two parts: up to the sweep before there is a file with test images, and from
there on with it, so nothing before `evaluate` can have opened that file.

What the stages after the sweep do when images, store or champion change is tested behind a sweep
that trains nothing.
"""

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from gan import validation as validation_module
from gan.checkpoint import load_checkpoint
from gan.config import load_config
from gan.errors import DatasetError
from gan.saved_generator import SavedGenerator, empty_generator
from gan.tasks import from_state, load, save
from pipeline import main_line
from pipeline.artifacts import verify
from pipeline.progress import SweepTally
from pipeline.registry import current_champion
from pipeline.settings import resolve
from tests.pipeline.commands import gan_process, spawn
from tests.pipeline.tiny_run import bright_squares, write_images, write_settings
from tuning.ledger import Ledger

STAGES = ("data", "sweep", "evaluate", "promote", "report")

STDERR = (
    r"(data|sweep|evaluate|promote|report) +(done in \d+:\d\d|unchanged) +runs/\S+",
    r"training the autoencoder whose features the scores are taken of: 20 minibatches, once, .*",
    r"trial \d step \d+ frechet_distance_valid \d+(\.\d+)?; \d/2 trials  best .*",
    r"sweep (tiny-[0-9a-f]{8}): `gan sweep --resume \1` goes on after any stop",
    r"tiny-[0-9a-f]{8}: 2 trials, 2 finished",
    r"(sweep|trial|run_id|(frechet|parzen|precision|recall|coverage)_\w+)  +\S.*",
    r"(outcome|model|version|reason|generator|samples|report)  +\S.*",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder in which `gan run` has been, and its answers."""
    folder = tmp_path_factory.mktemp("whole")
    write_settings(folder)
    write_images(folder, has_test=False)
    sweep = gan_process("run", "tiny.yaml", "--to", "sweep", "--json", cwd=folder)
    assert sweep.status == 0, sweep.err
    write_images(folder)
    rest = gan_process("run", "tiny.yaml", "--json", cwd=folder)
    assert rest.status == 0, rest.err
    return SimpleNamespace(
        folder=folder,
        runs=folder / "runs" / "tiny",
        uri=f"sqlite:///{folder / 'mlflow.db'}",
        sweep=sweep,
        rest=rest,
        result=json.loads(rest.out),
    )


@pytest.fixture
def inside(whole, monkeypatch):
    """The working folder is that of the whole run."""
    monkeypatch.chdir(whole.folder)
    return whole


@pytest.fixture
def client(whole):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=whole.uri)


def stages_of(answer):
    """Stage -> `done` or `unchanged`, as the answer tells of it."""
    return dict(re.findall(r"^(\w+) +(done|unchanged)\b.* runs/", answer.err, re.MULTILINE))


def only(*ran):
    """What `stages_of` finds if these stages were run, and the others skipped."""
    return {stage: "done" if stage in ran else "unchanged" for stage in STAGES}


def real(test):
    """A test of the whole run."""
    for mark in (pytest.mark.slow, pytest.mark.ray, pytest.mark.mlflow):
        test = mark(test)
    return test


@real
def test_nothing_before_evaluate_opens_the_test_images(whole):
    assert stages_of(whole.sweep) == {"data": "done", "sweep": "done"}
    assert stages_of(whole.rest) == only("data", "evaluate", "promote", "report")


@real
def test_stdout_is_one_line_of_json_and_stderr_has_nothing_of_third_parties(whole):
    for answer in (whole.sweep, whole.rest):
        (line,) = answer.out.splitlines()
        assert json.loads(line)["trial"] in (0, 1)
        for told in answer.err.splitlines():
            assert any(re.fullmatch(pattern, told) for pattern in STDERR), told


@real
def test_each_score_of_each_trial_is_told_once(whole):
    told = re.findall(r"^trial (\d) step (\d+) ", whole.sweep.err, re.MULTILINE)
    assert sorted(told) == [(trial, step) for trial in "01" for step in ("20", "40", "60")]


@real
def test_every_file_that_the_result_names_is_there(whole):
    for name in ("generator", "samples", "report"):
        assert (whole.folder / whole.result[name]).exists()
    page = (whole.folder / whole.result["report"]).read_text()
    assert whole.result["sweep"] in page
    with Image.open(whole.folder / whole.result["samples"]) as picture:
        assert picture.size == (2 * (10 * (8 + 2) + 2),) * 2  # 10 x 10 images, zoomed


@real
def test_winner_has_the_best_score_of_all_trials(whole):
    trials = json.loads((whole.runs / "sweep" / "trials.json").read_text())
    metric = "frechet_distance_valid"
    best = {t["trial"]: min(r.get(metric, 1e9) for r in t["history"]) for t in trials}
    assert len(best) == 2
    assert whole.result["trial"] == min(best, key=best.get)
    assert json.loads(whole.sweep.out)[metric] == min(best.values())


@real
def test_champion_is_the_winner(whole):
    champion = current_champion(whole.uri, "tiny-generator")
    assert champion.run_id == whole.result["run_id"]
    manifest = json.loads((whole.runs / "promote" / "generator" / "manifest.json").read_text())
    assert manifest["files"]["generator.safetensors"] == champion.weights_sha256
    record = json.loads((whole.runs / "sweep" / "stage.json").read_text())
    assert record["files"]["winner/generator.safetensors"] == champion.weights_sha256


@real
def test_mlflow_has_a_finished_parent_and_a_finished_child_for_each_trial(whole, client):
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    (parent,) = (run for run in runs if run not in children)
    assert len(children) == 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    scored = [run for run in children if "parzen_ll_test" in run.data.metrics]
    assert [run.info.run_id for run in scored] == [whole.result["run_id"]]


@real
def test_second_run_skips_all_but_data_and_does_not_wake_ray(inside):
    code = (
        "import sys; sys.argv = ['gan', 'run', 'tiny.yaml']\n"
        "from pipeline.cli import main\n"
        "try: main()\n"
        "finally: print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(inside.folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert stages_of(SimpleNamespace(err=answer.stderr)) == only("data")
    imported = set(answer.stdout.split())
    assert imported & {"torch", "mlflow", "ray", "matplotlib"} == {"torch", "mlflow"}


@real
def test_changed_condition_of_promotion_runs_promote_and_report_alone(inside, gan):
    assert gan("run", "tiny.yaml").status == 0
    answer = gan("run", "tiny.yaml", "--set", "promote.min_standard_errors=3", "--json")
    assert stages_of(answer) == only("data", "promote", "report")
    assert json.loads(answer.out)["outcome"] == "unchanged"
    assert (inside.runs / "promote" / "generator" / "manifest.json").exists()


@real
def test_touched_result_is_made_again(inside, gan):
    assert gan("run", "tiny.yaml").status == 0
    (inside.runs / "report" / "report.html").unlink()
    assert stages_of(gan("run", "tiny.yaml")) == only("data", "report")


@real
def test_evaluate_opens_the_test_images_and_nothing_after_it_does(inside, gan):
    test_images = inside.folder / "test.npz"
    content = test_images.read_bytes()
    try:
        test_images.write_bytes(b"no images")
        answer = gan("evaluate", "tiny.yaml")
        assert (answer.status, answer.out) == (1, "")
        assert answer.err.startswith(f"error: {test_images}: cannot be read")
        test_images.unlink()
        assert gan("promote", "tiny.yaml").status == 0
        assert gan("report", "tiny.yaml").status == 0
    finally:
        test_images.write_bytes(content)
    assert gan("run", "tiny.yaml").status == 0


@real
def test_fetched_generator_draws_the_same_images_bit_for_bit(inside, gan, tmp_path):
    assert gan("fetch", "tiny-generator@champion", str(tmp_path / "champion")).status == 0
    sources = (str(tmp_path / "champion"), "tiny-generator", "tiny-generator/1")
    for i, source in enumerate(sources):
        for suffix in ("npy", "png"):
            output = str(tmp_path / f"{i}.{suffix}")
            answer = gan("sample", source, "-n", "5", "--seed", "3", "-o", output)
            assert answer.status == 0
    expected = load(inside.runs / "sweep" / "winner").sampler().sample(5, 3).numpy()
    for i in range(len(sources)):
        np.testing.assert_array_equal(np.load(tmp_path / f"{i}.npy"), expected)
    assert len({(tmp_path / f"{i}.png").read_bytes() for i in range(len(sources))}) == 1


@real
def test_unknown_alias_and_taken_destination_are_refused(inside, gan, tmp_path):
    answer = gan("fetch", "tiny-generator@best", str(tmp_path / "dest"))
    assert (answer.status, answer.out) == (1, "")
    assert re.fullmatch(r"error: .*no alias 'best'.*: champion\n", answer.err)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("kept")
    answer = gan("fetch", "tiny-generator", str(tmp_path / "taken"))
    assert answer.status == 1
    assert "must be a new or an empty folder, and is not empty" in answer.err
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "mine"]


@real
def test_weaker_candidate_is_refused_and_the_champion_stays(inside, gan):
    champion = current_champion(inside.uri, "tiny-generator")
    weaker = ("--set", "name=weaker", "--set", "train.n_steps=10", "--set", "sweep.n_trials=1")
    answer = gan_process("run", "tiny.yaml", *weaker, "--json", cwd=inside.folder)
    assert answer.status == 3
    result = json.loads(answer.out)
    assert result["outcome"] == "refused"
    assert re.search(
        r"better_than_champion: its Fréchet distance is \d.* worse than", result["reason"]
    )
    assert answer.err.splitlines()[-1] == f"error: promotion refused: {result['reason']}"
    assert (inside.folder / result["report"]).exists()
    # The folder holds the champion, as ever, not the candidate.
    assert verify(inside.folder / result["generator"]).weights_sha256 == champion.weights_sha256
    assert current_champion(inside.uri, "tiny-generator") == champion
    # It is asked again, for the champion may be another by then.
    again = gan("run", "tiny.yaml", *weaker)
    assert again.status == 3
    # In this process torch has another number of threads, so a distance may round otherwise.
    stages = stages_of(again) | {"report": "unchanged"}
    assert stages == only("data", "promote")


@real
def test_finished_sweep_can_be_resumed_and_does_nothing(inside, gan):
    answer = gan("sweep", "--resume", inside.result["sweep"], "--json")
    assert answer.status == 0
    assert stages_of(answer) == {"data": "done", "sweep": "unchanged"}
    assert json.loads(answer.out)["run_id"] == inside.result["run_id"]


@real
def test_sweep_is_not_resumed_on_other_images(inside, gan):
    train_images = inside.folder / "train.npz"
    content = train_images.read_bytes()
    try:
        np.savez(train_images, images=np.load(train_images)["images"][::-1])
        answer = gan("sweep", "--resume", inside.result["sweep"])
    finally:
        train_images.write_bytes(content)
    assert answer.status == 1
    assert f"error: sweep: {inside.result['sweep']} cannot go on: the images" in answer.err
    assert [path.name for path in (inside.runs / "sweeps").iterdir()] == [inside.result["sweep"]]
    assert gan("run", "tiny.yaml").status == 0


@real
def test_ctrl_c_stops_the_sweep_and_tells_the_command_that_goes_on(tmp_path):
    write_settings(tmp_path)
    write_images(tmp_path)
    sets = ("train.n_steps=3000", "train.report_every=50", "evaluation.score_every=500")
    words = [word for assignment in sets for word in ("--set", assignment)]
    process = spawn("run", "tiny.yaml", *words, cwd=tmp_path)
    told = ""
    for line in process.stderr:
        told += line
        if line.startswith("trial "):
            break
    asked_at = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - asked_at < 30
    assert (process.returncode, out) == (1, "")
    found = re.fullmatch(
        r"(?s).*error: stopped; what was finished stays, and `gan ([^`]*)` goes on from there\n",
        err,
    )
    assert found[1].split() == ["run", "tiny.yaml", *words]
    resume = re.search(r"`gan (sweep --resume \S+)` goes on after any stop", told)
    assert not (tmp_path / "runs" / "tiny" / "sweep").exists()

    answer = gan_process(*resume[1].split(), "--json", cwd=tmp_path)
    assert answer.status == 0, answer.err
    trials = json.loads((tmp_path / "runs" / "tiny" / "sweep" / "trials.json").read_text())
    for trial in trials:
        assert [report["step"] for report in trial["history"]] == list(range(50, 3001, 50))
    answer = gan_process(*found[1].split(), cwd=tmp_path)
    assert answer.status == 0, answer.err
    assert stages_of(answer) == only("data", "evaluate", "promote", "report")


@real
def test_sweep_without_a_store_leaves_the_stages_before_it_and_goes_on_with_one(
    tmp_path, monkeypatch
):
    write_settings(tmp_path)
    write_images(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    answer = gan_process("run", "tiny.yaml", "--json", cwd=tmp_path)
    assert (answer.status, answer.out) == (1, "")
    data, name, training, error = answer.err.splitlines()
    assert training.startswith("training the autoencoder")
    assert data.startswith("data      done")
    assert "gan sweep --resume tiny-" in name
    assert re.fullmatch(r"error: MLflow at http://127.0.0.1:9 cannot be used: .*refused.*", error)
    assert {path.name for path in (tmp_path / "runs" / "tiny").iterdir()} == {"data", "sweeps"}
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    answer = gan_process("run", "tiny.yaml", "--to", "sweep", cwd=tmp_path)
    assert answer.status == 0, answer.err


class Winner:
    """The winner of a sweep that trains nothing: every pixel of its images has one brightness.

    Attributes:
        brightness: as a logit.
        best: its best report.
        client: of the store, in which each sweep makes a run.
    """

    def __init__(self, uri):
        from mlflow import MlflowClient

        self.brightness, self.uri = -1.0, uri
        self.best = {
            **{"step": 20, "parzen_ll_valid": 5.0, "parzen_ll_valid_se": 1.0, "parzen_sigma": 0.2},
            **{"frechet_distance_valid": 12.5, "frechet_distance_valid_se": 0.5},
        }
        self.client = MlflowClient(tracking_uri=uri)

    def sweep(self, work):
        found = self.client.get_experiment_by_name("tiny")
        experiment = found.experiment_id if found else self.client.create_experiment("tiny")
        run_id = self.client.create_run(experiment).info.run_id
        fields = {"trial": 0, "run_id": run_id, "step": 20, "best": self.best}
        winner = fields | {"sweep": "tiny-0123abcd", "parent_run_id": run_id}
        trial = fields | {
            **{"status": "finished", "cause": None, "is_final": True, "overrides": {}},
            **{"seed": 0, "elapsed_seconds": 1.0, "history": [self.best | {"d_loss": 1.0}]},
        }
        (work.out / "winner.json").write_text(json.dumps(winner))
        (work.out / "trials.json").write_text(json.dumps([trial]))
        G = empty_generator(work.config.base, n_pixels=64).eval().requires_grad_(False)
        G.output_bias.fill_(self.brightness)
        (work.out / "winner").mkdir()
        saved = SavedGenerator(G=G, config=work.config.base, image_shape=(1, 8, 8))
        save(work.out / "winner", saved)


@pytest.fixture
def winner(here, mlflow_store, monkeypatch):
    """The winner of the sweep of tiny.yaml in this process."""
    winner = Winner(mlflow_store)
    monkeypatch.setattr(main_line.sweep, "stage", lambda watcher, *, resume: winner.sweep)
    return winner


@pytest.mark.mlflow
def test_refused_promotion_is_status_3_and_its_reason_and_the_champion_stays(gan, here, winner):
    assert gan("run", "tiny.yaml").status == 0
    champion = current_champion(winner.uri, "tiny-generator")
    winner.brightness = 4.0
    answer = gan("run", "tiny.yaml", "--from", "sweep", "--json")
    assert answer.status == 3
    result = json.loads(answer.out)
    assert (result["outcome"], result["version"]) == ("refused", "1")
    assert re.search(
        r"better_than_champion: its Fréchet distance is \d.* worse .*: not more than 2",
        result["reason"],
    )
    assert answer.err.splitlines()[-1] == f"error: promotion refused: {result['reason']}"
    assert current_champion(winner.uri, "tiny-generator") == champion
    winner.brightness = -1.0
    assert gan("run", "tiny.yaml", "--from", "sweep").status == 0


@pytest.mark.mlflow
@pytest.mark.usefixtures("here", "winner")
def test_evaluating_a_sweep_shows_every_score_and_verdict(gan):
    assert gan("run", "tiny.yaml", "--to", "sweep").status == 0
    answer = gan("evaluate", "tiny.yaml", "--json")
    assert answer.status == 0
    lines = [line.strip() for line in answer.err.splitlines()]
    assert "200 samples on validation images" in lines
    assert any(re.match(r"coverage +0 +0 to 0\.0\d+ +0\.9", line) for line in lines)
    assert any(re.match(r"covers +passed +its coverage is 0\.000", line) for line in lines)
    assert "frechet_distance_test" in json.loads(answer.out)
    for option in ("--split=test", "--ais=2", "--output=x", "--no-log"):
        answer = gan("evaluate", "tiny.yaml", option)
        assert (answer.status, answer.err) == (
            2,
            "error: tiny.yaml is a sweep: it takes no --split, --ais, --output, --no-log\n",
        )


@pytest.mark.slow
@pytest.mark.mlflow
@pytest.mark.usefixtures("here", "winner")
def test_first_winner_is_refused_too_if_its_samples_cover_nothing(gan):
    limit = ("--set", "promote.limits.min_coverage=1.0")
    answer = gan("run", "tiny.yaml", *limit, "--json")
    assert answer.status == 3
    result = json.loads(answer.out)
    assert result["version"] is None
    assert result["reason"].startswith("covers: its coverage is 0.000, real images reach ")
    assert gan("promote", "tiny.yaml").status == 0


@pytest.mark.slow
@pytest.mark.mlflow
def test_champion_is_not_compared_in_another_feature_space(gan, here, winner, monkeypatch):
    assert gan("run", "tiny.yaml").status == 0
    winner.brightness = -1.5
    assert gan("run", "tiny.yaml", "--from", "sweep", "--to", "evaluate").status == 0
    setting = ("--set", "evaluation.extractor_steps=19")
    answer = gan("promote", "tiny.yaml", *setting)
    assert (answer.status, answer.out) == (1, "")
    assert answer.err.splitlines()[-1] == (
        "error: promote: evaluate: the winner was scored by another extractor than "
        "evaluation.extractor=auto is now: score it anew by `gan run --from evaluate`"
    )
    assert gan("promote", "tiny.yaml").status in (0, 3)


@pytest.mark.mlflow
@pytest.mark.usefixtures("here", "winner")
def test_objective_that_could_not_be_taken_says_why(gan):
    few = ("--set", "data.n_valid=50")
    answer = gan("run", "tiny.yaml", *few)
    assert answer.status == 1
    assert re.match(
        r"error: promote: evaluate: frechet_distance_valid, by which candidate and champion "
        r"compare, could not be taken: .*real must hold at least 65 points, got 50",
        answer.err.splitlines()[-1],
    )


@pytest.mark.slow
@pytest.mark.mlflow
@pytest.mark.parametrize(
    ("name", "values"), [("n_samples", (200, 300)), ("n_sigma_images", (50, 20))]
)
def test_champion_is_not_compared_by_another_protocol(gan, here, winner, name, values):
    was, now = values
    assert gan("run", "tiny.yaml").status == 0
    champion = current_champion(winner.uri, "tiny-generator")
    winner.brightness = -1.5
    assert gan("run", "tiny.yaml", "--from", "sweep", "--to", "evaluate").status == 0
    answer = gan("promote", "tiny.yaml", "--set", f"evaluation.{name}={now}")
    assert (answer.status, answer.out) == (1, "")
    assert answer.err.splitlines()[-1] == (
        f"error: promote: evaluate: the winner was scored with evaluation.{name}={was} and not "
        f"{now}, as the champion would be: score it anew by `gan run --from evaluate` with the "
        f"settings of now, or leave them as they were"
    )
    assert current_champion(winner.uri, "tiny-generator") == champion
    for alike in ("chunk=7", "keep_checkpoints=1"):
        assert gan("promote", "tiny.yaml", "--set", f"evaluation.{alike}").status in (0, 3)


@pytest.mark.mlflow
@pytest.mark.parametrize("objective", ["parzen_ll_valid", "frechet_distance_valid"])
def test_sweep_tells_the_score_that_decided(gan, here, winner, objective):
    assignment = f"sweep.objective={objective}"
    answer = gan("run", "tiny.yaml", "--to", "sweep", "--set", assignment, "--json")
    result = json.loads(answer.out)
    told = {name: value for name, value in result.items() if name.endswith("_valid")}
    assert told == {objective: {"parzen_ll_valid": 5.0}.get(objective, 12.5)}


@pytest.mark.mlflow
def test_run_of_the_winner_gets_every_score_and_keeps_those_of_its_trial(gan, here, winner):
    assert gan("run", "tiny.yaml", "--to", "sweep").status == 0
    folder = here / "runs" / "tiny"
    chosen = json.loads((folder / "sweep" / "winner.json").read_text())
    for name, value in chosen["best"].items():
        winner.client.log_metric(chosen["run_id"], name, value, step=20)
    assert gan("run", "tiny.yaml", "--to", "evaluate").status == 0
    scores = json.loads((folder / "evaluate" / "scores.json").read_text())
    fresh = {
        "frechet_distance_valid": "frechet_distance_valid_fresh",
        "frechet_distance_valid_se": "frechet_distance_valid_fresh_se",
        "parzen_ll_valid": "parzen_ll_valid_fresh",
        "parzen_ll_valid_se": "parzen_ll_valid_fresh_se",
        "parzen_sigma": "parzen_sigma_fresh",
    }
    facts = ("n_samples", "n_sigma_images", "sample_seed")
    logged = {fresh.get(k, k): value for k, value in scores.items() if k not in facts}
    assert fresh.keys() <= scores.keys()
    assert len(logged) > 50
    assert winner.client.get_run(chosen["run_id"]).data.metrics == chosen["best"] | logged
    (metric,) = winner.client.get_metric_history(chosen["run_id"], "parzen_ll_valid_fresh")
    assert metric.step == chosen["step"]


@pytest.mark.slow
@pytest.mark.mlflow
def test_version_that_the_store_lost_is_promoted_again(gan, here, winner):
    assert gan("run", "tiny.yaml").status == 0
    assert stages_of(gan("run", "tiny.yaml")) == only("data")
    winner.client.delete_model_version("tiny-generator", "1")
    assert json.loads(gan("run", "tiny.yaml", "--dry-run", "--json").out)["stages"] == {
        **dict.fromkeys(STAGES, "skip"),
        **{"data": "run", "promote": "run"},
    }
    answer = gan("run", "tiny.yaml", "--json")
    assert stages_of(answer) == only("data", "promote", "report")
    assert json.loads(answer.out)["outcome"] == "promoted"
    assert current_champion(winner.uri, "tiny-generator").version == "2"


@pytest.mark.slow
@pytest.mark.mlflow
def test_store_without_the_run_of_the_winner_is_told_with_the_ways_out(
    gan, here, winner, mlflow_tables
):
    assert gan("run", "tiny.yaml").status == 0
    run_id = json.loads((here / "runs" / "tiny" / "sweep" / "winner.json").read_text())["run_id"]
    database, kept = here / "mlflow.db", here / "kept.db"
    database.rename(kept)
    plan = json.loads(gan("run", "tiny.yaml", "--dry-run", "--json").out)["stages"]
    assert plan["promote"] == "run"
    for command in (["run", "tiny.yaml"], ["evaluate", "tiny.yaml"], ["promote", "tiny.yaml"]):
        answer = gan(*command)
        assert answer.status == 1
        assert re.fullmatch(
            rf"error: (evaluate|promote): MLflow has no run '{run_id}', that of the best trial of "
            r"tiny-0123abcd: set MLFLOW_TRACKING_URI to the store that has it, or delete "
            r"runs/tiny/sweep and runs/tiny/sweeps/tiny-0123abcd, and the next run trains again",
            answer.err.splitlines()[-1],
        )
    assert not database.exists()

    kept.rename(database)  # the one way out
    assert stages_of(gan("run", "tiny.yaml")) == only("data")

    shutil.copyfile(mlflow_tables, database)  # and the other
    assert gan("run", "tiny.yaml").status == 1
    shutil.rmtree(here / "runs" / "tiny" / "sweep")
    answer = gan("run", "tiny.yaml", "--json")
    assert (answer.status, json.loads(answer.out)["outcome"]) == (0, "promoted")


@pytest.mark.slow
@pytest.mark.mlflow
def test_other_test_images_at_the_same_path_are_scored(gan, here, winner):
    first = json.loads(gan("run", "tiny.yaml", "--json").out)
    np.savez(here / "test.npz", images=bright_squares(120, 3))
    answer = gan("run", "tiny.yaml", "--json")
    second = json.loads(answer.out)
    assert stages_of(answer) == only("data", "evaluate", "promote", "report")
    assert first["parzen_ll_test"] != second["parzen_ll_test"]
    assert first["parzen_ll_valid"] == second["parzen_ll_valid"]
    assert stages_of(gan("run", "tiny.yaml")) == only("data")


@pytest.mark.slow
@pytest.mark.mlflow
@pytest.mark.parametrize("stage", ["evaluate", "promote"])
def test_training_images_that_changed_since_the_sweep_are_refused(gan, here, winner, stage):
    images = bright_squares(400, 1)
    assert gan("run", "tiny.yaml").status == 0
    winner.brightness = 0.0
    assert gan("run", "tiny.yaml", "--from", "sweep", "--to", "evaluate").status == 0
    np.savez(here / "train.npz", images=images[::-1])
    answer = gan("run", "tiny.yaml", "--from", stage)
    assert answer.status == 1
    assert answer.err.splitlines()[-1] == (
        f"error: {here}/train.npz must have the images that the sweep was run with, got others: "
        "bring the file back, or run all stages by `gan run`"
    )


def test_run_beside_another_one_is_refused_in_one_line(gan, here):
    outcomes = main_line.main_line(resolve("tiny.yaml")).run()
    next(outcomes)
    answer = gan("run", "tiny.yaml", "--json")
    assert (answer.status, answer.out) == (1, "")
    assert answer.err == (
        "error: another process is at work on runs/tiny: wait for its end, or give this run a "
        "folder of its own by --set name=NAME\n"
    )
    outcomes.close()
    assert gan("data", "tiny.yaml").status == 0


@pytest.mark.mlflow
def test_train_alone_is_a_run_without_parent_in_which_it_goes_on(
    gan, here, mlflow_store, monkeypatch
):
    from mlflow import MlflowClient

    take = SweepTally.take

    def interrupt_at_50(tally, news):
        take(tally, news)
        if news.report["step"] == 50:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SweepTally, "take", interrupt_at_50)
        assert gan("train", "tiny.yaml").status == 1
    client = MlflowClient(tracking_uri=mlflow_store)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    (run,) = client.search_runs([experiment])
    assert (run.info.status, run.data.tags["gan.cause"]) == ("KILLED", "interrupted")

    answer = gan("train", "tiny.yaml", "--json")
    assert answer.status == 0
    (run,) = client.search_runs([experiment])
    assert run.info.run_id == json.loads(answer.out)["run_id"]
    assert run.info.status == "FINISHED"
    assert "mlflow.parentRunId" not in run.data.tags
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "d_loss")]
    assert sorted(steps) == [10, 20, 30, 40, 50, 60]
    generator = load(Path(json.loads(answer.out)["generator"]))
    assert generator.sampler().sample(2, 0).shape == (2, 1, 8, 8)


@pytest.mark.mlflow
def test_finished_training_is_not_done_again(gan, here, mlflow_store, monkeypatch):
    first = gan("train", "tiny.yaml", "--json")
    monkeypatch.setattr(SweepTally, "take", lambda tally, news: pytest.fail("it trains again"))
    second = gan("train", "tiny.yaml", "--json")
    assert second.out == first.out


@pytest.mark.mlflow
def test_interrupted_training_ends_as_one_that_was_not(gan, here, mlflow_store, monkeypatch):
    whole_run = json.loads(gan("train", "tiny.yaml", "--set", "name=whole", "--json").out)
    take = SweepTally.take

    def interrupt_at_30(tally, news):
        take(tally, news)
        if news.report["step"] == 30:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SweepTally, "take", interrupt_at_30)
        gan("train", "tiny.yaml")
    resumed = json.loads(gan("train", "tiny.yaml", "--json").out)
    weights = [
        (Path(result["generator"]) / "generator.safetensors").read_bytes()
        for result in (whole_run, resumed)
    ]
    assert weights[0] == weights[1]
    assert whole_run["frechet_distance_valid"] == resumed["frechet_distance_valid"]


@pytest.mark.mlflow
@pytest.mark.usefixtures("mlflow_store")
@pytest.mark.parametrize(
    ("objective", "best"), [("frechet_distance_valid", 40), ("parzen_ll_valid", 20)]
)
def test_train_keeps_the_generator_that_is_best_by_the_objective(
    gan, here, monkeypatch, objective, best
):
    distances, parzen = iter([70.0, 30.0, 50.0]), iter([-1.0, -2.0, -3.0])
    score = validation_module.score_samples

    def lower_and_lower(*args, **settings):
        scored = score(*args, **settings)
        likelihood = torch.full_like(scored.log_likelihood, next(parzen))
        return dataclasses.replace(scored, log_likelihood=likelihood)

    def distance(samples, validation):
        return {"frechet_distance_valid": next(distances), "frechet_distance_valid_se": 0.5}

    monkeypatch.setattr(validation_module, "score_samples", lower_and_lower)
    monkeypatch.setattr(validation_module, "feature_scores", distance)
    answer = gan("train", "tiny.yaml", "--set", f"sweep.objective={objective}", "--json")
    result = json.loads(answer.out)
    assert (result["best_step"], result[objective]) == (best, {40: 30.0, 20: -1.0}[best])
    (folder,) = (here / "runs" / "tiny" / "runs").iterdir()
    tensors = load_checkpoint(Ledger(folder).checkpoint_path(0, step=best)).tensors
    cfg = resolve("tiny.yaml").base
    pictures = [
        saved.sampler().sample(2, seed=0)
        for saved in (
            load(Path(result["generator"])),
            from_state(tensors, cfg, image_shape=(1, 8, 8)),
        )
    ]
    assert torch.equal(*pictures)


@pytest.mark.mlflow
def test_training_by_another_objective_is_another_training(gan, here, mlflow_store, monkeypatch):
    scores = {"frechet_distance_valid": 5.0, "frechet_distance_valid_se": 0.5}
    monkeypatch.setattr(validation_module, "feature_scores", lambda samples, validation: scores)
    results = [
        json.loads(gan("train", "tiny.yaml", "--set", f"sweep.objective={name}", "--json").out)
        for name in ("parzen_ll_valid", "frechet_distance_valid")
    ]
    assert results[0]["generator"] != results[1]["generator"]


def test_missing_test_files_of_a_published_set_are_told_before_anything_is_run(tmp_path):
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes(b"")
    config = load_config({"base": {"data": {"dataset": "fashion_mnist", "root": str(tmp_path)}}})
    with pytest.raises(DatasetError, match=r"data\.root must have .*, too: no .*t10k-images-idx3"):
        main_line.require_test_images(config)
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes(b"")
    main_line.require_test_images(config)
