"""The rank of a trial among others, with one objective or several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_meta.core.objectives import crowding_distances, front_ranks
from nas_meta.strategy.stopping.rule import RungReport


def rank_of(report: RungReport, others: Sequence[RungReport]) -> int:
    """Count the reports that rank before one: by front, and within a front by crowding distance.

    With one objective these are the better ones. With several, the ends of a front, such as its most accurate trial,
    rank before the rest of it. Trials below the median of the first objective rank last in their front: otherwise the
    cheapest trial would always be an end, however bad.

    Args:
        report: The report to rank.
        others: The reports to rank it among.

    Returns:
        The number of others before it: 0 for the best.
    """
    values = np.array([report.values, *(o.values for o in others)], dtype=float)
    ranks = front_ranks(values)
    front = ranks == ranks[0]
    low, distances = values[front, 0] < np.median(values[:, 0]), crowding_distances(values[front])
    before = (low < low[0]) | ((low == low[0]) & (distances > distances[0]))
    return int((ranks < ranks[0]).sum() + before.sum())
