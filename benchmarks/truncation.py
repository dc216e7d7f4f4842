"""Gain of a search over truncation: the best architecture of a search against the first k layers of the same model.

Without a search, the usual choice is to keep the first k layers whole. Here k is the smallest number of layers that has
no fewer parameters than the architecture found. Both are meta-trained alike and evaluated on the same meta-test
episodes.

usage: python -m benchmarks.run truncation
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Table

CONFIG = Path(__file__).with_name("three_layers.yaml")
SEEDS = (1, 2, 3)


def search_and_truncate(seed: int) -> dict[str, Any]:
    """Runs the search of three_layers.yaml with one seed and evaluates the truncation that it has to beat.

    Returns:
        Layers, parameters and meta-test accuracies of both, and the duration of the search in seconds.
    """
    import nas_meta
    from nas_meta.config.components import make_evaluation
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import read_config
    from nas_meta.evaluation.trial import result_of
    from nas_meta.models.profiling import interval95

    with tempfile.TemporaryDirectory() as folder:
        resolved = read_config(CONFIG, [f"seed={seed}"])
        run = nas_meta.search(resolved, Path(folder) / "run")
        best, found = run.best, run.test_of(run.best)
    space, tasks, shape = load_problem(resolved)
    evaluation = make_evaluation(resolved, space, tasks, shape, cpus=2)
    evaluation.setup()
    layers = space.dimensions["layers"]
    widest = {name: max(choice.values) for name, choice in space.table.items()}
    for k in range(1, layers + 1):
        first = space.canonical({**widest, **{f"layer{i}.keep": i < k for i in range(layers)}})
        if space.count_params(first) >= best.metrics["params"]:
            break
    result = result_of(evaluation.trial(first, seed, keep_above=0.0))
    encoder = evaluation.restored(first, bytes(result.weights))
    scores = evaluation.accuracies(encoder, "meta-test", evaluation.settings.test_episodes)
    return {
        "seed": seed, "kept": [i for i in range(layers) if best.architecture[f"layer{i}.keep"]], "k": k,
        "found_params": best.metrics["params"], "first_params": result.metrics["params"],
        "found": found["test_accuracy"], "found_ci": found["test_accuracy_ci95"],
        "first": float(scores.mean()), "first_ci": interval95(scores),
        "seconds": max(t.finished for t in run.trials) - min(t.started for t in run.trials), "trials": len(run.trials),
    }  # fmt: skip


def measure() -> Table:
    """Accuracy of search and truncation, one row per seed."""
    rows, gains = [], []
    for r in (search_and_truncate(seed) for seed in SEEDS):
        gains.append(100 * (r["found"] - r["first"]))
        rows.append([
            str(r["seed"]), f"{r['trials']} in {r['seconds']:.0f} s",
            f"layers {', '.join(map(str, r['kept']))}: {r['found_params'] / 1e6:.1f} M",
            f"{100 * r['found']:.1f} ± {100 * r['found_ci']:.1f} %",
            f"first {r['k']}: {r['first_params'] / 1e6:.1f} M",
            f"{100 * r['first']:.1f} ± {100 * r['first_ci']:.1f} %", f"{gains[-1]:+.1f}",
        ])  # fmt: skip
    return Table(
        ("seed", "trials", "found", "meta-test", "truncation", "meta-test", "points gained"),
        rows,
        f"5-way 1-shot on ICD-10-CM, 600 meta-test episodes. Mean gain {np.mean(gains):+.1f} points.",
    )
