"""z chosen among candidates by what D says of their images: sampling-importance-resampling.

    one of z_1 ... z_c ~ p(z), with odds D / (1 - D) at G(z_i)

For the best D these odds are the density of the data over that of G, so that with many candidates
the images have the distribution of the data.

Source: Azadi et al. (2019), "Discriminator Rejection Sampling", equation 4; Rubin (1987).
Differs: Azadi et al. reject, which takes a number of draws that is not known before, and do so
after training only; here z is resampled in G's updates and in sampling alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gan.nets import Discriminator, Generator, Player
from gan.priors import Prior


@dataclass(frozen=True)
class Candidates:
    """Rows [z_1 ... z_c, u_1 ... u_c]: c draws of a prior, and for each one a uniform number."""

    prior: Prior
    n_candidates: int

    @property
    def dim(self) -> int:
        """Coordinates of a row."""
        return self.n_candidates * (self.prior.dim + 1)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw n independent rows, [n, dim] float32."""
        z = self.prior.sample(n * self.n_candidates, rng).view(n, -1)
        u = torch.rand(n, self.n_candidates, generator=rng, device=rng.device)
        return torch.cat([z, u], 1)

    def split(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """Rows -> their candidates z [n c, dim], and their uniform numbers u [n, c]."""
        z = row[:, : -self.n_candidates].reshape(-1, self.prior.dim)
        return z, row[:, -self.n_candidates :]


def drawn_candidate(logits: Tensor, u: Tensor) -> Tensor:
    """Index of one candidate of each row, drawn with odds exp(logit) = D / (1 - D): [n].

    The largest of logit - log(-log u), where the second term is Gumbel's distribution.

    Args:
        logits: D's of the candidates' images, [n, c].
        u: uniform on [0, 1), [n, c].

    Source: Gumbel (1954), lecture 4; Maddison et al. (2014), "A* sampling", section 2.
    """
    gumbel = -torch.log(-torch.log(u.clamp(min=1e-12, max=1 - 1e-7)))
    return (logits + gumbel).argmax(1)


@dataclass(frozen=True)
class ResampledPrior:
    """z as the nets, as they are now, choose it among candidates; neither is trained by this.

    Attributes:
        candidates: rows to choose from.
        G: makes the images.
        D: says how far they are images of the data.
    """

    candidates: Candidates
    G: Player
    D: Player

    @property
    def dim(self) -> int:
        """Coordinates of z."""
        return self.candidates.prior.dim

    @torch.no_grad()
    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw n independent z, [n, dim] float32."""
        z, u = self.candidates.split(self.candidates.sample(n, rng))
        # Without dropout and by running statistics: no candidate's chance depends on another row.
        self.G.eval(), self.D.eval()
        chosen = drawn_candidate(self.D(self.G(z)).view_as(u), u)
        self.G.train(), self.D.train()
        return z.view(n, -1, self.dim)[torch.arange(n, device=z.device), chosen]


class ResampledGenerator(Player):
    """G of the z that D chose: rows of `Candidates` in.  In evaluation mode alone.

    Args:
        G: takes z.
        D: takes images.
        candidates: what the rows are.
    """

    def __init__(self, G: Generator, D: Discriminator, candidates: Candidates) -> None:
        super().__init__()
        self.G, self.D, self.candidates = G, D, candidates

    def draw_masks(self, n: int, rng: torch.Generator) -> list[Tensor | None]:
        """None: it is not trained."""
        return []

    def forward(self, row: Tensor, masks: Sequence[Tensor | None] | None = None) -> Tensor:
        """[n, c (dim + 1)] -> [n, n_pixels] in (0, 1)."""
        z, u = self.candidates.split(row)
        x = self.G(z)
        chosen = drawn_candidate(self.D(x).view_as(u), u)
        images: Tensor = x.unflatten(0, (-1, self.candidates.n_candidates))
        return images.gather(1, chosen.view(-1, 1, 1).expand(-1, 1, x.shape[1])).squeeze(1)
