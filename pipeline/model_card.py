"""The model card of an artifact: `templates/model_card.md`, filled in."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from gan.config import PriorConfig

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
) -> str:
    """The text of `README.md`: what the generator is, how good, how to use it, and its limits.

    Args:
        saved: the generator.
        scores: by metric name; standard errors under the same name with `_se`.
        lineage: where the generator comes from.
        n_samples: images in `samples.png`.
        samples_seed: seed of those.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(  # noqa: S701 (Markdown of our own settings, no HTML)
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    template = files("pipeline").joinpath("templates/model_card.md").read_text(encoding="utf-8")
    config = saved.config
    rows = [
        {"name": name, "value": value, "error": scores.get(f"{name}_se")}
        for name, value in sorted(scores.items())
        if not name.endswith("_se")
    ]
    return environment.from_string(template).render(
        conditions=_conditions(saved),
        config=config,
        data=PurePath(config.data.dataset).name,
        draw_z=numpy_draw(config.prior),
        image_shape=saved.image_shape,
        lineage=lineage,
        n_parameters=sum(p.numel() for p in saved.G.parameters()),
        n_samples=n_samples,
        needs_package=config.prior.kind == "mixture",
        samples_seed=samples_seed,
        scores=rows,
    )


def _conditions(saved: "SavedSampler") -> dict[str, Any] | None:
    """What the card says of conditions; None where there are none."""
    from gan.extensions.conditional import SavedConditional

    if not isinstance(saved, SavedConditional):
        return None
    rows, n_classes = saved.G.conditions.rows, saved.n_classes
    width = rows.shape[1]
    if n_classes is not None:
        what, example = f"a class from 0 to {n_classes - 1}", str(n_classes - 1)
    else:
        what = f"a vector of {width} numbers"
        example = ",".join(f"{value:.3g}" for value in rows[0].tolist())
    return {"what": what, "example": example, "width": width, "n_classes": n_classes}


def numpy_draw(prior: PriorConfig) -> str:
    """Lines of Python that draw z, `[n, dim]`, from the NumPy generator `rng`.

    A mixture has means that only `gan.priors` knows: there the lines use the package instead.
    """
    match prior.kind:
        case "uniform":
            return "z = rng.uniform(-(3**0.5), 3**0.5, (n, dim))"
        case "gaussian":
            return "z = rng.standard_normal((n, dim))"
        case "spherical":
            radius = "1" if prior.spherical_radius == "unit" else "dim**0.5"
            return (
                "z = rng.standard_normal((n, dim))\n"
                f"z *= {radius} / np.linalg.norm(z, axis=1, keepdims=True)"
            )
        case "bernoulli":
            return "z = rng.choice([-1.0, 1.0], (n, dim))"
        case "truncated_normal":
            return _truncated_normal_draw(prior)
        case "mixture":
            return (
                "from gan.randomness import stream\n"
                'z = generator.sampler().prior.sample(n, stream(0, "samples")).numpy()'
            )


def _truncated_normal_draw(prior: PriorConfig) -> str:
    from gan.priors import TruncatedNormal

    std = TruncatedNormal(prior.dim, prior.truncation).std_before_scaling
    return (
        "z = rng.standard_normal((n, dim))\n"
        f"while (outside := abs(z) > {prior.truncation}).any():\n"
        "    z[outside] = rng.standard_normal(outside.sum())\n"
        f"z /= {std!r}  # back to variance 1"
    )
