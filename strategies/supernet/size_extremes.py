"""The largest architecture of a space and its smallest ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from nas_meta import Architecture, SearchSpace

Size = Callable[[Architecture], float]


def largest(space: SearchSpace, size: Size) -> Architecture:
    """The largest architecture, found by changing one choice after the other; constraints are not asked for."""
    first = space.canonical({name: choice.values[0] for name, choice in space.table.items()})
    return _climbed(space, first, size, list(space.table), lambda _: True)


def smallest(space: SearchSpace, size: Size, rng: np.random.Generator) -> Architecture:
    """An architecture within the constraints that no change of one choice makes smaller; one of several, by chance."""
    names = [str(name) for name in rng.permutation(list(space.table))]
    return _climbed(space, space.sample(rng), lambda a: -size(a), names, lambda a: space.problem(a) is None)


def _climbed(
    space: SearchSpace, architecture: Architecture, height: Size, names: Iterable[str],
    allowed: Callable[[Architecture], bool],
) -> Architecture:  # fmt: skip
    """Gives one choice after the other its best value, until none has a better one."""
    defaults = {name: choice.values[0] for name, choice in space.table.items()}
    best = height(architecture)
    while True:
        before = best
        for name in names:
            for value in space.table[name].values:
                near = space.canonical({**defaults, **architecture.values, name: value})
                if allowed(near) and (its := height(near)) > best:
                    architecture, best = near, its
        if best == before:
            return architecture
