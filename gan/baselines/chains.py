"""Samples of Markov chains that run side by side."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

State = TypeVar("State")
"""Of all chains: tensors whose first axis is the chain."""


@dataclass(frozen=True, kw_only=True)
class Chains(Generic[State]):
    """Rows for `gan.sampling.draw_in_blocks`, read off chains that all begin anew in each block.

    Rows of different chains are independent; those of one chain are `thinning` transitions apart
    and depend on each other as far as it has not mixed by then.  A block lists the first row of
    every chain, then the second of every chain, and so on.

    Attributes:
        start: number of chains, random stream -> their states before the first transition.
        transition: states, random stream -> states after one more transition.
        read: states -> one row of each chain, [n_chains, d].
        rows_per_chain: rows of a block that come from one chain; 1: all are independent.
        burn_in: transitions before the first row is read.
        thinning: transitions from one row of a chain to the next.
    """

    start: Callable[[int, torch.Generator], State]
    transition: Callable[[State, torch.Generator], State]
    read: Callable[[State], Tensor]
    rows_per_chain: int
    burn_in: int
    thinning: int

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """A block of n rows, [n, d]."""
        state = self._run(self.start(math.ceil(n / self.rows_per_chain), rng), self.burn_in, rng)
        rows = [self.read(state)]
        for _ in range(self.rows_per_chain - 1):
            state = self._run(state, self.thinning, rng)
            rows.append(self.read(state))
        return torch.cat(rows)[:n]

    def _run(self, state: State, n_transitions: int, rng: torch.Generator) -> State:
        for _ in range(n_transitions):
            state = self.transition(state, rng)
        return state
