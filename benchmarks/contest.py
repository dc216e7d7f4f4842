"""Compares strategies, and optuna's samplers without nas-meta, on one table or landscape.

A module with a ``contest()`` can be compared: it says what is searched. Every search is stored in
``benchmarks/contest.json``, and only what the file lacks is searched; delete the lines of a strategy that has changed.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.optuna_search import search_with_optuna
from benchmarks.results_file import measure_missing
from benchmarks.table import Table
from benchmarks.tabular_search import (
    ACCURACY,
    FLOPS,
    hypervolume_shares,
    median_and_quartiles,
    search_table,
    use_one_thread,
)
from nas_meta import Architecture, SearchSpace

RESULTS = Path(__file__).with_suffix(".json")
SEEDS = range(5)
GAUSSIAN, GAUSSIAN_SEEDS = "optuna GP", range(3)
ONE_OBJECTIVE = ("auto", "evolution", "tpe", "random", "optuna TPE", GAUSSIAN)
TWO_OBJECTIVES = ("auto", "motpe", "nsga2", "random", "optuna TPE, multivariate", "optuna NSGA-II (50)", GAUSSIAN)
UNCOUNTED = "auto, FLOPs not counted"  # by the space, so that the strategy predicts them from results
HEADINGS = {1: "best accuracy", 2: "share of the hypervolume"}  # by the number of objectives


@dataclass(frozen=True)
class Contest:
    """What strategies search.

    Attributes:
        name: name of the benchmark.
        space: the search space.
        look_up: function that returns ``accuracy`` and ``flops`` of an architecture.
        truth: ``[rows, 2]`` accuracy and negative FLOPs that the hypervolume is relative to.
        columns: numbers of evaluations to report; the last is the budget.
        scale: factor of accuracies in the result table.
        digits: decimal places of accuracies in the result table.
        gaussian: budgets of optuna's slow Gaussian process, with one objective and with two.
        strategies: further strategies of nas-meta with one objective.
        packages: functions of seed and budget that search by accuracy with a package's own code and return the
            accuracies in order, by the name of their row.
    """

    name: str
    space: SearchSpace
    look_up: Callable[[Architecture], Mapping[str, float]]
    truth: np.ndarray
    columns: Sequence[int] = (25, 50, 100, 200, 300)
    scale: float = 1.0
    digits: int = 2
    gaussian: tuple[int, int] = (100, 50)
    strategies: Sequence[str] = ()
    packages: Mapping[str, Callable[[int, int], Sequence[float]]] = field(default_factory=dict)

    def rows(self) -> list[tuple[int, str]]:
        """Number of objectives and name of every row, in the order of the result table."""
        one = (*ONE_OBJECTIVE[:3], *self.strategies, *ONE_OBJECTIVE[3:], *self.packages)
        counted = self.space.counts(self.space.sample(np.random.default_rng(0)), 1)
        two = (TWO_OBJECTIVES[0], UNCOUNTED, *TWO_OBJECTIVES[1:]) if counted else TWO_OBJECTIVES
        return [*((1, name) for name in one), *((2, name) for name in two)]

    def budget(self, objectives: int, name: str) -> int:
        """Number of evaluations of a search."""
        return self.gaussian[objectives - 1] if name == GAUSSIAN else self.columns[-1]

    def search(self, objectives: int, name: str, seed: int) -> dict[str, Any]:
        """Runs one search.

        Args:
            objectives: 1 for accuracy, 2 for accuracy and FLOPs.
            name: name of the row.
            seed: seed of the search.

        Returns:
            ``best``: the best accuracy, or the share of the hypervolume, after the evaluations that improved it, as
            pairs of the number of evaluations and the value; and the CPU ``seconds`` of the search.
        """
        started, budget = time.process_time(), self.budget(objectives, name)
        if name in self.packages:
            values = np.array(self.packages[name](seed, budget))[:, None]
        else:
            search = search_with_optuna if name.startswith("optuna") else search_table
            space, goals = self.space, [ACCURACY, FLOPS][:objectives]
            if name == UNCOUNTED:
                name, space = "auto", copy.copy(space)
                space.counts = lambda architecture, tokens: {}
            values = np.array(search(name, space, self.look_up, budget, seed, goals))
        seconds = round(time.process_time() - started, 1)
        every = range(1, len(values) + 1)
        curve = values[:, 0] if objectives == 1 else hypervolume_shares(values, self.truth, every)
        best = [[1, round(float(curve[0]), 6)]]
        for n, value in zip(every, curve, strict=True):
            if round(float(value), 6) > best[-1][1]:
                best.append([n, round(float(value), 6)])
        return {"best": best, "seconds": seconds}


def search_all(contest: Contest, seeds: Sequence[int] = SEEDS) -> dict[tuple[int, str], list[dict[str, Any]]]:
    """Runs the searches that are not stored.

    Args:
        contest: what is searched.
        seeds: seeds of every row; the Gaussian process has at most ``GAUSSIAN_SEEDS``.

    Returns:
        The searches of every seed by number of objectives and name of the row.
    """
    from threadpoolctl import threadpool_limits

    use_one_thread()
    keys = {f"{contest.name} {objectives} {name}": (objectives, name) for objectives, name in contest.rows()}
    fast = [key for key, row in keys.items() if row[1] != GAUSSIAN]
    with threadpool_limits(1):
        for names, of_names in ((fast, seeds), (keys, [seed for seed in seeds if seed in GAUSSIAN_SEEDS])):
            results = measure_missing(RESULTS, names, of_names, lambda key, seed: contest.search(*keys[key], seed))
    return {row: [results[f"{key} {s}"] for s in seeds if f"{key} {s}" in results] for key, row in keys.items()}


def values_after(search: Mapping[str, Any], numbers: Sequence[int]) -> np.ndarray:
    """The best value of a search after each number of evaluations.

    Example: a search whose ``best`` is ``[[1, 0.5], [4, 0.7]]`` has 0.5 after 3 evaluations, and 0.7 after 4.
    """
    found_at, values = np.array(search["best"]).T
    return values[np.searchsorted(found_at, numbers, side="right") - 1]


def compare(contest: Contest, note: str = "") -> Table:
    """Compares all strategies.

    Args:
        contest: what is searched.
        note: further sentences below the table.

    Returns:
        Median and quartiles after several numbers of evaluations, one row per strategy and number of objectives.
    """
    searches = search_all(contest)
    rows = []
    for (objectives, name), of_seeds in searches.items():
        scale, digits = (contest.scale, contest.digits) if objectives == 1 else (1.0, 3)
        found = scale * np.array([values_after(search, contest.columns) for search in of_seeds])
        measured = [n for n in contest.columns if n <= contest.budget(objectives, name)]
        cells = [median_and_quartiles(column, digits) for column in found.T[: len(measured)]]
        own = not name.startswith("optuna") and name not in contest.packages
        strategy, comma, rest = name.partition(",")
        label = f"`{strategy}`{comma}{rest}" if own else name
        rows.append([HEADINGS[objectives], label, *cells, *["-"] * (len(contest.columns) - len(measured))])
    seconds = [np.median([search["seconds"] for search in searches[n, GAUSSIAN]]) for n in HEADINGS]
    return Table(
        ("", "strategy", *map(str, contest.columns)),
        rows,
        f"Median and quartiles over {len(SEEDS)} seeds after the number of evaluations at the head of each column. "
        "Strategies in code font run in nas-meta, the others without it. The hypervolume is that of accuracy against "
        f"FLOPs. `auto` picks `surrogate`. optuna's Gaussian process (GP) has {len(GAUSSIAN_SEEDS)} seeds and ends "
        f"early because it is slow: {contest.gaussian[0]} evaluations by accuracy take it {seconds[0]:.0f} s of one "
        f"core, and {contest.gaussian[1]} with two objectives {seconds[1]:.0f} s.{' ' if note else ''}{note}",
    )
