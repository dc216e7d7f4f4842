"""Comparison of the importances that rank heads and neurons in ``bert-subnet``.

12 random sub-networks of MiniLM are evaluated without training on 200 meta-validation episodes (5-way 1-shot on
ICD-10-CM). They are the same for every importance; only which heads and neurons they keep differs.

Results are stored in ``benchmarks/importance.json``; delete a line there to measure it again.

usage: python -m benchmarks.run importance
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results_file
from benchmarks.plain_training import plain
from benchmarks.table import Table

RESULTS = Path(__file__).with_suffix(".json")
COUNT = 12
SPACE = {"name": "bert-subnet", "min_layers": 3, "heads": [0.75, 0.5, 0.25], "ffn": [0.5, 0.25, 0.125]}
NAMES = ("taylor", "wanda", "magnitude", "first")  # first: the first units in order, without a ranking


def measure_one(name: str) -> dict[str, Any]:
    """Ranks units with one importance and evaluates the sub-networks.

    Args:
        name: an importance, or ``first`` for no ranking.

    Returns:
        Accuracy of every sub-network, and the CPU seconds of ranking.
    """
    import torch

    from nas_meta.config.components import make_evaluation
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve
    from nas_meta.models.encoder import Encoder

    ranking = {} if name == "first" else {"importance": name}
    resolved = resolve(plain({"space": {**SPACE, **ranking}, "evaluation": {"episodes": 200}}))
    space, tasks, shape = load_problem(resolved)
    torch.set_num_threads(1)
    started = time.process_time()
    if name != "first":
        space.prepare(tasks, 0)
    seconds = time.process_time() - started
    evaluation, rng = make_evaluation(resolved, space, tasks, shape, cpus=1), np.random.default_rng(3)
    architectures = [space.sample(rng) for _ in range(COUNT)]
    assert len(set(architectures)) == COUNT
    accuracies = [
        float(evaluation.accuracies(Encoder(space.build(a)), "meta-validation", 200).mean()) for a in architectures
    ]
    return {"accuracies": accuracies, "seconds": seconds}


def table(results: dict[str, dict[str, Any]]) -> Table:
    """Accuracies, paired differences and seconds, one row per importance."""
    rows = []
    base = 100 * np.array(results["first"]["accuracies"])
    for name in NAMES:
        found = 100 * np.array(results[name]["accuracies"])
        gain = [] if name == "first" else (found - base).tolist()
        label = "the first units, not ranked" if name == "first" else f"`{name}`"
        seconds = "" if name == "first" else f"{results[name]['seconds']:.1f}"
        rows.append([label, f"{found.mean():.1f}", results_file.mean_and_interval(gain, 1) if gain else "", seconds])
    return Table(
        ("importance", "accuracy, %", "points above the first units", "seconds"),
        rows,
        f"Means over {COUNT} untrained sub-networks of three to six of MiniLM's layers, with a quarter to three "
        "quarters of the heads and an eighth to a half of the neurons. Intervals (95%, Student's t) are over the "
        "paired differences of the sub-networks. Seconds are those of ranking on 20 episodes on one core, including "
        "loading the model.",
    )


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    results = results_file.read(RESULTS)
    for name in NAMES:
        if name not in results:
            results[name] = measure_one(name)
            results_file.write(RESULTS, results)
    return table(results)
