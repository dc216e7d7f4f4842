"""Wrappers around a search space, which add choices, limits or predicted latencies to it."""

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
from nas_meta.space.search_space import ENUMERATION_LIMIT, SearchSpace

if TYPE_CHECKING:
    from torch import nn

    from nas_meta.space.latency_predictor import LatencyTable
    from nas_meta.space.supernet import Supernet
    from nas_meta.tasks.pool import Tasks


class WrappedSpace(SearchSpace):
    """Base class of wrappers; forwards all methods to the wrapped space.

    Args:
        space: The search space to wrap.

    Attributes:
        space: The wrapped space.
    """

    def __init__(self, space: SearchSpace):
        super().__init__(space.options)
        self.space = space
        self.tokenizer, self.modality, self.image_shape = space.tokenizer, space.modality, space.image_shape
        self.draws = space.draws

    def inner(self, architecture: Architecture) -> Architecture:
        """Return the architecture as the wrapped space knows it; by default the same.

        Args:
            architecture: Architecture of the wrapper.
        """
        return architecture

    def choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        return self.space.table

    def build(self, architecture: Architecture) -> nn.Module:
        return self.space.build(self.inner(architecture))

    def problem(self, architecture: Architecture) -> str | None:
        return self.space.problem_of(self.inner(architecture))

    def representative(self, architecture: Architecture) -> Architecture:
        return self.space.representative(architecture)

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        return self.space.counts(self.inner(architecture), tokens)

    def pooling(self, architecture: Architecture) -> str | None:
        return self.space.pooling(self.inner(architecture))

    def prepare(self, tasks: Tasks, seed: int) -> None:
        with plugin_call(self.space, "prepare"):
            self.space.prepare(tasks, seed)

    def reference(self) -> nn.Module | None:
        with plugin_call(self.space, "reference"):
            return self.space.reference()

    def comparisons(self, architecture: Architecture) -> Mapping[str, Architecture]:
        inner = self.inner(architecture)
        added = {name: value for name, value in architecture.values.items() if name not in inner.values}
        with plugin_call(self.space, "comparisons"):
            rows = self.space.comparisons(inner)
            return {name: Architecture({**row.values, **added}) for name, row in rows.items()}

    def starts(self) -> Sequence[Mapping[str, Value]]:
        with plugin_call(self.space, "starts"):
            return self.space.starts()

    def supernet(self) -> Supernet | None:
        return self.space.supernet()

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        self.space.save(model, self.inner(architecture), folder)

    def sample(self, rng: np.random.Generator, tries: int = 1000) -> Architecture:
        return self.space.sample(rng, tries)

    def size(self) -> int:
        return self.space.size()

    def walk(self) -> Iterator[Architecture]:
        return self.space.walk()


def space_name(space: SearchSpace) -> str:
    """Return the class name of a space inside its wrappers, for error messages.

    Args:
        space: Search space, wrapped or not.
    """
    while isinstance(space, WrappedSpace):
        space = space.space
    return type(space).__name__


class TimedSpace(WrappedSpace):
    """Wrapper that counts the metric ``latency`` as soon as a latency predictor is set.

    Attributes:
        latencies: The latency predictor; None until latencies have been measured.
    """

    latencies: LatencyTable | None = None

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        counted = super().counts(architecture, tokens)
        table = self.latencies
        return counted if table is None else {**counted, table.metric: table.predict(architecture)}

    def __getstate__(self) -> dict[str, Any]:
        # Only the driver predicts latencies; without the predictor, the space sent to workers stays small.
        return {name: value for name, value in self.__dict__.items() if name != "latencies"}


def timed_space(space: SearchSpace) -> TimedSpace:
    """Return the :class:`TimedSpace` among the wrappers of a space.

    Args:
        space: Search space with a :class:`TimedSpace` among its wrappers.
    """
    while not isinstance(space, TimedSpace):
        space = space.space
    return space


class LimitedSpace(WrappedSpace):
    """Wrapper that excludes architectures which are known to exceed a limit before they are built.

    Args:
        space: The search space to wrap.
        limits: Limits of metrics that the space counts.
        tokens: Tokens of the text for which FLOPs are counted.
    """

    def __init__(self, space: SearchSpace, limits: Sequence[Limit], tokens: int):
        super().__init__(space)
        self.limits, self.tokens = limits, tokens

    def problem(self, architecture: Architecture) -> str | None:
        problem = super().problem(architecture)
        if problem is None:
            with plugin_call(self.space, "counts"):
                counts = self.counts(architecture, self.tokens)
            if not isinstance(counts, Mapping) or not all(isinstance(c, (int, float)) for c in counts.values()):
                raise PluginError(
                    f"{space_name(self)}.counts() returned {counts!r}; expected a mapping from metrics to numbers"
                )
            problem = next(filter(None, (limit.problem(counts) for limit in self.limits)), None)
        return problem

    def sample(self, rng: np.random.Generator, tries: int = 1000) -> Architecture:
        for _ in range(tries):
            architecture = self.space.sample(rng, tries)  # raises if the constraints, not the limits, reject all
            problem = self.problem_of(architecture)
            if problem is None:
                return architecture
        raise ConfigError(
            f"objectives: none of {tries} random architectures meets the limits (the last one: {problem}); "
            "relax the limits"
        )

    def size(self) -> int:
        """Return the number of architectures: exact for enumerable spaces, otherwise that of the wrapped space."""
        return super().size() if self.unconstrained > ENUMERATION_LIMIT else sum(1 for _ in self.walk())

    def walk(self) -> Iterator[Architecture]:
        return (architecture for architecture in self.space.walk() if self.problem_of(architecture) is None)


class JointSpace(WrappedSpace):
    """Wrapper that adds a choice for every searched hyperparameter.

    Args:
        space: The search space to wrap.
        searched: Choices by dotted config key, such as ``learner.lr`` or ``tasks.pooling``.

    Raises:
        ConfigError: If the space has a choice of the same name, or if both choose the pooling.
    """

    def __init__(self, space: SearchSpace, searched: Mapping[str, Choice]):
        super().__init__(space)
        self.searched = searched
        both = set(space.table) & set(searched)
        if both:
            raise ConfigError(f"{min(both)} is a choice of {type(space).__name__} and of the config; rename one")
        if "tasks.pooling" in searched:
            with plugin_call(space, "pooling"):
                pooling = space.pooling(space.canonical({name: c.values[0] for name, c in space.table.items()}))
            if pooling is not None:
                raise ConfigError(
                    f"tasks.pooling is a choice, but architectures of {type(space).__name__} choose the pooling, too; "
                    "give tasks.pooling one value"
                )

    def choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        return {**self.space.table, **self.searched}

    def representative(self, architecture: Architecture) -> Architecture:
        chosen = {n: v for n, v in architecture.values.items() if n in self.searched}
        return Architecture({**self.space.representative(self.inner(architecture)).values, **chosen})

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
            f"{name} is a choice, but a supernet is trained once with fixed hyperparameters; give {name} one value"
        )

    def inner(self, architecture: Architecture) -> Architecture:
        return Architecture({n: v for n, v in architecture.values.items() if n not in self.searched})
