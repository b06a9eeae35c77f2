"""Table 2 of the paper: where each way of generative modelling has its difficulties.

In words of our own, each cell with the place in the page, or in this system, that shows it.
"""

from typing import NamedTuple


class Cell(NamedTuple):
    """A cell of the table.

    Attributes:
        text: the difficulty, or that there is none.
        anchor: of the place in the page that shows it.
        shown_by: what that place shows, or a module of this system.
    """

    text: str
    anchor: str
    shown_by: str


MODELS = (
    "Deep directed graphical models",
    "Deep undirected graphical models",
    "Generative autoencoders",
    "Adversarial models",
)
OPERATIONS: dict[str, tuple[Cell, Cell, Cell, Cell]] = {
    "Training": (
        Cell(
            "Each update takes inference: the upper layers learn from codes of the lower ones.",
            "subject-dbn",
            "belief net: gan/baselines/dbn.py",
        ),
        Cell(
            "Each update takes inference, and Markov chains for the gradient of the partition "
            "function.",
            "subject-dbm",
            "mean field and persistent chains: gan/baselines/dbm.py",
        ),
        Cell(
            "Reconstructing well and mixing well pull apart.",
            "subject-stacked_cae",
            "the walk among codes: gan/baselines/stacked_cae.py",
        ),
        Cell(
            "D must be kept in step with G, or G collapses: the Helvetica scenario.",
            "theory",
            "“If D is not kept in step”: gan/theory.py",
        ),
    ),
    "Inference": (
        Cell(
            "An approximation that is learned.",
            "subject-vae",
            "the encoder of the autoencoder: gan/baselines/vae.py",
        ),
        Cell(
            "Variational inference.",
            "subject-dbm",
            "mean-field updates: gan/baselines/dbm.py",
        ),
        Cell(
            "A Markov chain.",
            "subject-gsn",
            "walkback: gan/baselines/gsn.py",
        ),
        Cell(
            "An approximation that is learned.",
            "claim-inference",
            "the extension inference, a net from x to z: gan/extensions/inference",
        ),
    ),
    "Sampling": (
        Cell(
            "None: from the top down. (The top of a belief net is undirected, and takes a chain.)",
            "subject-vae",
            "one pass of the decoder: gan/baselines/vae.py",
        ),
        Cell(
            "A Markov chain.",
            "subject-dbm",
            "Gibbs chains, all samples side by side: gan/baselines/chains.py",
        ),
        Cell(
            "A Markov chain.",
            "subject-gsn",
            "chains of corruption and denoising: gan/baselines/gsn.py",
        ),
        Cell(
            "None: one pass of G.",
            "figure-2",
            "Figure 2: gan/sampling.py",
        ),
    ),
    "Evaluating p(x)": (
        Cell(
            "Intractable; annealed importance sampling comes near.",
            "claim-ais",
            "gan evaluate --ais on a decoder: gan/evaluation/ais.py",
        ),
        Cell(
            "Intractable; annealed importance sampling comes near.",
            "subject-dbm",
            "partition functions by enumeration, in tests of small nets: gan/baselines/rbm.py",
        ),
        Cell(
            "Not there explicitly; a Parzen window on samples stands in.",
            "table-1",
            "Table 1: gan/evaluation/parzen.py",
        ),
        Cell(
            "Not there explicitly; a Parzen window on samples stands in.",
            "table-1",
            "Table 1: gan/evaluation/parzen.py",
        ),
    ),
    "Model design": (
        Cell(
            "Bound to the scheme of inference, some of which leave as much room as here.",
            "subject-vae",
            "a Gaussian code that can be reparameterised: gan/baselines/vae.py",
        ),
        Cell(
            "Several properties must hold at once.",
            "subject-dbm",
            "energies whose conditionals factorise: gan/baselines/dbm.py",
        ),
        Cell(
            "Any differentiable map will do.",
            "subject-stacked_cae",
            "encoders and decoders: gan/baselines/stacked_cae.py",
        ),
        Cell(
            "Any differentiable map will do.",
            "subject-cifar10_conv",
            "deconvolutions in G, maxout convolutions in D: gan/conv_nets.py",
        ),
    ),
}
