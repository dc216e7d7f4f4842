"""What candidates gain when they inherit the weights of the nearest one that was pre-trained before them.

Random architectures of ``encoder`` come one after the other, as they do in a search, in 5-way 1-shot on ICD-10-CM.
Each is pre-trained on masked words three times: from its own initial weights, from those of the nearest architecture
before it (``inherit: true``), and so for half of the steps; each time it is meta-trained alike and judged on the same
200 meta-validation episodes. The first of them has nobody to inherit from and is left out.

What was measured is kept in ``benchmarks/inheritance.json`` and not measured again; delete a line there to measure it
anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results_file
from benchmarks.random_architectures import drawn
from benchmarks.table import Table

KEPT = Path(__file__).with_suffix(".json")
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
BEGINNINGS = {
    f"its own initial weights, {STEPS} steps": (False, STEPS),
    f"inherited, {STEPS} steps": (True, STEPS),
    f"inherited, {STEPS // 2} steps": (True, STEPS // 2),
}


def measure_chain(beginning: str, seed: int) -> dict[str, Any]:
    """Architectures that come one after the other: the loss of their last steps of pre-training, and their accuracy."""
    from nas_meta.assembly import make_evaluation, prepare
    from nas_meta.config import resolve
    from nas_meta.pretraining.assembly import make_stage, read_corpus
    from nas_meta.pretraining.inheritance import nearest

    inherits, steps = BEGINNINGS[beginning]
    resolved = resolve({**DOCUMENT, "seed": seed, "pretraining": {**DOCUMENT["pretraining"], "steps": steps}})
    space, tasks, shape = prepare(resolved)
    space.prepare(tasks, seed)
    evaluation = make_evaluation(resolved, space, tasks, shape, cpus=1)
    evaluation = replace(evaluation, pretraining=make_stage(resolved, read_corpus(resolved), space))
    evaluation.setup()
    architectures = drawn(space, COUNT, seed)
    weights, losses, accuracies = [], [], []
    for number, architecture in enumerate(architectures):
        found = nearest(architecture, architectures[:number], space.table) if inherits else None
        trial = evaluation.trial(architecture, seed, donor=None if found is None else weights[found])
        try:
            while True:
                progress = next(trial)
                if progress.pretrained is not None:
                    weights.append(progress.pretrained)
                    losses.append(progress.values["pretrain/loss"])
        except StopIteration as end:
            accuracies.append(end.value.metrics["accuracy"])
    return {"losses": losses, "accuracies": accuracies}


def gain(ours: list[float], theirs: list[float], scale: float, digits: int) -> str:
    """The mean difference over architectures of all seeds, with its 95% interval; the architectures are the same."""
    return results_file.over_seeds([scale * (a - b) for a, b in zip(ours, theirs, strict=True)], digits)


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    def later(beginning: str, what: str) -> list[float]:
        return [value for seed in SEEDS for value in results[f"{beginning} {seed}"][what][1:]]

    plain, rows = next(iter(BEGINNINGS)), []
    for beginning in BEGINNINGS:
        losses, accuracies = later(beginning, "losses"), later(beginning, "accuracies")
        rows.append(
            [
                beginning,
                f"{np.mean(losses):.2f}",
                "" if beginning == plain else gain(losses, later(plain, "losses"), 1, 2),
                f"{100 * np.mean(accuracies):.1f}",
                "" if beginning == plain else gain(accuracies, later(plain, "accuracies"), 100, 1),
            ]
        )
    return Table(
        ("pre-trained from", "loss", "difference", "accuracy, %", "difference, points"),
        rows,
        f"Means over {(COUNT - 1) * len(SEEDS)} architectures of {len(SEEDS)} seeds: the loss of the last ten steps of "
        "pre-training, on rows that it had not seen before, and the accuracy on meta-validation after 60 steps of "
        "meta-training. Differences are paired, with 95% intervals by Student's t.",
    )


def measure() -> Table:
    return table(results_file.completed(KEPT, BEGINNINGS, SEEDS, measure_chain))
