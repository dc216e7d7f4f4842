"""Every multi-trial strategy, as it is installed: nothing twice, reproducible, and better than chance."""

import numpy as np
import pytest
from installed import TRIAL_STRATEGIES, marked
from landscapes import Landscape, Small, context, run, score

from nas_meta import Choice, Objective, SearchContext
from nas_meta.core import plugins
from nas_meta.core.objectives import hypervolume
from nas_meta.space.encoding import encode
from strategies.auto import pick
from strategies.surrogate.ensemble import Ensemble

NAMES = TRIAL_STRATEGIES
FAST = [name for name in NAMES if name != "rl"]  # its networks take seconds to propose
SEVERAL = ["nsga2", "motpe", "surrogate"]  # made for several objectives
LEARNING = [name for name in NAMES if name not in ("random", "grid", "nsga2", "motpe")]


class Conditional(Landscape):
    """A choice that has an effect for one value of another only; eight architectures, five after the constraint."""

    def choices(self):
        return {"kind": ["plain", "wide"], "width": Choice([1, 2, 3], when={"kind": "wide"}), "deep": [False, True]}

    def problem(self, architecture):
        return "too much" if architecture.values.get("width") == 3 or not architecture["deep"] else None


def make(name, *arguments, **keywords):
    return plugins.load("strategies", name)(context(*arguments, **keywords))


@pytest.mark.parametrize("name", marked(NAMES, FAST))
@pytest.mark.parametrize(("space", "count"), [(Small, 5), (Conditional, 3)])
def test_a_small_space_is_covered_without_a_repeat(name, space, count):
    done = run(make(name, space(), 30), 30, lambda a: float(len(a.values)), in_flight=2)
    assert len({a.id for a, _ in done}) == len(done) == count


@pytest.mark.parametrize("name", marked(NAMES, FAST))
def test_the_same_seed_and_history_give_the_same_proposals(name):
    one, two, other = ([a.id for a, _ in run(make(name, seed=s), 25, in_flight=3)] for s in (5, 5, 6))
    assert one == two
    assert one != other
    assert len(set(one)) == 25


@pytest.mark.parametrize("name", marked(NAMES, FAST))
def test_failed_trials_do_not_stop_a_search(name):
    rng = np.random.default_rng(0)
    done = run(make(name, trials=25), 25, lambda a: score(a) if rng.random() < 0.6 else None, in_flight=2)
    assert len(done) == 25
    assert len(run(make(name, trials=15), 15, lambda a: None, in_flight=2)) == 15


@pytest.mark.parametrize("name", marked(LEARNING, [n for n in LEARNING if n not in ("rl", "auto")]))
@pytest.mark.slow
def test_what_is_learned_shows_after_60_trials(name):
    found = [max(s for _, s in run(make(name, trials=60, seed=seed), 60)) for seed in range(4)]
    chance = [max(s for _, s in run(make("random", trials=60, seed=seed), 60)) for seed in range(4)]
    assert np.mean(found) > np.mean(chance) + 0.5


def two_objectives(architecture):
    """Accuracy is the number of right choices; what it costs, their sum: the first needs some of the second."""
    return score(architecture), -float(sum(architecture.values.values()))


@pytest.mark.parametrize("name", marked(SEVERAL, ["nsga2", "motpe"]))
def test_a_front_grows_faster_than_by_chance(name):
    def volume(strategy):
        return hypervolume(np.array([v for _, v in run(strategy, 80, two_objectives)]), np.array([0.0, -30.0]))

    both = ("accuracy", "flops")
    found = [volume(make(name, trials=80, seed=s, objectives=both)) for s in range(4)]
    chance = [volume(make("random", trials=80, seed=s, objectives=both)) for s in range(4)]
    assert np.mean(found) > 1.03 * np.mean(chance)


@pytest.mark.slow
def test_several_workers_are_proposed_different_architectures():
    for name in NAMES:
        strategy = make(name, trials=100, workers=8)
        try:
            proposals = [strategy.ask() for _ in range(6)]
            assert len({a.id for a in proposals}) == 6, name
        finally:
            strategy.close()


def test_auto_picks_by_budget_space_and_objectives():
    assert pick(context(Small(), 10)).__name__ == "Grid"
    assert pick(context(trials=300)).__name__ == "Surrogate"
    assert pick(context(trials=5000)).__name__ == "Evolution"
    assert pick(context(trials=5000, objectives=("accuracy", "flops"))).__name__ == "NSGA2"
    assert make("auto", trials=300).resolved["name"] == "surrogate"


def test_the_encoding_is_one_column_a_value_and_the_rank_of_numbers():
    space = Conditional()
    plain = space.canonical({"kind": "plain", "width": 1, "deep": True})
    wide = space.canonical({"kind": "wide", "width": 2, "deep": False})
    columns = ["plain", "wide", "(kind has no rank)", "False", "True", "(deep has no rank)", "1", "2", "3", "rank"]
    by_name = {n: i for i, n in enumerate(columns)}
    order = list(space.table)
    assert order == ["kind", "deep", "width"]
    rows = encode(space, [plain, wide])
    assert rows.shape == (2, len(columns))
    assert [columns[i] for i in np.flatnonzero(rows[0])] == ["plain", "True"]
    assert [columns[i] for i in np.flatnonzero(rows[1])] == ["wide", "False", "2", "rank"]
    assert rows[1, by_name["rank"]] == 0.5


def test_the_ensemble_ranks_what_it_never_saw_and_knows_what_it_knows():
    rng = np.random.default_rng(0)
    space = Landscape()
    seen, unseen = ([space.sample(rng) for _ in range(n)] for n in (60, 200))
    ensemble = Ensemble(encode(space, seen), np.array([score(a) for a in seen]), seed=0)
    from scipy.stats import spearmanr

    mean, deviation = ensemble.predict(encode(space, unseen))
    assert spearmanr(mean, [score(a) for a in unseen])[0] > 0.6
    at_home = ensemble.predict(encode(space, seen))[1]
    assert at_home.mean() < deviation.mean()


def test_an_ensemble_of_one_result_says_that_of_all():
    mean, deviation = Ensemble(np.array([[0.0, 1.0]]), np.array([0.5]), seed=0).predict(np.eye(2))
    assert mean.tolist() == [0.5, 0.5] and deviation.tolist() == [0, 0]


def test_the_surrogate_takes_what_the_space_can_count_as_known():
    asked = set()

    class Counted(Landscape):
        def counts(self, architecture, tokens):
            asked.add(tokens)
            return {"flops": float(tokens * sum(architecture.values.values()))}

    both = [Objective("accuracy"), Objective("flops", "minimize")]
    strategy = plugins.load("strategies", "surrogate")(SearchContext(Counted(), both, 60, 1, 0, tokens=2))
    done = run(strategy, 60, lambda a: (score(a), -2.0 * sum(a.values.values())))
    assert len({a.id for a, _ in done}) == 60
    assert asked == {2}, "FLOPs are those of a text as long as the search's"
