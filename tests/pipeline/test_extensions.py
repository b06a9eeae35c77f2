"""What every extension promises as a part of the pipeline.  Kinds: contract, end to end.

One `gan run` trains all of them behind a generator; every test below looks at what it left.
"""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image

from gan.files import sha256
from pipeline.artifacts import MANIFEST, load_artifact, verify
from pipeline.extensions import EXTENSIONS as TOLD
from pipeline.extensions import config_within, extensions
from pipeline.products import product_of
from pipeline.settings import resolve
from tests.pipeline.commands import gan_process
from tests.pipeline.tiny_run import (
    N_EXTRACTOR_STEPS,
    N_VALID,
    write_extension,
    write_labelled_images,
    write_settings,
)

SECTIONS = {
    "conditional": {"conditional": {}},
    "inference": {"inference": {"hidden": [16], "reconstruction": 1.0}},
    "learned_prior": {"learned_prior": {"method": "stacked"}},
    "semi_supervised": {
        "semi_supervised": {
            "n_labels": 20,
            "hidden": [16, 16],
            "generator_hidden": [16],
            "init_from_data": False,
            "supervised_steps": 100,
        }
    },
    "shared_conditional": {
        "shared_conditional": {"encoder_channels": [4], "encoder_hidden": [16]}
    },
}
"""Extension -> what makes a run train it."""

ALL = pytest.mark.parametrize("task", SECTIONS)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1_200),  # all of them are run by whichever test comes first
    pytest.mark.ray,
    pytest.mark.mlflow,
    # MLflow's, at its first import, of type hints of its own.
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder in which `gan run` has been, with every extension."""
    folder = tmp_path_factory.mktemp("extensions")
    write_labelled_images(folder)
    write_settings(folder)
    for task, section in SECTIONS.items():
        write_extension(folder, f"own-{task}", section)
    files = ", ".join(f"own-{task}.yaml" for task in SECTIONS)
    settings = (
        f"extensions=[{files}]",
        f"data.n_valid={N_VALID}",
        f"evaluation.extractor_steps={N_EXTRACTOR_STEPS}",
    )
    command = ["run", "tiny.yaml", *(f"--set={setting}" for setting in settings), "--json"]
    answer = gan_process(*command, cwd=folder, timeout=900)
    assert answer.status == 0, answer.err
    return SimpleNamespace(
        folder=folder,
        command=command,
        uri=f"sqlite:///{folder / 'mlflow.db'}",
        answer=answer,
        result=json.loads(answer.out),
        told={
            extension["task"]: extension
            for extension in json.loads((folder / "runs/tiny/extend" / TOLD).read_text())
        },
    )


@pytest.fixture
def inside(whole, monkeypatch):
    """The working folder is that of the whole run."""
    monkeypatch.chdir(whole.folder)
    return whole


def artifact_of(whole, task):
    return whole.folder / "runs" / f"tiny-{task}" / "promote" / "generator"


def model_of(task):
    return f"tiny-{task.replace('_', '-')}"


def test_every_extension_of_the_package_is_in_this_suite():
    assert {resolve(name).base.task for name in extensions()} == set(SECTIONS)


@ALL
def test_extension_is_promoted_as_a_model_of_its_own(whole, task):
    told = whole.told[task]
    assert (told["outcome"], told["model"], told["version"]) == ("promoted", model_of(task), "1")
    assert whole.result["extensions"][task] == "promoted"
    assert whole.result["model"] == "tiny-generator"
    manifest = verify(artifact_of(whole, task))
    assert manifest.lineage.sweep.startswith(f"tiny-{task}-")


@ALL
def test_extension_has_the_images_and_the_seed_of_the_run_that_it_is_a_part_of(inside, task):
    parent = resolve("tiny.yaml", ["seed=7", "data.n_valid=90"])
    config = config_within(parent, f"own-{task}.yaml")
    assert (config.base.data, config.base.seed) == (parent.base.data, 7)
    assert config.base.task == task
    assert config.promote.limits == resolve(f"own-{task}.yaml").promote.limits


@ALL
def test_run_of_an_extension_is_in_mlflow_with_its_checkpoints_and_evaluation(whole, task):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=whole.uri)
    manifest = verify(artifact_of(whole, task))
    run = client.get_run(manifest.lineage.run_id)
    assert run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == f"tiny-{task}"
    told = whole.told[task]["scores"].keys()
    assert told
    assert {*told, "images_seen"} <= run.data.metrics.keys()
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"checkpoints", "evaluation", "images"} <= files


@ALL
def test_report_shows_each_extension_with_its_picture(whole, task):
    page = (whole.folder / whole.result["report"]).read_text()
    assert 'id="extensions-title"' in page
    assert f"<code>{model_of(task)}</code> version 1" in page
    assert (whole.folder / "runs/tiny/extend" / f"{task}.png").is_file()


def test_again_nothing_is_run(whole):
    again = gan_process(*whole.command, cwd=whole.folder)
    assert again.status == 0, again.err
    for stage in ("sweep", "evaluate", "promote", "extend", "report"):
        assert f"{stage:<9} unchanged" in again.err


@ALL
def test_another_extension_leaves_the_generator_as_it_is(inside, gan, task):
    write_extension(inside.folder, "other", SECTIONS[task] | {"seed": 3})
    *command, _ = inside.command
    answer = gan(*command, "--set", "extensions=[other.yaml]", "--dry-run", "--json")
    plan = json.loads(answer.out)["stages"]
    assert [stage for stage, what in plan.items() if what == "run"] == ["data", "extend", "report"]


# What was promoted


@ALL
def test_extension_is_fetched_sampled_and_evaluated_by_its_name(inside, gan, task, tmp_path):
    fetched = tmp_path / "fetched"
    assert gan("fetch", model_of(task), str(fetched)).status == 0
    assert sha256(fetched / MANIFEST) == sha256(artifact_of(inside, task) / MANIFEST)
    for source in (str(fetched), f"{model_of(task)}@champion"):
        answer = gan("sample", source, "-n", "5", "--seed", "3", "-o", str(tmp_path / "x.npy"))
        assert answer.status == 0, answer.err
        expected = load_artifact(fetched).sampler().sample(5, 3).numpy()
        assert_allclose(np.load(tmp_path / "x.npy"), expected, rtol=0, atol=0)
    answer = gan("evaluate", model_of(task), "--no-log", "--json")
    assert answer.status == 0, answer.err
    is_judged_by_images = product_of(load_artifact(fetched).config).is_judged_by_images
    assert json.loads(answer.out)["n_samples"] == (200 if is_judged_by_images else 0)


@ALL
def test_model_card_and_onnx_are_of_the_extension(whole, task):
    folder = artifact_of(whole, task)
    card = (folder / "README.md").read_text()
    assert task in card.lower()
    for line in card.splitlines():
        assert "{{" not in line
        assert "{%" not in line


def test_altered_weights_are_refused(whole, gan, tmp_path):
    folder = shutil.copytree(artifact_of(whole, "conditional"), tmp_path / "altered")
    (weights,) = folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    answer = gan("sample", str(folder), "-o", str(tmp_path / "x.npy"))
    assert answer.status == 1
    assert "was altered" in answer.err
    assert not (tmp_path / "x.npy").exists()


# The conditional GAN


@pytest.fixture(scope="module")
def served(whole):
    import mlflow.pyfunc

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", whole.uri)
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        patch.chdir(whole.folder)
        yield mlflow.pyfunc.load_model("models:/tiny-conditional@champion")


def test_asked_for_a_class_the_command_draws_that_class(inside, gan, tmp_path):
    output = tmp_path / "x.npy"
    arguments = ("-n", "4", "--seed", "3", "--condition", "1", "-o", str(output))
    assert gan("sample", "tiny-conditional", *arguments).status == 0
    saved = load_artifact(artifact_of(inside, "conditional"))
    expected = saved.sampler().sample_given(saved.condition_rows([1]).expand(4, -1), seed=3)
    assert_allclose(np.load(output), expected.numpy(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("model", "condition", "problem"),
    [
        ("tiny-conditional", "2", "--condition: the condition must be a class from 0 to 1, got 2"),
        ("tiny-conditional", "0,1", "the condition must be a class from 0 to 1, got 0, 1"),
        ("tiny-conditional", "seven", "--condition takes numbers, got 'seven'"),
        ("tiny-generator", "1", "this model takes no condition: leave out --condition"),
    ],
)
def test_what_is_no_condition_is_refused_and_nothing_written(
    inside, gan, model, condition, problem
):
    output = inside.folder / "refused.npy"
    answer = gan("sample", model, "--condition", condition, "-o", str(output))
    assert answer.status == 2
    assert problem in answer.err
    assert not output.exists()


def test_served_model_draws_the_images_that_the_command_draws(whole, served):
    rows = pd.DataFrame({"n": [2, 1], "seed": [3, 4], "condition": [0, 1]})
    saved = load_artifact(artifact_of(whole, "conditional"))
    expected = [
        saved.sampler().sample_given(saved.condition_rows([k]).expand(n, -1), seed).numpy()
        for n, seed, k in ((2, 3, 0), (1, 4, 1))
    ]
    assert_allclose(served.predict(rows), np.concatenate(expected), rtol=0, atol=0)
    columns = [column.name for column in served.metadata.signature.inputs]
    assert columns == ["n", "seed", "condition"]


def test_served_model_refuses_a_class_that_there_is_not(served):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="a class from 0 to 1, got 5") as refusal:
        served.predict(pd.DataFrame({"n": [1], "seed": [0], "condition": [5]}))
    assert refusal.value.get_http_status_code() == 400


def test_onnx_draws_what_the_net_draws(whole):
    folder = artifact_of(whole, "conditional")
    saved = load_artifact(folder)
    z = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    condition = saved.G.conditions.rows[[0, 1, 0, 1, 1]]
    session = onnxruntime.InferenceSession(folder / "generator.onnx")
    (images,) = session.run(["images"], {"z": z.numpy(), "condition": condition.numpy()})
    expected = saved.sampler().decode(z, condition)
    assert_allclose(images, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_conditional_gan_is_scored_by_the_classes_it_was_asked_for(whole):
    scores = whole.told["conditional"]["scores"]
    lowest, mean = (scores[f"condition_accuracy{end}_valid"] for end in ("_lowest", ""))
    assert 0 <= lowest <= mean <= 1
    assert "parzen_ll_test_balanced" in scores


def test_vectors_are_conditions_too(whole, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # that of the served model
    folder = shutil.copytree(
        whole.folder, tmp_path / "vectors", ignore=shutil.ignore_patterns("runs", "mlflow.db")
    )
    section = {"conditional": {"on": "vectors"}}
    write_extension(folder, "vectors", section)
    answer = gan_process("extend", "vectors.yaml", "--json", cwd=folder)
    assert answer.status == 0, answer.err
    output = folder / "x.npy"
    command = ("sample", "vectors", "-n", "3", "--condition", "0.5,0.5", "-o", str(output))
    assert gan_process(*command, cwd=folder).status == 0
    assert np.load(output).shape == (3, 1, 8, 8)
    refused = gan_process("sample", "vectors", "--condition", "1", "-o", "y.npy", cwd=folder)
    assert refused.status == 2
    assert "the condition must be 2 finite numbers, got 1" in refused.err
    assert not os.path.exists(folder / "y.npy")
    import mlflow.pyfunc

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    model = mlflow.pyfunc.load_model(client.get_model_version_download_uri("vectors", "1"))
    rows = pd.DataFrame({"n": [3], "seed": [0], "condition": [[0.5, 0.5]]})
    assert_allclose(model.predict(rows), np.load(output), rtol=0, atol=0)


# The shared model of all conditionals


@pytest.fixture
def image_files(inside, tmp_path):
    """An image of a bar, and two masks, of which one is too wide."""
    image = np.zeros((8, 8), np.uint8)
    image[:, 3:5] = 200
    Image.fromarray(image).save(tmp_path / "bar.png")
    np.save(tmp_path / "mask.npy", np.tri(8))
    np.save(tmp_path / "wide.npy", np.ones((8, 9)))
    np.save(tmp_path / "bright.npy", np.full((8, 8), 3.0))
    return tmp_path


@pytest.mark.parametrize("mask", ["left_half", "mask.npy"])
def test_the_command_completes_an_image(inside, gan, image_files, mask):
    mask = str(image_files / mask) if mask.endswith(".npy") else mask
    output = image_files / "x.npy"
    arguments = ("--image", str(image_files / "bar.png"), "--mask", mask, "-n", "3")
    command = ("sample", "tiny-shared-conditional", *arguments, "-o", str(output))
    assert gan(*command).status == 0
    found = np.load(output)
    assert found.shape == (3, 1, 8, 8)
    visible = np.tri(8) if mask.endswith(".npy") else np.repeat([1, 0], 4) * np.ones((8, 8))
    image = np.asarray(Image.open(image_files / "bar.png")) / np.float32(255)
    assert_allclose(found[:, 0] * visible, np.broadcast_to(image * visible, (3, 8, 8)), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--condition", "2"), "must be a class from 0 to 1, got 2"),
        (("--mask", "left_half"), "a mask that shows pixels needs an image"),
        (("--image", "bar.png"), "an image needs a mask"),
        (("--image", "bar.png", "--mask", "middle"), "mask must be one of left_half"),
        (("--image", "bar.png", "--mask", "wide.npy"), "must be of the shape of an image"),
        (("--image", "wide.npy", "--mask", "left_half"), "must be of the data set's size"),
        (("--image", "bright.npy", "--mask", "left_half"), "floats must lie in [0, 1]"),
    ],
)
def test_what_cannot_be_completed_is_refused_and_nothing_written(
    inside, gan, image_files, arguments, problem
):
    given = [
        str(image_files / text) if text.endswith((".png", ".npy")) else text for text in arguments
    ]
    output = image_files / "refused.npy"
    answer = gan("sample", "tiny-shared-conditional", *given, "-o", str(output))
    assert answer.status == 2
    assert problem in answer.err
    assert not output.exists()


def test_served_shared_model_completes(whole, monkeypatch):
    import mlflow.pyfunc

    monkeypatch.setenv("MLFLOW_TRACKING_URI", whole.uri)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.chdir(whole.folder)
    model = mlflow.pyfunc.load_model("models:/tiny-shared-conditional@champion")
    image = np.linspace(0, 1, 64)
    asked = {"n": [2], "seed": [3], "condition": [1], "image": [image], "mask": ["top_half"]}
    found = model.predict(pd.DataFrame(asked))
    expected = np.broadcast_to(image.reshape(8, 8)[:4], (2, 1, 4, 8))
    assert_allclose(found[:, :, :4], expected, rtol=1e-6)
    columns = [column.name for column in model.metadata.signature.inputs]
    assert columns == ["n", "seed", "condition", "image", "mask"]
