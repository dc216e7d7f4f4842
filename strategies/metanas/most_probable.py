"""Enumerates architectures by probability, given independent probabilities for the values of each choice."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nas_meta import Architecture, SearchSpace
from nas_meta.space.architecture import Value
from strategies.shared.unseen import neighbour

MAX_EXPANSIONS = 200_000  # partial architectures that the search visits before it gives up


def most_probable(
    space: SearchSpace, probabilities: Mapping[str, Sequence[float]], count: int, seed: int
) -> list[Architecture]:
    """Return the most probable architectures of a space.

    Architectures are ordered by Π p(value) / p(most probable value) over the choices that have an effect in them. The
    ratio keeps architectures with fewer such choices from being preferred for that alone. Of architectures that are the
    same model, only the representative (:meth:`SearchSpace.representative`) is returned.

    Args:
        space: The search space.
        probabilities: The probabilities of each choice's values, by its name.
        count: The largest number of architectures.
        seed: The seed of the neighbours.

    Returns:
        Distinct architectures, best first; fewer than ``count`` if the space has no more. If too many of the probable
        architectures break the constraints, neighbours of the best follow.
    """
    selected: dict[str, Architecture] = {}
    for architecture in _descending(space, probabilities):
        if space.problem(architecture) is None:
            selected.setdefault(architecture.id, architecture)
            if len(selected) == count:
                break
    rng = np.random.default_rng(seed)
    while selected and len(selected) < count:
        near = neighbour(space, next(iter(selected.values())), selected, rng)
        if near is None:
            break
        selected[near.id] = near
    return list(selected.values())


def _descending(space: SearchSpace, probabilities: Mapping[str, Sequence[float]]) -> Iterator[Architecture]:
    """Architectures by falling probability, without regard to constraints: uniform-cost search over the choices.

    A partial architecture has values for the first choices of the space. Choosing a value costs log p(most probable) -
    log p(value), which is never negative. The heap yields the cheapest partial architecture first, so a complete one at
    its top is at least as probable as every architecture that has not been yielded.

    Example: a in {x, y} with p = (0.6, 0.4) and b in {u, v} with p = (0.9, 0.1). The costs are y: 0.41, v: 2.20, and 0
    for x and u. The order is xu (0), yu (0.41), xv (2.20), yv (2.60).
    """
    names = list(space.table)
    logs = {name: [math.log(max(p, 1e-30)) for p in probabilities[name]] for name in names}
    number = 0  # makes heap entries unequal before their last element, which cannot be compared
    heap: list[tuple[float, int, int, dict[str, Value]]] = [(0.0, 0, 0, {})]
    for _ in range(MAX_EXPANSIONS):
        if not heap:
            return
        cost, depth, _, values = heapq.heappop(heap)
        depth = -depth  # negated in the heap: of equal costs, the most complete comes first
        if depth == len(names):
            yield space.canonical(values)
            continue
        name = names[depth]
        choice = space.table[name]
        if not choice.applies(values):
            heapq.heappush(heap, (cost, -depth - 1, (number := number + 1), values))
            continue
        for value, log in zip(choice.values, logs[name], strict=True):
            total = cost + max(logs[name]) - log
            heapq.heappush(heap, (total, -depth - 1, (number := number + 1), {**values, name: value}))
