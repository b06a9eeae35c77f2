"""The rivals of Table 1 in the pipeline: judged by their images, as the GAN is."""

from dataclasses import dataclass

import torch

from gan.baselines.baseline import SavedBaseline
from gan.config import Task
from pipeline.product import Card, Exported, Product
from pipeline.products.generator import draw_images, n_parameters, served_images


@dataclass(frozen=True, kw_only=True)
class Rival:
    """What the pipeline says of one baseline.

    Attributes:
        title: of its section in a report.
        source: the paper that it implements.
        code: what the last map of a sample takes.
        origin: where a code comes from, so that the map gives a sample.
        has_prior: whether codes are draws from N(0, I).
    """

    title: str
    source: str
    code: str
    origin: str
    has_prior: bool = False


RIVALS: dict[Task, Rival] = {
    "vae": Rival(
        title="Variational autoencoder",
        source="Kingma and Welling, 2014, arXiv:1312.6114",
        code="z",
        origin="independent standard Gaussians",
        has_prior=True,
    ),
    "stacked_cae": Rival(
        title="Stacked contractive autoencoder",
        source="Rifai et al., 2011 and 2012, arXiv:1206.6434",
        code="codes of the first layer",
        origin="decoded from where a walk among codes of the last one has come",
    ),
    "gsn": Rival(
        title="Deep generative stochastic network",
        source="Bengio et al., 2014, arXiv:1306.1091",
        code="the first hidden layer",
        origin="as its Markov chain has left it",
    ),
    "dbn": Rival(
        title="Deep belief net",
        source="Hinton, Osindero and Teh, 2006",
        code="the first hidden layer",
        origin="drawn from the layers above, whose top two a Gibbs chain draws",
    ),
    "dbm": Rival(
        title="Deep Boltzmann machine",
        source="Salakhutdinov and Hinton, 2009",
        code="the first hidden layer",
        origin="as a Gibbs chain has left it",
    ),
}
"""By `RunConfig.task`."""


def _exported(saved: SavedBaseline) -> Exported:
    decoder, width = saved.model.decoder()
    net = torch.nn.Sequential(decoder, torch.nn.Unflatten(1, saved.image_shape))
    return Exported(net=net, examples={"code": torch.zeros(2, width)})


def _card(saved: SavedBaseline) -> Card:
    rival = RIVALS[saved.config.task]
    width, shape = saved.model.decoder()[1], ", ".join(map(str, saved.image_shape))
    draw = (
        f"code = np.random.default_rng(0).standard_normal((n, {width}))"
        if rival.has_prior
        else f"code = np.zeros((n, {width}))  # to be {rival.code}, {rival.origin}"
    )
    return Card(
        heading=rival.title,
        what="A rival of generative adversarial nets in Table 1 or the related work of Goodfellow "
        f"et al. (2014): {rival.title.lower()} ({rival.source}). Its images are made of "
        f"{rival.code}, {rival.origin}, by a map of {n_parameters(saved)} parameters",
        caption="These are the first {n_samples} samples of seed {seed}; none was picked.",
        python=f"images = generator.sampler().sample(\n    64, seed=0\n)  # [64, {shape}], "
        "float32 in [0, 1]",
        onnx=f"{draw}\n(images,) = session.run(\n"
        f'    ["images"], {{"code": code.astype(np.float32)}}\n)  # [64, {shape}]',
        use="Research and teaching: what generative adversarial nets are compared with, by the "
        "same scores.",
        limits=("Nothing steers what is drawn.",),
        is_of_algorithm_1=False,
    )


BASELINES: dict[Task, Product] = {
    task: Product(
        title=rival.title,
        exported=_exported,
        served=served_images,
        draw=draw_images,
        card=_card,
    )
    for task, rival in RIVALS.items()
}
"""By `RunConfig.task`."""
