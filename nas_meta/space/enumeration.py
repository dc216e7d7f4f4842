"""Enumeration of conditional choices: every assignment once, and their number without enumerating them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas_meta.space.architecture import Choice, Value


def assignments(table: Mapping[str, Choice]) -> Iterator[dict[str, Value]]:
    """Enumerate every distinct assignment of values to the active choices.

    Depth-first search over the choices in the order of the table. Invariant: at ``depth``, ``active`` holds a value for
    exactly those of the first ``depth`` choices that are active. A choice is decided after the choices that its
    condition names, so an inactive one is skipped for good and no assignment is produced twice.

    Example: ``{"keep": [True, False], "heads": Choice([2, 4], when={"keep": True})}`` has the assignments
    ``{keep: True, heads: 2}``, ``{keep: True, heads: 4}`` and ``{keep: False}``.

    Args:
        table: Choices by name; every choice comes after those that its condition names.

    Yields:
        Values of the active choices by name, in lexicographic order of the table.
    """
    names = list(table)

    def search(depth: int, active: dict[str, Value]) -> Iterator[dict[str, Value]]:
        while depth < len(names) and not table[names[depth]].applies(active):
            depth += 1
        if depth == len(names):
            yield active
            return
        for value in table[names[depth]].values:
            yield from search(depth + 1, {**active, names[depth]: value})

    yield from search(0, {})


def count(table: Mapping[str, Choice]) -> int:
    """Return the number of :func:`assignments`, without enumerating them.

    Choices that are linked by conditions form the connected components of a graph. Components do not influence each
    other, so their numbers are multiplied; each is counted by dynamic programming. A hundred conditional layers take a
    fraction of a second, if few decided choices are conditions of undecided ones at any time.

    Example: ``keep`` and ``heads`` of :func:`assignments` have 3 assignments, and an unconditional ``width`` with
    3 values is a separate component, which makes 3 * 3 = 9 in total.

    Args:
        table: Choices by name; every choice comes after those that its condition names.

    Returns:
        The number of assignments; 1 for an empty table.
    """
    components: list[set[str]] = []
    for name, choice in table.items():
        linked = {name, *choice.when}
        touching = [component for component in components if component & linked]
        components = [component for component in components if not component & linked] + [linked.union(*touching)]
    return prod(_count_component({n: c for n, c in table.items() if n in names}) for names in components)


def _count_component(table: Mapping[str, Choice]) -> int:
    """Count one component by variable elimination, a dynamic programme over a frontier.

    Choices are decided one by one. The frontier is the set of decided choices that conditions of undecided choices
    name; the values of all other decided choices no longer matter and are summed out. Invariant: ``ways[state]`` is the
    number of assignments of the decided choices that agree with ``state`` on the frontier, where an inactive choice has
    no entry. The next choice is the one that leaves the smallest frontier, and the cost is the number of states.

    Example: ``depth`` in (1, 2); ``a`` in (x, y), always active but with the condition ``depth`` in (1, 2); and ``b``
    in (x, y) if ``depth`` is 2::

        decided     frontier    ways
        -           {}          {}: 1
        depth       {depth}     {depth=1}: 1   {depth=2}: 1
        a           {depth}     {depth=1}: 2   {depth=2}: 2     a doubles both
        b           {}          {}: 2 + 2 * 2 = 6               b is inactive for depth=1, and depth is summed out
    """
    dependents = {name: {n for n, c in table.items() if name in c.when} for name in table}
    undecided = dict(table)
    frontier: set[str] = set()
    ways: Counter[frozenset[tuple[str, Value]]] = Counter({frozenset(): 1})

    def frontier_after(name: str) -> set[str]:
        return {n for n in (*frontier, name) if dependents[n] & undecided.keys() - {name}}

    while undecided:
        ready = [n for n, c in undecided.items() if not undecided.keys() & c.when.keys()]
        name = min(ready, key=lambda n: len(frontier_after(n)))
        frontier = frontier_after(name)
        choice = undecided.pop(name)
        following: Counter[frozenset[tuple[str, Value]]] = Counter()
        for state, number in ways.items():
            if choice.applies(dict(state)):
                extended = [(*state, (name, value)) for value in choice.values]
            else:
                extended = [tuple(state)]
            for entries in extended:
                following[frozenset((n, v) for n, v in entries if n in frontier)] += number
        ways = following
    return sum(ways.values())
