"""Where the next trial lies: grid, random or TPE, each resumable from the ledger alone."""

from collections.abc import Callable
from typing import Any, Protocol

import optuna
from ray.tune.search import Searcher

from gan.config import SweepConfig
from gan.objectives import Objective
from gan.randomness import stream_seed
from tuning.ledger import Ledger, best_report
from tuning.space import Choice, Dimension, IntegerRange, Space, grid_points, random_point

Merit = float | None
"""How good a trial was by the sweep's objective, larger is better; None if it failed."""


class Proposer(Protocol):
    """A search strategy."""

    @property
    def n_trials(self) -> int:
        """Trials in all."""
        ...

    def propose(self, index: int) -> dict[str, Any]:
        """Settings of trial `index`: dotted path -> value."""
        ...

    def tell(self, index: int, overrides: dict[str, Any], merit: Merit) -> None:
        """Learn the merit of a trial that has ended."""
        ...


class ListProposer:
    """Settings that depend on the index alone, as in grid and random search."""

    def __init__(self, n_trials: int, point: Callable[[int], dict[str, Any]]) -> None:
        self.n_trials, self.propose = n_trials, point

    def tell(self, index: int, overrides: dict[str, Any], merit: Merit) -> None:
        """Nothing is learnt."""


class OptunaProposer:
    """Tree-structured Parzen estimator (Bergstra et al., 2011) by Optuna.

    The study lives in memory; a resumed sweep tells it again what the ledger holds.
    """

    def __init__(self, space: Space, *, n_trials: int, seed: int) -> None:
        self.n_trials = n_trials
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(direction="maximize")
        self._space, self._seed = space, seed
        self._distributions = {path: _distribution(dim) for path, dim in space.items()}
        self._asked: dict[int, optuna.trial.Trial] = {}

    def propose(self, index: int) -> dict[str, Any]:
        """Settings of trial `index`: dotted path -> value."""
        # A stream for each trial: a sampler that began anew with a resumed sweep would propose
        # the first trials again.
        seed = stream_seed(self._seed, f"trial/{index}") % 2**32
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        trial = self._study.ask(self._distributions)
        self._asked[index] = trial
        return {path: _from_optuna(self._space[path], v) for path, v in trial.params.items()}

    def tell(self, index: int, overrides: dict[str, Any], merit: Merit) -> None:
        """Learn the merit of a trial that has ended."""
        state = optuna.trial.TrialState.FAIL if merit is None else None
        if index in self._asked:
            self._study.tell(self._asked.pop(index), merit, state=state)
            return
        params = {path: _to_optuna(self._space[path], v) for path, v in overrides.items()}
        self._study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions=self._distributions,
                value=merit,
                state=state or optuna.trial.TrialState.COMPLETE,
            )
        )


class LedgerSearch(Searcher):
    """Hands the tuner what the ledger lacks: trials cut short first, then new ones.

    Args:
        ledger: the sweep.
        proposer: the strategy for new trials.
        spec: index and settings of a trial -> the config that its worker receives.
        objective: by whose merit the strategy learns.
    """

    def __init__(
        self,
        ledger: Ledger,
        proposer: Proposer,
        spec: Callable[[int, dict[str, Any]], dict[str, Any]],
        *,
        objective: Objective,
    ) -> None:
        super().__init__(metric="step", mode="max")
        self._ledger, self._proposer, self._spec = ledger, proposer, spec
        self._objective = objective
        self._overrides = ledger.proposals()
        done = {result.trial: result for result in ledger.results()}
        for index, result in done.items():
            proposer.tell(index, self._overrides[index], self._merit(result.history))
        self._todo = [i for i in self._overrides if i not in done]
        self._todo += [i for i in range(proposer.n_trials) if i not in self._overrides]
        self._index_of: dict[str, int] = {}

    @property
    def n_todo(self) -> int:
        """Trials that are still to be started."""
        return len(self._todo)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The config of the next trial, or `Searcher.FINISHED`."""
        if not self._todo:
            return str(Searcher.FINISHED)
        index = self._todo.pop(0)
        self._index_of[trial_id] = index
        if index not in self._overrides:
            self._overrides[index] = self._proposer.propose(index)
            self._ledger.propose(index, self._overrides[index])
        return self._spec(index, self._overrides[index])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the strategy how a trial did."""
        index = self._index_of[trial_id]
        history = [] if error else self._ledger.history(index)
        self._proposer.tell(index, self._overrides[index], self._merit(history))

    def _merit(self, history: list[dict[str, float]]) -> Merit:
        best = best_report(history, self._objective)
        return None if best is None else self._objective.merit(best)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it all."""


def build_proposer(cfg: SweepConfig, space: Space) -> Proposer:
    """The strategy that a configuration names.

    Raises:
        ConfigError: if a grid has a dimension that is not a choice.
    """
    if cfg.search == "grid":
        points = grid_points(space)
        return ListProposer(len(points), points.__getitem__)
    if cfg.search == "random":
        return ListProposer(
            cfg.n_trials, lambda index: random_point(space, seed=cfg.seed, index=index)
        )
    return OptunaProposer(space, n_trials=cfg.n_trials, seed=cfg.seed)


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    """Optuna's form of a dimension; a choice by position, since its values may be lists."""
    if isinstance(dimension, Choice):
        return optuna.distributions.CategoricalDistribution(range(len(dimension.values)))
    if isinstance(dimension, IntegerRange):
        return optuna.distributions.IntDistribution(dimension.low, dimension.high)
    return optuna.distributions.FloatDistribution(
        dimension.low, dimension.high, log=dimension.is_log
    )


def _from_optuna(dimension: Dimension, value: Any) -> Any:
    return dimension.values[value] if isinstance(dimension, Choice) else value


def _to_optuna(dimension: Dimension, value: Any) -> Any:
    return dimension.values.index(value) if isinstance(dimension, Choice) else value
