"""Choices and architectures, the plain data that a search space consists of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

Value = bool | int | float | str | None


@dataclass(frozen=True)
class Choice:
    """One decision of a search space, optionally conditional on other choices.

    Example: a layer's number of heads matters only if the layer is kept::

        {"keep": [True, False], "heads": Choice([2, 4], when={"keep": True})}

    Args:
        values: Values to choose from; distinct JSON scalars.
        when: Condition of the choice: for every choice it depends on, the value or the tuple of values that activate
            it; all must hold. An inactive choice is not part of the architecture, so two architectures that differ only
            there are the same. By default the choice is always active.
    """

    values: Sequence[Value]
    when: Mapping[str, Value | tuple[Value, ...]] = field(default_factory=dict)

    def applies(self, kept: Mapping[str, Value]) -> bool:
        """Return whether the choice is active.

        Args:
            kept: Values of the active choices among those that the condition names.
        """
        return all(
            parent in kept and kept[parent] in (wanted if isinstance(wanted, (tuple, list)) else (wanted,))
            for parent, wanted in self.when.items()
        )


@dataclass(frozen=True, eq=False)
class Architecture:
    """One value for every active choice; immutable, hashable, and equal by value.

    Create architectures with :meth:`SearchSpace.architecture`, which validates the values and drops inactive choices.

    Args:
        values: Values of the active choices by name.
    """

    values: Mapping[str, Value]

    @cached_property
    def canonical(self) -> str:
        """The architecture as JSON with sorted keys and no spaces."""
        return json.dumps(dict(self.values), sort_keys=True, separators=(",", ":"))

    @cached_property
    def id(self) -> str:
        """Identifier: the first ten hexadecimal digits of the SHA-256 of :attr:`canonical`."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:10]

    def __getitem__(self, name: str) -> Any:  # a Value, whose type only the space knows
        return self.values[name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return hash(self.canonical)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.values.items())
