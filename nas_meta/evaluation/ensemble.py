"""Greedy ensemble selection with replacement (Caruana et al. 2004), bagged over episodes.

Members average their probabilities. An ensemble starts empty; every round adds the member with which the average is
most accurate, where equally accurate averages are ranked by the likelihood of the true classes. A member that is added
three times has three times the weight of one that is added once. Selecting on one sample of episodes overfits to it:
the selection is repeated on bootstrap samples of the episodes (bags), and the weight of a member is the number of
rounds, of all bags, that added it.

Queries of all episodes are flattened: an array ``[members, Q, N]`` of probabilities goes with ``[Q]`` arrays of the
true class and of the episode of each query, so that episodes may differ in their number of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDS = 20  # of one bag
BAGS = 20
LEAST_SHARE = 0.05  # of all rounds; a member below it costs latency and changes next to nothing
SMALLEST = 1e-12  # probability, so that its logarithm is finite


@dataclass(frozen=True)
class Queries:
    """The queries of some episodes with the probabilities that each member gives to the classes.

    Attributes:
        probabilities: ``[members, Q, N]``.
        targets: ``[Q]``, the true class of each query.
        episodes: ``[Q]``, the episode of each query, from 0.
    """

    probabilities: np.ndarray
    targets: np.ndarray
    episodes: np.ndarray

    @property
    def count(self) -> int:
        """The number of episodes."""
        return int(self.episodes.max()) + 1

    def of(self, members: Sequence[int]) -> Queries:
        """Return the same queries with some of the members."""
        return Queries(self.probabilities[list(members)], self.targets, self.episodes)

    def at(self, positions: np.ndarray) -> Queries:
        """Return some of the queries, as :func:`halves` divides them; their episodes are numbered anew."""
        episodes = np.unique(self.episodes[positions], return_inverse=True)[1]
        return Queries(self.probabilities[:, positions], self.targets[positions], episodes)


@dataclass(frozen=True)
class Budget:
    """What an ensemble may cost; it runs each distinct member once.

    Attributes:
        size: Largest number of distinct members.
        latencies: ``[members]``, seconds of each; empty if there is no limit.
        latency: Largest sum of the latencies of the distinct members, in seconds; None is no limit.
    """

    size: int
    latencies: Sequence[float] = ()
    latency: float | None = None

    def of(self, members: Sequence[int]) -> Budget:
        """Return the same budget for some of the members."""
        return Budget(self.size, [self.latencies[m] for m in members] if len(self.latencies) else (), self.latency)

    def is_too_slow(self, members: np.ndarray) -> bool:
        """Return whether distinct members exceed the latency."""
        return self.latency is not None and sum(self.latencies[m] for m in members) > self.latency


def halves(episodes: np.ndarray, examples: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Divide queries into those on which an ensemble is selected and those on which it is judged.

    Args:
        episodes: ``[Q]``, the episode of each query.
        examples: ``[Q]``, the example of each query, if every example is a query in nearly every episode: the halves
            then have no example in common either, and queries that would be in both are left out.

    Returns:
        The positions of the queries of even episodes, and those of odd episodes.
    """
    half = episodes % 2
    if examples is None:
        return np.flatnonzero(half == 0), np.flatnonzero(half == 1)
    own = examples % 2
    return np.flatnonzero((half == 0) & (own == 0)), np.flatnonzero((half == 1) & (own == 1))


def average(probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average probabilities ``[members, Q, N]`` with weights ``[members]`` of any sum; returns ``[Q, N]``."""
    return np.tensordot(weights / weights.sum(), probabilities, axes=1)


def accuracies(probabilities: np.ndarray, queries: Queries) -> np.ndarray:
    """Return the accuracy on each episode.

    Args:
        probabilities: ``[Q, N]``, of a member or an average.
        queries: The queries; their own probabilities are not used.

    Returns:
        ``[episodes]``, from 0 to 1.
    """
    right = probabilities.argmax(1) == queries.targets
    return np.bincount(queries.episodes, right) / np.bincount(queries.episodes)


def greedy(queries: Queries, weights: np.ndarray, rounds: int = ROUNDS) -> np.ndarray:
    """Select members one after the other, with replacement.

    Invariant: after k rounds the counts sum to k, and ``total`` is the sum of the probabilities of the added members.

    Example: of two queries, A answers the first and B the second one correctly and surely, and each is nearly undecided
    where it errs. Both have an accuracy of one half, so the first round adds the likelier one, say A. The second round
    adds B, because the average of A and B answers both.

    Args:
        queries: The queries, with the probabilities of the members.
        weights: ``[episodes]``, how often each episode counts, as in a bootstrap sample.
        rounds: Number of rounds.

    Returns:
        ``[members]``, how often each member was added.
    """
    weight, row = weights[queries.episodes], np.arange(len(queries.targets))
    counts, total = np.zeros(len(queries.probabilities), np.int64), np.zeros(queries.probabilities.shape[1:])
    for k in range(1, rounds + 1):
        scores = []
        for own in queries.probabilities:
            together = total + own
            right = together.argmax(1) == queries.targets
            likelihood = np.log(np.maximum(together[row, queries.targets] / k, SMALLEST))
            # Rounded, so that sums of equal numbers in another order are equal; ties then go to the first member.
            scores.append((weight @ right, round(float(weight @ likelihood), 6)))
        chosen = max(range(len(scores)), key=lambda m: scores[m])
        counts[chosen] += 1
        total = total + queries.probabilities[chosen]
    return counts


def bagged(queries: Queries, seed: int, rounds: int = ROUNDS, bags: int = BAGS) -> np.ndarray:
    """Select members on bootstrap samples of the episodes and add up how often each was selected.

    Args:
        queries: The queries, with the probabilities of the members.
        seed: Seed of the samples.
        rounds: Number of rounds on each sample.
        bags: Number of samples.

    Returns:
        ``[members]``; the sum is ``rounds`` · ``bags``.
    """
    rng, episodes = np.random.default_rng(seed), queries.count
    samples = (np.bincount(rng.integers(episodes, size=episodes), minlength=episodes) for _ in range(bags))
    return np.sum([greedy(queries, sample, rounds) for sample in samples], axis=0)


def select(queries: Queries, budget: Budget, seed: int, rounds: int = ROUNDS, bags: int = BAGS) -> np.ndarray:
    """Select an ensemble within a budget.

    The selection starts from all members that are fast enough. While the selected ones exceed the budget, the member
    that is selected least often leaves, or, where latency is the problem, least often per second. The selection is then
    repeated among the others. Members with less than 5 % of the rounds leave in the same way.

    Args:
        queries: The queries, with the probabilities of the members.
        budget: Largest number of distinct members, and their largest latency.
        seed: Seed of the bags.
        rounds: Number of rounds in each bag.
        bags: Number of bags.

    Returns:
        ``[members]``, how often each was selected; zeros if no member is fast enough.
    """
    everything = np.zeros(len(queries.probabilities), np.int64)
    left = [m for m in range(len(everything)) if not budget.is_too_slow(np.array([m]))]
    while left:
        counts, allowed = bagged(queries.of(left), seed, rounds, bags), budget.of(left)
        chosen = np.flatnonzero(counts)
        slow = allowed.is_too_slow(chosen)
        if not slow and len(chosen) <= budget.size and counts[chosen].min() >= LEAST_SHARE * rounds * bags:
            everything[left] = counts
            break
        merit = {m: counts[m] / (allowed.latencies[m] if slow else 1) for m in chosen}
        leaves = min(chosen, key=lambda m: (merit[m], -m))
        left = [m for i, m in enumerate(left) if i != leaves]
    return everything
