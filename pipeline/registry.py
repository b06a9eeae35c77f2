"""The model registry of MLflow: versions of promoted generators, and the alias `champion`.

    reference             the version it names
    mnist-generator       that of the alias `champion`
    mnist-generator@old   that of the alias `old`
    mnist-generator/3     version 3

A version holds a `python_function` model (`pipeline.served_generator`) with the artifact's folder
inside.  Its tags have the SHA-256 of the artifact's manifest, so that what the artifact store
hands out is checked against what the database knows, file by file.
"""

import json
import logging
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from gan.files import new_folder, sha256
from pipeline.artifacts import MANIFEST, Manifest, load_artifact, plain_name, verify
from pipeline.errors import ArtifactError, ArtifactNotFound, PipelineError
from tuning.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

logger = logging.getLogger(__name__)

CHAMPION = "champion"
WEIGHTS_TAG = "gan.weights_sha256"
MANIFEST_TAG = "gan.manifest_sha256"
PREVIOUS_TAG = "gan.previous_champion"
REPLACED_TAG = "gan.replaced_by"

ARTIFACT = "generator"
"""Name of the artifact in the model: its folder there is `artifacts/generator`."""
REQUIREMENTS = (
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "torch",
)
"""What serving needs.  This package is left out, to be installed by hand: on a public index, where
it is not, a stranger could take its name."""

LOCK_SUFFIX = ".promoting"
LOCK_SECONDS = 60.0
"""How long a promotion may hold the lock, for which it needs three requests."""
LOCK_POLL_SECONDS = 0.2

_REFERENCE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:@([A-Za-z0-9_-]+)|/([0-9]+))?")


@dataclass(frozen=True, kw_only=True)
class GeneratorVersion:
    """A version that `register` made."""

    model: str
    version: str
    run_id: str
    """MLflow run that trained the generator."""
    weights_sha256: str
    manifest_sha256: str

    def __str__(self) -> str:
        return f"{self.model}/{self.version}"


def current_champion(uri: str, model: str) -> GeneratorVersion | None:
    """The version that the alias `champion` names; None if there is no such model or alias.

    Raises:
        TrackingError: the store does not answer.
        ArtifactError: the champion was not registered by `register`.
    """
    with store(uri) as client:
        number = _aliases(client, model).get(CHAMPION)
        return None if number is None else _version(client, model, number)


def is_registered(uri: str, model: str, version: str, *, manifest_sha256: str) -> bool:
    """Whether the store has this version of a model, and it is of the artifact with this manifest.

    A database that was deleted is not made again by being asked.

    Raises:
        TrackingError: the store does not answer.
    """
    if _is_missing_file(uri):
        return False
    with store(uri) as client:
        found = client.search_model_versions(f"name = '{model}'")
    return (version, manifest_sha256) in {
        (str(v.version), v.tags.get(MANIFEST_TAG)) for v in found
    }


def has_run(uri: str, run_id: str) -> bool:
    """Whether a run is in the store, and was not deleted there.

    A database that was deleted is not made again by being asked.

    Raises:
        TrackingError: the store does not answer.
    """
    if _is_missing_file(uri):
        return False
    from mlflow.exceptions import MlflowException

    with store(uri) as client:
        try:
            return bool(client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False


def find_version(uri: str, reference: str) -> GeneratorVersion:
    """The version that `NAME`, `NAME@ALIAS` or `NAME/VERSION` names.

    A database that is not there is not made by being asked.

    Raises:
        ArtifactNotFound: there is none; the message lists those that there are.
        ArtifactError: it was not registered by `register`.
        TrackingError: the store does not answer.
    """
    if not (parts := _REFERENCE.fullmatch(reference)):
        raise ArtifactNotFound(f"expected NAME, NAME@ALIAS or NAME/VERSION, got {reference!r}")
    model, alias, number = parts.groups(default="")
    if _is_missing_file(uri):
        raise ArtifactNotFound(f"there is no version of {model!r}: there is no store at {uri}")
    with store(uri) as client:
        versions = {str(v.version) for v in client.search_model_versions(f"name = '{model}'")}
        if not versions:
            models = sorted(found.name for found in client.search_registered_models())
            known = _known("models", models)
            raise ArtifactNotFound(f"there is no version of {model!r}; {known}")
        if not number:
            alias = alias or CHAMPION
            aliases = _aliases(client, model)
            number = aliases.get(alias, "")
            if not number:
                known = _known("aliases", sorted(aliases))
                raise ArtifactNotFound(f"model {model!r} has no alias {alias!r}; {known}")
        if number not in versions:
            known = _known("versions", sorted(versions, key=int))
            raise ArtifactNotFound(f"model {model!r} has no version {number}; {known}")
        return _version(client, model, number)


def fetch(uri: str, reference: str, dest: Path) -> GeneratorVersion:
    """Lay the artifact of a version down as the folder `dest`, verified; all of it or nothing.

    Args:
        uri: MLflow store.
        reference: `NAME`, `NAME@ALIAS` or `NAME/VERSION`.
        dest: a folder that does not exist yet, or is empty.

    Raises:
        ArtifactNotFound: there is no such version.
        ArtifactError: `dest` is taken or cannot be written, or the artifact was altered.
        TrackingError: the store does not answer.
    """
    _require_free(dest)
    found = find_version(uri, reference)
    download(uri, found, dest)
    return found


def download(uri: str, source: GeneratorVersion, dest: Path) -> Manifest:
    """As `fetch`, of a version that is known; a folder that stood at `dest` is replaced."""
    try:
        with new_folder(Path(os.path.abspath(dest))) as scratch:
            _download(uri, source, scratch)
            if sha256(scratch / MANIFEST) != source.manifest_sha256:
                raise ArtifactError(f"the artifact of {source} is not the one that was registered")
            return verify(scratch)
    except OSError as error:
        raise ArtifactError(f"{dest} could not be written: {error}") from error


def register(
    uri: str,
    *,
    model: str,
    artifact: Path,
    run_id: str,
    replaces: GeneratorVersion | None,
) -> GeneratorVersion:
    """Make an artifact the champion: log it as a model, register a version, move the alias.

    The alias moves last, once the version is READY and its artifact was downloaded again and
    found whole.  Whatever goes wrong before that, the champion stays.

    Args:
        uri: MLflow store.
        model: name of the registered model, which is made if it is not there.
        artifact: a folder that `pipeline.artifacts.write_artifact` wrote.
        run_id: the run that the model is logged under.
        replaces: the champion that the gate compared the artifact with; None if it met none.

    Returns:
        The new champion.  It has the tag `gan.previous_champion`, the old one `gan.replaced_by`.

    Raises:
        PipelineError: another version became the champion in the meantime.
        ArtifactError: the artifact was altered or is incomplete, here or in the store.
        TrackingError: the store does not answer or refuses the version.
    """
    manifest = verify(artifact)
    try:
        with TemporaryDirectory() as scratch:
            # A copy, for its name: that is what the folder is called in the model.
            folder = shutil.copytree(artifact, Path(scratch) / ARTIFACT)
            tags = {
                WEIGHTS_TAG: manifest.weights_sha256,
                MANIFEST_TAG: sha256(folder / MANIFEST),
                **({PREVIOUS_TAG: replaces.version} if replaces else {}),
                **{f"gan.{name}": f"{value:.6g}" for name, value in manifest.scores.items()},
            }
            with store(uri) as client:
                logged = _log_model(client, folder, run_id=run_id)
                made = _create_version(client, model, logged, tags=tags)
            download(uri, made, Path(scratch) / "as_stored")
    except OSError as error:
        raise ArtifactError(f"artifact {artifact} could not be copied: {error}") from error
    _crown(uri, made, replaces=replaces)
    return made


def _log_model(client: "MlflowClient", folder: Path, *, run_id: str) -> "LoggedModel":
    """A logged model, READY, that holds the artifact and the code that serves it."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run = client.get_run(run_id)
    logged = client.create_logged_model(
        run.info.experiment_id, name=ARTIFACT, source_run_id=run_id, params=run.data.params
    )
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "model"
        _save_model(path, folder, model_id=logged.model_id, run_id=run_id)
        client.log_model_artifacts(logged.model_id, str(path))
    client.log_outputs(run_id, models=[LoggedModelOutput(logged.model_id, step=0)])
    return client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)


def _save_model(path: Path, folder: Path, *, model_id: str, run_id: str) -> None:
    """Write the `python_function` model; not by `log_model`, which goes by the global store."""
    import numpy as np
    import pandas as pd

    with warnings.catch_warnings():
        # At its first import MLflow warns of type hints of its own.
        warnings.filterwarnings("ignore", ".*Any type hint is inferred", UserWarning)
        import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from mlflow.types.schema import Array

    from pipeline.products import product_of

    kinds = {"long": "long", "string": "string", "numbers": Array("double")}
    served = product_of((saved := load_artifact(folder)).config).served(saved)
    columns = [
        ColSpec(kinds[column.kind], column.name, required=column.is_required)
        for column in served.columns
    ]
    example: Any = {column.name: [column.example] for column in served.columns}
    if any(column.kind == "numbers" for column in served.columns):
        example = pd.DataFrame(example)  # in a mapping, a list in a column is taken for a column
    mlflow.pyfunc.save_model(
        str(path),
        mlflow_model=Model(model_uuid=model_id, model_id=model_id, run_id=run_id),
        python_model=str(Path(__file__).with_name("served_generator.py")),
        artifacts={ARTIFACT: str(folder)},
        signature=ModelSignature(
            inputs=Schema(columns),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *served.answer_shape))]),
        ),
        input_example=example,
        pip_requirements=[
            f"{package}=={installed_version(package).partition('+')[0]}"
            for package in REQUIREMENTS
        ],
    )


def _create_version(
    client: "MlflowClient", model: str, logged: "LoggedModel", *, tags: Mapping[str, str]
) -> GeneratorVersion:
    """A new version, READY; the registered model is made if it is not there."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # By its place: MLflow would look `models:/<id>` up in the global store, not in this one.
    source, run_id, model_id = logged.artifact_location, logged.source_run_id, logged.model_id
    made = client.create_model_version(model, source, run_id=run_id, model_id=model_id, tags=tags)
    if made.status != "READY":
        raise PipelineError(f"version {made.version} of {model!r} must be READY, is {made.status}")
    versions = [{"name": model, "version": made.version}]
    # The UI's link from the run's model to the version.
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": json.dumps(versions)})
    return _version(client, model, made.version)


def _crown(uri: str, made: GeneratorVersion, *, replaces: GeneratorVersion | None) -> None:
    with store(uri) as client, _alone(client, made.model) as is_alone:
        champion = current_champion(uri, made.model)
        if champion != replaces:
            raise PipelineError(
                f"the champion of {made.model!r} is now {champion}, but {made} was compared with "
                f"{replaces}: promote again"
            )
        if not is_alone():
            raise PipelineError(f"MLflow is too slow to make {made} champion: promote again")
        client.set_registered_model_alias(made.model, CHAMPION, made.version)
        if replaces:
            client.set_model_version_tag(made.model, replaces.version, REPLACED_TAG, made.version)


@contextmanager
def _alone(client: "MlflowClient", model: str) -> Iterator[Callable[[], bool]]:
    """Let nobody else move the alias of a model meanwhile; gives whether that still holds.

    MLflow knows no lock and no condition on a change, but of two that make a registered model of
    one name at the same moment one is refused.  So an empty model is the lock; one that a process
    which died has left is removed when it has stood for too long.
    """
    from mlflow.exceptions import MlflowException

    name = f"{model}{LOCK_SUFFIX}"
    seen, deadline = None, 0.0
    while not _is_made(client, name):
        standing = _made_at(client, name)
        if standing is None:
            continue  # gone in the meantime
        if standing != seen:
            seen, deadline = standing, time.monotonic() + LOCK_SECONDS
        elif time.monotonic() >= deadline:
            logger.warning("%s: removed, since nobody has for %g s", name, LOCK_SECONDS)
            _remove(client, name, made_at=standing)
        time.sleep(LOCK_POLL_SECONDS)
    mine, ends_at = _made_at(client, name), time.monotonic() + LOCK_SECONDS / 2
    try:
        yield lambda: time.monotonic() < ends_at
    finally:
        try:
            _remove(client, name, made_at=mine)
        except MlflowException as error:  # what was done, or went wrong, counts
            logger.warning("%s could not be removed: %s", name, str(error).splitlines()[0])


def _is_made(client: "MlflowClient", name: str) -> bool:
    """Make an empty registered model; False if there is one of that name."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="a promotion is under way")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return False
    return True


def _made_at(client: "MlflowClient", name: str) -> int | None:
    """When a registered model was made, by the server's clock; None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return int(client.get_registered_model(name).creation_timestamp)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _remove(client: "MlflowClient", name: str, *, made_at: int | None) -> None:
    """Remove a registered model, unless another of its name has been made by now."""
    from mlflow.exceptions import MlflowException

    if _made_at(client, name) != made_at:
        return
    try:
        client.delete_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _download(uri: str, source: GeneratorVersion, folder: Path) -> None:
    """Download the files of an artifact, each into `folder` itself and nowhere else."""
    from mlflow.artifacts import download_artifacts, list_artifacts

    with store(uri) as client:
        root = client.get_model_version_download_uri(source.model, source.version)
        root = f"{root.rstrip('/')}/artifacts/{ARTIFACT}"
        for info in list_artifacts(artifact_uri=root, tracking_uri=uri):
            try:
                name = plain_name(PurePosixPath(info.path).name)
            except ValueError as error:
                raise ArtifactError(f"the artifact of {source}: {error}") from error
            download_artifacts(
                artifact_uri=f"{root}/{name}", dst_path=str(folder), tracking_uri=uri
            )
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(f"the store has no artifact of {source}: {root} lacks {MANIFEST}")


def _require_free(dest: Path) -> None:
    if dest.is_symlink() or (dest.exists() and not dest.is_dir()):
        raise ArtifactError(f"{dest} must be a new or an empty folder, and is a file or a link")
    if dest.exists() and any(dest.iterdir()):
        raise ArtifactError(f"{dest} must be a new or an empty folder, and is not empty")


def _is_missing_file(uri: str) -> bool:
    if not uri.startswith("sqlite:"):
        return False
    from sqlalchemy import make_url

    database = make_url(uri).database
    return database is not None and not Path(database).exists()


def _aliases(client: "MlflowClient", model: str) -> dict[str, str]:
    """Alias -> version of a model; empty if there is no such model.

    Asked of the model, because a search for versions answers without their aliases.
    """
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(model).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {alias: str(number) for alias, number in aliases.items()}


def _version(client: "MlflowClient", model: str, number: str) -> GeneratorVersion:
    found = client.get_model_version(model, number)
    if missing := {WEIGHTS_TAG, MANIFEST_TAG} - found.tags.keys():
        raise ArtifactError(
            f"version {number} of {model!r} was not made by `gan promote`: "
            f"it has no tag {min(missing)}"
        )
    return GeneratorVersion(
        model=model,
        version=str(found.version),
        run_id=found.run_id,
        weights_sha256=found.tags[WEIGHTS_TAG],
        manifest_sha256=found.tags[MANIFEST_TAG],
    )


def _known(what: str, names: Iterable[str]) -> str:
    return f"known {what}: {', '.join(names) or 'none'}"
