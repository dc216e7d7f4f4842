"""What a trial in bf16 gains in time and loses in accuracy, on a CPU that multiplies bf16 matrices (AMX).

Layers 0, 1, 3 and 5 of MiniLM are trained as in ``benchmarks/recipe.py``, in fp32 and in bf16, one after the other in
one process on one core. The model that was trained in bf16 is tested in bf16, as a search does, and in fp32, as an
exported classifier computes. Results are stored in ``benchmarks/precision.json``; delete a line there to measure it
again.

usage: python -m benchmarks.run precision
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import results_file
from benchmarks.heads import LAYERS, with_layers
from benchmarks.recipe import DATA, EPISODES, SEEDS, STEPS, cell_names, evaluation_on, tested
from benchmarks.table import Table

RESULTS = Path(__file__).with_suffix(".json")
TRIAL = "trial"
KINDS = ("fp32", "bf16", "bf16, used in fp32")  # precision of the training, and of the test if it differs


def measure_cell(name: str, seed: int) -> dict[str, Any]:
    """Accuracies and CPU seconds of one trial in both precisions.

    Args:
        name: ``"DATA: trial"``.
        seed: seed of the trial, of the head and of the episodes.
    """
    from nas_meta.evaluation.hyperparameters import with_options
    from nas_meta.evaluation.trial import result_of

    space = {"name": "bert-subnet", "heads": [1.0], "ffn": [1.0], "importance_episodes": 1}
    learner = {"distance": "cosine", "steps": STEPS}
    full = evaluation_on(name.partition(":")[0], space, learner, {}, seed)
    full = replace(full, settings=replace(full.settings, episodes=200))
    kinds = {name: replace(full, compute=replace(full.compute, precision=name)) for name in ("fp32", "bf16")}
    architecture = with_layers(full.space, LAYERS)
    found: dict[str, Any] = {"seconds": {}}
    for precision, evaluation in kinds.items():
        short = with_options(evaluation.learner, steps=2)
        result_of(replace(evaluation, learner=short).trial(architecture, seed))  # warms up
        started = time.process_time()
        trained = result_of(evaluation.trial(architecture, seed, keep_above=0.0))
        found["seconds"][precision] = round(time.process_time() - started, 1)
        weights = bytes(trained.weights)
        found[precision] = tested(evaluation, evaluation.restored(architecture, weights), seed)
    found["bf16, used in fp32"] = tested(kinds["fp32"], kinds["fp32"].restored(architecture, weights), seed)
    return found


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per data set, and the differences over all of them."""
    rows = []
    gaps: dict[str, dict[str, list[float]]] = {kind: {"1": [], "5": []} for kind in KINDS[1:]}
    for data in DATA:
        cells = [results[key] for seed in SEEDS if (key := f"{data}: {TRIAL} {seed}") in results]
        if not cells:
            continue
        for kind, by_shots in gaps.items():
            for shots, values in by_shots.items():
                values.extend(100 * (cell[kind][shots] - cell["fp32"][shots]) for cell in cells)
        seconds = {p: sum(cell["seconds"][p] for cell in cells) / len(cells) for p in ("fp32", "bf16")}
        means = [
            " / ".join(f"{100 * sum(cell[kind][shots] for cell in cells) / len(cells):.1f}" for shots in ("1", "5"))
            for kind in KINDS
        ]
        rows.append([data, *means, *(f"{value:.0f} s" for value in seconds.values())])
    differences = [
        " / ".join(results_file.mean_and_interval(values, 2) for values in by_shots.values())
        for by_shots in gaps.values()
    ]
    rows.append(["**difference from fp32**", "", *differences, "", ""])
    return Table(
        ("data", *KINDS, "trial in fp32", "trial in bf16"),
        rows,
        f"Meta-test accuracy in %, 1 shot / 5 shots, 5 ways, {EPISODES} episodes; means over the seeds "
        f"{', '.join(map(str, SEEDS))}. Differences are in points, paired by data set and seed, with 95% intervals by "
        "Student's t. Times are CPU seconds on one core.",
    )


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    return table(results_file.measure_missing(RESULTS, cell_names([TRIAL]), SEEDS, measure_cell))
