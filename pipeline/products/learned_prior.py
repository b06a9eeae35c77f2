"""A generator with its own distribution of z in the pipeline: what is it good for?"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch

from gan.errors import ScoreError
from gan.evaluation.frechet import frechet_distance
from gan.evaluation.manifold import balls
from gan.evaluation.suite import Evaluation
from gan.extensions.learned_prior import SavedLearnedPrior
from gan.sampling import save_png, tile
from pipeline.product import Candidate, Card, Exported, Measured, Product
from pipeline.products.generator import (
    PAPER,
    REFERENCE,
    draw_images,
    n_parameters,
    served_images,
    z_lines,
)
from pipeline.score_groups import LESS, MORE, Group

PART = "plain"
PICTURE = "prior.png"
N_SAMPLES = 10_000

LEARNED = {
    "stacked": "a net below z, learned in front of a trained generator, turns it into z",
    "mixture": "learned means and widths of a mixture of Gaussians turn it into z",
    "importance": "z is drawn among the candidates that it holds by what the discriminator, a "
    "part of the model, says of their images",
    "top_k": "it is z; the generator learned from its most convincing samples alone",
    "fixed": "it is z",
}
"""Method -> what becomes of the noise."""


def measure(candidate: Candidate) -> Measured:
    """Fréchet distance and coverage of the same generator where z is not learned."""
    saved, real = candidate.saved, candidate.real
    plain = saved.plain()
    if plain is None:
        return Measured()
    points = real.extractor(plain.sample(N_SAMPLES, candidate.seed))
    try:
        distance = frechet_distance(real.scored_features, points, seed=candidate.seed).distance
        coverage = balls(real.scored_features).coverage(points)
    except ScoreError as error:
        return Measured(unavailable={PART: str(error)})
    scores = (distance, coverage)
    return Measured(scores=[dataclasses.replace(s, name=f"plain_{s.name}") for s in scores])


def findings(evaluation: Evaluation, scores: Mapping[str, float]) -> str:
    """What the learned z is worth to this generator."""
    names = ("frechet_distance", "coverage")
    pairs = [(evaluation.scores.get(n), evaluation.scores.get(f"plain_{n}")) for n in names]
    (distance, plain_distance), (coverage, plain_coverage) = pairs
    if not (distance and plain_distance and coverage and plain_coverage):
        return ""
    return (
        f"With the z that was learned the Fréchet distance is {distance.value:.2f} and the "
        f"coverage {coverage.value:.3f}; the same generator with z of a fixed distribution has "
        f"{plain_distance.value:.2f} and {plain_coverage.value:.3f}."
    )


def draw_picture(candidate: Candidate, folder: Path) -> None:
    """Write `prior.png`."""
    images = candidate.saved.contrast(seed=candidate.seed)
    save_png(tile(images, columns=10), folder / PICTURE, zoom=2)


def _exported(saved: SavedLearnedPrior) -> Exported:
    net = torch.nn.Sequential(saved.G, torch.nn.Unflatten(1, saved.image_shape))
    return Exported(net=net, examples={"z": torch.zeros(2, saved.sampler().prior.dim)})


def _card(saved: SavedLearnedPrior) -> Card:
    assert saved.config.learned_prior is not None  # noqa: S101 (else this is another task)
    method, prior = saved.config.learned_prior.method, saved.config.prior
    dim, shape = saved.sampler().prior.dim, ", ".join(map(str, saved.image_shape))
    # What is drawn besides z only the package knows.
    draw = (
        "from gan.randomness import stream\n"
        'z = generator.sampler().prior.sample(n, stream(0, "samples")).numpy()'
        if method in ("mixture", "importance")
        else z_lines(prior)
    )
    return Card(
        heading="Generator with a learned prior",
        what=f"A generator G of generative adversarial nets {PAPER.removesuffix(')')}, section "
        f"7) with a distribution of z of its own (`learned_prior.method={method}`): a multilayer "
        f"perceptron of {n_parameters(saved)} parameters in all. It takes noise of {dim} "
        f"coordinates; {LEARNED[method]}. It turns this into images",
        caption="These are the first {n_samples} samples of seed {seed}; none was picked.",
        scores=(
            "`plain_frechet_distance` and `plain_coverage` are those of the same generator with "
            "z of a fixed\ndistribution: what was learned of z is the difference.",
        )
        if saved.plain() is not None
        else (),
        python=f"images = generator.sampler().sample(\n    64, seed=0\n)  # [64, {shape}], "
        "float32 in [0, 1]",
        onnx=f"{draw}\n(images,) = session.run(\n"
        f'    ["images"], {{"z": z.astype(np.float32)}}\n)  # [64, {shape}]',
        use=REFERENCE,
        limits=(
            "Nothing steers what is drawn: the noise has no coordinate that means a class or a "
            "trait.",
        ),
    )


LEARNED_PRIOR = Product(
    title="Learned distribution of z",
    picture=PICTURE,
    caption="Of a stack, or of z chosen by D, rows in pairs: above the generator's images of "
    "plain noise, below those of the z that was made or chosen of the same noise. Of a mixture a "
    "component in each row; else samples.",
    groups=(
        Group(
            title="Without what was learned",
            reading="The same generator with z of a fixed distribution: what was learned of z is "
            "the difference to the scores of the samples.",
            good={"plain_frechet_distance": LESS, "plain_coverage": MORE},
        ),
    ),
    measure=measure,
    findings=findings,
    draw_picture=draw_picture,
    exported=_exported,
    served=served_images,
    draw=draw_images,
    card=_card,
)
