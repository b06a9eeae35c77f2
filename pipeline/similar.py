"""`gan similar`: the images of a data set that are nearest to one, by what is inferred of them."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan.config import DataConfig
from gan.datasets.files import read_image
from gan.datasets.images import ImageSet
from gan.datasets.splits import load_test, load_train_valid
from gan.errors import ConfigError, DatasetError
from gan.evaluation.neighbours import nearest_neighbours
from gan.extensions.inference.saved import SavedInference
from gan.extensions.inference.scores import image_points
from gan.files import write_atomically
from gan.sampling import save_png, tile
from pipeline.errors import PipelineError
from pipeline.products.inference import neighbour_rows
from pipeline.sample_files import load_model

SPLITS = ("train", "test")
COLUMNS = 12
ZOOM = 4


@dataclass(frozen=True, kw_only=True)
class Query:
    """An image to find others for.

    Attributes:
        pixels: [1, channels, height, width] float32 in [0, 1].
        row: of the images that are searched, if it is one of them.
    """

    pixels: Tensor
    row: int | None = None


@dataclass(frozen=True, kw_only=True)
class Similar:
    """The images nearest to a query, nearest first.

    Attributes:
        indices: rows of the training file of the data set, [k].
        distances: by `SavedInference.points`, [k].
        labels: their classes, if the data set has them.
    """

    indices: list[int]
    distances: list[float]
    labels: list[int] | None

    def rows(self) -> list[dict[str, Any]]:
        """One JSON object an image."""
        rows = []
        for i, (index, distance) in enumerate(zip(self.indices, self.distances, strict=True)):
            row: dict[str, Any] = {"index": index, "distance": distance}
            rows.append(row if self.labels is None else row | {"class": self.labels[i]})
        return rows


def find_similar(
    image: str, *, data: DataConfig, model: str, k: int, output: Path | None
) -> Similar:
    """The k images of a data set that are nearest to one, and a picture of them.

    All images of the training file are searched, but for the image itself if it is one of them.

    Args:
        image: a picture, a .npy file, or `train:INDEX`, `test:INDEX` of the data set.
        data: the data set.
        model: folder of a promoted inference net, or its name in the registry.
        k: how many.
        output: a .png file for the query, G(E(query)) and the images; None: no picture.

    Raises:
        ConfigError: there is no such image, it is not of the data set's size or range, k is more
            than there are images, the model is no inference net or of images of another size, or
            the data set cannot be read.
        PipelineError: the picture cannot be written.
        ArtifactError: there is no such model, or it was altered.
    """
    if output is not None:
        _require_writable(output)
    saved = _inference_net(model)
    try:
        searched = _training_file(data)
        query = _query(image, data, searched)
    except DatasetError as error:
        raise ConfigError([str(error)]) from error
    if searched.image_shape != saved.image_shape:
        raise ConfigError(
            [
                f"--model {model} is of images of shape {list(saved.image_shape)}, those of "
                f"{data.dataset} are {list(searched.image_shape)}"
            ]
        )
    n_eligible = len(searched) - (query.row is not None)
    if k > n_eligible:
        raise ConfigError([f"-k must be at most the {n_eligible:,} images searched, got {k}"])
    found = _nearest(saved, query, searched, k)
    if output is not None:
        write_atomically(output, _picture(saved, query, searched, found))
    return found


def _nearest(saved: SavedInference, query: Query, searched: ImageSet, k: int) -> Similar:
    exclude = None if query.row is None else torch.tensor([query.row])
    near = nearest_neighbours(
        saved.points(query.pixels),
        image_points(saved, searched, limit=len(searched)),
        k=k,
        exclude=exclude,
    )
    indices: list[int] = near.indices[0].tolist()
    labels = None if searched.labels is None else searched.labels[indices].tolist()
    return Similar(indices=indices, distances=near.distances[0].tolist(), labels=labels)


def _picture(saved: SavedInference, query: Query, searched: ImageSet, found: Similar) -> bytes:
    """The query, what G makes of its code, and the images found, as a PNG."""
    near = torch.from_numpy(searched.images[found.indices]).float() / 255
    images = neighbour_rows(query.pixels, saved.reconstruct(query.pixels), near)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "similar.png"
        save_png(tile(images, columns=min(COLUMNS, len(images))), file, zoom=ZOOM)
        return file.read_bytes()


def _inference_net(model: str) -> SavedInference:
    saved = load_model(model)
    if not isinstance(saved, SavedInference):
        raise ConfigError(
            [f"--model {model} is no inference net: it is of the task {saved.config.task}"]
        )
    return saved


def _training_file(data: DataConfig) -> ImageSet:
    """All images of the training file, in its order."""
    train, valid = load_train_valid(data)
    images: NDArray[np.uint8] = np.concatenate([train.images, valid.images])
    labels = None
    if train.labels is not None and valid.labels is not None:
        labels = np.concatenate([train.labels, valid.labels])
    return ImageSet(images=images, labels=labels, digest=train.digest)


def _query(image: str, data: DataConfig, searched: ImageSet) -> Query:
    split, colon, index = image.partition(":")
    if colon and split in SPLITS:
        images = searched if split == "train" else load_test(data)
        if not index.isdecimal() or int(index) >= len(images):
            raise ConfigError(
                [f"{image}: the index must be from 0 to {len(images) - 1:,}, got {index!r}"]
            )
        row = int(index)
        pixels = torch.from_numpy(images.images[[row]]).float() / 255
        return Query(pixels=pixels, row=row if split == "train" else None)
    path = Path(image).expanduser()
    if not path.is_file():
        raise ConfigError(
            [f"{image} is no file: IMAGE is a picture, a .npy file, train:INDEX or test:INDEX"]
        )
    array = read_image(path, image_shape=searched.image_shape)
    return Query(pixels=torch.from_numpy(array)[None])


def _require_writable(output: Path) -> None:
    if output.suffix != ".png":
        raise ConfigError([f"{output} must end in .png"])
    if not output.parent.is_dir():
        raise PipelineError(f"{output} could not be written: there is no folder {output.parent}")
