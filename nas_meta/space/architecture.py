"""Choices and architectures: the plain data of a search space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


Value = bool | int | float | str | None


@dataclass(frozen=True)
class Choice:
    """One decision of a search space.

    Args:
        values: what can be chosen; JSON scalars, no two equal.
        when: the choice has an effect only where every named choice has the given value, or one of the given
            tuple; otherwise the architecture does not contain it, and two architectures that differ only there are one.
    """

    values: Sequence[Value]
    when: Mapping[str, Value | tuple[Value, ...]] = field(default_factory=dict)

    def applies(self, kept: Mapping[str, Value]) -> bool:
        """Whether the choice has an effect beside these."""
        return all(
            parent in kept and kept[parent] in (wanted if isinstance(wanted, (tuple, list)) else (wanted,))
            for parent, wanted in self.when.items()
        )


@dataclass(frozen=True, eq=False)
class Architecture:
    """One value for every choice that has an effect. Immutable, hashable, equal by value.

    Made by :meth:`SearchSpace.architecture`, which validates and drops what has no effect.
    """

    values: Mapping[str, Value]

    @cached_property
    def canonical(self) -> str:
        """The architecture as JSON with sorted keys and no spaces."""
        return json.dumps(dict(self.values), sort_keys=True, separators=(",", ":"))

    @cached_property
    def id(self) -> str:
        """The first ten hexadecimal digits of the SHA-256 of :attr:`canonical`."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:10]

    def __getitem__(self, name: str) -> Any:  # a Value; which kind of it, its space knows
        return self.values[name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return hash(self.canonical)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.values.items())
