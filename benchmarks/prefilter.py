"""What ``strategy.prefilter`` is worth: random search with and without it, at equal cost, its scores included.

5-way 1-shot on ICD-10-CM, one core. Every search has the same seconds of its process. With a prefilter the best by the
score ``untrained`` of four proposals is trained. The architecture that was best on the meta-validation episodes is then
scored on 600 episodes of the meta-test classes.

What was measured is kept in ``benchmarks/prefilter.json`` and not measured again; delete a line there to measure it
anew.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import results_file
from benchmarks.table import Table
from benchmarks.timed_search import search_within
from benchmarks.zero_cost import SPACES

KEPT = Path(__file__).with_suffix(".json")
BUDGET = 120.0  # seconds for a whole search
SEEDS = (1, 2, 3)
PREFILTER = {"prefilter": {"score": "untrained", "of": 4}}
SEARCHES = {
    f"`{space}`{', prefilter' if options else ''}": (space, {"name": "random", **options})
    for space in SPACES
    for options in ({}, PREFILTER)
}


def measure_search(name: str, seed: int) -> dict[str, Any]:
    """One search within the budget."""
    space, strategy = SEARCHES[name]
    document = {
        **SPACES[space], "strategy": strategy, "seed": seed, "budget": {"trials": 200},
        "evaluation": {"episodes": 200, "test_episodes": 600},
    }  # fmt: skip
    found = search_within(document, BUDGET)
    accuracies = [t.metrics["accuracy"] for t in sorted(found.trials, key=lambda t: t.id)]
    return {"accuracies": accuracies, "tested": found.tested, "seconds": found.seconds}


def table(results: dict[str, dict[str, Any]]) -> Table:
    rows = []
    for name in SEARCHES:
        found = [results[key] for seed in SEEDS if (key := f"{name} {seed}") in results]
        rows.append(
            [
                name,
                results_file.over_seeds([100 * mean(f["accuracies"]) for f in found], 1),
                results_file.over_seeds([100 * max(f["accuracies"]) for f in found], 1),
                results_file.over_seeds([100 * f["tested"] for f in found], 1),
                ", ".join(str(len(f["accuracies"])) for f in found),
            ]
        )
    return Table(
        ("search", "mean of its trials", "best trial", "best trial on meta-test", "trials"),
        rows,
        f"Accuracy in % over seeds {', '.join(map(str, SEEDS))} with its 95% interval by Student's t. "
        f"Every search has {BUDGET:.0f} seconds of one core.",
    )


def measure() -> Table:
    return table(results_file.completed(KEPT, SEARCHES, SEEDS, measure_search))
