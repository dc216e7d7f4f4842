"""What is optimised: metrics with a direction, hard limits, and which of several results dominate which."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Objective:
    """A metric with a direction; ``sign`` is 1 where more is better and -1 where less is.

    Attributes:
        reference: the value from which the hypervolume is measured; None where the worst trial serves.
    """

    metric: str
    direction: str = "maximize"
    reference: float | None = None

    @property
    def sign(self) -> int:
        return 1 if self.direction == "maximize" else -1


@dataclass(frozen=True)
class Limit:
    """A metric that no candidate may have below ``least`` or above ``most``."""

    metric: str
    least: float | None = None
    most: float | None = None

    def problem(self, metrics: Mapping[str, float]) -> str | None:
        """Why these metrics break the limit (a clause); None where they keep it or lack it."""
        value = metrics.get(self.metric)
        if value is None:
            return None
        if self.most is not None and value > self.most:
            return f"its {self.metric} is {value:,.6g}; expected at most {self.most:,.6g}"
        if self.least is not None and value < self.least:
            return f"its {self.metric} is {value:,.6g}; expected at least {self.least:,.6g}"
        return None


def signed_values(metrics: Mapping[str, float], objectives: Sequence[Objective]) -> tuple[float, ...]:
    """The objectives' values, each turned so that more is better."""
    return tuple(o.sign * metrics[o.metric] for o in objectives)


def dominates(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether rows of signed values dominate: nowhere worse, somewhere better; ``[..., objectives]``, broadcast."""
    return np.asarray((one >= other).all(-1) & (one > other).any(-1))


def front_ranks(values: np.ndarray) -> np.ndarray:
    """The non-dominated rank of every row (Deb et al. 2002): 0 for the Pareto front, 1 for the front behind it, …

    Args:
        values: ``[candidates, objectives]``, more is better.

    Returns:
        ``[candidates]`` whole numbers.
    """
    if values.shape[1] == 1:
        return np.unique(-values[:, 0], return_inverse=True)[1]
    if values.shape[1] == 2:
        return _fronts_of_two(values)
    beaten = dominates(values[:, None], values[None])  # row beats column
    ranks = np.full(len(values), -1)
    rank = 0
    while (left := ranks < 0).any():
        ranks[left & ~beaten[left].any(0)] = rank
        rank += 1
    return ranks


def _fronts_of_two(values: np.ndarray) -> np.ndarray:
    """:func:`front_ranks` of two objectives in n log n: from the best in the first down, only the second decides."""
    ranks, before, rank = np.zeros(len(values), dtype=int), None, 0
    best: list[float] = []
    for index in np.lexsort(-values.T[::-1]):
        row = values[index].tolist()
        if row != before:  # equals share a front
            # ``best`` has the best second objective of every front so far, negated: whoever is no better is behind it.
            rank = bisect_right(best, -row[1])
            best[rank : rank + 1] = [-row[1]]
        ranks[index], before = rank, row
    return ranks


def pareto_front(values: np.ndarray) -> np.ndarray:
    """The rows that no other dominates, as indices; takes rows times those of the front, not rows squared.

    Args:
        values: ``[candidates, objectives]``, more is better.
    """
    left = np.lexsort(-values.T[::-1])  # nobody dominates a row before it
    found = []
    while len(left):
        found.append(left[0])
        left = left[1:][~dominates(values[left[0]], values[left[1:]])]
    return np.sort(np.array(found, dtype=int))


def crowding_distances(front: np.ndarray) -> np.ndarray:
    """Return the crowding distance of every candidate of one front (Deb et al. 2002, "NSGA-II", section III.B).

    In each objective a candidate gets the distance between the next different values below and above its own, as a
    share of the front's range; the distances of all objectives are added up. Candidates at the ends of an objective in
    which the front differs get infinity. Equal candidates get equal distances, whatever their order.

    Example: of (0, 3), (1, 2), (3, 0) the middle one has (3 - 0) / 3 + (3 - 0) / 3 = 2.

    Args:
        front: ``[candidates, objectives]``.

    Returns:
        ``[candidates]`` distances; the higher, the less crowded.
    """
    distances = np.zeros(len(front))
    for column in front.T:
        levels, level_of = np.unique(column, return_inverse=True)
        if len(levels) > 1:
            gaps = np.full(len(levels), np.inf)
            gaps[1:-1] = (levels[2:] - levels[:-2]) / (levels[-1] - levels[0])
            distances += gaps[level_of]
    return distances


def hypervolume(values: np.ndarray, reference: np.ndarray) -> float:
    """The volume that rows dominate above a reference point: Σ of slices along the last objective.

    Args:
        values: ``[candidates, objectives]``, more is better.
        reference: ``[objectives]``.
    """
    values = np.asarray(values, dtype=float)
    values = values[(values > reference).all(1)]
    if len(values) == 0:
        return 0.0
    if values.shape[1] == 1:
        return float(values.max() - reference[0])
    total, above = 0.0, np.append(np.unique(values[:, -1])[::-1], reference[-1])
    for height, floor in pairwise(above):
        total += (height - floor) * hypervolume(values[values[:, -1] >= height][:, :-1], reference[:-1])
    return total
