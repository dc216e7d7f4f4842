"""What is searched beside the architecture: choices in the ``learner`` and ``tasks`` sections of a config.

``lr: {choice: [1e-5, 3e-5, 1e-4]}`` there is one more choice of the search, named ``learner.lr``; strategies see one
joint space.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.core.guard import asking
from nas_meta.errors import ConfigError
from nas_meta.space.architecture import Architecture, Choice, Value
from nas_meta.space.enumeration import assignments, count
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import WrappedSpace

if TYPE_CHECKING:
    from nas_meta.learners.base import Learner
    from nas_meta.space.supernet import Supernet

CHOICE = "choice"
TASK_CHOICES = ("pooling", "train_ways", "train_shots", "train_queries")


def is_choice(value: Any) -> bool:
    """Whether a value of a config is ``{choice: [...]}``."""
    return isinstance(value, Mapping) and set(value) == {CHOICE}


def choices_in(section: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The path and the values of every choice in a section."""
    for name, value in section.items():
        if is_choice(value):
            yield (*path, name), value[CHOICE]
        elif isinstance(value, Mapping):
            yield from choices_in(value, (*path, name))


def with_values(section: Mapping[str, Any], values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """A copy of a section with the value at every path replaced."""
    result = copy.deepcopy(dict(section))
    for path, value in values.items():
        target = result
        for part in path[:-1]:
            target = target[part]
        target[path[-1]] = value
    return result


@dataclass(frozen=True)
class Recipe:
    """How a candidate is trained and on what, as far as the search may choose it.

    Attributes:
        choices: by dotted path, such as ``learner.lr`` or ``tasks.pooling``.
        learner: the config's learner section, its choices at their first value.
        learners: the classes of every learner that may be chosen, by name.
    """

    choices: Mapping[str, Choice] = field(default_factory=dict)
    learner: Mapping[str, Any] = field(default_factory=dict)
    learners: Mapping[str, type[Learner]] = field(default_factory=dict)

    def learner_of(self, architecture: Architecture) -> Learner:
        """The learner with the options that were chosen."""
        chosen = {
            tuple(name.split(".")[1:]): value
            for name, value in architecture.values.items()
            if name in self.choices and name.startswith("learner.")
        }
        section = with_values(self.learner, chosen)
        plugin = self.learners[section.pop("name")]
        return plugin(plugin.Options.model_validate(known_to(plugin.Options, section)))

    def task_values(self, architecture: Architecture) -> dict[str, Value]:
        """What was chosen in the tasks section, by key."""
        prefix = "tasks."
        return {n.removeprefix(prefix): v for n, v in architecture.values.items() if n.startswith(prefix)}


def known_to(options: type, section: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a section that a plugin's options have: where the plugin is a choice, not each knows all."""
    return {name: value for name, value in section.items() if name in options.model_fields}


class JointSpace(WrappedSpace):
    """A search space together with a recipe: one more choice for each of the recipe's.

    Raises:
        ConfigError: the space has a choice of the same name.
    """

    def __init__(self, space: SearchSpace, recipe: Recipe):
        super().__init__(space)
        self.recipe = recipe
        both = set(space.table) & set(recipe.choices)
        if both:
            raise ConfigError(f"{min(both)} is a choice of {type(space).__name__} and of the config; rename one")
        if "tasks.pooling" in recipe.choices:
            with asking(space, "pooling"):
                own = space.pooling(space.canonical({name: c.values[0] for name, c in space.table.items()}))
            if own is not None:
                raise ConfigError(f"tasks.pooling is a choice, but architectures of {type(space).__name__} choose it")

    def choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        return {**self.space.table, **self.recipe.choices}

    def representative(self, architecture: Architecture) -> Architecture:
        chosen = {n: v for n, v in architecture.values.items() if n in self.recipe.choices}
        return Architecture({**self.space.representative(self.own(architecture)).values, **chosen})

    def sample(self, rng: np.random.Generator, tries: int = 1000) -> Architecture:
        chosen = {n: c.values[int(rng.integers(len(c.values)))] for n, c in self.recipe.choices.items()}
        return self.canonical({**self.space.sample(rng, tries).values, **chosen})

    def size(self) -> int:
        return self.space.size() * count(self.recipe.choices)

    def walk(self) -> Iterator[Architecture]:
        chosen = list(assignments({n: c for n, c in self.table.items() if n in self.recipe.choices}))
        return (Architecture({**a.values, **values}) for a in self.space.walk() for values in chosen)

    def supernet(self) -> Supernet | None:
        name = next(iter(self.recipe.choices))
        raise ConfigError(f"{name} is a choice, but a supernet is trained once, by one recipe; give {name} one value")

    def own(self, architecture: Architecture) -> Architecture:
        """The part of an architecture that the space itself knows."""
        return Architecture({n: v for n, v in architecture.values.items() if n not in self.recipe.choices})
