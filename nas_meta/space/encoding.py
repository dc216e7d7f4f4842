"""Architectures as rows of numbers, for models that learn from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace


def encode(space: SearchSpace, architectures: Sequence[Architecture]) -> np.ndarray:
    """One-hot choices, zeros where a choice has no effect; numbers as their rank among the values, too.

    Returns:
        ``[architectures, features]``.
    """
    rows = np.zeros((len(architectures), sum(len(c.values) + 1 for c in space.table.values())))
    column = 0
    for name, choice in space.table.items():
        place = {repr(value): i for i, value in enumerate(choice.values)}
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in choice.values)
        ranks = np.argsort(np.argsort(choice.values)) / max(1, len(choice.values) - 1) if numbers else None
        for row, architecture in zip(rows, architectures, strict=True):
            if name in architecture.values:
                i = place[repr(architecture[name])]
                row[column + i] = 1
                if ranks is not None:
                    row[column + len(choice.values)] = ranks[i]
        column += len(choice.values) + 1
    return rows
