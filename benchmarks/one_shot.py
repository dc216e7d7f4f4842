"""One-shot strategies against the strongest multi-trial searches at equal cost, on ``cell-encoder``.

5-way 1-shot episodes of ICD-10-CM over MiniLM's word embeddings, on one core. Every search has the same CPU time, which
includes the training of its supernet. The architectures that a one-shot strategy derives are trained as ordinary trials
until the time is used up. The architecture with the best meta-validation accuracy is then evaluated on 600 episodes of
the meta-test classes.

Results are stored in ``benchmarks/one_shot.json``; delete a line there to measure it again.

usage: python -m benchmarks.run one_shot
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import results_file
from benchmarks.plain_training import plain
from benchmarks.table import Table
from benchmarks.timed_search import search_within

RESULTS = Path(__file__).with_suffix(".json")
BUDGET = 300.0  # CPU seconds of a whole search
SEEDS = (1, 2, 3)
TRIALS = {"trials": 200}  # more than fit into the time budget
COMMON: dict[str, Any] = {
    "space": {"name": "cell-encoder", "layers": 4},
    "learner": {"name": "protonet", "steps": 150, "lr": 3e-4},
    "evaluation": {"episodes": 200, "test_episodes": 600},
    "budget": TRIALS,
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "darts": {"strategy": {"name": "darts", "steps": 150, "arch_lr": 0.03}},
    "gumbel-darts": {"strategy": {"name": "gumbel-darts", "steps": 150, "arch_lr": 0.03}},
    "spos": {"strategy": {"name": "spos", "steps": 500, "generations": 5, "population": 20}},
    "surrogate": {"strategy": {"name": "surrogate"}},
    "surrogate, asha": {"strategy": {"name": "surrogate"}, "stopping": "asha"},
    "random": {"strategy": {"name": "random"}},
}


def measure_search(strategy: str, seed: int) -> dict[str, Any]:
    """Runs one search with the time budget.

    Args:
        strategy: a name in ``STRATEGIES``.
        seed: seed of the search.

    Returns:
        Accuracies of the first trial, the best trial, and the best trial on meta-test; number of trials; CPU seconds of
        the search and until its first trial.
    """
    found = search_within(plain({**COMMON, **STRATEGIES[strategy], "seed": seed}), BUDGET)
    best = max((t.metrics["accuracy"] for t in found.trials), default=None)
    first = min(found.trials, key=lambda t: t.id, default=None)
    return {
        "best": best, "tested": found.test_accuracy, "trials": len(found.trials), "seconds": found.seconds,
        "until_first": found.seconds_to_first, "first": first and first.metrics["accuracy"],
    }  # fmt: skip


def table(results: dict[str, dict[str, Any]]) -> Table:
    """Accuracies, times and numbers of trials, one row per strategy."""
    rows = []
    for strategy in STRATEGIES:
        searches = [results[key] for seed in SEEDS if (key := f"{strategy} {seed}") in results]
        columns = [
            results_file.mean_and_interval([100 * s[name] for s in searches if s[name] is not None], 1)
            for name in ("first", "best", "tested")
        ]
        counts = (", ".join(f"{s[name]:.0f}" for s in searches) for name in ("until_first", "trials"))
        rows.append([f"`{strategy}`", *columns, *counts])
    return Table(
        ("strategy", "first trial", "best trial", "best trial on meta-test", "seconds before first trial", "trials"),
        rows,
        f"Mean accuracy in % (5-way 1-shot) over seeds {', '.join(map(str, SEEDS))} with its 95% interval by Student's "
        "t; where fewer than three seeds were measured, their values are listed one by one. "
        f"Every search has {BUDGET:.0f} seconds of one core. A one-shot strategy's first trial is the architecture "
        "that it derived.",
    )


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    return table(results_file.measure_missing(RESULTS, STRATEGIES, SEEDS, measure_search))
