"""Architectures drawn evenly over their size, where uniform choices would crowd in the middle.

The parameters from the smallest to the largest architecture are cut into bins of equal width; a bin is drawn, then an
architecture in it. So small and large ones are met as often as the many of middle size (bins of parameters as in the
sampler of whittle's searches among sub-networks).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nas_meta import Architecture, SearchSpace

MOVES = 200  # choices that are redrawn on the way from one draw into a bin


def sample_by_size(
    space: SearchSpace,
    draw: Callable[[], Architecture],
    size: Callable[[Architecture], int],
    edges: np.ndarray,
    rng: np.random.Generator,
) -> Architecture:
    """An architecture of a bin drawn uniformly; where it cannot be reached, of another.

    From a random architecture, one choice after the other is redrawn, and what leads away from the bin is taken back.

    Args:
        draw: gives a random architecture within the constraints.
        edges: ``[bins + 1]`` of sizes, rising.
    """
    for _ in range(len(edges)):
        low, high = edges[(which := int(rng.integers(len(edges) - 1)))], edges[which + 1]
        inside = _moved(space, draw(), size, low, high, rng)
        if inside is not None:
            return inside
    return draw()


def _moved(
    space: SearchSpace, architecture: Architecture, size: Callable[[Architecture], int], low: float, high: float,
    rng: np.random.Generator,
) -> Architecture | None:  # fmt: skip
    def distance(one: Architecture) -> float:
        return max(low - size(one), size(one) - high, 0.0)

    names = list(space.table)
    away = distance(architecture)
    for _ in range(MOVES):
        if not away:
            return architecture
        name = names[int(rng.integers(len(names)))]
        values = {n: c.values[int(rng.integers(len(c.values)))] for n, c in space.table.items()}
        moved = space.canonical({**values, **architecture.values, name: values[name]})
        if space.problem_of(moved) is None and distance(moved) <= away:
            architecture, away = moved, distance(moved)
    return None
