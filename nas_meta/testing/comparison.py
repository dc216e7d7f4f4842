"""A strategy beside random search, over a landscape whose optimum is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from nas_meta.core import plugins
from nas_meta.errors import ConfigError
from nas_meta.testing.landscapes import ONE, TWO, Landscape
from nas_meta.testing.strategy_checks import Make, Subject

DRAWS = 200  # random searches, which cost nothing


@dataclass(frozen=True)
class Comparison:
    """How close a strategy comes to the optimum, beside random search.

    Attributes:
        measure: What is measured; 1 is the optimum.
        strategy: Its value for each seed.
        random: The same for many random searches without repeats.
    """

    measure: str
    strategy: Sequence[float]
    random: Sequence[float]

    @property
    def strategy_mean(self) -> float:
        """The mean of the strategy over all seeds."""
        return float(np.mean(self.strategy))

    @property
    def random_mean(self) -> float:
        """The mean of random search."""
        return float(np.mean(self.random))


def compare_with_random(strategy: str | Make, seeds: int = 5, trials: int = 60) -> list[Comparison]:
    """Compare a strategy with random search.

    Args:
        strategy: An installed name or ``path/to/file.py:Name``, or a function from a context to a new strategy.
        seeds: Number of searches with the strategy.
        trials: Trials of a search.

    Returns:
        The best accuracy with one objective, and the share of the true front's hypervolume with two. The second is
        missing if the strategy refuses two objectives.

    Raises:
        PluginError: The strategy cannot be loaded, or one of its methods raises an exception.
    """
    make = cast("Make", plugins.load("strategies", strategy) if isinstance(strategy, str) else strategy)
    landscape = Landscape()
    everything = [landscape.metrics(architecture) for architecture in landscape.walk()]
    landscape.calls = 0

    def best(metrics: Sequence[Mapping[str, float]]) -> float:
        return max((row["accuracy"] for row in metrics), default=0.0)

    rows = []
    measures = ((f"best accuracy of {trials} trials", ONE, best),
                (f"hypervolume of {trials} trials", TWO, landscape.share_of_front))  # fmt: skip
    for name, objectives, measure in measures:
        rng = np.random.default_rng(0)
        drawn = [rng.choice(len(everything), trials, replace=False) for _ in range(DRAWS)]
        found = []
        try:
            for seed in range(seeds):
                search = Subject(make, seed).finished(landscape, trials, workers=1, objectives=objectives)
                found.append(measure([search.trials[number].metrics for number in search.ended]))
        except ConfigError:
            if objectives is ONE:
                raise
            continue
        rows.append(Comparison(name, found, [measure([everything[i] for i in indices]) for indices in drawn]))
    return rows
