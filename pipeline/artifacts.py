"""A promoted model on disk: write, verify, load.

    generator.safetensors   weights, and all else that the run's configuration does not say
    config.json             the run that trained it, and the shape of its images
    generator.onnx          the same net for any ONNX runtime
    samples.png             a hundred samples
    README.md               model card
    manifest.json           SHA-256 of each of these, scores, and where the model comes from

The first and the third are named after the task's weights (`gan.tasks.Task.weights`).
Nothing in the folder is ever unpickled or executed.
"""

import json
import math
import platform
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, FiniteFloat, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from gan.config import STRICT, digest
from gan.errors import CheckpointError
from gan.files import new_folder, sha256
from gan.version import __version__
from pipeline.errors import ArtifactError, ArtifactNotFound

if TYPE_CHECKING:
    from gan.saved_generator import SavedSampler

WEIGHTS_SUFFIX, CONFIG = ".safetensors", "config.json"
"""As in gan.tasks, which takes a second to import."""
ONNX_SUFFIX = ".onnx"
KINDS = (WEIGHTS_SUFFIX, ONNX_SUFFIX, ".json", ".md", ".png")
"""Ends of the names that files of an artifact may have: none of these is ever executed."""
SAMPLES, CARD, MANIFEST = "samples.png", "README.md", "manifest.json"
N_SAMPLES, SAMPLES_SEED = 100, 0

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def plain_name(name: str) -> str:
    """`name` itself, if it can only lie directly in the folder it is put in.

    Raises:
        ValueError: for a path, `..`, or any character that some system reads as more than a name.
    """
    if not _PLAIN_NAME.fullmatch(name):
        raise ValueError(f"a file of an artifact must have a plain name, got {name!r}")
    return name


FileName = Annotated[str, AfterValidator(plain_name)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Lineage:
    """Where a generator comes from."""

    run_id: str
    """MLflow run of the trial that trained it."""
    sweep: str
    trial: str
    """Key of the trial in its sweep."""
    step: int
    """Updates of G behind the weights."""
    data_digest: str
    """SHA-256 of the training images."""
    git_commit: str | None = None
    """Commit of the code that trained it, where that is known."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Manifest:
    """What `manifest.json` says."""

    format_version: Literal[1] = 1
    created_at: str
    """ISO 8601, UTC."""
    files: dict[FileName, Sha256]
    """Each file but the manifest itself."""
    scores: dict[str, FiniteFloat]
    """By metric name; a standard error under the name of its score with `_se`."""
    lineage: Lineage
    config_digest: Sha256
    """SHA-256 of the run's configuration, as `gan.config.digest`."""
    versions: dict[str, str]
    """Of Python and of the packages that wrote the artifact."""

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights: two models with the same one are the same."""
        return self.files[self.weights]

    @property
    def weights(self) -> str:
        """Name of the file with the weights, of which there is one."""
        return next(name for name in self.files if name.endswith(WEIGHTS_SUFFIX))


def write_artifact(
    folder: Path, *, saved: "SavedSampler", scores: Mapping[str, float], lineage: Lineage
) -> None:
    """Write an artifact: all of it or nothing.  A folder that stood there is replaced.

    Args:
        folder: what the artifact becomes.
        saved: the generator, on any device.
        scores: by metric name, finite; standard errors under the same name with `_se`.
        lineage: where the generator comes from.

    Raises:
        ValueError: if a score is not finite: let `pipeline.gate.finite_scores` see them first.
        ArtifactError: if it cannot be written (disk full, no permission).
    """
    from gan.sampling import save_png, tile
    from gan.tasks import save
    from pipeline.model_card import model_card

    if bad := [f"{name} = {value}" for name, value in scores.items() if not math.isfinite(value)]:
        raise ValueError(f"scores of an artifact must be finite, got {', '.join(bad)}")
    on_cpu = _on_cpu(saved)
    samples = on_cpu.sampler().showcase(N_SAMPLES, SAMPLES_SEED)
    card = model_card(
        on_cpu,
        scores=scores,
        lineage=lineage,
        n_samples=N_SAMPLES,
        samples_seed=SAMPLES_SEED,
        onnx=onnx_name(on_cpu),
    )
    try:
        with new_folder(folder.absolute()) as scratch:
            save(scratch, on_cpu)
            (scratch / onnx_name(on_cpu)).write_bytes(to_onnx(on_cpu))
            save_png(tile(samples, columns=10), scratch / SAMPLES, zoom=2)
            (scratch / CARD).write_text(card, encoding="utf-8")
            manifest = Manifest(
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                files={path.name: sha256(path) for path in sorted(scratch.iterdir())},
                scores=dict(scores),
                lineage=lineage,
                config_digest=digest(saved.config),
                versions=_versions(),
            )
            (scratch / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    except OSError as error:
        raise ArtifactError(
            f"artifact {folder} could not be written: {error.strerror or error}"
        ) from error


def verify(folder: Path) -> Manifest:
    """The manifest of an artifact, every file of which is there, unaltered, and the only one.

    Raises:
        ArtifactNotFound: if there is no artifact in the folder.
        ArtifactError: if a file is missing, altered, a link, not in the manifest, or if the
            manifest is malformed or names a file outside the folder.
    """
    manifest = _read_manifest(folder)
    there = {path.name for path in folder.iterdir()} - {MANIFEST}
    for name in sorted(manifest.files.keys() | there):
        path = folder / name
        if name not in there:
            raise ArtifactError(f"artifact {folder} is incomplete: {name} is missing")
        if name not in manifest.files:
            raise ArtifactError(
                f"artifact {folder} holds {name}, which its manifest does not name"
            )
        if path.is_symlink() or not path.is_file():
            raise ArtifactError(f"artifact {folder}: {name} must be a file of its own")
        if sha256(path) != manifest.files[name]:
            raise ArtifactError(f"artifact {folder} was altered: {name} has another SHA-256")
    return manifest


def load_artifact(folder: Path) -> "SavedSampler":
    """The generator of an artifact, on the CPU, after the artifact has been verified.

    Raises:
        ArtifactError: as `verify`, or if the weights do not fit the configuration.
    """
    from gan.tasks import load_sampler

    verify(folder)
    try:
        return load_sampler(folder)
    except CheckpointError as error:
        raise ArtifactError(f"artifact {folder}: {error}") from error


def onnx_name(saved: "SavedSampler") -> str:
    """Name of the file that `to_onnx` is kept in."""
    from gan.tasks import task_of

    return task_of(saved.config).weights.removesuffix(WEIGHTS_SUFFIX) + ONNX_SUFFIX


def to_onnx(saved: "SavedSampler") -> bytes:
    """An ONNX model of what the task exports, for any number of rows n >= 1.

    Of a generator `z` [n, dim] float32 -> `images` [n, c, h, w] in [0, 1]; a conditional one takes
    `condition` [n, d] float32 besides; `pipeline.products` has the others.

    Args:
        saved: a model on the CPU, in evaluation mode.
    """
    import torch

    from pipeline.products import product_of

    exported = product_of(saved.config).exported(saved)
    examples = exported.examples
    with warnings.catch_warnings():
        # That two inputs share the name of their first axis, which is meant so.
        warnings.filterwarnings("ignore", ".*The axis name", UserWarning)
        program = torch.onnx.export(
            exported.net.eval(),
            tuple(examples.values()),
            input_names=list(examples),
            output_names=[exported.output],
            dynamic_shapes=({0: torch.export.Dim("n")},) * len(examples),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # noqa: S101 (it is None for the exporter before dynamo alone)
    model = program.model_proto
    graph = model.graph
    # They quote our source with the paths of this machine.
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return bytes(model.SerializeToString())


def _on_cpu(saved: "SavedSampler") -> "SavedSampler":
    """A copy, read back from its tensors as a folder's would be."""
    from gan.tasks import as_sampler, task_of

    tensors = {name: tensor.detach().cpu() for name, tensor in saved.tensors().items()}
    copy = task_of(saved.config).read(tensors, saved.config, saved.image_shape)
    return as_sampler(copy, "a model")


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactNotFound(f"{folder} is not an artifact: it has no {MANIFEST}")
    if path.is_symlink():
        raise ArtifactError(f"artifact {folder}: {MANIFEST} must be a file of its own")
    try:
        manifest = TypeAdapter(Manifest).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = ": ".join([*map(str, first["loc"]), first["msg"]])
        raise ArtifactError(f"artifact {folder}: {MANIFEST} is malformed: {problem}") from error
    weights = [name for name in manifest.files if name.endswith(WEIGHTS_SUFFIX)]
    if len(weights) != 1 or CONFIG not in manifest.files:
        raise ArtifactError(
            f"artifact {folder}: {MANIFEST} must name {CONFIG} and one file of weights"
        )
    for name in manifest.files:
        if not name.endswith(KINDS):
            raise ArtifactError(
                f"artifact {folder}: {name} is refused: an artifact has files of the kinds "
                f"{', '.join(KINDS)} alone"
            )
    return manifest


def _versions() -> dict[str, str]:
    packages = ("torch", "safetensors", "onnx")
    return {
        "adversarial-nets": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
