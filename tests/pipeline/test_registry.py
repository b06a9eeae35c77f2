"""The registry on a real store: who is champion, what is fetched, and what goes wrong."""

import contextlib
import errno
import json
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.testing import assert_close

from gan.files import sha256
from pipeline import registry
from pipeline.artifacts import load_artifact, verify
from pipeline.errors import ArtifactError, ArtifactNotFound, PipelineError
from pipeline.registry import (
    current_champion,
    download,
    fetch,
    find_version,
    has_run,
    is_registered,
    register,
)
from tests.pipeline.tiny_artifacts import tiny_generator, write_tiny
from tuning.errors import StoreUnavailableError, TrackingError

pytestmark = pytest.mark.mlflow


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Two artifacts of different weights."""
    folder = tmp_path_factory.mktemp("artifacts")
    for seed in (0, 1):
        write_tiny(folder / str(seed), seed=seed)
    return folder


@pytest.fixture
def elsewhere(tmp_path):
    """A working folder whose default store nobody should touch."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.fixture
def store(mlflow_store, tmp_path, elsewhere, monkeypatch):
    """A store with one run, and its files under `tmp_path`; not the default of the folder."""
    from mlflow import MlflowClient

    monkeypatch.chdir(elsewhere)

    client = MlflowClient(tracking_uri=mlflow_store)
    experiment = client.create_experiment("tiny", artifact_location=str(tmp_path / "stored"))
    run_id = client.create_run(experiment).info.run_id
    client.log_param(run_id, "train.n_steps", 40)
    return SimpleNamespace(
        uri=mlflow_store, client=client, run_id=run_id, files=tmp_path / "stored"
    )


@pytest.fixture
def promote(store, artifacts):
    """Register artifact 0 or 1 in place of the present champion."""

    def promote(seed):
        return register(
            store.uri,
            model="tiny",
            artifact=artifacts / str(seed),
            run_id=store.run_id,
            replaces=current_champion(store.uri, "tiny"),
        )

    return promote


def stored(store, name):
    """The one file of that name in the artifact store."""
    (path,) = store.files.rglob(name)
    return path


def test_model_without_versions_has_no_champion(store):
    assert current_champion(store.uri, "tiny") is None


def test_first_promotion_makes_version_1_champion(store, promote, artifacts):
    first = promote(0)
    manifest = verify(artifacts / "0")
    assert (first.version, first.run_id) == ("1", store.run_id)
    assert first.weights_sha256 == manifest.weights_sha256
    assert current_champion(store.uri, "tiny") == first

    version = store.client.get_model_version_by_alias("tiny", "champion")
    assert version.status == "READY"
    assert version.tags["gan.manifest_sha256"] == sha256(artifacts / "0" / "manifest.json")
    assert version.tags["gan.parzen_ll_valid"] == "201.25"
    assert version.tags["gan.parzen_ll_valid_se"] == "1.5"
    assert "gan.previous_champion" not in version.tags


def test_of_two_who_promote_at_once_one_wins_and_the_other_is_told(store, artifacts, monkeypatch):
    """Both have asked who is champion before either has moved the alias, if they can."""
    both_have_asked = threading.Barrier(2)
    asked = registry.current_champion

    def ask(uri, model):
        champion = asked(uri, model)
        with contextlib.suppress(threading.BrokenBarrierError):
            both_have_asked.wait(1)
        return champion

    monkeypatch.setattr(registry, "current_champion", ask)
    told = []

    def promote(seed):
        folder = artifacts / str(seed)
        try:
            made = register(
                store.uri, model="tiny", artifact=folder, run_id=store.run_id, replaces=None
            )
            told.append(made.version)
        except PipelineError as error:
            told.append(str(error))

    threads = [threading.Thread(target=promote, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won, lost = sorted(told, key=len)
    assert asked(store.uri, "tiny").version == won
    assert lost.startswith(f"the champion of 'tiny' is now tiny/{won}, but tiny/")
    assert lost.endswith("promote again")
    models = [model.name for model in store.client.search_registered_models()]
    assert models == ["tiny"]


def test_a_lock_that_a_dead_process_has_left_is_removed(store, promote, monkeypatch, caplog):
    monkeypatch.setattr(registry, "LOCK_SECONDS", 0.3)
    monkeypatch.setattr(registry, "LOCK_POLL_SECONDS", 0.05)
    store.client.create_registered_model("tiny.promoting")
    assert promote(0).version == "1"
    assert "tiny.promoting: removed, since nobody has for 0.3 s" in caplog.text
    assert current_champion(store.uri, "tiny").version == "1"


def test_second_promotion_moves_the_alias_and_records_both_ways(store, promote):
    first, second = promote(0), promote(1)
    assert (str(first), str(second)) == ("tiny/1", "tiny/2")
    assert current_champion(store.uri, "tiny") == second
    old, new = (store.client.get_model_version("tiny", number) for number in ("1", "2"))
    assert (old.aliases, new.aliases) == ([], ["champion"])
    assert old.tags["gan.replaced_by"] == "2"
    assert new.tags["gan.previous_champion"] == "1"
    assert "gan.replaced_by" not in new.tags


def test_model_is_logged_under_the_run_that_is_named(store, promote):
    promote(0)
    (output,) = store.client.get_run(store.run_id).outputs.model_outputs
    logged = store.client.get_logged_model(output.model_id)
    assert logged.status == "READY"
    assert logged.source_run_id == store.run_id
    assert logged.params == {"train.n_steps": "40"}
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "tiny", "version": 1}]


def test_only_the_store_that_is_named_is_used(store, promote, elsewhere, tmp_path):
    promote(0)
    fetch(store.uri, "tiny", tmp_path / "dest")
    assert list(elsewhere.iterdir()) == []


def test_stored_model_holds_no_pickle_and_states_its_requirements(store, promote):
    promote(0)
    kinds = {path.suffix for path in store.files.rglob("*") if path.is_file()}
    assert kinds == {"", ".json", ".md", ".onnx", ".png", ".py", ".safetensors", ".txt", ".yaml"}
    requirements = stored(store, "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in requirements] == list(registry.REQUIREMENTS)
    assert all("+" not in line for line in requirements)


def test_version_that_was_not_the_one_compared_with_is_not_replaced(store, promote, artifacts):
    first = promote(0)
    second = promote(1)
    with pytest.raises(PipelineError, match=r"is now tiny/2, but tiny/3 was compared with tiny/1"):
        register(
            store.uri, model="tiny", artifact=artifacts / "0", run_id=store.run_id, replaces=first
        )
    assert current_champion(store.uri, "tiny") == second
    assert "gan.replaced_by" not in store.client.get_model_version("tiny", "2").tags


def test_alias_stays_if_the_store_lost_the_artifact(store, promote, monkeypatch):
    first = promote(0)
    upload = type(store.client).log_model_artifacts

    def upload_half(client, model_id, folder):
        (Path(folder) / "artifacts" / "generator" / "samples.png").unlink()
        upload(client, model_id, folder)

    monkeypatch.setattr(type(store.client), "log_model_artifacts", upload_half)
    with pytest.raises(ArtifactError, match=r"samples\.png is missing"):
        promote(1)
    assert current_champion(store.uri, "tiny") == first


def test_altered_artifact_is_not_registered(store, artifacts, tmp_path):
    folder = shutil.copytree(artifacts / "0", tmp_path / "altered")
    (folder / "README.md").write_text("the best generator there is")
    with pytest.raises(ArtifactError, match=r"was altered: README\.md"):
        register(store.uri, model="tiny", artifact=folder, run_id=store.run_id, replaces=None)
    assert store.client.search_registered_models() == []


def test_folder_without_artifact_is_not_registered(store, tmp_path):
    with pytest.raises(ArtifactNotFound, match=r"nowhere is not an artifact: it has no manifest"):
        register(
            store.uri,
            model="tiny",
            artifact=tmp_path / "nowhere",
            run_id=store.run_id,
            replaces=None,
        )


def test_full_disk_while_copying_is_one_line(store, promote, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(registry.shutil, "copytree", full)
    with pytest.raises(ArtifactError, match=r"could not be copied: .* No space left on device$"):
        promote(0)
    assert current_champion(store.uri, "tiny") is None


def test_version_that_does_not_get_ready_is_not_crowned(store, promote, monkeypatch):
    create = type(store.client).create_model_version

    def create_failed(*args, **settings):
        made = create(*args, **settings)
        made._status = "FAILED_REGISTRATION"
        return made

    monkeypatch.setattr(type(store.client), "create_model_version", create_failed)
    with pytest.raises(PipelineError, match="version 1 of 'tiny' must be READY, is FAILED"):
        promote(0)
    assert current_champion(store.uri, "tiny") is None


def test_run_that_is_not_there_is_one_line(store, artifacts):
    with pytest.raises(TrackingError, match="0000") as caught:
        register(store.uri, model="tiny", artifact=artifacts / "0", run_id="0" * 32, replaces=None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "seed"), [("tiny", 1), ("tiny@champion", 1), ("tiny@old", 0), ("tiny/1", 0)]
)
def test_fetched_generator_draws_what_the_promoted_one_drew(
    store, promote, tmp_path, reference, seed
):
    promote(0)
    promote(1)
    store.client.set_registered_model_alias("tiny", "old", "1")
    found = fetch(store.uri, reference, tmp_path / "new" / "fetched")
    assert found == find_version(store.uri, reference)
    images = load_artifact(tmp_path / "new" / "fetched").sampler().sample(3, seed=2)
    expected = tiny_generator(seed).sampler().sample(3, seed=2)
    assert_close(images, expected, rtol=0, atol=0)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["fetched"]


def test_empty_folder_may_be_fetched_into(store, promote, tmp_path):
    promote(0)
    (tmp_path / "dest").mkdir()
    fetch(store.uri, "tiny", tmp_path / "dest")
    verify(tmp_path / "dest")


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_destination_that_is_taken_is_left_alone(store, promote, tmp_path, kind):
    promote(0)
    dest = tmp_path / "dest"
    match kind:
        case "folder":
            dest.mkdir()
            (dest / "mine.txt").write_text("mine")
        case "file":
            dest.write_text("mine")
        case "link":
            dest.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="must be a new or an empty folder, and is"):
        fetch(store.uri, "tiny", dest)
    if kind == "folder":
        assert [path.name for path in dest.iterdir()] == ["mine.txt"]
    else:
        assert dest.is_symlink() or dest.read_text() == "mine"


def test_destination_that_cannot_be_written_is_one_line(store, promote, tmp_path):
    promote(0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"could not be written: .*exists: .*file'$"):
        fetch(store.uri, "tiny", tmp_path / "file" / "dest")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("tinny", "there is no version of 'tinny'; known models: tiny"),
        ("tiny@best", "model 'tiny' has no alias 'best'; known aliases: champion"),
        ("tiny/7", "model 'tiny' has no version 7; known versions: 1"),
        ("../tiny", "expected NAME, NAME@ALIAS or NAME/VERSION, got '../tiny'"),
        ("tiny@", "expected NAME, NAME@ALIAS or NAME/VERSION, got 'tiny@'"),
        ("tiny@../champion", "expected NAME, NAME@ALIAS or NAME/VERSION, got "),
        ("tiny/../1", "expected NAME, NAME@ALIAS or NAME/VERSION, got "),
        ("tiny' or name = 'x", "expected NAME, NAME@ALIAS or NAME/VERSION, got "),
    ],
)
def test_unknown_reference_gets_what_is_known(store, promote, tmp_path, reference, message):
    promote(0)
    with pytest.raises(ArtifactNotFound, match=message):
        fetch(store.uri, reference, tmp_path / "dest")
    assert not (tmp_path / "dest").exists()


def test_version_is_registered_while_the_store_has_it_and_its_artifact(store, promote):
    first, second = promote(0), promote(1)

    def known(model, version, of):
        return is_registered(store.uri, model, version, manifest_sha256=of.manifest_sha256)

    assert known("tiny", "1", first)
    assert known("tiny", "2", second)
    assert not known("tiny", "2", first)
    assert not known("tiny", "3", first)
    assert not known("tinny", "1", first)
    store.client.delete_model_version("tiny", "1")
    assert not known("tiny", "1", first)


def test_run_is_there_until_it_is_deleted(store):
    assert has_run(store.uri, store.run_id)
    assert not has_run(store.uri, "0" * 32)
    store.client.delete_run(store.run_id)
    assert not has_run(store.uri, store.run_id)


def test_database_that_is_gone_has_nothing_and_is_not_made_by_asking(store, tmp_path):
    folder = tmp_path / "100%"
    folder.mkdir()
    uri = f"sqlite:///{tmp_path}/100%25/mlflow.db"
    assert not is_registered(uri, "tiny", "1", manifest_sha256="0" * 64)
    assert not has_run(uri, store.run_id)
    with pytest.raises(
        ArtifactNotFound, match=f"^there is no version of 'tiny': there is no st.* {uri}$"
    ):
        find_version(uri, "tiny@old")
    assert list(folder.iterdir()) == []
    shutil.copyfile(tmp_path / "mlflow.db", folder / "mlflow.db")
    assert has_run(uri, store.run_id)


def test_store_without_models_says_so(store):
    with pytest.raises(
        ArtifactNotFound, match="there is no version of 'tiny'; known models: none"
    ):
        find_version(store.uri, "tiny")


def test_version_of_another_program_is_refused(store):
    store.client.create_registered_model("other")
    store.client.create_model_version("other", str(store.files), run_id=store.run_id)
    with pytest.raises(ArtifactError, match=r"not made by `gan promote`: it has no tag gan\."):
        find_version(store.uri, "other/1")


def test_weights_altered_in_the_store_are_found(store, promote, tmp_path):
    promote(0)
    weights = stored(store, "generator.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"was altered: generator\.safetensors"):
        fetch(store.uri, "tiny", tmp_path / "dest")
    assert not (tmp_path / "dest").exists()
    assert not list(tmp_path.glob(".dest*"))


def test_another_whole_artifact_in_the_store_is_found(store, promote, artifacts, tmp_path):
    champion = promote(0)
    folder = stored(store, "generator.onnx").parent
    shutil.copytree(artifacts / "1", folder, dirs_exist_ok=True)
    verify(folder)
    with pytest.raises(ArtifactError, match="of tiny/1 is not the one that was registered"):
        download(store.uri, champion, tmp_path / "dest")


@pytest.mark.parametrize("name", ["..", ".bashrc", "a\\b", "C:x"])
def test_name_in_the_store_that_leaves_the_folder_is_refused(
    store, promote, tmp_path, monkeypatch, name
):
    from mlflow.entities import FileInfo

    champion = promote(0)
    listing = [FileInfo(f"artifacts/generator/{name}", is_dir=False, file_size=1)]
    monkeypatch.setattr("mlflow.artifacts.list_artifacts", lambda **_: listing)
    with pytest.raises(ArtifactError, match="of tiny/1: a file of an artifact must have a plain"):
        download(store.uri, champion, tmp_path / "dest")
    assert not (tmp_path / "dest").exists()


def test_artifact_that_the_store_lost_is_one_line(store, promote, tmp_path):
    champion = promote(0)
    shutil.rmtree(stored(store, "generator.onnx").parent)
    with pytest.raises((ArtifactError, TrackingError), match="artifacts/generator") as caught:
        download(store.uri, champion, tmp_path / "dest")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "dest").exists()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def test_store_that_does_not_answer_is_one_line(impatient):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StoreUnavailableError, match="Connection refused") as caught:
            current_champion(uri, "tiny")
        with pytest.raises(StoreUnavailableError, match="Connection refused"):
            is_registered(uri, "tiny", "1", manifest_sha256="0" * 64)
        with pytest.raises(StoreUnavailableError, match="Connection refused"):
            has_run(uri, "0" * 32)
    assert "\n" not in str(caught.value)


@pytest.fixture
def web_page():
    """URI of a server that answers everything with a web page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"<html>\n<body>Welcome</body>\n</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_answer_that_is_not_mlflow_is_one_line(impatient, web_page, tmp_path):
    with pytest.raises(TrackingError, match=f"MLflow at {web_page}") as caught:
        fetch(web_page, "tiny", tmp_path / "dest")
    assert "\n" not in str(caught.value)


def test_importing_the_module_loads_neither_torch_nor_mlflow():
    code = "import sys, pipeline.registry; print(sorted({'torch', 'mlflow'} & sys.modules.keys()))"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(registry.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(answer.stdout.replace("'", '"')) == []
