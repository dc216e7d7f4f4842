"""Strategies on NAS-Bench-Macro (Su et al., CVPR 2021), a table in which the best architecture is known.

The table holds 6,561 architectures of eight layers with one of three operations each, all of them trained on CIFAR-10.
A trial is a look-up. NNI's and optuna's own code runs on the same table without nas-meta.

usage: python -m benchmarks.run nas_bench_macro
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
from nas_meta import SearchSpace

DATA = Path(__file__).parents[2] / "shared" / "data" / "nas-bench-macro" / "nas-bench-macro_cifar10.json"
PICTURE = Path(__file__).parents[1] / "docs" / "strategies.png"
SEEDS, BUDGET, COLUMNS = 20, 300, (50, 100, 200, 300)
SINGLE_OBJECTIVE = ("random", "evolution", "tpe", "rl", "surrogate")
MULTI_OBJECTIVE = ("random", "nsga2", "motpe", "surrogate")


class Macro(SearchSpace):
    """Search space of NAS-Bench-Macro: eight layers with one of three operations each."""

    def choices(self):
        return {f"layer{i}": ["0", "1", "2"] for i in range(8)}

    def build(self, architecture):
        raise AssertionError("a table, not a model")

    def counts(self, architecture, tokens):
        return {"flops": look_up(architecture)["flops"]}


@cache
def table() -> dict[str, dict]:
    """Rows of the table by the operations of the eight layers, such as ``"01220110"``."""
    return json.loads(DATA.read_text())


def look_up(architecture) -> dict[str, float]:
    """Metrics of an architecture: accuracy in %, and FLOPs."""
    row = table()["".join(architecture[f"layer{i}"] for i in range(8))]
    return {"accuracy": row["mean_acc"], "flops": row["flops"]}


def search_with_optuna(sampler: Callable, seed: int, directions: list[str]) -> list[tuple[float, ...]]:
    """Runs optuna as its users do.

    Args:
        sampler: function that builds a sampler from a seed.
        seed: seed of the sampler.
        directions: one direction for accuracy alone, two for accuracy and negative FLOPs.

    Returns:
        Objective values of every trial in order.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial):
        row = table()["".join(trial.suggest_categorical(f"layer{i}", ["0", "1", "2"]) for i in range(8))]
        return (row["mean_acc"], -row["flops"])[: len(directions)]

    study = optuna.create_study(sampler=sampler(seed), directions=directions)
    study.optimize(objective, n_trials=BUDGET)
    return [tuple(t.values) for t in study.trials]


def search_with_package(name: str, seed: int) -> list[tuple[float, ...]]:
    """Runs a package's own code without nas-meta.

    Args:
        name: a name in ``PACKAGE_SINGLE_OBJECTIVE`` or ``PACKAGE_MULTI_OBJECTIVE``.
        seed: seed of the search.

    Returns:
        Objective values of every trial in order.
    """
    from optuna.samplers import NSGAIISampler, TPESampler

    one, two = ["maximize"], ["maximize", "maximize"]
    if name == "optuna TPE":
        return search_with_optuna(lambda s: TPESampler(seed=s), seed, one)
    if name == "optuna NSGA-II (50)":
        return search_with_optuna(lambda s: NSGAIISampler(population_size=50, seed=s), seed, two)
    if name == "optuna TPE, multivariate":
        return search_with_optuna(lambda s: TPESampler(seed=s, multivariate=True), seed, two)
    population, sample, mutation = (100, 25, 0.05) if name.endswith("defaults") else (25, 8, 0.15)
    return search_with_nni(seed, population, sample, mutation)


def search_with_nni(seed: int, population: int, sample: int, mutation: float) -> list[tuple[float, ...]]:
    """Runs NNI's evolution on an engine that answers from the table at once.

    Args:
        seed: seed of the strategy.
        population: size of the population.
        sample: size of a tournament.
        mutation: probability that a choice is mutated.

    Returns:
        Accuracy of every trial in order.
    """
    from nni.mutable import Categorical
    from nni.nas.execution import ExecutionEngine
    from nni.nas.execution.event import FinalMetricEvent, TrainingEndEvent
    from nni.nas.space import ExecutableModelSpace, ModelStatus
    from nni.nas.strategy import RegularizedEvolution

    import strategies  # noqa: F401  tells NNI that no Lightning is needed

    found: list[tuple[float, ...]] = []

    class Space(ExecutableModelSpace):
        sample = evaluator = None

        def leaf_mutables(self, is_leaf):
            for i in range(8):
                yield Categorical(["0", "1", "2"], label=f"layer{i}")

        def check_contains(self, sample):
            return None

        def freeze(self, sample):
            frozen = Space()
            frozen.sample, frozen.status = dict(sample), ModelStatus.Frozen
            return frozen

    class Engine(ExecutionEngine):
        def idle_worker_available(self):
            return True

        def budget_available(self):
            return len(found) < BUDGET

        def submit_models(self, *models):
            for model in models:
                accuracy = table()["".join(model.sample[f"layer{i}"] for i in range(8))]["mean_acc"]
                found.append((accuracy,))
                self.dispatch_model_event(FinalMetricEvent(model, accuracy))
                self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Trained))

        def wait_models(self, *models):
            return None

        def list_models(self, status=None) -> Iterable:
            return []

    RegularizedEvolution(population_size=population, sample_size=sample, mutation_prob=mutation, seed=seed)(
        Space(), Engine()
    )
    return found[:BUDGET]


PACKAGE_SINGLE_OBJECTIVE = ("NNI evolution, its defaults", "NNI evolution, population 25", "optuna TPE")
PACKAGE_MULTI_OBJECTIVE = ("optuna NSGA-II (50)", "optuna TPE, multivariate")


@dataclass(frozen=True)
class Job:
    """One search.

    Attributes:
        name: name of the strategy.
        seed: seed of the search.
        multi_objective: whether FLOPs are an objective in addition to accuracy.
        in_nas_meta: whether nas-meta runs the strategy rather than its package.
    """

    name: str
    seed: int
    multi_objective: bool
    in_nas_meta: bool

    def run(self) -> np.ndarray:
        """``[trials, objectives]`` signed objective values of every trial in order."""
        if not self.in_nas_meta:
            return np.array(search_with_package(self.name, self.seed))
        objectives = [ACCURACY, FLOPS] if self.multi_objective else [ACCURACY]
        return np.array(search_table(self.name, Macro(), look_up, BUDGET, self.seed, objectives))


def jobs() -> list[Job]:
    """Every search of the benchmark, in the order of the result table."""
    groups = [
        (SINGLE_OBJECTIVE, False, True),
        (PACKAGE_SINGLE_OBJECTIVE, False, False),
        (MULTI_OBJECTIVE, True, True),
        (PACKAGE_MULTI_OBJECTIVE, True, False),
    ]
    return [Job(n, s, multi, ours) for names, multi, ours in groups for n in names for s in range(SEEDS)]


def all_values() -> np.ndarray:
    """``[architectures, 2]`` accuracy and negative FLOPs of the whole table."""
    return np.array([(row["mean_acc"], -row["flops"]) for row in table().values()])


def measure(picture: bool = True) -> Table:
    """Median and quartiles after several numbers of evaluations, one row per strategy and number of objectives.

    Args:
        picture: whether to redraw ``docs/strategies.png``.
    """
    from threadpoolctl import threadpool_limits

    started = time.time()
    todo = jobs()
    with threadpool_limits(1), ProcessPoolExecutor(initializer=use_one_thread) as pool:
        runs = list(pool.map(Job.run, todo))
    rows, curves = [], {}
    for key in dict.fromkeys((j.name, j.multi_objective, j.in_nas_meta) for j in todo):
        of_seeds = [run for j, run in zip(todo, runs, strict=True) if (j.name, j.multi_objective, j.in_nas_meta) == key]
        name, multi, ours = key
        if multi:
            found = np.array([hypervolume_shares(run, all_values(), COLUMNS) for run in of_seeds])
        else:
            curve = np.maximum.accumulate(np.array([run[:, 0] for run in of_seeds]), axis=1)
            curves[name, ours] = curve
            found = curve[:, [n - 1 for n in COLUMNS]]
        metric = "share of the hypervolume" if multi else "best accuracy"
        label = f"`{name}`" if ours else name
        rows.append([metric, label, *(median_and_quartiles(found[:, i], 3 if multi else 2) for i in range(4))])
    if picture:
        draw(curves)
    note = (
        f"Median and quartiles over {SEEDS} seeds after the number of evaluations at the head of each column. "
        "Strategies in code font run in nas-meta, the others without it. The optimum is 93.127; the hypervolume is "
        "that of accuracy against FLOPs, relative to the true front, which has 1. `auto` picks `surrogate` here. The "
        f"benchmark took {(time.time() - started) / 60:.1f} minutes."
    )
    return Table(("", "strategy", *map(str, COLUMNS)), rows, note)


def draw(curves: dict[tuple[str, bool], np.ndarray]) -> None:
    """Draws ``docs/strategies.png``: median best accuracy against evaluations, with the quartiles.

    Args:
        curves: by name and whether nas-meta ran the strategy, ``[seeds, evaluations]`` best accuracy so far.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for (name, ours), curve in curves.items():
        low, middle, high = np.quantile(curve, [0.25, 0.5, 0.75], axis=0)
        (line,) = axes.plot(np.arange(1, BUDGET + 1), middle, "-" if ours else ":", label=name)
        axes.fill_between(np.arange(1, BUDGET + 1), low, high, alpha=0.12 * ours, color=line.get_color())
    axes.axhline(all_values()[:, 0].max(), color="black", lw=0.6)
    axes.set(xlabel="evaluations", ylabel="best accuracy so far, %", ylim=(92, 93.2), title="NAS-Bench-Macro")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(PICTURE, dpi=110)
