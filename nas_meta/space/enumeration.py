"""Tables of conditional choices: every assignment once, and how many there are without going through them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas_meta.space.architecture import Choice, Value


def assignments(table: Mapping[str, Choice]) -> Iterator[dict[str, Value]]:
    """Every assignment of values to the choices that have an effect beside the others, once.

    Args:
        table: conditions come before what they rule.
    """
    names = list(table)

    def after(depth: int, kept: dict[str, Value]) -> Iterator[dict[str, Value]]:
        while depth < len(names) and not table[names[depth]].applies(kept):
            depth += 1
        if depth == len(names):
            yield kept
            return
        for value in table[names[depth]].values:
            yield from after(depth + 1, {**kept, names[depth]: value})

    yield from after(0, {})


def count(table: Mapping[str, Choice]) -> int:
    """The number of :func:`assignments`.

    Choices that condition each other are counted together, independent groups are multiplied.
    """
    groups: list[set[str]] = []
    for name, choice in table.items():
        linked = {name, *choice.when}
        touching = [g for g in groups if g & linked]
        groups = [g for g in groups if not g & linked] + [linked.union(*touching)]
    return prod(_count({n: c for n, c in table.items() if n in group}) for group in groups)


def _count(table: Mapping[str, Choice]) -> int:
    """Decides one choice after the other and keeps of those before only what later ones depend on.

    Assignments that agree there have equally many ways to go on.
    """
    children = {name: {n for n, c in table.items() if name in c.when} for name in table}
    waiting = dict(table)
    open_: set[str] = set()  # decided choices on which others wait
    states: Counter[frozenset[tuple[str, Value]]] = Counter({frozenset(): 1})

    def left_open(name: str) -> set[str]:
        return {n for n in (*open_, name) if children[n] & waiting.keys() - {name}}

    while waiting:
        ready = [n for n, c in waiting.items() if not waiting.keys() & c.when.keys()]
        # The one that leaves the least to be remembered.
        name = min(ready, key=lambda n: len(left_open(n)))
        open_ = left_open(name)
        choice = waiting.pop(name)
        following: Counter[frozenset[tuple[str, Value]]] = Counter()
        for state, ways in states.items():
            kept = dict(state)
            values = choice.values if choice.applies(kept) else None
            for value in values or ():
                following[frozenset((n, v) for n, v in (*state, (name, value)) if n in open_)] += ways
            if values is None:
                following[frozenset((n, v) for n, v in state if n in open_)] += ways
        states = following
    return sum(states.values())
