"""Greedy ensemble selection against cases that are computed by hand."""

import numpy as np
import pytest

from nas_meta.evaluation.ensemble import Budget, Queries, accuracies, average, bagged, greedy, halves, select

ANY_SIZE = Budget(size=10)


def queries(*members, targets, episodes=None):
    """Two classes; each member is the list of its probabilities of class 0."""
    first = np.array(members, float)
    episodes = np.arange(len(targets)) if episodes is None else np.array(episodes)
    return Queries(np.stack([first, 1 - first], axis=2), np.array(targets), episodes)


def test_two_members_that_err_on_different_queries_are_selected_in_turn():
    # A alone: right, wrong. B alone: wrong, right. A is likelier: log 0.9 + log 0.4 > log 0.45 + log 0.7.
    pair = queries([0.9, 0.6], [0.45, 0.3], targets=[0, 1])
    assert greedy(pair, np.ones(2), rounds=1).tolist() == [1, 0]
    assert greedy(pair, np.ones(2), rounds=2).tolist() == [1, 1]  # (0.675, 0.45): both are right
    assert accuracies(average(pair.probabilities, np.array([1, 1])), pair).tolist() == [1, 1]


def test_a_member_may_be_selected_again_where_it_helps_more_than_another():
    # Only A is right on both. Adding B, which is surely wrong on the second query, loses that query: 0.2 + 1.0 > 1.
    certain = queries([0.8, 0.2], [1.0, 1.0], targets=[0, 1])
    assert greedy(certain, np.ones(2), rounds=5).tolist() == [5, 0]


def test_episodes_count_as_often_as_their_weight():
    # Each member is right in one episode; a bag that holds only the second episode selects B.
    split = queries([0.9, 0.9], [0.1, 0.1], targets=[0, 1])
    assert greedy(split, np.array([2, 0]), rounds=3).tolist() == [3, 0]
    assert greedy(split, np.array([0, 2]), rounds=3).tolist() == [0, 3]


def test_equal_members_are_selected_in_their_order():
    same = queries([0.9, 0.1], [0.9, 0.1], targets=[0, 1])
    assert greedy(same, np.ones(2), rounds=4).tolist() == [4, 0]


def test_bags_add_up_and_depend_on_the_seed_alone():
    rng = np.random.default_rng(0)
    noisy = queries(*rng.uniform(size=(3, 40)), targets=rng.integers(2, size=40))
    counts = bagged(noisy, seed=1, rounds=5, bags=7)
    assert counts.sum() == 35
    assert counts.tolist() == bagged(noisy, seed=1, rounds=5, bags=7).tolist()
    assert counts.tolist() != bagged(noisy, seed=2, rounds=5, bags=7).tolist()


@pytest.fixture
def thirds():
    """Three members, each right and sure in two thirds of the episodes; any two of them beat one, three beat two."""
    members = np.full((3, 60), 0.9)
    for m in range(3):
        members[m, m::3] = 0.4
    return queries(*members, targets=np.zeros(60, int))


def test_a_budget_of_size_and_latency_is_kept(thirds):
    assert np.count_nonzero(select(thirds, ANY_SIZE, seed=0)) == 3
    assert np.count_nonzero(select(thirds, Budget(size=2), seed=0)) == 2
    limited = Budget(size=3, latencies=[1.0, 1.0, 5.0], latency=2.5)
    assert np.flatnonzero(select(thirds, limited, seed=0)).tolist() == [0, 1]
    assert select(thirds, Budget(3, [1.0, 1.0, 5.0], 0.5), seed=0).tolist() == [0, 0, 0]


def test_a_fast_member_returns_when_the_slow_one_that_it_resembles_leaves():
    # C is B with less certainty, so it is never selected beside B; with B gone, it is the only complement of A.
    members = np.array([[0.9, 0.4] * 20, [0.4, 0.95] * 20, [0.4, 0.9] * 20])
    three = queries(*members, targets=np.zeros(40, int))
    assert select(three, ANY_SIZE, seed=0)[2] == 0
    assert np.flatnonzero(select(three, Budget(3, [1.0, 9.0, 1.0], 5.0), seed=0)).tolist() == [0, 2]


def test_a_member_with_hardly_any_weight_is_left_out():
    rng = np.random.default_rng(3)
    noisy = queries(*(0.5 + 0.5 * rng.uniform(-0.4, 1, size=(6, 60))), targets=np.zeros(60, int))
    counts = bagged(noisy, seed=0)
    assert counts[counts > 0].min() < 20, "some member has less than 5 % of 20 rounds in 20 bags"
    left = select(noisy, ANY_SIZE, seed=0)
    assert left[left > 0].min() >= 20 and left.sum() == counts.sum() == 400


def test_the_halves_have_no_episode_and_no_full_way_example_in_common():
    episodes = np.repeat(np.arange(7), 3)
    selecting, judging = halves(episodes)
    assert set(episodes[selecting]) == {0, 2, 4, 6} and set(episodes[judging]) == {1, 3, 5}
    examples = np.tile(np.arange(3), 7)
    selecting, judging = halves(episodes, examples)
    assert not set(examples[selecting]) & set(examples[judging])
    assert not set(episodes[selecting]) & set(episodes[judging])


def test_episodes_of_a_half_are_numbered_anew():
    part = queries([0.9, 0.9, 0.2, 0.9], targets=[0, 0, 0, 0], episodes=[0, 1, 2, 3]).at(np.array([0, 2]))
    assert part.count == 2
    assert accuracies(part.probabilities[0], part).tolist() == [1, 0]
