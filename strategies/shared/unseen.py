"""Random architectures that were not proposed before, near a given one or anywhere.

Strategies whose sampler repeats itself fall back on unseen neighbours, so that no architecture is tried twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from nas_meta import Architecture, SearchSpace
from nas_meta.errors import ConfigError
from nas_meta.space.architecture import Value

MAX_DRAWS = 200
MAX_ENUMERATED = 200_000  # larger spaces are not enumerated to find the architectures that remain


def neighbour(
    space: SearchSpace, architecture: Architecture, seen: Collection[str], rng: np.random.Generator
) -> Architecture | None:
    """Return an unseen architecture close to a given one: one change away, else two or three, else a random one.

    Args:
        space: The space of the architecture.
        architecture: The architecture to stay close to.
        seen: Ids of the architectures to exclude.
        rng: The source of randomness.

    Returns:
        The neighbour, or None if no unseen architecture was found.
    """
    for changes in (1, 2, 3):
        for _ in range(MAX_DRAWS // 4):
            child = space.mutate(architecture, rng, changes, tries=1)
            if child is not None and child.id not in seen:
                return child
    return unseen_architecture(space, seen, rng)


def unseen_architecture(space: SearchSpace, seen: Collection[str], rng: np.random.Generator) -> Architecture | None:
    """Return a random architecture that was not seen before.

    Args:
        space: The space to draw from.
        seen: Ids of the architectures to exclude.
        rng: The source of randomness.

    Returns:
        The architecture, or None if all were seen. In a space that is too large to enumerate, None only means that
        ``MAX_DRAWS`` draws met no unseen architecture.
    """
    try:
        architecture = first_unseen(lambda: space.sample(rng), seen)
    except ConfigError:
        architecture = None  # too few architectures satisfy the constraints for random draws to meet one
    if architecture is not None or space.unconstrained > MAX_ENUMERATED:
        return architecture
    remaining = [a for a in space.walk() if a.id not in seen]
    return remaining[int(rng.integers(len(remaining)))] if remaining else None


def completed(
    space: SearchSpace, start: Mapping[str, Value], seen: Collection[str], rng: np.random.Generator
) -> Architecture | None:
    """Return a random architecture that was not seen before and has the given values.

    Args:
        space: The space to draw from.
        start: Values of some choices by name, such as :meth:`SearchSpace.starts` returns them.
        seen: Ids of the architectures to exclude.
        rng: The source of randomness.

    Returns:
        The architecture, or None if ``MAX_DRAWS`` draws met no unseen architecture within the constraints.
    """
    for _ in range(MAX_DRAWS):
        drawn = {n: c.values[int(rng.integers(len(c.values)))] for n, c in space.table.items()}
        architecture = space.canonical({**drawn, **start})
        if architecture.id not in seen and space.problem(architecture) is None:
            return architecture
    return None


def first_unseen(draw: Callable[[], Architecture], seen: Collection[str]) -> Architecture | None:
    """Return the first draw that was not seen before.

    Args:
        draw: Returns a random architecture; called at most ``MAX_DRAWS`` times.
        seen: Ids of the architectures to exclude.

    Returns:
        The architecture, or None if every draw was seen before.
    """
    return next((a for a in (draw() for _ in range(MAX_DRAWS)) if a.id not in seen), None)
