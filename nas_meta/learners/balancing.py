"""Support sets whose classes differ in size, for learners that expect equally many examples of every class."""

from __future__ import annotations

import numpy as np


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
