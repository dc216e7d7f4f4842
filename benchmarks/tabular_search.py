"""Searches whose trials are looked up in a table, so that thousands of them take seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nas_meta import WAIT, Architecture, Objective, Outcome, SearchContext, SearchSpace, plugins
from nas_meta.objectives import hypervolume, signed

ACCURACY, FLOPS = Objective("accuracy"), Objective("flops", "minimize")


def trials(
    name: str, space: SearchSpace, look_up: Callable[[Architecture], Mapping[str, float]], budget: int, seed: int,
    objectives: Sequence[Objective],
) -> list[tuple[float, ...]]:  # fmt: skip
    """The signed values of every trial of a search, in order; one trial at a time."""
    strategy_class = plugins.load("strategies", name)
    strategy = strategy_class(SearchContext(space, objectives, budget, 1, seed))
    found = []
    try:
        while len(found) < budget:
            architecture = strategy.ask()
            if architecture is WAIT or architecture is None:
                break
            metrics = look_up(architecture)
            values = signed(metrics, objectives)
            found.append(values)
            strategy.tell(Outcome(architecture, "completed", metrics, values[0], values))
    finally:
        strategy.close()
    return found


def cell(values: np.ndarray, digits: int) -> str:
    """The median and the quartiles."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def shares(run: np.ndarray, truth: np.ndarray, columns: Sequence[int]) -> list[float]:
    """The share of the true front's hypervolume that the first trials have, at every column.

    Args:
        run: ``[trials, 2]`` signed values of a search.
        truth: ``[architectures, 2]`` those of the whole table.
    """
    scale = truth.max(0) - truth.min(0)
    normal, everything = (run - truth.min(0)) / scale, (truth - truth.min(0)) / scale
    best = hypervolume(everything, np.zeros(2))
    return [hypervolume(normal[:n], np.zeros(2)) / best for n in columns]


def alone_on_a_core() -> None:
    """In every process: its threads would only wait for those of the others."""
    import logging

    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # of every repeat that the policy of rl draws
