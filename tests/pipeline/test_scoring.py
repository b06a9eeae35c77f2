"""The suite on a file or a generator, by the command and below it.

Kinds: independent reference (loops in NumPy), invariance, contract.
"""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from gan.config import BUILT_IN, load_config
from gan.errors import CheckpointError, ConfigError, DatasetError, ScoreError
from gan.evaluation.ais import AisSettings
from gan.evaluation.parzen import FINE_GRID, PAPER_GRID
from gan.randomness import stream_seed
from pipeline import evaluation, scoring
from pipeline.errors import ArtifactError, ArtifactNotFound, PipelineError
from pipeline.registry import register
from pipeline.scoring import Request, score_file, score_generator
from tests.gan.oracles import parzen_log_likelihood
from tests.pipeline.tiny_artifacts import LINEAGE, SCORES
from tests.pipeline.tiny_generators import untrained, write_checkpoint, write_folder
from tests.pipeline.tiny_run import SETTINGS, bright_squares
from tests.tuning.stored_runs import stored_runs
from tuning.errors import TrackingError

TINY = ("--dataset", "train.npz", "--n-valid", "100", "--test-path", "test.npz")
QUICK_NET = ("--set", "evaluation.extractor_steps=20")
QUICK = AisSettings(n_chains=4, n_temperatures=5, n_leapfrog=2)
KEPT = ["checks.json", "evaluation.json", "pictures"]


@pytest.fixture
def samples(here):
    """Images [120, 8, 8] uint8 in samples.npy."""
    images = bright_squares(120, 3)
    np.save(here / "samples.npy", images)
    return images


@pytest.fixture
def generator(here):
    """A saved generator in `net`."""
    return write_folder(here / "net", untrained())


def request(source="samples.npy", **changes):
    fields = {"source": source, "split": "valid", "is_logged": False}
    return Request(**fields | changes)


def judge_file(file="samples.npy", **changes):
    return score_file(Path(file), load_config(SETTINGS), request(str(file), **changes))


def judge(target="net", *assignments, n_likelihood_images=0, **changes):
    return score_generator(
        str(target),
        request(str(target), **changes),
        assignments=assignments,
        n_likelihood_images=n_likelihood_images,
        ais=QUICK,
    )


def values(judged):
    return {name: dataclasses.astuple(score) for name, score in judged.evaluation.scores.items()}


def is_finite(value):
    """Whether no number within JSON values is NaN or infinite."""
    if isinstance(value, dict | list):
        return all(map(is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def answer_of(line):
    return json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def the_line(answer, *, status=1):
    """The one line of an error."""
    assert answer.status == status
    (line,) = answer.err.splitlines()
    return line


# Samples in a file


def unit_rows(images):
    return images.reshape(len(images), -1) / 255


def expected_score(images, valid, samples, grid):
    """Log-likelihoods of `images` by the width that is best on the first 50 of `valid`."""
    rows = [unit_rows(part) for part in (images, valid[:50], samples)]
    means = [parzen_log_likelihood(rows[1], rows[2], sigma).mean() for sigma in grid]
    sigma = grid[int(np.argmax(means))]
    return parzen_log_likelihood(rows[0], rows[2], sigma), sigma


@pytest.mark.parametrize("split", ["valid", "test"])
def test_parzen_scores_are_those_of_the_protocol(here, samples, split):
    valid = bright_squares(400, 1)[-100:]
    images = valid if split == "valid" else bright_squares(120, 2)
    found = judge_file(split=split).evaluation
    for grid, name in ((PAPER_GRID, "parzen_ll"), (FINE_GRID, "parzen_ll_fine")):
        expected, sigma = expected_score(images, valid, samples, grid)
        # The file holds bytes, which become float32.
        assert_allclose(found.scores[name].value, expected.mean(), rtol=1e-4, atol=0)
        if grid is PAPER_GRID:
            assert_allclose(found.details["parzen"]["sigma"], sigma, rtol=1e-12, atol=0)
    assert found.n_samples == 120


def test_scores_do_not_depend_on_the_form_of_the_file(here, samples):
    np.savez(here / "samples.npz", samples=samples)
    column = pa.array([image.tobytes() for image in samples], pa.binary(64))
    schema = pa.schema([("image", column.type)], metadata={"image_shape": "8x8"})
    pq.write_table(pa.table([column], schema=schema), here / "samples.parquet")
    (here / "pictures").mkdir()
    for i, image in enumerate(samples):
        Image.fromarray(image).save(here / "pictures" / f"{i:03d}.png")
    first, *others = (
        values(judge_file(name))
        for name in ("samples.npy", "samples.npz", "samples.parquet", "pictures")
    )
    assert first["precision"]
    assert others == [first] * 3


@pytest.mark.mlflow
def test_scores_depend_neither_on_the_folder_to_keep_nor_on_the_log(mlflow_store, here, samples):
    plain = judge_file()
    assert values(judge_file(keep=here / "kept")) == values(plain)
    assert values(judge_file(is_logged=True)) == values(plain)
    assert judge_file().checks == plain.checks


def test_test_images_are_not_opened_for_the_score_on_validation_images(here, samples, monkeypatch):
    opened = []
    monkeypatch.setattr(evaluation, "load_test", opened.append)
    judge_file()
    assert opened == []


def test_folder_has_scores_verdicts_and_pictures(here, samples):
    judged = judge_file(keep=here / "new" / "kept")
    kept = here / "new" / "kept"
    assert sorted(path.name for path in kept.iterdir()) == KEPT
    assert sorted(path.name for path in (kept / "pictures").iterdir()) == [
        "nearest.png",
        "samples.png",
    ]
    verdicts = json.loads((kept / "checks.json").read_text())
    assert verdicts == [dataclasses.asdict(check) for check in judged.checks]
    record = answer_of((kept / "evaluation.json").read_text())
    assert record["scores"].keys() == judged.evaluation.scores.keys()
    assert record["extractor"]["name"] == "autoencoder"


@pytest.mark.parametrize("taken", ["folder", "file", "link"])
def test_folder_that_is_taken_is_refused_before_anything_is_scored(
    here, samples, taken, monkeypatch
):
    keep = here / "kept"
    if taken == "folder":
        keep.mkdir()
        (keep / "mine.txt").write_text("mine")
    elif taken == "file":
        keep.write_text("mine")
    else:
        keep.symlink_to(here / "nowhere")
    monkeypatch.setattr(scoring, "real_images", pytest.fail)
    with pytest.raises(PipelineError, match=r"kept must be a new or an empty folder"):
        judge_file(keep=keep)
    assert keep.is_symlink() or keep.exists()


def test_empty_folder_is_taken(here, samples):
    (here / "kept").mkdir()
    judge_file(keep=here / "kept")
    assert sorted(path.name for path in (here / "kept").iterdir()) == KEPT


def test_too_few_samples_leave_scores_out_and_say_so(here):
    np.save(here / "few.npy", bright_squares(12, 3))
    judged = judge_file("few.npy")
    assert {"parzen", "frechet", "two_sample"} <= judged.evaluation.unavailable.keys()
    assert "at least 65 points, got 12" in judged.evaluation.unavailable["frechet"]
    assert "precision" in judged.evaluation.scores


@pytest.mark.parametrize(
    ("images", "kind", "message"),
    [
        (
            np.zeros((5, 8, 9), np.uint8),
            DatasetError,
            r"bad\.npy: samples must have the shape of the images of train\.npz, \[1, 8, 8\], "
            r"got \[1, 8, 9\]",
        ),
        (np.full((50, 8, 8), 7, np.uint8), ScoreError, "samples must be distinct images"),
        (np.full((50, 8, 8), np.nan), DatasetError, r"bad\.npy: .* must lie in \[0, 1\], got nan"),
        (np.full((50, 8, 8), 1.5), DatasetError, r"bad\.npy: .* must lie in \[0, 1\], got"),
    ],
    ids=["shape", "constant", "nan", "range"],
)
def test_samples_that_cannot_be_scored_are_refused(here, images, kind, message):
    np.save(here / "bad.npy", images)
    with pytest.raises(kind, match=message):
        judge_file("bad.npy")


# A generator


def test_every_form_of_a_generator_comes_to_the_same_scores(here, generator):
    checkpoint = write_checkpoint(here / "checkpoints", untrained(), best={"step": 7})
    of_folder, of_checkpoint = judge(generator), judge(checkpoint)
    assert values(of_folder)["path_length_pixels_straight"]
    assert values(of_checkpoint) == values(of_folder)


def test_samples_are_those_of_the_stage_evaluate(here, generator, monkeypatch):
    seen = {}

    def look(samples, real, *, seed):
        seen.update(samples=samples, seed=seed)
        raise ScoreError("seen enough")

    monkeypatch.setattr(scoring, "evaluate", look)
    for assignments, seed in (((), 0), (["seed=4"], 4)):
        with pytest.raises(ScoreError, match="seen enough"):
            judge(generator, *assignments)
        expected = stream_seed(seed, "evaluate") % 2**31
        assert seen["seed"] == expected
        assert (seen["samples"] == untrained().sampler().sample(200, seed=expected)).all()


def test_pictures_of_a_generator_have_its_paths(here, generator):
    judge(generator, keep=here / "kept")
    names = sorted(path.name for path in (here / "kept" / "pictures").iterdir())
    assert names == ["nearest.png", "samples.png", "spherical.png", "straight.png"]


def test_settings_of_the_evaluation_can_be_others(here, generator):
    found = judge(generator, "evaluation.n_samples=150").evaluation
    assert found.n_samples == 150
    assert "at least 200 points, got 150" in found.unavailable["distinct"]


def test_settings_of_the_training_stay(here, generator):
    with pytest.raises(ConfigError, match="prior is what the generator was trained with"):
        judge(generator, "prior.kind=gaussian")
    with pytest.raises(ConfigError, match=r"train.*generator|generator.*train"):
        judge(generator, "train.n_steps=80", "generator.hidden=[16, 16]")


def test_limits_of_the_checks_can_be_others(here, generator):
    assert "precise" in judge(generator).summary()["refused_by"]
    lenient = judge(generator, "promote.limits.min_precision=0")
    assert "precise" not in lenient.summary()["refused_by"]


def test_features_of_the_users_own_are_scored(here, generator, monkeypatch):
    (here / "left_columns.py").write_text(
        "def left(images):\n    return images[..., :3].flatten(1)"
    )
    monkeypatch.syspath_prepend(here)
    own = judge(generator, "evaluation.extractor=left_columns:left", keep=here / "kept")
    record = json.loads((here / "kept" / "evaluation.json").read_text())
    assert record["extractor"]["name"] == "left_columns:left"
    assert not list(here.glob("runs/.extractors/*"))  # no net was trained
    assert values(own)["frechet_distance"] != values(judge(generator))["frechet_distance"]


def test_files_that_lie_elsewhere_now_are_asked_for_by_their_setting(here, generator):
    (here / "train.npz").rename(here / "moved.npz")
    with pytest.raises(DatasetError, match=r"data.dataset is train\.npz; name their place by"):
        judge(generator)
    (here / "test.npz").unlink()
    moved = "data.dataset=moved.npz"
    with pytest.raises(DatasetError, match=r"test_path is test\.npz; .* --set data\.test_path="):
        judge(generator, moved, split="test")
    assert judge(generator, moved).evaluation.n_samples == 200


@pytest.mark.parametrize("name", BUILT_IN)
def test_data_set_that_comes_with_the_package_is_no_file(here, generator, name, monkeypatch):
    def look(data):
        raise DatasetError(f"{data.dataset} was asked for")

    monkeypatch.setattr(scoring, "load_train_valid", look)
    with pytest.raises(DatasetError, match=f"{name} was asked for"):
        judge(generator, f"data.dataset={name}", "data.test_path=null", split="test")


def test_log_likelihood_that_cannot_be_had_is_refused_before_anything_is_scored(
    here, generator, monkeypatch
):
    coins = write_folder(here / "coins", untrained("prior.kind=bernoulli"))
    monkeypatch.setattr(scoring, "evaluate", pytest.fail)
    with pytest.raises(ScoreError, match=r"prior with a smooth density: .*; got Bernoulli of 8"):
        judge(coins, n_likelihood_images=4)
    with pytest.raises(ScoreError, match=r"90 images .* need 110 in the split, got 100"):
        judge(generator, n_likelihood_images=90)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("state.safetensors", "has another SHA-256"),
        ("state.json", "has another SHA-256"),
        ("manifest.json", "is damaged"),
    ],
)
def test_damaged_checkpoint_is_refused(here, file, message):
    folder = write_checkpoint(here / "checkpoints", untrained())
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=message):
        judge(folder)
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=f"is damaged: .*{file}"):
        judge(folder)


def test_folder_of_something_else_is_refused(here):
    with pytest.raises(PipelineError, match=r"holds neither a checkpoint .* nor a generator"):
        judge(here)


def test_file_is_no_generator(here, samples):
    with pytest.raises(PipelineError, match=r"`gan score samples\.npy` scores samples"):
        judge("samples.npy")


def test_folder_that_is_not_there_is_named(here):
    with pytest.raises(ArtifactNotFound, match="there is no folder no/such/folder"):
        judge("no/such/folder")


@pytest.mark.parametrize("target", ["0" * 32, "nobody", "nobody@champion", "nobody/3"])
def test_asking_for_what_is_not_there_makes_no_store(here, target):
    with pytest.raises(ArtifactNotFound, match=f"there is no (run {target}|version of 'nobody')"):
        judge(target)
    assert not (here / "mlflow.db").exists()


# MLflow


@pytest.fixture
def trained(mlflow_store, here):
    """A run of MLflow that has a checkpoint, and one that has none."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_store)
    with_checkpoint, without = (client.create_run("0").info.run_id for _ in range(2))
    folder = write_checkpoint(here / "checkpoints", untrained())
    client.log_artifacts(with_checkpoint, str(folder), "checkpoints/best")
    return with_checkpoint, without


@pytest.mark.mlflow
def test_run_of_a_trial_is_scored_by_its_best_checkpoint(trained, here, generator):
    run_id, without = trained
    assert values(judge(run_id)) == values(judge(generator))
    with pytest.raises(
        TrackingError, match=f"run {without} has no checkpoint in checkpoints/best"
    ):
        judge(without)
    with pytest.raises(ArtifactNotFound, match=f"there is no run {'0' * 32} in MLflow's store"):
        judge("0" * 32)


@pytest.mark.slow
@pytest.mark.mlflow
def test_promoted_generator_and_its_artifact_are_scored(trained, mlflow_store, here, generator):
    from pipeline.artifacts import write_artifact

    artifact = here / "artifact"
    write_artifact(artifact, saved=untrained(), scores=SCORES, lineage=LINEAGE)
    register(mlflow_store, model="tiny", artifact=artifact, run_id=trained[0], replaces=None)
    expected = values(judge(generator))
    for target in (artifact, "tiny", "tiny@champion", "tiny/1"):
        assert values(judge(target)) == expected
    with pytest.raises(ArtifactNotFound, match="'tiny' has no version 2"):
        judge("tiny/2")
    (artifact / "samples.png").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"was altered: samples\.png"):
        judge(artifact)


@pytest.mark.mlflow
def test_log_has_every_score_the_verdicts_and_the_pictures(mlflow_store, here, generator):
    judged = judge(generator, is_logged=True, split="test")
    (run,) = stored_runs(here / "mlflow.db", kind="evaluation")
    assert (run.run_id, run.status) == (judged.run_id, "FINISHED")
    assert run.steps == {name: [0] for name in judged.summary() if name.endswith(("_test", "_se"))}
    assert run.steps.keys() >= {
        "precision_test",
        "precision_test_se",
        "path_speed_features_straight_test",
    }
    refused_by = judged.summary()["refused_by"]
    assert refused_by
    assert run.params | {"extractor_digest": ""} == {
        "source": str(generator),
        "dataset": "train.npz",
        "split": "test",
        "n_samples": "200",
        "extractor": "autoencoder",
        "extractor_digest": "",
        "refused_by": ", ".join(refused_by),
    }
    assert sorted(path.name for path in run.artifacts.iterdir()) == KEPT
    assert len(list((run.artifacts / "pictures").iterdir())) == 4


@pytest.mark.mlflow
def test_folder_is_kept_where_the_log_fails(mlflow_store, here, samples, monkeypatch):
    from mlflow import MlflowClient

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(MlflowClient, "log_artifacts", fail)
    with pytest.raises(TrackingError, match="cannot be used: disk full"):
        judge_file(is_logged=True, keep=here / "kept")
    (run,) = stored_runs(here / "mlflow.db", kind="evaluation")
    assert run.status == "FAILED"
    assert sorted(path.name for path in (here / "kept").iterdir()) == KEPT


def test_store_that_is_away_is_noticed_before_anything_is_scored(here, samples, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here / 'train.npz'}")
    monkeypatch.setattr(scoring, "evaluate", pytest.fail)
    with pytest.raises(TrackingError, match=r"cannot be used: .*not a database"):
        judge_file(is_logged=True)


# The commands


def test_command_scores_a_file_and_leaves_no_store(gan, here, samples):
    answer = gan("score", "samples.npy", *TINY, *QUICK_NET, "--no-log", "--json")
    assert answer.status == 0
    (line,) = answer.out.splitlines()
    shown = answer_of(line)
    assert is_finite(shown)
    assert shown["run_id"] is None
    assert not (here / "mlflow.db").exists()
    for name in ("precision", "parzen_ll"):
        (row,) = (r for r in answer.err.splitlines() if r.startswith((f"{name} ", f"{name}, ")))
        assert f"{shown[f'{name}_valid']:.4g}" in row
        assert " to " in row


def test_command_scores_a_generator_with_its_likelihood(gan, here, generator):
    options = ("--ais", "3", "--ais-temperatures", "5", "--no-log", "--json", "--split", "test")
    answer = gan("evaluate", "net", *options, "-o", "kept")
    shown = answer_of(answer.out)
    assert is_finite(shown)
    assert shown["ais_ll_lower_test"] <= shown["ais_ll_upper_test"]
    assert shown["details"]["log_likelihood"]["n_images"] == 3
    assert is_finite(answer_of((here / "kept" / "evaluation.json").read_text()))


def test_command_says_what_is_wrong_in_one_line(gan, here, samples, generator):
    np.save(here / "constant.npy", np.zeros((30, 8, 8), np.uint8))
    log = "--no-log"
    assert "distinct images" in the_line(gan("score", "constant.npy", *TINY, *QUICK_NET, log))
    assert "no run" in the_line(gan("evaluate", "0" * 32, log))
    assert "no version of 'nobody'" in the_line(gan("evaluate", "nobody@champion", log))
    assert "neither a checkpoint" in the_line(gan("evaluate", ".", log))
    assert "new or an empty" in the_line(gan("evaluate", "net", log, "-o", "net"))
    wrong = ("--set", "evaluation.extractor=nowhere:f")
    assert "nowhere cannot be imported" in the_line(gan("evaluate", "net", log, *wrong), status=2)
    assert "trained with" in the_line(
        gan("evaluate", "net", log, "--set", "seed=1", "--set", "prior.dim=9"), status=2
    )
    assert not list(here.glob("mlflow*"))


def test_a_model_that_no_images_judge_has_its_own_scores_alone(here, generator, monkeypatch):
    product = scoring.product_of(untrained().config)
    own = dataclasses.replace(product, is_judged_by_images=False)
    monkeypatch.setattr(scoring, "product_of", lambda config: own)
    kept = here / "kept"
    judged = score_generator("net", request("net", keep=kept), assignments=[], ais=QUICK)
    assert (judged.evaluation.scores, judged.evaluation.n_samples) == ({}, 0)
    assert judged.checks == ()
    assert list((kept / "pictures").iterdir()) == []
