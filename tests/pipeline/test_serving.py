"""The champion as MLflow loads and serves it, where pickles are not allowed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests
from numpy.testing import assert_allclose

import pipeline
from pipeline.registry import register
from tests.pipeline.tiny_artifacts import SHAPE, tiny_generator, write_tiny

pytestmark = pytest.mark.mlflow


@pytest.fixture(scope="module")
def champion(mlflow_tables, tmp_path_factory):
    """`models:/tiny@champion`, in the store that MLflow uses when none is named."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("serving")
    uri = f"sqlite:///{shutil.copy(mlflow_tables, folder)}"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("tiny", artifact_location=str(folder / "stored"))
    run_id = client.create_run(experiment).info.run_id
    write_tiny(folder / "artifact")
    register(uri, model="tiny", artifact=folder / "artifact", run_id=run_id, replaces=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        yield "models:/tiny@champion"


@pytest.fixture(scope="module")
def model(champion):
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(champion)


def images(n: int, seed: int) -> np.ndarray:
    return tiny_generator().sampler().sample(n, seed).numpy()


def test_loaded_model_draws_the_images_of_its_generator(model):
    drawn = model.predict(pd.DataFrame({"n": [3], "seed": [7]}))
    assert drawn.dtype == np.float32
    assert_allclose(drawn, images(3, 7), rtol=0, atol=0)


def test_images_of_several_rows_follow_one_another(model):
    drawn = model.predict(pd.DataFrame({"n": [2, 1], "seed": [7, 8]}))
    expected = np.concatenate([images(2, 7), images(1, 8)])
    assert_allclose(drawn, expected, rtol=0, atol=0)


def test_signature_states_rows_and_images(model):
    signature = model.metadata.signature
    assert [column.name for column in signature.inputs] == ["n", "seed"]
    (output,) = signature.outputs
    assert (output.type, output.shape) == (np.dtype("float32"), (-1, *SHAPE))
    assert model.input_example == {"n": [2], "seed": [0]}


def test_seed_below_zero_is_refused(model):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=r"each seed must be >= 0, got \[-1\]") as refusal:
        model.predict(pd.DataFrame({"n": [1], "seed": [-1]}))
    assert refusal.value.get_http_status_code() == 400


@pytest.mark.parametrize("n", [[0], [-1], [1001], [500, 501], []])
def test_number_of_images_has_limits(model, n):
    from mlflow.exceptions import MlflowException

    rows = pd.DataFrame({"n": n, "seed": [0] * len(n)}, dtype="int64")
    with pytest.raises(MlflowException, match="all of them together <= 1,000, got ") as caught:
        model.predict(rows)
    assert caught.value.get_http_status_code() == 400


@pytest.mark.slow
def test_served_champion_answers_over_http(champion, tmp_path):
    with served(champion, log=tmp_path / "serve.log") as url:
        rows = [{"n": 2, "seed": 7}, {"n": 1, "seed": 8}]
        answer = requests.post(url, json={"dataframe_records": rows}, timeout=60)
        assert answer.status_code == 200
        expected = np.concatenate([images(2, 7), images(1, 8)])
        assert_allclose(answer.json()["predictions"], expected, rtol=0, atol=1e-7)

        too_many = {"dataframe_records": [{"n": 5000, "seed": 7}]}
        answer = requests.post(url, json=too_many, timeout=60)
        assert answer.status_code == 400
        assert "all of them together <= 1,000, got [5000]" in answer.json()["message"]


@contextmanager
def served(model_uri: str, *, log: Path) -> Iterator[str]:
    """URL of `mlflow models serve` as a user would start it, with this checkout on its path."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = ["models", "serve", "-m", model_uri, "--env-manager", "local", "-p", port]
    scripts = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(pipeline.__file__).parents[1]),
    }
    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        try:
            wait_until_up(f"http://127.0.0.1:{port}/ping", process, log)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    pytest.fail(f"the server did not come up:\n{log.read_text()}")
