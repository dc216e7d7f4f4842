"""Hyperparameters that are searched together with the architecture.

A choice in the ``learner`` or ``tasks`` section of a config, such as ``lr: {choice: [1e-5, 3e-5, 1e-4]}``, becomes a
choice of the search named ``learner.lr``. Strategies see one joint space of architectures and hyperparameters.
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
    """Return whether a value of a config is ``{choice: ...}``.

    Args:
        value: Any value of the config.
    """
    return isinstance(value, Mapping) and set(value) == {CHOICE}


def choices_in(section: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Find the choices in a section, also in nested mappings.

    Args:
        section: The section as plain data.
        path: Path of the section, which paths of choices start with.

    Yields:
        Path and values of every choice; ``{training: {dropout: {choice: [0.0, 0.1]}}}`` yields
        ``("training", "dropout"), [0.0, 0.1]``. The values are not checked.
    """
    for name, value in section.items():
        if is_choice(value):
            yield (*path, name), value[CHOICE]
        elif isinstance(value, Mapping):
            yield from choices_in(value, (*path, name))


def with_values(section: Mapping[str, Any], values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """Return a deep copy of a section with some values replaced.

    Args:
        section: The section as plain data.
        values: New values by path; all but the last part of a path must exist.
    """
    result = copy.deepcopy(dict(section))
    for path, value in values.items():
        target = result
        for part in path[:-1]:
            target = target[part]
        target[path[-1]] = value
    return result


@dataclass(frozen=True)
class SearchedHyperparameters:
    """The hyperparameters that a search chooses, and how a candidate's values become a learner and its episodes.

    An architecture of the joint space holds these values under dotted names, next to the choices of the search space.
    Invariant: a candidate is trained exactly as if its values stood in the config in place of the choices.

    Example: ``learner: {name: protonet, lr: {choice: [1e-4, 1e-3]}}`` gives::

        choices   {"learner.lr": Choice((0.0001, 0.001))}
        learner   {"name": "protonet", "lr": 0.0001}
        learners  {"protonet": ProtoNet}

    For ``Architecture({"layers": 4, "learner.lr": 0.001})``, :meth:`learner_of` returns a ProtoNet with ``lr`` 0.001,
    and :meth:`task_values` returns ``{}``.

    Attributes:
        choices: Choices by dotted path, such as ``learner.lr`` or ``tasks.pooling``.
        learner: The learner section of the config, with every choice at its first value.
        learners: Classes of the learners that can be chosen, by name.
    """

    choices: Mapping[str, Choice] = field(default_factory=dict)
    learner: Mapping[str, Any] = field(default_factory=dict)
    learners: Mapping[str, type[Learner]] = field(default_factory=dict)

    def learner_of(self, architecture: Architecture) -> Learner:
        """Build the learner of a candidate.

        Args:
            architecture: Architecture of the joint space.

        Returns:
            The learner that it chooses, with the options that it chooses; other options are those of the config.
        """
        chosen = {
            tuple(name.split(".")[1:]): value
            for name, value in architecture.values.items()
            if name in self.choices and name.startswith("learner.")
        }
        section = with_values(self.learner, chosen)
        plugin = self.learners[section.pop("name")]
        return plugin(plugin.Options.model_validate(known_options(plugin.Options, section)))

    def task_values(self, architecture: Architecture) -> dict[str, Value]:
        """Return the values that a candidate chooses in the ``tasks`` section.

        Args:
            architecture: Architecture of the joint space.

        Returns:
            Values by key, such as ``{"pooling": "cls", "train_shots": 3}``.
        """
        prefix = "tasks."
        return {n.removeprefix(prefix): v for n, v in architecture.values.items() if n.startswith(prefix)}


def known_options(options: type, section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a section that a model knows; if the plugin is a choice, none may know all of them.

    Args:
        options: A pydantic model, such as the ``Options`` of a plugin.
        section: The section as plain data.
    """
    return {name: value for name, value in section.items() if name in options.model_fields}


def with_options(learner: Learner, **changed: Any) -> Learner:
    """Return a learner with other options.

    Args:
        learner: The learner; it is left as it was.
        changed: New values by name of the option, already valid.
    """
    copied = copy.copy(learner)
    copied.options = learner.options.model_copy(update=changed)
    return copied
