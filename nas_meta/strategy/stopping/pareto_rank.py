"""Which of several results stand before which, with one objective or several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_meta.core.objectives import front_ranks
from nas_meta.strategy.stopping.rule import Report


def rank_of(report: Report, others: Sequence[Report]) -> int:
    """How many of the others stand before a report; see :func:`ranks_by_crowding`."""
    values = np.array([report.values, *(o.values for o in others)], dtype=float)
    ranks = front_ranks(values)
    room = crowding(values[ranks == ranks[0]])
    return int((ranks < ranks[0]).sum() + (room > room[0]).sum())


def ranks_by_crowding(values: np.ndarray) -> np.ndarray:
    """How many candidates stand before each: those of better fronts, and within its own front the less crowded.

    With one objective that is the number of better ones. With several, the ends of a front, such as its most accurate
    candidate, stand before the rest of it.

    Args:
        values: ``[candidates, objectives]``, more is better.

    Returns:
        ``[candidates]`` whole numbers, equal where nothing tells candidates apart.
    """
    ranks = front_ranks(values)
    room = np.zeros(len(values))
    for front in np.unique(ranks):
        room[ranks == front] = crowding(values[ranks == front])
    before = (ranks[:, None] < ranks) | ((ranks[:, None] == ranks) & (room[:, None] > room))
    return before.sum(0)


def crowding(front: np.ndarray) -> np.ndarray:
    """The room that each candidate of a front has (Deb et al. 2002, "NSGA-II", section III.B).

    The distance between the next different values below and above it, as a share of the front's range, summed over
    the objectives; infinite at the ends of an objective in which the front differs.

    Args:
        front: ``[candidates, objectives]``.
    """
    room = np.zeros(len(front))
    for column in front.T:
        levels, at = np.unique(column, return_inverse=True)
        if len(levels) > 1:
            gaps = np.full(len(levels), np.inf)
            gaps[1:-1] = (levels[2:] - levels[:-2]) / (levels[-1] - levels[0])
            room += gaps[at]
    return room
