"""Stopping rules by hand-computed cases, their default rungs and their options."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from installed import shipped

from nas_meta import Objective
from nas_meta.config.resolved import resolve
from nas_meta.core import plugins
from nas_meta.core.objectives import crowding_distances
from nas_meta.errors import ConfigError
from nas_meta.strategy.stopping.pareto_rank import rank_of
from nas_meta.strategy.stopping.racing import p_value
from nas_meta.strategy.stopping.rule import RungReport

ACCURACY, FLOPS = Objective("accuracy"), Objective("flops", "minimize")


def rule(name, objectives=(ACCURACY,), **options):
    plugin = plugins.load("stopping", name)
    return plugin(plugin.Options(**options), objectives)


def arrive(rule, *values, step=10, scores=None):
    """Trials with these values reach a rung one after the other; returns who goes on."""
    first = 1 + max((trial for rung in rule._reports.values() for trial in rung), default=0)
    decisions = []
    for i, value in enumerate(values):
        value = value if isinstance(value, tuple) else (value,)
        own = np.full(4, value[0]) if scores is None else np.array(scores[i], dtype=float)
        decisions.append(rule.decide(RungReport(first + i, step, value, own)))
    return decisions


def test_asha_lets_the_best_share_go_on_in_the_order_of_arrival():
    # Of 1, 2, 3, 4, 5, 6 that arrived, the best 1, 1, 1, 2, 2, 3 go on with η = 2.
    assert arrive(rule("asha", eta=2), 0.5, 0.4, 0.6, 0.45, 0.55, 0.45) == [True, False, True, False, True, False]
    # η = 3: 1, 1, 1, 1, 1, 2.
    assert arrive(rule("asha", eta=3), 0.5, 0.4, 0.6, 0.5, 0.5, 0.55) == [True, False, True, False, False, True]


def test_rungs_are_judged_apart():
    asha = rule("asha", eta=2)
    assert arrive(asha, 0.9, 0.1) == [True, False]
    assert asha.decide(RungReport(1, 20, (0.2,), np.zeros(4)))
    assert asha.stopped == {2}


def test_median_stops_what_is_worse_than_more_than_half_of_the_others():
    # 0.5 is worse than 0.6 and 0.7, but only three others count as a median.
    assert arrive(rule("median"), 0.6, 0.7, 0.5, 0.6) == [True] * 4
    # Others 0.6 0.7 0.5 0.6: 0.55 has three before it, 0.6 one.
    assert arrive(rule("median"), 0.6, 0.7, 0.5, 0.6, 0.55, 0.6) == [True, True, True, True, False, True]
    assert arrive(rule("median", least=1), 0.6, 0.5) == [True, False]


def test_what_failed_is_no_measure():
    median = rule("median", least=2)
    assert arrive(median, 0.9, 0.9, 0.5) == [True, True, False]
    for trial in (1, 2):
        median.forget(trial)
    assert arrive(median, 0.6, 0.7) == [True, True]


def test_places_by_front_then_by_room():
    # Two ends of the first front, a crowded and a roomy one between them, and one that (3, 3) dominates.
    values = np.array([(0, 10), (10, 0), (3, 3), (2, 7), (2, 2)])
    # Room of (3, 3): (10 - 2) / 10 + (7 - 0) / 10 = 1.5; of (2, 7): (3 - 0) / 10 + (10 - 3) / 10 = 1.
    np.testing.assert_allclose(crowding_distances(values[:4].astype(float)), [math.inf, math.inf, 1.5, 1.0])
    # (0, 10) is below the median 2 of the first objective: the last of its front.
    assert ranks(values) == [3, 0, 1, 2, 4]
    assert ranks(np.array([[3.0], [1.0], [3.0], [2.0]])) == [0, 3, 0, 2]


def ranks(values):
    reports = [RungReport(i, 1, tuple(row), np.zeros(2)) for i, row in enumerate(values)]
    return [rank_of(report, [r for r in reports if r is not report]) for report in reports]


def test_equal_candidates_have_equal_crowding_distances_in_every_order():
    # The gap of (2, 2) is that between (0, 4) and (4, 0), although it stands there twice.
    front = np.array([(0.0, 4.0), (2.0, 2.0), (2.0, 2.0), (4.0, 0.0), (4.0, 0.0)])
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        expected = np.array([math.inf, 2.0, 2.0, math.inf, math.inf])[order]
        np.testing.assert_allclose(crowding_distances(front[order]), expected)
    assert crowding_distances(np.array([[1.0, 1.0], [1.0, 1.0]])).tolist() == [0.0, 0.0]


def test_with_two_objectives_the_front_goes_on_but_not_what_is_only_cheap():
    asha = rule("asha", (ACCURACY, FLOPS), eta=2)
    # The second is worse in both; the third is the cheapest, but the worst, too; the fourth is more accurate than all.
    assert arrive(asha, (0.6, -10), (0.5, -12), (0.4, -5), (0.9, -20)) == [True, False, False, True]
    median = rule("median", (ACCURACY, FLOPS), least=1)
    assert arrive(median, (0.6, -10), (0.5, -12), (0.55, -5)) == [True, False, True]


def test_who_came_first_is_judged_again_among_those_who_came_later():
    asha = rule("asha", eta=2)
    assert arrive(asha, 0.3, 0.5, 0.6, 0.55) == [True] * 4, "each is among the best 1, 1, 1, 2 when it arrives"
    # At the second rung the first is alone, and at the first rung it is the last of four by now.
    assert [
        asha.decide(RungReport(trial, 20, (value,), np.zeros(4)))
        for trial, value in (
            (1, 0.9),
            (2, 0.1),
            (4, 0.2),
            (3, 0.2),
        )
    ] == [False, False, False, True], "the last that is left goes on, although the first was better at this rung"
    assert asha.stopped == {1, 2, 4}


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=8), st.randoms())
def test_asha_leaves_at_least_one_trial_to_complete(values, random):
    asha, rungs = rule("asha", eta=2), [10, 20, 40]
    left = [(trial, 0) for trial in range(len(values))]
    completed = 0
    while left:
        trial, passed = left.pop(random.randrange(len(left)))
        if passed == len(rungs):
            completed += 1
        elif asha.decide(RungReport(trial, rungs[passed], (values[trial][passed],), np.zeros(2))):
            left.append((trial, passed + 1))
    assert completed >= 1


def test_the_paired_t_test_against_closed_forms():
    # One degree of freedom is Cauchy's distribution: differences 1 and 3, t = 2, P = 1/2 - atan(2)/π.
    assert p_value(np.array([4.0, 4.0]), np.array([3.0, 1.0])) == pytest.approx(0.5 - math.atan(2) / math.pi)
    # Two: P = 1/2 - t / (2 √(2 + t²)). Differences 1, 2, 3: t = 2 / (1 / √3) = 2√3.
    t = 2 * math.sqrt(3)
    assert p_value(np.array([1.0, 2.0, 3.0]), np.zeros(3)) == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t * t)))
    assert p_value(np.zeros(3), np.array([1.0, 2.0, 3.0])) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)))
    assert p_value(np.ones(3), np.zeros(3)) == 0 and p_value(np.ones(3), np.ones(3)) == 1


def test_racing_uses_that_episodes_are_the_same():
    hard_and_easy = np.array([0.2, 0.9, 0.4, 0.7, 0.1, 0.8])
    small = np.array([0.05, 0.04, 0.06, 0.05, 0.04, 0.06])
    # Always a little worse: stopped, though the scores overlap widely. The same mean gap with other episodes: not.
    assert arrive(rule("racing"), 0.52, 0.47, scores=[hard_and_easy, hard_and_easy - small]) == [True, False]
    assert arrive(rule("racing"), 0.52, 0.47, scores=[hard_and_easy, np.roll(hard_and_easy - small, 1)]) == [True, True]


def test_racing_compares_with_the_best_that_is_still_in_the_race():
    racing = rule("racing")
    best, middle, worst = ([x, x + 0.01, x, x + 0.01, x] for x in (0.7, 0.6, 0.5))
    assert arrive(racing, 0.7, 0.6, scores=[best, middle]) == [True, False]
    # The best is itself beaten at a later rung: its early lead is no measure any more.
    assert racing.decide(RungReport(3, 20, (0.8,), np.array(best) + 0.1))
    assert not racing.decide(RungReport(1, 20, (0.6,), np.array(middle)))
    assert arrive(racing, 0.5, 0.6, 0.5, scores=[worst, middle, worst]) == [True, True, False]


def test_racing_keeps_what_is_better_in_another_objective():
    racing = rule("racing", (FLOPS, ACCURACY))
    high, low = [0.8, 0.81, 0.8, 0.82], [0.4, 0.41, 0.4, 0.4]
    decisions = arrive(racing, (-10, 0.8), (-9, 0.4), (-10, 0.4), (-8, 0.4), scores=[high, low, low, low])
    assert decisions == [True, True, False, True]


@pytest.mark.parametrize("name", shipped("stopping", without=["none"]))
def test_a_rule_is_a_function_of_the_reports(name):
    rng = np.random.default_rng(0)
    reports = []
    for trial in range(1, 30):
        scores = rng.random(20) * 0.3 + rng.random()
        reports.append(RungReport(trial, 5, (scores.mean(), rng.integers(5)), scores))
    one, other = (rule(name, (ACCURACY, FLOPS)) for _ in range(2))
    decisions = [one.decide(r) for r in reports]
    assert [other.decide(r) for r in reports] == decisions
    assert 0 < sum(decisions) < len(decisions)


def test_default_rungs_follow_from_the_steps():
    def options(name="asha", **given):
        return plugins.options_of("stopping", name)(**given)

    assert options().resolved(60, 40).rungs == [4, 15]
    assert options("racing", eta=3).resolved(81, 40).rungs == [9, 27]
    assert options().resolved(2, 40).rungs == [1]
    assert options(rungs=[30, 15, 30], episodes=10).resolved(60, 40).model_dump() == {
        "rungs": [15, 30], "eta": 4.0, "episodes": 10,
    }  # fmt: skip
    for wrong, steps, words in (
        ({"rungs": [15, 60]}, 60, r"stopping.rungs has 60, but trials take 60 steps"),
        ({"rungs": [0]}, 60, r"stopping.rungs has 0"),
        ({}, 1, r"with learner.steps: 1 no trial can be stopped early"),
    ):
        with pytest.raises(ConfigError, match=words):
            options(**wrong).resolved(steps, 40)


def test_the_section_is_a_name_or_has_options():
    assert resolve({}).document["stopping"] == {"name": "none"}
    short = resolve({"stopping": "racing"})
    assert short.document["stopping"]["confidence"] == 0.95
    assert resolve(short.document).document["stopping"] == short.document["stopping"]
    for section, words in (
        ("ash", "stopping.name: 'ash' is not an installed stopping rule; did you mean 'asha'"),
        ({"name": "racing", "confidance": 0.9}, "stopping.confidance' is not a known key; did you mean 'confidence'"),
        ({"name": "asha", "confidence": 0.9}, "stopping.confidence' is not a known key"),
        ({"name": "asha", "eta": 1}, "stopping.eta is 1; expected greater than 1"),
        ({"name": "asha", "rungs": ["x"]}, "stopping.rungs.0 is 'x'; expected a valid integer"),
        (3, "'stopping' is 3; expected keys such as 'name:'"),
    ):
        with pytest.raises(ConfigError, match=words):
            resolve({"stopping": section})
