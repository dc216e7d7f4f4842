"""Gain of candidates that inherit the weights of the nearest architecture pre-trained before them.

Random architectures of ``encoder`` follow one another as in a search, with 5-way 1-shot episodes of ICD-10-CM. Each is
pre-trained on masked words three times: from its own initial weights, from the weights of the nearest architecture
before it (``inherit: true``), and again from those for half of the steps. Each time it is meta-trained alike and
evaluated on the same 200 meta-validation episodes. The first architecture has no donor and is left out.

Results are stored in ``benchmarks/inheritance.json``; delete a line there to measure it again.

usage: python -m benchmarks.run inheritance
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results_file
from benchmarks.plain_training import plain
from benchmarks.random_architectures import sample_distinct
from benchmarks.table import Table

RESULTS = Path(__file__).with_suffix(".json")
COUNT, STEPS = 10, 100  # architectures, steps of pre-training
SEEDS = (1, 2, 3)
DOCUMENT: Mapping[str, Any] = {
    "pretraining": {"objective": "mlm", "batch": 16, "block": 64, "steps": STEPS, "inherit": True},
    "space": {
        "name": "encoder", "depth": [2, 4], "hidden": [128, 256], "heads": [4, 8], "positions": ["learned", "rotary"],
        "attention": ["full"],
    },
    "learner": {"name": "protonet", "steps": 60, "lr": 1e-4, "train_embeddings": True},
    "evaluation": {"episodes": 200},
}  # fmt: skip
INITIALISATIONS = {
    f"its own initial weights, {STEPS} steps": (False, STEPS),
    f"inherited, {STEPS} steps": (True, STEPS),
    f"inherited, {STEPS // 2} steps": (True, STEPS // 2),
}


def measure_sequence(initialisation: str, seed: int) -> dict[str, Any]:
    """Pre-trains, meta-trains and evaluates a sequence of architectures.

    Args:
        initialisation: a name in ``INITIALISATIONS``.
        seed: seed of the architectures and their training.

    Returns:
        For each architecture, the loss of its last pre-training steps and its meta-validation accuracy.
    """
    from nas_meta.config.components import make_evaluation
    from nas_meta.config.pretraining import make_stage, read_corpus
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve
    from nas_meta.evaluation.pretraining.weight_inheritance import nearest

    inherits, steps = INITIALISATIONS[initialisation]
    resolved = resolve(plain({**DOCUMENT, "seed": seed, "pretraining": {**DOCUMENT["pretraining"], "steps": steps}}))
    space, tasks, shape = load_problem(resolved)
    evaluation = make_evaluation(resolved, space, tasks, shape, cpus=1)
    evaluation = replace(evaluation, pretraining=make_stage(resolved, read_corpus(resolved), space))
    evaluation.setup()
    architectures = sample_distinct(space, COUNT, seed)
    weights, losses, accuracies = [], [], []
    for number, architecture in enumerate(architectures):
        donor = nearest(architecture, architectures[:number], space.table) if inherits else None
        trial = evaluation.trial(architecture, seed, donor=None if donor is None else weights[donor])
        try:
            while True:
                progress = next(trial)
                if progress.pretrained is not None:
                    weights.append(progress.pretrained)
                    losses.append(progress.values["pretrain/loss"])
        except StopIteration as end:
            accuracies.append(end.value.metrics["accuracy"])
    return {"losses": losses, "accuracies": accuracies}


def paired_difference(values: list[float], baseline: list[float], scale: float, digits: int) -> str:
    """Mean difference from a baseline on the same architectures, over all seeds, with its 95% interval."""
    return results_file.mean_and_interval([scale * (a - b) for a, b in zip(values, baseline, strict=True)], digits)


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Losses, accuracies and paired differences, one row per initialisation."""

    def without_first(initialisation: str, metric: str) -> list[float]:
        return [value for seed in SEEDS for value in results[f"{initialisation} {seed}"][metric][1:]]

    baseline, rows = next(iter(INITIALISATIONS)), []
    base_losses, base_accuracies = without_first(baseline, "losses"), without_first(baseline, "accuracies")
    for initialisation in INITIALISATIONS:
        losses, accuracies = without_first(initialisation, "losses"), without_first(initialisation, "accuracies")
        rows.append(
            [
                initialisation,
                f"{np.mean(losses):.2f}",
                "" if initialisation == baseline else paired_difference(losses, base_losses, 1, 2),
                f"{100 * np.mean(accuracies):.1f}",
                "" if initialisation == baseline else paired_difference(accuracies, base_accuracies, 100, 1),
            ]
        )
    return Table(
        ("pre-trained from", "loss", "difference", "accuracy, %", "difference, points"),
        rows,
        f"Means over {(COUNT - 1) * len(SEEDS)} architectures of {len(SEEDS)} seeds. The loss is that of the last ten "
        "pre-training steps, on rows that the model had not seen before; the accuracy is on meta-validation after 60 "
        "meta-training steps. Differences are paired, with 95% intervals by Student's t.",
    )


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    return table(results_file.measure_missing(RESULTS, INITIALISATIONS, SEEDS, measure_sequence))
