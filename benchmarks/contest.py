"""Compares strategies, and optuna's samplers without nas-meta, on one table or landscape.

A module with a ``contest()`` can be compared: it says what is searched, and :func:`compare` runs every strategy with
several seeds. Optuna's Gaussian process is not among them: it takes about a second for a proposal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module

import numpy as np

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
from nas_meta.core.objectives import signed_values

ONE_OBJECTIVE = ("auto", "evolution", "tpe", "random", "optuna TPE")
TWO_OBJECTIVES = ("auto", "motpe", "nsga2", "random", "optuna TPE, multivariate", "optuna NSGA-II (50)")
MOST_INVALID = 2_000  # draws of optuna that break a constraint, after which its search ends


@dataclass(frozen=True)
class Contest:
    """What strategies search.

    Attributes:
        space: the search space.
        look_up: function that returns ``accuracy`` and ``flops`` of an architecture.
        truth: ``[rows, 2]`` accuracy and negative FLOPs that the hypervolume is relative to.
        columns: numbers of evaluations to report; the last is the budget.
        scale: factor of accuracies in the result table.
        digits: decimal places of accuracies in the result table.
    """

    space: SearchSpace
    look_up: Callable[[Architecture], Mapping[str, float]]
    truth: np.ndarray
    columns: Sequence[int]
    scale: float = 1.0
    digits: int = 2


def make_sampler(name: str, seed: int):
    """Makes an optuna sampler with optuna's own defaults.

    Args:
        name: name of a row, such as ``optuna TPE``.
        seed: seed of the sampler.
    """
    from optuna import samplers

    if name == "optuna NSGA-II (50)":
        return samplers.NSGAIISampler(population_size=50, seed=seed)
    return samplers.TPESampler(seed=seed, multivariate=name.endswith("multivariate"))


def search_with_optuna(name: str, contest: Contest, seed: int, objectives: Sequence) -> list[tuple[float, ...]]:
    """Runs an optuna sampler as its users do. Draws that break a constraint are failed trials and cost nothing.

    Args:
        name: name of a row.
        contest: what is searched.
        seed: seed of the sampler.
        objectives: one or two objectives.

    Returns:
        Signed objective values of every evaluation in order.
    """
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    study = optuna.create_study(sampler=make_sampler(name, seed), directions=["maximize"] * len(objectives))
    found: list[tuple[float, ...]] = []
    for _ in range(contest.columns[-1] + MOST_INVALID):
        trial, values = study.ask(), {}
        for choice, options in contest.space.table.items():
            if options.applies(values):
                values[choice] = trial.suggest_categorical(choice, list(options.values))
        architecture = contest.space.canonical(values)
        if contest.space.problem(architecture) is not None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        found.append(signed_values(contest.look_up(architecture), objectives))
        study.tell(trial, list(found[-1]))
        if len(found) == contest.columns[-1]:
            break
    return found


def run(job: tuple[str, str, bool, int]) -> np.ndarray:
    """Runs one search.

    Args:
        job: the module with the contest, the name of the row, whether FLOPs are a second objective, and the seed.

    Returns:
        ``[evaluations, objectives]`` signed objective values in order.
    """
    module, name, two, seed = job
    contest = import_module(module).contest()
    objectives = [ACCURACY, FLOPS] if two else [ACCURACY]
    if name.startswith("optuna"):
        return np.array(search_with_optuna(name, contest, seed, objectives))
    budget = contest.columns[-1]
    return np.array(search_table(name, contest.space, contest.look_up, budget, seed, objectives))


def compare(module: str, seeds: int = 5) -> Table:
    """Compares all strategies.

    Args:
        module: import path of a module with a ``contest()``.
        seeds: number of searches per row.

    Returns:
        Median and quartiles after several numbers of evaluations, one row per strategy and number of objectives.
    """
    from threadpoolctl import threadpool_limits

    started = time.time()
    contest = import_module(module).contest()
    pairs = [(name, False) for name in ONE_OBJECTIVE] + [(name, True) for name in TWO_OBJECTIVES]
    jobs = [(module, *pair, seed) for pair in pairs for seed in range(seeds)]
    with threadpool_limits(1), ProcessPoolExecutor(initializer=use_one_thread) as pool:
        runs = list(pool.map(run, jobs))
    rows = []
    for name, two in pairs:
        of_seeds = [values for job, values in zip(jobs, runs, strict=True) if job[1:3] == (name, two)]
        if two:
            found = np.array([hypervolume_shares(values, contest.truth, contest.columns) for values in of_seeds])
        else:
            found = contest.scale * np.array([best_so_far(values[:, 0], contest.columns) for values in of_seeds])
        digits = 3 if two else contest.digits
        cells = (median_and_quartiles(column, digits) for column in found.T)
        label = name if name.startswith("optuna") else f"`{name}`"
        rows.append(["share of the hypervolume" if two else "best accuracy", label, *cells])
    return Table(
        ("", "strategy", *map(str, contest.columns)),
        rows,
        f"Median and quartiles over {seeds} seeds after the number of evaluations at the head of each column. "
        "Strategies in code font run in nas-meta, the others without it. The hypervolume is that of accuracy against "
        f"FLOPs. `auto` picks `surrogate`. The benchmark took {(time.time() - started) / 60:.1f} minutes.",
    )


def best_so_far(values: np.ndarray, columns: Sequence[int]) -> list[float]:
    """The best value after each number of evaluations; searches that end earlier keep their last."""
    curve = np.maximum.accumulate(values)
    return [float(curve[min(n, len(curve)) - 1]) for n in columns]
