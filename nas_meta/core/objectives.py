"""Objectives and limits of a search, Pareto fronts, crowding distances and the hypervolume."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Objective:
    """A metric with a direction.

    Args:
        metric: Name of the metric.
        direction: ``maximize`` or ``minimize``.
        reference: The value from which the hypervolume is measured; None takes that of the worst trial.
    """

    metric: str
    direction: str = "maximize"
    reference: float | None = None

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.direction == "maximize" else -1


@dataclass(frozen=True)
class Share:
    """A limit that is relative to the size of a model, such as half of its FLOPs.

    Args:
        factor: The factor of the model's size.
        of: Name of the model; empty for the untouched model of the search space.
    """

    factor: float
    of: str = ""

    def __str__(self) -> str:
        """The share as it stands in a config, such as ``0.5x`` or ``0.5x starter:minilm``."""
        return f"{self.factor:g}x {self.of}".strip()


@dataclass(frozen=True)
class Limit:
    """A hard limit of a metric.

    Args:
        metric: Name of the metric.
        least: The lowest value that a candidate may have; None for no lower limit. A share holds for every candidate
            until :meth:`of_sizes` has turned it into a number.
        most: The highest value that a candidate may have; None for no upper limit.
    """

    metric: str
    least: float | Share | None = None
    most: float | Share | None = None

    @property
    def shares(self) -> list[Share]:
        """The bounds that are relative to a model."""
        return [bound for bound in (self.least, self.most) if isinstance(bound, Share)]

    def of_sizes(self, sizes: Callable[[str], Mapping[str, float]]) -> Limit:
        """Return the limit with numbers in place of shares.

        Args:
            sizes: Returns the metrics of a model by its name; the empty name is the untouched model of the space.
        """

        def number(bound: float | Share | None) -> float | None:
            return bound.factor * sizes(bound.of)[self.metric] if isinstance(bound, Share) else bound

        return replace(self, least=number(self.least), most=number(self.most))

    def problem(self, metrics: Mapping[str, float]) -> str | None:
        """Say how metrics break the limit.

        Args:
            metrics: Metrics of a candidate.

        Returns:
            A clause for an error sentence; None where the limit holds or the metric is missing.
        """
        value = metrics.get(self.metric)
        if value is None:
            return None
        if isinstance(self.most, (int, float)) and value > self.most:
            return f"its {self.metric} is {value:,.6g}; expected at most {self.most:,.6g}"
        if isinstance(self.least, (int, float)) and value < self.least:
            return f"its {self.metric} is {value:,.6g}; expected at least {self.least:,.6g}"
        return None


def signed_values(metrics: Mapping[str, float], objectives: Sequence[Objective]) -> tuple[float, ...]:
    """Return the values of the objectives, signed so that higher is better.

    Args:
        metrics: Metrics of a trial.
        objectives: The objectives.

    Returns:
        One value per objective.
    """
    return tuple(o.sign * metrics[o.metric] for o in objectives)


def dominates(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return which rows dominate which: nowhere worse, and better in at least one objective.

    Args:
        one: ``[..., objectives]``, higher is better.
        other: The same, broadcast against ``one``.

    Returns:
        ``[...]`` booleans.
    """
    return np.asarray((one >= other).all(-1) & (one > other).any(-1))


def front_ranks(values: np.ndarray) -> np.ndarray:
    """Return the non-dominated rank of every row (Deb et al. 2002, "NSGA-II", section III.A).

    Args:
        values: ``[candidates, objectives]``, higher is better.

    Returns:
        ``[candidates]`` integers: 0 for the Pareto front, 1 for the front that remains without it, and so on.
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
    """Rank fronts of two objectives in O(n log n) (Jensen 2003), by patience sorting.

    Rows are visited from the best first objective down, so a row is dominated only by rows before it, and only their
    second objective decides. ``best`` holds, negated, the best second objective of every front so far. Invariant: it
    is sorted, so bisection finds the first front of which no row dominates the new one.

    Example: (3, 1), (2, 2), (1, 1) get the ranks 0, 0, 1. After two rows ``best`` is [-2]; the third row has -1, which
    bisection puts after it, so it opens front 1.
    """
    ranks, before, rank = np.zeros(len(values), dtype=int), None, 0
    best: list[float] = []
    for index in np.lexsort(-values.T[::-1]):
        row = values[index].tolist()
        if row != before:  # equals share a front
            rank = bisect_right(best, -row[1])
            best[rank : rank + 1] = [-row[1]]
        ranks[index], before = rank, row
    return ranks


def pareto_front(values: np.ndarray) -> np.ndarray:
    """Return the rows that no other row dominates.

    Takes time proportional to rows times rows of the front: rows are sorted so that no row dominates an earlier one,
    the first row is then on the front, and the rows that it dominates are dropped.

    Args:
        values: ``[candidates, objectives]``, higher is better.

    Returns:
        Indices of the front, ascending.
    """
    remaining = np.lexsort(-values.T[::-1])
    front = []
    while len(remaining):
        front.append(remaining[0])
        remaining = remaining[1:][~dominates(values[remaining[0]], values[remaining[1:]])]
    return np.sort(np.array(front, dtype=int))


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
    """Return the volume that rows dominate above a reference point (Zitzler and Thiele 1998).

    Computed by slicing: between two neighbouring values of the last objective the dominated volume is that of the
    other objectives, for the rows that reach the upper value.

    Args:
        values: ``[candidates, objectives]``, higher is better.
        reference: ``[objectives]``; rows that do not exceed it everywhere add nothing.

    Returns:
        The hypervolume.
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
