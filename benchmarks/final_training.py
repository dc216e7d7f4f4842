"""What the final training of a search gains, on two sub-networks of MiniLM, with four and with six layers.

A sub-network is trained as a trial is, with the default training and one example per class. Then it is trained for
160 more steps, without and with a meta-trained teacher. A search uses the result where it is better on the
meta-validation episodes of the trial. Everything is tested on 600 5-way episodes of the meta-test classes, with one and
with five examples per class, on the data sets of ``benchmarks/recipe.py``. Results are stored in
``benchmarks/final_training.json``; delete a line there to measure it again.

usage: python -m benchmarks.run final_training
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import results_file
from benchmarks.recipe import DATA, SEEDS, STEPS, cell_names, evaluation_on, tested
from benchmarks.table import Table

RESULTS = Path(__file__).with_suffix(".json")
FURTHER = 160  # steps of the final training
EPISODES = 200  # of meta-validation
FOUR = {"layers": (0, 1, 2, 5), "heads": 0.75, "ffn": 0.5}  # 39 % of MiniLM's FLOPs
SIX = {"layers": range(6), "heads": 0.75, "ffn": 0.75}  # 75 %
TEACHER = {"trained": True, "weight": 10.0}
TAUGHT = "160 steps, `distill: {trained: true, weight: 10}`"
VARIANTS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any] | None]] = {
    "160 steps": (FOUR, None),
    TAUGHT: (FOUR, TEACHER),
    f"six layers, {TAUGHT}": (SIX, TEACHER),
}


def measure_cell(name: str, seed: int) -> dict[str, Any]:
    """Accuracies before and after the final training.

    Args:
        name: ``"DATA: VARIANT"``.
        seed: seed of the trainings, of the head and of the episodes.
    """
    from benchmarks.heads import with_layers
    from nas_meta.config.resolved import resolve
    from nas_meta.config.teacher import teacher_of
    from nas_meta.evaluation.final_training import FinalTraining
    from nas_meta.evaluation.trial import result_of
    from nas_meta.learners.training.distillation import Distillation

    data, _, variant = name.partition(": ")
    model, options = VARIANTS[variant]
    space = {"name": "bert-subnet", "heads": [model["heads"]], "ffn": [model["ffn"]], "importance_episodes": 20}
    evaluation = evaluation_on(data, space, {"distance": "cosine", "steps": STEPS}, {}, seed)
    evaluation = replace(evaluation, settings=replace(evaluation.settings, episodes=EPISODES))
    architecture, teacher = with_layers(evaluation.space, model["layers"]), None
    distill = Distillation.model_validate(options) if options else None
    if distill is not None:
        teacher = teacher_of(evaluation, resolve({"seed": seed}), distill, "final_training.distill").embeddings()
    started = time.process_time()
    trial = result_of(evaluation.trial(architecture, seed, keep_above=0.0))
    trained = time.process_time()
    final = FinalTraining(FURTHER, distill=distill, teacher=teacher)
    further = result_of(evaluation.train_further(architecture, trial.weights, seed, final))
    seconds = {"trial": trained - started, "final": time.process_time() - trained}
    models = {"before": trial, "after": further}
    return {
        "seconds": {key: round(value, 1) for key, value in seconds.items()},
        "validated": {key: model.metrics["accuracy"] for key, model in models.items()},
        **{
            key: tested(evaluation, evaluation.restored(architecture, bytes(model.weights)), seed)
            for key, model in models.items()
        },
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Accuracies before and after, one row per data set and final training, and the gains over all data sets."""
    rows = []
    for variant in VARIANTS:
        gains: dict[str, list[float]] = {"1": [], "5": []}
        for data in DATA:
            cells = [results[key] for seed in SEEDS if (key := f"{data}: {variant} {seed}") in results]
            if not cells:
                continue
            used = ["after" if c["validated"]["after"] > c["validated"]["before"] else "before" for c in cells]
            own = {s: [100 * (c[u][s] - c["before"][s]) for c, u in zip(cells, used, strict=True)] for s in gains}
            for shots, values in own.items():
                gains[shots].extend(values)
            rows.append(
                [
                    variant, data, *(_both(cells, key) for key in ("before", "after")),
                    f"{used.count('after')} of {len(cells)}",
                    *(results_file.mean_and_interval(values, 1) for values in own.values()),
                    f"{_mean([c['seconds']['trial'] for c in cells]):.0f} + "
                    f"{_mean([c['seconds']['final'] for c in cells]):.0f} s",
                ]
            )  # fmt: skip
        if gains["1"]:
            means = [results_file.mean_and_interval(values, 1) for values in gains.values()]
            rows.append([f"**{variant}**", "all", "", "", "", *means, ""])
    return Table(
        ("final training", "data", "trial", "after", "used", "gain, 1 shot", "gain, 5 shots", "CPU time"),
        rows,
        f"Meta-test accuracy in %, 1 shot / 5 shots; means over the seeds {', '.join(map(str, SEEDS))}. The models "
        "keep MiniLM's layers 0, 1, 2 and 5 with half of their neurons, or all six with three quarters, and three "
        "quarters of the heads: 39 % and 75 % of its FLOPs. A result is used where its meta-validation accuracy is "
        "higher; otherwise the trial keeps its weights, and the gain is 0. Gains are those of what is used, in points, "
        "with 95% intervals by Student's t over seeds, and over seeds and data sets in the rows of all. CPU time: "
        "trial and final training on one core, without the teacher.",
    )


def _both(cells: list[Mapping[str, Any]], key: str) -> str:
    """Mean accuracies with one and with five examples per class, in %."""
    return " / ".join(f"{100 * _mean([cell[key][shots] for cell in cells]):.1f}" for shots in ("1", "5"))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    return table(results_file.measure_missing(RESULTS, cell_names(VARIANTS), SEEDS, measure_cell))
