"""Searches whose trials are table look-ups, so that thousands of them take seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nas_meta import WAIT, Architecture, Objective, Outcome, SearchContext, SearchSpace
from nas_meta.core import plugins
from nas_meta.core.objectives import hypervolume, signed_values

ACCURACY, FLOPS = Objective("accuracy"), Objective("flops", "minimize")


def search_table(
    name: str, space: SearchSpace, look_up: Callable[[Architecture], Mapping[str, float]], budget: int, seed: int,
    objectives: Sequence[Objective],
) -> list[tuple[float, ...]]:  # fmt: skip
    """Runs a strategy on a table, one trial at a time.

    Args:
        name: name of an installed strategy.
        space: search space of the table.
        look_up: function that returns the metrics of an architecture.
        budget: number of trials.
        seed: seed of the strategy.
        objectives: objectives of the search.

    Returns:
        Objective values of every trial in order, signed so that more is better; fewer than ``budget`` if the strategy
        runs out of proposals.
    """
    strategy_class = plugins.load("strategies", name)
    strategy = strategy_class(SearchContext(space, objectives, budget, 1, seed))
    found = []
    try:
        while len(found) < budget:
            architecture = strategy.ask()
            if architecture is WAIT or architecture is None:
                break
            metrics = look_up(architecture)
            values = signed_values(metrics, objectives)
            found.append(values)
            strategy.tell(Outcome(architecture, "completed", metrics, values[0], values))
    finally:
        strategy.close()
    return found


def median_and_quartiles(values: np.ndarray, digits: int) -> str:
    """A table cell: the median, then the quartiles in parentheses."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def hypervolume_shares(run: np.ndarray, truth: np.ndarray, columns: Sequence[int]) -> list[float]:
    """Shares of the true front's hypervolume that the first trials of a search reach.

    Args:
        run: ``[trials, 2]`` signed objective values of a search.
        truth: ``[architectures, 2]`` signed objective values of the whole table.
        columns: numbers of trials after which to compute the share.

    Returns:
        One share per column, from 0 to 1.
    """
    scale = truth.max(0) - truth.min(0)
    normal, everything = (run - truth.min(0)) / scale, (truth - truth.min(0)) / scale
    best = hypervolume(everything, np.zeros(2))
    return [hypervolume(normal[:n], np.zeros(2)) / best for n in columns]


def use_one_thread() -> None:
    """Initialises a worker process: with one process per core, more threads would only wait for each other."""
    import logging

    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # the policy of rl warns about every architecture it samples again
