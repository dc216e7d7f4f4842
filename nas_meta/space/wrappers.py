"""Search spaces around another: the same architectures, less or more than them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.core.guard import plugin_call
from nas_meta.core.objectives import Limit
from nas_meta.errors import ConfigError, PluginError
from nas_meta.space.architecture import Architecture, Choice, Value
from nas_meta.space.enumeration import assignments, count
from nas_meta.space.search_space import COUNTABLE, SearchSpace

if TYPE_CHECKING:
    from nas_meta.space.supernet import Supernet

if TYPE_CHECKING:
    from torch import nn

    from nas_meta.space.latency_predictor import LatencyTable
    from nas_meta.space.supernet import Supernet
    from nas_meta.tasks.pool import Tasks


class WrappedSpace(SearchSpace):
    """Hands everything on to the space inside; :meth:`own` is an architecture as that one knows it."""

    def __init__(self, space: SearchSpace):
        super().__init__(space.options)
        self.space = space
        self.tokenizer, self.modality, self.image_shape = space.tokenizer, space.modality, space.image_shape
        self.draws = space.draws

    def own(self, architecture: Architecture) -> Architecture:
        """The architecture of the space inside."""
        return architecture

    def choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        return self.space.table

    def build(self, architecture: Architecture) -> nn.Module:
        return self.space.build(self.own(architecture))

    def problem(self, architecture: Architecture) -> str | None:
        return self.space.problem_of(self.own(architecture))

    def representative(self, architecture: Architecture) -> Architecture:
        return self.space.representative(architecture)

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        return self.space.counts(self.own(architecture), tokens)

    def pooling(self, architecture: Architecture) -> str | None:
        return self.space.pooling(self.own(architecture))

    def prepare(self, tasks: Tasks, seed: int) -> None:
        with plugin_call(self.space, "prepare"):
            self.space.prepare(tasks, seed)

    def reference(self) -> nn.Module | None:
        with plugin_call(self.space, "reference"):
            return self.space.reference()

    def supernet(self) -> Supernet | None:
        return self.space.supernet()

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        self.space.save(model, self.own(architecture), folder)

    def sample(self, rng: np.random.Generator, tries: int = 1000) -> Architecture:
        return self.space.sample(rng, tries)

    def size(self) -> int:
        return self.space.size()

    def walk(self) -> Iterator[Architecture]:
        return self.space.walk()


def space_name(space: SearchSpace) -> str:
    """What a sentence calls a space: the class within those that wrap it."""
    while isinstance(space, WrappedSpace):
        space = space.space
    return type(space).__name__


class TimedSpace(WrappedSpace):
    """A space that also counts ``latency``, from the moment that it has a table to tell it from."""

    latencies: LatencyTable | None = None

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        counted = super().counts(architecture, tokens)
        return counted if self.latencies is None else {**counted, "latency": self.latencies.predict(architecture)}

    def __getstate__(self) -> dict[str, Any]:
        # The table knows the space, and workers need neither of the two to know of the other.
        return {name: value for name, value in self.__dict__.items() if name != "latencies"}


def timed_space(space: SearchSpace) -> TimedSpace:
    """The part of a wrapped space that counts latencies."""
    while not isinstance(space, TimedSpace):
        space = space.space
    return space


class LimitedSpace(WrappedSpace):
    """A space without the architectures that are known to break a limit before they are built."""

    def __init__(self, space: SearchSpace, limits: Sequence[Limit], tokens: int):
        super().__init__(space)
        self.limits, self.tokens = limits, tokens

    def problem(self, architecture: Architecture) -> str | None:
        problem = super().problem(architecture)
        if problem is None:
            with plugin_call(self.space, "counts"):
                counts = self.counts(architecture, self.tokens)
            if not isinstance(counts, Mapping) or not all(isinstance(c, (int, float)) for c in counts.values()):
                raise PluginError(f"{space_name(self)}.counts() returned {counts!r}; expected numbers by metric")
            problem = next(filter(None, (limit.problem(counts) for limit in self.limits)), None)
        return problem

    def sample(self, rng: np.random.Generator, tries: int = 1000) -> Architecture:
        for _ in range(tries):
            architecture = self.space.sample(rng, tries)  # where this raises, the limits are not to blame
            problem = self.problem_of(architecture)
            if problem is None:
                return architecture
        raise ConfigError(
            f"objectives: none of {tries} random architectures keeps the limits; of one of them {problem}"
        )

    def size(self) -> int:
        """Exact where few enough architectures have to be asked, else of the space without limits."""
        return super().size() if self.unconstrained > COUNTABLE else sum(1 for _ in self.walk())

    def walk(self) -> Iterator[Architecture]:
        return (architecture for architecture in self.space.walk() if self.problem_of(architecture) is None)


class JointSpace(WrappedSpace):
    """A search space with one more choice for every hyperparameter that is searched too.

    Args:
        space: The search space.
        searched: Choices by dotted config key, such as ``learner.lr`` or ``tasks.pooling``.

    Raises:
        ConfigError: the space has a choice of the same name.
    """

    def __init__(self, space: SearchSpace, searched: Mapping[str, Choice]):
        super().__init__(space)
        self.searched = searched
        both = set(space.table) & set(searched)
        if both:
            raise ConfigError(f"{min(both)} is a choice of {type(space).__name__} and of the config; rename one")
        if "tasks.pooling" in searched:
            with plugin_call(space, "pooling"):
                own = space.pooling(space.canonical({name: c.values[0] for name, c in space.table.items()}))
            if own is not None:
                raise ConfigError(f"tasks.pooling is a choice, but architectures of {type(space).__name__} choose it")

    def choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        return {**self.space.table, **self.searched}

    def representative(self, architecture: Architecture) -> Architecture:
        chosen = {n: v for n, v in architecture.values.items() if n in self.searched}
        return Architecture({**self.space.representative(self.own(architecture)).values, **chosen})

    def sample(self, rng: np.random.Generator, tries: int = 1000) -> Architecture:
        chosen = {n: c.values[int(rng.integers(len(c.values)))] for n, c in self.searched.items()}
        return self.canonical({**self.space.sample(rng, tries).values, **chosen})

    def size(self) -> int:
        return self.space.size() * count(self.searched)

    def walk(self) -> Iterator[Architecture]:
        chosen = list(assignments({n: c for n, c in self.table.items() if n in self.searched}))
        return (Architecture({**a.values, **values}) for a in self.space.walk() for values in chosen)

    def supernet(self) -> Supernet | None:
        name = next(iter(self.searched))
        raise ConfigError(
            f"{name} is a choice, but a supernet is trained once, with one value of everything; give {name} one value"
        )

    def own(self, architecture: Architecture) -> Architecture:
        """The part of an architecture that the space itself knows."""
        return Architecture({n: v for n, v in architecture.values.items() if n not in self.searched})
