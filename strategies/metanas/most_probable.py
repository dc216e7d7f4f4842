"""The most probable architectures, where every choice has probabilities of its own."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nas_meta import Architecture, SearchSpace
from nas_meta.space.architecture import Value
from strategies.shared.mutation import neighbour

MOST = 200_000  # partial architectures that are looked at


def most_probable(
    space: SearchSpace, probabilities: Mapping[str, Sequence[float]], count: int, seed: int
) -> list[Architecture]:
    """The ``count`` most probable architectures of a space, distinct, best first; fewer where it has no more.

    The first has the most probable value of every choice, or is what represents that one; the others follow by
    Π p(value) / p(most probable value) over the choices they have, so that one that leaves choices without effect gains
    nothing by that. Where too many of the probable ones break the space's constraints, the rest are neighbours of the
    best.

    Args:
        probabilities: of every choice, in the order of its values.
    """
    found: dict[str, Architecture] = {}
    for architecture in _descending(space, probabilities):
        if space.problem(architecture) is None:
            found.setdefault(architecture.id, architecture)
            if len(found) == count:
                break
    rng = np.random.default_rng(seed)
    while found and len(found) < count:
        near = neighbour(space, next(iter(found.values())), found, rng)
        if near is None:
            break
        found[near.id] = near
    return list(found.values())


def _descending(space: SearchSpace, probabilities: Mapping[str, Sequence[float]]) -> Iterator[Architecture]:
    """Architectures by falling probability, constraints aside: cheapest first over the choices in their order.

    A value costs log p(most probable) - log p(value), so the finished architecture that comes first is the best left.
    """
    names = list(space.table)
    logs = {name: [math.log(max(p, 1e-30)) for p in probabilities[name]] for name in names}
    number = 0  # no two entries of the heap are equal: what is kept is never compared
    heap: list[tuple[float, int, int, dict[str, Value]]] = [(0.0, 0, 0, {})]
    for _ in range(MOST):
        if not heap:
            return
        paid, depth, _, kept = heapq.heappop(heap)
        depth = -depth  # of equal ones the most finished first
        if depth == len(names):
            yield space.canonical(kept)
            continue
        name = names[depth]
        choice = space.table[name]
        if not choice.applies(kept):
            heapq.heappush(heap, (paid, -depth - 1, (number := number + 1), kept))
            continue
        for value, log in zip(choice.values, logs[name], strict=True):
            cost = paid + max(logs[name]) - log
            heapq.heappush(heap, (cost, -depth - 1, (number := number + 1), {**kept, name: value}))
