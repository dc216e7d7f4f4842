"""The neighbourhood of an architecture, for strategies that search locally: random mutations and all neighbours.

Both keep the values of all other choices that have an effect before and after the change. They differ in the choices
that a change brings into effect: a mutation draws their values at random, a neighbour takes their first values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from nas_meta.space.architecture import Architecture

if TYPE_CHECKING:
    from nas_meta.space.search_space import SearchSpace


def mutate(
    space: SearchSpace, architecture: Architecture, rng: np.random.Generator, changes: int = 1, tries: int = 100
) -> Architecture | None:
    """Return a copy of an architecture with some choices changed to other values; see :meth:`SearchSpace.mutate`.

    Args:
        space: The space of the architecture.
        architecture: The parent.
        rng: The source of randomness. The number of values drawn per try depends only on the space and ``changes``.
        changes: The number of choices to change. Choices with a single value are never changed.
        tries: Maximum number of children to draw.

    Returns:
        The first child that differs from the parent and is in the space; None if no try gave one.
    """
    for _ in range(tries):
        child = _random_child(space, architecture, rng, changes)
        if child != architecture and space.problem_of(child) is None:
            return child
    return None


def _random_child(
    space: SearchSpace, architecture: Architecture, rng: np.random.Generator, changes: int
) -> Architecture:
    """Return a random child, which may equal its parent or break a constraint."""
    uniforms = iter(rng.random(len(space.table) + 2 * changes))
    mutable = [n for n in architecture.values if len(space.table[n].values) > 1]
    values = dict(architecture.values)
    for _ in range(min(changes, len(mutable))):
        name = mutable.pop(int(next(uniforms) * len(mutable)))
        others = [v for v in space.table[name].values if v != architecture[name]]
        values[name] = others[int(next(uniforms) * len(others))]
    rest = {n: c.values[int(next(uniforms) * len(c.values))] for n, c in space.table.items() if n not in values}
    return space.canonical({**rest, **values})


def neighbours(space: SearchSpace, architecture: Architecture) -> Iterator[Architecture]:
    """Yield the architectures that differ from a given one in one choice; see :meth:`SearchSpace.neighbours`.

    Args:
        space: The space of the architecture.
        architecture: The architecture in the middle.

    Yields:
        Distinct architectures of the space, in the order of the choices and their values.
    """
    first = {name: choice.values[0] for name, choice in space.table.items()}
    seen = {architecture}
    for name, choice in space.table.items():
        if name not in architecture.values:
            continue
        for value in choice.values:
            neighbour = space.canonical({**first, **architecture.values, name: value})
            if neighbour not in seen and space.problem_of(neighbour) is None:
                seen.add(neighbour)
                yield neighbour
