"""Selects the best of many candidates with several objectives: front by front, and spread evenly over each front."""

from __future__ import annotations

import numpy as np

from nas_meta.core.objectives import crowding_distances, front_ranks


def order_by_crowding(values: np.ndarray) -> list[int]:
    """Order one front so that every prefix of the order is spread over the front.

    The most crowded row is removed until none remains, and distances are computed anew after each removal (pruning as
    in SPEA2, with NSGA-II's distance). The row that is removed last comes first. Of equally crowded rows, the one with
    the lowest first objective is removed first.

    Example: of the front (0, 4), (1, 3), (1.1, 2.9), (3, 1), (4, 0), row 1 is removed first (distance 0.55), then row 3
    (1.45), row 2 (2), and the two ends, rows 0 and 4. The order is 4, 0, 2, 3, 1.

    Args:
        values: ``[candidates, objectives]``, higher is better.

    Returns:
        The indices of all rows, best first.
    """
    remaining, removed = list(range(len(values))), []
    while remaining:
        worst = np.lexsort((values[remaining, 0], crowding_distances(values[remaining])))[0]
        removed.append(remaining.pop(int(worst)))
    return removed[::-1]


def select_best(values: np.ndarray, count: int) -> list[int]:
    """Return the best candidates: whole Pareto fronts first, each front ordered by :func:`order_by_crowding`.

    Args:
        values: ``[candidates, objectives]``, higher is better.
        count: The number of candidates to select.

    Returns:
        At most ``count`` indices. The first is the best candidate by the first objective.
    """
    values = np.asarray(values, dtype=float)
    ranks, chosen = front_ranks(values), []
    for rank in range(int(ranks.max(initial=-1)) + 1):
        front = np.flatnonzero(ranks == rank)
        chosen += front[order_by_crowding(values[front])].tolist()
    return chosen[:count]
