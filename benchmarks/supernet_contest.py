"""The meta-trained supernet against separate trials at equal total time, with the defaults of pretrained spaces.

Sub-networks of two to four of MiniLM's layers, with choices of heads and widths; 5-way 1-shot episodes; accuracy and
FLOPs as objectives. Every search has the same CPU time on one core, which includes the training of the supernet. The
result is the hypervolume of the meta-validation accuracy above one half against the share of the whole encoder's FLOPs
that is saved, on ICD-10-CM and, if it lies beside this checkout, on BANKING77. Results are stored in
``benchmarks/supernet_contest.json``; delete a line there to measure it again.

usage: python -m benchmarks.run supernet_contest
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks import results_file
from benchmarks.plain_training import SHARES
from benchmarks.recipe import DATA, source_of
from benchmarks.table import Table
from benchmarks.timed_search import evaluation_of, search_within

RESULTS = Path(__file__).with_suffix(".json")
SETS = ("ICD-10-CM", "BANKING77")
SEEDS = (1, 2, 3)
BUDGET = 480.0  # CPU seconds of a whole search
STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "`supernet`": {"strategy": {"name": "supernet"}, "budget": {"trials": 12}},
    "`surrogate`": {"strategy": {"name": "surrogate"}, "budget": {"trials": 40}},
}


def measure_cell(name: str, seed: int) -> dict[str, Any]:
    """Run one search.

    Args:
        name: ``"DATA: STRATEGY"``.
        seed: seed of the search.

    Returns:
        Accuracy and FLOPs of every completed trial, CPU seconds in all and before the first trial, the hypervolume, and
        the meta-test accuracy of the best trial.
    """
    from nas_meta.core.objectives import hypervolume

    data, _, strategy = name.partition(": ")
    with tempfile.TemporaryDirectory() as folder:
        document = {
            "space": {"name": "bert-subnet", "min_layers": 2, "max_layers": 4, **SHARES},
            "tasks": {**source_of(data, Path(folder)), "ways": 5, "shots": 1, "queries": 5},
            "learner": {"name": "protonet", "distance": "cosine", "steps": 80, "lr": 5e-5},
            "objectives": {"accuracy": "maximize", "flops": "minimize"},
            "evaluation": {"episodes": 200, "test_best": 0},
            "seed": seed,
            **STRATEGIES[strategy],
        }
        found = search_within(document, BUDGET)
        space = evaluation_of(document).space
    whole = space.counts(space.canonical({n: c.values[0] for n, c in space.table.items()}), 32)["flops"]
    points = [(t.metrics["accuracy"], t.metrics["flops"]) for t in found.trials]
    values = np.array([(accuracy, 1 - flops / whole) for accuracy, flops in points]).reshape(-1, 2)
    return {
        "points": points, "seconds": round(found.seconds, 1), "before": round(found.seconds_to_first, 1),
        "hypervolume": float(hypervolume(values, np.array([0.5, 0.0])) / 0.5), "test": found.test_accuracy,
    }  # fmt: skip


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Hypervolumes and the best trials, one row per data set and strategy."""
    rows = []
    for data in SETS:
        for strategy in STRATEGIES:
            runs = [results[key] for seed in SEEDS if (key := f"{data}: {strategy} {seed}") in results]
            if not runs:
                continue
            rows.append([
                data, strategy, results_file.mean_and_interval([run["hypervolume"] for run in runs]),
                _spread([100 * max(a for a, _ in run["points"]) for run in runs]),
                _spread([100 * run["test"] for run in runs if run["test"] is not None]),
                ", ".join(str(len(run["points"])) for run in runs), f"{mean(run['before'] for run in runs):.0f} s",
            ])  # fmt: skip
    return Table(
        ("data", "strategy", "hypervolume", "best trial, %", "its meta-test, %", "trials", "before the first trial"),
        rows,
        f"Every search has {BUDGET:.0f} s of one core. Means over the seeds {', '.join(map(str, SEEDS))}; hypervolumes "
        "with 95% intervals by Student's t, accuracies with their standard deviation.",
    )


def _spread(values: list[float]) -> str:
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}" if values else "-"


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    names = [f"{data}: {s}" for s in STRATEGIES for data in SETS if DATA[data] is None or DATA[data].is_dir()]
    return table(results_file.measure_missing(RESULTS, names, SEEDS, measure_cell))
