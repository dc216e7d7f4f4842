"""Support sets as users have them, with queries that belong to no known class yet."""

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
