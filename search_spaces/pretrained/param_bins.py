"""Sampling of architectures evenly over parameter counts; uniform choices rarely give small or large ones.

The range from the smallest to the largest parameter count is divided into bins of equal width. A sample first draws a
bin and then an architecture inside it, so that all sizes are equally likely (bins of parameters as in whittle's sampler
of sub-networks).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nas_meta import Architecture, SearchSpace

MAX_MOVES = 200  # attempts to move one random architecture into a bin


def sample_by_size(
    space: SearchSpace,
    draw: Callable[[], Architecture],
    size: Callable[[Architecture], int],
    edges: np.ndarray,
    rng: np.random.Generator,
) -> Architecture:
    """Sample an architecture from a uniformly drawn bin.

    The algorithm is a random local search: starting from a random architecture, it redraws one choice at a time and
    rejects moves that lead away from the bin. If the bin is not reached, another bin is drawn; after as many failures
    as there are edges, a random architecture is returned.

    Args:
        space: The search space.
        draw: Returns a random architecture that meets the constraints.
        size: Returns the number of parameters of an architecture.
        edges: Bin edges ``[bins + 1]``, ascending.
        rng: Random number generator.

    Returns:
        An architecture of the space.
    """
    for _ in range(len(edges)):
        low, high = edges[(which := int(rng.integers(len(edges) - 1)))], edges[which + 1]
        architecture = _move_into_bin(space, draw(), size, low, high, rng)
        if architecture is not None:
            return architecture
    return draw()


def _move_into_bin(
    space: SearchSpace, architecture: Architecture, size: Callable[[Architecture], int], low: float, high: float,
    rng: np.random.Generator,
) -> Architecture | None:  # fmt: skip
    """Redraw single choices until the size of an architecture is in the bin; None after ``MAX_MOVES`` attempts."""

    def distance(candidate: Architecture) -> float:
        return max(low - size(candidate), size(candidate) - high, 0.0)

    names = list(space.table)
    current = distance(architecture)
    for _ in range(MAX_MOVES):
        if not current:
            return architecture
        name = names[int(rng.integers(len(names)))]
        values = {n: c.values[int(rng.integers(len(c.values)))] for n, c in space.table.items()}
        moved = space.canonical({**values, **architecture.values, name: values[name]})
        if space.problem_of(moved) is None and distance(moved) <= current:
            architecture, current = moved, distance(moved)
    return None
