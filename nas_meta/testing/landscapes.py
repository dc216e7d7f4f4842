"""Search spaces whose accuracies are a formula, so that the best architecture is known and a trial costs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from torch import nn

from nas_meta.core.objectives import Objective, hypervolume, pareto_front, signed_values
from nas_meta.errors import StrategyError
from nas_meta.space.architecture import Architecture, Choice, Value
from nas_meta.space.search_space import SearchSpace

MOST_CALLS = 50_000  # architectures that a strategy may make for one proposal; more are an endless loop
ONE = (Objective("accuracy"),)
TWO = (Objective("accuracy"), Objective("params", "minimize"))


class Landscape(SearchSpace):
    """Six choices of four values, 4,096 architectures: each correct value counts, and correct neighbours count more.

    The accuracy is 1 for the best architecture. The costs are the sum of all values, so that the cheapest architecture
    is not the most accurate one.
    """

    calls = 0
    """Architectures that were made since the last proposal."""

    def choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        return {f"choice{i}": [0, 1, 2, 3] for i in range(6)}

    def build(self, architecture: Architecture) -> nn.Module:
        raise StrategyError(
            "the strategy builds models, but the landscapes of the check have none; expected only choices and results"
        )

    def representative(self, architecture: Architecture) -> Architecture:
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise StrategyError(
                f"one proposal made {MOST_CALLS:,} architectures without an end; return None when no new architecture "
                "is left, instead of drawing again and again"
            )
        return architecture

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        return {"params": float(sum(value for value in architecture.values.values() if isinstance(value, int)))}

    def accuracy(self, architecture: Architecture) -> float:
        """Return the accuracy of an architecture, from 0 to 1.

        Args:
            architecture: Architecture of this space.
        """
        correct = [value == (7 * i + 3) % 4 for i, value in enumerate(architecture.values.values())]
        return (sum(correct) + sum(a and b for a, b in pairwise(correct)) / 2) / (1.5 * len(correct) - 0.5)

    def metrics(self, architecture: Architecture) -> dict[str, float]:
        """Return the result of a trial.

        Args:
            architecture: Architecture of this space.
        """
        return {"accuracy": self.accuracy(architecture), **self.counts(architecture, 128)}

    @cached_property
    def front(self) -> np.ndarray:
        """The Pareto front of accuracy and costs, ``[architectures, 2]``, higher is better."""
        values = np.array([signed_values(self.metrics(a), TWO) for a in self.walk()])
        self.calls = 0
        return values[pareto_front(values)]

    def share_of_front(self, metrics: Sequence[Mapping[str, float]]) -> float:
        """Return the hypervolume of some results, as a share of that of the true front.

        Args:
            metrics: Results of trials.
        """
        if not metrics:
            return 0.0
        reference = np.array([0.0, -18.5])  # below every architecture with an accuracy above 0
        values = np.array([signed_values(row, TWO) for row in metrics])
        return hypervolume(values, reference) / hypervolume(self.front, reference)


class Constant(Landscape):
    """The same landscape, in which every architecture has the accuracy 0.5."""

    def accuracy(self, architecture: Architecture) -> float:
        return 0.5


class Branches(Landscape):
    """Sixteen architectures: choices that exist for some values of others only, and a constraint."""

    def choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        return {
            "kind": ["plain", "wide", "deep"],
            "width": Choice([1, 2, 3], when={"kind": "wide"}),
            "layers": Choice([1, 2], when={"kind": ("wide", "deep")}),
            "bias": [False, True],
        }

    def problem(self, architecture: Architecture) -> str | None:
        if architecture.values.get("width") == 3 and architecture["layers"] == 2:
            return "it is too large"
        return None

    def accuracy(self, architecture: Architecture) -> float:
        values = architecture.values
        return sum(float(values.get(name) or 0) for name in ("width", "layers", "bias")) / 5


class Two(Landscape):
    """Two architectures."""

    def choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        return {"choice0": [1, 3]}
