"""The best of many candidates with several objectives: front by front, each in an order that spreads over it."""

from __future__ import annotations

import numpy as np

from nas_meta.core.objectives import crowding_distances, front_ranks


def order_by_crowding(values: np.ndarray) -> list[int]:
    """Indices of one front's rows in an order of which every beginning is spread over the front.

    The most crowded row is taken away, of equals the lower in the first objective, until none is left; what was taken
    last comes first.

    Args:
        values: ``[candidates, objectives]``, more is better.
    """
    left, taken = list(range(len(values))), []
    while left:
        worst = np.lexsort((values[left, 0], crowding_distances(values[left])))[0]
        taken.append(left.pop(int(worst)))
    return taken[::-1]


def select_best(values: np.ndarray, count: int) -> list[int]:
    """Indices of the ``count`` best rows, front by front, the first objective's best first and each front spread.

    Args:
        values: ``[candidates, objectives]``, more is better.
    """
    values = np.asarray(values, dtype=float)
    ranks, chosen = front_ranks(values), []
    for rank in range(int(ranks.max(initial=-1)) + 1):
        front = np.flatnonzero(ranks == rank)
        chosen += front[order_by_crowding(values[front])].tolist()
    return chosen[:count]
