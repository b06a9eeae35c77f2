"""The paper's generator in the pipeline."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan.config import PriorConfig
from gan.priors import TruncatedNormal
from gan.saved_generator import SavedGenerator, SavedSampler
from pipeline.product import SEEDED, Asked, Card, Exported, Product, Served

PAPER = "(Goodfellow et al., 2014, arXiv:1406.2661)"


def _exported(saved: SavedGenerator) -> Exported:
    net = torch.nn.Sequential(saved.G, saved.G.pixels, torch.nn.Unflatten(1, saved.image_shape))
    return Exported(net=net, examples={"z": torch.zeros(2, saved.config.prior.dim)})


def served_images(saved: SavedSampler) -> Served:
    """Rows of `n` and `seed`, answered by samples."""
    sampler = saved.sampler()

    def answer(row: Mapping[str, Any]) -> NDArray[np.float32]:
        images: NDArray[np.float32] = sampler.sample(row["n"], row["seed"]).numpy()
        return images

    return Served(
        columns=SEEDED,
        answer_shape=saved.image_shape,
        answer=answer,
        count=lambda row: int(row["n"]),
    )


def draw_images(saved: SavedSampler, asked: Asked) -> Tensor:
    """Samples, of a model that takes no option.

    Raises:
        ConfigError: an option was given.
    """
    asked.require_options()
    return saved.sampler().sample(asked.n, asked.seed)


def n_parameters(saved: SavedSampler) -> str:
    """Of G, as a person reads it."""
    return f"{sum(p.numel() for p in saved.G.parameters()):,}"


def _card(saved: SavedGenerator) -> Card:
    prior, shape = saved.config.prior, ", ".join(map(str, saved.image_shape))
    convolves = saved.config.generator.deconv_channels is not None
    above = ", under a transposed convolution," if convolves else ""
    return Card(
        heading="Generator",
        what=f"The generator G of generative adversarial nets {PAPER}: a multilayer perceptron"
        f"{above} of {n_parameters(saved)} parameters. It turns noise z ({prior.dim} "
        f"coordinates, prior `{prior.kind}`) into images",
        caption="These are the first {n_samples} samples of seed {seed}; none was picked.",
        python=f"images = generator.sampler().sample(\n    64, seed=0\n)  # [64, {shape}], "
        "float32 in [0, 1]",
        onnx=f"{z_lines(prior)}\n(images,) = session.run(\n"
        f'    ["images"], {{"z": z.astype(np.float32)}}\n)  # [64, {shape}]',
        use=REFERENCE,
        limits=(
            "Nothing steers what is drawn: z has no coordinate that means a class or a trait.",
        ),
    )


REFERENCE = (
    "Research and teaching: a reference point for generative models of the same images, and a "
    "starting\npoint for the extensions that section 7 of the paper names."
)


def z_lines(prior: PriorConfig) -> str:
    """Lines of Python that draw z, `[n, dim]`, from a NumPy generator that they make.

    A mixture has means that only `gan.priors` knows: there the lines use the package instead.
    """
    return f"dim = {prior.dim}\nrng = np.random.default_rng(0)\n{numpy_draw(prior)}"


def numpy_draw(prior: PriorConfig) -> str:
    """Lines of Python that draw z, `[n, dim]`, from the NumPy generator `rng`."""
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
    std = TruncatedNormal(prior.dim, prior.truncation).std_before_scaling
    return (
        "z = rng.standard_normal((n, dim))\n"
        f"while (outside := abs(z) > {prior.truncation}).any():\n"
        "    z[outside] = rng.standard_normal(outside.sum())\n"
        f"z /= {std!r}  # back to variance 1"
    )


GENERATOR = Product(
    title="Generator",
    exported=_exported,
    served=served_images,
    draw=draw_images,
    card=_card,
)
