"""Strategies on NAS-Bench-Macro (Su et al., CVPR 2021), a table in which the best architecture is known.

The table holds 6,561 architectures of eight layers with one of three operations each, all of them trained on CIFAR-10.
A trial is a look-up. NNI's and optuna's own code runs on the same table without nas-meta.

usage: python -m benchmarks.run nas_bench_macro
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path

import numpy as np

from benchmarks.contest import Contest, compare, search_all, values_after
from benchmarks.table import Table
from nas_meta import SearchSpace

DATA = Path(__file__).parents[2] / "shared" / "data" / "nas-bench-macro" / "nas-bench-macro_cifar10.json"
PICTURE = Path(__file__).parents[1] / "docs" / "strategies.png"


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


def search_with_nni(seed: int, budget: int, population: int, sample: int, mutation: float) -> list[float]:
    """Runs NNI's evolution on an engine that answers from the table at once.

    Args:
        seed: seed of the strategy.
        budget: number of evaluations.
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

    found: list[float] = []

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
            return len(found) < budget

        def submit_models(self, *models):
            for model in models:
                accuracy = table()["".join(model.sample[f"layer{i}"] for i in range(8))]["mean_acc"]
                found.append(accuracy)
                self.dispatch_model_event(FinalMetricEvent(model, accuracy))
                self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Trained))

        def wait_models(self, *models):
            return None

        def list_models(self, status=None) -> Iterable:
            return []

    RegularizedEvolution(population_size=population, sample_size=sample, mutation_prob=mutation, seed=seed)(
        Space(), Engine()
    )
    return found[:budget]


def contest() -> Contest:
    """What the strategies search here."""
    packages = {
        "NNI evolution, its defaults": partial(search_with_nni, population=100, sample=25, mutation=0.05),
        "NNI evolution, population 25": partial(search_with_nni, population=25, sample=8, mutation=0.15),
    }
    truth = np.array([(row["mean_acc"], -row["flops"]) for row in table().values()])
    return Contest("nas_bench_macro", Macro(), look_up, truth, strategies=("rl",), packages=packages)


def measure() -> Table:
    """Median and quartiles after several numbers of evaluations, one row per strategy; redraws the picture as well."""
    note = "The optimum is 93.127; the hypervolume is relative to the true front, which has 1."
    result = compare(contest(), note)
    draw()
    return result


def draw() -> None:
    """Draws ``docs/strategies.png``: median best accuracy against evaluations, with the quartiles."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    macro = contest()
    for (objectives, name), of_seeds in search_all(macro).items():
        if objectives > 1:
            continue
        ours = not name.startswith("optuna") and name not in macro.packages
        evaluations = np.arange(1, macro.budget(objectives, name) + 1)
        curve = np.array([values_after(search, evaluations) for search in of_seeds])
        low, middle, high = np.quantile(curve, [0.25, 0.5, 0.75], axis=0)
        (line,) = axes.plot(evaluations, middle, "-" if ours else ":", label=name)
        axes.fill_between(evaluations, low, high, alpha=0.12 * ours, color=line.get_color())
    axes.axhline(macro.truth[:, 0].max(), color="black", lw=0.6)
    axes.set(xlabel="evaluations", ylabel="best accuracy so far, %", ylim=(92, 93.2), title="NAS-Bench-Macro")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(PICTURE, dpi=110)
