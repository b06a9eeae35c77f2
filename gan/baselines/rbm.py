"""Restricted Boltzmann machines of binary units, of which the deep ones are made.

The names are those of the field: v and h for the states of visible and hidden units, `propup` and
`propdown` for the probabilities of one layer given the other.
"""

import bisect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from gan.layers import product

INITIAL_STD = 0.01
"""Of the weights, which start normal around 0: Hinton (2010), section 8."""


def draw(p: Tensor, rng: torch.Generator) -> Tensor:
    """Independent units, 1 with probability p and else 0, in the shape of p."""
    return torch.rand(p.shape, generator=rng, device=p.device, dtype=p.dtype).lt_(p)


def outer_mean(h: Tensor, v: Tensor) -> Tensor:
    """Mean of h v^T over rows: [n, n_hidden], [n, n_visible] -> [n_hidden, n_visible]."""
    return product(h.T, v).div_(len(v))


class Rbm(nn.Module):
    """Binary units v and h, of which no two of the same kind are joined.

        E(v, h) = - h^T W v - vbias^T v - hbias^T h,    p(v, h) = exp(-E(v, h)) / Z

    `up` and `down` other than 1 are for the layers of a deep Boltzmann machine before they are put
    together: what hidden (visible) units receive is multiplied by it, as though it came from so
    many copies of the layer below (above).  No p(v, h) belongs to `up` = 2, `down` = 1; see
    section 3.1 of Salakhutdinov and Hinton (2009).

    Attributes:
        weight: W, [n_hidden, n_visible].
        vbias: [n_visible].
        hbias: [n_hidden].
        chain: visible states where the Gibbs chains of the last update ended,
            [n_chains, n_visible]; from there persistent chains go on, and samples are drawn.

    Args:
        n_visible: visible units.
        n_hidden: hidden units.
        n_chains: Gibbs chains, as many as images in a minibatch.
        up: factor on what hidden units receive.
        down: factor on what visible units receive.
        rng: stream of the initial weights, on the CPU.
    """

    chain: Tensor

    def __init__(
        self,
        n_visible: int,
        n_hidden: int,
        *,
        n_chains: int,
        up: float = 1.0,
        down: float = 1.0,
        rng: torch.Generator,
    ) -> None:
        super().__init__()
        self.up, self.down = up, down
        self.weight = nn.Parameter(torch.empty(n_hidden, n_visible))
        nn.init.normal_(self.weight, std=INITIAL_STD, generator=rng)
        self.vbias = nn.Parameter(torch.zeros(n_visible))
        self.hbias = nn.Parameter(torch.zeros(n_hidden))
        self.register_buffer("chain", torch.zeros(n_chains, n_visible))

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = - log sum_h exp(-E(v, h)), [n, n_visible] -> [n].

        With `up` other than 1: of v as one of the copies, so that its gradient is what CD follows.
        """
        return self._free_energy(v, self._received(v))

    def propup(self, v: Tensor) -> Tensor:
        """p(h = 1 | v), [n, n_visible] -> [n, n_hidden]."""
        return self._received(v).sigmoid_()

    def propdown(self, h: Tensor) -> Tensor:
        """p(v = 1 | h), [n, n_hidden] -> [n, n_visible]."""
        return product(h, self.weight).add_(self.vbias).mul_(self.down).sigmoid_()

    def sample_h_given_v(self, v: Tensor, rng: torch.Generator) -> Tensor:
        """Hidden states of p(h|v), [n, n_visible] -> [n, n_hidden]."""
        return draw(self.propup(v), rng)

    def sample_v_given_h(self, h: Tensor, rng: torch.Generator) -> Tensor:
        """Visible states of p(v|h), [n, n_hidden] -> [n, n_visible]."""
        return draw(self.propdown(h), rng)

    def gibbs_vhv(self, v: Tensor, rng: torch.Generator) -> Tensor:
        """One step of the chain: h given v, then v given h; [n, n_visible] both ways."""
        return self.sample_v_given_h(self.sample_h_given_v(v, rng), rng)

    def contrast(
        self, v: Tensor, *, k: int, persistent: bool, rng: torch.Generator
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Contrastive divergence: gradients to descend, of W, vbias and hbias; and the gap.

        Those of the mean F(v) over the minibatch less the mean F over the ends of chains that take
        k Gibbs steps, from the minibatch (CD-k) or from where the last update left them (PCD).  At
        chains in equilibrium they are the gradients of -log p(v).  The gap is that difference.

        Args:
            v: minibatch of binary rows, [n_chains, n_visible].
            k: Gibbs steps.
            persistent: PCD rather than CD.
            rng: of the chains.

        Source: Hinton (2002); Tieleman (2008), "Training restricted Boltzmann machines using
        approximations to the likelihood gradient".
        """
        end = self.chain if persistent else v
        for _ in range(k):
            end = self.gibbs_vhv(end, rng)
        self.chain.copy_(end)
        received, received_end = self._received(v), self._received(end)
        gap = self._free_energy(v, received).mean() - self._free_energy(end, received_end).mean()
        h, h_end = received.sigmoid_(), received_end.sigmoid_()
        gradients = (
            outer_mean(h_end, end) - outer_mean(h, v),
            end.mean(0) - v.mean(0),
            h_end.mean(0) - h.mean(0),
        )
        return gradients, gap

    def begin_at(self, v: Tensor) -> None:
        """Start the chains at v, [n_chains, n_visible]."""
        self.chain.copy_(v)

    def _received(self, v: Tensor) -> Tensor:
        return product(v, self.weight.T).add_(self.hbias).mul_(self.up)

    def _free_energy(self, v: Tensor, received: Tensor) -> Tensor:
        return -(v @ self.vbias) - softplus(received).sum(1) / self.up


class Propdown(nn.Module):
    """h of a machine's first hidden layer to the means of its pixels."""

    def __init__(self, rbm: Rbm) -> None:
        super().__init__()
        self.rbm = rbm

    def forward(self, h: Tensor) -> Tensor:
        """[n, n_hidden] -> [n, n_visible]."""
        return torch.sigmoid(h @ self.rbm.weight + self.rbm.vbias)


class GibbsChains:
    """Rows from Gibbs chains that run side by side: see `gan.sampling.Rows`.

    Args:
        step: one step of all chains, states [n_chains, d] -> [n_chains, d].
        start: their states before the first step, [n_chains, d].
        read: states to what is wanted of them, [n_chains, d] -> [n_chains, e].
        burn_in: steps before the first rows.
        thin: steps between two rows of a chain.
    """

    def __init__(
        self,
        step: Callable[[Tensor, torch.Generator], Tensor],
        start: Tensor,
        *,
        read: Callable[[Tensor, torch.Generator], Tensor],
        burn_in: int,
        thin: int,
    ) -> None:
        self._step, self._states, self._read = step, start, read
        self._n_steps, self._thin = burn_in, thin

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """The next rows, [n, e]; first one of every chain, then the next one of every chain."""
        rows: list[Tensor] = []
        while len(rows) * len(self._states) < n:
            for _ in range(self._n_steps):
                self._states = self._step(self._states, rng)
            self._n_steps = self._thin
            rows.append(self._read(self._states, rng))
        return torch.cat(rows)[:n]


def phase_at(step: int, ends: Sequence[int]) -> tuple[int, float]:
    """The phase of training that a step lies in, and the share of it that is done, in [0, 1].

    Args:
        step: updates so far.
        ends: of each phase, the updates after which it is over; ascending.
    """
    phase = min(bisect.bisect_right(ends, step), len(ends) - 1)
    begin = ends[phase - 1] if phase else 0
    return phase, (step - begin) / (ends[phase] - begin)


def annealed(done: float, *, anneal_from: float) -> float:
    """Factor on the step size: 1, then linear to 0 from the share `anneal_from` of a phase on."""
    return 1.0 if done <= anneal_from else (1 - done) / (1 - anneal_from)
