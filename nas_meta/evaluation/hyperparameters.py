"""What is searched beside the architecture: choices in the ``learner`` and ``tasks`` sections of a config.

``lr: {choice: [1e-5, 3e-5, 1e-4]}`` there is one more choice of the search, named ``learner.lr``; strategies see one
joint space.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nas_meta.space.architecture import Architecture, Choice, Value

if TYPE_CHECKING:
    from nas_meta.learners.base import Learner

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
class SearchedHyperparameters:
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
        return plugin(plugin.Options.model_validate(known_options(plugin.Options, section)))

    def task_values(self, architecture: Architecture) -> dict[str, Value]:
        """What was chosen in the tasks section, by key."""
        prefix = "tasks."
        return {n.removeprefix(prefix): v for n, v in architecture.values.items() if n.startswith(prefix)}


def known_options(options: type, section: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a section that a plugin's options have: where the plugin is a choice, not each knows all."""
    return {name: value for name, value in section.items() if name in options.model_fields}
