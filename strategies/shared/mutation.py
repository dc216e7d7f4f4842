"""Architectures that were not proposed before, for strategies that would repeat themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from nas_meta import Architecture, SearchSpace
from nas_meta.errors import ConfigError

TRIES = 200
WALKABLE = 200_000  # larger spaces are not walked through to find what is left


def mutate(
    space: SearchSpace, architecture: Architecture, rng: np.random.Generator, changes: int = 1
) -> Architecture | None:
    """A copy with ``changes`` choices redrawn to another value; None where that is the same, or not in the space.

    A choice that the change brings into effect is drawn, too.
    """
    luck = iter(rng.random(len(space.table) + 2 * changes))
    free = [n for n in architecture.values if len(space.table[n].values) > 1]
    values = dict(architecture.values)
    for _ in range(min(changes, len(free))):
        name = free.pop(int(next(luck) * len(free)))
        others = [v for v in space.table[name].values if v != architecture[name]]
        values[name] = others[int(next(luck) * len(others))]
    drawn = {n: c.values[int(next(luck) * len(c.values))] for n, c in space.table.items() if n not in values}
    child = space.canonical({**drawn, **values})
    return child if child != architecture and space.problem(child) is None else None


def neighbour(
    space: SearchSpace, architecture: Architecture, seen: Collection[str], rng: np.random.Generator
) -> Architecture | None:
    """An unseen architecture as near as can be found: one choice changed, then two, then anything."""
    for changes in (1, 2, 3):
        for _ in range(TRIES // 4):
            child = mutate(space, architecture, rng, changes)
            if child is not None and child.id not in seen:
                return child
    return unseen_architecture(space, seen, rng)


def unseen_architecture(space: SearchSpace, seen: Collection[str], rng: np.random.Generator) -> Architecture | None:
    """A random unseen architecture; None where the space is used up."""
    try:
        found = first_unseen(lambda: space.sample(rng), seen)
    except ConfigError:
        found = None  # too few are left within the constraints to be met by chance
    if found is not None or space.unconstrained > WALKABLE:
        return found
    left = [a for a in space.walk() if a.id not in seen]
    return left[int(rng.integers(len(left)))] if left else None


def first_unseen(draw: Callable[[], Architecture], seen: Collection[str]) -> Architecture | None:
    """The first of some draws that was not seen."""
    return next((a for a in (draw() for _ in range(TRIES)) if a.id not in seen), None)
