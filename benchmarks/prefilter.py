"""Random search with and without ``strategy.prefilter`` at equal cost, the computation of proxies included.

5-way 1-shot episodes of ICD-10-CM, on one core. Every search has the same CPU time. With a prefilter, the best of four
proposals by the zero-cost proxy ``untrained`` is trained. The architecture with the best meta-validation accuracy is
then evaluated on 600 episodes of the meta-test classes.

Results are stored in ``benchmarks/prefilter.json``; delete a line there to measure it again.

usage: python -m benchmarks.run prefilter
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import results_file
from benchmarks.table import Table
from benchmarks.timed_search import search_within
from benchmarks.zero_cost import SPACES

RESULTS = Path(__file__).with_suffix(".json")
BUDGET = 240.0  # CPU seconds of a whole search
SEEDS = (1, 2, 3)
PREFILTER = {"prefilter": {"score": "untrained", "of": 4}}
SEARCHES = {
    f"`{space}`{', prefilter' if options else ''}": (space, {"name": "random", **options})
    for space in SPACES
    for options in ({}, PREFILTER)
}


def measure_search(name: str, seed: int) -> dict[str, Any]:
    """Runs one search with the time budget.

    Args:
        name: a name in ``SEARCHES``.
        seed: seed of the search.

    Returns:
        Accuracies of all trials in order, the best trial's accuracy on meta-test, and CPU seconds.
    """
    space, strategy = SEARCHES[name]
    document = {
        **SPACES[space], "strategy": strategy, "seed": seed, "budget": {"trials": 200},
        "evaluation": {"episodes": 200, "test_episodes": 600},
    }  # fmt: skip
    found = search_within(document, BUDGET)
    accuracies = [t.metrics["accuracy"] for t in sorted(found.trials, key=lambda t: t.id)]
    return {"accuracies": accuracies, "tested": found.test_accuracy, "seconds": found.seconds}


def table(results: dict[str, dict[str, Any]]) -> Table:
    """Accuracies and numbers of trials, one row per search."""
    rows = []
    for name in SEARCHES:
        found = [results[key] for seed in SEEDS if (key := f"{name} {seed}") in results]
        rows.append(
            [
                name,
                results_file.mean_and_interval([100 * mean(f["accuracies"]) for f in found], 1),
                results_file.mean_and_interval([100 * max(f["accuracies"]) for f in found], 1),
                results_file.mean_and_interval([100 * f["tested"] for f in found], 1),
                ", ".join(str(len(f["accuracies"])) for f in found),
            ]
        )
    return Table(
        ("search", "mean of all trials", "best trial", "best trial on meta-test", "trials"),
        rows,
        f"Mean accuracy in % over seeds {', '.join(map(str, SEEDS))} with its 95% interval by Student's t. "
        f"Every search has {BUDGET:.0f} seconds of one core.",
    )


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    return table(results_file.measure_missing(RESULTS, SEARCHES, SEEDS, measure_search))
