"""What ranks the heads and neurons of ``bert-subnet``: accuracy of 12 random sub-networks of MiniLM without training.

5-way 1-shot on ICD-10-CM, 200 meta-validation episodes, the same sub-networks for every importance; only which heads
and neurons they keep differs. What was measured is kept in ``benchmarks/importance.json``; delete a line to measure
it anew.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results_file
from benchmarks.table import Table

KEPT = Path(__file__).with_suffix(".json")
COUNT = 12
SPACE = {"name": "bert-subnet", "min_layers": 3, "heads": [0.75, 0.5, 0.25], "ffn": [0.5, 0.25, 0.125]}
NAMES = ("taylor", "wanda", "magnitude", "first")  # the last: whatever comes first, ranked by nothing


def measure_one(name: str) -> dict[str, Any]:
    """The accuracy of every sub-network, and the seconds that ranking takes."""
    import torch

    from nas_meta.assembly import make_evaluation, prepare
    from nas_meta.config import resolve
    from nas_meta.embedding import Encoder

    own = {} if name == "first" else {"importance": name}
    resolved = resolve({"space": {**SPACE, **own}, "evaluation": {"episodes": 200}})
    space, tasks, shape = prepare(resolved)
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
    rows = []
    base = 100 * np.array(results["first"]["accuracies"])
    for name in NAMES:
        found = 100 * np.array(results[name]["accuracies"])
        gain = [] if name == "first" else (found - base).tolist()
        label = "the first ones, not ranked" if name == "first" else f"`{name}`"
        seconds = "" if name == "first" else f"{results[name]['seconds']:.1f}"
        rows.append([label, f"{found.mean():.1f}", results_file.over_seeds(gain, 1) if gain else "", seconds])
    return Table(
        ("heads and neurons are kept by", "accuracy, %", "points more than the first ones", "seconds"),
        rows,
        f"Means over {COUNT} sub-networks of three to six of MiniLM's layers with a quarter to three quarters of their "
        "heads and an eighth to a half of their neurons, none of them trained; the interval (95%, Student's t) is over "
        "the sub-networks, paired. Seconds of one core for ranking on 20 episodes, the loading of the model included.",
    )


def measure() -> Table:
    results = results_file.read(KEPT)
    for name in NAMES:
        if name not in results:
            results[name] = measure_one(name)
            results_file.write(KEPT, results)
    return table(results)
