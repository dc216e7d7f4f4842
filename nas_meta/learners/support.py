"""Support sets as users have them: classes of different sizes, and queries that belong to no known class yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas_meta.tasks.episodes import Episode


@dataclass(frozen=True)
class UserTask(Episode):
    """A support set with queries of unknown classes, as learners classify it.

    Attributes:
        support: ``[N, K]``, indices into the pool; row n holds the support examples of class n.
        query: ``[1, M]``, indices into the pool.
    """

    @property
    def order_key(self) -> np.ndarray:
        """The support examples alone: predictions must not depend on the other queries."""
        return self.support.ravel()


def balanced_rows(labels: np.ndarray, ways: int) -> np.ndarray:
    """Arrange a support set in rows of one length: the examples of smaller classes are repeated in turn.

    Example: the labels ``[0, 0, 0, 1, 1]`` give ``[[0, 1, 2], [3, 4, 3]]``.

    Args:
        labels: ``[S]``, the class of each example, from 0 to ``ways`` - 1; every class occurs.
        ways: N, the number of classes.

    Returns:
        ``[N, K]``, positions in ``labels``, where K is the size of the largest class.
    """
    members = [np.flatnonzero(labels == c) for c in range(ways)]
    return np.stack([np.resize(m, max(map(len, members))) for m in members])
