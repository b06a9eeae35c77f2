"""What is proposed next: after a restart the same as without one, and nothing that is done."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.tune.search import Searcher

from gan.checkpoint import save_checkpoint
from gan.config import RunConfig, SweepConfig
from gan.errors import ConfigError
from gan.objectives import OBJECTIVES, Objective
from tests.tuning.tiny_sweeps import a_result, scores
from tuning.ledger import Ledger
from tuning.search import LedgerSearch, OptunaProposer, build_proposer
from tuning.space import Space, parse_space, random_point

SPACE = {
    "train.learning_rate": {"loguniform": [1e-4, 1.0]},
    "generator.hidden": {"choice": [[16], [16, 16], [240]]},
    "generator.init_range": {"choice": [None, 0.05]},
    "prior.dim": {"randint": [2, 100]},
}
KINDS = ["random", "optuna"]
PARZEN, DISTANCE = OBJECTIVES["parzen_ll_valid"], OBJECTIVES["frechet_distance_valid"]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "tiny")


def space_of(spec: dict[str, Any]) -> Space:
    return parse_space(spec, RunConfig())


def new_search(ledger: Ledger, search: str = "random", n_trials: int = 6) -> LedgerSearch:
    """What a driver builds when it starts, or starts again."""
    spec = SPACE if search != "grid" else {"train.d_steps": {"choice": [1, 2, 3]}}
    cfg = SweepConfig(search=search, n_trials=n_trials, seed=3, space=spec)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        proposer = build_proposer(cfg, space_of(spec))
    return LedgerSearch(
        ledger,
        proposer,
        lambda index, overrides: {"index": index, "overrides": overrides},
        objective=PARZEN,
    )


def suggest(search: LedgerSearch, trial_id: str) -> tuple[int, dict[str, Any]]:
    config = search.suggest(trial_id)
    assert isinstance(config, dict)
    return config["index"], config["overrides"]


def finish(ledger: Ledger, index: int, score: float) -> None:
    """What a trial's process leaves behind."""
    overrides = ledger.proposals()[index]
    ledger.write_result(a_result(index, overrides=overrides, history=scores(10, [score])))


@pytest.mark.parametrize("kind", [*KINDS, "grid"])
def test_trials_are_recorded_before_they_start_and_then_there_are_no_more(ledger, kind):
    search = new_search(ledger, kind, n_trials=3)
    assert search.n_todo == 3
    for n in range(3):
        index, overrides = suggest(search, f"id{n}")
        assert index == n
        assert ledger.proposals()[n] == overrides
    assert search.suggest("id3") == Searcher.FINISHED
    assert search.n_todo == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_runs_unfinished_trials_first_then_new_ones_and_none_that_is_done(ledger, kind):
    first = new_search(ledger, kind)
    proposed = dict(suggest(first, f"a{n}") for n in range(4))
    finish(ledger, 0, -1.0)
    finish(ledger, 2, -2.0)

    again = new_search(ledger, kind)
    assert again.n_todo == 4
    resumed = [suggest(again, f"b{n}") for n in range(4)]
    assert [index for index, _ in resumed] == [1, 3, 4, 5]
    assert dict(resumed[:2]) == {1: proposed[1], 3: proposed[3]}
    assert again.suggest("b4") == Searcher.FINISHED
    for n in (1, 3, 4, 5):
        finish(ledger, n, 0.0)
    assert new_search(ledger, kind).n_todo == 0


def test_random_trials_are_those_of_the_seed_and_the_index(ledger):
    search = new_search(ledger)
    expected = [random_point(space_of(SPACE), seed=3, index=i) for i in range(6)]
    assert [suggest(search, f"id{n}")[1] for n in range(6)] == expected


def test_a_grid_has_as_many_trials_as_combinations(ledger):
    search = new_search(ledger, "grid", n_trials=99)
    assert search.n_todo == 3
    assert [suggest(search, f"id{n}")[1]["train.d_steps"] for n in range(3)] == [1, 2, 3]


def test_a_grid_refuses_a_range():
    cfg = SweepConfig(search="grid", space=SPACE)
    with pytest.raises(ConfigError, match="a grid takes"):
        build_proposer(cfg, space_of(SPACE))


class Spy:
    """A strategy that remembers what it was told."""

    n_trials = 4

    def __init__(self) -> None:
        self.told: list[tuple[int, float | None]] = []

    def propose(self, index: int) -> dict[str, Any]:
        return {"seed": index}

    def tell(self, index: int, overrides: dict[str, Any], merit: float | None) -> None:
        assert overrides == {"seed": index}
        self.told.append((index, merit))


def watched_search(ledger: Ledger, objective: Objective) -> tuple[Spy, LedgerSearch]:
    spy = Spy()
    search = LedgerSearch(
        ledger, spy, lambda index, _: {"index": index, "overrides": {}}, objective=objective
    )
    return spy, search


def test_the_strategy_is_told_of_every_trial_once_and_after_a_restart_again(ledger):
    spy, search = watched_search(ledger, PARZEN)
    for n in range(4):
        search.suggest(f"id{n}")
    finish(ledger, 0, -5.0)
    search.on_trial_complete("id0", result={"step": 10, "parzen_ll_valid": 99.0})
    ledger.write_result(
        a_result(1, overrides={"seed": 1}, status="failed", history=[{"step": 5, "d_loss": 1.0}])
    )
    search.on_trial_complete("id1")
    finish(ledger, 2, -7.0)  # ended, but the driver was killed before it heard of it
    assert spy.told == [(0, -5.0), (1, None)]

    spy, search = watched_search(ledger, PARZEN)
    assert spy.told == [(0, -5.0), (1, None), (2, -7.0)]
    assert search.n_todo == 1
    search.suggest("id3")
    meta = {"history": scores(10, [9.0]), "elapsed_seconds": 1.0}
    save_checkpoint(ledger.trial_folder(3) / "checkpoints", step=10, tensors={}, meta=meta)
    search.on_trial_complete("id3", error=True)  # its score is not the one it would have had
    assert spy.told[-1] == (3, None)


def test_the_strategy_is_told_the_merit_of_the_smallest_distance(ledger):
    def end(index: int, distances: list[float]) -> None:
        history = scores(10, distances, DISTANCE.metric)
        overrides = {"seed": index}
        result = a_result(index, objective=DISTANCE.metric, overrides=overrides, history=history)
        ledger.write_result(result)

    spy, search = watched_search(ledger, DISTANCE)
    for n in range(2):
        search.suggest(f"id{n}")
    end(0, [7.0, 3.0, 5.0])
    search.on_trial_complete("id0")
    end(1, [2.0, 8.0])
    assert spy.told == [(0, -3.0)]
    again, _ = watched_search(ledger, DISTANCE)
    assert again.told == [(0, -3.0), (1, -2.0)]


def test_the_tuners_own_snapshots_are_neither_written_nor_read(ledger, tmp_path):
    search = new_search(ledger)
    search.save(str(tmp_path / "snapshot"))
    assert not (tmp_path / "snapshot").exists()
    search.restore(str(tmp_path / "snapshot"))
    assert search.n_todo == 6


def valley(overrides: dict[str, Any]) -> float:
    """A score whose best is at a learning rate of 0.01."""
    return -abs(np.log10(overrides["train.learning_rate"]) + 2)


@pytest.mark.parametrize("n_before", [3, 15])
def test_optuna_after_a_restart_proposes_what_it_would_have_without_one(tmp_path, n_before):
    def run(ledger: Ledger, search: LedgerSearch, n: int) -> None:
        for _ in range(n):
            index, overrides = suggest(search, f"id{len(ledger.proposals())}")
            finish(ledger, index, valley(overrides))
            search.on_trial_complete(f"id{index}")

    whole, halves = Ledger(tmp_path / "whole"), Ledger(tmp_path / "halves")
    run(whole, new_search(whole, "optuna", n_trials=20), 20)
    run(halves, new_search(halves, "optuna", n_trials=20), n_before)
    run(halves, new_search(halves, "optuna", n_trials=20), 20 - n_before)
    assert halves.proposals() == whole.proposals()
    points = [str(point) for point in whole.proposals().values()]
    assert len(set(points)) == 20
    assert {len(p["generator.hidden"]) for p in whole.proposals().values()} == {1, 2}


def best_of(n: int, seed: int, *, is_optuna: bool) -> float:
    space = space_of({"train.learning_rate": SPACE["train.learning_rate"]})
    proposer = OptunaProposer(space, n_trials=n, seed=seed)
    best = -np.inf
    for index in range(n):
        if is_optuna:
            point = proposer.propose(index)
            proposer.tell(index, point, valley(point))
        else:
            point = random_point(space, seed=seed, index=index)
        best = max(best, valley(point))
    return best


def test_optuna_finds_the_best_learning_rate_better_than_chance_does():
    learnt = [best_of(30, seed, is_optuna=True) for seed in range(8)]
    chance = [best_of(30, seed, is_optuna=False) for seed in range(8)]
    assert np.mean(learnt) > np.mean(chance)
    assert learnt == [best_of(30, seed, is_optuna=True) for seed in range(8)]


def test_optuna_learns_from_trials_of_an_earlier_process():
    space = space_of({"train.learning_rate": SPACE["train.learning_rate"]})
    ignorant = OptunaProposer(space, n_trials=80, seed=0)
    learned = OptunaProposer(space, n_trials=80, seed=0)
    for index in range(40):
        point = random_point(space, seed=5, index=index)
        learned.tell(index, point, valley(point))
    scores_of = {
        proposer: np.mean([valley(proposer.propose(index)) for index in range(40, 60)])
        for proposer in (ignorant, learned)
    }
    assert scores_of[learned] > scores_of[ignorant] + 0.3


@pytest.mark.parametrize(("metric", "sign"), [("parzen_ll_valid", 1), (DISTANCE.metric, -1)])
def test_optuna_makes_the_objective_better(ledger, metric, sign):
    """A sweep in which the score is best at a learning rate of 0.01, in either direction."""
    spec = {"train.learning_rate": SPACE["train.learning_rate"]}
    cfg = SweepConfig(search="optuna", n_trials=60, seed=3, space=spec, objective=metric)
    search = LedgerSearch(
        ledger,
        build_proposer(cfg, space_of(spec)),
        lambda index, overrides: {"index": index, "overrides": overrides},
        objective=OBJECTIVES[metric],
    )
    heights = []
    for n in range(60):
        index, overrides = suggest(search, f"id{n}")
        heights.append(valley(overrides))
        history = scores(10, [sign * heights[-1]], metric)
        result = a_result(index, objective=metric, overrides=overrides, history=history)
        ledger.write_result(result)
        search.on_trial_complete(f"id{n}")
    assert np.mean(heights[40:]) > np.mean(heights[:10]) + 0.3


def test_optuna_goes_on_after_failures_alone(ledger):
    search = new_search(ledger, "optuna", n_trials=14)
    for n in range(13):
        _, overrides = suggest(search, f"id{n}")
        ledger.write_result(a_result(n, overrides=overrides, status="failed", history=[]))
        search.on_trial_complete(f"id{n}")
    assert suggest(new_search(ledger, "optuna", n_trials=14), "id13")[0] == 13
