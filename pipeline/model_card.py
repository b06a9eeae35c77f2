"""The model card of an artifact: `templates/model_card.md`, filled in."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gan.saved_generator import SavedSampler
    from pipeline.artifacts import Lineage


def model_card(
    saved: "SavedSampler",
    *,
    scores: Mapping[str, float],
    lineage: "Lineage",
    n_samples: int,
    samples_seed: int,
    onnx: str,
) -> str:
    """The text of `README.md`: what the model is, how good, how to use it, and its limits.

    Args:
        saved: the model.
        scores: by metric name; standard errors under the same name with `_se`.
        lineage: where the model comes from.
        n_samples: images in `samples.png`.
        samples_seed: seed of those.
        onnx: name of the ONNX file.
    """
    from jinja2 import Environment, StrictUndefined

    from pipeline.products import product_of

    environment = Environment(  # noqa: S701 (Markdown of our own settings, no HTML)
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    template = files("pipeline").joinpath("templates/model_card.md").read_text(encoding="utf-8")
    config = saved.config
    product = product_of(config)
    rows = [
        {"name": name, "value": value, "error": scores.get(f"{name}_se")}
        for name, value in sorted(scores.items())
        if not name.endswith("_se")
    ]
    card = product.card(saved)
    return environment.from_string(template).render(
        card=card,
        caption=card.caption.format(n_samples=n_samples, seed=samples_seed),
        config=config,
        data=PurePath(config.data.dataset).name,
        image_shape=saved.image_shape,
        is_judged_by_images=product.is_judged_by_images,
        lineage=lineage,
        n_samples=n_samples,
        needs_package="import" in card.onnx,
        onnx=onnx,
        scores=rows,
    )
