"""NNI's strategies behind ask and tell: nothing twice, nothing invalid, evolution better than random."""

import random

import numpy as np
import pytest
from landscapes import Small, context, run

from nas_meta import WAIT, Architecture
from strategies.nni.evolution import Evolution, EvolutionOptions
from strategies.nni.grid_search import Grid
from strategies.nni.random_search import Random


@pytest.mark.parametrize("strategy", [Random, Grid, Evolution])
@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_small_space_is_covered_without_a_repeat(strategy, in_flight):
    done = run(strategy(context(Small(), 50)), 50, lambda a: float(a["a"]), in_flight)
    ids = [a.id for a, _ in done]
    assert len(ids) == len(set(ids)) == 5  # six, less the one that the constraint forbids


@pytest.mark.parametrize("strategy", [Random, Grid, Evolution])
def test_the_same_seed_and_history_give_the_same_proposals(strategy):
    one, two, other = ([a.id for a, _ in run(strategy(context(seed=s)), 40, in_flight=3)] for s in (5, 5, 6))
    assert one == two
    assert one != other


def test_evolution_finds_better_than_random_in_100_trials_over_10_seeds():
    best = {
        strategy: [max(s for _, s in run(strategy(context(seed=seed)), 100)) for seed in range(10)]
        for strategy in (Evolution, Random)
    }
    assert np.mean(best[Evolution]) > np.mean(best[Random]) + 1
    assert sum(e > r for e, r in zip(best[Evolution], best[Random], strict=True)) >= 8


def test_failed_trials_do_not_stop_evolution():
    done = run(Evolution(context(trials=30), EvolutionOptions(population=4)), 30, lambda a: None, in_flight=8)
    assert len(done) == 30


def test_evolution_waits_rather_than_run_more_than_its_population():
    strategy = Evolution(context(), EvolutionOptions(population=2))
    assert [type(strategy.ask()) for _ in range(2)] == [Architecture, Architecture]
    assert strategy.ask() is WAIT
    strategy.close()


def test_defaults_follow_from_the_budget():
    assert Evolution(context(trials=100)).resolved["population"] == 20
    assert Evolution(context(trials=16)).resolved["population"] == 4


def test_code_that_draws_from_the_global_generators_leaves_them_as_they_are():
    import torch

    from strategies.nni.global_randomness import GlobalRandomness

    def drawn():
        return random.random(), np.random.rand(), torch.rand(1).item()

    private = GlobalRandomness()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    outside = [drawn(), drawn()]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    inside = [drawn(), drawn()]
    with private:
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        assert drawn() == inside[0]
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    assert drawn() == outside[0]
    with private:
        assert drawn() == inside[1]
    assert drawn() == outside[1]
