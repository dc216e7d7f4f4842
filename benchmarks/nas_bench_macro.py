"""Strategies on a table where the truth is known: NAS-Bench-Macro (Su et al., CVPR 2021), evaluated by look-up.

6,561 architectures of eight layers with one of three operations each, all of them trained on CIFAR-10.
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
from benchmarks.tabular_search import ACCURACY, FLOPS, alone_on_a_core, cell, shares, trials
from nas_meta import SearchSpace

DATA = Path(__file__).parents[2] / "shared" / "data" / "nas-bench-macro" / "nas-bench-macro_cifar10.json"
PICTURE = Path(__file__).parents[1] / "docs" / "strategies.png"
SEEDS, BUDGET, COLUMNS = 20, 300, (50, 100, 200, 300)
ONE = ("random", "evolution", "tpe", "rl", "surrogate")
SEVERAL = ("random", "nsga2", "motpe", "surrogate")


class Macro(SearchSpace):
    """Eight layers, one of three operations each."""

    def choices(self):
        return {f"layer{i}": ["0", "1", "2"] for i in range(8)}

    def build(self, architecture):
        raise AssertionError("a table, not a model")

    def counts(self, architecture, tokens):
        return {"flops": look_up(architecture)["flops"]}


@cache
def table() -> dict[str, dict]:
    return json.loads(DATA.read_text())


def look_up(architecture) -> dict[str, float]:
    row = table()["".join(architecture[f"layer{i}"] for i in range(8))]
    return {"accuracy": row["mean_acc"], "flops": row["flops"]}


def optuna_alone(sampler: Callable, seed: int, directions: list[str]) -> list[tuple[float, ...]]:
    """optuna as its users run it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial):
        row = table()["".join(trial.suggest_categorical(f"layer{i}", ["0", "1", "2"]) for i in range(8))]
        return (row["mean_acc"], -row["flops"])[: len(directions)]

    study = optuna.create_study(sampler=sampler(seed), directions=directions)
    study.optimize(objective, n_trials=BUDGET)
    return [tuple(t.values) for t in study.trials]


def outside(name: str, seed: int) -> list[tuple[float, ...]]:
    """The packages' own code without nas-meta."""
    from optuna.samplers import NSGAIISampler, TPESampler

    one, two = ["maximize"], ["maximize", "maximize"]
    if name == "optuna TPE":
        return optuna_alone(lambda s: TPESampler(seed=s), seed, one)
    if name == "optuna NSGA-II (50)":
        return optuna_alone(lambda s: NSGAIISampler(population_size=50, seed=s), seed, two)
    if name == "optuna TPE, multivariate":
        return optuna_alone(lambda s: TPESampler(seed=s, multivariate=True), seed, two)
    population, sample, mutation = (100, 25, 0.05) if name.endswith("defaults") else (25, 8, 0.15)
    return nni_alone(seed, population, sample, mutation)


def nni_alone(seed: int, population: int, sample: int, mutation: float) -> list[tuple[float, ...]]:
    """NNI's evolution on an engine that answers at once."""
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


OUTSIDE_ONE = ("NNI evolution, its defaults", "NNI evolution, population 25", "optuna TPE")
OUTSIDE_SEVERAL = ("optuna NSGA-II (50)", "optuna TPE, multivariate")


@dataclass(frozen=True)
class Job:
    name: str
    seed: int
    several: bool
    ours: bool

    def run(self) -> np.ndarray:
        if not self.ours:
            return np.array(outside(self.name, self.seed))
        objectives = [ACCURACY, FLOPS] if self.several else [ACCURACY]
        return np.array(trials(self.name, Macro(), look_up, BUDGET, self.seed, objectives))


def jobs() -> list[Job]:
    rows = [(ONE, False, True), (OUTSIDE_ONE, False, False), (SEVERAL, True, True), (OUTSIDE_SEVERAL, True, False)]
    return [Job(n, s, several, ours) for names, several, ours in rows for n in names for s in range(SEEDS)]


def all_values() -> np.ndarray:
    """Accuracy and negative FLOPs of every architecture."""
    return np.array([(row["mean_acc"], -row["flops"]) for row in table().values()])


def measure(picture: bool = True) -> Table:
    from threadpoolctl import threadpool_limits

    started = time.time()
    todo = jobs()
    with threadpool_limits(1), ProcessPoolExecutor(initializer=alone_on_a_core) as pool:
        runs = list(pool.map(Job.run, todo))
    rows, curves = [], {}
    for key in dict.fromkeys((j.name, j.several, j.ours) for j in todo):
        own = [run for job, run in zip(todo, runs, strict=True) if (job.name, job.several, job.ours) == key]
        name, several, ours = key
        if several:
            found = np.array([shares(run, all_values(), COLUMNS) for run in own])
        else:
            curve = np.maximum.accumulate(np.array([run[:, 0] for run in own]), axis=1)
            curves[name, ours] = curve
            found = curve[:, [n - 1 for n in COLUMNS]]
        what = "share of the hypervolume" if several else "best accuracy"
        label = f"`{name}`" if ours else name
        rows.append([what, label, *(cell(found[:, i], 3 if several else 2) for i in range(4))])
    if picture:
        draw(curves)
    note = (
        f"Median and quartiles over {SEEDS} seeds after so many evaluations; in plain words what ran without nas-meta. "
        "The optimum is 93.127; hypervolume of accuracy against FLOPs, the true front is 1. `auto` picks "
        f"`surrogate` here. {(time.time() - started) / 60:.1f} minutes."
    )
    return Table(("", "strategy", *map(str, COLUMNS)), rows, note)


def draw(curves: dict[tuple[str, bool], np.ndarray]) -> None:
    """Median best accuracy against evaluations, with the quartiles."""
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
