"""Finds the largest and the smallest architectures of a space by coordinate ascent."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from nas_meta import Architecture, SearchSpace

Size = Callable[[Architecture], float]


def largest(space: SearchSpace, size: Size) -> Architecture:
    """Return the largest architecture of a space, disregarding its constraints.

    Args:
        space: The search space.
        size: The size of an architecture.

    Returns:
        An architecture that no change of a single choice makes larger.
    """
    first = space.canonical({name: choice.values[0] for name, choice in space.table.items()})
    return _climb(space, first, size, list(space.table), lambda _: True)


def smallest(space: SearchSpace, size: Size, rng: np.random.Generator) -> Architecture:
    """Return a random one of the smallest architectures that satisfy the constraints of a space.

    Args:
        space: The search space.
        size: The size of an architecture.
        rng: Draws the start and the order of the choices, and thereby the result.

    Returns:
        An architecture that no change of a single choice makes smaller.
    """
    names = [str(name) for name in rng.permutation(list(space.table))]
    return _climb(space, space.sample(rng), lambda a: -size(a), names, lambda a: space.problem(a) is None)


def _climb(
    space: SearchSpace, architecture: Architecture, height: Size, names: Iterable[str],
    allowed: Callable[[Architecture], bool],
) -> Architecture:  # fmt: skip
    """Coordinate ascent: set one choice after the other to its best value until a whole round changes nothing.

    Example: the height is a · b, with a in {1, 2} and b in {1, 3}. From (1, 1), the first round sets a = 2 (height 2)
    and b = 3 (height 6). The second round finds no better value, so (2, 3) is returned.
    """
    defaults = {name: choice.values[0] for name, choice in space.table.items()}
    best = height(architecture)
    while True:
        before = best
        for name in names:
            for value in space.table[name].values:
                near = space.canonical({**defaults, **architecture.values, name: value})
                if allowed(near) and (new := height(near)) > best:
                    architecture, best = near, new
        if best == before:
            return architecture
