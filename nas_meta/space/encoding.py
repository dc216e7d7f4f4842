"""Architectures as feature vectors, for predictors that are fitted to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace


def encode(space: SearchSpace, architectures: Sequence[Architecture]) -> np.ndarray:
    """Encode architectures as feature vectors.

    Every choice gets a one-hot column per value and one column for the rank of the value among the choice's values,
    scaled to [0, 1]. The rank is 0 for choices of other values than numbers. All columns of an inactive choice are 0.

    Example: ``{"op": ["a", "b"], "width": [8, 16, 32]}`` with ``op=b, width=16`` is encoded as
    ``0 1 0  0 1 0 0.5``.

    Args:
        space: Search space of the architectures.
        architectures: Architectures to encode.

    Returns:
        ``[architectures, features]``.
    """
    rows = np.zeros((len(architectures), sum(len(c.values) + 1 for c in space.table.values())))
    column = 0
    for name, choice in space.table.items():
        index = {repr(value): i for i, value in enumerate(choice.values)}
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in choice.values)
        ranks = np.argsort(np.argsort(choice.values)) / max(1, len(choice.values) - 1) if numbers else None
        for row, architecture in zip(rows, architectures, strict=True):
            if name in architecture.values:
                i = index[repr(architecture[name])]
                row[column + i] = 1
                if ranks is not None:
                    row[column + len(choice.values)] = ranks[i]
        column += len(choice.values) + 1
    return rows
