"""What one-shot strategies derive, against the strongest multi-trial searches at equal cost, on ``cell-encoder``.

5-way 1-shot on ICD-10-CM over MiniLM's word embeddings, one core. Every search has the same seconds of its process, the
training of its supernet included; what it derives is trained alone, as ordinary trials, until the time is over. The
architecture that was best on the meta-validation episodes is then scored on 600 episodes of the meta-test classes.

What was measured is kept in ``benchmarks/one_shot.json`` and not measured again; delete a line there to measure it
anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import results_file
from benchmarks.table import Table
from benchmarks.timed_search import search_within

KEPT = Path(__file__).with_suffix(".json")
BUDGET = 300.0  # seconds for a whole search
SEEDS = (1, 2, 3)
TRIALS = {"trials": 200}  # more than anybody has time for
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
    """One search within the budget."""
    found = search_within({**COMMON, **STRATEGIES[strategy], "seed": seed}, BUDGET)
    best = max((t.metrics["accuracy"] for t in found.trials), default=None)
    first = min(found.trials, key=lambda t: t.id, default=None)
    return {
        "best": best, "tested": found.tested, "trials": len(found.trials), "seconds": found.seconds,
        "until_first": found.first, "first": first and first.metrics["accuracy"],
    }  # fmt: skip


def table(results: dict[str, dict[str, Any]]) -> Table:
    rows = []
    for strategy in STRATEGIES:
        searches = [results[key] for seed in SEEDS if (key := f"{strategy} {seed}") in results]
        columns = [
            results_file.over_seeds([100 * s[name] for s in searches if s[name] is not None], 1)
            for name in ("first", "best", "tested")
        ]
        counts = (", ".join(f"{s[name]:.0f}" for s in searches) for name in ("until_first", "trials"))
        rows.append([f"`{strategy}`", *columns, *counts])
    return Table(
        ("strategy", "first trial", "best trial", "best trial on meta-test", "seconds before the first", "trials"),
        rows,
        f"Accuracy in % (5-way 1-shot) over seeds {', '.join(map(str, SEEDS))} with its 95% interval by Student's t; "
        "where fewer than three were measured, each stands alone. "
        f"Every search has {BUDGET:.0f} seconds of one core. A one-shot strategy's first trial is what it derived.",
    )


def measure() -> Table:
    return table(results_file.completed(KEPT, STRATEGIES, SEEDS, measure_search))
